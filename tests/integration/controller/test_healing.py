"""What once never healed: each of these waited for ever, or called itself a bug."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from frontinus.controller.witness import Witness
from frontinus.drivers.amphora.interface import Applied, Rendered
from frontinus.model.errors import Incompatible, Retry
from frontinus.model.tree import Amphora, LoadBalancerTree
from frontinus.store import health, leases

from tests.integration.controller.world import SETTINGS, World


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    await made.register()
    yield made
    await made.store.close()


async def test_whole_fleet_that_died_is_found_without_the_ear(world: World) -> None:
    """As after a restart of the machine: so many are silent that the ear believes none of them."""
    ids = [await world.create(80) for _ in range(8)]
    await world.converge()
    before = set(world.places)
    for place in world.places.values():
        place.kill()
    await Witness(world.hands).look()
    await world.converge()
    assert len(world.places) == 8
    assert not before & set(world.places), "the dead are replaced"
    for load_balancer_id in ids:
        tree = await world.tree(load_balancer_id)
        assert tree is not None
        assert tree.load_balancer.provisioning_status == "ACTIVE"
        assert world.places[tree.amphorae[0].id].balancing


async def test_what_compute_sees_to_die_is_replaced_without_a_silence(world: World) -> None:
    load_balancer_id = await world.create(80)
    await world.create(81)
    await world.converge()
    ids = list(world.places)
    dead = (await world.tree(load_balancer_id)).amphorae[0].id  # type: ignore[union-attr]
    now = world.now
    await world.store.transact(lambda tx: health.write_seen(tx, ids, now))
    watching = asyncio.create_task(Witness(world.hands).run())
    try:
        while not world.places[dead].watchers:  # noqa: ASYNC110 - another's list
            await asyncio.sleep(0)
        world.places[dead].kill()
        async with asyncio.timeout(5):
            while await world.store.read(leases.next_due) is None:  # noqa: ASYNC110 - the store says when
                await asyncio.sleep(0.01)
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    assert world.now == now
    await world.converge()
    assert {dead} == set(ids) - set(world.places)


async def test_a_suspicion_that_arises_under_way_is_looked_into_afresh(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who works on it cannot take it back, since he may have looked before it arose."""
    load_balancer_id = await world.create(80)
    await world.converge()
    apply = world.hands.amphora_driver.apply

    async def suspected_meanwhile(*words: Any) -> Any:
        applied = await apply(*words)
        await world.suspect(load_balancer_id)
        return applied

    monkeypatch.setattr(world.hands.amphora_driver, "apply", suspected_meanwhile)
    tree = await world.tree(load_balancer_id)
    assert tree is not None
    await world.add(load_balancer_id, world.listener(load_balancer_id, 81, tree.pools[0].id))
    await world.turn()
    seen = await world.tree(load_balancer_id)
    assert seen is not None
    assert seen.load_balancer.fault is None
    await world.converge()
    settled = await world.tree(load_balancer_id)
    assert settled is not None
    assert [x.suspected_at for x in settled.amphorae] == [None]
    assert (settled.load_balancer.provisioning_status, settled.load_balancer.fault) == ("ACTIVE", None)


async def test_talk_with_one_that_dies_meanwhile_is_broken_off(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that goes takes no packet any more, and refuses none: who speaks to it would wait for as long as the driver."""
    load_balancer_id = await world.create(80)
    await world.converge()
    (dead,) = world.places
    apply, spoken_to = world.hands.amphora_driver.apply, asyncio.Event()

    async def heard(amphora: Amphora, tree: LoadBalancerTree, rendered: Rendered) -> Applied:
        if amphora.id == dead:
            spoken_to.set()
            await asyncio.Event().wait()
        return await apply(amphora, tree, rendered)

    monkeypatch.setattr(world.hands.amphora_driver, "apply", heard)
    pool = (await world.assert_served(load_balancer_id)).pools[0]
    await world.add(load_balancer_id, world.listener(load_balancer_id, 81, pool.id))
    converging = asyncio.create_task(world.converge())
    async with asyncio.timeout(10):
        await spoken_to.wait()
        world.places[dead].kill()
        await Witness(world.hands).look_at([dead])
        await converging
    assert dead not in world.places
    await world.assert_served(load_balancer_id)


async def test_whole_fleet_that_is_silent_but_runs_is_left_alone(world: World) -> None:
    for _ in range(8):
        await world.create(80)
    await world.converge()
    before = set(world.places)
    world.now += timedelta(hours=1)
    await Witness(world.hands).look()
    assert await world.store.read(leases.next_due) is None
    assert set(world.places) == before


async def test_amphora_that_dies_between_first_answer_and_first_push_is_built_again(world: World) -> None:
    load_balancer_id = await world.create(80)
    world.faults.fail("apply", error=ZeroDivisionError("whatever"))
    await world.turn()
    tree = await world.tree(load_balancer_id)
    assert tree is not None
    assert tree.amphorae[0].status == "READY"
    world.places[tree.amphorae[0].id].kill()
    await world.converge()
    await world.assert_served(load_balancer_id)


async def test_agent_that_answers_and_takes_no_push_is_a_fault_and_not_a_circle(world: World) -> None:
    load_balancer_id = await world.create(80)
    await world.converge()
    pool_id = (await world.assert_served(load_balancer_id)).pools[0].id
    world.faults.fail_always("apply", Retry("no space left on the amphora", after=0.1, code="agent-error"))
    await world.add(load_balancer_id, world.listener(load_balancer_id, 81, pool_id))
    before = world.faults.total
    await world.turn()
    assert world.faults.total - before < 30, "it went round in a circle"
    tree = await world.tree(load_balancer_id)
    assert tree is not None
    assert tree.load_balancer.fault is not None
    assert tree.load_balancer.fault.code == "agent-error"
    assert tree.amphorae[0].suspected_at is None
    world.now += SETTINGS.backoff_cap
    world.faults.clear()
    await world.converge()
    await world.assert_served(load_balancer_id)


async def test_agent_that_is_too_old_for_a_wish_is_replaced_from_the_current_image(world: World) -> None:
    load_balancer_id = await world.create(80)
    await world.converge()
    served = await world.assert_served(load_balancer_id)
    world.faults.fail("apply", error=Incompatible("0.1.0", "agents that take files"))
    await world.add(load_balancer_id, world.listener(load_balancer_id, 81, served.pools[0].id))
    await world.turn()
    (after,) = (await world.assert_served(load_balancer_id)).amphorae
    assert after.id != served.amphorae[0].id
    assert set(world.places) == {after.id}


async def test_agent_of_the_current_image_that_is_too_old_is_a_fault_and_not_a_circle(world: World) -> None:
    load_balancer_id = await world.create(80)
    await world.converge()
    pool_id = (await world.assert_served(load_balancer_id)).pools[0].id
    world.faults.fail_always("apply", Incompatible("0.1.0", "agents that take files"))
    await world.add(load_balancer_id, world.listener(load_balancer_id, 81, pool_id))
    await world.turn()
    replaced = set(world.places)
    for _ in range(3):
        world.now += SETTINGS.backoff_cap
        await world.turn()
    tree = await world.tree(load_balancer_id)
    assert tree is not None
    assert tree.load_balancer.fault is not None
    assert tree.load_balancer.fault.code == "incompatible-amphora"
    assert set(world.places) == replaced, "another one of the same image would be no better"
    world.faults.clear()
    await world.converge()
    await world.assert_served(load_balancer_id)


async def test_one_that_compute_cannot_tell_of_hides_none_of_the_others(world: World) -> None:
    ids = [await world.create(80) for _ in range(4)]
    await world.converge()
    for place in world.places.values():
        place.kill()
    world.faults.fail("get", error=Retry("500", after=1.0, code="nova-unavailable"))
    await Witness(world.hands).look()
    trees = [await world.tree(x) for x in ids]
    assert sum(x is not None and x.amphorae[0].suspected_at is not None for x in trees) == 3
