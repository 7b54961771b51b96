"""What the ear writes: operating statuses, last-seen times, traffic, suspicions. Everything in bulk.

Many rows cost few statements, and rows whose value would not change are not written."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import cache

import msgspec
from msgspec.structs import replace
from sqlalchemy import ColumnElement, and_, bindparam, case, or_, select, update

from frontinus.model.enums import AmphoraStatus, Kind, OperatingStatus, ProvisioningStatus
from frontinus.model.heartbeat import Counters, ListenerTraffic
from frontinus.model.ids import AmphoraId, ListenerId, LoadBalancerId
from frontinus.model.tree import LastCheck
from frontinus.store import schema
from frontinus.store.engine import Transaction
from frontinus.store.rows import Shape, from_microseconds, to_json, to_microseconds
from frontinus.store.statement import Statement, Value, chunks, is_one_of, padded, padded_size
from frontinus.store.trees import SHAPE_OF, inserts

_MOST_IDS_AT_ONCE = 1024

_MOST_COUNTED_AT_ONCE = 2_048
"""Listeners whose counters health writes in one go."""

_MOST_SEEN_AT_ONCE = 16_384
"""Half of what SQLite and PostgreSQL take in one statement: this one is written for the whole fleet every few seconds."""


class FleetMember(msgspec.Struct, frozen=True, kw_only=True):
    """An amphora that is meant to be heard. The generations are its load balancer's."""

    amphora_id: AmphoraId
    load_balancer_id: LoadBalancerId
    status: AmphoraStatus
    host: str | None
    speaks_plain: bool
    seen_at: datetime | None
    suspected_at: datetime | None
    generation: int
    applied_generation: int


class _StatisticsRow(msgspec.Struct, frozen=True, kw_only=True):
    listener_id: ListenerId
    amphora_id: AmphoraId
    bytes_in: int
    bytes_out: int
    active_connections: int
    total_connections: int
    request_errors: int
    base_bytes_in: int = 0
    base_bytes_out: int = 0
    base_total_connections: int = 0
    base_request_errors: int = 0
    counted_since: int = 0


_STATISTICS = Shape(_StatisticsRow, schema.listener_statistics)

_INSERT_STATISTICS = inserts(_STATISTICS, _STATISTICS.columns)
_kept = schema.listener_statistics.c
_GROWING = ("bytes_in", "bytes_out", "total_connections", "request_errors")
_this_pair = and_(_kept.listener_id == bindparam("which_listener"), _kept.amphora_id == bindparam("which_amphora"))
_this_count = and_(_this_pair, _kept.counted_since == bindparam("known_since"))


def _at_least(name: str) -> ColumnElement[int]:
    told = _kept[f"base_{name}"] + bindparam(name)
    return case((_kept[name] < told, told), else_=_kept[name])


# The same count goes on. It never goes back, whoever writes last: two receivers may hear the amphora in turn.
_RAISE_STATISTICS = Statement(
    update(schema.listener_statistics)
    .where(_this_count)
    .values({"active_connections": bindparam("active_connections"), **{name: _at_least(name) for name in _GROWING}})
)
# The amphora has begun to count anew. In this order, because MariaDB sees the new value of what was assigned before.
_CONTINUE_STATISTICS = Statement(
    update(schema.listener_statistics)
    .where(_this_count)
    .ordered_values(
        *((_kept[f"base_{name}"], _kept[name]) for name in _GROWING),
        *((_kept[name], _kept[name] + bindparam(name)) for name in _GROWING),
        (_kept.active_connections, bindparam("active_connections")),
        (_kept.counted_since, bindparam("since")),
    )
)
_ADD_STATISTICS = Statement(
    update(schema.listener_statistics)
    .where(_this_pair)
    .values(
        {
            "active_connections": bindparam("active_connections"),
            **{name: _kept[name] + bindparam(name) for name in _GROWING},
        }
    )
)
_LAST_CHECK = Statement(
    update(schema.member).where(schema.member.c.id == bindparam("which")).values(last_check=bindparam("value"))
)
_SELECT_FLEET = Statement(
    select(
        *[
            schema.amphora.c[name]
            for name in ("id", "load_balancer_id", "status", "host", "speaks_plain", "seen_at", "suspected_at")
        ],
        schema.load_balancer.c.generation,
        schema.load_balancer.c.applied_generation,
    )
    .select_from(
        schema.amphora.join(schema.load_balancer, schema.load_balancer.c.id == schema.amphora.c.load_balancer_id)
    )
    .where(
        schema.amphora.c.status.in_(
            [bindparam(None, AmphoraStatus.ALLOCATED.value), bindparam(None, AmphoraStatus.FAILOVER_STOPPED.value)]
        )
    )
    .order_by(schema.amphora.c.id)
)


@cache
def _seen(size: int) -> Statement:
    table = schema.amphora
    return Statement(
        update(table)
        .where(is_one_of(table.c.id, size), or_(table.c.seen_at.is_(None), table.c.seen_at < bindparam("moment")))
        .values(seen_at=bindparam("moment"))
    )


@cache
def _write_status(kind: Kind, size: int) -> Statement:
    table = SHAPE_OF[kind].table
    return Statement(
        update(table)
        .where(is_one_of(table.c.id, size), table.c.operating_status != bindparam("status"))
        .values(operating_status=bindparam("status"))
    )


@cache
def _select_pairs(size: int) -> Statement:
    # A listener without a row yet comes with amphora_id None; a listener that is gone does not come at all.
    listener, known = schema.listener, schema.listener_statistics
    return Statement(
        select(listener.c.id, listener.c.load_balancer_id, known.c.amphora_id, known.c.counted_since)
        .select_from(listener.outerjoin(known, known.c.listener_id == listener.c.id))
        .where(is_one_of(listener.c.id, size))
    )


@cache
def _select_employers(size: int) -> Statement:
    table = schema.amphora
    return Statement(select(table.c.id, table.c.load_balancer_id).where(is_one_of(table.c.id, size)))


@cache
def _suspect(size: int) -> Statement:
    table = schema.amphora
    return Statement(
        update(table)
        .where(is_one_of(table.c.id, size), table.c.suspected_at.is_(None))
        .values(suspected_at=bindparam("now"))
    )


@cache
def _request_pushes(size: int) -> Statement:
    table = schema.amphora
    return Statement(update(table).where(is_one_of(table.c.id, size)).values(push_requested_at=bindparam("now")))


@cache
def _clear(size: int) -> Statement:
    table = schema.amphora
    return Statement(
        update(table).where(is_one_of(table.c.id, size), table.c.suspected_at.is_not(None)).values(suspected_at=None)
    )


@cache
def _select_standing(size: int) -> Statement:
    table = schema.amphora
    return Statement(
        select(table.c.load_balancer_id, table.c.suspected_at).where(
            is_one_of(table.c.id, size), table.c.status != AmphoraStatus.DELETED.value
        )
    )


@cache
def _make_due(size: int, *, nudge: bool) -> Statement:
    table = schema.load_balancer
    earlier = case(
        (or_(table.c.due_at.is_(None), table.c.due_at > bindparam("now")), bindparam("now")), else_=table.c.due_at
    )
    return Statement(
        update(table)
        .where(is_one_of(table.c.id, size), table.c.provisioning_status != ProvisioningStatus.DELETED.value)
        .values({"due_at": earlier, **({"nudges": table.c.nudges + 1} if nudge else {})})
    )


def write_operating_statuses(tx: Transaction, changes: Mapping[Kind, Mapping[str, OperatingStatus]]) -> None:
    """Set operating statuses by id. Rows that have the status already are not written; unknown ids are ignored."""
    for kind, statuses in changes.items():
        ids_of: dict[OperatingStatus, list[str]] = defaultdict(list)
        for object_id, status in statuses.items():
            ids_of[status].append(object_id)
        for status, ids in ids_of.items():
            for part in chunks(ids, _MOST_IDS_AT_ONCE):
                size = padded_size(len(part))
                tx.run(_write_status(kind, size), {**padded(part, size), "status": status.value})


def write_last_checks(tx: Transaction, checks: Mapping[str, LastCheck | None]) -> None:
    """Note why members are down, or that they are no more; unknown ids are ignored."""
    tx.run_many(
        _LAST_CHECK, ({"which": each, "value": None if x is None else to_json(x)} for each, x in checks.items())
    )


def write_seen(tx: Transaction, amphora_ids: Iterable[AmphoraId], moment: datetime) -> None:
    """Note when amphorae were last heard. A time before the one that is stored is ignored."""
    for part in chunks(list(amphora_ids), _MOST_SEEN_AT_ONCE):
        size = padded_size(len(part))
        tx.run(_seen(size), {**padded(part, size), "moment": to_microseconds(moment)})


def write_statistics(tx: Transaction, told: Iterable[ListenerTraffic]) -> None:
    """Account traffic. Several of one listener and amphora are taken in order.

    Increments are added. Absolute counters since the time that is known raise what is there, and never lower it; since a
    later time they come on top; since an earlier one they are old news. active_connections replaces. Listeners that do
    not exist (any more) are ignored, and so is what an amphora says of a listener of another load balancer: a key proves
    who speaks, not that it speaks of its own."""
    summed: dict[tuple[ListenerId, AmphoraId], ListenerTraffic] = {}
    for each in told:
        pair = (each.listener_id, each.amphora_id)
        earlier = summed.get(pair)
        if earlier is None or not each.incremental:
            summed[pair] = each
        else:
            summed[pair] = replace(earlier, counters=_added(earlier.counters, each.counters))
    known: dict[tuple[str, str], int] = {}
    owner: dict[str, str] = {}
    for part in chunks(list({listener_id for listener_id, _ in summed}), _MOST_COUNTED_AT_ONCE):
        size = padded_size(len(part))
        for listener_id, load_balancer_id, amphora_id, since in tx.rows(_select_pairs(size), padded(part, size)):
            owner[listener_id] = load_balancer_id
            if amphora_id is not None:
                known[listener_id, amphora_id] = since
    employer: dict[str, str] = {}
    for part in chunks(list({amphora_id for _, amphora_id in summed}), _MOST_COUNTED_AT_ONCE):
        size = padded_size(len(part))
        employer.update(dict(tx.rows(_select_employers(size), padded(part, size))))
    fresh: list[tuple[Value, ...]] = []
    added: list[dict[str, Value]] = []
    raised: list[dict[str, Value]] = []
    continued: list[dict[str, Value]] = []
    for pair, traffic in summed.items():
        if pair[0] not in owner or employer.get(pair[1]) != owner[pair[0]]:
            continue
        values = msgspec.structs.asdict(traffic.counters)
        since = known.get(pair)
        if since is None:
            row = _StatisticsRow(listener_id=pair[0], amphora_id=pair[1], counted_since=traffic.since, **values)
            fresh.append(_STATISTICS.encode(row))
            continue
        named: dict[str, Value] = {**values, "which_listener": pair[0], "which_amphora": pair[1]}
        if traffic.incremental:
            added.append(named)
        elif traffic.since == since:
            raised.append({**named, "known_since": since})
        elif traffic.since > since:
            continued.append({**named, "known_since": since, "since": traffic.since})
    tx.run_many(_ADD_STATISTICS, added)
    tx.run_many(_RAISE_STATISTICS, raised)
    tx.run_many(_CONTINUE_STATISTICS, continued)
    tx.insert(_INSERT_STATISTICS, _STATISTICS.columns, fresh)


def request_pushes(tx: Transaction, amphora_ids: Iterable[AmphoraId], now: datetime) -> None:
    """Have the configurations of these amphorae pushed again, whatever their receipts say, and wake the controllers."""
    moment = to_microseconds(now)
    for part in chunks(list(dict.fromkeys(amphora_ids)), _MOST_IDS_AT_ONCE):
        size = padded_size(len(part))
        standing = tx.rows(_select_standing(size), padded(part, size))
        if standing:
            tx.run(_request_pushes(size), {**padded(part, size), "now": moment})
            make_due(tx, {load_balancer_id for load_balancer_id, _ in standing}, moment, nudge=True)
            tx.wake()


def suspect(tx: Transaction, amphora_ids: Iterable[AmphoraId], now: datetime) -> None:
    """Note that amphorae have been silent too long, make their load balancers due, and wake the controllers.

    An earlier suspicion keeps its time. A load balancer that is being worked on stays due after that work when the
    suspicion is new, because the controller may have looked before it arose."""
    moment = to_microseconds(now)
    for part in chunks(list(dict.fromkeys(amphora_ids)), _MOST_IDS_AT_ONCE):
        size = padded_size(len(part))
        standing = tx.rows(_select_standing(size), padded(part, size))
        if not standing:
            continue
        news = {load_balancer_id for load_balancer_id, suspected_at in standing if suspected_at is None}
        tx.run(_suspect(size), {**padded(part, size), "now": moment})
        make_due(tx, news, moment, nudge=True)
        make_due(tx, {load_balancer_id for load_balancer_id, _ in standing} - news, moment, nudge=False)
        tx.wake()


def clear_suspicion(tx: Transaction, amphora_ids: Iterable[AmphoraId]) -> None:
    """They are heard again."""
    for part in chunks(list(amphora_ids), _MOST_IDS_AT_ONCE):
        size = padded_size(len(part))
        tx.run(_clear(size), padded(part, size))


def fleet(tx: Transaction) -> list[FleetMember]:
    """Every amphora that is meant to be heard (ALLOCATED or FAILOVER_STOPPED), in one select."""
    return [
        FleetMember(
            amphora_id=AmphoraId(row[0]),
            load_balancer_id=LoadBalancerId(row[1]),
            status=AmphoraStatus(row[2]),
            host=row[3],
            speaks_plain=bool(row[4]),
            seen_at=None if row[5] is None else from_microseconds(row[5]),
            suspected_at=None if row[6] is None else from_microseconds(row[6]),
            generation=row[7],
            applied_generation=row[8],
        )
        for row in tx.rows(_SELECT_FLEET, {})
    ]


def mark_due(tx: Transaction, load_balancer_ids: Iterable[LoadBalancerId], now: datetime) -> None:
    """Have controllers look at these load balancers again, and wake them."""
    ids = set(load_balancer_ids)
    make_due(tx, ids, to_microseconds(now), nudge=True)
    if ids:
        tx.wake()


def make_due(tx: Transaction, load_balancer_ids: set[LoadBalancerId], moment: int, *, nudge: bool) -> None:
    """Have load balancers looked at by `moment` (microseconds); a nudge keeps one due whose work began before it."""
    for part in chunks(list(load_balancer_ids), _MOST_IDS_AT_ONCE):
        size = padded_size(len(part))
        tx.run(_make_due(size, nudge=nudge), {**padded(part, size), "now": moment})


def _added(one: Counters, other: Counters) -> Counters:
    return Counters(
        bytes_in=one.bytes_in + other.bytes_in,
        bytes_out=one.bytes_out + other.bytes_out,
        active_connections=other.active_connections,
        total_connections=one.total_connections + other.total_connections,
        request_errors=one.request_errors + other.request_errors,
    )
