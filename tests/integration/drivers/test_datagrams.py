"""UDP listeners mean what was asked: real datagrams through a real agent's nginx, beside HAProxy or without it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
from msgspec.structs import replace

from frontinus.drivers.amphora.agent.heartbeat import decode_envelope
from frontinus.drivers.amphora.haproxy.render import CAPABILITIES
from frontinus.model.capabilities import require
from frontinus.model.enums import HealthMonitorType, LbAlgorithm, ListenerProtocol, PoolProtocol, SessionPersistenceType
from frontinus.model.errors import Unsupported
from frontinus.model.heartbeat import Heartbeat
from frontinus.model.tree import SessionPersistence

from tests.integration.drivers import world as worlds
from tests.integration.drivers.datagrams import DatagramMember, ask, free_source_port, spread
from tests.integration.drivers.site import SiteOf
from tests.integration.drivers.world import CLIENTS, MEMBERS, VIP, World, free_port, serving, until
from tests.unit.drivers.trees import (
    a_listener,
    a_member,
    a_monitor,
    a_pool,
    a_tree,
    number,
)

LISTENER, POOL = number(10), number(20)


class Site(SiteOf[DatagramMember]):
    """Before members that answer datagrams, and what is said of them."""

    protocol = ListenerProtocol.UDP

    async def beat(self) -> Heartbeat:
        """What the next heartbeat says."""
        loop = asyncio.get_running_loop()
        datagram = await loop.sock_recv(self.world.heartbeats, 65536)
        return decode_envelope(datagram, self.world.heartbeat_key)

    async def statuses(self) -> dict[str, str]:
        """What is said of the members, by their names."""
        report = (await self.beat()).pools.get(POOL)
        said = {} if report is None else report.members
        return {member.name: said.get(number(30 + index), "") for index, member in enumerate(self.members)}

    async def becomes(self, **statuses: str) -> None:
        async def is_so() -> bool:
            return {**dict.fromkeys((x.name for x in self.members), "UP"), **statuses} == await self.statuses()

        await until(is_so)


@pytest.fixture
async def site(world: World) -> AsyncIterator[Site]:
    members = [await DatagramMember(name).start() for name in ("one", "two", "three")]
    yield Site(world, members, free_port())
    for member in members:
        member.stop()


async def test_round_robin_takes_turns(site: Site) -> None:
    assert await site.shows() == "start"
    assert await spread(site.port, 9) == {"one": 3, "two": 3, "three": 3}
    assert site.world.haproxy_pids() == []


async def test_weights_are_kept(site: Site) -> None:
    await site.shows(rows=site.rows(one={"weight": 1}, two={"weight": 2}, three={"weight": 5}))
    assert await spread(site.port, 16) == {"one": 2, "two": 4, "three": 10}


async def test_datagrams_of_one_client_go_to_one_member(site: Site) -> None:
    """They belong together while the listener's timeout lasts."""
    await site.shows()
    source_port = free_source_port()
    assert len({await ask(site.port, source_port=source_port) for _ in range(6)}) == 1


@pytest.mark.parametrize("size", [1_473, 16_385, 65_507])
async def test_datagrams_of_any_size_arrive_whole(size: int, site: Site) -> None:
    """In both directions."""
    await site.shows()
    for member in site.members:
        member.name = size * "a"
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setblocking(False)
        client.connect((VIP, site.port))
        await loop.sock_sendall(client, size * b"q")
        async with asyncio.timeout(2):
            assert await loop.sock_recv(client, 70_000) == size * b"a"
    assert [len(x) for member in site.members for x in member.heard] == [size]


async def test_who_comes_in_a_burst_is_not_lost(site: Site) -> None:
    """While nginx does something else: there is room for more than the kernel's own 277."""
    await site.shows()
    clients = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(500)]
    for pid in site.world.nginx_pids():
        os.kill(pid, signal.SIGSTOP)
    for each in clients:
        each.setblocking(False)
        each.sendto(b"who?", (VIP, site.port))
    for pid in site.world.nginx_pids():
        os.kill(pid, signal.SIGCONT)
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(5):
        answers = Counter([await loop.sock_recv(each, 100) for each in clients])
    assert answers.total() == len(clients)
    for each in clients:
        each.close()


async def test_with_many_threads_one_client_still_goes_to_one_member(site: Site) -> None:
    """Whichever of the workers is awake first."""
    await site.shows(load_balancer={"threads": 4, "max_connections": 500})
    text = (site.world.place / f"{number(1)}.datagrams.conf").read_text()
    assert "worker_processes 4;" in text
    assert "worker_connections 1100;" in text

    async def who() -> set[bytes]:
        loop = asyncio.get_running_loop()
        heard = set()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.setblocking(False)
            client.connect((VIP, site.port))
            for _ in range(30):
                await loop.sock_sendall(client, b"who?")
                async with asyncio.timeout(2):
                    heard.add(await loop.sock_recv(client, 100))
        return heard

    answers = await asyncio.gather(*(who() for _ in range(12)))
    assert Counter(len(each) for each in answers) == {1: 12}
    assert {b"one", b"two", b"three"} == set().union(*answers)
    # It holds after reloads, too, in which workers come and go.
    await site.shows(load_balancer={"threads": 2})
    await site.shows(load_balancer={"threads": 3})
    assert Counter(len(each) for each in await asyncio.gather(*(who() for _ in range(12)))) == {1: 12}


async def test_least_connections_avoids_the_busy(site: Site) -> None:
    await site.shows(pool={"lb_algorithm": LbAlgorithm.LEAST_CONNECTIONS}, rows=site.rows(three={"weight": 256}))
    # Sessions last as long as the timeout: whoever has one is busy, and only a 256th part as much at the third. Turns
    # by weight would give the first two nothing.
    answers = await spread(site.port, 40)
    assert answers.keys() == {"one", "two", "three"}
    assert answers["three"] >= 34


@pytest.mark.parametrize(
    "algorithm", [LbAlgorithm.SOURCE_IP, pytest.param(LbAlgorithm.SOURCE_IP_PORT, marks=pytest.mark.long)]
)
async def test_a_source_keeps_its_member_over_changes(site: Site, algorithm: LbAlgorithm) -> None:
    """Over reloads too; when a member goes, only its own clients move."""
    await site.shows(pool={"lb_algorithm": algorithm})
    sources = [(CLIENTS.format(index), 20_000 + index) for index in range(1, 30)]

    async def who() -> dict[tuple[str, int], str]:
        return {each: await ask(site.port, source=each[0], source_port=each[1]) for each in sources}

    before = await who()
    assert set(before.values()) == {"one", "two", "three"}
    await site.shows(pool={"lb_algorithm": algorithm}, listener={"timeout_client_data": 60_000})
    assert await who() == before
    await site.shows(pool={"lb_algorithm": algorithm}, rows=site.rows()[1:])
    after = await who()
    assert {x for x in sources if before[x] != after[x]} == {x for x in sources if before[x] == "one"}


async def test_source_ip_port_tells_ports_apart_and_source_ip_does_not(site: Site) -> None:
    await site.shows(pool={"lb_algorithm": LbAlgorithm.SOURCE_IP_PORT})
    assert len({await ask(site.port, source="127.0.0.1") for _ in range(30)}) == 3
    await site.shows(pool={"lb_algorithm": LbAlgorithm.SOURCE_IP})
    assert len({await ask(site.port, source="127.0.0.1") for _ in range(30)}) == 1


@pytest.mark.parametrize(
    "granularity, together",
    [
        (None, False),
        pytest.param("255.255.255.255", False, marks=pytest.mark.long),
        ("255.255.255.0", True),
        pytest.param("255.0.0.0", True, marks=pytest.mark.long),
    ],
)
async def test_a_client_persists_by_its_address(site: Site, granularity: str | None, together: bool) -> None:
    """Or by its network; over reloads, whatever its port."""
    persistence = SessionPersistence(type=SessionPersistenceType.SOURCE_IP, persistence_granularity=granularity)
    sources = [CLIENTS.format(index) for index in range(1, 20)]
    await site.shows(pool={"session_persistence": persistence})
    first = {source: await ask(site.port, source=source) for source in sources}
    await site.shows(pool={"session_persistence": persistence}, listener={"timeout_client_data": 60_000})
    assert {source: await ask(site.port, source=source) for source in sources} == first
    assert (len(set(first.values())) == 1) is together


@pytest.mark.parametrize(
    "persistence, field",
    [
        ({"persistence_timeout": 60}, "persistence_timeout"),
        ({"persistence_granularity": "255.255.240.0"}, "persistence_granularity"),
    ],
    ids=["a timeout", "a netmask of half a byte"],
)
def test_persistence_that_nginx_has_not_is_refused_by_name(persistence: dict[str, Any], field: str) -> None:
    pool = a_pool(
        protocol=PoolProtocol.UDP,
        session_persistence=SessionPersistence(type=SessionPersistenceType.SOURCE_IP, **persistence),
    )
    with pytest.raises(Unsupported) as refused:
        require(a_tree(pools=[pool]), CAPABILITIES)
    assert refused.value.field == field


async def test_no_datagrams_for_who_is_disabled_drains_or_waits(site: Site) -> None:
    await site.shows(rows=site.rows(one={"admin_state_up": False}))
    assert await spread(site.port, 6) == {"two": 3, "three": 3}
    await site.shows(rows=site.rows(two={"weight": 0}))
    assert await spread(site.port, 6) == {"one": 3, "three": 3}
    await site.shows(rows=site.rows(three={"backup": True}))
    assert await spread(site.port, 6) == {"one": 3, "two": 3}

    async def said() -> bool:
        return await site.statuses() == {"one": "no check", "two": "no check", "three": "no check"}

    await until(said)


@pytest.mark.parametrize(
    "algorithm",
    [pytest.param(x, marks=() if x is LbAlgorithm.SOURCE_IP else pytest.mark.long) for x in LbAlgorithm],
)
async def test_backups_step_in_when_no_other_is_able(site: Site, algorithm: LbAlgorithm) -> None:
    one_is_off = site.rows(one={"admin_state_up": False}, two={"backup": True}, three={"backup": True})
    await site.shows(rows=one_is_off, pool={"lb_algorithm": algorithm})
    sources = [CLIENTS.format(index) for index in range(1, 30)]
    assert {await ask(site.port, source=source) for source in sources} == {"two", "three"}


async def test_udp_connect_finds_a_port_without_a_service(site: Site) -> None:
    await site.shows(monitors=(a_monitor(type=HealthMonitorType.UDP_CONNECT, delay=0, timeout=0),))
    await site.becomes()
    one, two, three = site.members
    three.answers = False  # silence is no failure
    two.stop()
    await site.becomes(two="DOWN")
    heard = len(one.heard) + len(three.heard)
    assert (await spread(site.port, 1)).keys() <= {"one", ""}
    await asyncio.gather(*(ask(site.port, within=0.3) for _ in range(7)))
    await until(lambda: len(one.heard) + len(three.heard) == heard + 8)  # and none was lost
    three.answers = True
    await two.start()
    await site.becomes()
    await until_spread(site, {"one": 3, "two": 3, "three": 3})


async def until_spread(site: Site, wanted: dict[str, int]) -> None:
    async def is_so() -> bool:
        return await spread(site.port, sum(wanted.values())) == wanted

    await until(is_so)


@pytest.mark.parametrize("kind", [HealthMonitorType.HTTP, pytest.param(HealthMonitorType.TCP, marks=pytest.mark.long)])
async def test_a_service_beside_tells_of_a_members_health(site: Site, kind: HealthMonitorType) -> None:
    """Monitors of other kinds look at another port, where something answers over TCP."""
    asked: list[bytes] = []
    status = b"200"

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if kind is HealthMonitorType.HTTP:
            asked.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(b"HTTP/1.1 %s X\r\nContent-Length: 0\r\n\r\n" % status)
            await writer.drain()

    dead = free_port(MEMBERS)
    fields: dict[str, Any] = {"delay": 0, "timeout": 1, "type": kind}
    if kind is HealthMonitorType.HTTP:
        fields |= {"url_path": "/a?b=c", "http_version": 1.1, "domain_name": "dns.example", "expected_codes": "200,204"}
    async with serving(answer) as port:
        ports = {"one": {"monitor_port": port}, "two": {"monitor_port": port}, "three": {"monitor_port": dead}}
        await site.shows(monitors=(a_monitor(**fields),), rows=site.rows(**ports))
        await site.becomes(three="DOWN")
        await until_spread(site, {"one": 3, "two": 3})
        if kind is HealthMonitorType.HTTP:
            assert b"GET /a?b=c HTTP/1.1\r\nHost: dns.example\r\nConnection: close\r\n\r\n" in asked
            status = b"500"
            await site.becomes(one="DOWN", two="DOWN", three="DOWN")


async def test_a_backup_steps_in_for_the_dead(site: Site) -> None:
    monitor = a_monitor(type=HealthMonitorType.UDP_CONNECT, delay=0, timeout=0)
    await site.shows(monitors=(monitor,), rows=site.rows(three={"backup": True}))
    await site.becomes()
    assert set(await spread(site.port, 6)) == {"one", "two"}
    site.members[0].stop()
    site.members[1].stop()
    await site.becomes(one="DOWN", two="DOWN")
    await until_spread(site, {"three": 4})


async def test_only_allowed_networks_are_served(site: Site) -> None:
    await site.shows(listener={"allowed_cidrs": (f"{CLIENTS.format(8)}/32", f"{CLIENTS.format(16)}/28")})
    allowed = [await ask(site.port, source=CLIENTS.format(index)) for index in (8, 16, 31)]
    assert "" not in allowed
    refused = [await ask(site.port, source=CLIENTS.format(index), within=0.2) for index in (7, 15, 32)]
    assert refused == ["", "", ""]


async def test_a_connection_limit_bounds_sessions(site: Site) -> None:
    await site.shows(listener={"connection_limit": 2})
    answers = [await ask(site.port, within=0.2) for _ in range(5)]
    assert len([x for x in answers if x]) == 2
    await site.shows(listener={"connection_limit": 0})
    assert await ask(site.port, within=0.2) == ""


async def test_a_session_ends_when_it_was_idle(site: Site) -> None:
    """The shorter of the listener's two timeouts of data counts."""
    await site.shows(listener={"connection_limit": 1, "timeout_client_data": 200, "timeout_member_data": 60_000})
    assert await ask(site.port) in ("one", "two", "three")

    async def served_again() -> bool:
        return bool(await ask(site.port, within=0.05))

    await until(served_again)


async def test_udp_and_tcp_share_a_port(site: Site) -> None:
    member = await site.world.member("web")
    web = a_listener(11, ListenerProtocol.TCP, site.port, 21)
    rows = [*site.rows(), a_member(50, pool=21, address=MEMBERS, port=member.port)]
    await site.shows(more=(web,), pools=(a_pool(21, PoolProtocol.TCP),), rows=rows)
    assert await worlds.ask(site.port) == "web"
    assert await spread(site.port, 3) == {"one": 1, "two": 1, "three": 1}
    haproxy = site.world.haproxy_pids()
    # A change of one is no reload of the other.
    rows = [*site.rows(one={"weight": 0}), a_member(50, pool=21, address=MEMBERS, port=member.port)]
    assert await site.shows(more=(web,), pools=(a_pool(21, PoolProtocol.TCP),), rows=rows) == "reload"
    assert await spread(site.port, 4) == {"two": 2, "three": 2}
    assert site.world.haproxy_pids() == haproxy
    assert await site.shows(more=(replace(web, admin_state_up=False),), rows=rows) == "stop"
    assert site.world.haproxy_pids() == []
    assert await spread(site.port, 4) == {"two": 2, "three": 2}


async def test_listeners_share_a_pool_and_go_apart(site: Site) -> None:
    other = free_port()
    second = a_listener(11, ListenerProtocol.UDP, other)
    await site.shows(more=(second,))
    assert set(await spread(other, 3)) == {"one", "two", "three"}
    await site.shows(more=(replace(second, admin_state_up=False),))
    assert (await ask(other, within=0.2), bool(await ask(site.port))) == ("", True)
    heard = (await site.beat()).listeners
    await until(lambda: set(heard) <= {LISTENER, number(11)})


async def test_a_listener_without_a_pool_or_members_listens_and_says_nothing(site: Site) -> None:
    await site.shows(rows=[])
    assert await ask(site.port, within=0.2) == ""
    await site.shows(listener={"pool": None})
    assert await ask(site.port, within=0.2) == ""

    async def is_open() -> bool:
        report = (await site.beat()).listeners.get(LISTENER)
        return report is not None and report.status == "OPEN"

    await until(is_open)


async def test_ipv6(site: Site) -> None:
    tree = site.tree()
    vip = replace(tree.load_balancer.vip, address="::1")
    await site.world.apply(replace(tree, load_balancer=replace(tree.load_balancer, vip=vip)))
    assert await ask(site.port, address="::1") in ("one", "two", "three")


async def test_counters_travel_in_heartbeats(site: Site) -> None:
    await site.shows(listener={"timeout_client_data": 100})
    await spread(site.port, 5)

    async def counted() -> bool:
        report = (await site.beat()).listeners.get(LISTENER)
        counters = None if report is None else report.counters
        return counters is not None and (counters.total_connections, counters.bytes_in) == (5, 20)

    await until(counted)


async def test_nothing_runs_when_nothing_shall_listen(site: Site) -> None:
    await site.shows()
    assert len(site.world.nginx_pids()) == 2
    assert await site.shows(load_balancer={"admin_state_up": False}) == "stop"
    assert site.world.nginx_pids() == []


async def test_the_agent_is_asked_what_runs(site: Site) -> None:
    tree = site.tree()
    applied = await site.world.apply(tree)
    info = await site.world.driver.info(site.world.amphora, tree)
    assert (info.digest, info.running) == (applied.digest, True)
    assert await site.shows() == "unchanged"
