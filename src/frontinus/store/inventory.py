"""What the store knows to exist, for whoever looks for what exists without being known. Read only."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from functools import cache

import msgspec
from sqlalchemy import and_, bindparam, func, or_, select

from frontinus.model.enums import AmphoraStatus, ProvisioningStatus
from frontinus.model.ids import AmphoraId, LoadBalancerId, PortId
from frontinus.model.orphans import Known
from frontinus.store import leases, schema, spares
from frontinus.store.engine import Transaction
from frontinus.store.rows import to_microseconds
from frontinus.store.statement import Statement, Value, chunks, is_one_of, padded, padded_size

_MOST_IDS_AT_ONCE = 1024
_AMPHORAE = Statement(select(schema.amphora.c.id).where(schema.amphora.c.status != AmphoraStatus.DELETED.value))
_UNHEARD = Statement(
    select(schema.amphora.c.id)
    .where(
        schema.amphora.c.status == AmphoraStatus.ALLOCATED.value,
        schema.amphora.c.suspected_at.is_(None),
        or_(schema.amphora.c.seen_at.is_(None), schema.amphora.c.seen_at < bindparam("since")),
        schema.amphora.c.id >= bindparam("first"),
        schema.amphora.c.id < bindparam("end"),
    )
    .order_by(schema.amphora.c.id)
)
_a, _lb = schema.amphora.c, schema.load_balancer.c
_OF_DRIVER = schema.amphora.join(schema.load_balancer, _lb.id == _a.load_balancer_id)
_SERVED = _lb.driver == bindparam("driver")
# Both comparisons, and not one for inequality, so that an index can say that there is nothing.
_OF_ANOTHER = or_(
    and_(
        or_(_a.identity_digest < bindparam("digest"), _a.identity_digest > bindparam("digest")),
        _a.identity_digest != bindparam("kept"),
    ),
    _a.identity_digest.is_(None),
)
_ALLOCATED = (
    select(_a.id, _a.load_balancer_id)
    .select_from(_OF_DRIVER)
    .where(_a.status == AmphoraStatus.ALLOCATED.value, _a.suspected_at.is_(None), _SERVED)
    .order_by(_a.certificate_renew_at, _a.id)
    .limit(bindparam("most"))
)
_IS_OVER = _a.certificate_renew_at <= bindparam("now")
_IDENTITIES_DUE = Statement(_ALLOCATED.where(or_(_IS_OVER, _OF_ANOTHER)))
_IDENTITIES_OVER = Statement(_ALLOCATED.where(_IS_OVER))
_PLUGGED = Statement(
    select(_a.id, _a.ports)
    .where(
        _a.status == AmphoraStatus.ALLOCATED.value,
        _a.suspected_at.is_(None),
        _a.ports != bindparam("none"),
        _a.id > bindparam("after"),
    )
    .order_by(_a.id)
    .limit(bindparam("most"))
)


@cache
def _serving(size: int) -> Statement:
    return Statement(
        select(_a.id, _a.ports).where(
            is_one_of(_a.id, size), _a.status == AmphoraStatus.ALLOCATED.value, _a.suspected_at.is_(None)
        )
    )


@cache
def _hanging(size: int) -> Statement:
    return Statement(
        select(_a.id, _a.ports, _lb.lease_owner, _lb.lease_expires_at)
        .select_from(_OF_DRIVER)
        .where(is_one_of(_a.id, size), _a.status == AmphoraStatus.ALLOCATED.value, _a.suspected_at.is_(None))
    )


_GONE = (AmphoraStatus.DELETED.value, AmphoraStatus.PENDING_DELETE.value, AmphoraStatus.ERROR.value)
_COUNT = select(func.count()).select_from(_OF_DRIVER).where(_a.status.not_in([bindparam(None, x) for x in _GONE]))
_COUNT_ALL = Statement(_COUNT.where(_SERVED))
_COUNT_OTHERS = Statement(_COUNT.where(_OF_ANOTHER, _SERVED))
_LOAD_BALANCERS = Statement(
    select(schema.load_balancer.c.id).where(
        schema.load_balancer.c.provisioning_status != ProvisioningStatus.DELETED.value
    )
)


class _PortId(msgspec.Struct):
    """What is read of a recorded port here."""

    id: PortId


class Hanging(msgspec.Struct, frozen=True, kw_only=True):
    """By which ports an amphora serves, and whether somebody works on its load balancer right now: then they may be others in a
    moment."""

    ports: frozenset[PortId]
    is_changing: bool


def plugged(tx: Transaction, after: AmphoraId, most: int) -> dict[AmphoraId, frozenset[PortId]]:
    """Amphorae that serve, with the ports by which they do, in the order of their ids from the one after this."""
    rows = tx.rows(_PLUGGED, {"none": "[]", "after": after, "most": most})
    return {AmphoraId(row[0]): _port_ids(row[1]) for row in rows}


def serving(tx: Transaction, amphora_ids: Iterable[AmphoraId]) -> dict[AmphoraId, frozenset[PortId]]:
    """Those of these amphorae that are meant to serve and are not suspected yet, with the ports by which they do."""
    found: dict[AmphoraId, frozenset[PortId]] = {}
    for part in chunks(list(amphora_ids), _MOST_IDS_AT_ONCE):
        size = padded_size(len(part))
        for amphora_id, ports in tx.rows(_serving(size), padded(part, size)):
            found[AmphoraId(amphora_id)] = _port_ids(ports)
    return found


def hanging(tx: Transaction, amphora_ids: Iterable[AmphoraId], now: datetime) -> dict[AmphoraId, Hanging]:
    """As `serving`, with whether a lease on the load balancer is held."""
    found: dict[AmphoraId, Hanging] = {}
    for part in chunks(list(amphora_ids), _MOST_IDS_AT_ONCE):
        size = padded_size(len(part))
        for amphora_id, ports, owner, expires_at in tx.rows(_hanging(size), padded(part, size)):
            is_changing = leases.is_held(owner, expires_at, now)
            found[AmphoraId(amphora_id)] = Hanging(ports=_port_ids(ports), is_changing=is_changing)
    return found


def known(tx: Transaction) -> Known:
    """Everything that may have something outside, in three selects."""
    return Known(
        amphorae=frozenset(AmphoraId(row[0]) for row in tx.rows(_AMPHORAE, {})) | spares.known(tx),
        load_balancers=frozenset(LoadBalancerId(row[0]) for row in tx.rows(_LOAD_BALANCERS, {})),
    )


def unheard(tx: Transaction, since: datetime, spans: Iterable[tuple[str, str]]) -> list[AmphoraId]:
    """Amphorae whose ids are in one of these half-open spans, that are meant to serve, are not suspected yet, and were never
    heard or not since then."""
    found: list[AmphoraId] = []
    for first, end in spans:
        rows = tx.rows(_UNHEARD, {"since": to_microseconds(since), "first": first, "end": end})
        found += [AmphoraId(row[0]) for row in rows]
    return found


def identities_due(
    tx: Transaction, driver: str, digest: str, now: datetime, most: int, *, kept: str = "", only_over: bool = False
) -> list[tuple[AmphoraId, LoadBalancerId]]:
    """Amphorae of this driver that serve, and whose certificate is due or (unless `only_over`) whose identity has another
    digest than these two; those first that wait longest."""
    found = _IDENTITIES_OVER if only_over else _IDENTITIES_DUE
    values: dict[str, Value] = {
        "driver": driver,
        "digest": digest,
        "kept": kept,
        "now": to_microseconds(now),
        "most": most,
    }
    return [(AmphoraId(row[0]), LoadBalancerId(row[1])) for row in tx.rows(found, values)]


def count_identities(tx: Transaction, driver: str, digest: str, *, kept: str = "") -> tuple[int, int]:
    """How many amphorae of this driver there are, and how many of them have an identity of another digest than these."""
    every = tx.row(_COUNT_ALL, {"driver": driver})
    others = tx.row(_COUNT_OTHERS, {"driver": driver, "digest": digest, "kept": kept})
    return (0 if every is None else int(every[0])), (0 if others is None else int(others[0]))


def _port_ids(ports: str) -> frozenset[PortId]:
    return frozenset(x.id for x in msgspec.json.decode(ports, type=list[_PortId]))
