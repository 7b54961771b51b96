"""Whether anybody is where the other amphora of the pair should be.

A machine that lives answers a connection, be it by refusing it; a dead one, or one behind a cut cable, says nothing. Asked
from our own address and at the port of stick tables, because the network lets the peer in there and nobody else
(controller/plugging.py of the control plane). It never decides what silence means: vrrp.py does."""

import contextlib
import errno
import re
import select
import socket
import time
from typing import NamedTuple

PORT = 1025
"""Where amphorae of a pair tell each other their stick tables, if they have any (contract/amphora-agent.yaml, peers)."""

_ANSWERS = (0, errno.ECONNREFUSED)
_OWN = re.compile(r"^\s*unicast_src_ip\s+([0-9a-fA-F.:]+)\s*$", re.MULTILINE)
_PEERS = re.compile(r"^\s*unicast_peer\s*\{([^}]*)\}", re.MULTILINE)


class Sides(NamedTuple):
    """Our own address in a configuration of keepalived, and those of its peers."""

    own: str
    peers: tuple[str, ...]


def sides(text: str) -> Sides | None:
    """None where the text does not say whom it speaks to: adverts go to everybody then. Pure."""
    own, peers = _OWN.search(text), _PEERS.search(text)
    if own is None or peers is None:
        return None
    return Sides(own[1], tuple(words[0] for line in peers[1].splitlines() if (words := line.split())))


def somebody_answers(asked: Sides, patience: float, port: int = PORT) -> bool:
    """Whether one of the peers answers within `patience` seconds, which it takes only when none does."""
    with contextlib.ExitStack() as stack:
        waiting = select.poll()
        asking: dict[int, socket.socket] = {}
        for address in asked.peers:
            asker = stack.enter_context(
                socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
            )
            asker.setblocking(False)
            try:
                asker.bind((asked.own, 0))
                code = asker.connect_ex((address, port))
            except OSError:  # not even an address to ask from
                continue
            if code in _ANSWERS:
                return True
            if code == errno.EINPROGRESS:
                asking[asker.fileno()] = asker
                waiting.register(asker, select.POLLOUT)
        deadline = time.monotonic() + patience
        while asking and (left := deadline - time.monotonic()) > 0:
            for descriptor, _event in waiting.poll(left * 1000):
                if asking[descriptor].getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) in _ANSWERS:
                    return True
                waiting.unregister(descriptor)
                del asking[descriptor]
        return False
