"""Which sockets a process holds, and what the kernel says of them: read from /proc, of the processes of our own user."""

import contextlib
import os
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Generic, NamedTuple, TypeVar

Answer = TypeVar("Answer")


REST = 30  # times what an answer cost in processor time, until it is asked for anew: a share of 3 %


class Spot(NamedTuple):
    """An address and a port."""

    address: str
    port: int


class Seldom(Generic[Answer]):
    """An answer that costs more the more sockets there are: given again, as it was, while asking anew would take more than
    a small share of the processor. A service of names has 50,000 sessions at 1,000 questions a second, and reading them
    takes seconds."""

    def __init__(self, asked: Callable[[], Answer]) -> None:
        self._asked = asked
        self._answer: Answer | None = None
        self._due = 0.0

    def __call__(self) -> Answer:
        """*Any thread*; two that come at once may both ask."""
        answer = self._answer
        if answer is None or time.monotonic() >= self._due:
            began = time.thread_time()
            answer = self._answer = self._asked()
            self._due = time.monotonic() + REST * (time.thread_time() - began)
        return answer


def held(pid: int) -> int:
    """How many descriptors it holds, of whatever kind; 0 when it is gone."""
    with contextlib.suppress(OSError):
        return len(os.listdir(f"/proc/{pid}/fd"))
    return 0


def inodes(pid: int) -> set[str]:
    """Of each socket that it holds; none when it is gone or another user's."""
    return {inode for _descriptor, inode in descriptors(pid)}


def descriptors(pid: int) -> list[tuple[int, str]]:
    """Descriptor and inode of each socket that it holds; none when it is gone or another user's."""
    found: list[tuple[int, str]] = []
    with contextlib.suppress(OSError):
        for entry in os.listdir(f"/proc/{pid}/fd"):
            inode = inode_of(pid, int(entry))
            if inode is not None:
                found.append((int(entry), inode))
    return found


def inode_of(pid: int, descriptor: int) -> str | None:
    """Of the socket that this descriptor is; None when it is none, or no more."""
    with contextlib.suppress(OSError):
        target = os.readlink(f"/proc/{pid}/fd/{descriptor}")
        if target.startswith("socket:["):
            return target[8:-1]
    return None


def table(protocol: str) -> Iterator[tuple[str, Spot, Spot]]:
    """Every socket of `tcp` or `udp` in this network namespace: inode, own end, other end (port 0: not connected)."""
    return ((words[9], _spot(words[1]), _spot(words[2])) for words in _lines(protocol))


def peers(protocol: str, of: Collection[str]) -> Counter[Spot]:
    """The other ends of those of these sockets that are connected, but for such as are connected to themselves."""
    return _counted(words[2] for words in _lines(protocol) if words[9] in of and _has_peer(words))


def own_ends(protocol: str, of: Collection[str]) -> Counter[Spot]:
    """The own ends of those of these sockets that are connected."""
    return _counted(words[1] for words in _lines(protocol) if words[9] in of and _has_peer(words))


def _counted(ends: Iterable[str]) -> Counter[Spot]:
    """There are many sockets and few ends: the words are counted, and few of them are read."""
    counts = Counter(ends)
    return Counter({_spot(end): count for end, count in counts.items()})


def _has_peer(words: list[str]) -> bool:
    return not words[2].endswith(":0000") and words[1] != words[2]


def _lines(protocol: str) -> Iterator[list[str]]:
    for path in (f"/proc/net/{protocol}", f"/proc/net/{protocol}6"):
        with contextlib.suppress(OSError), open(path) as lines:
            next(lines)
            for line in lines:
                yield line.split(maxsplit=10)


def _spot(text: str) -> Spot:
    """As the kernel has it: words of four bytes, each in the machine's order."""
    address, _, port = text.partition(":")
    packed = b"".join(struct.pack("=I", int(address[at : at + 8], 16)) for at in range(0, len(address), 8))
    return Spot(socket.inet_ntop(socket.AF_INET6 if len(packed) == 16 else socket.AF_INET, packed), int(port, 16))
