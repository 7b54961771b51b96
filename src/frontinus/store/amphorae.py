"""What the API may ask of an amphora, and what one has carried. The controller obeys when it looks next."""

from __future__ import annotations

from datetime import datetime

import msgspec
from sqlalchemy import bindparam, select, update

from frontinus.model.enums import AmphoraStatus
from frontinus.model.heartbeat import Counters
from frontinus.model.ids import AmphoraId, ListenerId, LoadBalancerId
from frontinus.store import schema
from frontinus.store.engine import Transaction
from frontinus.store.health import mark_due
from frontinus.store.rows import to_microseconds
from frontinus.store.statement import Statement

_t = schema.amphora.c
_s = schema.listener_statistics.c

_IS_HERE = _t.status.not_in([bindparam(None, x.value) for x in (AmphoraStatus.DELETED, AmphoraStatus.PENDING_DELETE)])
_REPLACE_ALL = Statement(
    update(schema.amphora)
    .where(_t.load_balancer_id == bindparam("which"), _IS_HERE)
    .values(replacement_requested_at=bindparam("now"))
)
_REPLACE_ONE = Statement(
    update(schema.amphora)
    .where(_t.id == bindparam("which"), _IS_HERE)
    .values(replacement_requested_at=bindparam("now"))
)
_PUSH = Statement(update(schema.amphora).where(_t.id == bindparam("which")).values(push_requested_at=bindparam("now")))
_REMOVE = Statement(
    update(schema.amphora)
    .where(_t.id == bindparam("which"), _t.status == AmphoraStatus.ERROR.value)
    .values(status=AmphoraStatus.PENDING_DELETE.value, updated_at=bindparam("now"))
)
_TRAFFIC = Statement(
    select(
        _s.listener_id,
        schema.listener.c.load_balancer_id,
        _s.bytes_in,
        _s.bytes_out,
        _s.active_connections,
        _s.total_connections,
        _s.request_errors,
    )
    .select_from(schema.listener_statistics.join(schema.listener, schema.listener.c.id == _s.listener_id))
    .where(_s.amphora_id == bindparam("which"))
    .order_by(_s.listener_id)
)


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """What one amphora has carried for one listener."""

    listener_id: ListenerId
    load_balancer_id: LoadBalancerId
    counters: Counters


def request_replacement_of_all(tx: Transaction, load_balancer_id: LoadBalancerId, now: datetime) -> None:
    """Every amphora that the load balancer has now is to be replaced. Whoever asks also moves the generation on."""
    tx.run(_REPLACE_ALL, {"which": load_balancer_id, "now": to_microseconds(now)})


def request_replacement(tx: Transaction, amphora_id: AmphoraId, now: datetime) -> None:
    """This amphora is to be replaced. Whoever asks also moves the generation of its load balancer on."""
    tx.run(_REPLACE_ONE, {"which": amphora_id, "now": to_microseconds(now)})


def request_push(tx: Transaction, amphora_id: AmphoraId, load_balancer_id: LoadBalancerId, now: datetime) -> None:
    """Its configuration is to be pushed again, whatever its receipt says."""
    tx.run(_PUSH, {"which": amphora_id, "now": to_microseconds(now)})
    mark_due(tx, [load_balancer_id], now)


def request_removal(tx: Transaction, amphora_id: AmphoraId, load_balancer_id: LoadBalancerId, now: datetime) -> bool:
    """What is left of an amphora in ERROR is to be removed; False, and nothing done, if it is not in ERROR."""
    if tx.run(_REMOVE, {"which": amphora_id, "now": to_microseconds(now)}) != 1:
        return False
    mark_due(tx, [load_balancer_id], now)
    return True


def traffic_of(tx: Transaction, amphora_id: AmphoraId) -> list[Traffic]:
    """What it has carried, a row for each listener that still exists and for which it has reported."""
    return [
        Traffic(
            listener_id=ListenerId(row[0]),
            load_balancer_id=LoadBalancerId(row[1]),
            counters=Counters(
                bytes_in=int(row[2]),
                bytes_out=int(row[3]),
                active_connections=int(row[4]),
                total_connections=int(row[5]),
                request_errors=int(row[6]),
            ),
        )
        for row in tx.rows(_TRAFFIC, {"which": amphora_id})
    ]
