"""Nobody is replaced for what is no death, and who is dead is replaced: 200 simulated amphorae, one after the other.

Every day with time ten times faster; as it is in life where it is `long`, with the database away for a minute."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import pytest

from tests.integration.health.calm_world import CalmWorld, Pace

COUNT = 200


@pytest.fixture(params=[pytest.param(0.1, id="quick"), pytest.param(1.0, id="as in life", marks=pytest.mark.long)])
async def world(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[CalmWorld]:
    made = CalmWorld(tmp_path, Pace(request.param))
    await made.start(COUNT)
    yield made
    await made.stop()


async def until(fact: Callable[[], Awaitable[bool]], what: str) -> None:
    try:
        async with asyncio.timeout(30):
            while not await fact():  # noqa: ASYNC110 - the fact is in the database
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(what) from None


@pytest.mark.beside
@pytest.mark.timeout(400)
async def test_nobody_is_replaced_but_the_dead(world: CalmWorld) -> None:
    crowd = world.crowd

    async def all_is_well() -> bool:
        return not await world.suspects()

    async def braked() -> bool:
        return await world.is_braked()

    async def released() -> bool:
        return not await world.is_braked()

    def assert_nothing_was_done(event: str) -> None:
        assert world.replaced() == frozenset(), event
        assert world.started_again() == set(), event

    await world.intervals(5)
    assert_nothing_was_done("the start")

    stopped = crowd.amphorae[0].id
    world.places[stopped].kill()
    world.places[stopped].on_purpose = True
    crowd.silent.add(stopped)

    async def is_suspected() -> bool:
        return stopped in await world.suspects()

    await until(is_suspected, "a planned stop is silence all the same")
    await world.intervals(20)
    assert_nothing_was_done("a planned stop")
    place = world.places[stopped]
    place.on_purpose = False
    place.agent_running = place.balancing = True
    crowd.silent.clear()
    await until(all_is_well, "who is heard again is no suspect")

    # The way to them is gone: neither heartbeats nor answers, and compute sees places that run.
    many = {x.id for x in crowd.amphorae[: COUNT * 3 // 10]}
    world.driver.deaf = many
    crowd.silent |= many
    await until(braked, "30 percent at once brake")
    await world.intervals(20)
    assert_nothing_was_done("30 percent silent at once")
    crowd.silent.clear()
    world.driver.deaf = set()
    await until(released, "the brake releases by itself")
    assert_nothing_was_done("the brake released")

    port = await world.stop_receiver()
    await world.intervals(8)
    world.start_receiver(port)
    await world.intervals(8)
    assert_nothing_was_done("the receiver stopped and started again")

    world.fickle.away = True
    await world.intervals(60 if world.pace.interval == 1 else 20)
    world.fickle.away = False
    await world.intervals(15)
    assert_nothing_was_done("the database was away")

    for jump in (timedelta(hours=1), timedelta(hours=-2)):
        world.jump += jump
        await world.intervals(12)
        assert_nothing_was_done(f"the clock jumped by {jump}")

    dead = crowd.amphorae[-1].id
    load_balancer_id = await world.load_balancer_of(dead)
    world.places[dead].kill()
    crowd.silent.add(dead)

    async def is_replaced() -> bool:
        tree = await world.tree(load_balancer_id)
        assert tree is not None
        return all(x.id != dead and x.receipt is not None for x in tree.amphorae)

    await until(is_replaced, "who is dead is replaced, after all that")
    assert world.replaced() == {dead}
    assert world.started_again() == set()
