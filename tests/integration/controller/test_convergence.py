"""Stop the controller at every moment, lose each reply, fail each call: the end is reached and nothing leaks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from frontinus.controller.witness import Witness
from frontinus.model.edits import apply
from frontinus.model.enums import Kind
from frontinus.model.errors import LeaseLost, Rejected, Retry, Subject
from frontinus.model.ids import LoadBalancerId, PoolId
from frontinus.model.tree import Fault
from frontinus.store import amphorae, convergence, leases
from frontinus.testing.fake_amphora import FakeAmphoraDriver
from frontinus.testing.faults import Killed, When

from tests.integration.controller.world import SETTINGS, World
from tests.integration.store.world import statements

Story = Callable[[World], Awaitable[LoadBalancerId]]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    await made.register()
    yield made
    await made.store.close()


async def create(world: World) -> LoadBalancerId:
    return await world.create(80)


async def change(world: World) -> LoadBalancerId:
    load_balancer_id = await world.create(80)
    await world.converge()
    tree = await world.assert_served(load_balancer_id)
    pool_id = tree.pools[0].id
    await world.add(load_balancer_id, world.listener(load_balancer_id, 81, pool_id))
    return load_balancer_id


async def amphora_dies(world: World) -> LoadBalancerId:
    load_balancer_id = await world.create(80)
    await world.converge()
    for place in world.places.values():
        place.kill()
    await world.suspect(load_balancer_id)
    return load_balancer_id


async def agent_dies(world: World) -> LoadBalancerId:
    load_balancer_id = await world.create(80)
    await world.converge()
    for place in world.places.values():
        place.kill_agent()
    await world.suspect(load_balancer_id)
    return load_balancer_id


async def place_vanishes(world: World) -> LoadBalancerId:
    load_balancer_id = await world.create(80)
    await world.converge()
    world.places.clear()
    await world.suspect(load_balancer_id)
    return load_balancer_id


STORIES = [create, change, amphora_dies, agent_dies, place_vanishes]


async def calls_of(story: Story, directory: Path) -> int:
    """How many calls outside the story takes when nothing goes wrong."""
    directory.mkdir()
    world = World(directory)
    await world.register()
    await story(world)
    before = world.faults.total
    await world.converge()
    await world.store.close()
    return world.faults.total - before


@pytest.mark.parametrize("story", STORIES)
async def test_undisturbed(world: World, story: Story) -> None:
    load_balancer_id = await story(world)
    await world.converge()
    await world.assert_served(load_balancer_id)


@pytest.mark.parametrize("when", [When.BEFORE, When.AFTER])
@pytest.mark.parametrize("story", STORIES)
async def test_killed_at_every_moment(story: Story, when: When, tmp_path: Path) -> None:
    count = await calls_of(story, tmp_path / "undisturbed")
    assert count >= 3
    for moment in range(1, count + 1):
        directory = tmp_path / str(moment)
        directory.mkdir()
        world = World(directory)
        await world.register()
        load_balancer_id = await story(world)
        world.faults.fail(None, moment, when=when, error=Killed())
        await world.converge()
        await world.assert_served(load_balancer_id)
        await world.store.close()


@pytest.mark.parametrize("when", [When.BEFORE, When.AFTER])
@pytest.mark.parametrize("story", STORIES)
async def test_each_driver_call_fails_once(story: Story, when: When, tmp_path: Path) -> None:
    """Failure before the effect, and the reply lost after it. The sweeper may have to fetch what a lost reply left."""
    for method in ("build", "get", "info", "apply", "destroy", "retire"):
        directory = tmp_path / method
        directory.mkdir()
        world = World(directory)
        await world.register()
        load_balancer_id = await story(world)
        world.faults.fail(method, when=when)
        await world.converge()
        await world.assert_served(load_balancer_id)
        await world.store.close()


@pytest.mark.parametrize("when", [When.BEFORE, When.AFTER])
async def test_deletion_killed_at_every_moment(when: When, tmp_path: Path) -> None:
    async def deletion(world: World) -> LoadBalancerId:
        load_balancer_id = await world.create(80)
        await world.converge()
        await world.delete(load_balancer_id)
        return load_balancer_id

    count = await calls_of(deletion, tmp_path / "undisturbed")
    for moment in range(1, count + 1):
        directory = tmp_path / str(moment)
        directory.mkdir()
        world = World(directory)
        await world.register()
        load_balancer_id = await deletion(world)
        world.faults.fail(None, moment, when=when, error=Killed())
        await world.converge()
        await world.assert_nothing(load_balancer_id)
        await world.store.close()


async def test_deleted_before_it_was_ever_built(world: World) -> None:
    load_balancer_id = await world.create(80)
    await world.delete(load_balancer_id)
    await world.converge()
    await world.assert_nothing(load_balancer_id)


async def test_a_change_costs_few_statements(world: World) -> None:
    """Two to claim, eight to read the tree, four to record what the amphora carries, and one to settle each kind of
    object that there is where a tenant asked for something."""
    load_balancer_id = await change(world)
    with statements(world.store) as seen:
        await world.turn()
    assert len(seen) == 17
    tree = await world.assert_served(load_balancer_id)
    # As when only a driver of another version renders otherwise.
    world.now += timedelta(seconds=1)
    (amphora,), now = tree.amphorae, world.now
    await world.store.transact(lambda tx: amphorae.request_push(tx, amphora.id, load_balancer_id, now))
    with statements(world.store) as seen:
        await world.turn()
    assert len(seen) == 14
    assert await world.store.read(leases.next_due) is None


async def test_edit_while_it_is_being_applied_is_applied_too(world: World) -> None:
    """The second edit lands between the read of the first and its record: what it touched stays PENDING until done."""
    load_balancer_id = await change(world)
    inner = world.hands.amphora_driver.apply

    async def apply_and_edit(*arguments: object) -> object:
        applied = await inner(*arguments)  # type: ignore[arg-type]
        world.hands.amphora_driver.apply = inner  # type: ignore[method-assign]
        tree = await world.tree(load_balancer_id)
        assert tree is not None
        await world.add(load_balancer_id, world.listener(load_balancer_id, 82, tree.pools[0].id))
        return applied

    world.hands.amphora_driver.apply = apply_and_edit  # type: ignore[method-assign,assignment]
    await world.converge()
    tree = await world.assert_served(load_balancer_id)
    assert {x.protocol_port for x in tree.listeners} == {80, 81, 82}


async def test_removed_children_are_gone_when_settled(world: World) -> None:
    load_balancer_id = await change(world)
    await world.converge()
    await world.edit(load_balancer_id, lambda tree: apply(tree, world.now, delete=[tree.pools[0]]))
    await world.converge()
    tree = await world.assert_served(load_balancer_id)
    assert tree.pools == ()
    assert tree.members == ()
    assert {x.default_pool_id for x in tree.listeners} == {None}


# ---------------------------------------------------------------- faults


async def test_taken_port_leaves_one_listener_out_and_heals(world: World) -> None:
    world.taken_ports.add(81)
    load_balancer_id = await world.create(80, 81)
    with capture_logs() as logs:
        await world.turn()
    tree = await world.tree(load_balancer_id)
    assert tree is not None
    by_port = {x.protocol_port: x for x in tree.listeners}
    (line,) = [x for x in logs if x["event"] == "load balancer settled without some objects"]
    assert "port 81 cannot be bound (EADDRINUSE)" in line["left_out"][by_port[81].id]
    assert tree.load_balancer.provisioning_status == "ACTIVE"
    assert by_port[80].provisioning_status == "ACTIVE"
    assert by_port[81].provisioning_status == "ERROR"
    fault = by_port[81].fault
    assert fault is not None
    assert fault.code == "bind-refused"
    assert "another program" in fault.message
    assert fault.retry_at is not None
    (place,) = world.places.values()
    assert place.runs is not None
    assert by_port[80].id in place.runs.text
    assert by_port[81].id not in place.runs.text
    first_attempt = fault
    world.now = fault.retry_at
    await world.turn()
    tree = await world.tree(load_balancer_id)
    assert tree is not None
    again = next(x.fault for x in tree.listeners if x.protocol_port == 81)
    assert again is not None
    assert (again.since, again.attempts) == (first_attempt.since, 2)
    world.taken_ports.clear()
    await world.converge()
    await world.assert_served(load_balancer_id)


async def test_a_new_object_that_cannot_be_rendered_is_left_out_alone_and_heals(world: World) -> None:
    load_balancer_id = await world.create(80)
    await world.converge()
    before = await world.assert_served(load_balancer_id)
    bad = world.member(load_balancer_id, before.pools[0].id, 8002)
    good = world.member(load_balancer_id, before.pools[0].id, 8003)
    world.unspeakable.add(bad.id)
    await world.add(load_balancer_id, bad, good)
    await world.turn()
    tree = await world.tree(load_balancer_id)
    assert tree is not None
    faults = {x.id: x.fault for x in tree.children() if x.fault is not None}
    assert set(faults) == {bad.id}
    fault = faults[bad.id]
    assert (fault.code, fault.permanent, fault.left_out) == ("rejected", True, True)
    assert (fault.object_kind, fault.object_id) == (Kind.MEMBER, bad.id)
    assert tree.load_balancer.fault == fault
    assert tree.load_balancer.provisioning_status == "ACTIVE"
    assert {x.id: x.provisioning_status for x in tree.members}[bad.id] == "ERROR"
    (place,) = world.places.values()
    assert place.runs is not None
    assert good.id in place.runs.text
    assert bad.id not in place.runs.text
    assert await world.store.read(leases.next_due) is None, "it waits for the user"
    await world.add(load_balancer_id, world.member(load_balancer_id, before.pools[0].id, 8004))
    await world.turn()
    assert (await _faults(world, load_balancer_id)).keys() == {bad.id}, (
        "another edit neither heals nor is held up by it"
    )
    world.unspeakable.clear()
    await world.edit(load_balancer_id, lambda tree: apply(tree, world.now, update=[replace(bad, weight=2)]))
    await world.converge()
    await world.assert_served(load_balancer_id)


async def test_a_new_object_that_the_balancer_refuses_is_left_out_too(world: World) -> None:
    load_balancer_id = await world.create(80)
    await world.converge()
    before = await world.assert_served(load_balancer_id)
    bad = world.listener(load_balancer_id, 82, PoolId(before.pools[0].id))
    refusal = Rejected("configuration", "parsing [haproxy.cfg:12] : unknown keyword")
    refusal.subject = Subject(Kind.LISTENER, bad.id)
    world.faults.fail("apply", error=refusal)
    await world.add(load_balancer_id, bad)
    await world.turn()
    tree = await world.tree(load_balancer_id)
    assert tree is not None
    (fault,) = (await _faults(world, load_balancer_id)).values()
    assert (fault.phase, fault.object_id, fault.left_out) == ("apply", bad.id, True)
    assert tree.load_balancer.provisioning_status == "ACTIVE"
    (place,) = world.places.values()
    assert place.runs is not None
    assert bad.id not in place.runs.text


async def test_what_is_carried_stays_when_an_edit_makes_it_impossible(world: World) -> None:
    load_balancer_id = await world.create(80, 81)
    await world.converge()
    before = await world.assert_served(load_balancer_id)
    (place,) = world.places.values()
    runs = place.runs
    listener = before.listeners[0]
    world.unspeakable.add(listener.id)
    await world.edit(load_balancer_id, lambda tree: apply(tree, world.now, update=[replace(listener, name="x")]))
    await world.turn()
    assert place.runs == runs, "the listener is not taken away for it"
    tree = await world.tree(load_balancer_id)
    assert tree is not None
    fault = tree.load_balancer.fault
    assert fault is not None
    assert (fault.object_kind, fault.object_id, fault.left_out) == (Kind.LISTENER, listener.id, False)
    assert await _faults(world, load_balancer_id) == {listener.id: fault}
    assert tree.load_balancer.provisioning_status == "ERROR"
    world.unspeakable.clear()
    await world.edit(load_balancer_id, lambda tree: apply(tree, world.now, update=[replace(listener, name="y")]))
    assert await _faults(world, load_balancer_id) == {}, "what is asked now is not what was faulted"
    await world.converge()
    await world.assert_served(load_balancer_id)


async def test_many_objects_are_left_out_in_one_go(world: World) -> None:
    load_balancer_id = await world.create(80)
    await world.converge()
    tree = await world.assert_served(load_balancer_id)
    bad = [world.member(load_balancer_id, tree.pools[0].id, 9000 + n) for n in range(250)]
    world.unspeakable.update(x.id for x in bad)
    await world.add(load_balancer_id, *bad)
    await world.turn()
    assert (await _faults(world, load_balancer_id)).keys() == {x.id for x in bad}


async def _faults(world: World, load_balancer_id: LoadBalancerId) -> dict[str, Fault]:
    tree = await world.tree(load_balancer_id)
    assert tree is not None
    return {x.id: x.fault for x in tree.children() if x.fault is not None}


async def test_lasting_trouble_becomes_an_error_that_heals(world: World) -> None:
    world.faults.fail_always("build", Retry("haproxy is not installed", after=0.1, code="haproxy-missing"))
    load_balancer_id = await world.create(80)
    await world.turn()
    tree = await world.tree(load_balancer_id)
    assert tree is not None
    assert tree.load_balancer.provisioning_status == "PENDING_CREATE"
    assert tree.load_balancer.fault is not None
    assert tree.load_balancer.fault.code == "haproxy-missing"
    began = world.now
    while world.now - began < SETTINGS.retry_budget + SETTINGS.backoff_cap:
        next_due = await world.store.read(leases.next_due)
        assert next_due is not None, "a transient fault is never given up"
        world.now = max(world.now, next_due)
        await world.turn()
    tree = await world.tree(load_balancer_id)
    assert tree is not None
    assert tree.load_balancer.provisioning_status == "ERROR"
    assert {x.provisioning_status for x in tree.children()} == {"ERROR"}
    world.faults.clear()
    await world.converge()
    await world.assert_served(load_balancer_id)


@pytest.mark.parametrize(
    "away, code, status",
    [
        pytest.param(timedelta(seconds=30), "nova-unavailable", "PENDING_CREATE", id="nova is restarted"),
        pytest.param(timedelta(minutes=6), "nova-unavailable", "ERROR", id="nova is gone"),
        pytest.param(timedelta(seconds=30), "nova-refused", "ERROR", id="nova refuses"),
    ],
)
async def test_who_waits_for_what_was_asked_outlives_a_restart_of_nova(
    world: World, away: timedelta, code: str, status: str
) -> None:
    """ERROR is the end for Terraform, Heat and Kubernetes, and it heals too late for them."""
    world.faults.fail_always("build", Retry("it does not answer", after=15.0, code=code))
    load_balancer_id = await world.create(80)
    back, seen = world.now + away, set()
    while world.now < back:
        await world.turn()
        tree = await world.tree(load_balancer_id)
        assert tree is not None
        seen.add(str(tree.load_balancer.provisioning_status))
        next_due = await world.store.read(leases.next_due)
        assert next_due is not None
        world.now = max(world.now + timedelta(milliseconds=1), next_due)
    assert seen == {"PENDING_CREATE", status}
    world.faults.clear()
    await world.converge()
    await world.assert_served(load_balancer_id)


async def test_rejected_document_waits_for_the_user(world: World) -> None:
    load_balancer_id = await change(world)
    world.faults.fail("apply", error=Rejected("url_path", "haproxy does not load it"))
    await world.turn()
    tree = await world.tree(load_balancer_id)
    assert tree is not None
    assert tree.load_balancer.provisioning_status == "ERROR"
    assert tree.load_balancer.fault is not None
    assert tree.load_balancer.fault.permanent
    assert await world.store.read(leases.next_due) is None, "it is not tried again by itself"
    await world.add(load_balancer_id, world.listener(load_balancer_id, 82, PoolId(tree.pools[0].id)))
    await world.converge()
    await world.assert_served(load_balancer_id)


async def test_a_bug_is_said_to_be_one_and_tried_again(world: World) -> None:
    load_balancer_id = await change(world)
    world.faults.fail("apply", error=ZeroDivisionError("secret detail"))
    await world.turn()
    tree = await world.tree(load_balancer_id)
    assert tree is not None
    assert tree.load_balancer.fault is not None
    assert tree.load_balancer.fault.code == "bug"
    assert "secret detail" not in tree.load_balancer.fault.message
    await world.converge()
    await world.assert_served(load_balancer_id)


async def test_planned_stop_is_left_alone(world: World) -> None:
    load_balancer_id = await world.create(80)
    await world.converge()
    (place,) = world.places.values()
    place.kill()
    place.on_purpose = True
    await world.suspect(load_balancer_id)
    before = await world.tree(load_balancer_id)
    assert before is not None
    for _ in range(5):
        next_due = await world.store.read(leases.next_due)
        assert next_due is not None, "it is looked at again"
        world.now = max(world.now, next_due)
        await world.turn()
    after = await world.tree(load_balancer_id)
    assert after is not None
    assert after.amphorae == before.amphorae
    assert after.load_balancer.provisioning_status == "ACTIVE"
    assert after.load_balancer.fault is not None, "it is told what is waited for"
    assert after.load_balancer.fault.code == "amphora-stopped"
    assert list(world.places.values()) == [place], "it is neither destroyed nor joined by another"
    place.on_purpose = False
    place.agent_running = place.balancing = True
    await world.converge()
    await world.assert_served(load_balancer_id)


# ---------------------------------------------------------------- fencing


async def test_paused_controller_that_wakes_writes_nothing(world: World) -> None:
    load_balancer_id = await world.create(80)
    now = world.now
    old = (
        await world.store.transact(
            lambda tx: leases.claim_due(tx, world.owner, world.hands.cohort, now, SETTINGS.lease_duration, 1)
        )
    )[0]
    world.restart()
    world.now += SETTINGS.lease_duration + timedelta(seconds=1)
    await world.converge()
    tree = await world.assert_served(load_balancer_id)
    amphora = replace(tree.amphorae[0], management_address="127.0.0.66")
    with pytest.raises(LeaseLost):
        await world.store.transact(lambda tx: convergence.update_amphora(tx, old, amphora))
    with pytest.raises(LeaseLost):
        await world.store.transact(lambda tx: convergence.record_settled(tx, old, 99, world.now))
    with pytest.raises(LeaseLost):
        await world.store.transact(lambda tx: convergence.record_deleted(tx, old, world.now))
    await world.assert_served(load_balancer_id)


# ---------------------------------------------------------------- who looks by himself


async def test_amphora_lost_while_nobody_watched_is_found_by_asking_compute(world: World) -> None:
    load_balancer_id = await world.create(80)
    await world.converge()
    world.places.clear()
    await Witness(world.hands).look()
    await world.converge()
    await world.assert_served(load_balancer_id)


async def test_an_amphora_is_rendered_for_what_balances_there(world: World) -> None:
    """It is asked at its start; what an upgrade of its packages changed is told by the next push, and another follows."""
    load_balancer_id = await world.create(80)
    await world.converge()
    [place] = world.places.values()
    assert place.runs is not None
    assert place.runs.text.startswith("amphora STANDALONE with 1\n")

    driver = world.hands.amphora_driver
    assert isinstance(driver, FakeAmphoraDriver)
    driver.balancer_version = "2"
    tree = await world.assert_served(load_balancer_id)
    await world.add(load_balancer_id, world.listener(load_balancer_id, 81, tree.pools[0].id))
    await world.converge()
    assert (await world.assert_served(load_balancer_id)).amphorae[0].balancer_version == "2"
    assert place.runs.text.startswith("amphora STANDALONE with 2\n")
