"""Decide the next turn of a rollout: who has arrived, who passed a gate or failed at one, how many go next, and whether it
halts. Pure: facts in, a turn out; callers pass `now`.

Whoever carries out a turn in one transaction and asks again gets to the same end, wherever he was stopped. Next:
controller/rollouts.py, which does; model/rollouts.py for the words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from enum import StrEnum

import msgspec

from frontinus.model.enums import AmphoraStatus, OperatingStatus, ProvisioningStatus
from frontinus.model.ids import LoadBalancerId
from frontinus.model.rollouts import (
    ALL_AT_ONCE,
    IN_FLIGHT,
    TOUCHED,
    Before,
    Facts,
    Gates,
    Move,
    MoveState,
    Rollout,
    RolloutKind,
    RolloutState,
)

MOST_IN_A_TURN = 500
"""Load balancers that are moved in one transaction: it holds their rows for as long as that takes."""

MOST_UNDER_WAY = 1000
"""And so many are under way where there is no bound: enough for the controllers never to wait, and few enough that each has
its receipt soon after it was moved, which is what patience counts from."""

BADNESS: Mapping[OperatingStatus, int] = {OperatingStatus.DEGRADED: 1, OperatingStatus.ERROR: 2}
"""How bad an operating status is; the others are as good as ONLINE here."""


class Fate(StrEnum):
    """What is found of a load balancer that was moved."""

    WAIT = "wait"
    ARRIVED = "arrived"
    PASSED = "passed"
    FAILED = "failed"
    GONE = "gone"


class Judgement(msgspec.Struct, frozen=True):
    fate: Fate
    reason: str = ""


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """What is written next, all of it at once. `move` says how many of those that wait go now, `give_back` how many of those
    that were touched; `reason` belongs to `state`."""

    became: Mapping[MoveState, Mapping[LoadBalancerId, str]]
    move: int = 0
    give_back: int = 0
    state: RolloutState
    reason: str = ""
    leaves_canary: bool = False


def before_of(facts: Facts) -> Before:
    """How it is now, to be compared with later."""
    return Before(
        driver_version=facts.driver_version,
        edited_at=facts.edited_at,
        operating_status=facts.operating_status,
        troubled=is_troubled(facts),
        heard=bool(facts.amphorae) and all(x.seen_at is not None for x in facts.amphorae),
        connections=facts.connections,
        errors=facts.errors,
        digests={x.id: x.digest for x in facts.amphorae if x.digest is not None},
    )


def is_troubled(facts: Facts) -> bool:
    """Whether something is wrong with it, whatever a rollout does."""
    return (
        facts.fault is not None
        or facts.provisioning_status is ProvisioningStatus.ERROR
        or any(x.suspected or x.status is AmphoraStatus.ERROR for x in facts.amphorae)
    )


def judge(move: Move, facts: Facts | None, rollout: Rollout, now: datetime) -> Judgement:
    """What to think of one load balancer that was moved, by the gates."""
    before, gates = move.before or Before(), rollout.gates
    if facts is None or facts.provisioning_status in (ProvisioningStatus.PENDING_DELETE, ProvisioningStatus.DELETED):
        return Judgement(Fate.GONE)
    moved_at = move.moved_at or now
    if rollout.kind is RolloutKind.DRIVER and facts.driver_version != rollout.target:
        said = f"it was taken over by version {facts.driver_version or 'unknown'}: does a controller of {rollout.target} run?"
        return Judgement(Fate.FAILED, said)
    # What a tenant asked since is the tenant's, and so is what comes of it.
    is_ours = not before.troubled and facts.edited_at == before.edited_at
    has_it = _has_it(facts, rollout, moved_at)
    if not has_it:
        if is_ours and facts.fault is not None:
            return Judgement(Fate.FAILED, facts.fault)
        if now - moved_at <= gates.patience:
            return Judgement(Fate.WAIT)
        if not is_ours:
            return Judgement(Fate.PASSED, "was in trouble before, or was edited since")
        return Judgement(Fate.FAILED, f"no receipt within {gates.patience.total_seconds():g} s")
    if not is_ours:
        return Judgement(Fate.PASSED, "" if not before.troubled else "was in trouble before")
    if bad := _bad_sign(facts, before, gates):
        return Judgement(Fate.FAILED, bad)
    arrived_at = move.arrived_at
    if arrived_at is None:
        # Where nothing was pushed and nobody asks to watch there is nothing to wait for.
        changed = rollout.kind is not RolloutKind.DRIVER or _was_pushed(facts, before)
        watched = _soak(rollout) or (gates.heartbeats and before.heard and changed)
        return Judgement(Fate.ARRIVED if watched else Fate.PASSED)
    if now - arrived_at < _soak_of(rollout):
        return Judgement(Fate.WAIT)
    if gates.heartbeats and before.heard and not _is_heard(facts, arrived_at):
        if now - arrived_at <= _soak_of(rollout) + gates.patience:
            return Judgement(Fate.WAIT)
        return Judgement(Fate.FAILED, f"no heartbeat within {gates.patience.total_seconds():g} s")
    return Judgement(Fate.PASSED)


def next_turn(
    rollout: Rollout,
    moves: Iterable[Move],
    facts: Mapping[LoadBalancerId, Facts],
    counts: Mapping[MoveState, int],
    now: datetime,
    *,
    served: bool,
) -> Turn:
    """The next turn of a rollout that is RUNNING or ROLLING_BACK. `moves` are those under way, `counts` how many there are in
    each state, `served` whether a controller lives that serves where they go."""
    if rollout.state is RolloutState.ROLLING_BACK:
        return _turn_back(rollout, moves, facts, counts, served=served)
    became: dict[MoveState, dict[LoadBalancerId, str]] = {}
    for move in moves:
        judged = judge(move, facts.get(move.load_balancer_id), rollout, now)
        if judged.fate is not Fate.WAIT:
            became.setdefault(MoveState(judged.fate.value), {})[move.load_balancer_id] = judged.reason
    under_way = sum(counts.get(x, 0) for x in IN_FLIGHT) - sum(
        len(became.get(x, {})) for x in (MoveState.PASSED, MoveState.FAILED, MoveState.GONE)
    )
    failures = became.get(MoveState.FAILED, {})
    failed = counts.get(MoveState.FAILED, 0) + len(failures)
    turn = Turn(became=became, state=rollout.state)
    # Those that failed before it was resumed were looked at by whoever resumed it.
    if failures and failed > rollout.gates.most_failures:
        which, why = next(iter(failures.items()))
        others = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
        return _with(turn, RolloutState.HALTED, f"load balancer {which}: {why}{others}")
    waiting = counts.get(MoveState.WAITING, 0)
    if not waiting and not under_way:
        return _with(turn, RolloutState.FINISHED, "")
    if not served:
        return (
            _with(turn, RolloutState.HALTED, f"no controller of {rollout.driver} {rollout.target} runs")
            if waiting
            else turn
        )
    if rollout.in_canary:
        # Who was deleted meanwhile proved nothing: another one goes in its place.
        proving = sum(counts.get(x, 0) + len(became.get(x, {})) for x in (MoveState.PASSED, MoveState.FAILED))
        left = max(0, rollout.waves.canary - proving - under_way)
        if left or under_way:
            return msgspec.structs.replace(turn, move=min(left, waiting, MOST_IN_A_TURN))
        turn = msgspec.structs.replace(turn, leaves_canary=True)
    at_once = MOST_UNDER_WAY if rollout.waves.at_once == ALL_AT_ONCE else rollout.waves.at_once
    room = max(0, at_once - under_way)
    return msgspec.structs.replace(turn, move=min(room, waiting, MOST_IN_A_TURN))


def _turn_back(
    rollout: Rollout,
    moves: Iterable[Move],
    facts: Mapping[LoadBalancerId, Facts],
    counts: Mapping[MoveState, int],
    *,
    served: bool,
) -> Turn:
    """All at once: what is bad shall not serve for a moment longer than it must."""
    became: dict[MoveState, dict[LoadBalancerId, str]] = {}
    returning = counts.get(MoveState.RETURNING, 0)
    for move in moves:
        found = facts.get(move.load_balancer_id)
        if found is None or found.provisioning_status in (
            ProvisioningStatus.PENDING_DELETE,
            ProvisioningStatus.DELETED,
        ):
            became.setdefault(MoveState.GONE, {})[move.load_balancer_id] = ""
        elif found.is_settled:
            became.setdefault(MoveState.RETURNED, {})[move.load_balancer_id] = _difference(move.before, found)
    left = returning - sum(len(x) for x in became.values())
    touched = sum(counts.get(x, 0) for x in TOUCHED)
    turn = Turn(became=became, state=rollout.state, reason=rollout.reason)
    if not touched and left <= 0:
        return _with(turn, RolloutState.ROLLED_BACK, rollout.reason)
    return msgspec.structs.replace(turn, give_back=min(touched, MOST_IN_A_TURN) if served else 0)


def _difference(before: Before | None, facts: Facts) -> str:
    """Empty if every amphora runs what it ran before, as far as that can be told."""
    if before is not None and facts.driver_version != before.driver_version:
        return f"it was taken over by version {facts.driver_version or 'unknown'}"
    if before is None or facts.edited_at != before.edited_at:
        return ""
    others = [x.id for x in facts.amphorae if x.id in before.digests and x.digest != before.digests[x.id]]
    return "" if not others else f"amphora {others[0]} has another configuration than before"


def _with(turn: Turn, state: RolloutState, reason: str) -> Turn:
    return msgspec.structs.replace(turn, state=state, reason=reason)


def _has_it(facts: Facts, rollout: Rollout, moved_at: datetime) -> bool:
    match rollout.kind:
        case RolloutKind.DRIVER:
            return facts.is_settled
        case RolloutKind.IMAGE:
            return facts.is_settled and bool(facts.amphorae) and not any(x.unwanted for x in facts.amphorae)
        case RolloutKind.CERTIFICATES | RolloutKind.AUTHORITY:
            return all(x.renew_at is None or x.renew_at > moved_at for x in facts.amphorae)


def _bad_sign(facts: Facts, before: Before, gates: Gates) -> str:
    if facts.fault is not None:
        return facts.fault
    if gates.heartbeats:
        silent = [x.id for x in facts.amphorae if x.suspected]
        if silent:
            return f"amphora {silent[0]} fell silent"
        if BADNESS.get(facts.operating_status, 0) > BADNESS.get(before.operating_status, 0):
            return f"its operating status became {facts.operating_status}, after {before.operating_status}"
    if gates.error_rate is not None:
        # Counters begin anew where amphorae are replaced and listeners go.
        requests, errors = facts.connections - before.connections, facts.errors - before.errors
        total = max(requests, errors)
        if total >= gates.fewest_requests and errors / total > gates.error_rate:
            return f"{errors} of {total} requests were errors"
    return ""


def _was_pushed(facts: Facts, before: Before) -> bool:
    return any(before.digests.get(x.id) != x.digest for x in facts.amphorae)


def _is_heard(facts: Facts, since: datetime) -> bool:
    return all(x.seen_at is not None and x.seen_at >= max(since, x.applied_at or since) for x in facts.amphorae)


def _soak(rollout: Rollout) -> bool:
    return bool(_soak_of(rollout))


def _soak_of(rollout: Rollout) -> timedelta:
    return rollout.waves.canary_soak if rollout.in_canary else rollout.waves.soak
