"""What is nobody's is told of, and goes after its grace; what is wanted, or may come to be, never does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from frontinus.controller.sweep_plan import ALWAYS_BELIEVED, Survey
from frontinus.controller.sweeper import Sweeper
from frontinus.drivers.compute.interface import LOSES_SIGHT
from frontinus.model.belongings import Belonging, BelongingKind
from frontinus.model.errors import Retry
from frontinus.model.ids import AmphoraId, LoadBalancerId, new_id
from frontinus.model.network import VipRequest
from frontinus.store import orphans
from frontinus.testing.faults import Killed

from tests.integration.controller.world import PROJECT, SETTINGS, World

STRANGER = LoadBalancerId("00000000-0000-4000-8000-000000000001")
GRACE = SETTINGS.orphan_grace


@pytest.fixture(params=[False, True], ids=["no ports", "ports"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path, has_ports=request.param)
    await made.register()
    yield made
    await made.store.close()


async def orphan_place(world: World) -> AmphoraId:
    amphora_id = AmphoraId(new_id())
    await world.hands.compute.build(
        amphora_id, STRANGER, world.hands.amphora_driver.boot_files(amphora_id, "127.0.0.1")
    )
    return amphora_id


async def orphan_address(world: World) -> LoadBalancerId:
    load_balancer_id = LoadBalancerId(new_id())
    await world.network.allocate_vip(load_balancer_id, PROJECT, VipRequest(subnet_id=world.network.subnets[0].id))
    return load_balancer_id


async def sweep(world: World) -> None:
    """By a controller that has just been started: what it knows is in the store."""
    await Sweeper(world.hands).sweep()


def waiting(world: World) -> float:
    """As the metric has it."""
    (family,) = world.hands.metrics.orphans.collect()
    return next(x.value for x in family.samples if "waiting" in x.labels.values())


async def look(world: World) -> Survey:
    return await Sweeper(world.hands).look()


async def test_orphans_go_after_their_grace_and_not_before(world: World) -> None:
    load_balancer_id = await world.create(80)
    await world.converge()
    place, address = await orphan_place(world), await orphan_address(world)
    with capture_logs() as told:
        await sweep(world)
    assert {x["owner_id"] for x in told if x["event"] == "orphan found"} == {place, address}
    world.now += GRACE - timedelta(seconds=1)
    await sweep(world)
    assert place in world.places
    assert address in await world.network.list_owned()
    world.now += timedelta(seconds=1)
    with capture_logs() as told:
        await sweep(world)
    assert {x["owner_id"] for x in told if x["event"] == "orphan deleted"} == {place, address}
    assert place not in world.places
    assert address not in await world.network.list_owned()
    await world.assert_served(load_balancer_id)
    assert (await look(world)).orphans == ()
    assert await world.store.read(orphans.sightings) == {}


async def test_what_is_recorded_meanwhile_is_no_orphan(world: World) -> None:
    """An address is given before its load balancer is recorded, which takes as long as the database wants."""
    load_balancer_id = await orphan_address(world)
    await sweep(world)
    world.now += GRACE
    await world.create(80, known_as=load_balancer_id)
    await sweep(world)
    await world.converge()
    await world.assert_served(load_balancer_id)


async def test_grace_begins_anew_for_who_was_known_meanwhile(world: World) -> None:
    load_balancer_id, other = await orphan_address(world), await orphan_address(world)
    await sweep(world)
    await world.create(80, known_as=load_balancer_id)
    await sweep(world)
    await world.converge()
    await world.delete(load_balancer_id)
    await world.converge()
    await world.network.allocate_vip(load_balancer_id, PROJECT, VipRequest(subnet_id=world.network.subnets[0].id))
    world.now += GRACE
    await sweep(world)
    assert set(await world.network.list_owned()) == {load_balancer_id}
    assert other not in await world.network.list_owned()


@pytest.mark.parametrize("moment", range(1, 9))
async def test_what_a_killed_controller_was_making_is_wanted(world: World, moment: int) -> None:
    """It is recorded before it is made, so its row waits for whoever claims next, however long that takes."""
    load_balancer_id = await world.create(80)
    world.faults.fail(None, moment, error=Killed())
    try:
        await world.turn()
    except Killed:
        world.restart()
    world.faults.clear()
    assert (await look(world)).orphans == ()
    world.now += 2 * GRACE
    await sweep(world)
    await world.converge()
    await world.assert_served(load_balancer_id)


async def test_grace_is_kept_over_the_death_of_who_swept(world: World) -> None:
    place = await orphan_place(world)
    await sweep(world)
    world.restart()
    world.now += GRACE
    await sweep(world)
    assert place not in world.places


async def test_too_many_orphans_are_left_alone_until_somebody_asks(world: World) -> None:
    """As a database does that was lost or restored: everything is nobody's, and carries traffic."""
    places = [await orphan_place(world) for _ in range(ALWAYS_BELIEVED + 1)]
    await sweep(world)
    world.now += GRACE
    with capture_logs() as told:
        await sweep(world)
    assert set(places) <= set(world.places)
    assert "too many orphans to be believed; see `frontinus sweep list`" in {x["event"] for x in told}
    sweeper = Sweeper(world.hands)
    due = (await sweeper.look()).due(world.now)
    assert {x.owner.id for x in await sweeper.delete(due)} == set(places)
    assert not world.places


@pytest.mark.parametrize("in_a_cloud", [True, False], ids=["in a cloud", "on machines"])
async def test_of_many_controllers_that_see_the_same_few_look_at_a_time(
    world: World, in_a_cloud: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = world.hands.compute.features | ({LOSES_SIGHT} if in_a_cloud else set())
    monkeypatch.setattr(type(world.hands.compute), "features", features)
    sweepers = [Sweeper(world.hands) for _ in range(100)]
    counts = []
    for _ in range(2):
        before = world.faults.calls["list_owned"]
        for each in sweepers:
            await each.turn()
            each.among(len(sweepers))
        counts.append(world.faults.calls["list_owned"] - before)
    first, later = counts
    assert later <= first / 5 if in_a_cloud else later == first


async def test_who_does_not_look_forgets_what_others_saw_to(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    features = world.hands.compute.features | {LOSES_SIGHT}
    monkeypatch.setattr(type(world.hands.compute), "features", features)
    await orphan_place(world)
    idle = Sweeper(world.hands)
    await idle.turn()
    assert waiting(world) == 1
    await Sweeper(world.hands).sweep()
    world.now += GRACE
    await Sweeper(world.hands).sweep()
    idle.among(10**9)  # it is never drawn
    await idle.turn()
    assert waiting(world) == 0


async def test_one_that_cannot_be_deleted_does_not_keep_the_others(world: World) -> None:
    places = [await orphan_place(world) for _ in range(3)]
    await sweep(world)
    world.now += GRACE
    world.faults.fail("destroy", 2, error=Retry("busy", after=1.0))
    await sweep(world)
    assert len(world.places) == 1
    assert set(world.places) < set(places)
    await sweep(world)
    assert not world.places


async def test_an_orphan_that_the_network_cannot_list_now_is_kept(world: World) -> None:
    """What cannot be looked at is not taken for gone or nobody's."""
    place = await orphan_place(world)
    await sweep(world)
    world.now += GRACE
    world.faults.fail("list_owned", 1, error=Retry("away", after=1.0))
    with pytest.raises(Retry):
        await sweep(world)
    assert place in world.places


class _Keeper:
    """What an amphora driver keeps of its own."""

    def __init__(self, *names: str) -> None:
        self.unused = {
            Belonging(kind=BelongingKind.CERTIFICATE, name=x, proof="issued by our authority") for x in names
        }

    async def list_unused(self) -> tuple[Belonging, ...]:
        return tuple(self.unused)

    async def discard(self, belonging: Belonging) -> None:
        self.unused.discard(belonging)


async def test_what_a_driver_does_not_need_any_more_goes_however_much_it_is(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = _Keeper(*(f"/authority/client-{n}.pem" for n in range(3 * ALWAYS_BELIEVED)))
    for method in ("list_unused", "discard"):
        monkeypatch.setattr(world.hands.amphora_driver, method, getattr(keeper, method))
    await sweep(world)
    assert len(keeper.unused) == 3 * ALWAYS_BELIEVED
    world.now += GRACE
    await sweep(world)
    assert keeper.unused == set()
