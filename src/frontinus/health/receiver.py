"""Take datagrams from the socket in batches and hand each to a function. Knows nothing of what is in them.

asyncio's datagram endpoint costs more than verifying a heartbeat does (TECH.md), so the socket is drained by hand."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from frontinus.health.settings import HealthSettings

MAX_DATAGRAM = 65_536


class Receiver:
    """A bound UDP socket on the running loop. Construct, `start`, `close`."""

    def __init__(self, settings: HealthSettings, take: Callable[[memoryview], None]) -> None:
        """Binds at once, so that a port in use is an error at start. Raises OSError naming the address."""
        family = socket.AF_INET6 if ":" in settings.bind_host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, settings.receive_buffer)
        try:
            self._socket.bind((settings.bind_host, settings.bind_port))
        except OSError as error:
            self._socket.close()
            raise OSError(
                error.errno,
                f"{error.strerror} (heartbeats cannot be received on {settings.bind_host} UDP port {settings.bind_port}; "
                "set another health.bind_port, or 0 for any free one)",
            ) from error
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

    def _drain(self) -> None:
        for _ in range(self._batch):
            try:
                length = self._socket.recv_into(self._buffer)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                return  # an ICMP answer to a datagram that somebody else sent; nothing of ours is lost
            self._take(self._view[:length])
