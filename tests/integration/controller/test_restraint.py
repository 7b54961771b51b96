"""What looks dead is left alone while there is a reason to: marks, the brake, the limit, grace. And it says so."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from frontinus.controller.restraint import Grace
from frontinus.model.ids import LoadBalancerId, ReceiverId, new_id
from frontinus.model.maintenance import Mark, MarkScope
from frontinus.model.receivers import ALIVE_FOR, Receiver
from frontinus.model.tree import LoadBalancerTree
from frontinus.store import maintenance, receivers, replacements

from tests.integration.controller.world import SETTINGS, World


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    await made.register()
    yield made
    await made.store.close()


async def _tree(world: World, load_balancer_id: LoadBalancerId) -> LoadBalancerTree:
    tree = await world.tree(load_balancer_id)
    assert tree is not None
    return tree


async def _turns_for(world: World, time: timedelta) -> None:
    end = world.now + time
    while world.now < end:
        await world.turn()
        world.now += timedelta(seconds=1)


async def _dead(world: World) -> LoadBalancerId:
    load_balancer_id = await world.create(80)
    await world.converge()
    next(iter(world.places.values())).kill()
    await world.suspect(load_balancer_id)
    return load_balancer_id


def _mark(world: World, scope: MarkScope, tree: LoadBalancerTree, until: timedelta | None) -> Mark:
    target = {
        MarkScope.AMPHORA: tree.amphorae[0].id,
        MarkScope.LOAD_BALANCER: tree.id,
        MarkScope.HOST: "host-1",
        MarkScope.INSTALLATION: "",
    }[scope]
    return Mark(
        scope=scope,
        target=target,
        reason="work on the roof",
        created_at=world.now,
        until=None if until is None else world.now + until,
    )


@pytest.mark.parametrize("agent_only", [False, True], ids=["dead", "agent dead"])
@pytest.mark.parametrize("scope", list(MarkScope))
async def test_nothing_is_replaced_or_started_under_a_mark(world: World, scope: MarkScope, agent_only: bool) -> None:
    load_balancer_id = await world.create(80)
    await world.converge()
    mark = _mark(world, scope, await _tree(world, load_balancer_id), None)
    await world.store.transact(lambda tx: maintenance.put(tx, mark))
    (place,) = world.places.values()
    if agent_only:
        place.kill_agent()
    else:
        place.kill()
    await world.suspect(load_balancer_id)
    await _turns_for(world, timedelta(minutes=5))
    assert list(world.places.values()) == [place]
    assert place.starts == 1
    held = (await _tree(world, load_balancer_id)).load_balancer
    assert held.fault is not None
    assert held.fault.code == "held-by-maintenance"
    assert "work on the roof" in held.fault.message
    assert held.provisioning_status == "ACTIVE"
    await world.store.transact(lambda tx: maintenance.remove(tx, mark.scope, mark.target))
    await world.converge()
    await world.assert_served(load_balancer_id)


async def test_a_mark_ends_by_itself(world: World) -> None:
    load_balancer_id = await _dead(world)
    mark = _mark(world, MarkScope.INSTALLATION, await _tree(world, load_balancer_id), timedelta(seconds=30))
    await world.store.transact(lambda tx: maintenance.put(tx, mark))
    before = set(world.places)
    await _turns_for(world, timedelta(seconds=29))
    assert set(world.places) == before
    await world.converge()
    await world.assert_served(load_balancer_id)
    assert not before & set(world.places)


async def test_pushes_and_failovers_that_are_asked_for_go_on_under_a_mark(world: World) -> None:
    load_balancer_id = await world.create(80)
    await world.converge()
    tree = await _tree(world, load_balancer_id)
    mark = _mark(world, MarkScope.INSTALLATION, tree, None)
    await world.store.transact(lambda tx: maintenance.put(tx, mark))
    await world.add(load_balancer_id, world.listener(load_balancer_id, 81, tree.pools[0].id))
    await world.converge()
    await world.assert_served(load_balancer_id)
    await world.store.transact(lambda tx: world.ask_for_failover(tx, load_balancer_id))
    await world.converge()
    served = await world.assert_served(load_balancer_id)
    assert served.amphorae[0].id != tree.amphorae[0].id


def _receiver(world: World, *, braked: bool) -> Receiver:
    return Receiver(
        id=ReceiverId(new_id()),
        host="ear",
        port=5555,
        started_at=world.now,
        seen_at=world.now,
        watched=200,
        silent=60 if braked else 0,
        braked=braked,
    )


@pytest.mark.parametrize("gone", [False, True], ids=["braked", "all receivers gone"])
async def test_silence_is_not_believed_while_the_ears_are_deaf(world: World, gone: bool) -> None:
    """A push that fails suspects an amphora without the ear: the brake must hold that too."""
    load_balancer_id = await world.create(80)
    await world.converge()
    tree = await _tree(world, load_balancer_id)
    ear = _receiver(world, braked=not gone)
    await world.store.transact(lambda tx: receivers.tell(tx, ear))
    world.faults.fail_always("info")
    world.faults.fail_always("apply")
    await world.add(load_balancer_id, world.listener(load_balancer_id, 81, tree.pools[0].id))
    before = set(world.places)
    for _ in range(60):
        world.now += timedelta(seconds=1) + (ALIVE_FOR if gone else timedelta(0))
        if not gone:
            told = replace(ear, seen_at=world.now)
            await world.store.transact(lambda tx, told=told: receivers.tell(tx, told))  # type: ignore[misc]
        await world.turn()
    assert set(world.places) == before
    held = (await _tree(world, load_balancer_id)).load_balancer
    assert held.fault is not None
    assert held.fault.code == "held-by-brake"
    assert held.provisioning_status == "ERROR", "what was asked waits, and is not PENDING for ever"
    well = replace(ear, braked=False, seen_at=world.now)
    await world.store.transact(lambda tx: receivers.tell(tx, well))
    world.faults.clear()
    await world.converge()
    await world.assert_served(load_balancer_id)
    assert set(world.places) == before


async def test_the_brake_does_not_hold_what_compute_knows(world: World) -> None:
    load_balancer_id = await _dead(world)
    before = set(world.places)
    ear = _receiver(world, braked=True)
    await world.store.transact(lambda tx: receivers.tell(tx, ear))
    await world.turn()
    await world.assert_served(load_balancer_id)
    assert not before & set(world.places)


async def test_so_many_replacements_at_a_time_over_all_controllers(world: World) -> None:
    """Compute is full: those that began hold their turns, and the others are not torn down for nothing."""
    limit = SETTINGS.replacements_at_once
    ids = [await world.create(80) for _ in range(limit + 5)]
    await world.converge(200)
    before = set(world.places)
    for place in world.places.values():
        place.kill()
    for load_balancer_id in ids:
        await world.suspect(load_balancer_id)
    world.faults.fail_always("build")
    for _ in range(8):
        await world.turn()
        world.restart()
        world.now += timedelta(seconds=1)
    assert len(before & set(world.places)) == 5
    trees = [await _tree(world, x) for x in ids]
    assert sorted(x.load_balancer.fault.code for x in trees if x.load_balancer.fault)[:5] == ["replacement-limit"] * 5
    held = await world.store.read(lambda tx: replacements.turns(tx, world.now))
    assert len(held) == limit
    world.faults.clear()
    await world.converge(600)
    assert len(world.places) == len(ids)
    assert not before & set(world.places)
    assert await world.store.read(lambda tx: replacements.turns(tx, world.now)) == []


async def test_replacements_that_cannot_be_finished_hold_the_others_up_for_a_time_only(world: World) -> None:
    now, limit = world.now, 2
    first, second, third = [await world.create(80) for _ in range(3)]

    async def take(load_balancer_id: LoadBalancerId) -> bool:
        return await world.store.transact(lambda tx: replacements.take_turn(tx, load_balancer_id, now, limit))

    assert [await take(x) for x in (first, second, third, first)] == [True, True, False, True]
    now += replacements.HELD_FOR_AT_MOST
    assert [await take(x) for x in (third, second, first)] == [True, True, False]


async def test_a_hang_counts_from_the_end_of_an_outage(world: World) -> None:
    load_balancer_id = await world.create(80)
    await world.converge()
    before = set(world.places)
    await world.suspect(load_balancer_id)
    world.faults.fail_always("info")
    world.now += timedelta(minutes=1)
    world.hands.grace.found(world.now)
    await world.turn()
    assert set(world.places) == before
    world.faults.clear()
    await world.converge()
    await world.assert_served(load_balancer_id)
    assert set(world.places) == before


@pytest.mark.parametrize("jump", [timedelta(hours=1), timedelta(hours=-1)], ids=["an hour ahead", "an hour back"])
async def test_a_jump_of_the_clock_replaces_nobody_and_does_not_keep_the_dead(world: World, jump: timedelta) -> None:
    load_balancer_id = await world.create(80)
    await world.converge()
    before, monotonic = set(world.places), 0.0
    world.hands = dataclasses.replace(world.hands, grace=Grace(lambda: monotonic))
    world.hands.grace.found(world.now)
    await world.suspect(load_balancer_id)
    world.faults.fail_always("info")
    world.now += jump
    for second in range(1, int(SETTINGS.hang_deadline.total_seconds())):
        monotonic = float(second)
        world.now += timedelta(seconds=1)
        world.hands.grace.found(world.now)
        await world.turn()
        assert set(world.places) == before
    for second in range(10, 20):
        monotonic = float(second)
        world.now += timedelta(seconds=1)
        world.hands.grace.found(world.now)
        await world.turn()
    assert not before & set(world.places), "it neither beats nor answers: it is replaced all the same"
