"""Load balancers whose driver has no controllers say what they wait for, and go on when one is back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from frontinus.controller.abandoned import AGAIN_AFTER, tell_abandoned
from frontinus.model.capabilities import Capabilities
from frontinus.model.cohorts import CohortName
from frontinus.model.edits import delete_load_balancer
from frontinus.model.enums import ProvisioningStatus
from frontinus.model.ids import ControllerId, LoadBalancerId, new_id
from frontinus.model.tree import LoadBalancer
from frontinus.store import cohorts, controllers

from tests.integration.controller.world import SETTINGS, World

pytestmark = pytest.mark.integration

OTHER = CohortName("provider:exam", "1")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    await made.register()
    yield made
    await made.store.close()


async def controller_of(world: World, name: CohortName) -> ControllerId:
    """One that is seen now, and then not any more."""
    record = controllers.Controller(
        id=ControllerId(new_id()),
        driver=name.driver,
        driver_version=name.driver_version,
        host="elsewhere",
        pid=2,
        provider="exam",
        capabilities=Capabilities(),
        started_at=world.now,
        seen_at=world.now,
    )
    await world.store.transact(lambda tx: controllers.register(tx, record))
    return record.id


async def look(world: World) -> int:
    """What the controller of the other driver, which lives, does of it."""
    await world.store.transact(lambda tx: controllers.keep_alive(tx, world.owner, world.now))
    return await tell_abandoned(world.store, world.owner, SETTINGS.lease_duration, lambda: world.now)


async def shown(world: World, load_balancer_id: LoadBalancerId) -> LoadBalancer:
    tree = await world.tree(load_balancer_id)
    assert tree is not None
    return tree.load_balancer


async def given(world: World, load_balancer_id: LoadBalancerId, to: CohortName) -> LoadBalancerId:
    move = partial(cohorts.move, load_balancer_ids=[load_balancer_id], to=to, now=world.now)
    await world.store.transact(move)
    return load_balancer_id


async def given_away(world: World) -> LoadBalancerId:
    """One that a driver has whose last controller was seen just now."""
    await controller_of(world, OTHER)
    return await given(world, await world.create(80), OTHER)


async def test_what_nobody_serves_says_what_it_waits_for(world: World) -> None:
    ours, waits = await world.create(81), await given_away(world)
    assert await look(world) == 0, "its controller was seen a moment ago"
    world.now += timedelta(minutes=2)
    assert await look(world) == 1
    told = await shown(world, waits)
    assert told.fault is not None
    assert (told.provisioning_status, told.fault.code) == (ProvisioningStatus.ERROR, "no-controller")
    assert "frontinus controller --provider exam" in told.fault.message
    assert not told.fault.permanent
    since = told.fault.since
    assert (await shown(world, ours)).fault is None, "its own driver has one"

    world.now += AGAIN_AFTER
    assert await look(world) == 1
    again = (await shown(world, waits)).fault
    assert again is not None
    assert again.since == since


async def test_who_comes_back_goes_on(world: World) -> None:
    waits = await given_away(world)
    world.now += timedelta(minutes=2)
    await look(world)
    await given(world, waits, world.hands.cohort)
    await world.converge()
    settled = await shown(world, waits)
    assert (settled.provisioning_status, settled.fault) == (ProvisioningStatus.ACTIVE, None)
    tree = await world.assert_served(waits)
    assert {x.provisioning_status for x in tree.listeners} == {ProvisioningStatus.ACTIVE}


async def test_what_is_to_be_deleted_says_so_too(world: World) -> None:
    waits = await given_away(world)
    await world.edit(waits, lambda tree: delete_load_balancer(tree, world.now))
    world.now += timedelta(minutes=2)
    await look(world)
    told = await shown(world, waits)
    assert told.fault is not None
    assert (told.delete_requested, told.fault.code) == (True, "no-controller")


async def test_another_version_of_the_driver_is_no_reason_to_say_anything(world: World) -> None:
    """It takes over what was left behind."""
    await given_away(world)
    world.now += timedelta(minutes=2)
    await controller_of(world, CohortName(OTHER.driver, "2"))
    assert await look(world) == 0
