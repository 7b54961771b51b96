"""Logs as a syslog receiver gets them, over UDP and over TCP, from a real HAProxy."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from frontinus.model.enums import HealthMonitorType, ListenerProtocol
from frontinus.model.tree import LoadBalancerTree

from tests.integration.drivers.world import MEMBERS, VIP, World, ask, closed, free_port, until
from tests.unit.drivers.trees import AMPHORA, a_listener, a_load_balancer, a_member, a_monitor, a_pool, a_tree, number


class Receiver:
    """A syslog receiver of the two transports; every message as text, in the order of arrival."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.address = ""
        self._serving: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    @asynccontextmanager
    async def listening(self, protocol: str) -> AsyncIterator[Receiver]:
        loop = asyncio.get_running_loop()
        if protocol == "UDP":
            transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self), local_addr=("127.0.0.1", 0))
            self.address = "{}:{}".format(*transport.get_extra_info("sockname"))
            try:
                yield self
            finally:
                transport.close()
            return
        server = await asyncio.start_server(self._begin, "127.0.0.1", 0)
        self.address = "{}:{}".format(*server.sockets[0].getsockname())
        try:
            yield self
        finally:
            server.close()
            # HAProxy keeps its connections open for as long as it runs.
            for writer in self._serving.values():
                writer.transport.abort()
            await asyncio.gather(*self._serving)

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._serving[task] = writer
        task.add_done_callback(self._serving.pop)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Octet counting or lines (RFC 6587 3.4): HAProxy's rings send lines unless told."""
        try:
            while line := await reader.readline():
                self.messages.append(line.decode().rstrip("\n"))
        except ConnectionError:
            return
        finally:
            await closed(writer)


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver

    def datagram_received(self, data: bytes, addr: object) -> None:
        self._receiver.messages.append(data.decode().rstrip("\n"))


def priority(facility: int, severity: int) -> str:
    return f"<{(16 + facility) * 8 + severity}>"


@pytest.mark.parametrize("protocol", ["UDP", "TCP"])
async def test_flow_logs_and_messages_reach_their_receivers(tmp_path: Path, protocol: str) -> None:
    tenants, operators = Receiver(), Receiver()
    async with tenants.listening(protocol), operators.listening(protocol):
        world = World(
            tmp_path,
            tenant_log_targets=(tenants.address,),
            admin_log_targets=(operators.address,),
            log_protocol=protocol,
            user_log_facility=3,
        )
        world.start_agent()
        try:
            await world.answering()
            await _see(world, tenants, operators)
        finally:
            await world.close()
            await until(lambda: not world.haproxy_pids())


async def _see(world: World, tenants: Receiver, operators: Receiver) -> None:
    member = await world.member("one")
    web, raw = free_port(), free_port()
    tree: LoadBalancerTree = a_tree(
        a_load_balancer(VIP),
        listeners=[a_listener(port=web), a_listener(11, port=raw, protocol=ListenerProtocol.TCP)],
        pools=[a_pool()],
        members=[a_member(address=MEMBERS, port=member.port)],
        monitors=[a_monitor(type=HealthMonitorType.TCP)],
    )
    await world.apply(tree)
    assert await ask(web, path="/a?b=%20c") == "one"
    assert await ask(raw) == "one"
    start = re.escape(priority(3, 6)) + rf"[A-Z][a-z]{{2}} [ 0-9]\d [0-9:]{{8}} amphora-{AMPHORA} haproxy\[\d+\]: "
    start += f"{tree.load_balancer.project_id} {tree.id} "
    client = r" 127\.0\.0\.1 \d+ \S+ "
    of_web = re.compile(
        start + number(10) + client + r'"GET /a\?b=%20c HTTP/1\.1" 200 \d+ \d+ \S+ \S+ '
        rf"{number(20)}:{number(10)} {number(30)} \d+ \S+"
    )
    of_raw = re.compile(start + number(11) + client + r"- - \d+ \d+ ")

    await until(
        lambda: any(of_web.match(x) for x in tenants.messages) and any(of_raw.match(x) for x in tenants.messages)
    )
    assert not any(number(10) in x and "GET" in x for x in operators.messages)
    await member.stop()
    down = re.compile(rf"{re.escape(priority(1, 1))}.*Server {number(20)}:{number(10)}/{number(30)} is DOWN")
    await until(lambda: any(down.match(x) for x in operators.messages))
    assert not any("is DOWN" in x for x in tenants.messages)
