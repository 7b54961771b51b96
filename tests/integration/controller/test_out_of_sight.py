"""A compute service that does not show what goes on running, as Nova while a cell is away: nothing that serves is torn down for
it, and what is dead is replaced as ever."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import ClassVar

import pytest
import structlog

from frontinus.controller.witness import Witness
from frontinus.drivers.compute.interface import ATTACH, LOSES_SIGHT, Place, PlaceState
from frontinus.model.errors import Retry
from frontinus.model.ids import AmphoraId, LoadBalancerId
from frontinus.store import health
from frontinus.testing.fake_compute import FakeCompute

from tests.integration.controller.world import SETTINGS, World

pytestmark = pytest.mark.integration


class ShortSighted(FakeCompute):
    """`unseen` are not found by their names, whatever runs there. With `knows_ids` it says of a recorded id that it cannot tell."""

    features: ClassVar[frozenset[str]] = frozenset({ATTACH, LOSES_SIGHT})

    def __init__(self, world: World, *, knows_ids: bool) -> None:
        super().__init__(world.places, world.faults)
        self.unseen: set[AmphoraId] = set()
        self._knows_ids = knows_ids

    async def get(self, amphora_id: AmphoraId) -> Place:
        seen = await super().get(amphora_id)
        return Place(amphora_id=amphora_id, state=PlaceState.ABSENT) if amphora_id in self.unseen else seen

    async def get_known(self, amphora_id: AmphoraId, compute_id: str | None) -> Place:
        if self._is_known(amphora_id, compute_id):
            return Place(amphora_id=amphora_id, state=PlaceState.RUNNING, compute_id=compute_id)
        return await self.get(amphora_id)

    async def destroy(self, amphora_id: AmphoraId) -> None:
        if amphora_id not in self.unseen:
            await super().destroy(amphora_id)

    async def destroy_known(self, amphora_id: AmphoraId, compute_id: str | None) -> None:
        if self._is_known(amphora_id, compute_id):
            raise Retry("that part is away", after=0.1, code="nova-unavailable")
        await self.destroy(amphora_id)

    def _is_known(self, amphora_id: AmphoraId, compute_id: str | None) -> bool:
        return amphora_id in self.unseen and compute_id is not None and self._knows_ids


@pytest.fixture(params=[True, False], ids=["ids are known", "nothing is known"])
def knows_ids(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
async def world(tmp_path: Path, knows_ids: bool) -> AsyncIterator[World]:
    made = World(tmp_path, has_ports=True)
    made.hands = dataclasses.replace(made.hands, compute=ShortSighted(made, knows_ids=knows_ids))
    await made.register()
    yield made
    await made.store.close()


async def served(world: World) -> tuple[LoadBalancerId, AmphoraId]:
    load_balancer_id = await world.create(80)
    await world.converge()
    return load_balancer_id, (await world.assert_served(load_balancer_id)).amphorae[0].id


def lose_sight(world: World, amphora_id: AmphoraId) -> None:
    assert isinstance(world.hands.compute, ShortSighted)
    world.hands.compute.unseen.add(amphora_id)


def show_all(world: World) -> None:
    assert isinstance(world.hands.compute, ShortSighted)
    world.hands.compute.unseen.clear()


async def test_who_is_heard_is_not_suspected(world: World) -> None:
    load_balancer_id, amphora_id = await served(world)
    now = world.now
    await world.store.transact(lambda tx: health.write_seen(tx, [amphora_id], now))
    lose_sight(world, amphora_id)
    witness = Witness(world.hands)
    with structlog.testing.capture_logs() as told:
        await witness.look()
        await witness.look_at_links()
    assert [(x["event"], x["one"]) for x in told] == [("compute does not show amphorae that are heard", amphora_id)]
    assert (await world.assert_served(load_balancer_id)).amphorae[0].suspected_at is None


async def test_who_answers_is_not_replaced(world: World) -> None:
    load_balancer_id, amphora_id = await served(world)
    lose_sight(world, amphora_id)
    world.now += SETTINGS.unheard_after * 2
    await Witness(world.hands).look()
    tree = await world.tree(load_balancer_id)
    assert tree is not None
    assert tree.amphorae[0].suspected_at is not None
    await world.converge()
    (after,) = (await world.assert_served(load_balancer_id)).amphorae
    assert (after.id, after.suspected_at) == (amphora_id, None)


@pytest.mark.parametrize("knows_ids", [False], indirect=True, ids=["nothing is known"])
async def test_who_neither_answers_nor_is_shown_is_replaced_at_once(world: World) -> None:
    load_balancer_id, amphora_id = await served(world)
    lose_sight(world, amphora_id)
    del world.places[amphora_id]
    await world.suspect(load_balancer_id)
    now = world.now
    await world.turn()
    (after,) = (await world.assert_served(load_balancer_id)).amphorae
    assert after.id != amphora_id
    assert world.now == now


@pytest.mark.parametrize("knows_ids", [True], indirect=True, ids=["ids are known"])
async def test_who_may_run_still_keeps_its_ports_until_it_is_gone(world: World) -> None:
    load_balancer_id, amphora_id = await served(world)
    lose_sight(world, amphora_id)
    await world.delete(load_balancer_id)
    await world.turn()
    tree = await world.tree(load_balancer_id)
    assert tree is not None
    assert tree.load_balancer.fault is not None
    assert tree.load_balancer.fault.code == "nova-unavailable"
    assert set(world.places) == {amphora_id}
    assert await world.network.list_ports(amphora_id), "it is not cut off"
    show_all(world)
    world.now += timedelta(minutes=1)
    await world.converge()
    await world.assert_nothing(load_balancer_id)


async def test_of_many_that_are_unheard_only_those_that_do_not_run_are_asked_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for port in range(80, 88):
        await world.create(port)
    await world.converge()
    dead, *running = world.places
    world.places[dead].kill()
    world.now += SETTINGS.unheard_after * 2

    async def list_running() -> frozenset[AmphoraId]:
        return frozenset(running)

    monkeypatch.setattr(world.hands.compute, "list_running", list_running)
    before = world.faults.calls["get"]
    await Witness(world.hands).look()
    assert world.faults.calls["get"] - before == 1
    trees = await world.trees()
    assert [x.amphorae[0].id for x in trees if x.amphorae[0].suspected_at is not None] == [dead]


async def test_links_are_looked_at_in_turn(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ShortSighted, "looks_per_second", 2 / SETTINGS.witness_interval.total_seconds())
    for port in range(80, 85):
        await world.create(port)
    await world.converge()
    asked: list[AmphoraId] = []
    get = world.hands.compute.get

    async def noted(amphora_id: AmphoraId) -> Place:
        asked.append(amphora_id)
        return await get(amphora_id)

    monkeypatch.setattr(world.hands.compute, "get", noted)
    witness = Witness(world.hands)
    for _ in range(5):
        await witness.look_at_links()
    assert sorted(asked) == sorted([*world.places, *world.places])
