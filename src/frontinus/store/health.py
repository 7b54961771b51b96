"""What the ear writes: operating statuses, last-seen times, traffic, suspicions. Everything in bulk.

Many rows cost few statements, and rows whose value would not change are not written."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import cache

import msgspec
from sqlalchemy import and_, bindparam, case, or_, select, update

from frontinus.model.enums import AmphoraStatus, Kind, OperatingStatus, ProvisioningStatus
from frontinus.model.heartbeat import Counters
from frontinus.model.ids import AmphoraId, ListenerId, LoadBalancerId
from frontinus.store import schema
from frontinus.store.engine import Transaction
from frontinus.store.rows import Shape, to_microseconds
from frontinus.store.statement import Statement, Value, chunks, is_one_of, padded, padded_size
from frontinus.store.trees import SHAPE_OF, inserts

_MOST_IDS_AT_ONCE = 1024


class FleetMember(msgspec.Struct, frozen=True, kw_only=True):
    """An amphora that is meant to be heard."""

    amphora_id: AmphoraId
    load_balancer_id: LoadBalancerId
    status: AmphoraStatus
    seen_at: datetime | None
    suspected_at: datetime | None


class _StatisticsRow(msgspec.Struct, frozen=True, kw_only=True):
    listener_id: ListenerId
    amphora_id: AmphoraId
    bytes_in: int
    bytes_out: int
    active_connections: int
    total_connections: int
    request_errors: int


_STATISTICS = Shape(_StatisticsRow, schema.listener_statistics)
_FLEET = Shape(FleetMember, schema.amphora, renamed={"amphora_id": "id"})

_INSERT_STATISTICS = inserts(_STATISTICS, _STATISTICS.columns)
_this_pair = and_(
    schema.listener_statistics.c.listener_id == bindparam("which_listener"),
    schema.listener_statistics.c.amphora_id == bindparam("which_amphora"),
)
_GROWING = ("bytes_in", "bytes_out", "total_connections", "request_errors")
_REPLACE_STATISTICS = Statement(
    update(schema.listener_statistics)
    .where(_this_pair)
    .values({name: bindparam(name) for name in (*_GROWING, "active_connections")})
)
_ADD_STATISTICS = Statement(
    update(schema.listener_statistics)
    .where(_this_pair)
    .values(
        {
            "active_connections": bindparam("active_connections"),
            **{name: schema.listener_statistics.c[name] + bindparam(name) for name in _GROWING},
        }
    )
)
_SEEN = Statement(
    update(schema.amphora)
    .where(
        schema.amphora.c.id == bindparam("which"),
        or_(schema.amphora.c.seen_at.is_(None), schema.amphora.c.seen_at < bindparam("moment")),
    )
    .values(seen_at=bindparam("moment"))
)
_SELECT_FLEET = Statement(
    select(*[schema.amphora.c[name] for name in _FLEET.columns])
    .where(
        schema.amphora.c.status.in_(
            [bindparam(None, AmphoraStatus.ALLOCATED.value), bindparam(None, AmphoraStatus.FAILOVER_STOPPED.value)]
        )
    )
    .order_by(schema.amphora.c.id)
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
        select(listener.c.id, listener.c.load_balancer_id, known.c.amphora_id)
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


def write_seen(tx: Transaction, seen: Mapping[AmphoraId, datetime]) -> None:
    """Note when amphorae were last heard. A time before the one that is stored is ignored."""
    tx.run_many(_SEEN, ({"which": each, "moment": to_microseconds(moment)} for each, moment in seen.items()))


def write_statistics(tx: Transaction, told: Iterable[tuple[ListenerId, AmphoraId, Counters, bool]]) -> None:
    """Account traffic as (listener, amphora, counters, whether the counters are increments).

    Increments are added, absolute counters replace what was; active_connections always replaces. Several of one pair
    are taken in order. Listeners that do not exist (any more) are ignored, and so is what an amphora says of a listener
    of another load balancer: a key proves who speaks, not that it speaks of its own."""
    summed: dict[tuple[ListenerId, AmphoraId], tuple[Counters, bool]] = {}
    for listener_id, amphora_id, counters, incremental in told:
        pair = (listener_id, amphora_id)
        earlier = summed.get(pair)
        if earlier is None or not incremental:
            summed[pair] = (counters, incremental)
        else:
            summed[pair] = (_added(earlier[0], counters), earlier[1])
    known: set[tuple[str, str]] = set()
    owner: dict[str, str] = {}
    for part in chunks(list({listener_id for listener_id, _ in summed}), _MOST_IDS_AT_ONCE):
        size = padded_size(len(part))
        for listener_id, load_balancer_id, amphora_id in tx.rows(_select_pairs(size), padded(part, size)):
            owner[listener_id] = load_balancer_id
            if amphora_id is not None:
                known.add((listener_id, amphora_id))
    employer: dict[str, str] = {}
    for part in chunks(list({amphora_id for _, amphora_id in summed}), _MOST_IDS_AT_ONCE):
        size = padded_size(len(part))
        employer.update(dict(tx.rows(_select_employers(size), padded(part, size))))
    fresh: list[tuple[Value, ...]] = []
    added: list[dict[str, Value]] = []
    replaced: list[dict[str, Value]] = []
    for (listener_id, amphora_id), (counters, incremental) in summed.items():
        if listener_id not in owner or employer.get(amphora_id) != owner[listener_id]:
            continue
        values = msgspec.structs.asdict(counters)
        if (listener_id, amphora_id) in known:
            (added if incremental else replaced).append(
                {**values, "which_listener": listener_id, "which_amphora": amphora_id}
            )
        else:
            fresh.append(_STATISTICS.encode(_StatisticsRow(listener_id=listener_id, amphora_id=amphora_id, **values)))
    tx.run_many(_ADD_STATISTICS, added)
    tx.run_many(_REPLACE_STATISTICS, replaced)
    tx.insert(_INSERT_STATISTICS, _STATISTICS.columns, fresh)


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
        _due(tx, news, moment, nudge=True)
        _due(tx, {load_balancer_id for load_balancer_id, _ in standing} - news, moment, nudge=False)
        tx.wake()


def clear_suspicion(tx: Transaction, amphora_ids: Iterable[AmphoraId]) -> None:
    """They are heard again."""
    for part in chunks(list(amphora_ids), _MOST_IDS_AT_ONCE):
        size = padded_size(len(part))
        tx.run(_clear(size), padded(part, size))


def fleet(tx: Transaction) -> list[FleetMember]:
    """Every amphora that is meant to be heard (ALLOCATED or FAILOVER_STOPPED), in one select."""
    return [_FLEET.decode(row) for row in tx.rows(_SELECT_FLEET, {})]


def mark_due(tx: Transaction, load_balancer_ids: Iterable[LoadBalancerId], now: datetime) -> None:
    """Have controllers look at these load balancers again, and wake them."""
    ids = set(load_balancer_ids)
    _due(tx, ids, to_microseconds(now), nudge=True)
    if ids:
        tx.wake()


def _due(tx: Transaction, load_balancer_ids: set[LoadBalancerId], moment: int, *, nudge: bool) -> None:
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
