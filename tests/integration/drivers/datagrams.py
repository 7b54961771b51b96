"""Members that answer datagrams with their name, and clients that ask them."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter

from frontinus.drivers.amphora.agent.stream import canonical

from tests.integration.drivers.world import MEMBERS, VIP

CHECK = b"X"
"""What the agent's examination sends."""


class DatagramMember(asyncio.DatagramProtocol):
    """Remembers what it got from clients, and from whom; `answers` says whether it answers."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.port = 0
        self.answers = True
        self.heard: list[bytes] = []
        self._transport: asyncio.DatagramTransport | None = None

    async def start(self) -> DatagramMember:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=(MEMBERS, self.port))
        self._transport = transport
        self.port = int(transport.get_extra_info("sockname")[1])
        return self

    def stop(self) -> None:
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if data != CHECK:
            self.heard.append(data)
            if self.answers and self._transport is not None:
                self._transport.sendto(self.name.encode(), addr)


def free_source_port() -> int:
    """One that no datagram socket has now, nginx's own to its members included."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as trial:
        trial.bind(("", 0))
        return int(trial.getsockname()[1])


_asked_from: set[int] = set()
"""A UDP session belongs to its client's port for as long as it lasts: a second question from there takes no turn."""


def _first_use_of_a_port(client: socket.socket, source: str) -> None:
    """Bind `client` to a port from which nobody has asked yet.

    The system gives a port again soon after it was freed: among 16 questions, once in a few hundred runs.
    """
    while True:
        port = free_source_port()
        if port not in _asked_from:
            _asked_from.add(port)
            client.bind((source, port))
            return


async def ask(
    port: int, *, source: str | None = None, source_port: int = 0, address: str = VIP, within: float = 1.0
) -> str:
    """One datagram from a socket of its own; who answered, or nothing."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    loop = asyncio.get_running_loop()
    with socket.socket(family, socket.SOCK_DGRAM) as client:
        client.setblocking(False)
        if source_port:
            client.bind((source or "127.0.0.1", source_port))
        else:
            _first_use_of_a_port(client, source or "")
        client.connect((canonical(address, "address"), port))
        try:
            await loop.sock_sendall(client, b"who?")
            async with asyncio.timeout(within):
                return (await loop.sock_recv(client, 100)).decode()
        except (TimeoutError, ConnectionRefusedError):
            return ""


async def spread(port: int, count: int, address: str = VIP) -> Counter[str]:
    """Who answers `count` datagrams, each from a new socket."""
    return Counter([await ask(port, address=address) for _ in range(count)])
