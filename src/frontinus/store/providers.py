"""What is known of load balancers that third-party provider drivers carry: the tree that the driver has taken, the one
call that was made and not reported yet, and what was reported of it.

A controller writes under its lease; reports come from the driver, who knows no lease, and touch only what was reported."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import msgspec
from sqlalchemy import bindparam, delete, insert, select, update

from frontinus.model.heartbeat import Counters
from frontinus.model.ids import ControllerId, ListenerId, LoadBalancerId
from frontinus.model.tree import LoadBalancerTree
from frontinus.store import convergence, schema
from frontinus.store.engine import Transaction
from frontinus.store.health import mark_due
from frontinus.store.leases import Lease
from frontinus.store.rows import from_microseconds, optional_microseconds, to_microseconds
from frontinus.store.statement import Statement, Value, insert_if_absent

_t = schema.provider_record.c
_COLUMNS = (
    "load_balancer_id",
    "settled",
    "sent",
    "sent_then",
    "sent_by",
    "sent_at",
    "reported",
    "reported_about",
    "failed_over_at",
)

_SELECT = Statement(select(*[_t[name] for name in _COLUMNS]).where(_t.load_balancer_id == bindparam("which")))
_INSERT = Statement(insert(schema.provider_record).values({name: bindparam(name) for name in _COLUMNS}))
_DELETE = Statement(delete(schema.provider_record).where(_t.load_balancer_id == bindparam("which")))
_REPORT = Statement(
    update(schema.provider_record)
    .where(_t.load_balancer_id == bindparam("which"), _t.sent.is_not(None))
    .values(reported=bindparam("word"), reported_about=bindparam("about"))
)

_f = schema.provider_failover.c
_SELECT_FAILOVER = Statement(select(_f.requested_at).where(_f.load_balancer_id == bindparam("which")))
_REQUEST_FIRST = Statement(insert_if_absent(schema.provider_failover, ("load_balancer_id", "requested_at")))
_REQUEST_AGAIN = Statement(
    update(schema.provider_failover)
    .where(_f.load_balancer_id == bindparam("load_balancer_id"))
    .values(requested_at=bindparam("moment"))
)

_s = schema.listener_statistics.c
_TOTALS = ("bytes_in", "bytes_out", "active_connections", "total_connections", "request_errors")
_BASES = ("base_bytes_in", "base_bytes_out", "base_total_connections", "base_request_errors", "counted_since")
_IS_LISTENER = Statement(select(schema.listener.c.id).where(schema.listener.c.id == bindparam("which")))
_DROP_TOTALS = Statement(
    delete(schema.listener_statistics).where(_s.listener_id == bindparam("which"), _s.amphora_id == bindparam("which"))
)
_ADD_TOTALS = Statement(
    insert(schema.listener_statistics).values(
        {name: bindparam(name) for name in ("listener_id", "amphora_id", *_TOTALS, *_BASES)}
    )
)

_decode = msgspec.json.Decoder(LoadBalancerTree).decode


class ProviderRecord(msgspec.Struct, frozen=True, kw_only=True):
    """`settled` is what the driver has taken and reported; None: nothing yet. `sent` is the name and the object of the call
    that was made last and is not reported, `then` the tree when it is (None: it is gone), by which controller and when.
    `reported` is ACTIVE, ERROR or DELETED once the driver said so, `about` which object an ERROR is of. Failovers that were asked
    for by `failed_over_at` are over; with nothing sent, `reported` is how the last one failed, until that is told."""

    load_balancer_id: LoadBalancerId
    settled: LoadBalancerTree | None = None
    sent: str | None = None
    then: LoadBalancerTree | None = None
    sent_by: ControllerId | None = None
    sent_at: datetime | None = None
    reported: str | None = None
    about: str | None = None
    failed_over_at: datetime | None = None


def read(tx: Transaction, load_balancer_id: LoadBalancerId) -> ProviderRecord:
    """What is known; nothing, for one that no driver was told of."""
    row = tx.row(_SELECT, {"which": load_balancer_id})
    if row is None:
        return ProviderRecord(load_balancer_id=load_balancer_id)
    _, settled, sent, then, sent_by, sent_at, reported, about, failed_over_at = row
    return ProviderRecord(
        load_balancer_id=load_balancer_id,
        settled=None if settled is None else _decode(settled),
        sent=sent,
        then=None if then is None else _decode(then),
        sent_by=None if sent_by is None else ControllerId(sent_by),
        sent_at=None if sent_at is None else from_microseconds(sent_at),
        reported=reported,
        about=about,
        failed_over_at=None if failed_over_at is None else from_microseconds(failed_over_at),
    )


def write(tx: Transaction, lease: Lease, record: ProviderRecord) -> None:
    """Keep it. Raises LeaseLost."""
    convergence.require_lease(tx, lease)
    tx.run(_DELETE, {"which": record.load_balancer_id})
    values: dict[str, Value] = {
        "load_balancer_id": record.load_balancer_id,
        "settled": None if record.settled is None else msgspec.json.encode(record.settled).decode(),
        "sent": record.sent,
        "sent_then": None if record.then is None else msgspec.json.encode(record.then).decode(),
        "sent_by": record.sent_by,
        "sent_at": optional_microseconds(record.sent_at),
        "reported": record.reported,
        "reported_about": record.about,
        "failed_over_at": optional_microseconds(record.failed_over_at),
    }
    tx.run(_INSERT, values)


def forget(tx: Transaction, load_balancer_id: LoadBalancerId) -> None:
    """It is gone."""
    tx.run(_DELETE, {"which": load_balancer_id})


def request_failover(tx: Transaction, load_balancer_id: LoadBalancerId, now: datetime) -> None:
    """The API asks for one; who asks moves the generation in the same transaction."""
    asked: dict[str, Value] = {"load_balancer_id": load_balancer_id, "requested_at": to_microseconds(now)}
    tx.insert(_REQUEST_FIRST, ("load_balancer_id", "requested_at"), [tuple(asked.values())])
    tx.run(_REQUEST_AGAIN, {"load_balancer_id": load_balancer_id, "moment": to_microseconds(now)})


def failover_requested_at(tx: Transaction, load_balancer_id: LoadBalancerId) -> datetime | None:
    """When one was asked for last."""
    row = tx.row(_SELECT_FAILOVER, {"which": load_balancer_id})
    return None if row is None else from_microseconds(row[0])


def report(tx: Transaction, load_balancer_id: LoadBalancerId, word: str, about: str | None, now: datetime) -> bool:
    """What the driver says of the call that was made; whether one was. Its controller looks at it at once."""
    if tx.run(_REPORT, {"which": load_balancer_id, "word": word, "about": about}) != 1:
        return False
    mark_due(tx, [load_balancer_id], now)
    return True


def write_totals(tx: Transaction, told: Iterable[tuple[ListenerId, Counters]]) -> None:
    """What listeners have carried in all, in place of what was told before; those that do not exist are ignored. A provider
    has no amphorae: the listener's own id stands in the place of one, as in Octavia."""
    for listener_id, counters in told:
        if tx.row(_IS_LISTENER, {"which": listener_id}) is None:
            continue
        tx.run(_DROP_TOTALS, {"which": listener_id})
        row: dict[str, Value] = dict.fromkeys(_BASES, 0)
        row |= {name: getattr(counters, name) for name in _TOTALS}
        tx.run(_ADD_TOTALS, {"listener_id": listener_id, "amphora_id": listener_id, **row})
