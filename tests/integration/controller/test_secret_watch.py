"""What changes behind references to secrets is noticed without an edit, what ends is told, and who uses them is on record."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace
from prometheus_client import CollectorRegistry
from sqlalchemy import bindparam, update
from structlog.testing import capture_logs

from frontinus.controller.draws import LOOKS, Draws
from frontinus.controller.metrics import ControllerMetrics
from frontinus.controller.secret_consumers import EVERY, SecretConsumers
from frontinus.controller.secret_watch import AGAIN_EVERY, SecretWatch
from frontinus.model.certificates import SecretConsumer
from frontinus.model.errors import Invalid
from frontinus.model.ids import LoadBalancerId
from frontinus.model.tree import ADOPTED
from frontinus.store import schema
from frontinus.store.rows import to_json
from frontinus.store.statement import Statement
from frontinus.testing.certificates import TestAuthority
from frontinus.testing.fake_secret import FakeSecrets

from tests.integration.controller.tls_world import REFERENCE, listener_of, runs, shown, tls, with_tls_listener
from tests.integration.controller.world import PROJECT, World

pytestmark = pytest.mark.integration

_T = schema.amphora
SET_RECEIPT = Statement(update(_T).where(_T.c.id == bindparam("which")).values(receipt=bindparam("told")))


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    await made.register()
    yield made
    await made.store.close()


async def test_what_waits_for_a_secret_is_tried_again_although_the_store_tells_of_no_change(world: World) -> None:
    """As when the store has it all the while, and would not show it."""
    world.secrets.store[PROJECT, REFERENCE] = TestAuthority().issue("www.example.org")
    load_balancer_id = await with_tls_listener(world)
    world.faults.fail_always("secret", Invalid(REFERENCE, "may not be read"))
    watch = SecretWatch(world.hands)
    await watch.look()
    await watch.try_again()
    await world.converge()
    assert (await shown(world, load_balancer_id))[443] == ("ERROR", "secret-unreadable", True)
    world.faults.clear()
    assert (await watch.look(), await watch.try_again()) == (0, 0)
    world.now += AGAIN_EVERY
    assert (await watch.look(), await watch.try_again()) == (0, 1)
    await world.converge()
    assert (await shown(world, load_balancer_id))[443] == ("ACTIVE", None, False)
    world.now += AGAIN_EVERY
    assert await watch.try_again() == 0


async def test_a_replaced_secret_is_pushed_without_any_edit(world: World) -> None:
    authority = TestAuthority()
    world.secrets.store[PROJECT, REFERENCE] = authority.issue("www.example.org")
    load_balancer_id = await with_tls_listener(world)
    await world.converge()
    watch = SecretWatch(world.hands)
    await watch.look()
    await world.converge()
    generation = (await listener_of(world, load_balancer_id, 443)).changed_generation
    assert await watch.look() == 0

    new = authority.issue("www.example.org")
    world.secrets.store[PROJECT, REFERENCE] = new
    world.secrets.store[PROJECT, "fake:nobody's"] = authority.issue("x.example.org")
    assert await watch.look() == 1
    await world.converge()
    (place,) = world.places.values()
    assert place.history[-1] == "runtime"
    assert new.private_key in runs(world).files[0].content
    assert (await listener_of(world, load_balancer_id, 443)).changed_generation == generation


async def test_a_change_while_no_controller_ran_is_found(world: World) -> None:
    authority = TestAuthority()
    world.secrets.store[PROJECT, REFERENCE] = authority.issue("www.example.org")
    await with_tls_listener(world)
    await world.converge()
    new = authority.issue("www.example.org")
    world.secrets.store[PROJECT, REFERENCE] = new
    world.restart()
    assert await SecretWatch(world.hands).look() == 1
    await world.converge()
    assert new.private_key in runs(world).files[0].content


async def test_what_was_adopted_runs_as_it_was_until_a_secret_changes(world: World) -> None:
    """The first look of a controller names every secret, and a push would replace what another installation configured."""
    authority = TestAuthority()
    world.secrets.store[PROJECT, REFERENCE] = authority.issue("www.example.org")
    load_balancer_id = await with_tls_listener(world)
    await world.converge()
    await adopt(world, load_balancer_id)
    world.restart()
    watch = SecretWatch(world.hands)
    assert await watch.look() == 0
    world.secrets.store[PROJECT, REFERENCE] = authority.issue("www.example.org")
    assert await watch.look() == 1


async def adopt(world: World, load_balancer_id: LoadBalancerId) -> None:
    """As adoption records it."""
    tree = await world.tree(load_balancer_id)
    assert tree is not None
    (amphora,) = tree.amphorae
    assert amphora.receipt is not None
    receipt = replace(amphora.receipt, digest="", action=ADOPTED)
    which = {"which": amphora.id, "told": to_json(receipt)}
    assert await world.store.transact(lambda tx: tx.run(SET_RECEIPT, which)) == 1


async def test_a_certificate_that_ends_soon_is_told(world: World) -> None:
    certificate = TestAuthority().issue("www.example.org")
    world.secrets.store[PROJECT, REFERENCE] = replace(certificate, expires_at=world.now + timedelta(days=29))
    load_balancer_id = await with_tls_listener(world)
    watch = SecretWatch(world.hands)
    with capture_logs() as told:
        assert await watch.warn() == 1
        assert await watch.warn() == 0, "once in a while is enough"
    world.now += world.hands.settings.expiry_look_interval
    read = world.secrets.faults.calls["secret"]
    assert await watch.warn() == 1
    assert read == world.secrets.faults.calls["secret"], "when it ends is known already"
    (event,) = [x for x in told if x["event"] == "certificate ends soon"]
    assert (event["reference"], event["load_balancer_id"]) == (REFERENCE, load_balancer_id)
    world.secrets.store[PROJECT, REFERENCE] = replace(certificate, expires_at=world.now + timedelta(days=90))
    await watch.look()
    world.now += timedelta(days=1)
    assert await watch.warn() == 0


@pytest.mark.parametrize(
    "left, word",
    [
        pytest.param(timedelta(seconds=-1), "ended", id="ended"),
        pytest.param(timedelta(days=7), "7d", id="a week"),
        pytest.param(timedelta(days=7, seconds=1), "30d", id="more than a week"),
        pytest.param(timedelta(days=89), "90d", id="less than 90 days"),
        pytest.param(timedelta(days=91), "later", id="long"),
        pytest.param(None, "unknown", id="not told"),
    ],
)
async def test_certificates_are_counted_by_how_soon_they_end(world: World, left: timedelta | None, word: str) -> None:
    ends = None if left is None else world.now + left
    world.secrets.store[PROJECT, REFERENCE] = replace(TestAuthority().issue("www.example.org"), expires_at=ends)
    registry = CollectorRegistry()
    world.hands = dataclasses.replace(world.hands, metrics=ControllerMetrics(registry))
    watch = SecretWatch(world.hands)

    async def counted() -> tuple[dict[str, float], float | None]:
        await watch.look()
        await watch.warn()
        world.now += world.hands.settings.expiry_look_interval
        found = {
            x.labels["ends"]: x.value for family in registry.collect() for x in family.samples if "ends" in x.labels
        }
        soonest = registry.get_sample_value("frontinus_controller_certificate_soonest_end_seconds")
        return {each: value for each, value in found.items() if value}, soonest

    assert await counted() == ({}, math.inf)
    await with_tls_listener(world)
    now = world.now
    if ends is not None and left is not None:
        ends = now + left
        world.secrets.store[PROJECT, REFERENCE] = replace(TestAuthority().issue("www.example.org"), expires_at=ends)
    assert await counted() == ({word: 1}, math.inf if ends is None else ends.timestamp())
    world.secrets.store.clear()
    assert await counted() == ({"unreadable": 1}, math.inf)


class Accounting(FakeSecrets):
    """A secret store that records who uses its secrets, whatever way the reference is spelled; it takes time to be asked."""

    keeps_consumers = True
    watch_interval = timedelta(seconds=10)

    def __init__(self) -> None:
        super().__init__()
        self.consumers: set[SecretConsumer] = set()

    async def list_consumers(self) -> tuple[SecretConsumer, ...]:
        async with self.faults.around("list_consumers"):
            return tuple(self.consumers)

    def canonical(self, reference: str) -> str:
        return reference.lower()

    async def register(self, consumer: SecretConsumer) -> None:
        self.consumers.add(replace(consumer, reference=self.canonical(consumer.reference)))

    async def unregister(self, consumer: SecretConsumer) -> None:
        async with self.faults.around("unregister"):
            self.consumers.discard(consumer)


async def test_consumers_of_secrets_follow_what_uses_them(world: World) -> None:
    accounting = Accounting()
    world.hands = dataclasses.replace(world.hands, secret=accounting)
    load_balancer_id = await world.create(80)
    tree = await world.tree(load_balancer_id)
    assert tree is not None
    await world.add(load_balancer_id, tls(world.listener(load_balancer_id, 443, tree.pools[0].id), "fake:ONE"))
    used = SecretConsumer(reference="fake:one", project_id=PROJECT, load_balancer_id=load_balancer_id)
    unused = replace(used, load_balancer_id=LoadBalancerId("gone"))
    accounting.consumers.add(unused)

    consumers = SecretConsumers(world.hands, Draws())
    await consumers.tend()
    # Put back what is missing; what nobody uses may be of a request that is under way.
    assert accounting.consumers == {used, unused}
    await consumers.tend()
    assert accounting.consumers == {used, unused}
    world.now += EVERY
    await consumers.tend()
    assert accounting.consumers == {used}


async def test_of_many_controllers_few_ask_the_store_each_time(world: World) -> None:
    """What changes is seen by one of them soon, and by the others when their turn comes."""
    accounting = Accounting()
    world.hands = dataclasses.replace(world.hands, secret=accounting)
    controllers = 100
    watches = [SecretWatch(world.hands) for _ in range(controllers)]
    draws = Draws()
    consumers = [SecretConsumers(world.hands, draws) for _ in range(controllers)]
    draws.among(controllers)
    for watch in watches:
        watch.among(controllers)
        await watch.look()
    assert accounting.faults.calls["changes"] == controllers, "whoever starts looks at once"
    accounting.faults.calls.clear()
    turns = 20
    for _ in range(turns):
        world.now += EVERY
        for watch, each in zip(watches, consumers, strict=True):
            await watch.look()
            await watch.look()  # before the time has come again
            await each.tend()
    for method in ("changes", "list_consumers"):
        assert LOOKS / 3 < accounting.faults.calls[method] / turns < LOOKS * 3, method


async def test_a_consumer_that_nobody_uses_goes_although_there_are_many_controllers(world: World) -> None:
    accounting = Accounting()
    world.hands = dataclasses.replace(world.hands, secret=accounting)
    unused = SecretConsumer(reference="fake:one", project_id=PROJECT, load_balancer_id=LoadBalancerId("gone"))
    accounting.consumers.add(unused)
    draws = Draws()
    draws.among(100)
    consumers = [SecretConsumers(world.hands, draws) for _ in range(100)]
    for _ in range(30):
        for each in consumers:
            await each.tend()
        world.now += EVERY
        if not accounting.consumers:
            return
    raise AssertionError("it stays for half an hour")
