"""A change made at run time leaves HAProxy as a start from the new text would have it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from frontinus.model.enums import HealthMonitorType, LbAlgorithm, PoolProtocol
from frontinus.model.tree import LoadBalancerTree, Member

from tests.integration.drivers.strategies import member_sets
from tests.integration.drivers.world import MEMBERS, VIP, World, free_port
from tests.unit.drivers.trees import a_listener, a_load_balancer, a_monitor, a_pool, a_tree

MEMBER_PORT = free_port(MEMBERS)


def site(port: int, members: list[Member], **pool: Any) -> LoadBalancerTree:
    monitored = pool.pop("monitored")
    return a_tree(
        a_load_balancer(VIP),
        listeners=[a_listener(port=port)],
        pools=[a_pool(**pool)],
        members=members,
        monitors=[a_monitor(type=HealthMonitorType.TCP, delay=2_000_000, timeout=1)] if monitored else [],
    )


def facts(world: World) -> dict[str, tuple[object, ...]]:
    """What HAProxy says of each server, less how and when it came to it."""
    found: dict[str, tuple[object, ...]] = {}
    for row in table(world.runtime("show servers state").split("\n", 1)[1], " "):
        in_maintenance = int(row["srv_admin_state"]) & 0x01
        found[f"{row['be_name']}/{row['srv_name']}"] = (
            row["srv_id"],
            row["srv_addr"],
            row["srv_port"],
            row["srv_uweight"],
            bool(in_maintenance),
            # Where checks go, whether or not that was said.
            row["srv_check_addr"] if row["srv_check_addr"] != "-" else row["srv_addr"],
            row["srv_check_port"] if row["srv_check_port"] != "0" else row["srv_port"],
            # Bits: configured 0x02, enabled 0x04. That checks are paused (0x08) goes with maintenance, and says
            # nothing of a server without any.
            int(row["srv_check_state"]) & 0x06,
        )
    for row in table(world.runtime("show stat"), ","):
        name = f"{row['pxname']}/{row['svname']}"
        if name in found:
            # The weight in effect, which a server in maintenance has none of.
            weight = "" if row["status"] == "MAINT" else row["weight"]
            status = row["status"].partition(" ")[0]  # UP 1/2 until the first check, UP after it
            found[name] += (status, weight, row["act"], row["bck"], row["check_rise"], row["check_fall"])
    return found


def table(text: str, separator: str) -> Iterator[dict[str, str]]:
    lines = text.removeprefix("# ").strip().splitlines()
    names = lines[0].split(separator)
    for line in lines[1:]:
        yield dict(zip(names, line.split(separator), strict=True))


POOLS = st.fixed_dictionaries(
    {
        "lb_algorithm": st.sampled_from(list(LbAlgorithm)),
        "protocol": st.sampled_from([PoolProtocol.HTTP, PoolProtocol.PROXYV2]),
        "monitored": st.booleans(),
    }
)
ROWS = member_sets(MEMBERS, MEMBER_PORT)


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as made:
        yield made


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=ROWS, between=ROWS, after=ROWS, pool=POOLS)
def test_a_change_equals_a_start(
    lasting_world: tuple[asyncio.Runner, World, int],
    before: list[Member],
    between: list[Member],
    after: list[Member],
    pool: dict[str, Any],
) -> None:
    runner, world, port = lasting_world

    async def compare() -> None:
        await world.driver.retire(world.amphora, site(port, [], **pool))
        actions = [(await world.apply(site(port, members, **pool))).action for members in (before, between, after)]
        changed = facts(world)
        await world.driver.retire(world.amphora, site(port, [], **pool))
        assert (await world.apply(site(port, after, **pool))).action == "start"
        started = facts(world)
        assert changed == started, f"{changed}\n{started}"
        assert actions[0] == "start"
        moves = pool["monitored"] and pool["protocol"] is PoolProtocol.PROXYV2
        assert moves or set(actions[1:]) <= {"runtime", "unchanged"}

    runner.run(compare())


@pytest.fixture
def lasting_world(runner: asyncio.Runner, tmp_path: Any) -> Iterator[tuple[asyncio.Runner, World, int]]:
    """One world for all examples of a property, and something that a check can connect to."""
    world = World(tmp_path)
    world.start_agent()
    with socket.create_server((MEMBERS, MEMBER_PORT), backlog=1024):
        try:
            runner.run(world.answering())
            yield runner, world, free_port()
        finally:
            runner.run(world.close())
