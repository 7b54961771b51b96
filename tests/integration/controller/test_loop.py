"""The loop of a controller as it runs: leases, and the work under them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import delete

from frontinus.controller.hands import Hands
from frontinus.controller.loop import Controller
from frontinus.controller.membership import digest_of
from frontinus.controller.metrics import ControllerMetrics
from frontinus.drivers.amphora.interface import Applied, Rendered
from frontinus.drivers.compute.interface import Place
from frontinus.model.boot import BootFiles
from frontinus.model.errors import Bug, Conflict, NotFound
from frontinus.model.ids import AmphoraId, LoadBalancerId
from frontinus.model.placement import UNSPECIFIED, Placement
from frontinus.model.ports import Port
from frontinus.model.tree import Amphora, LoadBalancerTree
from frontinus.store import controllers, leases, schema
from frontinus.store.statement import Statement

from tests.integration.controller.world import SETTINGS, World

FORGET = Statement(delete(schema.controller))


class Hand:
    """Replaces `build`: the first one stays under way until it is let go; who is in it is counted."""

    def __init__(self, world: World) -> None:
        self._build = world.hands.compute.build
        self.begun = asyncio.Event()
        self.let_go = asyncio.Event()
        self.inside = 0
        self.most_inside = 0
        world.hands.compute.build = self.build  # type: ignore[method-assign]

    async def build(
        self,
        amphora_id: AmphoraId,
        load_balancer_id: LoadBalancerId,
        boot: BootFiles,
        ports: tuple[Port, ...] = (),
        placement: Placement = UNSPECIFIED,
    ) -> Place:
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        try:
            if not self.begun.is_set():
                self.begun.set()
                await self.let_go.wait()
            return await self._build(amphora_id, load_balancer_id, boot)
        finally:
            self.inside -= 1


async def test_controller_that_was_paused_does_not_work_against_itself(tmp_path: Path) -> None:
    """Its lease ran out while it was stopped, and it is itself who claims next: the old work ends before the new begins."""
    world = World(tmp_path)
    hand = Hand(world)
    controller = Controller(world.hands, ("amphora",))
    await controller.register()
    load_balancer_id = await world.create(80)
    running = asyncio.create_task(controller.run())
    try:
        async with asyncio.timeout(20):
            await hand.begun.wait()
            world.now += SETTINGS.lease_duration * 2
            while True:
                tree = await world.tree(load_balancer_id)
                assert tree is not None
                if tree.load_balancer.provisioning_status == "ACTIVE":
                    break
                await asyncio.sleep(0.01)
        assert hand.most_inside == 1
        await world.assert_served(load_balancer_id)
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await world.store.close()


class SlowHand:
    """Replaces `apply`: a push takes a while. What was pushed, and when the push began, is kept."""

    def __init__(self, world: World, seconds: float) -> None:
        self._apply = world.hands.amphora_driver.apply
        self._seconds = seconds
        self.pushes: list[tuple[float, int]] = []  # when, and how many members it carried
        world.hands.amphora_driver.apply = self.apply  # type: ignore[method-assign]

    async def apply(self, amphora: Amphora, tree: LoadBalancerTree, rendered: Rendered) -> Applied:
        self.pushes.append((time.monotonic(), rendered.text.count("\nmember ")))
        await asyncio.sleep(self._seconds)
        return await self._apply(amphora, tree, rendered)


@asynccontextmanager
async def controlled(world: World) -> AsyncIterator[None]:
    controller = Controller(world.hands, ("amphora",))
    await controller.register()
    running = asyncio.create_task(controller.run())
    try:
        async with asyncio.timeout(30):
            yield
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await world.store.close()


async def _settled(world: World, load_balancer_id: LoadBalancerId) -> LoadBalancerTree:
    while True:
        tree = await world.tree(load_balancer_id)
        assert tree is not None
        if tree.load_balancer.provisioning_status == "ACTIVE":
            return tree
        await asyncio.sleep(0.002)


async def test_a_burst_of_edits_becomes_few_pushes(tmp_path: Path) -> None:
    world = World(tmp_path)
    hand = SlowHand(world, 0.02)
    async with controlled(world):
        load_balancer_id = await world.create(80)
        pool_id = (await _settled(world, load_balancer_id)).pools[0].id
        hand.pushes.clear()
        began = time.monotonic()
        applied = []
        for number in range(100):
            await world.add(load_balancer_id, world.member(load_balancer_id, pool_id, 9000 + number))
            tree = await world.tree(load_balancer_id)
            assert tree is not None
            applied.append(tree.load_balancer.applied_generation)
            await asyncio.sleep(0.004)
        took = time.monotonic() - began
        tree = await _settled(world, load_balancer_id)
        await world.assert_served(load_balancer_id)
    assert tree.load_balancer.applied_generation == 101
    carried = [members for _, members in hand.pushes]
    assert carried == sorted(set(carried))  # each later state once, in order
    assert carried[-1] == 101
    # The first at once; after each push one window, in which nothing is pushed.
    cycle = hand._seconds + SETTINGS.coalesce_window.total_seconds()
    assert hand.pushes[0][0] - began < cycle
    assert len(hand.pushes) <= took / cycle + 2
    # Nobody starves: edits settle while others still come.
    assert len(set(applied)) > 2


async def test_a_single_change_is_pushed_at_once(tmp_path: Path) -> None:
    """Also when it follows another that has settled: who waits for his change does not pay for the window."""
    world = World(tmp_path)
    hand = SlowHand(world, 0)
    window = SETTINGS.coalesce_window.total_seconds()
    waits = []
    async with controlled(world):
        load_balancer_id = await world.create(80)
        pool_id = (await _settled(world, load_balancer_id)).pools[0].id
        for number in range(5):
            edited = time.monotonic()
            await world.add(load_balancer_id, world.member(load_balancer_id, pool_id, 9000 + number))
            await _settled(world, load_balancer_id)
            waits.append(hand.pushes[-1][0] - edited)
    assert sorted(waits)[2] < window / 2


async def test_the_controller_counts_what_it_did(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.taken_ports.add(81)
    registry = CollectorRegistry()
    world.hands = replace(world.hands, metrics=ControllerMetrics(registry))
    async with controlled(world):
        load_balancer_id = await world.create(80)
        pool_id = (await _settled(world, load_balancer_id)).pools[0].id
        await world.add(load_balancer_id, world.member(load_balancer_id, pool_id, 9000))
        await _settled(world, load_balancer_id)
        await world.add(load_balancer_id, world.listener(load_balancer_id, 81, pool_id))
        await _settled(world, load_balancer_id)

        def count(name: str, **labels: str) -> float:
            return registry.get_sample_value(f"frontinus_controller_{name}", labels) or 0.0

        def all_is_counted() -> bool:
            return (
                count("pushes_total", action="reload") + count("pushes_total", action="start") >= 1
                and count("pushes_total", action="runtime") == 1
                and count("reconciles_total", outcome="settled") >= 2
                and count("reconciles_total", outcome="partial") >= 1
                and count("faults_total", code="bind-refused") >= 1
                and count("push_seconds_count") >= 2
            )

        # What is recorded is seen a moment before it is counted.
        async with asyncio.timeout(10):
            while not all_is_counted():  # noqa: ASYNC110 - the facts are numbers
                await asyncio.sleep(0.01)
        while count("leases"):  # noqa: ASYNC110 - the fact is a number
            await asyncio.sleep(0.01)
        await world.delete(load_balancer_id)
        while not count("reconciles_total", outcome="deleted"):  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)


async def test_the_backlog_is_what_is_due_and_free(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.register()
    for port in (80, 81):
        await world.create(port)

    async def backlog() -> int:
        return await world.store.read(lambda tx: leases.count_due(tx, cohort=world.hands.cohort, now=world.now))

    assert await backlog() == 2
    await world.store.transact(
        lambda tx: leases.claim_due(tx, world.owner, world.hands.cohort, world.now, SETTINGS.lease_duration, 1)
    )
    assert await backlog() == 1
    await world.store.close()


async def forget(world: World) -> None:
    """What happens to a controller that is silent for a day, and where a backup is restored."""
    await world.store.transact(lambda tx: tx.run(FORGET, {}))


async def say_alive(world: World, configuration: dict[str, str]) -> None:
    """Another controller of the cohort, which lives."""
    cohort = world.hands.cohort
    record = controllers.Controller(
        id=world.owner,
        driver=cohort.driver,
        driver_version=cohort.driver_version,
        host="elsewhere",
        pid=2,
        provider="amphora",
        capabilities=world.hands.amphora_driver.offers(),
        started_at=world.now,
        seen_at=world.now,
        config_digest=digest_of(configuration),
        configuration=configuration,
    )
    await world.store.transact(lambda tx: controllers.register(tx, record))


def hands_that_hurry(world: World, store: Any = None) -> Hands:
    quick = replace(SETTINGS, keep_alive_interval=timedelta(milliseconds=20))
    return replace(world.hands, settings=quick, store=store or world.hands.store)


async def test_who_was_forgotten_and_has_other_settings_by_now_ends(tmp_path: Path) -> None:
    """As it would not have started: it would undo what the others do."""
    world = World(tmp_path)
    controller = Controller(hands_that_hurry(world), ("amphora",), configuration={"template": "a"})
    await controller.register()
    running = asyncio.create_task(controller.run())
    await forget(world)
    await say_alive(world, {"template": "b"})
    async with asyncio.timeout(20):
        with pytest.raises(Conflict, match="template"):
            await running
    assert [x.host for x in await world.store.read(controllers.running)] == ["elsewhere"]
    await world.store.close()


class FailsOnce:
    """The store, which lets down whoever was told that it is not known and then registers."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.failures = 0
        self._is_forgotten = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def transact(self, work: Any) -> Any:
        if self._is_forgotten and getattr(asyncio.current_task(), "get_name", str)() == "controller-keep-alive":
            self._is_forgotten = False
            self.failures += 1
            raise Bug("nobody thought of it")
        try:
            return await self._store.transact(work)
        except NotFound:
            self._is_forgotten = not self.failures
            raise


async def test_whatever_goes_wrong_a_controller_goes_on_to_say_that_it_lives(tmp_path: Path) -> None:
    world = World(tmp_path)
    store = FailsOnce(world.hands.store)
    controller = Controller(hands_that_hurry(world, store), ("amphora",))
    await controller.register()
    running = asyncio.create_task(controller.run())
    try:
        await forget(world)
        async with asyncio.timeout(20):
            while True:
                known = await world.store.read(controllers.running)
                if store.failures and known:
                    break
                await asyncio.sleep(0.01)
        assert not running.done()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await world.store.close()
