"""What the API asks of amphorae is done, whoever is killed on the way."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from frontinus.model.edits import request_failover
from frontinus.model.enums import AmphoraStatus
from frontinus.model.ids import AmphoraId, LoadBalancerId
from frontinus.store import amphorae, convergence, health, leases, trees
from frontinus.store.engine import Transaction
from frontinus.testing.faults import Killed, When

from tests.integration.controller.world import SETTINGS, World

pytestmark = pytest.mark.integration


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    await made.register()
    yield made
    await made.store.close()


async def fail_over(world: World, load_balancer_id: LoadBalancerId) -> None:
    def work(tx: Transaction) -> None:
        before = trees.read_tree(tx, load_balancer_id, for_update=True)
        assert before is not None
        trees.write_tree(tx, before, request_failover(before, world.now))
        amphorae.request_replacement_of_all(tx, load_balancer_id, world.now)

    await world.store.transact(work)


async def test_failover_replaces_the_amphora_once(world: World) -> None:
    load_balancer_id = await world.create(80)
    await world.converge()
    (before,) = (await world.assert_served(load_balancer_id)).amphorae
    await fail_over(world, load_balancer_id)
    await world.converge()
    (after,) = (await world.assert_served(load_balancer_id)).amphorae
    assert after.id != before.id
    assert not await world.turn(), "nothing is due any more"


async def served_and_failed_over(directory: Path) -> tuple[World, LoadBalancerId, AmphoraId]:
    directory.mkdir()
    world = World(directory)
    await world.register()
    load_balancer_id = await world.create(80)
    await world.converge()
    (before,) = (await world.assert_served(load_balancer_id)).amphorae
    await fail_over(world, load_balancer_id)
    return world, load_balancer_id, before.id


@pytest.mark.parametrize("when", [When.BEFORE, When.AFTER])
async def test_failover_killed_at_every_moment(when: When, tmp_path: Path) -> None:
    world, _, _ = await served_and_failed_over(tmp_path / "undisturbed")
    calls = world.faults.total
    await world.converge()
    count = world.faults.total - calls
    await world.store.close()
    assert count > 3
    for moment in range(1, count + 1):
        world, load_balancer_id, before = await served_and_failed_over(tmp_path / str(moment))
        world.faults.fail(None, moment, when=when, error=Killed())
        await world.converge()
        (after,) = (await world.assert_served(load_balancer_id)).amphorae
        assert after.id != before
        await world.store.close()


async def test_a_push_is_made_once_although_the_clock_of_who_asked_is_ahead(world: World) -> None:
    load_balancer_id = await world.create(80)
    await world.converge()
    (amphora,) = (await world.assert_served(load_balancer_id)).amphorae
    ahead = world.now.replace(year=world.now.year + 1)
    await world.store.transact(lambda tx: amphorae.request_push(tx, amphora.id, load_balancer_id, ahead))
    await world.converge()
    (after,) = (await world.assert_served(load_balancer_id)).amphorae
    assert (after.id, after.receipt is not None and after.receipt.applied_at) == (amphora.id, ahead)
    assert not await world.turn()


async def test_what_is_left_of_an_amphora_in_error_is_removed(world: World) -> None:
    load_balancer_id = await world.create(80)
    await world.converge()
    (amphora,) = (await world.assert_served(load_balancer_id)).amphorae

    now = world.now
    await world.store.transact(lambda tx: health.mark_due(tx, [load_balancer_id], now))
    (lease,) = await world.store.transact(
        lambda tx: leases.claim_due(tx, world.owner, world.hands.cohort, now, SETTINGS.lease_duration, 1)
    )
    broken = replace(amphora, status=AmphoraStatus.ERROR)
    await world.store.transact(lambda tx: convergence.update_amphora(tx, lease, broken))
    await world.store.transact(lambda tx: leases.release(tx, lease))
    assert await world.store.transact(lambda tx: amphorae.request_removal(tx, amphora.id, load_balancer_id, now))
    await world.converge()
    (after,) = (await world.assert_served(load_balancer_id)).amphorae
    assert after.id != amphora.id
