"""A load balancer of a third-party provider: which calls its driver gets, whoever dies when, and what becomes of its words."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from frontinus.controller.provider_agent import ProviderAgent
from frontinus.controller.provider_reconcile import ProviderHands, reconcile
from frontinus.model.capabilities import Capabilities
from frontinus.model.certificates import Secrets
from frontinus.model.cohorts import SILENT_AFTER
from frontinus.model.edits import apply, delete_load_balancer, request_failover
from frontinus.model.enums import FaultPhase, LbAlgorithm, PoolProtocol, ProvisioningStatus
from frontinus.model.errors import Conflict, Retry, Unsupported
from frontinus.model.ids import ControllerId, FlavorId, FlavorProfileId, LoadBalancerId, PoolId, new_id
from frontinus.model.network import VipRequest
from frontinus.model.offer_questions import OfferAnswer, Offered, OfferQuestion, Verdict
from frontinus.model.offers import Flavor, FlavorProfile
from frontinus.model.provider_calls import FAILOVER, ProviderCall
from frontinus.model.tree import LoadBalancer, LoadBalancerTree, Pool
from frontinus.store import controllers, leases, offers, providers, trees
from frontinus.store.engine import Transaction
from frontinus.store.health import mark_due
from frontinus.testing.faults import Killed

from tests.integration.controller.world import PROJECT, SETTINGS, World

pytestmark = pytest.mark.integration

REPORT_WAIT = timedelta(seconds=20)


class Driver:
    """Takes every call down and reports it at once, unless it is silent; `raises` is what it does instead, and `fails_over_by`
    how it fails at failovers."""

    name, version = "provider:exam", "1"

    def __init__(self, world: World) -> None:
        self._world = world
        self.taken: list[str] = []
        self.offered: list[Offered] = []
        self.raises: Exception | None = None
        self.is_silent = self.dies = False
        self.fails_over_by: str | None = None

    def offers(self) -> Capabilities:
        return Capabilities()

    async def judge(self, question: OfferQuestion) -> OfferAnswer:
        return OfferAnswer(verdict=Verdict.TAKEN)

    async def call(self, call: ProviderCall, secrets: Secrets, offered: Offered) -> None:
        self.taken.append(call.name)
        self.offered.append(offered)
        if self.dies:
            raise Killed
        if self.raises is not None:
            raise self.raises
        tree = call.then or call.settled
        assert tree is not None
        word, now = "DELETED" if call.then is None else "ACTIVE", self._world.now
        if call.name == FAILOVER and self.fails_over_by == "refused":
            raise Conflict("", "not now")
        if call.name == FAILOVER and self.fails_over_by == "reported":
            word = "ERROR"
        if not self.is_silent:
            await self._world.store.transact(lambda tx: providers.report(tx, tree.id, word, None, now))


class Provider:
    """The process of a provider: its controller, whose turns are taken by hand."""

    def __init__(self, world: World) -> None:
        self.world, self.driver = world, Driver(world)
        self.restart()

    def restart(self) -> None:
        """Another process, with the same driver."""
        world = self.world
        self.hands = ProviderHands(
            id=ControllerId(new_id()),
            store=world.store,
            driver=self.driver,
            network=world.network,
            secret=world.secrets,
            settings=SETTINGS,
            now=lambda: world.now,
            report_wait=REPORT_WAIT,
        )

    async def claim(self) -> list[leases.Lease]:
        hands, now = self.hands, self.world.now
        return await self.world.store.transact(
            lambda tx: leases.claim_due(tx, hands.id, hands.cohort, now, SETTINGS.lease_duration, 10)
        )

    async def converge(self, seconds: int = 5) -> None:
        world, hands = self.world, self.hands
        for _ in range(seconds):
            for lease in await self.claim():
                await reconcile(lease, hands)
                await world.store.transact(lambda tx, held=lease: leases.release(tx, held))  # type: ignore[misc]
            world.now += timedelta(seconds=1)

    async def create(self, **values: Any) -> LoadBalancerId:
        world, load_balancer_id = self.world, LoadBalancerId(new_id())
        subnet = world.network.subnets[0]
        allocated = await world.network.allocate_vip(load_balancer_id, PROJECT, VipRequest(subnet_id=subnet.id))
        made = LoadBalancer(
            id=load_balancer_id,
            project_id=PROJECT,
            provider="exam",
            vip=allocated.vip,
            created_at=world.now,
            **values,
        )
        tree = LoadBalancerTree(load_balancer=made)
        await world.store.transact(lambda tx: trees.create_tree(tx, tree, self.hands.cohort))
        return load_balancer_id

    async def ask_for_failover(self, load_balancer_id: LoadBalancerId, ahead: timedelta = timedelta(0)) -> None:
        """As the API does, by a clock that is so much ahead."""
        now = self.world.now
        await self.world.edit(load_balancer_id, lambda tree: request_failover(tree, now))
        await self.world.store.transact(lambda tx: providers.request_failover(tx, load_balancer_id, now + ahead))

    async def shown(self, load_balancer_id: LoadBalancerId) -> LoadBalancer:
        found = await self.world.tree(load_balancer_id)
        assert found is not None
        return found.load_balancer


@pytest.fixture
async def provider(tmp_path: Path) -> AsyncIterator[Provider]:
    world = World(tmp_path)
    yield Provider(world)
    await world.store.close()


async def test_a_failover_is_the_drivers_once_for_each_that_was_asked_for(provider: Provider) -> None:
    load_balancer_id = await provider.create()
    await provider.converge()
    for done in (1, 2):
        await provider.ask_for_failover(load_balancer_id)
        assert (await provider.shown(load_balancer_id)).provisioning_status is ProvisioningStatus.PENDING_UPDATE
        await provider.converge()
        assert provider.driver.taken == ["loadbalancer_create", *["loadbalancer_failover"] * done]
        assert (await provider.shown(load_balancer_id)).provisioning_status is ProvisioningStatus.ACTIVE
    provider.restart()
    await provider.converge()
    assert provider.driver.taken.count("loadbalancer_failover") == 2


async def test_a_failover_asked_for_by_a_clock_that_is_ahead_is_done_once(provider: Provider) -> None:
    load_balancer_id = await provider.create()
    await provider.converge()
    await provider.ask_for_failover(load_balancer_id, ahead=timedelta(minutes=1))
    await provider.converge()
    assert provider.driver.taken == ["loadbalancer_create", "loadbalancer_failover"]


async def test_one_that_nobody_reports_is_made_again_by_whoever_comes_next(provider: Provider) -> None:
    load_balancer_id = await provider.create()
    await provider.converge()
    provider.driver.is_silent = True
    await provider.ask_for_failover(load_balancer_id)
    await provider.converge()
    provider.restart()
    provider.driver.is_silent = False
    provider.world.now += REPORT_WAIT
    await provider.converge()
    assert provider.driver.taken == ["loadbalancer_create", *["loadbalancer_failover"] * 2]
    assert (await provider.shown(load_balancer_id)).provisioning_status is ProvisioningStatus.ACTIVE


async def register(provider: Provider) -> None:
    """Its controller says now that it is there."""
    world, hands = provider.world, provider.hands
    record = controllers.Controller(
        id=hands.id,
        driver=hands.driver.name,
        driver_version=hands.driver.version,
        host="here",
        pid=1,
        provider="exam",
        capabilities=hands.driver.offers(),
        started_at=world.now,
        seen_at=world.now,
    )
    await world.store.transact(lambda tx: controllers.register(tx, record))


async def test_of_two_that_live_one_makes_the_call(provider: Provider) -> None:
    """The other one is asked for something while the driver is at work on it, and waits too, until the first is dead."""
    provider.driver.is_silent = True
    await register(provider)
    load_balancer_id = await provider.create()
    await provider.converge(1)
    provider.restart()  # this one is the other
    for _ in range(3):
        await ask_with_a_new_pool(provider, load_balancer_id)
        await provider.converge(2)
    assert provider.driver.taken == ["loadbalancer_create"]
    provider.hands = replace(provider.hands, report_wait=timedelta(minutes=5))
    provider.driver.is_silent = False
    await provider.converge(int(SILENT_AFTER.total_seconds()))
    assert provider.driver.taken[:3] == ["loadbalancer_create", "loadbalancer_create", "pool_create"]
    assert (await provider.shown(load_balancer_id)).provisioning_status is ProvisioningStatus.ACTIVE


async def test_what_a_process_was_at_when_it_was_killed_is_made_again_with_its_lease(provider: Provider) -> None:
    await register(provider)
    await provider.create()
    provider.driver.dies = True
    with pytest.raises(Killed):
        await provider.converge(1)
    provider.driver.dies = False
    provider.restart()
    await provider.converge(int(SETTINGS.lease_duration.total_seconds()) + 1)
    assert provider.driver.taken == ["loadbalancer_create"] * 2


async def test_trouble_is_tried_again_and_a_refusal_is_told_and_left(provider: Provider) -> None:
    load_balancer_id = await provider.create()
    await provider.converge()
    provider.driver.raises = Retry("on fire", after=1.0, code="provider-error")
    await provider.ask_for_failover(load_balancer_id)
    await provider.converge(3)
    provider.driver.raises = None
    await provider.converge(40)
    assert provider.driver.taken.count("loadbalancer_failover") >= 2
    assert (await provider.shown(load_balancer_id)).fault is None

    provider.driver.taken.clear()
    provider.driver.raises = Unsupported("", "the exam does no failovers")
    await provider.ask_for_failover(load_balancer_id)
    await provider.converge(40)
    refused = (await provider.shown(load_balancer_id)).fault
    assert refused is not None
    assert (refused.permanent, "does no failovers" in refused.message) == (True, True)
    provider.driver.raises = None
    await provider.world.edit(load_balancer_id, lambda tree: request_failover(tree, provider.world.now))
    await provider.converge()
    assert (await provider.shown(load_balancer_id)).fault is None
    assert provider.driver.taken == ["loadbalancer_failover"], "it was asked for once, and answered"


async def ask_with_a_new_pool(provider: Provider, load_balancer_id: LoadBalancerId) -> None:
    """A failover, and an edit in the same moment."""
    now = provider.world.now
    pool = Pool(
        id=PoolId(new_id()),
        project_id=PROJECT,
        load_balancer_id=load_balancer_id,
        protocol=PoolProtocol.HTTP,
        lb_algorithm=LbAlgorithm.ROUND_ROBIN,
        created_at=now,
    )
    await provider.world.edit(load_balancer_id, lambda tree: apply(tree, now, create=(pool,)))
    await provider.ask_for_failover(load_balancer_id)


async def test_a_failover_that_failed_is_over_and_says_so_until_something_is_asked(provider: Provider) -> None:
    load_balancer_id = await provider.create()
    await provider.converge()
    provider.driver.is_silent = True
    await ask_with_a_new_pool(provider, load_balancer_id)
    await provider.converge(1)
    report = partial(providers.report, load_balancer_id=load_balancer_id, now=provider.world.now)
    await provider.world.store.transact(partial(report, word="ACTIVE", about=None))
    await provider.converge(1)
    assert provider.driver.taken[1:] == ["pool_create", "loadbalancer_failover"]
    await provider.world.store.transact(partial(report, word="ERROR", about="listener 17"))
    await provider.converge(40)
    provider.restart()
    await provider.world.store.transact(lambda tx: mark_due(tx, [load_balancer_id], provider.world.now))
    await provider.converge()
    assert provider.driver.taken[1:] == ["pool_create", "loadbalancer_failover"], "each may cut connections off"
    failed = await provider.world.tree(load_balancer_id)
    assert failed is not None
    fault = failed.load_balancer.fault
    assert fault is not None
    assert (fault.code, fault.permanent) == ("failover-failed", True)
    assert fault.message.startswith("provider reports ERROR of listener 17 after the failover; ")
    assert failed.load_balancer.provisioning_status is ProvisioningStatus.ERROR
    assert [x.provisioning_status for x in failed.pools] == [ProvisioningStatus.ACTIVE], "it is carried all the same"

    provider.driver.is_silent = False
    await provider.ask_for_failover(load_balancer_id)
    await provider.converge()
    healed = await provider.shown(load_balancer_id)
    assert (healed.provisioning_status, healed.fault) == (ProvisioningStatus.ACTIVE, None)
    assert provider.driver.taken.count("loadbalancer_failover") == 2


@pytest.mark.parametrize("how", ["refused", "reported"])
async def test_what_came_with_a_failover_that_failed_is_carried(provider: Provider, how: str) -> None:
    load_balancer_id = await provider.create()
    await provider.converge()
    provider.driver.fails_over_by = how
    await ask_with_a_new_pool(provider, load_balancer_id)
    await provider.converge()
    failed = await provider.world.tree(load_balancer_id)
    assert failed is not None
    assert failed.load_balancer.fault is not None
    assert failed.load_balancer.fault.code == "failover-failed"
    assert [(x.provisioning_status, x.fault) for x in failed.pools] == [(ProvisioningStatus.ACTIVE, None)]
    await provider.world.edit(load_balancer_id, lambda tree: apply(tree, provider.world.now, delete=failed.pools))
    await provider.converge()
    assert (await provider.shown(load_balancer_id)).provisioning_status is ProvisioningStatus.ACTIVE
    assert provider.driver.taken[1:] == ["pool_create", "loadbalancer_failover", "pool_delete"]


async def test_a_report_that_takes_long_is_looked_for_now_and_then(provider: Provider) -> None:
    world, driver = provider.world, provider.driver
    provider.hands = replace(provider.hands, report_wait=timedelta(minutes=20))
    driver.is_silent = True
    await provider.create()
    await provider.converge(1)
    for _ in range(3):
        await provider.converge(1)
        assert await provider.claim() == [], "a time that is far ahead is taken for that of a wrong clock"
        world.now += timedelta(minutes=3)
    assert driver.taken == ["loadbalancer_create"]


async def test_trouble_is_told_as_error_when_the_budget_is_spent(provider: Provider) -> None:
    provider.driver.raises = Retry("on fire", after=1.0, code="provider-error")
    load_balancer_id = await provider.create()
    await provider.converge(int(SETTINGS.retry_budget.total_seconds()) + 2)
    shown = await provider.shown(load_balancer_id)
    assert (shown.provisioning_status, shown.fault is not None) == (ProvisioningStatus.ERROR, True)


async def test_a_deletion_waits_for_the_network_and_says_so(provider: Provider) -> None:
    """With pauses: a service in trouble is not asked as often as it can answer."""
    load_balancer_id = await provider.create()
    await provider.converge()
    faults = provider.world.faults
    faults.fail_always("release_vip", Retry("Neutron does not answer", after=15.0, code="neutron-unavailable"))
    await provider.world.edit(load_balancer_id, lambda tree: delete_load_balancer(tree, provider.world.now))
    await provider.converge(30)
    fault = (await provider.shown(load_balancer_id)).fault
    assert fault is not None
    assert (fault.code, fault.phase) == ("neutron-unavailable", FaultPhase.NETWORK)
    assert 1 < faults.calls["release_vip"] < 6
    faults.clear()
    await provider.converge(30)
    assert await provider.world.tree(load_balancer_id) is None
    assert provider.driver.taken == ["loadbalancer_create", "loadbalancer_delete"]


async def test_a_driver_that_says_that_it_is_at_work_is_waited_for(provider: Provider) -> None:
    told = ProviderAgent(provider.world.store, lambda _, __: {}, lambda: provider.world.now)
    provider.driver.is_silent = True
    load_balancer_id = await provider.create()
    await provider.converge(1)
    for word in ("PENDING_CREATE", "ACTIVE"):
        entry = {"id": load_balancer_id, "provisioning_status": word}
        assert await told.status({"loadbalancers": [entry]}) == {"status_code": 200}
        await provider.converge(3)
    shown = await provider.shown(load_balancer_id)
    assert (shown.provisioning_status, shown.fault) == (ProvisioningStatus.ACTIVE, None)
    assert provider.driver.taken == ["loadbalancer_create"]


async def test_a_failover_asked_for_before_the_driver_knows_of_it_is_done_after(provider: Provider) -> None:
    load_balancer_id = await provider.create()
    await provider.ask_for_failover(load_balancer_id)
    await provider.converge()
    assert provider.driver.taken == ["loadbalancer_create", "loadbalancer_failover"]
    await provider.ask_for_failover(load_balancer_id)
    await provider.world.edit(load_balancer_id, lambda tree: delete_load_balancer(tree, provider.world.now))
    await provider.converge()
    assert provider.driver.taken[2:] == ["loadbalancer_delete"], "what goes need not fail over"


async def test_every_call_is_told_what_the_flavor_stands_for(provider: Provider) -> None:
    now = provider.world.now
    profile = FlavorProfile(
        id=FlavorProfileId(new_id()),
        name="p",
        provider_name="exam",
        flavor_data='{"size": "large", "copies": [1, 2]}',
        created_at=now,
    )
    flavor = Flavor(id=FlavorId(new_id()), name="f", flavor_profile_id=profile.id, created_at=now)

    def offer(tx: Transaction) -> None:
        offers.add(tx, profile)
        offers.add(tx, flavor)

    await provider.world.store.transact(offer)
    load_balancer_id = await provider.create(flavor_id=flavor.id)
    await provider.converge()
    await provider.world.edit(load_balancer_id, lambda tree: delete_load_balancer(tree, now))
    await provider.converge()
    assert provider.driver.taken == ["loadbalancer_create", "loadbalancer_delete"]
    assert provider.driver.offered == [Offered(flavor={"size": "large", "copies": [1, 2]})] * 2
