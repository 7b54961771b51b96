"""A virtual machine from the image serves HTTP by HAProxy, and UDP by LVS in its kernel: real traffic, real health."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from msgspec.structs import replace

from frontinus.model.enums import (
    HealthMonitorType,
    LbAlgorithm,
    ListenerProtocol,
    PoolProtocol,
    SessionPersistenceType,
)
from frontinus.model.tree import LoadBalancerTree, SessionPersistence

from tests.integration.drivers.world import until
from tests.integration.places.machine_world import MEMBERS, VIP, MachineWorld, machine_world
from tests.unit.drivers.trees import (
    a_listener,
    a_load_balancer,
    a_member,
    a_monitor,
    a_pool,
    a_tree,
)

pytestmark = [pytest.mark.long, pytest.mark.asyncio(loop_scope="module")]


def udp_tree(pool: dict[str, Any] | None = None, *, monitored: bool = False, **of_two: Any) -> LoadBalancerTree:
    return a_tree(
        a_load_balancer(VIP),
        listeners=[a_listener(11, ListenerProtocol.UDP, 5300, 21)],
        pools=[a_pool(21, PoolProtocol.UDP, **(pool or {}))],
        members=[
            a_member(31, 21, MEMBERS["one"], 9000),
            a_member(32, 21, MEMBERS["two"], 9000, **of_two),
        ],
        monitors=[a_monitor(41, 21, HealthMonitorType.UDP_CONNECT)] if monitored else [],
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[MachineWorld]:
    async with machine_world(tmp_path_factory.mktemp("machine"), "http", "udp", "sctp", "port_of_client") as made:
        yield made


def http_and_udp_tree() -> LoadBalancerTree:
    udp = udp_tree()
    return a_tree(
        a_load_balancer(VIP),
        listeners=[a_listener(), *udp.listeners],
        pools=[a_pool(), *udp.pools],
        members=[*(a_member(50 + n, address=each) for n, each in enumerate(MEMBERS.values())), *udp.members],
    )


async def test_http_and_udp_are_served_side_by_side(world: MachineWorld) -> None:
    await world.apply(http_and_udp_tree())
    assert {world.ask_http(80) for _ in range(4)} == {b"one", b"two"}
    assert dict(world.names_by_udp(5300, 10)) == {"one": 5, "two": 5}


async def test_many_come_within_two_minutes(world: MachineWorld) -> None:
    """More than the kernel would follow by itself where there is so little memory, which is 2048 of both: an ended
    connection for two minutes, a session for half of one."""
    await world.apply(http_and_udp_tree())
    assert dict(world.names_by_http(80, 1_200)) == {b"one": 600, b"two": 600}
    assert dict(world.clients_by_udp(5300, 2_400)) == {"one": 1_200, "two": 1_200}


async def test_more_are_connected_than_a_process_has_files_by_itself(world: MachineWorld) -> None:
    """Which is 4,096: two for each connection."""
    await world.apply(http_and_udp_tree())
    assert dict(world.names_by_http_at_once(80, 2_400)) == {b"one": 1_200, b"two": 1_200}


async def test_who_reads_slowly_gets_all_of_the_answer(world: MachineWorld) -> None:
    """By itself the kernel cuts connections off that haproxy is done with, when there are 1,024, or when a tenth of the
    memory waits to be sent."""
    world.start("one", "long_answers")
    member = a_member(address=MEMBERS["one"], port=8081)
    await world.apply(a_tree(a_load_balancer(VIP), listeners=[a_listener()], pools=[a_pool()], members=[member]))
    assert dict(world.lengths_by_http_read_late(80, 2_000)) == {6_000: 2_000}


async def test_a_thousand_members_are_neighbours(world: MachineWorld) -> None:
    """Of whom the kernel knows 1,024 by itself: while they are examined nobody else can be reached, clients neither."""
    addresses = [f"10.87.{16 + n // 250}.{n % 250 + 1}" for n in range(1_100)]
    members = [a_member(1_000 + n, address=each) for n, each in enumerate(addresses)]
    monitor = a_monitor(type=HealthMonitorType.TCP, delay=5, timeout=4, max_retries=1)
    tree = a_tree(a_load_balancer(VIP), listeners=[a_listener()], pools=[a_pool()], members=members, monitors=[monitor])
    with world.having("one", addresses):
        await world.apply(tree)
        for member in (1_000, 1_500, 2_099):
            await world.until_member(20, member, "UP")
        assert dict(world.names_by_http(80, 1_100)) == {b"one": 1_100}
        await world.apply(a_tree(a_load_balancer(VIP)))


async def test_a_member_that_refuses_datagrams_gets_none_until_it_is_back(world: MachineWorld) -> None:
    await world.apply(udp_tree(monitored=True))
    assert set(world.names_by_udp(5300, 4)) == {"one", "two"}
    world.stop("two", "udp")
    await world.until_member(21, 32, "DOWN")
    assert dict(world.names_by_udp(5300, 10)) == {"one": 10}
    world.start("two", "udp")
    await world.until_member(21, 32, "UP")

    async def both_answer() -> bool:  # keepalived tells the kernel after the agent has told us
        return set(world.names_by_udp(5300, 4)) == {"one", "two"}

    await until(both_answer, 20)


async def test_sessions_go_on_over_a_change_and_a_drained_member_keeps_its_own(world: MachineWorld) -> None:
    await world.apply(udp_tree())
    before = {port: world.ask_udp(5300, source_port=port) for port in range(40_000, 40_006)}
    assert set(before.values()) == {"one", "two"}
    await world.apply(udp_tree(weight=0))
    assert {port: world.ask_udp(5300, source_port=port) for port in before} == before
    assert dict(world.names_by_udp(5300, 6)) == {"one": 6}, "a drained member got a new session"


@pytest.mark.parametrize(
    "pool",
    [
        pytest.param({"lb_algorithm": LbAlgorithm.SOURCE_IP}, id="by algorithm"),
        pytest.param(
            {
                "session_persistence": SessionPersistence(
                    type=SessionPersistenceType.SOURCE_IP,
                    persistence_timeout=60,
                    persistence_granularity="255.255.255.0",
                )
            },
            id="by persistence",
        ),
    ],
)
async def test_a_client_stays_with_its_member(pool: dict[str, Any], world: MachineWorld) -> None:
    await world.apply(udp_tree(pool))
    assert len(world.names_by_udp(5300, 8)) == 1


async def test_a_session_that_is_silent_long_enough_is_forgotten(world: MachineWorld) -> None:
    """Then one port of a client is a new client. The time is another after a change, too."""

    def tree(milliseconds: int) -> LoadBalancerTree:
        found = udp_tree()
        return replace(found, listeners=(replace(found.listeners[0], timeout_client_data=milliseconds),))

    async def turns(port: int, silent: float) -> list[str]:
        """Who answers one port again and again, with so many seconds in between."""
        seen = []
        for _ in range(4):
            seen.append(world.ask_udp(5300, source_port=port))
            await asyncio.sleep(silent)
        return seen

    await world.apply(tree(30_000))
    assert len(set(await turns(43_000, 2.5))) == 1
    await world.apply(tree(1_000))
    assert set(await turns(43_001, 2.5)) == {"one", "two"}


async def test_a_session_that_was_silent_comes_to_its_member_from_the_same_port(world: MachineWorld) -> None:
    """As long as it is remembered; the kernel would follow one datagram for half a minute."""
    tree = udp_tree()
    members = tuple(replace(x, protocol_port=9001) for x in tree.members)
    listeners = (replace(tree.listeners[0], timeout_client_data=60_000, timeout_member_data=60_000),)
    await world.apply(replace(tree, members=members, listeners=listeners))
    first = world.ask_udp(5300, source_port=43_100)
    await asyncio.sleep(35)
    assert first != ""
    assert world.ask_udp(5300, source_port=43_100) == first


async def test_a_client_may_go_elsewhere_when_its_time_is_over(world: MachineWorld) -> None:
    """Until then it stays, from whatever port it comes."""
    remembered = SessionPersistence(type=SessionPersistenceType.SOURCE_IP, persistence_timeout=3)
    found = udp_tree({"session_persistence": remembered})
    await world.apply(replace(found, listeners=(replace(found.listeners[0], timeout_client_data=1_000),)))
    seen = set()
    for _ in range(3):
        names = world.names_by_udp(5300, 4)
        assert len(names) == 1
        seen |= set(names)
        await asyncio.sleep(6)
    assert seen == {"one", "two"}


async def test_weights_count(world: MachineWorld) -> None:
    await world.apply(udp_tree(weight=3))
    assert dict(world.names_by_udp(5300, 16)) == {"one": 4, "two": 12}


async def test_what_passed_is_counted_once(world: MachineWorld) -> None:
    await world.apply(udp_tree())
    before = await world.settled_counters(11)
    assert sum(world.names_by_udp(5300, 10).values()) == 10
    after = await world.settled_counters(11)
    headers = 28  # of IP and UDP, which the kernel counts too
    assert after.total_connections - before.total_connections == 10
    assert after.bytes_in - before.bytes_in == 10 * (headers + len("who"))
    assert after.bytes_out - before.bytes_out == 10 * (headers + len("one"))


async def test_nothing_of_a_listener_that_is_gone_stays_in_the_kernel(world: MachineWorld) -> None:
    await world.apply(udp_tree())
    assert set(world.names_by_udp(5300, 4)) == {"one", "two"}
    await world.apply(a_tree(a_load_balancer(VIP)))
    assert world.ask_udp(5300, patience=0.3) == ""


async def test_sctp_is_served_and_its_members_are_examined(world: MachineWorld) -> None:
    await world.apply(
        a_tree(
            a_load_balancer(VIP),
            listeners=[a_listener(12, ListenerProtocol.SCTP, 5400, 22)],
            pools=[a_pool(22, PoolProtocol.SCTP)],
            members=[a_member(33 + n, 22, each, 9001) for n, each in enumerate(MEMBERS.values())],
            monitors=[a_monitor(42, 22, HealthMonitorType.SCTP)],
        )
    )
    await world.until_member(22, 34, "UP")
    assert {world.ask_sctp(5400, 41_000 + n) for n in range(4)} == {"one", "two"}
    world.stop("two", "sctp")
    await world.until_member(22, 34, "DOWN")
    assert {world.ask_sctp(5400, 42_000 + n) for n in range(4)} == {"one"}
    world.start("two", "sctp")
    await world.until_member(22, 34, "UP")
