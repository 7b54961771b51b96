"""Spare amphorae are there, are taken, and are made anew; whoever is killed on the way, nothing is left that nobody knows."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import ClassVar

import pytest

from frontinus.controller.hands import Hands
from frontinus.controller.settings import SparesOf
from frontinus.controller.spares import Spares
from frontinus.controller.sweeper import Sweeper
from frontinus.drivers.compute.interface import APART
from frontinus.model.enums import Topology
from frontinus.model.ids import AvailabilityZoneProfileId, FlavorId, FlavorProfileId, new_id
from frontinus.model.offers import AvailabilityZone, AvailabilityZoneProfile, Flavor, FlavorProfile
from frontinus.model.placement import Placement
from frontinus.model.spares import Spare, SpareStatus
from frontinus.store import offers, spares
from frontinus.store.engine import Transaction
from frontinus.testing.fake_compute import FakeCompute
from frontinus.testing.faults import Killed, When

from tests.integration.controller.world import SETTINGS, World

pytestmark = pytest.mark.integration

WANTED = 2


@pytest.fixture(params=[False, True], ids=["without ports", "with ports"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path, has_ports=request.param)
    await made.register()
    yield made
    await made.store.close()


def hands(world: World, wanted: int = WANTED, others: tuple[SparesOf, ...] = ()) -> Hands:
    settings = dataclasses.replace(SETTINGS, spares=wanted, spares_of=others)
    return dataclasses.replace(world.hands, settings=settings)


async def offer(world: World, flavor: str, zone: str) -> None:
    """A flavor with `lb.FLAVOR`, and a zone with compute zone `a`."""
    of_flavor = FlavorProfile(
        id=FlavorProfileId(new_id()),
        name="p",
        provider_name="amphora",
        flavor_data=f'{{"compute_flavor": "lb.{flavor}"}}',
        created_at=world.now,
    )
    of_zone = AvailabilityZoneProfile(
        id=AvailabilityZoneProfileId(new_id()),
        name="p",
        provider_name="amphora",
        availability_zone_data='{"compute_zone": "a"}',
        created_at=world.now,
    )

    def work(tx: Transaction) -> None:
        for each in (
            of_flavor,
            of_zone,
            Flavor(id=FlavorId(new_id()), name=flavor, flavor_profile_id=of_flavor.id, created_at=world.now),
            AvailabilityZone(name=zone, availability_zone_profile_id=of_zone.id, created_at=world.now),
        ):
            offers.add(tx, each)

    await world.store.transact(work)


async def look(world: World, wanted: int = WANTED) -> list[Spare]:
    """What a controller's turn leaves, a turn later than the one before."""
    world.now += SETTINGS.spare_interval
    await Spares(hands(world, wanted)).look()
    return await slots(world)


async def slots(world: World) -> list[Spare]:
    return await world.store.read(lambda tx: spares.in_pool(tx, world.hands.spare_pool(None)))


def assert_ready(world: World, found: list[Spare], count: int = WANTED) -> None:
    assert [(x.slot, x.status) for x in found] == [(n, SpareStatus.READY) for n in range(count)]
    assert {x.amphora_id for x in found} <= set(world.places)
    assert all(world.places[x.amphora_id].agent_running for x in found)


async def test_a_create_takes_one_and_builds_nothing(world: World) -> None:
    before = await look(world)
    assert_ready(world, before)
    await world.create(80)
    await world.converge()
    (amphora,) = [x for x in world.places if world.places[x].runs is not None]
    assert amphora in {x.amphora_id for x in before}
    assert world.places[amphora].starts == 1
    assert len(world.places) == WANTED
    after = await look(world)
    assert_ready(world, after)
    assert len(world.places) == WANTED + 1
    await Sweeper(hands(world)).sweep()
    await Sweeper(hands(world)).sweep()
    assert len(world.places) == WANTED + 1, "spares are no orphans"


async def test_a_dead_amphora_is_replaced_by_one(world: World) -> None:
    load_balancer_id = await world.create(80)
    await world.converge()
    (dead,) = world.places
    before = {x.amphora_id for x in await look(world)}
    await world.suspect(load_balancer_id)
    del world.places[dead]
    await world.converge()
    tree = await world.tree(load_balancer_id)
    assert tree is not None
    (amphora,) = tree.amphorae
    assert amphora.id in before
    assert world.places[amphora.id].runs is not None


async def test_what_died_or_is_due_is_made_anew(world: World) -> None:
    first, second = await look(world)
    world.places[first.amphora_id].kill()
    del world.places[second.amphora_id]
    await look(world)
    found = await look(world)
    assert_ready(world, found)
    assert not {first.amphora_id, second.amphora_id} & {x.amphora_id for x in found}
    world.vouching.digest = "second"
    await look(world)
    renewed = await look(world)
    assert_ready(world, renewed)
    assert {x.amphora.identity_digest for x in renewed} == {"second"}
    assert set(world.places) == {x.amphora_id for x in renewed}


async def test_slots_stay_empty_for_a_while_as_long_as_load_balancers_are_worked_on(world: World) -> None:
    busy = True
    keeping = Spares(hands(world), lambda: busy)
    await keeping.look()
    assert await slots(world) == []
    busy = False
    await keeping.look()
    assert_ready(world, await slots(world))


async def test_a_spare_of_another_make_is_not_taken(world: World) -> None:
    large = Placement(compute_flavor="large")
    assert_ready(world, await look(world))
    plain = set(world.places)
    await world.create(80, placement=large)
    await world.converge()
    (built,) = set(world.places) - plain
    assert world.places[built].placement == large


async def test_spares_of_a_flavor_serve_its_load_balancers_only(world: World) -> None:
    await offer(world, "large", "east")
    wanted = (SparesOf(count=1, flavor="large", availability_zone="east"), SparesOf(count=5, flavor="unheard of"))
    world.now += SETTINGS.spare_interval
    await Spares(hands(world, 1, wanted)).look()
    both = Placement(compute_flavor="lb.large", compute_zone="a")
    (of_it,) = [x for x in world.places if world.places[x].placement == both]
    assert len(world.places) == 2, "one of it, a plain one, and none of what nobody offers"
    await world.create(80, placement=Placement(compute_flavor="lb.large"))
    await world.converge()
    assert world.places[of_it].runs is None, "it is in a zone that was not asked for"
    load_balancer_id = await world.create(80, placement=both)
    await world.converge()
    tree = await world.tree(load_balancer_id)
    assert tree is not None
    assert [x.id for x in tree.amphorae] == [of_it]


async def test_spares_of_a_flavor_that_are_wanted_no_more_go(world: World) -> None:
    await offer(world, "large", "east")
    world.now += SETTINGS.spare_interval
    await Spares(hands(world, 0, (SparesOf(count=2, flavor="large"),))).look()
    assert {x.placement for x in world.places.values()} == {Placement(compute_flavor="lb.large")}
    await look(world, wanted=0)
    assert not world.places


async def test_fewer_are_wanted(world: World) -> None:
    await look(world)
    assert_ready(world, await look(world, wanted=1), count=1)
    assert await look(world, wanted=0) == []
    assert not world.places


async def test_a_spare_that_died_unseen_is_built_again_where_it_was_taken(world: World) -> None:
    taken, _ = await look(world)
    world.places[taken.amphora_id].kill()
    await world.create(80)
    await world.converge()
    assert world.places[taken.amphora_id].runs is not None


async def test_two_controllers_fill_the_same_slots(world: World) -> None:
    for _ in range(3):
        await Spares(hands(world)).look()
    assert_ready(world, await slots(world))
    assert len(world.places) == WANTED


@pytest.mark.parametrize("when", [When.BEFORE, When.AFTER])
async def test_killed_at_every_moment(when: When, tmp_path: Path) -> None:
    for moment in range(1, 16):
        (tmp_path / str(moment)).mkdir()
        world = World(tmp_path / str(moment), has_ports=True)
        await world.register()
        world.faults.fail(None, moment, when=when, error=Killed())
        for _ in range(4):
            try:
                await look(world, wanted=1)
            except Killed:
                world.now += 2 * world.hands.boot_timeout + timedelta(seconds=1)
        found = await look(world, wanted=1)
        assert_ready(world, found, count=1)
        assert set(world.places) == {found[0].amphora_id}
        assert set(await world.network.list_port_owners()) == {found[0].amphora_id}
        await world.store.close()


@pytest.mark.parametrize(
    "topology,apart,left",
    [
        pytest.param(Topology.ACTIVE_STANDBY, True, WANTED, id="a pair that is kept apart"),
        pytest.param(Topology.ACTIVE_STANDBY, False, 0, id="a pair where all is one host"),
        pytest.param(Topology.SINGLE, True, WANTED - 1, id="one alone"),
    ],
)
async def test_a_pair_takes_none_where_compute_keeps_it_apart(
    world: World, topology: Topology, apart: bool, left: int
) -> None:
    """Compute knows of a spare only that it is nobody's: it could not keep the other one off its host."""

    class Apart(FakeCompute):
        features: ClassVar[frozenset[str]] = FakeCompute.features | ({APART} if apart else set())

    world.hands = dataclasses.replace(world.hands, compute=Apart(world.places, world.faults))
    assert_ready(world, await look(world))
    before = {x.amphora_id for x in await slots(world)}
    load_balancer_id = await world.create(80, topology=topology)
    await world.converge()
    assert len(await slots(world)) == left
    tree = await world.tree(load_balancer_id)
    assert tree is not None
    assert len(before & {x.id for x in tree.amphorae}) == WANTED - left
