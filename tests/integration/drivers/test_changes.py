"""Changes under load: what takes no reload takes none, and no request fails, whatever changes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from frontinus.model.enums import HealthMonitorType, LbAlgorithm, ListenerProtocol
from frontinus.model.tree import LoadBalancerTree

from tests.integration.drivers.world import (
    HAPROXY,
    MEMBERS,
    VIP,
    World,
    ask,
    closed,
    crowd,
    exchange,
    free_port,
    spread,
    until,
)
from tests.unit.drivers.trees import a_listener, a_load_balancer, a_member, a_monitor, a_pool, a_tree, number


class Site:
    def __init__(self, port: int, ports: list[int]) -> None:
        self.port = port
        self.ports = ports

    def tree(
        self, *members: int, monitor: bool = False, pool: dict[str, Any] | None = None, **fields: dict[str, Any]
    ) -> LoadBalancerTree:
        """Members by index; `fields` as one={...} are for the first, two= for the second."""
        words = ("zero", "one", "two", "three", "four", "five")
        return a_tree(
            a_load_balancer(VIP),
            listeners=[a_listener(port=self.port)],
            pools=[a_pool(**(pool or {}))],
            members=[
                a_member(30 + index, address=MEMBERS, port=self.ports[index % 4], **fields.get(words[index], {}))
                for index in members
            ],
            monitors=[a_monitor(type=HealthMonitorType.TCP)] if monitor else [],
        )


@pytest.fixture
async def site(world: World) -> Site:
    members = [await world.member(name) for name in ("zero", "one", "two", "three")]
    return Site(free_port(), [member.port for member in members])


def state_of(world: World, member: int) -> dict[str, str]:
    """HAProxy's row for a member: status, weight and so on."""
    lines = world.runtime("show stat").removeprefix("# ").strip().splitlines()
    names = lines[0].split(",")
    rows = [dict(zip(names, line.split(","), strict=True)) for line in lines[1:]]
    return next(row for row in rows if row["svname"] == number(30 + member))


@pytest.mark.parametrize("lb_algorithm", list(LbAlgorithm))
@pytest.mark.parametrize("monitor", [False, True])
async def test_members_change_under_load_without_a_reload(
    world: World, site: Site, lb_algorithm: LbAlgorithm, monitor: bool
) -> None:
    pool = {"lb_algorithm": lb_algorithm}
    await world.apply(site.tree(0, 1, monitor=monitor, pool=pool))
    pids = world.haproxy_pids()
    async with crowd(site.port) as tally:
        for tree in (
            site.tree(0, 1, 2, monitor=monitor, pool=pool),
            site.tree(0, 1, 2, monitor=monitor, pool=pool, zero={"weight": 10}, one={"weight": 0}),
            site.tree(0, 1, 2, monitor=monitor, pool=pool, zero={"admin_state_up": False}),
            site.tree(0, 1, 2, monitor=monitor, pool=pool),
            site.tree(3, monitor=monitor, pool=pool),
            site.tree(3, 4, 5, monitor=monitor, pool=pool, four={"admin_state_up": False, "backup": True}),
        ):
            seen = tally.answers.total()
            applied = await world.apply(tree)
            assert applied.action == "runtime"
            await until(lambda seen=seen: tally.answers.total() > seen + 20)
    assert not tally.failures
    assert world.haproxy_pids() == pids


async def test_structure_changes_under_load_without_a_failure(world: World, site: Site) -> None:
    tree = site.tree(0, 1)
    await world.apply(tree)
    other = free_port()
    more = replace(tree, listeners=(*tree.listeners, a_listener(11, ListenerProtocol.TCP, other)))
    async with crowd(site.port) as tally:
        for changed in (
            more,
            replace(more, health_monitors=(a_monitor(type=HealthMonitorType.TCP),)),
            replace(more, pools=(a_pool(lb_algorithm=LbAlgorithm.SOURCE_IP),)),
            replace(tree, listeners=(replace(tree.listeners[0], timeout_client_data=40_000, connection_limit=500),)),
            tree,
        ):
            seen = tally.answers.total()
            assert (await world.apply(changed)).action == "reload"
            await until(lambda seen=seen: tally.answers.total() > seen + 20)
    assert not tally.failures


async def test_all_members_replaced_at_once_leaves_no_gap(world: World, site: Site) -> None:
    await world.apply(site.tree(0, 1))
    async with crowd(site.port) as tally:
        for members in ((2, 3), (0, 1), (2, 3)):
            applied = await world.apply(site.tree(*members))
            # A server that still has connections is deleted later; asking for it again before then takes a reload.
            assert applied.action in {"runtime", "reload"}
            seen = tally.answers.total()
            await until(lambda seen=seen: tally.answers.total() > seen + 20)
        tally.answers.clear()
        await until(lambda: tally.answers.total() > 20)
        assert set(tally.answers) == {"two", "three"}
    assert not tally.failures


async def test_a_member_that_is_down_stays_down_over_a_reload(world: World, site: Site) -> None:
    tree = site.tree(0, 1, monitor=True)
    await world.apply(tree)
    await world.members["one"].stop()
    await until(lambda: state_of(world, 1)["status"] == "DOWN")
    before = free_port()
    # A frontend and a backend that sort before: HAProxy numbers its proxies anew, and must find the states by name.
    changed = replace(
        tree,
        listeners=(*tree.listeners, a_listener(5, ListenerProtocol.TCP, before, pool=6)),
        pools=(*tree.pools, a_pool(6)),
    )
    assert (await world.apply(changed)).action == "reload"
    assert state_of(world, 1)["status"] == "DOWN"
    assert state_of(world, 0)["status"] == "UP"


@pytest.mark.parametrize("how", ["before the reload", "with the reload"])
@pytest.mark.parametrize(
    "first, then, status, weight",
    [
        ({"admin_state_up": False}, {}, "no check", "1"),
        ({}, {"admin_state_up": False}, "MAINT", "1"),
        ({"weight": 0}, {"weight": 5}, "no check", "5"),
        ({"weight": 5}, {"weight": 0}, "no check", "0"),
    ],
)
async def test_what_was_set_at_run_time_is_what_a_reload_loads(
    world: World, site: Site, how: str, first: dict[str, Any], then: dict[str, Any], status: str, weight: str
) -> None:
    """The saved server states must not bring an old weight or maintenance back."""
    await world.apply(site.tree(0, 1, one=first))
    changed = site.tree(0, 1, one=then)
    if how == "before the reload":
        assert (await world.apply(changed)).action == "runtime"
    structural = replace(changed, listeners=(replace(changed.listeners[0], timeout_client_data=1_234),))
    assert (await world.apply(structural)).action == "reload"
    row = state_of(world, 1)
    assert (row["status"], row["weight"]) == (status, weight)


async def test_a_check_address_is_what_a_reload_loads(world: World, site: Site) -> None:
    tree = site.tree(0, 1, monitor=True)
    await world.apply(tree)
    moved = site.tree(0, 1, monitor=True, one={"monitor_port": 1})
    assert (await world.apply(moved)).action == "runtime"
    await until(lambda: state_of(world, 1)["status"] == "DOWN")
    back = replace(tree, listeners=(replace(tree.listeners[0], timeout_client_data=1_234),))
    assert (await world.apply(back)).action == "reload"
    await until(lambda: state_of(world, 1)["status"] == "UP")


async def test_a_new_member_that_is_dead_costs_no_request(world: World, site: Site) -> None:
    await world.apply(site.tree(0, 1, monitor=True))
    await world.members["two"].stop()
    async with crowd(site.port) as tally:
        assert (await world.apply(site.tree(0, 1, 2, monitor=True))).action == "runtime"
        await until(lambda: state_of(world, 2)["status"] == "DOWN")
    assert not tally.failures
    assert set(tally.answers) == {"zero", "one"}


async def test_a_removed_member_ends_what_it_began(world: World, site: Site) -> None:
    world.members["zero"].delay = 0.5
    await world.apply(site.tree(0))
    reader, writer = await asyncio.open_connection(VIP, site.port)
    answer = asyncio.create_task(exchange(reader, writer))
    await until(lambda: bool(world.members["zero"].requests))
    assert (await world.apply(site.tree(1))).action == "runtime"
    assert await answer == "zero"
    assert await exchange(reader, writer) == "one"
    await closed(writer)
    # HAProxy keeps the server until it has closed the connection to the member, in up to 15 seconds; no client is sent
    # there, and nobody is told of it.
    assert state_of(world, 0)["status"] == "MAINT"
    assert (await world.driver.info(world.amphora, site.tree(1))).running


async def test_a_hundred_members_come_and_go(world: World, site: Site) -> None:
    port = world.members["zero"].port
    pool = [a_member(100 + index, address=MEMBERS, port=port) for index in range(100)]
    tree = site.tree()
    await world.apply(tree)
    assert await ask(site.port) == "503"
    applied = await world.apply(replace(tree, members=tuple(pool)))
    assert applied.action == "runtime"
    assert await spread(site.port, 5) == {"zero": 5}
    assert (await world.apply(tree)).action == "runtime"
    assert await ask(site.port) == "503"


async def test_a_connection_limit_changes_at_run_time(world: World, site: Site) -> None:
    """Raised and lowered in the HAProxy that runs, and the same after a start from the text."""

    def limited(limit: int) -> LoadBalancerTree:
        tree = site.tree(0)
        return replace(tree, listeners=tuple(replace(x, connection_limit=limit) for x in tree.listeners))

    def limit() -> str:
        lines = world.runtime("show stat").removeprefix("# ").strip().splitlines()
        names = lines[0].split(",")
        (row,) = [dict(zip(names, x.split(","), strict=True)) for x in lines[1:] if x.split(",")[1] == "FRONTEND"]
        return row["slim"]

    await world.apply(site.tree(0))
    pids = world.haproxy_pids()
    for number_of_connections in (1, 3, 2):
        assert (await world.apply(limited(number_of_connections))).action == "runtime"
        assert limit() == str(number_of_connections)
    assert world.haproxy_pids() == pids
    async with asyncio.timeout(10):
        first, second = [await asyncio.open_connection(VIP, site.port) for _ in range(2)]
        third = asyncio.create_task(ask(site.port))
        done, _ = await asyncio.wait((third,), timeout=0.3)
        assert not done  # over the limit: it waits in the kernel's queue
        first[1].close()
        assert await third == "zero"
        second[1].close()


async def test_an_old_haproxy_gets_members_by_a_reload(tmp_path: Path) -> None:
    """One that says it is 2.4, where servers can't be added at run time with their checks. It is 2.6 under a wrapper, so
    that the driver's choice is what is seen: it does not even try the commands."""
    wrapper = tmp_path / "haproxy"
    wrapper.write_text(
        "#!/bin/sh\n"
        '[ "$*" = -vv ] && { echo "HAProxy version 2.4.22 2023/02/14 - https://haproxy.org/"; echo +SYSTEMD; exit; }\n'
        f'exec {HAPROXY} "$@"\n'
    )
    wrapper.chmod(0o755)
    world = World(tmp_path, haproxy_command=str(wrapper))
    world.start_agent()
    try:
        await world.answering()
        site = Site(free_port(), [(await world.member(name)).port for name in ("zero", "one", "two", "three")])
        await world.apply(site.tree(0))
        async with crowd(site.port) as tally:
            assert (await world.apply(site.tree(0, 1))).action == "reload"
            assert (await world.apply(site.tree(0, 1, one={"weight": 5}))).action == "runtime"
            seen = tally.answers.total()
            await until(lambda: tally.answers.total() > seen + 20)
        assert not tally.failures
        assert await spread(site.port, 12) == {"zero": 2, "one": 10}
        assert "fallback=None" in (world.place / "agent.log").read_text()
        assert "fallback='" not in (world.place / "agent.log").read_text()
    finally:
        await world.close()
        await until(lambda: not world.haproxy_pids())


async def test_a_flavor_sizes_the_amphora(world: World, site: Site) -> None:
    """Threads and connections are those of the load balancer, where its flavor says some, and the settings' where not."""

    async def size(**by_flavor: int) -> tuple[int, int]:
        tree = site.tree(0)
        await world.apply(replace(tree, load_balancer=replace(tree.load_balancer, **by_flavor)))
        told = dict(line.partition(": ")[::2] for line in world.runtime("show info").splitlines())
        return int(told["Nbthread"]), int(told["Maxconn"])

    settings = world.settings
    threads, connections = await size()
    assert threads == settings.threads
    assert 0 < connections <= settings.max_connections + 50
    threads, connections = await size(threads=64, max_connections=100)
    assert threads == 64
    assert 100 <= connections <= 150
    threads, connections = await size(threads=2, max_connections=100)
    assert threads == 2
    assert 100 <= connections <= 150
    clients = [await asyncio.open_connection(VIP, site.port) for _ in range(connections + 20)]
    try:
        await until(lambda: f"CurrConns: {connections}" in world.runtime("show info"))  # and the others wait
    finally:
        for _, writer in clients:
            await closed(writer)
