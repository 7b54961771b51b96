"""A link that is gone: no suspicion while the work that takes it away is under way, and one as ever when nobody works there."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import structlog

from frontinus.controller import witness as witness_module
from frontinus.controller.witness import CHANGE_PATIENCE, Witness
from frontinus.drivers.compute.interface import Place
from frontinus.model.edits import apply
from frontinus.model.ids import AmphoraId, LoadBalancerId
from frontinus.model.ports import Port, PortPurpose
from frontinus.store import leases
from frontinus.testing.fake_compute import FakeCompute
from frontinus.testing.fake_network import FAKE_MEMBER_SUBNET

from tests.integration.controller.world import SETTINGS, World

pytestmark = pytest.mark.integration


class SlowToDetach(FakeCompute):
    """The link goes at once, and the answer comes when `done` is set: as with Nova, seconds later."""

    def __init__(self, world: World) -> None:
        super().__init__(world.places, world.faults)
        self.gone, self.done = asyncio.Event(), asyncio.Event()
        self.meanwhile: Callable[[], Awaitable[None]] | None = None

    async def detach(self, amphora_id: AmphoraId, port: Port) -> None:
        await super().detach(amphora_id, port)
        self.gone.set()
        await self.done.wait()

    async def get(self, amphora_id: AmphoraId) -> Place:
        if self.meanwhile is not None:
            await self.meanwhile()
        return await super().get(amphora_id)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path, has_ports=True)
    made.hands = dataclasses.replace(made.hands, compute=SlowToDetach(made))
    await made.register()
    yield made
    await made.store.close()


def compute_of(world: World) -> SlowToDetach:
    assert isinstance(world.hands.compute, SlowToDetach)
    return world.hands.compute


async def with_a_member_elsewhere(world: World) -> tuple[LoadBalancerId, AmphoraId]:
    """A load balancer that is served, on two networks."""
    load_balancer_id = await world.create(80)
    tree = await world.tree_of(load_balancer_id)
    await world.add(load_balancer_id, world.member(load_balancer_id, tree.pools[0].id, 8002, FAKE_MEMBER_SUBNET.id))
    await world.converge()
    (amphora,) = (await world.assert_served(load_balancer_id)).amphorae
    return load_balancer_id, amphora.id


async def remove_the_member(world: World, load_balancer_id: LoadBalancerId) -> None:
    tree = await world.tree_of(load_balancer_id)
    leaving = [x for x in tree.members if x.subnet_id is not None]
    await world.edit(load_balancer_id, lambda tree: apply(tree, world.now, delete=leaving))


@asynccontextmanager
async def a_detach_under_way(world: World, load_balancer_id: LoadBalancerId) -> AsyncIterator[None]:
    """The last member on a network goes; the link is gone, the port is on record. Ends when all is settled."""
    await remove_the_member(world, load_balancer_id)
    converging = asyncio.create_task(world.converge())
    async with asyncio.timeout(10):
        await compute_of(world).gone.wait()
        yield
        compute_of(world).done.set()
        await converging


async def lose_the_link_of_the_vip(world: World, load_balancer_id: LoadBalancerId) -> None:
    (amphora,) = (await world.tree_of(load_balancer_id)).amphorae
    vip_port = next(x for x in amphora.ports if x.purpose is PortPurpose.VIP)
    world.places[amphora.id].unplug(vip_port.id)
    world.places[amphora.id].configured.pop(vip_port.mac)


async def is_suspected(world: World, load_balancer_id: LoadBalancerId) -> bool:
    (amphora,) = (await world.tree_of(load_balancer_id)).amphorae
    return amphora.suspected_at is not None


async def test_a_detach_that_was_asked_for_suspects_nobody(world: World) -> None:
    load_balancer_id, amphora_id = await with_a_member_elsewhere(world)
    witness = Witness(world.hands)
    with structlog.testing.capture_logs() as told:
        async with a_detach_under_way(world, load_balancer_id):
            await witness.look_at_links()
            await witness.look_at([amphora_id])
            await witness.look_again()
            assert not await is_suspected(world, load_balancer_id)
        await witness.look_again()
    assert [x for x in told if x["log_level"] != "info"] == []
    await world.assert_served(load_balancer_id)
    assert await world.store.read(leases.next_due) is None, "nobody looks at it a second time"


async def test_a_port_that_leaves_while_it_is_looked_at_suspects_nobody(world: World) -> None:
    """Between what was read and what compute answers the whole change is done."""
    load_balancer_id, _ = await with_a_member_elsewhere(world)
    await remove_the_member(world, load_balancer_id)
    compute_of(world).done.set()

    async def change() -> None:
        compute_of(world).meanwhile = None
        await world.converge()

    compute_of(world).meanwhile = change
    await Witness(world.hands).look_at_links()
    await world.assert_served(load_balancer_id)
    assert not await is_suspected(world, load_balancer_id)
    assert await world.store.read(leases.next_due) is None


@pytest.mark.parametrize("look", ["in turn", "told"])
async def test_a_link_that_is_lost_under_work_is_noticed_after_it(world: World, look: str) -> None:
    load_balancer_id, amphora_id = await with_a_member_elsewhere(world)
    witness = Witness(world.hands)
    async with a_detach_under_way(world, load_balancer_id):
        await lose_the_link_of_the_vip(world, load_balancer_id)
        await (witness.look_at_links() if look == "in turn" else witness.look_at([amphora_id]))
        assert not await is_suspected(world, load_balancer_id)
    assert await world.store.read(leases.next_due) is None
    await witness.look_again()
    assert await is_suspected(world, load_balancer_id)
    await world.converge()
    (same,) = (await world.assert_served(load_balancer_id)).amphorae
    assert (same.id, same.suspected_at) == (amphora_id, None)


async def test_work_without_end_hides_a_lost_link_for_a_while_only(world: World) -> None:
    load_balancer_id, amphora_id = await with_a_member_elsewhere(world)
    await lose_the_link_of_the_vip(world, load_balancer_id)
    witness, end = Witness(world.hands), world.now + CHANGE_PATIENCE
    while world.now <= end:
        assert not await is_suspected(world, load_balancer_id)
        now, owner, cohort = world.now, world.owner, load_balancer_id
        lease = await world.store.transact(
            lambda tx: leases.claim_one(tx, owner, cohort, now, SETTINGS.lease_duration)  # noqa: B023
        )
        assert lease is not None
        await (witness.look_at([amphora_id]) if world.now + CHANGE_PATIENCE == end else witness.look_again())
        world.now += SETTINGS.lease_duration
    assert await is_suspected(world, load_balancer_id)


async def test_who_is_told_of_a_link_waits_for_the_work_and_looks_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(witness_module, "CHANGE_POLL_S", 0.01)
    load_balancer_id, amphora_id = await with_a_member_elsewhere(world)
    now, owner = world.now, world.owner
    lease = await world.store.transact(
        lambda tx: leases.claim_one(tx, owner, load_balancer_id, now, SETTINGS.lease_duration)
    )
    assert lease is not None
    watching = asyncio.create_task(Witness(world.hands).run())
    try:
        async with asyncio.timeout(10):
            while not world.places[amphora_id].watchers:  # noqa: ASYNC110 - another's list
                await asyncio.sleep(0)
            asked = world.faults.calls["get"]
            await lose_the_link_of_the_vip(world, load_balancer_id)
            while world.faults.calls["get"] == asked:  # noqa: ASYNC110 - another's count
                await asyncio.sleep(0)
            await world.store.transact(lambda tx: leases.release(tx, lease))
            while await world.store.read(leases.next_due) is None:  # noqa: ASYNC110 - the store says when
                await asyncio.sleep(0.01)
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    assert await is_suspected(world, load_balancer_id)


async def test_where_no_link_is_missing_nothing_more_is_read(world: World) -> None:
    """Each of a hundred controllers reads it without end."""
    await with_a_member_elsewhere(world)
    witness = Witness(world.hands)
    before = world.faults.calls.copy()
    await witness.look_at_links()
    assert world.faults.calls - before == {"read": 2, "get": 1}  # the next ones, and round again; one amphora
