"""Cases of UDP: the same words as elsewhere, and datagrams that show what they mean."""

from __future__ import annotations

from tests.acceptance.traffic.case import Group
from tests.acceptance.traffic.stage import Stage
from tests.integration.drivers.world import CLIENTS, until

DATAGRAMS = Group("datagrams")
case = DATAGRAMS.case

UDP = {"protocol": "UDP"}


@case("listener.protocol[UDP]", "pool.protocol[UDP]", listener=UDP, pool=UDP, members=3, servers="udp")
async def datagrams_are_answered(stage: Stage) -> None:
    assert await stage.datagrams(9) == {"one": 3, "two": 3, "three": 3}
    assert {tuple(set(server.heard)) for server in stage.servers} == {(b"who?",)}


@case("listener.protocol[UDP]", listener=UDP, pool=UDP, servers="udp")
async def tcp_listens_on_the_same_port(stage: Stage) -> None:
    await stage.create(
        "listeners", "listener", loadbalancer_id=stage.load_balancer_id, protocol="HTTP", protocol_port=stage.port
    )
    assert (await stage.ask(), await stage.datagram()) == ("503", "one")


@case("member.weight", listener=UDP, pool=UDP, members=[{"weight": 1}, {"weight": 2}, {"weight": 0}], servers="udp")
async def weights_are_kept(stage: Stage) -> None:
    assert await stage.datagrams(9) == {"one": 3, "two": 6}


@case("pool.lb_algorithm[SOURCE_IP]", listener=UDP, pool={**UDP, "lb_algorithm": "SOURCE_IP"}, members=3, servers="udp")
async def a_source_has_one_member(stage: Stage) -> None:
    assert len({await stage.datagram(source=CLIENTS.format(7)) for _ in range(6)}) == 1
    assert {await stage.datagram(source=CLIENTS.format(host)) for host in range(1, 30)} == {"one", "two", "three"}


@case(
    "pool.session_persistence.persistence_granularity",
    "pool.session_persistence.type[SOURCE_IP]",
    listener=UDP,
    pool={**UDP, "session_persistence": {"type": "SOURCE_IP", "persistence_granularity": "255.255.255.0"}},
    members=3,
    servers="udp",
)
async def a_network_has_one_member(stage: Stage) -> None:
    async def members() -> int:
        return len({await stage.datagram(source=CLIENTS.format(host)) for host in range(1, 20)})

    assert await members() == 1
    await stage.change_pool(session_persistence={"type": "SOURCE_IP"})
    assert await members() == 3


@case("listener.allowed_cidrs", listener={**UDP, "allowed_cidrs": ["127.84.1.8/32"]}, pool=UDP, servers="udp")
async def only_allowed_networks_are_served(stage: Stage) -> None:
    assert await stage.datagram(source=CLIENTS.format(8)) == "one"
    assert await stage.datagram(source=CLIENTS.format(9), within=0.3) == ""


@case("listener.connection_limit", listener={**UDP, "connection_limit": 2}, pool=UDP, servers="udp")
async def sessions_are_limited(stage: Stage) -> None:
    assert len([x for x in [await stage.datagram(within=0.2) for _ in range(4)] if x]) == 2


@case(
    "listener.timeout_client_data",
    "listener.timeout_member_data",
    listener={**UDP, "connection_limit": 1, "timeout_client_data": 300},
    pool=UDP,
    servers="udp",
)
async def an_idle_session_ends(stage: Stage) -> None:
    assert await stage.datagram() == "one"

    async def served_again() -> bool:
        return await stage.datagram(within=0.1) == "one"

    await until(served_again)


@case(
    "healthmonitor.type[UDP-CONNECT]",
    listener=UDP,
    pool=UDP,
    members=2,
    servers="udp",
    monitor={"type": "UDP-CONNECT", "delay": 3},
)
async def a_closed_port_decides(stage: Stage) -> None:
    await stage.statuses_become(one="ONLINE", two="ONLINE")
    stage.servers[0].stop()
    await stage.statuses_become(one="ERROR", two="ONLINE")

    async def only_one_is_asked() -> bool:
        return await stage.datagrams(3) == {"two": 3}

    await until(only_one_is_asked)
    await stage.servers[0].start()
    await stage.statuses_become(one="ONLINE", two="ONLINE")
