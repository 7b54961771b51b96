"""Take datagrams from the socket in batches and hand each to a function. Knows nothing of what is in them.

asyncio's datagram endpoint costs more than verifying a heartbeat does (TECH.md), so the socket is drained by hand."""

from __future__ import annotations

import asyncio
import ctypes
import socket
import struct
from collections.abc import Callable
from contextlib import suppress

from frontinus.health.settings import HealthSettings

MAX_DATAGRAM = 65_536
# Of linux/in.h and linux/in6.h; the socket module does not name them.
_IP_FREEBIND, _SOL_IPV6, _IPV6_FREEBIND = 15, 41, 78

_UDP_HEADER = 8
_SO_ATTACH_FILTER = 26
_SO_RCVBUFFORCE = 33
_SO_MEMINFO, _DROPS = 55, 8 * 4
"""Of asm-generic/socket.h; and where in it, of linux/sock_diag.h, stands what was dropped (SK_MEMINFO_DROPS)."""
_LOAD_WORD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
"""Of linux/filter.h and linux/bpf_common.h: BPF_LD|BPF_W|BPF_ABS, BPF_JMP|BPF_JEQ|BPF_K, BPF_RET|BPF_K."""


def only_prefixed(udp: socket.socket, prefixes: tuple[bytes, ...]) -> None:
    """Have the kernel drop what begins with none of these prefixes, of four bytes each: a flood of noise then costs this
    process nothing, and leaves the buffer to heartbeats. Where the kernel has no filters nothing is dropped."""
    instruction = struct.Struct("HBBI")
    program = [instruction.pack(_LOAD_WORD, 0, 0, _UDP_HEADER)]
    for left, prefix in zip(range(len(prefixes) - 1, -1, -1), prefixes, strict=True):
        (word,) = struct.unpack(">I", prefix)
        program.append(instruction.pack(_JUMP_IF_EQUAL, left + 1, 0, word))
    program += [instruction.pack(_RETURN, 0, 0, 0), instruction.pack(_RETURN, 0, 0, 0xFFFFFFFF)]
    code = ctypes.create_string_buffer(b"".join(program))
    with suppress(OSError):
        udp.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(program), ctypes.addressof(code)))


class Receiver:
    """A bound UDP socket on the running loop. Construct, `start`, `close`."""

    def __init__(
        self, settings: HealthSettings, take: Callable[[memoryview], None], prefixes: tuple[bytes, ...] = ()
    ) -> None:
        """Binds at once, so that a port in use is an error at start. Datagrams that begin with none of the `prefixes` are
        dropped by the kernel; without prefixes none is. Raises OSError naming the address."""
        family = socket.AF_INET6 if ":" in settings.bind_host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, settings.receive_buffer)
        except PermissionError:  # only root may have more than net.core.rmem_max
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, settings.receive_buffer)
        if prefixes:
            only_prefixed(self._socket, prefixes)
        if settings.bind_early:
            level, option = (_SOL_IPV6, _IPV6_FREEBIND) if family == socket.AF_INET6 else (socket.SOL_IP, _IP_FREEBIND)
            self._socket.setsockopt(level, option, 1)
        try:
            self._socket.bind((settings.bind_host, settings.bind_port))
        except OSError as error:
            self._socket.close()
            raise OSError(
                error.errno,
                f"{error.strerror} (heartbeats cannot be received on {settings.bind_host} UDP port {settings.bind_port}; "
                "set another health.bind_port, or 0 for any free one)",
            ) from error
        self.is_crowded = False
        """Whether more comes than is taken: since a batch was full, until nothing waits."""
        self._was_crowded = False
        self._drops = 0
        self._batch = settings.batch
        self._take = take
        self._buffer = bytearray(MAX_DATAGRAM)
        self._view = memoryview(self._buffer)

    @property
    def port(self) -> int:
        """The bound port; of use when the settings said 0."""
        return int(self._socket.getsockname()[1])

    def start(self) -> None:
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._drain)

    def close(self) -> None:
        if self._socket.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()

    def has_overflowed(self) -> bool:
        """Whether the kernel had no room for some datagrams since this was asked last. What only the filter dropped does not
        count: that was nobody's heartbeat, and the kernel counts both as one."""
        (drops,) = struct.unpack_from("I", self._socket.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 36), _DROPS)
        grew, self._drops = drops != self._drops, drops
        was_crowded, self._was_crowded = self._was_crowded or self.is_crowded, False
        return grew and was_crowded

    def _drain(self) -> None:
        for _ in range(self._batch):
            try:
                length = self._socket.recv_into(self._buffer)
            except (BlockingIOError, InterruptedError):
                self.is_crowded = False
                return
            except OSError:
                return  # an ICMP answer to a datagram that somebody else sent; nothing of ours is lost
            self._take(self._view[:length])
        try:
            self._socket.recv_into(self._buffer, 1, socket.MSG_PEEK)
        except OSError:
            self.is_crowded = False
        else:
            self.is_crowded = self._was_crowded = True
