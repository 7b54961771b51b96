"""Secrets on their way to amphorae: read before rendering, told of when they cannot be, watched for changes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from frontinus.controller.draws import LOOKS, Draws
from frontinus.controller.metrics import ControllerMetrics
from frontinus.controller.previewer import answer_to
from frontinus.controller.secret_consumers import EVERY, SecretConsumers
from frontinus.controller.secret_watch import AGAIN_EVERY, SecretWatch
from frontinus.controller.secrets import Resolver
from frontinus.drivers.amphora.interface import Rendered
from frontinus.drivers.compute.interface import Place
from frontinus.model.certificates import SecretConsumer
from frontinus.model.edits import apply
from frontinus.model.enums import Kind, ListenerProtocol, Topology
from frontinus.model.errors import Invalid, Retry
from frontinus.model.ids import AmphoraId, ListenerId, LoadBalancerId
from frontinus.model.previews import Question
from frontinus.model.tree import Listener, LoadBalancerTree
from frontinus.store import health
from frontinus.testing.certificates import TestAuthority
from frontinus.testing.fake_secret import FakeSecrets
from frontinus.testing.faults import Killed

from tests.integration.controller.world import PROJECT, World

pytestmark = pytest.mark.integration
REFERENCE = "fake:one"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    await made.register()
    yield made
    await made.store.close()


def tls(listener: Listener, reference: str = REFERENCE) -> Listener:
    return replace(listener, protocol=ListenerProtocol.TERMINATED_HTTPS, default_tls_container_ref=reference)


def refer(world: World, reference: str) -> Callable[[LoadBalancerTree], LoadBalancerTree]:
    """The edit by which the TLS listener refers to another secret."""

    def edit(tree: LoadBalancerTree) -> LoadBalancerTree:
        listener = next(x for x in tree.listeners if x.protocol_port == 443)
        return apply(tree, world.now, update=[tls(listener, reference)])

    return edit


async def with_tls_listener(world: World) -> LoadBalancerId:
    """A load balancer with a listener in clear that is served, and one in TLS that has just been asked for."""
    load_balancer_id = await world.create(80)
    await world.converge()
    tree = await world.assert_served(load_balancer_id)
    await world.add(load_balancer_id, tls(world.listener(load_balancer_id, 443, tree.pools[0].id)))
    return load_balancer_id


def runs(world: World) -> Rendered:
    (place,) = world.places.values()
    assert place.runs is not None
    return place.runs


async def listener_of(world: World, load_balancer_id: LoadBalancerId, port: int) -> Listener:
    tree = await world.tree(load_balancer_id)
    assert tree is not None
    return next(x for x in tree.listeners if x.protocol_port == port)


async def test_what_is_behind_a_reference_reaches_the_amphora(world: World) -> None:
    certificate = TestAuthority().issue("www.example.org")
    world.secrets.store[PROJECT, REFERENCE] = certificate
    await with_tls_listener(world)
    await world.converge()
    (file,) = runs(world).files
    assert certificate.private_key in file.content


async def test_a_new_listener_whose_secret_is_missing_keeps_no_other_from_working(world: World) -> None:
    load_balancer_id = await with_tls_listener(world)
    await world.converge()
    listener = await listener_of(world, load_balancer_id, 443)
    fault = listener.fault
    assert fault is not None
    assert (fault.code, fault.permanent, fault.object_id) == ("secret-unreadable", True, listener.id)
    assert "default_tls_container_ref" in fault.message
    assert REFERENCE in fault.message
    assert (await listener_of(world, load_balancer_id, 80)).provisioning_status == "ACTIVE"

    world.secrets.store[PROJECT, REFERENCE] = TestAuthority().issue("www.example.org")
    assert await SecretWatch(world.hands).look() == 1
    await world.converge()
    assert (await listener_of(world, load_balancer_id, 443)).provisioning_status == "ACTIVE"
    assert len(runs(world).files) == 1


async def test_an_edit_that_mends_while_it_is_built_is_seen(world: World) -> None:
    """What was left out at first is judged anew when an edit comes, however long the work on the rest takes."""
    world.secrets.store[PROJECT, "fake:two"] = certificate = TestAuthority().issue("www.example.org")
    load_balancer_id = await world.create(80)
    tree = await world.tree(load_balancer_id)
    assert tree is not None
    await world.add(load_balancer_id, tls(world.listener(load_balancer_id, 443, tree.pools[0].id)))
    build = world.hands.compute.build

    async def mended_meanwhile(*arguments: Any) -> Place:
        place = await build(*arguments)
        await world.edit(load_balancer_id, refer(world, "fake:two"))
        return place

    world.hands.compute.build = mended_meanwhile  # type: ignore[method-assign, assignment]
    await world.converge()
    listener = await listener_of(world, load_balancer_id, 443)
    assert (listener.provisioning_status, listener.fault) == ("ACTIVE", None)
    assert certificate.private_key in runs(world).files[0].content


async def test_what_never_worked_holds_up_nothing_after_it_failed(world: World) -> None:
    """An edit of a served listener fails, and a listener that came then with it. The first is mended: it is carried."""
    world.secrets.store[PROJECT, REFERENCE] = certificate = TestAuthority().issue("www.example.org")
    load_balancer_id = await with_tls_listener(world)
    await world.converge()
    await world.edit(load_balancer_id, refer(world, "fake:missing"))
    await world.converge()
    tree = await world.tree(load_balancer_id)
    assert tree is not None
    await world.add(load_balancer_id, tls(world.listener(load_balancer_id, 8443, tree.pools[0].id), "fake:nowhere"))
    await world.converge()
    assert (await listener_of(world, load_balancer_id, 8443)).provisioning_status == "ERROR"

    await world.edit(load_balancer_id, refer(world, REFERENCE))
    await world.converge()
    listener = await listener_of(world, load_balancer_id, 443)
    assert (listener.provisioning_status, listener.fault) == ("ACTIVE", None)
    assert certificate.private_key in runs(world).files[0].content
    new = await listener_of(world, load_balancer_id, 8443)
    assert new.fault is not None
    assert (new.provisioning_status, new.fault.object_id, new.fault.left_out) == ("ERROR", new.id, True)


async def test_a_secret_that_goes_takes_nothing_down(world: World) -> None:
    """What runs goes on; edits wait, and the fault names the object; the secret's return mends it."""
    world.secrets.store[PROJECT, REFERENCE] = TestAuthority().issue("www.example.org")
    load_balancer_id = await with_tls_listener(world)
    await world.converge()
    before = runs(world)
    kept = world.secrets.store.pop((PROJECT, REFERENCE))
    tree = await world.tree(load_balancer_id)
    assert tree is not None
    await world.add(load_balancer_id, world.member(load_balancer_id, tree.pools[0].id, 8009))
    await world.converge()
    assert runs(world) == before
    tree = await world.tree(load_balancer_id)
    assert tree is not None
    assert tree.load_balancer.fault is not None
    assert tree.load_balancer.fault.object_kind is Kind.LISTENER
    assert tree.load_balancer.provisioning_status == "ERROR"

    watch = SecretWatch(world.hands)
    world.secrets.store[PROJECT, REFERENCE] = kept
    await watch.look()
    await world.converge()
    assert runs(world).text != before.text
    tree = await world.tree(load_balancer_id)
    assert tree is not None
    assert tree.load_balancer.fault is None


def tls_with_names(listener: Listener, *references: str) -> Listener:
    return replace(tls(listener, references[0]), sni_container_refs=references[1:])


async def with_tls_in_three_ways(world: World, topology: Topology = Topology.SINGLE) -> LoadBalancerId:
    """A load balancer that is served: in clear on 80, in TLS on 443 by fake:one, and on 8443 by fake:two and, for a name,
    fake:one."""
    for reference in (REFERENCE, "fake:two"):
        world.secrets.store[PROJECT, reference] = TestAuthority().issue("www.example.org")
    load_balancer_id = await world.create(80, topology=topology)
    tree = await world.tree(load_balancer_id)
    assert tree is not None
    pool_id = tree.pools[0].id
    await world.add(
        load_balancer_id,
        tls(world.listener(load_balancer_id, 443, pool_id)),
        tls_with_names(world.listener(load_balancer_id, 8443, pool_id), "fake:two", REFERENCE),
    )
    await world.converge()
    await SecretWatch(world.hands).look()
    await world.converge()
    return load_balancer_id


async def kill_all(world: World, load_balancer_id: LoadBalancerId) -> set[AmphoraId]:
    """Every amphora dies; what was there."""
    before = set(world.places)
    for place in world.places.values():
        place.kill()
    await world.suspect(load_balancer_id)
    return before


async def shown(world: World, load_balancer_id: LoadBalancerId) -> dict[int, tuple[str, str | None, bool]]:
    """Of each listener's port: its provisioning status, the code of its fault, whether it is left out."""
    tree = await world.tree(load_balancer_id)
    assert tree is not None
    return {
        x.protocol_port: (
            x.provisioning_status.value,
            None if x.fault is None else x.fault.code,
            x.fault is not None and x.fault.left_out,
        )
        for x in tree.listeners
    }


@pytest.mark.parametrize("topology", [Topology.SINGLE, Topology.ACTIVE_STANDBY], ids=lambda x: x.value)
async def test_an_amphora_that_dies_after_its_secret_is_replaced_for_the_rest(world: World, topology: Topology) -> None:
    load_balancer_id = await with_tls_in_three_ways(world, topology)
    watch = SecretWatch(world.hands)
    await watch.look()
    kept = world.secrets.store.pop((PROJECT, REFERENCE))
    await watch.look()
    await world.converge()
    assert all(x.runs is not None and x.runs.files for x in world.places.values()), "what lives goes on carrying it"
    before = await kill_all(world, load_balancer_id)
    await world.converge()
    assert before.isdisjoint(world.places)
    assert await shown(world, load_balancer_id) == {
        80: ("ACTIVE", None, False),
        443: ("ERROR", "secret-unreadable", True),
        8443: ("ERROR", "secret-unreadable", False),
    }
    tree = await world.tree(load_balancer_id)
    assert tree is not None
    assert {(x.status.value, x.suspected_at) for x in tree.amphorae} == {("ALLOCATED", None)}
    assert len(tree.amphorae) == len(world.places)
    for listener in tree.listeners:
        if listener.protocol_port == 80:
            continue
        assert listener.fault is not None
        assert REFERENCE in listener.fault.message
        assert listener.id == listener.fault.object_id
    assert tree.load_balancer.provisioning_status == "ACTIVE"
    assert tree.load_balancer.fault is not None

    # An edit beside it goes through, and takes nothing away.
    await world.add(load_balancer_id, world.listener(load_balancer_id, 81, tree.pools[0].id))
    await world.converge()
    assert (await shown(world, load_balancer_id))[81] == ("ACTIVE", None, False)
    assert (await shown(world, load_balancer_id))[8443] == ("ERROR", "secret-unreadable", False)
    world.secrets.store[PROJECT, REFERENCE] = kept
    await watch.look()
    await world.converge()
    tree = await world.tree(load_balancer_id)
    assert tree is not None
    assert tree.load_balancer.fault is None
    assert dict.fromkeys((80, 443, 8443, 81), ("ACTIVE", None, False)) == await shown(world, load_balancer_id)
    secrets = await Resolver(world.secrets).resolve(tree)
    for amphora in tree.amphorae:
        assert world.places[amphora.id].runs == world.hands.amphora_driver.render(tree, amphora, secrets)


async def test_what_waits_for_its_turn_to_be_replaced_and_is_back_goes_on_carrying_it(world: World) -> None:
    """It was taken for dead, and nothing was done about it yet."""
    load_balancer_id = await with_tls_in_three_ways(world)
    (amphora_id,) = world.places
    place, ran = world.places[amphora_id], world.places[amphora_id].runs
    none = dataclasses.replace(world.hands.settings, replacements_at_once=0)
    world.hands = dataclasses.replace(world.hands, settings=none)
    kept = world.secrets.store.pop((PROJECT, REFERENCE))
    address, place.address = place.address, "127.9.9.9"
    await world.suspect(load_balancer_id)
    for _ in range(20):
        await world.turn()
        world.now += timedelta(seconds=2)
    tree = await world.tree(load_balancer_id)
    assert tree is not None
    assert tree.load_balancer.fault is not None
    assert tree.amphorae[0].status == "ALLOCATED"

    place.address = address
    await world.suspect(load_balancer_id)
    for _ in range(20):
        await world.turn()
        world.now += timedelta(seconds=2)
    assert ran == world.places[amphora_id].runs
    assert not any(left_out for _, _, left_out in (await shown(world, load_balancer_id)).values())
    world.secrets.store[PROJECT, REFERENCE] = kept
    await SecretWatch(world.hands).look()
    await world.converge()
    assert ran == world.places[amphora_id].runs
    assert await shown(world, load_balancer_id) == dict.fromkeys((80, 443, 8443), ("ACTIVE", None, False))


async def test_of_a_pair_whose_one_half_lives_nothing_is_left_out(world: World) -> None:
    """It serves all of it; the other half waits, and is not forgotten."""
    load_balancer_id = await with_tls_in_three_ways(world, Topology.ACTIVE_STANDBY)
    tree = await world.tree(load_balancer_id)
    assert tree is not None
    dead, alive = (x.id for x in tree.amphorae)
    ran = world.places[alive].runs
    del world.secrets.store[PROJECT, REFERENCE]
    world.places[dead].kill()
    await world.store.transact(lambda tx: health.suspect(tx, [dead], world.now))
    for _ in range(20):
        await world.turn()
        world.now += timedelta(seconds=2)
    assert ran == world.places[alive].runs
    assert not any(left_out for _, _, left_out in (await shown(world, load_balancer_id)).values())
    world.places[alive].kill()
    await world.store.transact(lambda tx: health.suspect(tx, [alive], world.now))
    await world.converge()
    assert {dead, alive}.isdisjoint(world.places)
    assert len(world.places) == 2
    assert (await shown(world, load_balancer_id))[80] == ("ACTIVE", None, False)


async def test_a_dry_run_knows_what_is_carried_without_a_secret(world: World) -> None:
    load_balancer_id = await with_tls_in_three_ways(world)
    del world.secrets.store[PROJECT, REFERENCE]
    await kill_all(world, load_balancer_id)
    await world.converge()
    before = await world.tree(load_balancer_id)
    assert before is not None
    after = apply(before, world.now, create=[world.listener(load_balancer_id, 81, before.pools[0].id)])
    told = await answer_to(Question(before=before, after=after), world.hands)
    ports = {x.id: x.protocol_port for x in before.listeners}
    assert {ports[ListenerId(str(x.object_id))]: x.left_out for x in told.faults} == {443: True, 8443: False}
    (previewed,) = told.amphorae
    changed = [x for x in previewed.preview.diff.splitlines()[2:] if x[0] in "+-"]
    assert [x for x in changed if '"protocol_port":81' in x]
    assert not [x for x in changed if '"protocol_port":443' in x or '"protocol_port":8443' in x]


async def test_an_amphora_that_dies_while_the_store_is_away_is_replaced_for_the_rest(world: World) -> None:
    load_balancer_id = await with_tls_in_three_ways(world)
    before = await kill_all(world, load_balancer_id)
    world.faults.fail_always("secret", Retry("it sleeps", after=1, code="barbican-unavailable"))
    await world.turn()
    assert before.isdisjoint(world.places)
    assert await shown(world, load_balancer_id) == {
        80: ("ACTIVE", None, False),
        443: ("ERROR", "barbican-unavailable", True),
        8443: ("ERROR", "barbican-unavailable", True),
    }
    world.faults.clear()
    await world.converge()
    assert dict.fromkeys((80, 443, 8443), ("ACTIVE", None, False)) == await shown(world, load_balancer_id)


async def test_an_amphora_that_is_silent_while_a_secret_cannot_be_read_is_not_forgotten(world: World) -> None:
    """At first it is only silent, and what waits for the user is looked at again all the same: it may be dead."""
    load_balancer_id = await with_tls_in_three_ways(world)
    (before,) = world.places
    del world.secrets.store[PROJECT, REFERENCE]
    world.places[before].address = "127.9.9.9"  # its place runs, and its agent does not answer
    await world.suspect(load_balancer_id)
    await world.converge()
    assert before not in world.places
    assert (await shown(world, load_balancer_id))[80] == ("ACTIVE", None, False)


@pytest.mark.long
@pytest.mark.parametrize("call", range(1, 48))
async def test_whoever_dies_while_he_builds_for_the_rest_leaves_it_to_the_next(world: World, call: int) -> None:
    load_balancer_id = await with_tls_in_three_ways(world)
    del world.secrets.store[PROJECT, REFERENCE]
    await kill_all(world, load_balancer_id)
    world.faults.fail(None, call, error=Killed())
    await world.converge()
    assert await shown(world, load_balancer_id) == {
        80: ("ACTIVE", None, False),
        443: ("ERROR", "secret-unreadable", True),
        8443: ("ERROR", "secret-unreadable", False),
    }


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


async def test_a_store_out_of_reach_is_asked_again(world: World) -> None:
    world.secrets.store[PROJECT, REFERENCE] = TestAuthority().issue("www.example.org")
    load_balancer_id = await with_tls_listener(world)
    world.faults.fail("secret", 1, error=Retry("the store sleeps", after=1, code="secret-store"))
    await world.turn()
    listener = await listener_of(world, load_balancer_id, 443)
    assert listener.fault is not None
    assert listener.fault.code == "secret-store"
    assert not listener.fault.permanent
    await world.converge()
    assert (await listener_of(world, load_balancer_id, 443)).provisioning_status == "ACTIVE"


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


async def test_a_listener_that_changes_its_reference_gets_the_other(world: World) -> None:
    authority = TestAuthority()
    world.secrets.store[PROJECT, REFERENCE] = authority.issue("www.example.org")
    world.secrets.store[PROJECT, "fake:two"] = other = authority.issue("www.example.org")
    load_balancer_id = await with_tls_listener(world)
    await world.converge()

    await world.edit(load_balancer_id, refer(world, "fake:two"))
    await world.converge()
    (file,) = runs(world).files
    assert other.private_key in file.content


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
