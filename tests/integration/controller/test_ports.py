"""Where the network makes ports: stop the controller at every moment, lose each reply, fail each call. Ports come before
the configuration that needs them, go after the one that does not, and nothing leaks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from frontinus.controller.sweeper import Sweeper
from frontinus.controller.witness import Witness
from frontinus.model.edits import apply
from frontinus.model.enums import ProvisioningStatus, Topology
from frontinus.model.errors import Retry
from frontinus.model.ids import AmphoraId, LoadBalancerId, MemberId, SubnetId, new_id
from frontinus.model.ports import PortPurpose
from frontinus.store import health
from frontinus.testing.fake_network import FAKE_MEMBER_SUBNET, FAKE_SUBNET_V6, FakePortNetwork
from frontinus.testing.faults import Killed, When

from tests.integration.controller.world import SETTINGS, World

Story = Callable[[World], Awaitable[LoadBalancerId]]


async def world_in(directory: Path) -> World:
    directory.mkdir(exist_ok=True)
    world = World(directory, has_ports=True)
    await world.register()
    return world


async def create(world: World) -> LoadBalancerId:
    return await world.create(80)


async def a_listener_more(world: World) -> LoadBalancerId:
    load_balancer_id = await world.create(80)
    await world.converge()
    tree = await world.assert_served(load_balancer_id)
    await world.add(load_balancer_id, world.listener(load_balancer_id, 81, tree.pools[0].id))
    return load_balancer_id


async def a_listener_less(world: World) -> LoadBalancerId:
    load_balancer_id = await world.create(80, 81)
    await world.converge()
    await world.edit(load_balancer_id, lambda tree: apply(tree, world.now, delete=[tree.listeners[0]]))
    return load_balancer_id


async def members_on_two_more_subnets(world: World) -> LoadBalancerId:
    load_balancer_id = await world.create(80)
    await world.converge()
    tree = await world.assert_served(load_balancer_id)
    for port, subnet in ((8002, FAKE_MEMBER_SUBNET), (8003, FAKE_SUBNET_V6)):
        await world.add(load_balancer_id, world.member(load_balancer_id, tree.pools[0].id, port, subnet.id))
    return load_balancer_id


async def members_leave_their_subnets(world: World) -> LoadBalancerId:
    load_balancer_id = await members_on_two_more_subnets(world)
    await world.converge()
    tree = await world.assert_served(load_balancer_id)
    assert len(tree.amphorae[0].ports) == 3
    leaving = [x for x in tree.members if x.subnet_id is not None]
    await world.edit(load_balancer_id, lambda tree: apply(tree, world.now, delete=leaving))
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


STORIES = [
    create,
    a_listener_more,
    a_listener_less,
    members_on_two_more_subnets,
    members_leave_their_subnets,
    amphora_dies,
    agent_dies,
]


async def test_what_lets_in_by_ports_that_somebody_removed_goes_with_their_amphora(tmp_path: Path) -> None:
    world = await world_in(tmp_path)
    load_balancer_id = await amphora_dies(world)
    assert isinstance(world.network, FakePortNetwork)
    world.network.ports.clear()
    await world.converge()
    await world.assert_served(load_balancer_id)
    await world.store.close()


@pytest.mark.parametrize("when", [When.BEFORE, When.AFTER])
@pytest.mark.parametrize("story", [create, *(pytest.param(x, marks=pytest.mark.long) for x in STORIES[1:])])
async def test_killed_at_every_moment(story: Story, when: When, tmp_path: Path) -> None:
    world = await world_in(tmp_path / "undisturbed")
    await story(world)
    before = world.faults.total
    await world.converge()
    count = world.faults.total - before
    await world.store.close()
    assert count > 6
    for moment in range(1, count + 1):
        world = await world_in(tmp_path / str(moment))
        load_balancer_id = await story(world)
        world.faults.fail(None, moment, when=when, error=Killed())
        await world.converge()
        await world.assert_served(load_balancer_id)
        await world.store.close()


@pytest.mark.parametrize("when", [When.BEFORE, When.AFTER])
@pytest.mark.parametrize("story", [STORIES[4], *(pytest.param(x, marks=pytest.mark.long) for x in STORIES[:4])])
async def test_each_call_of_ports_fails_once(story: Story, when: When, tmp_path: Path) -> None:
    for method in ("create_port", "attach", "plug", "detach", "delete_port", "list_ports"):
        world = await world_in(tmp_path / method)
        load_balancer_id = await story(world)
        world.faults.fail(method, when=when)
        await world.converge()
        await world.assert_served(load_balancer_id)
        await world.store.close()


@pytest.mark.long
@pytest.mark.parametrize("when", [When.BEFORE, When.AFTER])
async def test_deletion_killed_at_every_moment(when: When, tmp_path: Path) -> None:
    for moment in range(1, 30):
        world = await world_in(tmp_path / str(moment))
        load_balancer_id = await members_on_two_more_subnets(world)
        await world.converge()
        await world.delete(load_balancer_id)
        world.faults.fail(None, moment, when=when, error=Killed())
        await world.converge()
        await world.assert_nothing(load_balancer_id)
        await world.store.close()


async def test_a_member_on_an_unknown_subnet_is_left_out_alone(tmp_path: Path) -> None:
    world = await world_in(tmp_path)
    load_balancer_id = await world.create(80)
    await world.converge()
    tree = await world.assert_served(load_balancer_id)
    stranger = world.member(load_balancer_id, tree.pools[0].id, 8002, SubnetId(new_id()))
    await world.add(load_balancer_id, stranger)
    await world.converge()
    after = await world.tree(load_balancer_id)
    assert after is not None
    fault = next(x.fault for x in after.members if x.id == stranger.id)
    assert fault is not None
    assert stranger.subnet_id is not None
    assert stranger.subnet_id in fault.message
    assert after.listeners[0].provisioning_status is ProvisioningStatus.ACTIVE
    await world.edit(load_balancer_id, lambda tree: apply(tree, world.now, delete=[stranger]))
    await world.converge()
    await world.assert_served(load_balancer_id)
    await world.store.close()


async def members_on_a_full_subnet(world: World) -> tuple[LoadBalancerId, set[MemberId]]:
    """Served with a member that needs no address, and two that are added where none is left."""
    assert isinstance(world.network, FakePortNetwork)
    load_balancer_id = await world.create(80)
    await world.converge()
    tree = await world.assert_served(load_balancer_id)
    world.network.full.add(FAKE_MEMBER_SUBNET.id)
    new = [world.member(load_balancer_id, tree.pools[0].id, port, FAKE_MEMBER_SUBNET.id) for port in (8002, 8003)]
    await world.add(load_balancer_id, *new, world.member(load_balancer_id, tree.pools[0].id, 8004))
    for _ in range(4):  # and however often it is tried
        await world.turn()
        world.now += timedelta(minutes=2)
    return load_balancer_id, {x.id for x in new}


async def faults_of_members(world: World, load_balancer_id: LoadBalancerId) -> dict[MemberId, str]:
    tree = await world.tree(load_balancer_id)
    assert tree is not None
    assert {x.provisioning_status for x in (*tree.listeners, *tree.pools)} == {"ACTIVE"}
    assert tree.load_balancer.provisioning_status == "ACTIVE"
    assert [x.suspected_at for x in tree.amphorae] == [None]
    return {x.id: x.fault.code for x in tree.members if x.fault is not None}


async def test_members_whose_subnet_is_full_are_left_out_alone_until_it_has_an_address(tmp_path: Path) -> None:
    world = await world_in(tmp_path)
    assert isinstance(world.network, FakePortNetwork)
    load_balancer_id, full = await members_on_a_full_subnet(world)
    assert await faults_of_members(world, load_balancer_id) == dict.fromkeys(full, "no-free-address")
    (place,) = world.places.values()
    tree = await world.tree(load_balancer_id)
    assert tree is not None
    carried = tree.wanted().without(full)
    assert place.runs == world.hands.amphora_driver.render(carried, tree.amphorae[0])
    world.network.full.clear()
    await world.converge()
    await world.assert_served(load_balancer_id)
    await world.store.close()


async def test_an_amphora_that_replaces_a_dead_one_serves_without_members_whose_subnet_is_full(tmp_path: Path) -> None:
    world = await world_in(tmp_path)
    assert isinstance(world.network, FakePortNetwork)
    load_balancer_id, members = await members_on_a_full_subnet(world)
    world.network.full.clear()
    await world.converge()
    (before,) = (await world.assert_served(load_balancer_id)).amphorae
    world.network.full.add(FAKE_MEMBER_SUBNET.id)
    for place in world.places.values():
        place.kill()
    await world.suspect(load_balancer_id)
    for _ in range(6):
        await world.turn()
        world.now += timedelta(minutes=2)
    assert await faults_of_members(world, load_balancer_id) == dict.fromkeys(members, "no-free-address")
    assert before.id not in world.places
    world.network.full.clear()
    await world.converge()
    await world.assert_served(load_balancer_id)
    await world.store.close()


async def test_the_second_of_a_pair_waits_for_an_address_and_takes_no_member_from_the_first(tmp_path: Path) -> None:
    world = await world_in(tmp_path)
    assert isinstance(world.network, FakePortNetwork)
    load_balancer_id = await world.create(80, topology=Topology.ACTIVE_STANDBY)
    await world.converge()
    tree = await world.assert_served(load_balancer_id)
    await world.add(load_balancer_id, world.member(load_balancer_id, tree.pools[0].id, 8002, FAKE_MEMBER_SUBNET.id))
    await world.converge()
    one, other = (await world.assert_served(load_balancer_id)).amphorae
    world.network.full.add(FAKE_MEMBER_SUBNET.id)
    world.places[other.id].kill()
    await world.store.transact(lambda tx: health.suspect(tx, [other.id], world.now))
    for _ in range(4):
        await world.turn()
        world.now += timedelta(minutes=2)
    after = await world.tree(load_balancer_id)
    assert after is not None
    assert [x.fault for x in after.members] == [None, None]
    runs = world.places[one.id].runs
    assert runs is not None
    assert [x.id for x in after.members if x.id not in runs.text] == []
    assert after.load_balancer.fault is not None
    assert after.load_balancer.fault.code == "no-free-address"
    world.network.full.clear()
    await world.converge()
    await world.assert_served(load_balancer_id)
    await world.store.close()


async def test_a_link_that_was_lost_is_plugged_again_when_its_amphora_is_looked_at(tmp_path: Path) -> None:
    world = await world_in(tmp_path)
    load_balancer_id = await world.create(80)
    await world.converge()
    (amphora,) = (await world.assert_served(load_balancer_id)).amphorae
    vip_port = next(x for x in amphora.ports if x.purpose is PortPurpose.VIP)
    world.places[amphora.id].attached.pop(vip_port.id)
    world.places[amphora.id].configured.clear()
    await world.suspect(load_balancer_id)
    await world.converge()
    (same,) = (await world.assert_served(load_balancer_id)).amphorae
    assert same.id == amphora.id
    await world.store.close()


async def test_an_agent_that_sees_its_interface_late_is_no_fault(tmp_path: Path) -> None:
    world = await world_in(tmp_path)
    load_balancer_id = await world.create(80)
    late = Retry("the agent sees no interface yet", after=2.0, code="no-interface")
    world.faults.fail("plug", error=late)
    world.faults.fail("plug", 2, error=late)
    began = world.now
    await world.converge()
    await world.assert_served(load_balancer_id)
    assert world.now == began
    assert world.faults.calls["plug"] == 3
    await world.store.close()


async def test_a_push_that_is_asked_for_plugs_once_and_ends(tmp_path: Path) -> None:
    """It is asked for where an agent may have lost everything, its interfaces too."""
    world = await world_in(tmp_path)
    load_balancer_id = await world.create(80)
    await world.converge()
    (amphora,) = (await world.assert_served(load_balancer_id)).amphorae
    world.places[amphora.id].configured.clear()
    world.now += timedelta(seconds=1)
    now, before = world.now, world.faults.calls["plug"]
    await world.store.transact(lambda tx: health.request_pushes(tx, [amphora.id], now))
    await world.converge()
    await world.assert_served(load_balancer_id)
    assert world.faults.calls["plug"] == before + 1
    await world.store.close()


async def test_a_link_that_was_lost_unheard_is_found_by_asking_compute(tmp_path: Path) -> None:
    world = await world_in(tmp_path)
    load_balancer_id = await world.create(80)
    await world.converge()
    (amphora,) = (await world.assert_served(load_balancer_id)).amphorae
    witness = Witness(world.hands)
    await witness.look_at_links()
    assert (await world.assert_served(load_balancer_id)).amphorae[0].suspected_at is None
    vip_port = next(x for x in amphora.ports if x.purpose is PortPurpose.VIP)
    world.places[amphora.id].attached.pop(vip_port.id)
    world.places[amphora.id].configured.clear()
    await witness.look_at_links()
    await world.converge()
    (same,) = (await world.assert_served(load_balancer_id)).amphorae
    assert (same.id, same.suspected_at) == (amphora.id, None)
    await world.store.close()


async def test_ports_of_an_amphora_that_nobody_knows_are_deleted_after_their_grace(tmp_path: Path) -> None:
    world = await world_in(tmp_path)
    load_balancer_id = await world.create(80)
    await world.converge()
    assert isinstance(world.network, FakePortNetwork)
    port = next(iter(world.network.ports.values()))
    stray = replace(port, amphora_id=AmphoraId(new_id()))
    world.network.ports[stray.id] = stray  # in its owner's stead: whoever held the lease before made it too late
    sweeper = Sweeper(world.hands)
    await sweeper.sweep()
    assert stray.id in world.network.ports
    world.now += SETTINGS.orphan_grace
    await sweeper.sweep()
    assert stray.id not in world.network.ports
    await world.delete(load_balancer_id)
    await world.converge()
    await world.assert_nothing(load_balancer_id)
    await world.store.close()
