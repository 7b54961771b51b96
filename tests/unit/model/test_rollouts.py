"""Rollouts: the table of their states, and who is chosen."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from frontinus.model.errors import Conflict
from frontinus.model.ids import LoadBalancerId
from frontinus.model.rollouts import (
    ENDED,
    MAY_FOLLOW,
    Gates,
    MoveState,
    Rollout,
    RolloutId,
    RolloutKind,
    RolloutState,
    Selection,
    Waves,
    follow,
    in_turn,
    time_left,
)

NOW = datetime(2026, 3, 4, tzinfo=UTC)
MANY = [(LoadBalancerId(str(UUID(int=n, version=4))), False) for n in range(2_000)]


def test_ten_percent_are_among_fifty_and_are_about_ten() -> None:
    few, half, everybody = (in_turn(MANY, percent) for percent in (10, 50, 100))
    assert half[: len(few)] == few
    assert everybody[: len(half)] == half
    assert 150 < len(few) < 250
    assert len(everybody) == len(MANY)
    assert in_turn(reversed(MANY), 100) == everybody, "the turns do not depend on the order of rows"


def test_who_is_in_trouble_comes_last() -> None:
    assert in_turn([(MANY[0][0], True), *MANY[1:]], 100)[-1] == MANY[0][0]


def test_an_end_is_an_end_but_for_a_rollback() -> None:
    for state in ENDED:
        assert set(MAY_FOLLOW[state]) <= {RolloutState.ROLLING_BACK}


def test_an_illegal_move_names_both_states() -> None:
    with pytest.raises(Conflict, match="it is rolled-back, and cannot become running"):
        follow(RolloutState.ROLLED_BACK, RolloutState.RUNNING)


@pytest.mark.parametrize(
    "expected, state, counts",
    [
        pytest.param(90, RolloutState.RUNNING, {MoveState.PASSED: 11, MoveState.WAITING: 90}, id="at its pace"),
        pytest.param(None, RolloutState.RUNNING, {MoveState.PASSED: 1, MoveState.WAITING: 90}, id="no pace yet"),
        pytest.param(None, RolloutState.PAUSED, {MoveState.PASSED: 11, MoveState.WAITING: 90}, id="paused"),
        pytest.param(
            5,
            RolloutState.ROLLING_BACK,
            {MoveState.RETURNED: 20, MoveState.PASSED: 4, MoveState.RETURNING: 6},
            id="back",
        ),
    ],
)
def test_time_left(expected: float | None, state: RolloutState, counts: dict[MoveState, int]) -> None:
    rollout = Rollout(
        id=RolloutId("r"),
        kind=RolloutKind.DRIVER,
        driver="haproxy",
        target="2",
        selection=Selection(),
        waves=Waves(canary=1),
        gates=Gates(),
        state=state,
        in_canary=False,
        wave_since=NOW,
        created_at=NOW,
    )
    left = time_left(counts, rollout, NOW + timedelta(seconds=10))
    assert expected == (None if left is None else left.total_seconds())
