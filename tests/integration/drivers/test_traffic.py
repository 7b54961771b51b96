"""What is rendered means what was asked: real requests through a real agent's HAProxy.

Every word in the driver's capabilities has a test here."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections import Counter
from typing import Any

import pytest

from frontinus.model.enums import HealthMonitorType, HttpMethod, LbAlgorithm, ListenerProtocol, PoolProtocol

from tests.integration.drivers.site import SiteOf
from tests.integration.drivers.world import (
    CLIENTS,
    MEMBERS,
    VIP,
    Member,
    World,
    ask,
    closed,
    exchange,
    free_port,
    serving,
    spread,
    until,
)
from tests.unit.drivers.trees import a_listener, a_member, a_monitor, a_tree


class Site(SiteOf[Member]):
    """Before members that speak HTTP."""


@pytest.fixture
async def site(world: World) -> Site:
    return Site(world, [await world.member(name) for name in ("one", "two", "three")], free_port())


async def test_round_robin_takes_turns(site: Site) -> None:
    await site.shows()
    assert await spread(site.port, 9) == {"one": 3, "two": 3, "three": 3}


async def test_least_connections_avoids_the_busy(site: Site) -> None:
    await site.shows(pool={"lb_algorithm": LbAlgorithm.LEAST_CONNECTIONS})
    one, two, three = site.members
    one.delay = two.delay = 30.0
    busy = []
    while not (one.requests and two.requests):
        busy.append(asyncio.create_task(ask(site.port, within=60)))
        seen = len(one.requests) + len(two.requests) + len(three.requests)
        await until(lambda seen=seen: len(one.requests) + len(two.requests) + len(three.requests) > seen)
    assert await spread(site.port, 8) == {"three": 8}
    for task in busy:
        task.cancel()
    await asyncio.gather(*busy, return_exceptions=True)


async def test_source_ip_keeps_a_client_at_its_member(site: Site) -> None:
    await site.shows(pool={"lb_algorithm": LbAlgorithm.SOURCE_IP})
    sources = [CLIENTS.format(number) for number in range(1, 30)]
    first = {source: await ask(site.port, source=source) for source in sources}
    again = {source: await ask(site.port, source=source) for source in sources}
    assert first == again
    assert set(first.values()) == {"one", "two", "three"}


async def test_source_ip_moves_only_the_clients_of_a_member_that_goes(site: Site) -> None:
    await site.shows(pool={"lb_algorithm": LbAlgorithm.SOURCE_IP})
    sources = [CLIENTS.format(number) for number in range(1, 30)]
    before = {source: await ask(site.port, source=source) for source in sources}
    await site.shows(pool={"lb_algorithm": LbAlgorithm.SOURCE_IP}, rows=site.rows()[1:])
    after = {source: await ask(site.port, source=source) for source in sources}
    assert {source for source in sources if before[source] != after[source]} == {
        source for source in sources if before[source] == "one"
    }


def ask_from(source: str, source_port: int, port: int) -> str:
    """One request from an exact address and port; the port can be used again at once."""
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.settimeout(5)
        connection.bind((source, source_port))
        connection.connect((VIP, port))
        connection.sendall(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
        with connection.makefile("rb") as answer:
            length = 0
            while line := answer.readline().strip():
                if line.lower().startswith(b"content-length:"):
                    length = int(line.partition(b":")[2])
            return answer.read(length).decode()


@pytest.mark.parametrize("protocol", [ListenerProtocol.HTTP, ListenerProtocol.TCP])
async def test_source_ip_port_keeps_a_connection_at_its_member(site: Site, protocol: ListenerProtocol) -> None:
    await site.shows(pool={"lb_algorithm": LbAlgorithm.SOURCE_IP_PORT}, listener={"protocol": protocol})
    ports = [free_port("127.84.1.1") for _ in range(30)]
    first = {p: await asyncio.to_thread(ask_from, "127.84.1.1", p, site.port) for p in ports}
    again = {p: await asyncio.to_thread(ask_from, "127.84.1.1", p, site.port) for p in ports}
    assert first == again
    assert set(first.values()) == {"one", "two", "three"}
    # The address counts too: the same ports from elsewhere are spread otherwise.
    elsewhere = {p: await asyncio.to_thread(ask_from, "127.84.1.2", p, site.port) for p in ports}
    assert elsewhere != first


@pytest.mark.parametrize("lb_algorithm", [LbAlgorithm.SOURCE_IP, LbAlgorithm.SOURCE_IP_PORT])
async def test_hashing_does_not_depend_on_how_members_came(site: Site, lb_algorithm: LbAlgorithm) -> None:
    """Members added at run time, whose weights change there, and after a reload, and on another amphora: one client, one
    member."""
    pool = {"lb_algorithm": lb_algorithm}

    async def clients() -> dict[str, str]:
        return {
            f"{source}:{p}": await asyncio.to_thread(ask_from, source, p, site.port)
            for source in (CLIENTS.format(number) for number in range(1, 9))
            for p in ports
        }

    ports = [free_port("127.84.1.1") for _ in range(3)]
    rows = site.rows(one={"weight": 3}, two={"weight": 256}, three={"weight": 7})
    await site.shows(pool=pool, rows=site.rows(three={"weight": 200})[2:])
    await site.shows(pool=pool, rows=site.rows(two={"weight": 0}, three={"weight": 1})[1:])
    await site.shows(pool=pool, rows=site.rows(one={"weight": 1}, two={"weight": 9}, three={"weight": 30}))
    await site.shows(pool=pool, rows=rows)
    piecemeal = await clients()
    await site.world.driver.retire(site.world.amphora, site.tree())
    await site.shows(pool=pool, rows=list(reversed(rows)))
    assert await clients() == piecemeal


async def test_weights(site: Site) -> None:
    await site.shows(rows=site.rows(one={"weight": 4}, two={"weight": 1}, three={"weight": 0}))
    assert await spread(site.port, 10) == {"one": 8, "two": 2}


async def test_weight_null_is_one(site: Site) -> None:
    await site.shows(rows=site.rows(one={"weight": None}, two={"weight": 1}, three={"weight": 2}))
    assert await spread(site.port, 8) == {"one": 2, "two": 2, "three": 4}


async def test_draining_lets_connections_end(site: Site) -> None:
    await site.shows(listener={"protocol": ListenerProtocol.TCP}, rows=site.rows()[:1])
    reader, writer = await asyncio.open_connection(VIP, site.port)
    assert await exchange(reader, writer) == "one"
    drained = site.rows(one={"weight": 0})
    await site.shows(listener={"protocol": ListenerProtocol.TCP}, rows=drained)
    assert await exchange(reader, writer) == "one"
    assert "one" not in await spread(site.port, 6)
    await closed(writer)


async def test_backups_serve_when_nobody_else_does_and_share(site: Site) -> None:
    one = site.members[0]
    rows = site.rows(two={"backup": True}, three={"backup": True})
    await site.shows(rows=rows, monitors=(a_monitor(type=HealthMonitorType.TCP),))
    assert await spread(site.port, 6) == {"one": 6}
    await one.stop()

    async def only_backups() -> bool:
        return set(await spread(site.port, 2)) == {"two", "three"}

    await until(only_backups)
    assert await spread(site.port, 6) == {"two": 3, "three": 3}
    await one.start()

    async def back() -> bool:
        return await spread(site.port, 2) == {"one": 2}

    await until(back)


async def test_a_disabled_member_gets_nothing(site: Site) -> None:
    await site.shows(rows=site.rows(one={"admin_state_up": False}))
    assert await spread(site.port, 6) == {"two": 3, "three": 3}


@pytest.mark.parametrize(
    "fields",
    [{"rows": []}, {"pool": {"admin_state_up": False}}, {"listener": {"pool": None}}],
    ids=["no members", "pool disabled", "no pool"],
)
async def test_a_listener_without_members_says_503(site: Site, fields: dict[str, Any]) -> None:
    await site.shows(**fields)
    assert await ask(site.port) == "503"


@pytest.mark.parametrize(
    "fields",
    [{"listener": {"admin_state_up": False}}, {"load_balancer": {"admin_state_up": False}}],
    ids=["listener", "load balancer"],
)
async def test_what_is_disabled_does_not_listen(site: Site, fields: dict[str, Any]) -> None:
    await site.shows()
    assert await ask(site.port) == "one"
    applied = await site.world.apply(site.tree(**fields))
    assert applied.action == "stop"
    with pytest.raises(ConnectionRefusedError):
        await ask(site.port)
    assert not site.world.haproxy_pids()
    await site.shows()
    assert await ask(site.port) in {"one", "two", "three"}


@pytest.mark.parametrize("protocol", [ListenerProtocol.TCP, ListenerProtocol.HTTPS])
async def test_bytes_pass_untouched(site: Site, protocol: ListenerProtocol) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while part := await reader.read(65536):
            writer.write(part)

    pool_protocol = PoolProtocol.TCP if protocol is ListenerProtocol.TCP else PoolProtocol.HTTPS
    async with serving(echo) as member_port:
        row = a_member(address=MEMBERS, port=member_port)
        await site.shows(listener={"protocol": protocol}, pool={"protocol": pool_protocol}, rows=[row])
        reader, writer = await asyncio.open_connection(VIP, site.port)
        sent = bytes(range(256)) * 400
        writer.write(sent)
        assert await reader.readexactly(len(sent)) == sent
        await closed(writer)


@pytest.mark.parametrize("listener_protocol", [ListenerProtocol.HTTP, ListenerProtocol.TCP])
@pytest.mark.parametrize("pool_protocol", [PoolProtocol.PROXY, PoolProtocol.PROXYV2])
async def test_the_member_is_told_who_asks(
    site: Site, listener_protocol: ListenerProtocol, pool_protocol: PoolProtocol
) -> None:
    await site.shows(listener={"protocol": listener_protocol}, pool={"protocol": pool_protocol}, rows=site.rows()[:1])
    member, source = site.members[0], CLIENTS.format(7)
    assert await ask(site.port, source=source) == "one"
    version = 1 if pool_protocol is PoolProtocol.PROXY else 2
    assert member.preambles[0].startswith(f"{version} PROXY TCP4 {source} {VIP} ")
    assert member.preambles[0].endswith(f" {site.port}")
    # Also for a member that joined at run time, and for a second client over the connections of the first.
    await site.shows(listener={"protocol": listener_protocol}, pool={"protocol": pool_protocol}, rows=site.rows()[:2])
    answers = Counter([await ask(site.port, source=CLIENTS.format(number)) for number in range(8, 12)])
    assert answers == {"one": 2, "two": 2}
    assert len(site.members[0].preambles) == 3
    assert len(site.members[1].preambles) == 2


async def test_health_checks_speak_proxy_to_members_that_expect_it(site: Site) -> None:
    monitor = a_monitor(url_path="/health")
    await site.shows(pool={"protocol": PoolProtocol.PROXY}, monitors=(monitor,), rows=site.rows()[:1])
    await site.shows(pool={"protocol": PoolProtocol.PROXY}, monitors=(monitor,), rows=site.rows()[:2])
    for member in site.members[:2]:
        await until(lambda member=member: bool(member.checks))
        assert all(preamble.startswith("1 PROXY ") for preamble in member.preambles)
        assert len(member.preambles) >= len(member.checks)


async def test_http_monitor_asks_what_it_was_told(site: Site) -> None:
    monitor = a_monitor(
        url_path="/health?a='b'&c=\"d\"#e%20$HOME",
        http_method=HttpMethod.HEAD,
        http_version=1.1,
        domain_name="Member.example.org",
    )
    await site.shows(monitors=(monitor,))
    one = site.members[0]
    await until(lambda: bool(one.checks))
    lines = one.checks[0].decode().split("\r\n")
    assert lines[0] == "HEAD /health?a='b'&c=\"d\"#e%20$HOME HTTP/1.1"
    assert [line for line in lines if line.lower().startswith("host:")] == ["host: Member.example.org"]


async def test_http_monitor_1_0_names_no_host(site: Site) -> None:
    await site.shows(monitors=(a_monitor(url_path="/health"),))
    one = site.members[0]
    await until(lambda: bool(one.checks))
    assert one.checks[0].startswith(b"GET /health HTTP/1.0\r\n")
    assert b"host:" not in one.checks[0].lower()


async def test_http_monitor_1_1_without_domain_names_the_address(site: Site) -> None:
    await site.shows(monitors=(a_monitor(url_path="/health", http_version=1.1),))
    one = site.members[0]
    await until(lambda: bool(one.checks))
    assert f"host: {VIP}".encode() in one.checks[0].lower()


@pytest.mark.parametrize("method", list(HttpMethod))
async def test_http_monitor_can_use_every_method(site: Site, method: HttpMethod) -> None:
    await site.shows(monitors=(a_monitor(url_path="/health", http_method=method),), rows=site.rows()[:1])
    one = site.members[0]
    await until(lambda: bool(one.checks))
    assert one.checks[0].startswith(f"{method} /health HTTP/1.0\r\n".encode())


@pytest.mark.parametrize(
    "expected, good, bad",
    [("200", 200, 204), ("200, 204", 204, 202), ("200-204", 203, 205), ("418", 418, 200)],
)
async def test_http_monitor_expects_codes(site: Site, expected: str, good: int, bad: int) -> None:
    one, two = site.members[:2]
    one.health_code, two.health_code = good, bad
    await site.shows(monitors=(a_monitor(url_path="/health", expected_codes=expected),), rows=site.rows()[:2])

    async def settled() -> bool:
        return await spread(site.port, 4) == {"one": 4}

    await until(settled)
    two.health_code, one.health_code = good, bad

    async def turned() -> bool:
        return await spread(site.port, 4) == {"two": 4}

    await until(turned)


@pytest.mark.parametrize("protocol", [ListenerProtocol.HTTP, ListenerProtocol.TCP])
async def test_tcp_monitor_takes_members_out_and_in(site: Site, protocol: ListenerProtocol) -> None:
    await site.shows(monitors=(a_monitor(type=HealthMonitorType.TCP),), listener={"protocol": protocol})
    two = site.members[1]
    await two.stop()

    async def out() -> bool:
        return "DOWN" in site.world.runtime("show stat").split(site.tree().members[1].id)[1].split("\n")[0]

    await until(out)
    assert await spread(site.port, 4) == {"one": 2, "three": 2}
    await two.start()

    async def back() -> bool:
        return "two" in await spread(site.port, 3)

    await until(back)


async def test_a_disabled_monitor_checks_nothing(site: Site) -> None:
    for member in site.members:
        member.healthy = False
    await site.shows(monitors=(a_monitor(url_path="/health", admin_state_up=False),))
    assert ",no check," in site.world.runtime("show stat")
    assert await spread(site.port, 3) == {"one": 1, "two": 1, "three": 1}
    assert not any(member.checks for member in site.members)


async def test_checks_can_go_elsewhere(site: Site) -> None:
    one, two, three = site.members
    rows = site.rows(one={"monitor_port": three.port}, two={"monitor_address": MEMBERS, "monitor_port": three.port})[:2]
    await site.shows(monitors=(a_monitor(url_path="/health"),), rows=rows)
    await until(lambda: len(three.checks) >= 2)
    assert not one.checks
    assert not two.checks
    assert await spread(site.port, 4) == {"one": 2, "two": 2}
    # And back, at run time.
    await site.shows(monitors=(a_monitor(url_path="/health"),), rows=site.rows()[:2])
    await until(lambda: bool(one.checks) and bool(two.checks))


async def test_connection_limit_makes_the_next_one_wait(site: Site) -> None:
    await site.shows(listener={"protocol": ListenerProtocol.TCP, "connection_limit": 2})
    held = [await asyncio.open_connection(VIP, site.port) for _ in range(2)]
    for connection in held:
        await exchange(*connection)
    third = asyncio.create_task(ask(site.port, within=20))
    assert not (await asyncio.wait({third}, timeout=0.3))[0]
    await closed(held[0][1])
    assert await third in {"one", "two", "three"}
    await closed(held[1][1])


async def test_a_connection_limit_of_zero_lets_nobody_in(site: Site) -> None:
    await site.shows(listener={"connection_limit": 0})
    with pytest.raises((ConnectionError, EOFError)):
        await ask(site.port)


async def test_timeout_client_data_ends_an_idle_connection(site: Site) -> None:
    await site.shows(listener={"protocol": ListenerProtocol.TCP, "timeout_client_data": 200})
    reader, writer = await asyncio.open_connection(VIP, site.port)
    await exchange(reader, writer)
    began = time.monotonic()
    assert await asyncio.wait_for(reader.read(), 5) == b""
    assert 0.15 < time.monotonic() - began < 2
    await closed(writer)


async def test_timeout_member_data_ends_a_wait_for_an_answer(site: Site) -> None:
    await site.shows(listener={"timeout_member_data": 200}, rows=site.rows()[:1])
    site.members[0].delay = 20
    began = time.monotonic()
    assert await ask(site.port) == "504"
    assert 0.15 < time.monotonic() - began < 2


async def test_timeout_member_connect_ends_a_wait_for_a_connection(site: Site) -> None:
    with socket.socket() as deaf:
        # A listener whose queue is full: the kernel drops further handshakes, as a member behind a firewall would.
        deaf.bind((MEMBERS, 0))
        deaf.listen(0)
        row = a_member(address=MEMBERS, port=deaf.getsockname()[1])
        fillers = [socket.socket() for _ in range(2)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(deaf.getsockname())
        await site.shows(listener={"timeout_member_connect": 100}, rows=[row])
        began = time.monotonic()
        assert await ask(site.port, within=15) == "503"
        assert time.monotonic() - began < 5  # four tries of 100 ms, and up to a second between two at one member
        for filler in fillers:
            filler.close()


async def test_timeout_tcp_inspect_delays_nothing_that_is_not_inspected(site: Site) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 I speak first\r\n")
        await reader.read()

    async with serving(greet) as member_port:
        row = a_member(address=MEMBERS, port=member_port)
        await site.shows(listener={"protocol": ListenerProtocol.TCP, "timeout_tcp_inspect": 5_000}, rows=[row])
        began = time.monotonic()
        reader, writer = await asyncio.open_connection(VIP, site.port)
        assert await reader.readline() == b"220 I speak first\r\n"
        assert time.monotonic() - began < 2
        await closed(writer)


async def test_a_member_that_refuses_costs_no_request(site: Site) -> None:
    await site.shows()
    await site.members[0].stop()
    answers = await spread(site.port, 9)
    assert set(answers) == {"two", "three"}


async def test_two_listeners_share_a_pool(site: Site) -> None:
    other = free_port()
    tree = site.tree()
    listeners = (*tree.listeners, a_listener(11, ListenerProtocol.TCP, other))
    await site.world.apply(a_tree(tree.load_balancer, listeners=listeners, pools=tree.pools, members=tree.members))
    assert set(await spread(site.port, 3)) == set(await spread(other, 3)) == {"one", "two", "three"}
