"""Move the rollout of this driver on, while this controller holds its lease.

Each turn is one transaction: read what became of those under way, decide (rollout_plan.py), write all of it. Whoever is
killed leaves either the whole turn or nothing of it, and whoever takes the lease next goes on from the rows. Nothing is
pushed here: load balancers are made due, and the controllers of their cohort converge them.

Next: rollout_plan.py, store/rollouts.py."""

from __future__ import annotations

import asyncio
import random
import time
from datetime import datetime
from functools import partial

import structlog

from frontinus.controller.attendance import Attendance
from frontinus.controller.hands import Hands
from frontinus.controller.rollout_plan import MOST_IN_A_TURN, Turn, before_of, next_turn
from frontinus.model.errors import LeaseLost, WorldError
from frontinus.model.ids import ControllerId, LoadBalancerId
from frontinus.model.rollouts import TOUCHED, Move, MoveState, Rollout, RolloutKind, RolloutState
from frontinus.store import cohorts, rollouts
from frontinus.store.engine import Transaction
from frontinus.store.rollouts import Hold

log = structlog.get_logger()

SHORTEST_PAUSE_S = 0.2
"""Between two turns of a rollout that is under way."""

SHARE_OF_TIME = 2
"""A turn is followed by a pause of at least so many times as long as it took: the same processor converges."""

ACTIVE = (RolloutState.RUNNING, RolloutState.ROLLING_BACK)


class Rollouts:
    """One per controller. One owner: its own loop."""

    def __init__(self, owner: ControllerId, hands: Hands, attendance: Attendance | None = None) -> None:
        """`attendance` is of this controller; without one nobody's silence counts."""
        self._owner = owner
        self._hands = hands
        self._attendance = attendance or Attendance()
        self._hold: Hold | None = None

    async def run(self) -> None:
        """Look until cancelled."""
        idle = self._hands.settings.rollout_interval.total_seconds()
        while True:
            began = time.perf_counter()
            moving = False
            try:
                moving = await self.turn()
            except LeaseLost as lost:
                self._hold = None
                log.info("rollout is another controller's", reason=str(lost))
            except WorldError as trouble:
                log.warning("rollouts put off", reason=str(trouble))
            except Exception:  # the loop protects its next turn
                log.exception("rollouts failed")
            took = time.perf_counter() - began
            await asyncio.sleep(
                max(SHORTEST_PAUSE_S, took * SHARE_OF_TIME) if moving else idle * (0.75 + random.random() / 2)
            )

    async def turn(self) -> bool:
        """Take one turn, if there is a rollout that is ours to move; whether there was."""
        store, now = self._hands.store, self._hands.now()
        active = await store.read(partial(rollouts.active, driver=self._hands.amphora_driver.name))
        if active is None or active.state not in ACTIVE:
            self._hold = None
            return False
        if self._hold is None or self._hold.rollout_id != active.id:
            duration = self._hands.settings.lease_duration
            self._hold = await store.transact(
                partial(rollouts.take, rollout_id=active.id, owner=self._owner, now=now, duration=duration)
            )
            if self._hold is None:
                return False
            log.info("rollout taken", rollout_id=active.id, state=active.state.value)
        before, after = await store.transact(partial(self._turn, hold=self._hold, now=now))
        if after.state is not before.state:
            say = log.warning if after.state is RolloutState.HALTED else log.info
            say("rollout went on", rollout_id=before.id, state=after.state.value, reason=after.reason)
        return True

    def _turn(self, tx: Transaction, hold: Hold, now: datetime) -> tuple[Rollout, Turn]:
        rollout = rollouts.held(tx, hold, now, self._hands.settings.lease_duration)
        if rollout.state not in ACTIVE:  # somebody paused it just now
            return rollout, Turn(became={}, state=rollout.state)
        under_way = _under_way(tx, rollout, now)
        facts = rollouts.facts(tx, [x.load_balancer_id for x in under_way])
        known = self._attendance.of(cohorts.all_cohorts(tx), now)
        versions = {x.driver_version for x in known if x.driver == rollout.driver and x.is_served(now)}
        going_back = rollout.state is RolloutState.ROLLING_BACK
        served = going_back or rollout.kind is not RolloutKind.DRIVER or rollout.target in versions
        turn = next_turn(rollout, under_way, facts, rollouts.counts(tx, rollout.id), now, served=served)
        rollouts.record(tx, rollout.id, turn.became, now)
        if turn.leaves_canary:
            rollouts.leave_canary(tx, rollout.id, now)
        if turn.move:
            _move(tx, rollout, turn.move, now)
        if turn.give_back:
            _give_back(tx, rollout, turn.give_back, versions, now)
        if turn.state is not rollout.state:
            rollouts.change_state(tx, rollout, turn.state, turn.reason, now)
        return rollout, turn


def _under_way(tx: Transaction, rollout: Rollout, now: datetime) -> list[Move]:
    """Whom to judge in this turn: no more than a transaction should hold."""
    overdue = now - rollout.gates.patience
    if rollout.state is RolloutState.ROLLING_BACK:
        return rollouts.with_news(tx, rollout.id, MoveState.RETURNING, overdue, MOST_IN_A_TURN * 2)
    moved = (
        rollouts.in_state(tx, rollout.id, MoveState.MOVED, MOST_IN_A_TURN * 2)
        if rollout.kind in (RolloutKind.CERTIFICATES, RolloutKind.AUTHORITY)  # these are not made due
        else rollouts.with_news(tx, rollout.id, MoveState.MOVED, overdue, MOST_IN_A_TURN * 2)
    )
    return [*moved, *rollouts.in_state(tx, rollout.id, MoveState.ARRIVED, MOST_IN_A_TURN * 4)]


def _move(tx: Transaction, rollout: Rollout, count: int, now: datetime) -> None:
    waiting = rollouts.in_state(tx, rollout.id, MoveState.WAITING, count)
    facts = rollouts.facts(tx, [x.load_balancer_id for x in waiting])
    gone: dict[LoadBalancerId, str] = {x.load_balancer_id: "" for x in waiting if x.load_balancer_id not in facts}
    rollouts.record(tx, rollout.id, {MoveState.GONE: gone} if gone else {}, now)
    rollouts.move(tx, rollout, {x: before_of(found) for x, found in facts.items()}, now)


def _give_back(tx: Transaction, rollout: Rollout, count: int, versions: set[str], now: datetime) -> None:
    """Only to versions of which a controller lives: nobody would serve them otherwise."""
    for state in TOUCHED:
        touched = rollouts.in_state(tx, rollout.id, state, count)
        rollouts.give_back(
            tx, rollout, [x for x in touched if x.before is not None and x.before.driver_version in versions], now
        )
