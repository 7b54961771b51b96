"""What a rollout does next: waves, gates, and that it halts by itself. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from frontinus.controller.rollout_plan import Fate, before_of, judge, next_turn
from frontinus.model.enums import AmphoraStatus, OperatingStatus, ProvisioningStatus
from frontinus.model.ids import AmphoraId, LoadBalancerId
from frontinus.model.rollouts import (
    ALL_AT_ONCE,
    AmphoraFacts,
    Facts,
    Gates,
    Move,
    MoveState,
    Rollout,
    RolloutId,
    RolloutKind,
    RolloutState,
    Selection,
    Waves,
)

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
SECOND = timedelta(seconds=1)

AMPHORA = AmphoraFacts(
    id=AmphoraId("a"),
    status=AmphoraStatus.ALLOCATED,
    digest="old",
    applied_at=NOW - timedelta(hours=1),
    suspected=False,
    seen_at=NOW - SECOND,
    renew_at=NOW + timedelta(days=10),
    unwanted=False,
)
GOOD = Facts(
    driver_version="1",
    edited_at=NOW - timedelta(hours=1),
    generation=3,
    applied_generation=3,
    provisioning_status=ProvisioningStatus.ACTIVE,
    operating_status=OperatingStatus.ONLINE,
    due=False,
    fault=None,
    amphorae=(AMPHORA,),
    connections=1_000,
    errors=0,
)
PUSHED = replace(GOOD, driver_version="2", amphorae=(replace(AMPHORA, digest="new", applied_at=NOW, seen_at=NOW),))


def a_rollout(**changes: Any) -> Rollout:
    made = Rollout(
        id=RolloutId("r"),
        kind=RolloutKind.DRIVER,
        driver="haproxy",
        target="2",
        selection=Selection(),
        waves=Waves(canary=2, canary_soak=10 * SECOND, at_once=5, soak=2 * SECOND),
        gates=Gates(),
        state=RolloutState.RUNNING,
        in_canary=True,
        wave_since=NOW,
        created_at=NOW,
    )
    return replace(made, **changes)


def a_move(number: int = 0, **changes: Any) -> Move:
    made = Move(
        rollout_id=RolloutId("r"),
        load_balancer_id=LoadBalancerId(f"lb-{number}"),
        position=number,
        state=MoveState.MOVED,
        before=before_of(GOOD),
        moved_at=NOW,
    )
    return replace(made, **changes)


ARRIVED = {"state": MoveState.ARRIVED, "arrived_at": NOW}
LONG_AFTER = NOW + timedelta(minutes=10)


@pytest.mark.parametrize(
    "expected, move, facts, now",
    [
        pytest.param(
            Fate.WAIT, {}, replace(GOOD, driver_version="2", due=True), NOW, id="no controller has looked yet"
        ),
        pytest.param(Fate.FAILED, {}, replace(GOOD, driver_version="2", due=True), LONG_AFTER, id="no receipt in time"),
        pytest.param(Fate.ARRIVED, {}, PUSHED, NOW, id="every amphora has it"),
        pytest.param(Fate.FAILED, {}, replace(PUSHED, fault="rejected: no"), NOW, id="a fault"),
        pytest.param(Fate.FAILED, ARRIVED, replace(PUSHED, fault="x: y"), NOW, id="a fault while it is watched"),
        pytest.param(Fate.GONE, {}, None, NOW, id="purged meanwhile"),
        pytest.param(
            Fate.GONE,
            {},
            replace(PUSHED, provisioning_status=ProvisioningStatus.PENDING_DELETE),
            NOW,
            id="to be deleted meanwhile",
        ),
        pytest.param(Fate.WAIT, ARRIVED, PUSHED, NOW + 9 * SECOND, id="watched for its time"),
        pytest.param(
            Fate.WAIT,
            ARRIVED,
            replace(PUSHED, amphorae=(replace(AMPHORA, digest="new"),)),
            NOW + 11 * SECOND,
            id="not heard since",
        ),
        pytest.param(
            Fate.FAILED,
            ARRIVED,
            replace(PUSHED, amphorae=(replace(AMPHORA, digest="new"),)),
            LONG_AFTER,
            id="never heard since",
        ),
        pytest.param(Fate.PASSED, ARRIVED, PUSHED, NOW + 11 * SECOND, id="good all the time"),
        pytest.param(
            Fate.FAILED,
            ARRIVED,
            replace(PUSHED, amphorae=(replace(AMPHORA, suspected=True),)),
            NOW + SECOND,
            id="an amphora fell silent",
        ),
        pytest.param(
            Fate.FAILED, ARRIVED, replace(PUSHED, operating_status=OperatingStatus.DEGRADED), NOW, id="members fail"
        ),
        pytest.param(
            Fate.FAILED, ARRIVED, replace(PUSHED, connections=1_100, errors=6), NOW, id="six errors of a hundred"
        ),
        pytest.param(
            Fate.WAIT, ARRIVED, replace(PUSHED, connections=1_100, errors=5), NOW, id="five errors of a hundred"
        ),
        pytest.param(Fate.WAIT, ARRIVED, replace(PUSHED, connections=1_010, errors=9), NOW, id="too few to tell"),
        pytest.param(Fate.FAILED, {}, GOOD, NOW, id="taken over by another version"),
        pytest.param(
            Fate.PASSED,
            {"before": replace(before_of(GOOD), troubled=True)},
            replace(PUSHED, operating_status=OperatingStatus.ERROR),
            NOW,
            id="was in trouble before",
        ),
        pytest.param(
            Fate.WAIT, {}, replace(PUSHED, edited_at=NOW, due=True, fault="invalid: x"), NOW, id="a tenant's own fault"
        ),
    ],
)
def test_a_load_balancer_is_judged_by_the_gates(
    expected: Fate, move: dict[str, Any], facts: Facts | None, now: datetime
) -> None:
    assert expected is judge(a_move(**move), facts, a_rollout(), now).fate


def test_nothing_is_watched_where_nobody_asks_for_it() -> None:
    rollout = a_rollout(waves=Waves(canary=0, at_once=ALL_AT_ONCE, soak=timedelta(0)), in_canary=False)
    assert judge(a_move(), replace(PUSHED, amphorae=GOOD.amphorae), rollout, NOW).fate is Fate.PASSED, "not pushed"
    assert judge(a_move(), PUSHED, rollout, NOW).fate is Fate.ARRIVED, "pushed, and heartbeats are waited for"
    unheard = replace(rollout, gates=Gates(heartbeats=False))
    assert judge(a_move(), PUSHED, unheard, NOW).fate is Fate.PASSED


class World:
    """A fleet whose controllers carry out at once what is asked, and a rollout in it. Time goes by in seconds."""

    def __init__(self, count: int, rollout: Rollout, bad: Mapping[int, Facts] | None = None) -> None:
        self.rollout, self.now, self.bad = rollout, NOW, dict(bad or {})
        self.moves = [a_move(n, state=MoveState.WAITING, before=None, moved_at=None) for n in range(count)]
        self.most_under_way = 0
        self.pushed: Counter[str] = Counter()

    def facts(self, move: Move) -> Facts:
        if move.state in (MoveState.WAITING, MoveState.RETURNING, MoveState.RETURNED):
            return GOOD
        found = self.bad.get(move.position, PUSHED)
        return replace(found, amphorae=tuple(replace(x, seen_at=self.now) for x in found.amphorae))

    def step(self) -> None:
        under_way = [x for x in self.moves if x.state in (MoveState.MOVED, MoveState.ARRIVED, MoveState.RETURNING)]
        self.most_under_way = max(self.most_under_way, len(under_way))
        counts = Counter(x.state for x in self.moves)
        facts = {x.load_balancer_id: self.facts(x) for x in self.moves}
        turn = next_turn(self.rollout, under_way, facts, counts, self.now, served=True)
        for state, reasons in turn.became.items():
            self.write(reasons, state=state, **({"arrived_at": self.now} if state is MoveState.ARRIVED else {}))
        waiting = [x.load_balancer_id for x in self.moves if x.state is MoveState.WAITING][: turn.move]
        self.pushed.update(waiting)
        self.write(waiting, state=MoveState.MOVED, before=before_of(GOOD), moved_at=self.now)
        back = [x.load_balancer_id for x in self.moves if x.before is not None and x.state is not MoveState.RETURNED]
        self.write(back[: turn.give_back], state=MoveState.RETURNING)
        self.rollout = replace(
            self.rollout,
            state=turn.state,
            reason=turn.reason,
            in_canary=self.rollout.in_canary and not turn.leaves_canary,
        )
        self.now += SECOND

    def write(self, ids: Any, **changes: Any) -> None:
        self.moves = [replace(x, **changes) if x.load_balancer_id in ids else x for x in self.moves]

    def run(self) -> RolloutState:
        for _ in range(1_000):
            if self.rollout.state not in (RolloutState.RUNNING, RolloutState.ROLLING_BACK):
                break
            self.step()
        return self.rollout.state

    def count(self, state: MoveState) -> int:
        return sum(x.state is state for x in self.moves)


def test_a_canary_goes_first_and_then_no_more_than_may_at_a_time() -> None:
    world = World(30, a_rollout())
    for _ in range(9):
        world.step()
        assert world.count(MoveState.WAITING) == 28, "the canary is watched for ten seconds"
    assert world.run() is RolloutState.FINISHED
    assert world.count(MoveState.PASSED) == 30
    assert world.most_under_way == 5
    assert set(world.pushed.values()) == {1}


def test_all_at_once_is_one_wave() -> None:
    everything = Waves(canary=0, canary_soak=timedelta(0), at_once=ALL_AT_ONCE, soak=timedelta(0))
    world = World(1_300, a_rollout(waves=everything, in_canary=False, gates=Gates(heartbeats=False)))
    assert world.run() is RolloutState.FINISHED
    assert world.now - NOW < 10 * SECOND
    assert world.most_under_way == 500, "whoever waits for long for a controller would seem to have no receipt"


@pytest.mark.parametrize("bad", [0, 1, 20], ids=["the first canary", "another canary", "one of the rest"])
def test_the_first_bad_sign_halts_it(bad: int) -> None:
    world = World(30, a_rollout(), {bad: replace(PUSHED, operating_status=OperatingStatus.ERROR)})
    assert world.run() is RolloutState.HALTED
    assert f"lb-{bad}: its operating status became ERROR" in world.rollout.reason
    assert world.count(MoveState.WAITING) >= 30 - max(2, bad + 5)


def test_so_many_failures_as_are_allowed_halt_nothing() -> None:
    bad = {n: replace(PUSHED, fault="x: y") for n in (4, 9)}
    assert World(30, a_rollout(gates=Gates(most_failures=2)), bad).run() is RolloutState.FINISHED
    assert World(30, a_rollout(gates=Gates(most_failures=1)), bad).run() is RolloutState.HALTED


def test_a_rollback_takes_back_what_was_touched_and_nothing_else() -> None:
    world = World(30, a_rollout(), {9: replace(PUSHED, fault="x: y")})
    assert world.run() is RolloutState.HALTED
    touched = 30 - world.count(MoveState.WAITING)
    world.rollout = replace(world.rollout, state=RolloutState.ROLLING_BACK)
    assert world.run() is RolloutState.ROLLED_BACK
    assert world.count(MoveState.RETURNED) == touched
    assert world.count(MoveState.WAITING) == 30 - touched


def test_it_halts_where_nobody_serves_the_version() -> None:
    turn = next_turn(a_rollout(), [], {}, {MoveState.WAITING: 3}, NOW, served=False)
    assert turn.state is RolloutState.HALTED
    assert "no controller of haproxy 2 runs" in turn.reason
    assert turn.move == 0
