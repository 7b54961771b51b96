"""Who gets a new load balancer, what an edit may ask for, and what is told of receipts."""

from __future__ import annotations

from datetime import timedelta
from functools import partial

import pytest
from msgspec.structs import replace

from frontinus.api.settings import ApiSettings
from frontinus.model.capabilities import Capabilities
from frontinus.model.cohorts import CohortName, CohortState
from frontinus.model.enums import AmphoraRole, AmphoraStatus, LbAlgorithm
from frontinus.model.ids import AmphoraId, ControllerId, LoadBalancerId, new_id
from frontinus.model.tree import Amphora, Receipt
from frontinus.store import cohorts, controllers, convergence, leases
from frontinus.store.controllers import Controller

from tests.integration.api.world import COHORT, EVERYTHING, SUBNET_ID, UNKNOWN, World

pytestmark = pytest.mark.integration

NEWER = CohortName(COHORT.driver, "2.0.0")
OTHER = CohortName("other", "9")


async def start(world: World, name: CohortName, can: Capabilities = EVERYTHING) -> None:
    arrived = Controller(
        id=ControllerId(new_id()),
        driver=name.driver,
        driver_version=name.driver_version,
        host="there",
        pid=2,
        capabilities=can,
        provider="amphora",
        started_at=world.clock(),
        seen_at=world.clock(),
    )
    await world.store.transact(lambda tx: controllers.register(tx, arrived))


async def drain(world: World, *names: CohortName) -> None:
    for name in names:
        set_state = partial(cohorts.set_state, name=name, state=CohortState.DRAINING, now=world.clock())
        await world.store.transact(set_state)


async def make(world: World) -> LoadBalancerId:
    answer = await world.call("POST", "loadbalancers", {"loadbalancer": {"vip_subnet_id": SUBNET_ID}})
    return LoadBalancerId(answer.one("loadbalancer")["id"])


async def cohort_of(world: World, load_balancer_id: LoadBalancerId) -> CohortName | None:
    return await world.store.read(lambda tx: cohorts.of(tx, load_balancer_id))


@pytest.mark.parametrize(
    "running, draining, chosen",
    [
        pytest.param((), (), COHORT, id="the only one"),
        pytest.param((NEWER,), (), NEWER, id="the newest"),
        pytest.param((NEWER,), (NEWER,), COHORT, id="the newest that is active"),
        pytest.param((NEWER, OTHER), (), OTHER, id="of several drivers the default one"),
    ],
)
async def test_who_gets_a_new_load_balancer(
    database_url: str, running: tuple[CohortName, ...], draining: tuple[CohortName, ...], chosen: CohortName
) -> None:
    default = OTHER.driver if OTHER in running else ""
    world = await World.open(database_url, settings=ApiSettings(default_driver=default))
    for name in running:
        await start(world, name)
    await drain(world, *draining)
    assert await cohort_of(world, await make(world)) == chosen
    await world.close()


async def test_a_dead_cohort_gets_nothing_new_while_another_lives(world: World) -> None:
    await start(world, NEWER)
    world.clock.now += timedelta(minutes=1)
    await start(world, COHORT)
    assert await cohort_of(world, await make(world)) == COHORT


async def test_nothing_new_while_everything_drains(world: World) -> None:
    there = await make(world)
    await drain(world, COHORT)
    refused = await world.call("POST", "loadbalancers", {"loadbalancer": {"vip_subnet_id": SUBNET_ID}})
    assert (refused.status, refused.headers["retry-after"]) == (503, "30")
    assert str(COHORT) in refused.fault
    assert len(world.network.vips) == 1, "no address is taken for it"
    changed = await world.call("PUT", f"loadbalancers/{there}", {"loadbalancer": {"name": "changed"}})
    assert changed.status == 200


async def test_an_edit_may_ask_for_what_its_own_cohort_can(world: World) -> None:
    poor = replace(EVERYTHING, lb_algorithms=EVERYTHING.lb_algorithms - {LbAlgorithm.SOURCE_IP})
    there = await make(world)
    await start(world, NEWER, poor)
    newer = await make(world)
    body = {"protocol": "HTTP", "lb_algorithm": "SOURCE_IP"}
    answered = [
        (await world.call("POST", "pools", {"pool": {**body, "loadbalancer_id": x}})).status for x in (there, newer)
    ]
    assert answered == [201, 501]


async def test_receipts_tell_what_is_live(world: World) -> None:
    there = await make(world)
    now = world.clock()
    (lease,) = await world.store.transact(
        lambda tx: leases.claim_due(tx, ControllerId("c"), COHORT, now, timedelta(minutes=1), 1)
    )
    receipt = Receipt(
        generation=1,
        digest="d1",
        driver_version=COHORT.driver_version,
        applied_at=now,
        driver=COHORT.driver,
        amphora_version="0.1.0",
        balancer_version="2.6.1",
    )
    tree = await world.tree(there)
    amphora = Amphora(
        id=AmphoraId(new_id()),
        load_balancer_id=there,
        project_id=tree.load_balancer.project_id,
        status=AmphoraStatus.ALLOCATED,
        role=AmphoraRole.STANDALONE,
        receipt=receipt,
        created_at=now,
    )
    await world.store.transact(lambda tx: convergence.add_amphora(tx, lease, amphora))

    async def shown() -> object:
        (told,) = (await world.call("GET", f"loadbalancers/{there}/receipts")).one("receipts")
        return told

    expected = {
        "amphora_id": amphora.id,
        "role": "STANDALONE",
        "generation": 1,
        "digest": "d1",
        "driver": COHORT.driver,
        "driver_version": COHORT.driver_version,
        "amphora_version": "0.1.0",
        "balancer_version": "2.6.1",
        "since": now.isoformat(),
        "as_wanted": False,
        "current_driver": True,
    }
    assert await shown() == expected
    await world.store.transact(lambda tx: convergence.record_settled(tx, lease, 1, now))
    assert await shown() == {**expected, "as_wanted": True}
    await start(world, NEWER)
    await world.store.transact(lambda tx: cohorts.move(tx, [there], NEWER, now))
    assert await shown() == {**expected, "as_wanted": True, "current_driver": False}
    assert (await world.call("GET", f"loadbalancers/{UNKNOWN}/receipts")).status == 404
