"""Load balancers whose driver has no controllers say what they wait for, and go on when one is back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from frontinus.controller.abandoned import AGAIN_AFTER, tell_abandoned
from frontinus.controller.attendance import Attendance
from frontinus.model.capabilities import Capabilities
from frontinus.model.cohorts import Cohort, CohortName
from frontinus.model.edits import delete_load_balancer
from frontinus.model.enums import ProvisioningStatus
from frontinus.model.ids import ControllerId, LoadBalancerId, new_id
from frontinus.model.tree import LoadBalancer
from frontinus.store import cohorts, controllers
from frontinus.store.engine import Transaction

from tests.integration.controller.world import SETTINGS, World

pytestmark = pytest.mark.integration

OTHER = CohortName("provider:exam", "1")


class Site(World):
    """With what the controller of the other driver knows of who is there."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.attendance = Attendance()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Site]:
    made = Site(tmp_path)
    await made.register()
    yield made
    await made.store.close()


async def controller_of(world: Site, name: CohortName) -> ControllerId:
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


async def look(world: Site) -> int:
    """What the controller of the other driver, which lives, does of it."""
    await say_alive(world)
    return await tell_abandoned(world.store, world.owner, SETTINGS, lambda: world.now, world.attendance)


async def say_alive(world: Site, *others: ControllerId) -> None:
    def write(tx: Transaction) -> list[Cohort]:
        for each in (world.owner, *others):
            controllers.keep_alive(tx, each, world.now)
        return cohorts.all_cohorts(tx)

    world.attendance.look(await world.store.transact(write), world.now)


async def wait(world: Site) -> None:
    """Until the others have been silent for long enough."""
    for _ in range(8):
        world.now += SETTINGS.keep_alive_interval
        await say_alive(world)


async def shown(world: Site, load_balancer_id: LoadBalancerId) -> LoadBalancer:
    tree = await world.tree(load_balancer_id)
    assert tree is not None
    return tree.load_balancer


async def given(world: Site, load_balancer_id: LoadBalancerId, to: CohortName) -> LoadBalancerId:
    move = partial(cohorts.move, load_balancer_ids=[load_balancer_id], to=to, now=world.now)
    await world.store.transact(move)
    return load_balancer_id


async def given_away(world: Site) -> LoadBalancerId:
    """One that a driver has whose last controller was seen just now."""
    await controller_of(world, OTHER)
    return await given(world, await world.create(80), OTHER)


async def test_what_nobody_serves_says_what_it_waits_for(world: Site) -> None:
    ours, waits = await world.create(81), await given_away(world)
    assert await look(world) == 0, "its controller was seen a moment ago"
    await wait(world)
    assert await look(world) == 1
    told = await shown(world, waits)
    assert told.fault is not None
    assert (told.provisioning_status, told.fault.code) == (ProvisioningStatus.PENDING_CREATE, "no-controller")
    assert "frontinus controller --provider exam" in told.fault.message
    assert not told.fault.permanent
    since = told.fault.since
    assert (await shown(world, ours)).fault is None, "its own driver has one"

    world.now += AGAIN_AFTER
    assert await look(world) == 1
    again = await shown(world, waits)
    assert again.provisioning_status is ProvisioningStatus.ERROR, "the retry budget is spent"
    assert again.fault is not None
    assert again.fault.since == since


async def test_an_outage_of_the_database_is_nobodys_absence(world: Site) -> None:
    waits = await given_away(world)
    await look(world)
    world.now += timedelta(minutes=2)  # nobody could write
    assert await look(world) == 0, "this controller is only the first to be back"
    assert (await shown(world, waits)).fault is None


async def test_a_clock_that_is_behind_is_nobodys_absence(world: Site) -> None:
    other = await controller_of(world, OTHER)
    waits = await given(world, await world.create(80), OTHER)
    world.now += timedelta(minutes=2)
    for _ in range(8):
        world.now += SETTINGS.keep_alive_interval
        past = world.now - timedelta(minutes=2)
        await world.store.transact(partial(controllers.keep_alive, controller_id=other, now=past))
        assert await look(world) == 0
    assert (await shown(world, waits)).fault is None


async def test_who_comes_back_goes_on(world: Site) -> None:
    waits = await given_away(world)
    await wait(world)
    await look(world)
    await given(world, waits, world.hands.cohort)
    await world.converge()
    settled = await shown(world, waits)
    assert (settled.provisioning_status, settled.fault) == (ProvisioningStatus.ACTIVE, None)
    tree = await world.assert_served(waits)
    assert {x.provisioning_status for x in tree.listeners} == {ProvisioningStatus.ACTIVE}


async def test_what_is_to_be_deleted_says_so_too(world: Site) -> None:
    waits = await given_away(world)
    await world.edit(waits, lambda tree: delete_load_balancer(tree, world.now))
    await wait(world)
    await look(world)
    told = await shown(world, waits)
    assert told.fault is not None
    assert (told.delete_requested, told.fault.code) == (True, "no-controller")


async def test_another_version_of_the_driver_is_no_reason_to_say_anything(world: Site) -> None:
    """It takes over what was left behind."""
    await given_away(world)
    await wait(world)
    await controller_of(world, CohortName(OTHER.driver, "2"))
    assert await look(world) == 0
