"""A rollout from its first row to its last: two versions of a driver, real rows, amphorae that count what is pushed.

Whoever is killed, at every moment, and whichever cohort he is of: nothing is pushed twice, and nothing is forgotten."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import ClassVar

import pytest
from msgspec.structs import replace

from frontinus.cli.rollout_preview import plan_all
from frontinus.controller.attendance import Attendance
from frontinus.controller.hands import Hands
from frontinus.controller.previewer import Previewer
from frontinus.controller.reconcile import reconcile
from frontinus.controller.renewals import Renewals
from frontinus.controller.rollouts import Rollouts
from frontinus.drivers.amphora.interface import Rendered
from frontinus.model.certificates import NO_SECRETS, Secrets
from frontinus.model.enums import Kind, OperatingStatus
from frontinus.model.errors import LeaseLost, Rejected
from frontinus.model.ids import AmphoraId, ControllerId, LoadBalancerId, new_id
from frontinus.model.rollouts import (
    Gates,
    MoveState,
    Rollout,
    RolloutId,
    RolloutKind,
    RolloutState,
    Selection,
    Waves,
    in_turn,
)
from frontinus.model.tree import Amphora, LoadBalancerTree
from frontinus.store import cohorts, controllers, health, leases, rollouts
from frontinus.store.engine import Transaction
from frontinus.testing.fake_amphora import FakeAmphoraDriver, _digest
from frontinus.testing.faults import Killed, When

from tests.integration.controller.world import SETTINGS, World

pytestmark = pytest.mark.integration

SECOND = timedelta(seconds=1)
QUICK = Waves(canary=1, canary_soak=2 * SECOND, at_once=2, soak=SECOND)
NOTHING_ELSE = Gates(heartbeats=False)


class Second(FakeAmphoraDriver):
    """The version after, which renders a line more. What it cannot speak of is the test's to say."""

    version: ClassVar[str] = "2.0.0"
    refuses: ClassVar[frozenset[str]] = frozenset()

    def render(self, tree: LoadBalancerTree, amphora: Amphora, secrets: Secrets = NO_SECRETS) -> Rendered:
        if tree.id in self.refuses:
            raise Rejected("name", "this version has no words for it")
        return self._with_line(super().render(tree, amphora, secrets))

    def _with_line(self, rendered: Rendered) -> Rendered:
        text = f"{rendered.text}tuned for two\n"
        return replace(rendered, text=text, digest=_digest(text, rendered.files))


class SameText(Second):
    """A version that renders what the one before does."""

    def _with_line(self, rendered: Rendered) -> Rendered:
        return rendered


class NewAgentsOnly(Second):
    """A version that no amphora of today can be driven by."""

    amphora_versions: ClassVar[str] = ">=7"


class Cohorts:
    """Controllers of both versions in one world. Each is one that may be killed; another one comes."""

    def __init__(self, world: World, second: type[Second] = Second) -> None:
        self.world = world
        self.first = world.hands
        driver = second(world.places, world.taken_ports, world.faults, world.unspeakable, world.vouching)
        self.second: Hands = dataclasses.replace(world.hands, amphora_driver=driver)
        self.pushed: dict[AmphoraId, list[str]] = {}
        self.attendance = Attendance()
        self.another_mover()

    def another_mover(self) -> Rollouts:
        self.owner = ControllerId(new_id())
        self.rollouts = Rollouts(self.owner, self.first, self.attendance)
        return self.rollouts

    async def say_alive(self, *which: Hands) -> None:
        for hands in which or (self.first, self.second):
            record = controllers.Controller(
                id=ControllerId(new_id()),
                driver=hands.cohort.driver,
                driver_version=hands.cohort.driver_version,
                host="here",
                pid=1,
                provider="amphora",
                capabilities=hands.amphora_driver.capabilities,
                started_at=self.world.now,
                seen_at=self.world.now,
            )
            await self.world.store.transact(partial(controllers.register, arrived=record))

    async def look(self, *who: Hands) -> None:
        """Five seconds later these say that they live, and the mover, who is of the first version, looks who is there."""
        self.world.now += timedelta(seconds=5)
        await self.say_alive(*who)
        self.attendance.look(await self.world.store.read(cohorts.all_cohorts), self.world.now)

    async def fleet(self, count: int) -> list[LoadBalancerId]:
        """Load balancers that the first version serves."""
        await self.say_alive(self.first)
        made = [await self.world.create(8000 + n) for n in range(count)]
        await self.world.converge()
        await self.say_alive(self.second)
        self.forget_pushes()
        return made

    def forget_pushes(self) -> None:
        for place in self.world.places.values():
            place.history.clear()

    def pushes(self) -> list[list[str]]:
        return [x.history for x in self.world.places.values()]

    def texts(self) -> list[str]:
        return ["" if x.runs is None else x.runs.text.splitlines()[-1] for x in self.world.places.values()]

    async def start(self, waves: Waves = QUICK, gates: Gates = NOTHING_ELSE, **changes: object) -> Rollout:
        now, driver = self.world.now, self.second.cohort.driver
        rollout = Rollout(
            id=RolloutId(new_id()),
            kind=RolloutKind.DRIVER,
            driver=driver,
            target=self.second.cohort.driver_version,
            selection=Selection(),
            waves=waves,
            gates=gates,
            state=RolloutState.RUNNING,
            in_canary=waves.canary > 0,
            wave_since=now,
            created_at=now,
            active_driver=driver,
        )

        def write(tx: Transaction) -> None:
            found = rollouts.candidates(tx, driver, rollout.selection)
            turns = in_turn(((x.load_balancer_id, x.troubled) for x in found), 100)
            rollouts.add(tx, replace(rollout, **changes), turns)

        await self.world.store.transact(write)
        return rollout

    async def step(self) -> None:
        """A second of everybody's life. Whoever is killed in it is another one in the next."""
        try:
            await self.rollouts.turn()
            for hands in (self.first, self.second):
                await self._converge(hands)
        except Killed:
            self.world.owner = ControllerId(new_id())
            self.another_mover()
        except LeaseLost:
            self.another_mover()
        self.world.now += SECOND

    async def _converge(self, hands: Hands) -> None:
        world, now = self.world, self.world.now
        claimed = await world.store.transact(
            lambda tx: leases.claim_due(tx, world.owner, hands.cohort, now, SETTINGS.lease_duration, 10)
        )
        for lease in claimed:
            await reconcile(lease, hands)
            await world.store.transact(partial(leases.release, lease=lease))

    async def run(self, rollout: Rollout, until: Callable[[Rollout], bool] | None = None, steps: int = 200) -> Rollout:
        """Until it is over or halted, or until `until`."""
        for number in range(steps):
            if number % 20 == 0:
                await self.say_alive()
            found = await self.world.store.read(partial(rollouts.get, rollout_id=rollout.id))
            over = found.state not in (RolloutState.RUNNING, RolloutState.ROLLING_BACK)
            if over or (until is not None and until(found)):
                return found
            await self.step()
        raise AssertionError(f"it does not end: {await self.counts(rollout)}")

    async def counts(self, rollout: Rollout) -> dict[MoveState, int]:
        return await self.world.store.read(partial(rollouts.counts, rollout_id=rollout.id))

    async def versions(self) -> set[str]:
        found = await self.world.store.read(lambda tx: rollouts.candidates(tx, "fake", Selection()))
        return {x.driver_version for x in found}

    async def change(self, rollout: Rollout, to: RolloutState) -> None:
        def write(tx: Transaction) -> None:
            rollouts.change_state(tx, rollouts.get(tx, rollout.id), to, "", self.world.now)

        await self.world.store.transact(write)


@pytest.fixture
async def both(tmp_path: Path) -> AsyncIterator[Cohorts]:
    world = World(tmp_path)
    yield Cohorts(world)
    await world.store.close()


async def test_everything_is_moved_and_each_amphora_is_pushed_to_once(both: Cohorts) -> None:
    await both.fleet(6)
    rollout = await both.start()
    assert (await both.run(rollout)).state is RolloutState.FINISHED
    assert await both.counts(rollout) == {MoveState.PASSED: 6}
    assert await both.versions() == {"2.0.0"}
    assert [len(x) for x in both.pushes()] == [1] * 6
    assert set(both.texts()) == {"tuned for two"}


async def test_what_renders_the_same_is_not_pushed(tmp_path: Path) -> None:
    both = Cohorts(World(tmp_path), SameText)
    await both.fleet(4)
    rollout = await both.start()
    assert (await both.run(rollout)).state is RolloutState.FINISHED
    assert await both.versions() == {"2.0.0"}
    assert both.pushes() == [[]] * 4
    await both.world.store.close()


async def test_a_version_that_cannot_carry_the_canary_halts_there_and_is_taken_back(both: Cohorts) -> None:
    made = await both.fleet(5)
    Second.refuses = frozenset(made)
    try:
        rollout = await both.start()
        halted = await both.run(rollout)
        assert halted.state is RolloutState.HALTED
        assert "this version has no words for it" in halted.reason
        assert await both.counts(rollout) == {MoveState.FAILED: 1, MoveState.WAITING: 4}
        await both.change(rollout, RolloutState.ROLLING_BACK)
        assert (await both.run(rollout)).state is RolloutState.ROLLED_BACK
    finally:
        Second.refuses = frozenset()
    assert await both.versions() == {"1.0.0"}
    assert both.pushes() == [[]] * 5, "what never had it needs no push to be without"
    assert {(await both.world.tree(x)).load_balancer.fault for x in made} == {None}  # type: ignore[union-attr]


async def test_a_status_that_grows_worse_halts_it_and_a_rollback_gives_back_what_was(both: Cohorts) -> None:
    await both.fleet(4)
    before = sorted(both.texts())
    rollout = await both.start(gates=Gates())
    await both.run(rollout, lambda x: not x.in_canary)
    await both.step()
    moved = [x for x in await both.world.store.read(partial(rollouts.moves, rollout_id=rollout.id)) if x.moved_at]
    assert 1 < len(moved) < 4
    worse: dict[str, OperatingStatus] = {moved[-1].load_balancer_id: OperatingStatus.ERROR}
    await both.world.store.transact(lambda tx: health.write_operating_statuses(tx, {Kind.LOAD_BALANCER: worse}))
    halted = await both.run(rollout)
    assert halted.reason.endswith("its operating status became ERROR, after OFFLINE")
    touched = sum(bool(x) for x in both.pushes())
    assert touched == len(moved)
    await both.change(rollout, RolloutState.ROLLING_BACK)
    assert (await both.run(rollout)).state is RolloutState.ROLLED_BACK
    assert await both.counts(rollout) == {MoveState.RETURNED: touched, MoveState.WAITING: 4 - touched}
    assert sorted(both.texts()) == before
    assert sorted(len(x) for x in both.pushes()) == sorted([2] * touched + [0] * (4 - touched))


async def test_paused_it_moves_nobody_and_resumed_it_goes_on(both: Cohorts) -> None:
    await both.fleet(5)
    rollout = await both.start()
    await both.step()
    await both.change(rollout, RolloutState.PAUSED)
    for _ in range(20):
        await both.step()
    assert sum(bool(x) for x in both.pushes()) == 1
    await both.change(rollout, RolloutState.RUNNING)
    await both.world.store.transact(lambda tx: rollouts.look_anew(tx, rollout.id, both.world.now, failed_too=False))
    assert (await both.run(rollout)).state is RolloutState.FINISHED
    assert [len(x) for x in both.pushes()] == [1] * 5


async def test_it_halts_when_nobody_serves_the_version_any_more(both: Cohorts) -> None:
    await both.fleet(5)
    rollout = await both.start()
    await both.step()
    for _ in range(8):
        await both.look(both.first)
    await both.another_mover().turn()
    found = await both.world.store.read(partial(rollouts.get, rollout_id=rollout.id))
    assert (found.state, found.reason) == (RolloutState.HALTED, "no controller of fake 2.0.0 runs")


@pytest.mark.parametrize("first", ["turn", "look"])
async def test_it_does_not_halt_because_nobody_could_write(both: Cohorts, first: str) -> None:
    await both.fleet(5)
    rollout = await both.start()
    await both.look(both.first, both.second)
    both.world.now += timedelta(minutes=1)
    if first == "look":
        await both.look(both.first)
    await both.another_mover().turn()
    found = await both.world.store.read(partial(rollouts.get, rollout_id=rollout.id))
    assert found.state is RolloutState.RUNNING
    assert (await both.run(rollout)).state is RolloutState.FINISHED


async def test_who_is_deleted_meanwhile_is_gone_and_halts_nothing(both: Cohorts) -> None:
    made = await both.fleet(4)
    rollout = await both.start()
    await both.world.delete(made[0])
    assert (await both.run(rollout)).state is RolloutState.FINISHED
    assert await both.counts(rollout) == {MoveState.PASSED: 3, MoveState.GONE: 1}


@pytest.mark.parametrize("kind", [RolloutKind.IMAGE, RolloutKind.CERTIFICATES])
async def test_amphorae_are_replaced_or_given_certificates_in_waves(both: Cohorts, kind: RolloutKind) -> None:
    await both.fleet(3)
    before = set(both.world.places)
    rollout = await both.start(kind=kind)
    renewals = Renewals(both.world.owner, both.first)
    for _ in range(40):
        await both.say_alive()
        await both.step()
        await renewals.look()
        counts = await both.counts(rollout)
        assert counts.get(MoveState.MOVED, 0) + counts.get(MoveState.ARRIVED, 0) <= 2
    assert (await both.run(rollout)).state is RolloutState.FINISHED
    assert await both.counts(rollout) == {MoveState.PASSED: 3}
    if kind is RolloutKind.IMAGE:
        assert set(both.world.places).isdisjoint(before)
    else:
        assert set(both.world.places) == before
        assert both.pushes() == [[]] * 3
    assert await both.versions() == {"1.0.0"}


@pytest.mark.parametrize("stride", [13, pytest.param(1, marks=pytest.mark.long)], ids=["some", "all"])
@pytest.mark.parametrize("when", [When.BEFORE, When.AFTER])
@pytest.mark.parametrize("backwards", [False, True], ids=["forwards", "back"])
async def test_killed_at_every_moment(backwards: bool, when: When, stride: int, tmp_path: Path) -> None:
    """Each call of anything outside is once the last of whoever makes it."""

    async def story(directory: Path, moment: int | None) -> int:
        directory.mkdir()
        both = Cohorts(World(directory))
        await both.fleet(3)
        rollout = await both.start(Waves(canary=1, canary_soak=SECOND, at_once=2, soak=timedelta(0)))
        if backwards:
            await both.run(rollout)
            both.forget_pushes()
            await both.change(rollout, RolloutState.ROLLING_BACK)
        before = both.world.faults.total
        if moment is not None:
            both.world.faults.fail(None, moment, when=when, error=Killed())
        found = await both.run(rollout)
        assert found.state is (RolloutState.ROLLED_BACK if backwards else RolloutState.FINISHED), moment
        changes = [[y for y in x if y != "unchanged"] for x in both.pushes()]
        assert [len(x) for x in changes] == [1] * 3, f"killed at call {moment}: {both.pushes()}"
        assert await both.versions() == {"1.0.0" if backwards else "2.0.0"}
        await both.world.store.close()
        return both.world.faults.total - before

    count = await story(tmp_path / "undisturbed", None)
    assert count > 12
    for moment in range(1, count + 1, stride):
        await story(tmp_path / str(moment), moment)


@pytest.mark.parametrize(
    "second,action,line",
    [
        pytest.param(Second, "reload", "+tuned for two", id="another"),
        pytest.param(SameText, "unchanged", "", id="same"),
    ],
)
async def test_a_plan_compares_what_both_versions_render(
    second: type[Second], action: str, line: str, tmp_path: Path
) -> None:
    both = Cohorts(World(tmp_path), second)
    both.world.now = datetime.now(UTC)  # of the command, which is another process
    made = await both.fleet(2)
    answering = [asyncio.create_task(Previewer(both.world.owner, x).run()) for x in (both.first, both.second)]
    try:
        plans = await plan_all(both.world.store, "fake", "2.0.0", made)
    finally:
        for task in answering:
            task.cancel()
        await asyncio.gather(*answering, return_exceptions=True)
        await both.world.store.close()
    assert [x.action for x in plans] == [action] * 2
    assert all(line in x.diff for x in plans)
