"""Rollouts and their load balancers, and what of those a rollout looks at.

Whoever moves a rollout holds its lease, and each of his writes is fenced by it as those on load balancers are; people change
its state by compare-and-set beside him. Next: controller/rollouts.py."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cache
from typing import Any

import msgspec
from msgspec.structs import replace
from sqlalchemy import and_, bindparam, func, insert, or_, select, update

from frontinus.model.cohorts import CohortName
from frontinus.model.enums import AmphoraStatus, OperatingStatus, ProvisioningStatus
from frontinus.model.errors import Conflict, LeaseLost, NotFound
from frontinus.model.ids import AmphoraId, ControllerId, LoadBalancerId
from frontinus.model.rollouts import (
    ENDED,
    IN_FLIGHT,
    TOUCHED,
    AmphoraFacts,
    Before,
    Facts,
    Move,
    MoveState,
    Rollout,
    RolloutId,
    RolloutKind,
    RolloutState,
    Selection,
    follow,
)
from frontinus.model.tree import Fault, Receipt
from frontinus.store import cohorts, schema
from frontinus.store.engine import Transaction
from frontinus.store.health import mark_due
from frontinus.store.rows import Shape, from_microseconds, to_json, to_microseconds
from frontinus.store.statement import Statement, Value, chunks, is_one_of, padded, padded_size
from frontinus.store.trees import inserts, update_of

_MOST_IDS_AT_ONCE = 512

_SHAPE = Shape(Rollout, schema.rollout)
_MOVE_SHAPE = Shape(Move, schema.rollout_load_balancer, renamed={"before": "state_before"})
_t, _m = schema.rollout.c, schema.rollout_load_balancer.c
_lb, _a = schema.load_balancer.c, schema.amphora.c
_s, _l = schema.listener_statistics.c, schema.listener.c
_COLUMNS = [_t[name] for name in _SHAPE.columns]
_MOVE_COLUMNS = [_m[name] for name in _MOVE_SHAPE.columns]

_LEASE_VALUES = {"lease_owner": None, "lease_epoch": 0, "lease_expires_at": None}
_INSERT = Statement(
    insert(schema.rollout).values({name: bindparam(name) for name in (*_SHAPE.columns, *_LEASE_VALUES)})
)
_INSERT_MOVE = inserts(_MOVE_SHAPE, _MOVE_SHAPE.columns)
_SELECT_ALL = Statement(select(*_COLUMNS).order_by(_t.created_at.desc(), _t.id.desc()).limit(bindparam("most")))
_SELECT_ONE = Statement(select(*_COLUMNS).where(_t.id == bindparam("which")))
_SELECT_ACTIVE = Statement(select(*_COLUMNS).where(_t.active_driver == bindparam("driver")))
_CHANGE_STATE = Statement(
    update(schema.rollout)
    .where(_t.id == bindparam("which"), _t.state == bindparam("state_before"))
    .values(
        state=bindparam("state_after"),
        reason=bindparam("why"),
        wave_since=bindparam("since"),
        ended_at=bindparam("end"),
        active_driver=bindparam("active"),
    )
)
_FREE = or_(_t.lease_owner.is_(None), _t.lease_owner == bindparam("owner"), _t.lease_expires_at <= bindparam("now"))
_TAKE = Statement(
    update(schema.rollout)
    .where(_t.id == bindparam("which"), _FREE)
    .values(lease_owner=bindparam("owner"), lease_epoch=_t.lease_epoch + 1, lease_expires_at=bindparam("expires"))
)
_SELECT_EPOCH = Statement(select(_t.lease_epoch).where(_t.id == bindparam("which")))
_SELECT_HELD = Statement(
    select(*_COLUMNS)
    .where(
        _t.id == bindparam("which"),
        _t.lease_owner == bindparam("owner"),
        _t.lease_epoch == bindparam("epoch"),
        _t.lease_expires_at > bindparam("now"),
    )
    .with_for_update()
)
_RENEW = Statement(
    update(schema.rollout)
    .where(_t.id == bindparam("which"), _t.lease_owner == bindparam("owner"), _t.lease_epoch == bindparam("epoch"))
    .values(lease_expires_at=bindparam("expires"))
)
_COUNTS = Statement(select(_m.state, func.count()).where(_m.rollout_id == bindparam("which")).group_by(_m.state))
_IN_STATE = Statement(
    select(*_MOVE_COLUMNS)
    .where(_m.rollout_id == bindparam("which"), _m.state == bindparam("wanted"))
    .order_by(_m.position)
    .limit(bindparam("most"))
)
_ALL_MOVES = Statement(select(*_MOVE_COLUMNS).where(_m.rollout_id == bindparam("which")).order_by(_m.position))
# Of those that were moved only such of which there is news: of ten thousand under way most wait for a controller.
_WITH_NEWS = Statement(
    select(*_MOVE_COLUMNS)
    .select_from(schema.rollout_load_balancer.outerjoin(schema.load_balancer, _lb.id == _m.load_balancer_id))
    .where(
        _m.rollout_id == bindparam("which"),
        _m.state == bindparam("wanted"),
        or_(
            _lb.id.is_(None),
            _lb.due_at.is_(None),
            _lb.fault.is_not(None),
            _lb.delete_requested.is_(True),
            _m.moved_at < bindparam("overdue"),
        ),
    )
    .order_by(_m.position)
    .limit(bindparam("most"))
)
_MOVED = Statement(
    update(schema.rollout_load_balancer)
    .where(_m.rollout_id == bindparam("which"), _m.load_balancer_id == bindparam("whose"))
    .values(state=MoveState.MOVED.value, state_before=bindparam("text"), moved_at=bindparam("now"), arrived_at=None)
)
_REASON = Statement(
    update(schema.rollout_load_balancer)
    .where(_m.rollout_id == bindparam("which"), _m.load_balancer_id == bindparam("whose"))
    .values(reason=bindparam("why"))
)
_LAST_OF_AUTHORITY = Statement(
    select(_t.state)
    .where(_t.driver == bindparam("driver"), _t.kind == bindparam("of", RolloutKind.AUTHORITY.value))
    .order_by(_t.created_at.desc(), _t.id.desc())
    .limit(1)
)
_LOOK_ANEW = Statement(
    update(schema.rollout_load_balancer)
    .where(_m.rollout_id == bindparam("which"), _m.state == bindparam("state_before"))
    .values(state=MoveState.MOVED.value, moved_at=bindparam("now"), arrived_at=None, reason="")
)
_VERSIONS_IN_USE = Statement(
    select(_m.state_before).where(
        _m.rollout_id == bindparam("which"), _m.state.in_([bindparam(None, x.value) for x in TOUCHED])
    )
)


class Hold(msgspec.Struct, frozen=True, kw_only=True):
    """The right to move one rollout; another controller's has a greater epoch."""

    rollout_id: RolloutId
    owner: ControllerId
    epoch: int


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A load balancer that a selection covers."""

    load_balancer_id: LoadBalancerId
    driver_version: str
    troubled: bool


def add(tx: Transaction, rollout: Rollout, load_balancer_ids: Sequence[LoadBalancerId]) -> None:
    """Note a rollout of these load balancers, in these turns. Raises Conflict while another one of the driver is not over."""
    other = active(tx, rollout.driver)
    if other is not None:
        raise Conflict(
            "rollout", f"{other.id} of driver {other.driver} is {other.state}: end it first (abort or rollback)"
        )
    tx.run(_INSERT, {**dict(zip(_SHAPE.columns, _SHAPE.encode(rollout), strict=True)), **_LEASE_VALUES})
    moves = [
        Move(rollout_id=rollout.id, load_balancer_id=x, position=number) for number, x in enumerate(load_balancer_ids)
    ]
    tx.insert(_INSERT_MOVE, _MOVE_SHAPE.columns, [_MOVE_SHAPE.encode(x) for x in moves])
    tx.wake()


def active(tx: Transaction, driver: str) -> Rollout | None:
    """The rollout of this driver that is not over."""
    row = tx.row(_SELECT_ACTIVE, {"driver": driver})
    return None if row is None else _SHAPE.decode(row)


def latest(tx: Transaction, most: int) -> list[Rollout]:
    """The rollouts, the youngest first."""
    return [_SHAPE.decode(row) for row in tx.rows(_SELECT_ALL, {"most": most})]


def get(tx: Transaction, rollout_id: RolloutId) -> Rollout:
    """Raises NotFound."""
    row = tx.row(_SELECT_ONE, {"which": rollout_id})
    if row is None:
        raise NotFound("rollout", f"there is none with id {rollout_id}")
    return _SHAPE.decode(row)


def change_state(tx: Transaction, rollout: Rollout, to: RolloutState, reason: str, now: datetime) -> Rollout:
    """Put a rollout, as it was read, into another state. Raises Conflict if it may not follow, or it changed meanwhile."""
    is_over = to in ENDED
    changed = replace(
        rollout,
        state=follow(rollout.state, to),
        reason=reason,
        wave_since=now,
        ended_at=now if is_over else None,
        active_driver=None if is_over else rollout.driver,
    )
    if not is_over and rollout.active_driver is None:
        other = active(tx, rollout.driver)
        if other is not None:
            raise Conflict("rollout", f"{other.id} of driver {other.driver} is {other.state}: end it first")
    values: dict[str, Value] = {
        "which": rollout.id,
        "state_before": rollout.state.value,
        "state_after": to.value,
        "why": reason,
        "since": to_microseconds(now),
        "end": None if changed.ended_at is None else to_microseconds(now),
        "active": changed.active_driver,
    }
    if tx.run(_CHANGE_STATE, values) != 1:
        raise Conflict("rollout", f"{rollout.id} changed meanwhile: look at it again")
    tx.wake()
    return changed


def holds_authority(tx: Transaction, driver: str) -> bool:
    """Whether a rollout is what brings the authority's present phase to the amphorae of this driver, so that nobody else
    does: from before the phase begins until one has finished."""
    row = tx.row(_LAST_OF_AUTHORITY, {"driver": driver})
    return row is not None and row[0] != RolloutState.FINISHED.value


def look_anew(tx: Transaction, rollout_id: RolloutId, now: datetime, *, failed_too: bool) -> None:
    """Whoever was under way is judged from the start, and so is who failed, if `failed_too`."""
    for state in (*IN_FLIGHT, *((MoveState.FAILED,) if failed_too else ())):
        tx.run(_LOOK_ANEW, {"which": rollout_id, "state_before": state.value, "now": to_microseconds(now)})


def take(
    tx: Transaction, rollout_id: RolloutId, owner: ControllerId, now: datetime, duration: timedelta
) -> Hold | None:
    """The right to move this rollout; None while another controller has it."""
    values: dict[str, Value] = {"which": rollout_id, "owner": owner, "now": to_microseconds(now)}
    if tx.run(_TAKE, {**values, "expires": to_microseconds(now + duration)}) != 1:
        return None
    row = tx.row(_SELECT_EPOCH, {"which": rollout_id})
    return None if row is None else Hold(rollout_id=rollout_id, owner=owner, epoch=int(row[0]))


def held(tx: Transaction, hold: Hold, now: datetime, duration: timedelta) -> Rollout:
    """The rollout, its row locked, and the hold on it prolonged. Raises LeaseLost."""
    mine: dict[str, Value] = {"which": hold.rollout_id, "owner": hold.owner, "epoch": hold.epoch}
    row = tx.row(_SELECT_HELD, {**mine, "now": to_microseconds(now)})
    if row is None:
        raise LeaseLost(f"controller {hold.owner} no longer moves rollout {hold.rollout_id}")
    tx.run(_RENEW, {**mine, "expires": to_microseconds(now + duration)})
    return _SHAPE.decode(row)


def counts(tx: Transaction, rollout_id: RolloutId) -> dict[MoveState, int]:
    """How many load balancers there are in each state."""
    return {MoveState(state): int(count) for state, count in tx.rows(_COUNTS, {"which": rollout_id})}


def moves(tx: Transaction, rollout_id: RolloutId) -> list[Move]:
    """Every load balancer of it, in their turns."""
    return [_MOVE_SHAPE.decode(row) for row in tx.rows(_ALL_MOVES, {"which": rollout_id})]


def in_state(tx: Transaction, rollout_id: RolloutId, state: MoveState, most: int) -> list[Move]:
    """The first of those in a state."""
    rows = tx.rows(_IN_STATE, {"which": rollout_id, "wanted": state.value, "most": most})
    return [_MOVE_SHAPE.decode(row) for row in rows]


def with_news(tx: Transaction, rollout_id: RolloutId, state: MoveState, overdue: datetime, most: int) -> list[Move]:
    """Those in a state that no controller has to look at any more, or that something happened to, or that were moved before
    `overdue`."""
    values: dict[str, Value] = {"which": rollout_id, "wanted": state.value, "most": most}
    return [_MOVE_SHAPE.decode(row) for row in tx.rows(_WITH_NEWS, {**values, "overdue": to_microseconds(overdue)})]


def versions_before(tx: Transaction, rollout_id: RolloutId) -> set[str]:
    """Which versions of the driver a rollback would go to."""
    decode = msgspec.json.Decoder(Before).decode
    return {decode(row[0]).driver_version for row in tx.rows(_VERSIONS_IN_USE, {"which": rollout_id}) if row[0]}


def record(
    tx: Transaction, rollout_id: RolloutId, became: Mapping[MoveState, Mapping[LoadBalancerId, str]], now: datetime
) -> None:
    """Write what became of load balancers, and why where there is a reason."""
    for state, reasons in became.items():
        for part in chunks(list(reasons), _MOST_IDS_AT_ONCE):
            size = padded_size(len(part))
            values = {**padded(part, size), "which": rollout_id, "state_after": state.value}
            tx.run(_become(size, arrives=state is MoveState.ARRIVED), {**values, "now": to_microseconds(now)})
        told = [{"which": rollout_id, "whose": x, "why": why} for x, why in reasons.items() if why]
        tx.run_many(_REASON, told)


def leave_canary(tx: Transaction, rollout_id: RolloutId, now: datetime) -> None:
    """The first wave has passed."""
    changed: dict[str, Value] = {"in_canary": False, "wave_since": to_microseconds(now)}
    tx.run(update_of(_SHAPE, tuple(changed)), {**changed, "which": rollout_id})


def move(tx: Transaction, rollout: Rollout, befores: Mapping[LoadBalancerId, Before], now: datetime) -> None:
    """Ask for the rollout's change of these load balancers, remember how they were, and make them due."""
    ids = list(befores)
    if rollout.kind is RolloutKind.DRIVER:
        cohorts.move(tx, ids, CohortName(rollout.driver, rollout.target), now)
    else:
        _ask_of_amphorae(tx, rollout.kind, ids, now)
    if rollout.kind is RolloutKind.IMAGE:
        mark_due(tx, ids, now)
    tx.run_many(
        _MOVED,
        (
            {"which": rollout.id, "whose": x, "text": to_json(before), "now": to_microseconds(now)}
            for x, before in befores.items()
        ),
    )


def give_back(tx: Transaction, rollout: Rollout, given: Iterable[Move], now: datetime) -> None:
    """Have the version that served them before serve them again."""
    by_version: dict[str, list[LoadBalancerId]] = defaultdict(list)
    for each in given:
        if each.before is not None:
            by_version[each.before.driver_version].append(each.load_balancer_id)
    for version, ids in by_version.items():
        cohorts.move(tx, ids, CohortName(rollout.driver, version), now)
        record(tx, rollout.id, {MoveState.RETURNING: dict.fromkeys(ids, "")}, now)


def candidates(tx: Transaction, driver: str, selection: Selection) -> list[Candidate]:
    """The load balancers of a driver that a selection covers, whatever its percentage."""
    asked = {"flavor": selection.flavor_id, "project": selection.project_id, "tag": selection.tag}
    given: dict[str, Value] = {key: value for key, value in asked.items() if value is not None}
    rows = tx.rows(_candidates(frozenset(given)), {**given, "driver": driver})
    return [
        Candidate(
            load_balancer_id=LoadBalancerId(row[0]),
            driver_version=row[1] or "",
            troubled=row[2] is not None or row[3] == ProvisioningStatus.ERROR.value,
        )
        for row in rows
    ]


def facts(tx: Transaction, load_balancer_ids: Sequence[LoadBalancerId]) -> dict[LoadBalancerId, Facts]:
    """What a rollout looks at; of those that are gone nothing."""
    found: dict[LoadBalancerId, Facts] = {}
    for part in chunks(load_balancer_ids, _MOST_IDS_AT_ONCE):
        size = padded_size(len(part))
        which = padded(part, size)
        amphorae: dict[str, list[AmphoraFacts]] = defaultdict(list)
        for row in tx.rows(_select_amphorae(size), which):
            amphorae[row[0]].append(_amphora_facts(row[1:]))
        traffic = {row[0]: (int(row[1]), int(row[2])) for row in tx.rows(_select_traffic(size), which)}
        for row in tx.rows(_select_load_balancers(size), which):
            connections, errors = traffic.get(row[0], (0, 0))
            found[LoadBalancerId(row[0])] = Facts(
                driver_version=row[1] or "",
                edited_at=None if row[2] is None else from_microseconds(row[2]),
                generation=row[3],
                applied_generation=row[4],
                provisioning_status=ProvisioningStatus(row[5]),
                operating_status=OperatingStatus(row[6]),
                due=row[7] is not None,
                fault=None if row[8] is None else _fault_in_words(row[8]),
                amphorae=tuple(amphorae[row[0]]),
                connections=connections,
                errors=errors,
            )
    return found


_load_receipt = msgspec.json.Decoder(Receipt).decode
_load_fault = msgspec.json.Decoder(Fault).decode


def _fault_in_words(text: str) -> str:
    fault = _load_fault(text)
    return f"{fault.code}: {fault.message}"


def _amphora_facts(row: Sequence[str | int | None]) -> AmphoraFacts:
    amphora_id, status, receipt, suspected_at, seen_at, renew_at, unwanted_since = row
    applied = None if receipt is None else _load_receipt(str(receipt))
    return AmphoraFacts(
        id=AmphoraId(str(amphora_id)),
        status=AmphoraStatus(str(status)),
        digest=None if applied is None else applied.digest,
        applied_at=None if applied is None else applied.applied_at,
        suspected=suspected_at is not None,
        seen_at=None if seen_at is None else from_microseconds(int(seen_at)),
        renew_at=None if renew_at is None else from_microseconds(int(renew_at)),
        unwanted=unwanted_since is not None,
    )


@cache
def _become(size: int, *, arrives: bool) -> Statement:
    values: dict[str, Any] = {
        "state": bindparam("state_after"),
        **({"arrived_at": bindparam("now")} if arrives else {}),
    }
    return Statement(
        update(schema.rollout_load_balancer)
        .where(_m.rollout_id == bindparam("which"), is_one_of(_m.load_balancer_id, size))
        .values(values)
    )


@cache
def _candidates(given: frozenset[str]) -> Statement:
    tags = schema.load_balancer_tag.c
    wanted = {
        "flavor": _lb.flavor_id == bindparam("flavor"),
        "project": _lb.project_id == bindparam("project"),
        "tag": _lb.id.in_(select(tags.load_balancer_id).where(tags.tag == bindparam("tag"))),
    }
    return Statement(
        select(_lb.id, _lb.driver_version, _lb.fault, _lb.provisioning_status).where(
            _lb.driver == bindparam("driver"),
            _lb.delete_requested.is_(False),
            _lb.provisioning_status != ProvisioningStatus.DELETED.value,
            *(wanted[x] for x in sorted(given)),
        )
    )


@cache
def _select_load_balancers(size: int) -> Statement:
    return Statement(
        select(
            _lb.id,
            _lb.driver_version,
            _lb.updated_at,
            _lb.generation,
            _lb.applied_generation,
            _lb.provisioning_status,
            _lb.operating_status,
            _lb.due_at,
            _lb.fault,
        ).where(is_one_of(_lb.id, size))
    )


@cache
def _select_amphorae(size: int) -> Statement:
    return Statement(
        select(
            _a.load_balancer_id,
            _a.id,
            _a.status,
            _a.receipt,
            _a.suspected_at,
            _a.seen_at,
            _a.certificate_renew_at,
            _a.replacement_requested_at,
        ).where(is_one_of(_a.load_balancer_id, size), _a.status != AmphoraStatus.DELETED.value)
    )


@cache
def _select_traffic(size: int) -> Statement:
    return Statement(
        select(_l.load_balancer_id, func.sum(_s.total_connections), func.sum(_s.request_errors))
        .select_from(schema.listener_statistics.join(schema.listener, _l.id == _s.listener_id))
        .where(is_one_of(_l.load_balancer_id, size))
        .group_by(_l.load_balancer_id)
    )


@cache
def _asks(kind: RolloutKind, size: int) -> Statement:
    asked = "replacement_requested_at" if kind is RolloutKind.IMAGE else "certificate_renew_at"
    return Statement(
        update(schema.amphora)
        .where(and_(is_one_of(_a.load_balancer_id, size), _a.status == AmphoraStatus.ALLOCATED.value))
        .values({asked: bindparam("now")})
    )


def _ask_of_amphorae(
    tx: Transaction, kind: RolloutKind, load_balancer_ids: Sequence[LoadBalancerId], now: datetime
) -> None:
    for part in chunks(load_balancer_ids, _MOST_IDS_AT_ONCE):
        size = padded_size(len(part))
        tx.run(_asks(kind, size), {**padded(part, size), "now": to_microseconds(now)})
