"""Amphorae are given a fresh identity in time, whoever is killed on the way, and no load balancer shows anything of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from frontinus.controller.renewals import Renewals
from frontinus.model.ids import AmphoraId, LoadBalancerId
from frontinus.model.tree import Amphora, LoadBalancerTree
from frontinus.store import amphorae, inventory, leases
from frontinus.testing.faults import Killed, When

from tests.integration.controller.world import SETTINGS, World

pytestmark = pytest.mark.integration


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    await made.register()
    yield made
    await made.store.close()


async def served(world: World) -> tuple[LoadBalancerId, Amphora]:
    load_balancer_id = await world.create(80)
    await world.converge()
    (amphora,) = (await world.assert_served(load_balancer_id)).amphorae
    return load_balancer_id, amphora


async def look(world: World) -> None:
    await Renewals(world.owner, world.hands).look()


async def settled(world: World, load_balancer_id: LoadBalancerId, generation: int) -> LoadBalancerTree:
    """Nothing is due, no lease is held, and the tenant saw nothing."""
    tree = await world.assert_served(load_balancer_id)
    assert (tree.load_balancer.generation, tree.load_balancer.fault) == (generation, None)
    assert not await world.turn(), "there is something due"
    return tree


async def test_a_certificate_is_renewed_when_half_of_its_time_is_over(world: World) -> None:
    load_balancer_id, before = await served(world)
    assert before.certificate_expires_at == world.now + timedelta(days=30)
    world.now += timedelta(days=14)
    await look(world)
    assert world.places[before.id].identity is None, "it was renewed before it was due"
    world.now += timedelta(days=2)
    await look(world)
    (after,) = (await settled(world, load_balancer_id, 1)).amphorae
    assert after.certificate_expires_at == world.now + timedelta(days=30)
    assert world.places[before.id].identity == world.vouching.identity()
    assert after.id == before.id


async def test_who_came_back_with_the_certificate_of_its_birth_is_renewed_in_time(world: World) -> None:
    """Renewed on day 16 it would be due on day 31; restarted on day 20 it shows a certificate that ends on day 30."""
    load_balancer_id, before = await served(world)
    world.now += timedelta(days=16)
    await look(world)
    world.now += timedelta(days=4)
    world.vouching.reborn.add(before.id)
    await world.store.transact(lambda tx: amphorae.request_push(tx, before.id, load_balancer_id, world.now))
    await world.converge()
    (after,) = (await settled(world, load_balancer_id, 1)).amphorae
    identity = world.places[before.id].identity
    assert identity is not None
    assert after.certificate_expires_at == world.now + timedelta(days=30) == identity.expires_at
    assert after.certificate_renew_at == identity.renew_at


async def test_another_authority_reaches_every_amphora(world: World) -> None:
    for port in (80, 81):
        await world.create(port)
    await world.converge()
    world.vouching.digest = "second"
    counted = inventory.count_identities
    assert await world.store.read(lambda tx: counted(tx, "fake", "second")) == (2, 2)
    await look(world)
    assert await world.store.read(lambda tx: counted(tx, "fake", "second")) == (2, 0)
    assert {x.identity.digest for x in world.places.values() if x.identity is not None} == {"second"}
    assert not await world.turn(), "there is something due"


async def test_an_identity_of_elsewhere_is_kept(world: World) -> None:
    load_balancer_id, before = await served(world)
    digest, kept = "second", before.identity_digest or ""
    counted, due = inventory.count_identities, inventory.identities_due
    assert await world.store.read(lambda tx: counted(tx, "fake", digest, kept=kept)) == (1, 0)
    assert await world.store.read(lambda tx: due(tx, "fake", digest, world.now, 9, kept=kept)) == []
    world.now += timedelta(days=16)  # its certificate is due all the same
    found = await world.store.read(lambda tx: due(tx, "fake", digest, world.now, 9, kept=kept))
    assert found == [(before.id, load_balancer_id)]


async def test_an_amphora_out_of_reach_is_no_fault_and_is_tried_again(world: World) -> None:
    load_balancer_id, before = await served(world)
    world.vouching.digest = "second"
    world.places[before.id].kill_agent()
    await look(world)
    assert not await world.turn(), "there is something due"
    world.places[before.id].agent_running = True
    await look(world)
    (after,) = (await settled(world, load_balancer_id, 1)).amphorae
    assert after.identity_digest == "second"


async def test_whose_load_balancer_is_worked_on_waits(world: World) -> None:
    load_balancer_id, before = await served(world)
    world.vouching.digest = "second"
    other, now = AmphoraId("another controller"), world.now
    lease = await world.store.transact(
        lambda tx: leases.claim_one(tx, other, load_balancer_id, now, SETTINGS.lease_duration)  # type: ignore[arg-type]
    )
    assert lease is not None
    await look(world)
    assert world.places[before.id].identity is None
    await world.store.transact(lambda tx: leases.release(tx, lease))
    await look(world)
    assert world.places[before.id].identity is not None


async def test_an_amphora_that_cannot_take_it_is_replaced(world: World) -> None:
    load_balancer_id, before = await served(world)
    world.vouching.digest, world.vouching.outgrown = "second", True
    await look(world)
    await world.converge()
    (after,) = (await world.assert_served(load_balancer_id)).amphorae
    assert (after.id != before.id, after.identity_digest) == (True, "second")


@pytest.mark.parametrize("when", [When.BEFORE, When.AFTER])
async def test_killed_at_every_moment(when: When, tmp_path: Path) -> None:
    for moment in range(1, 8):
        (tmp_path / str(moment)).mkdir()
        world = World(tmp_path / str(moment))
        await world.register()
        load_balancer_id, before = await served(world)
        world.vouching.digest = "second"
        world.faults.fail(None, moment, when=when, error=Killed())
        try:
            await look(world)
        except Killed:
            world.now += SETTINGS.lease_duration
            await look(world)
        (after,) = (await settled(world, load_balancer_id, 1)).amphorae
        assert (after.id, after.identity_digest) == (before.id, "second")
        await world.store.close()
