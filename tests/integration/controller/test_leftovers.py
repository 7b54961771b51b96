"""A compute that does not take an amphora away, as Nova while its host is dead: the next one does not wait for it, and nothing
of the old one is reached meanwhile."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from frontinus.model.enums import Topology
from frontinus.model.errors import Retry
from frontinus.model.ids import AmphoraId, LoadBalancerId
from frontinus.testing.faults import Killed, When

from tests.integration.controller.world import SETTINGS, World

pytestmark = pytest.mark.integration

STUCK = Retry("its host is dead", after=1.0, code="nova-delete-stuck")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path, has_ports=True)
    await made.register()
    yield made
    await made.store.close()


async def turns_for(world: World, time: timedelta) -> None:
    end = world.now + time
    while world.now < end:
        try:
            await world.turn()
        except Killed:
            world.restart()
        world.now += timedelta(seconds=1)


async def dead_one_of(world: World, topology: Topology) -> tuple[LoadBalancerId, AmphoraId]:
    """Its host dies, and compute does not take it away."""
    load_balancer_id = await world.create(80, topology=topology)
    await world.converge()
    dead = (await world.assert_served(load_balancer_id)).amphorae[0].id
    world.places[dead].kill()
    await world.suspect(load_balancer_id)
    world.faults.fail_always("destroy", STUCK)
    return load_balancer_id, dead


@pytest.mark.parametrize("topology", list(Topology))
async def test_the_next_one_serves_before_the_old_one_is_gone(world: World, topology: Topology) -> None:
    load_balancer_id, dead = await dead_one_of(world, topology)
    await turns_for(world, timedelta(seconds=10))
    assert {x.id for x in (await world.tree_of(load_balancer_id)).amphorae} == set(world.places), (
        "it is waited for first"
    )
    assert await world.network.list_ports(dead)
    await turns_for(world, SETTINGS.removal_patience * 3)
    tree = await world.tree_of(load_balancer_id)
    assert tree.load_balancer.provisioning_status == "ACTIVE"
    assert tree.load_balancer.fault is not None
    assert tree.load_balancer.fault.code == "nova-delete-stuck"
    assert dead in world.places
    assert await world.network.list_ports(dead) == (), "nothing reaches it"
    serving = [x.id for x in tree.amphorae if x.status == "ALLOCATED"]
    assert len(serving) == len({x.role for x in tree.amphorae})
    assert dead not in serving
    assert all(world.places[x].balancing for x in serving)
    await world.add(load_balancer_id, world.listener(load_balancer_id, 81, tree.pools[0].id))
    await world.turn()
    edited = await world.tree_of(load_balancer_id)
    assert edited.load_balancer.applied_generation == edited.load_balancer.generation, "edits don't wait for it"
    world.faults.clear()
    await world.converge()
    assert {x.id for x in (await world.assert_served(load_balancer_id)).amphorae} == set(serving)


async def test_it_is_asked_for_less_and_less_often(world: World) -> None:
    load_balancer_id, _ = await dead_one_of(world, Topology.SINGLE)
    await turns_for(world, timedelta(minutes=10))
    fault = (await world.tree_of(load_balancer_id)).load_balancer.fault
    before = world.faults.calls["destroy"]
    await turns_for(world, timedelta(minutes=10))
    assert 15 <= world.faults.calls["destroy"] - before <= 45
    assert fault is not None
    after = (await world.tree_of(load_balancer_id)).load_balancer.fault
    assert after is not None
    assert after.since == fault.since


async def test_a_deletion_waits_for_what_is_stuck(world: World) -> None:
    load_balancer_id, dead = await dead_one_of(world, Topology.SINGLE)
    await turns_for(world, SETTINGS.removal_patience * 3)
    await world.delete(load_balancer_id)
    await turns_for(world, timedelta(minutes=2))
    assert (await world.tree_of(load_balancer_id)).load_balancer.delete_requested
    assert dead in world.places
    world.faults.clear()
    await world.converge()
    await world.assert_nothing(load_balancer_id)


async def test_who_does_not_answer_at_all_is_not_waited_for(world: World) -> None:
    load_balancer_id = await world.create(80)
    await world.converge()
    settings = dataclasses.replace(SETTINGS, removal_patience=timedelta(milliseconds=50))
    world.hands = dataclasses.replace(world.hands, settings=settings)
    for place in world.places.values():
        place.kill()
    await world.suspect(load_balancer_id)
    world.faults.fail("destroy", when=When.HANG)
    await world.turn()
    fault = (await world.tree_of(load_balancer_id)).load_balancer.fault
    assert fault is not None
    assert fault.code == "removal-slow"
    await world.converge()
    await world.assert_served(load_balancer_id)


async def test_without_ports_the_old_one_goes_first(tmp_path: Path) -> None:
    """Its address could not be taken from it."""
    world = World(tmp_path)
    await world.register()
    load_balancer_id, dead = await dead_one_of(world, Topology.SINGLE)
    await turns_for(world, timedelta(minutes=2))
    assert set(world.places) == {dead}
    world.faults.clear()
    await world.converge()
    await world.assert_served(load_balancer_id)
    await world.store.close()


async def test_what_is_left_out_does_not_keep_it(world: World) -> None:
    load_balancer_id, dead = await dead_one_of(world, Topology.SINGLE)
    world.taken_ports.add(81)
    tree = await world.tree_of(load_balancer_id)
    await world.add(load_balancer_id, world.listener(load_balancer_id, 81, tree.pools[0].id))
    await turns_for(world, SETTINGS.removal_patience * 3)
    partly = await world.tree_of(load_balancer_id)
    assert {x.protocol_port: x.provisioning_status for x in partly.listeners} == {80: "ACTIVE", 81: "ERROR"}
    assert dead in world.places
    world.faults.clear()
    await turns_for(world, SETTINGS.backoff_cap * 2)
    assert dead not in world.places
    world.taken_ports.clear()
    await world.converge()
    await world.assert_served(load_balancer_id)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("when", [When.BEFORE, When.AFTER])
async def test_whoever_is_killed_on_the_way_the_next_one_serves_and_nothing_is_left(tmp_path: Path, when: When) -> None:
    for moment in range(1, 70):
        directory = tmp_path / f"{moment}"
        directory.mkdir()
        world = World(directory, has_ports=True)
        await world.register()
        load_balancer_id, dead = await dead_one_of(world, Topology.SINGLE)
        world.faults.fail(None, moment, when=when, error=Killed())
        await turns_for(world, SETTINGS.removal_patience * 4)
        serving = [x for x in (await world.tree_of(load_balancer_id)).amphorae if x.status == "ALLOCATED"]
        assert len(serving) == 1, moment
        assert await world.network.list_ports(dead) == (), moment
        world.faults.clear()
        await world.converge()
        assert (await world.assert_served(load_balancer_id)).amphorae[0].id == serving[0].id
        await world.store.close()
