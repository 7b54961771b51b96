"""Pairs: each amphora speaks to the other, one is replaced while the other serves, and a new one never begins to listen
before it is spoken to."""

from __future__ import annotations

import itertools
from functools import partial
from pathlib import Path

import pytest

from frontinus.controller.plugging import PEERS_PORT
from frontinus.drivers.amphora.interface import Applied, Rendered
from frontinus.model.enums import AmphoraRole, AmphoraStatus, Topology
from frontinus.model.ids import AmphoraId, LoadBalancerId
from frontinus.model.ports import PortPurpose
from frontinus.model.tree import Amphora, LoadBalancerTree
from frontinus.store import health
from frontinus.testing.fake_amphora import FakeAmphoraDriver
from frontinus.testing.fake_network import FakePortNetwork
from frontinus.testing.faults import Killed, When

from tests.integration.controller.world import World

LB = LoadBalancerId


class Watcher:
    """Looks on while configurations are pushed: who serves and is spoken to at that moment."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self.unannounced: list[AmphoraId] = []
        self.fewest = 2
        self.arrived: list[AmphoraRole] = []
        apply = FakeAmphoraDriver.apply

        async def watched(
            driver: FakeAmphoraDriver, amphora: Amphora, tree: LoadBalancerTree, rendered: Rendered
        ) -> Applied:
            others = [x for y, x in world.places.items() if y != amphora.id and x.runs is not None]
            if world.places[amphora.id].runs is None:
                self.arrived += [amphora.role] if amphora.role not in self.arrived[-1:] else []
                line = f"peer {amphora.vrrp_address}\n"
                self.unannounced += [amphora.id for x in others if x.runs is not None and line not in x.runs.text]
            self.fewest = min(self.fewest, sum(x.runs is not None for x in world.places.values()))
            return await apply(driver, amphora, tree, rendered)

        monkeypatch.setattr(FakeAmphoraDriver, "apply", watched)


async def a_pair(directory: Path) -> tuple[World, LB]:
    directory.mkdir(exist_ok=True)
    world = World(directory, has_ports=True)
    await world.register()
    load_balancer_id = await world.create(80, topology=Topology.ACTIVE_STANDBY)
    return world, load_balancer_id


async def role(world: World, load_balancer_id: LB, wanted: AmphoraRole) -> AmphoraId:
    tree = await world.tree(load_balancer_id)
    assert tree is not None
    return next(x.id for x in tree.amphorae if x.role is wanted)


async def test_each_speaks_to_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world, load_balancer_id = await a_pair(tmp_path)
    watcher = Watcher(world, monkeypatch)
    await world.converge()
    tree = await world.assert_served(load_balancer_id)
    one, two = tree.amphorae
    assert f"peer {two.vrrp_address}\n" in (world.places[one.id].runs or Rendered(text="", digest="")).text
    assert f"peer {one.vrrp_address}\n" in (world.places[two.id].runs or Rendered(text="", digest="")).text
    assert watcher.unannounced == []
    await world.store.close()


@pytest.mark.parametrize("dead", [AmphoraRole.MASTER, AmphoraRole.BACKUP])
async def test_a_dead_one_is_replaced_in_its_role(
    dead: AmphoraRole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, load_balancer_id = await a_pair(tmp_path)
    await world.converge()
    watcher = Watcher(world, monkeypatch)
    gone = await role(world, load_balancer_id, dead)
    world.places[gone].kill()
    await world.store.transact(lambda tx: health.suspect(tx, [gone], world.now))
    await world.converge()
    tree = await world.assert_served(load_balancer_id)
    assert gone not in {x.id for x in tree.amphorae}
    assert watcher.unannounced == []
    await world.store.close()


async def test_both_dead_are_both_replaced(tmp_path: Path) -> None:
    world, load_balancer_id = await a_pair(tmp_path)
    await world.converge()
    for place in world.places.values():
        place.kill()
    await world.suspect(load_balancer_id)
    await world.converge()
    await world.assert_served(load_balancer_id)
    await world.store.close()


async def test_a_failover_leaves_one_serving_all_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world, load_balancer_id = await a_pair(tmp_path)
    await world.converge()
    before = {x.id for x in (await world.assert_served(load_balancer_id)).amphorae}
    watcher = Watcher(world, monkeypatch)
    await world.store.transact(lambda tx: world.ask_for_failover(tx, load_balancer_id))
    await world.converge()
    tree = await world.assert_served(load_balancer_id)
    assert before.isdisjoint(x.id for x in tree.amphorae)
    assert watcher.unannounced == []
    assert watcher.fewest == 1
    await world.store.close()


BACKUP_FIRST = [AmphoraRole.BACKUP, AmphoraRole.MASTER]


async def outgrown_pair(world: World, load_balancer_id: LB) -> set[AmphoraId]:
    """Both amphorae are too old for what is asked from now on."""
    before = {x.id for x in (await world.assert_served(load_balancer_id)).amphorae}
    world.outgrown |= before
    tree = await world.tree(load_balancer_id)
    assert tree is not None
    await world.add(load_balancer_id, world.listener(load_balancer_id, 81, tree.pools[0].id))
    return before


async def test_a_pair_that_is_too_old_is_replaced_while_it_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, load_balancer_id = await a_pair(tmp_path)
    await world.converge()
    watcher = Watcher(world, monkeypatch)
    before = await outgrown_pair(world, load_balancer_id)
    await world.converge()
    tree = await world.assert_served(load_balancer_id)
    assert before.isdisjoint(x.id for x in tree.amphorae)
    assert (watcher.arrived, watcher.unannounced, watcher.fewest) == (BACKUP_FIRST, [], 1)
    await world.store.close()


@pytest.mark.parametrize("asked", ["change", "failover"])
async def test_a_pair_whose_agents_are_of_another_extension_is_replaced(
    asked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They can be asked nothing: neither to let go of their connections, nor to speak to a newcomer."""
    world, load_balancer_id = await a_pair(tmp_path)
    await world.converge()
    watcher = Watcher(world, monkeypatch)
    monkeypatch.setattr(FakeAmphoraDriver, "speaks_to_outgrown", False)
    if asked == "change":
        before = await outgrown_pair(world, load_balancer_id)
    else:
        before = {x.id for x in (await world.assert_served(load_balancer_id)).amphorae}
        world.outgrown |= before
        await world.store.transact(lambda tx: world.ask_for_failover(tx, load_balancer_id))
    await world.converge()
    tree = await world.assert_served(load_balancer_id)
    assert before.isdisjoint(x.id for x in tree.amphorae)
    assert (watcher.arrived, watcher.fewest) == (BACKUP_FIRST, 1)
    assert tree.load_balancer.fault is None
    await world.store.close()


async def test_a_pair_whose_driver_cannot_introduce_a_newcomer_goes_on_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, load_balancer_id = await a_pair(tmp_path)
    await world.converge()
    monkeypatch.setattr(type(world.hands.amphora_driver), "introduces", False)
    before = await outgrown_pair(world, load_balancer_id)
    with pytest.raises(AssertionError, match="does not settle"):
        await world.converge()
    tree = await world.tree(load_balancer_id)
    assert tree is not None
    assert tree.load_balancer.fault is not None
    assert tree.load_balancer.fault.code == "incompatible-amphora"
    assert before == {x.id for x in tree.amphorae if x.status is AmphoraStatus.ALLOCATED}
    assert all(world.places[x].balancing for x in before)
    await world.store.close()


@pytest.mark.parametrize("old", list(BACKUP_FIRST))
async def test_of_a_pair_only_the_one_that_is_too_old_is_replaced(
    old: AmphoraRole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, load_balancer_id = await a_pair(tmp_path)
    await world.converge()
    watcher = Watcher(world, monkeypatch)
    before = await outgrown_pair(world, load_balancer_id)
    world.outgrown = world.hands.amphora_driver.outgrown = {await role(world, load_balancer_id, old)}  # type: ignore[attr-defined]
    await world.converge()
    tree = await world.assert_served(load_balancer_id)
    assert before - world.outgrown < {x.id for x in tree.amphorae}
    assert (watcher.arrived, watcher.unannounced, watcher.fewest) == ([old], [], 1)
    await world.store.close()


async def test_who_serves_lets_go_of_its_connections_before_it_goes(tmp_path: Path) -> None:
    """Nobody new is let in before it gives the addresses up; whoever is dead, or the last, is not waited for."""
    world, load_balancer_id = await a_pair(tmp_path)
    await world.converge()
    network = world.network
    assert isinstance(network, FakePortNetwork)
    shut: list[set[int | None]] = []

    async def look(amphora: Amphora, tree: LoadBalancerTree) -> None:
        ports = (x for x in network.ports.values() if x.amphora_id == amphora.id and x.purpose is PortPurpose.VIP)
        shut.extend({y.port for y in x.allowed} for x in ports)

    world.hands.amphora_driver.retire = look  # type: ignore[method-assign]
    await world.store.transact(lambda tx: world.ask_for_failover(tx, load_balancer_id))
    await world.converge()
    assert (world.faults.calls["leave"], shut) == (2, [{None, PEERS_PORT}] * 2)
    gone = await role(world, load_balancer_id, AmphoraRole.MASTER)
    world.places[gone].kill()
    await world.store.transact(lambda tx: health.suspect(tx, [gone], world.now))
    await world.converge()
    assert world.faults.calls["leave"] == 2
    await world.delete(load_balancer_id)
    await world.converge()
    await world.assert_nothing(load_balancer_id)
    assert world.faults.calls["leave"] == 2
    await world.store.close()


@pytest.mark.parametrize("when", [When.BEFORE, When.AFTER])
@pytest.mark.parametrize("method", ["introduce", "leave", "retire", "destroy", "build", "apply", "plug"])
@pytest.mark.parametrize("number", [1, 2])
async def test_replacing_what_is_too_old_killed_at_a_step(
    method: str, number: int, when: When, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await replace_outgrown_killed(tmp_path, monkeypatch, method, number, when)


@pytest.mark.long
@pytest.mark.parametrize("when", [When.BEFORE, When.AFTER])
async def test_replacing_what_is_too_old_killed_at_every_moment(
    when: When, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for moment in itertools.count(1):
        with monkeypatch.context() as patch:
            if not await replace_outgrown_killed(tmp_path / f"{moment}", patch, None, moment, when):
                break
    assert moment > 60, "so many calls it takes"


async def replace_outgrown_killed(
    directory: Path, monkeypatch: pytest.MonkeyPatch, method: str | None, number: int, when: When
) -> bool:
    """The controller dies before or after that call of anything outside, the store included, and another one goes on; whether
    there was such a call."""
    world, load_balancer_id = await a_pair(directory)
    await world.converge()
    watcher = Watcher(world, monkeypatch)
    before = await outgrown_pair(world, load_balancer_id)
    made = world.faults.total
    world.faults.fail(method, number, when=when, error=Killed())
    await world.converge(120)
    tree = await world.assert_served(load_balancer_id)
    assert before.isdisjoint(x.id for x in tree.amphorae)
    assert watcher.arrived == BACKUP_FIRST
    assert watcher.unannounced == []
    await world.store.close()
    return world.faults.total >= made + number


@pytest.mark.long
@pytest.mark.parametrize("when", [When.BEFORE, When.AFTER])
async def test_replacing_one_killed_at_every_moment(
    when: When, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for moment in range(1, 60):
        world, load_balancer_id = await a_pair(tmp_path / f"{moment}")
        await world.converge()
        watcher = Watcher(world, monkeypatch)
        gone = await role(world, load_balancer_id, AmphoraRole.MASTER)
        world.places[gone].kill()
        await world.store.transact(partial(health.suspect, amphora_ids=[gone], now=world.now))
        world.faults.fail(None, moment, when=when, error=Killed())
        await world.converge()
        await world.assert_served(load_balancer_id)
        assert watcher.unannounced == []
        monkeypatch.undo()
        await world.store.close()
