"""Secrets on their way to amphorae: read before rendering, told of when they cannot be."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from frontinus.controller.previewer import answer_to
from frontinus.controller.secret_watch import SecretWatch
from frontinus.controller.secrets import Resolver
from frontinus.drivers.compute.interface import Place
from frontinus.model.edits import apply
from frontinus.model.enums import Kind, Topology
from frontinus.model.errors import Retry
from frontinus.model.ids import AmphoraId, ListenerId, LoadBalancerId
from frontinus.model.previews import Question
from frontinus.model.tree import Listener
from frontinus.store import health
from frontinus.testing.certificates import TestAuthority
from frontinus.testing.faults import Killed

from tests.integration.controller.tls_world import REFERENCE, listener_of, refer, runs, shown, tls, with_tls_listener
from tests.integration.controller.world import PROJECT, World

pytestmark = pytest.mark.integration


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    await made.register()
    yield made
    await made.store.close()


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
