"""Cases of pools and members without TLS: who is chosen, who is kept, what members are told, who serves when."""

from __future__ import annotations

import asyncio

from tests.acceptance.traffic.case import Group
from tests.acceptance.traffic.stage import PortOf, Stage, headers_of
from tests.integration.drivers.world import CLIENTS, MEMBERS, closed, exchange, until

POOLS = Group("pools")
case = POOLS.case

TCP = {"protocol": "TCP"}
CHECKED = {"type": "HTTP", "url_path": "/health"}


# -------------------------------------------------------------- algorithms


@case(
    "pool.lb_algorithm[ROUND_ROBIN]", "pool.admin_state_up[true]", "member.address", "member.protocol_port", members=3
)
async def members_take_turns(stage: Stage) -> None:
    assert await stage.spread(9) == {"one": 3, "two": 3, "three": 3}


@case("pool.lb_algorithm[LEAST_CONNECTIONS]", pool={"lb_algorithm": "LEAST_CONNECTIONS"}, members=2)
async def the_busy_are_avoided(stage: Stage) -> None:
    one, two = stage.servers
    one.delay = 1.0
    busy = asyncio.create_task(stage.ask(within=10))
    await until(lambda: bool(one.requests) or bool(two.requests))
    if two.requests:
        await busy
        busy = asyncio.create_task(stage.ask(within=10))
        await until(lambda: bool(one.requests))
    assert await stage.spread(6) == {"two": 6}
    assert not busy.done()
    assert await busy == "one"


@case("pool.lb_algorithm[SOURCE_IP]", pool={"lb_algorithm": "SOURCE_IP"}, members=3)
async def an_address_stays_with_a_member(stage: Stage) -> None:
    first = {host: await stage.ask_from(host) for host in range(1, 30)}
    assert {host: await stage.ask_from(host) for host in first} == first
    assert set(first.values()) == {"one", "two", "three"}


@case("pool.lb_algorithm[SOURCE_IP_PORT]", pool={"lb_algorithm": "SOURCE_IP_PORT"}, members=3)
async def connections_of_an_address_are_spread(stage: Stage) -> None:
    assert {await stage.ask_from(7) for _ in range(40)} == {"one", "two", "three"}
    reader, writer = await asyncio.open_connection(stage.address, stage.port)
    assert len({await exchange(reader, writer) for _ in range(6)}) == 1
    await closed(writer)


# -------------------------------------------------------------- what members are told


def _told(listener: str, pool: str, version: int) -> None:
    async def the_member_is_told_who_asks(stage: Stage) -> None:
        assert await stage.ask_from(7) == "one"
        (preamble,) = stage.servers[0].preambles
        assert preamble.startswith(f"{version} PROXY TCP4 {CLIENTS.format(7)} {stage.address} ")
        assert preamble.endswith(f" {stage.port}")

    case(
        f"pool.protocol[{pool}]",
        name=f"{pool} behind {listener}",
        listener={"protocol": listener},
        pool={"protocol": pool},
    )(the_member_is_told_who_asks)


for _listener in ("HTTP", "TCP"):
    _told(_listener, "PROXY", 1)
    _told(_listener, "PROXYV2", 2)


# -------------------------------------------------------------- who serves


@case("pool.admin_state_up[false]", pool={"admin_state_up": False})
async def a_disabled_pool_is_503(stage: Stage) -> None:
    assert await stage.ask() == "503"
    await stage.change_pool(admin_state_up=True)
    assert await stage.ask() == "one"


@case(
    "member.admin_state_up[false]",
    "member.admin_state_up[true]",
    members=[{"admin_state_up": False}, {}],
    servers=["http"] * 2,
)
async def a_disabled_member_gets_nothing(stage: Stage) -> None:
    assert await stage.spread(4) == {"two": 4}
    await stage.change_member(0, admin_state_up=True)
    await stage.becomes("one", "two")
    await stage.change_member(1, admin_state_up=False)
    assert await stage.spread(4) == {"one": 4}


@case("member.weight", members=[{"weight": 4}, {"weight": 1}, {"weight": 0}], servers=["http"] * 3)
async def weights_are_kept(stage: Stage) -> None:
    assert await stage.spread(10) == {"one": 8, "two": 2}


@case("member.weight", listener=TCP, pool=TCP, members=2)
async def a_weight_of_0_lets_connections_end(stage: Stage) -> None:
    held = await asyncio.open_connection(stage.address, stage.port)
    name = await exchange(*held)
    other = "two" if name == "one" else "one"
    await stage.change_member(("one", "two").index(name), weight=0)
    assert await exchange(*held) == name
    assert await stage.spread(4) == {other: 4}
    await closed(held[1])


@case(
    "member.backup[true]",
    "member.backup[false]",
    members=[{"backup": False}, {"backup": True}],
    servers=["http"] * 2,
    monitor=CHECKED,
)
async def a_backup_serves_when_nobody_else_does(stage: Stage) -> None:
    await stage.becomes("one")
    stage.servers[0].healthy = False
    await stage.becomes("two")
    stage.servers[0].healthy = True
    await stage.becomes("one")


@case("member.address", members=[{}], servers=["http6"])
async def a_member_of_ipv6_serves_a_vip_of_ipv4(stage: Stage) -> None:
    assert stage.members[0]["address"] == "::1"
    assert await stage.ask() == "one"


@case(
    "member.monitor_port", members=[{"monitor_port": PortOf(1)}, {}], servers=["http"] * 2, monitor=CHECKED, name="port"
)
@case(
    "member.monitor_address",
    members=[{"monitor_address": MEMBERS, "monitor_port": PortOf(1)}, {}],
    servers=["http"] * 2,
    monitor=CHECKED,
    name="address",
)
async def checks_go_elsewhere(stage: Stage) -> None:
    one, two = stage.servers
    await until(lambda: len(two.checks) > 4)
    assert one.checks == []
    two.healthy = False
    await stage.statuses_become(one="ERROR", two="ERROR")
    two.healthy = True
    await stage.becomes("one", "two")
    await stage.change_member(0, monitor_address=None, monitor_port=None)
    await until(lambda: bool(one.checks))


# -------------------------------------------------------------- persistence


@case("pool.session_persistence.type[SOURCE_IP]", pool={"session_persistence": {"type": "SOURCE_IP"}}, members=3)
async def a_source_is_kept(stage: Stage) -> None:
    first = {host: await stage.ask_from(host) for host in range(1, 8)}
    assert {host: await stage.ask_from(host) for host in first} == first
    assert set(first.values()) == {"one", "two", "three"}
    await stage.change_pool(session_persistence=None)
    assert {await stage.ask_from(1) for _ in range(3)} == {"one", "two", "three"}


@case("pool.session_persistence.type[HTTP_COOKIE]", pool={"session_persistence": {"type": "HTTP_COOKIE"}}, members=3)
async def our_cookie_keeps_a_client(stage: Stage) -> None:
    answer = await stage.request()
    (given,) = answer.header("Set-Cookie")
    cookie = given.partition(";")[0]
    again = [await stage.request(f"Cookie: {cookie}; a=b") for _ in range(4)]
    assert {each.body for each in again} == {answer.body}
    assert all(each.header("Set-Cookie") == [] for each in again)
    server = next(x for x in stage.servers if x.name == answer.body)
    assert headers_of(server.requests[-1], "Cookie") == ["a=b"]
    assert await stage.spread(3) == {"one": 1, "two": 1, "three": 1}


@case(
    "pool.session_persistence.type[APP_COOKIE]",
    "pool.session_persistence.cookie_name",
    pool={"session_persistence": {"type": "APP_COOKIE", "cookie_name": "JSESSIONID"}},
    members=3,
)
async def the_applications_cookie_keeps_a_client(stage: Stage) -> None:
    for server in stage.servers:
        server.cookie = f"JSESSIONID=of-{server.name}; path=/"
    answer = await stage.request()
    assert answer.header("Set-Cookie") == [f"JSESSIONID=of-{answer.body}; path=/"]
    again = [await stage.request(f"Cookie: JSESSIONID=of-{answer.body}") for _ in range(5)]
    assert {each.body for each in again} == {answer.body}
    other = [await stage.request(f"Cookie: OTHER=of-{answer.body}") for _ in range(3)]
    assert {each.body for each in other} == {"one", "two", "three"}
