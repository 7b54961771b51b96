"""How many load balancers may have an amphora torn down at a time, over all controllers: numbered turns.

A turn is taken in the transaction that begins the replacement and given back by nobody: it is free again when its load
balancer has settled or is gone, and after a time anyhow, so that replacements that cannot be finished slow the others
down without stopping them. Taken by compare-and-set, as leases are."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec
from sqlalchemy import bindparam, select, update

from frontinus.model.enums import ProvisioningStatus
from frontinus.model.ids import LoadBalancerId
from frontinus.store import schema
from frontinus.store.engine import Transaction
from frontinus.store.rows import from_microseconds, to_microseconds
from frontinus.store.statement import Statement, Value, insert_if_absent

HELD_FOR_AT_MOST = timedelta(minutes=2)
"""A replacement that takes longer does not keep others waiting any more."""

_t = schema.replacement_turn.c
_lb = schema.load_balancer.c
_COLUMNS = ("number", "load_balancer_id", "taken_at")

_SELECT = Statement(
    select(
        _t.number, _t.load_balancer_id, _t.taken_at, _lb.generation - _lb.applied_generation, _lb.provisioning_status
    )
    .select_from(schema.replacement_turn.outerjoin(schema.load_balancer, _lb.id == _t.load_balancer_id))
    .order_by(_t.number)
)
_TAKE = Statement(
    update(schema.replacement_turn)
    .where(
        _t.number == bindparam("which"),
        _t.load_balancer_id == bindparam("old_holder"),
        _t.taken_at == bindparam("old_time"),
    )
    .values(load_balancer_id=bindparam("holder"), taken_at=bindparam("now"))
)
_ADD = Statement(insert_if_absent(schema.replacement_turn, _COLUMNS))


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """A replacement that is under way."""

    number: int
    load_balancer_id: LoadBalancerId
    taken_at: datetime


def take_turn(tx: Transaction, load_balancer_id: LoadBalancerId, now: datetime, limit: int) -> bool:
    """Whether this load balancer may have an amphora torn down now; safe to repeat while it may."""
    rows = tx.rows(_SELECT, {})
    mine = [x for x in rows if x[1] == load_balancer_id]
    taken = {x[0] for x in rows}
    for number, holder, since, ahead, status in (*mine, *[x for x in rows if x[0] < limit]):
        if holder != load_balancer_id and _is_held(since, ahead, status, now):
            continue
        if since == to_microseconds(now) and holder == load_balancer_id:
            return True
        told: dict[str, Value] = {"which": number, "old_holder": holder, "old_time": since, "holder": load_balancer_id}
        if tx.run(_TAKE, {**told, "now": to_microseconds(now)}) == 1:
            return True
    new: dict[str, Value] = {"load_balancer_id": load_balancer_id, "taken_at": to_microseconds(now)}
    return any(tx.run(_ADD, {"number": number, **new}) == 1 for number in range(limit) if number not in taken)


def turns(tx: Transaction, now: datetime) -> list[Turn]:
    """The replacements that are under way."""
    return [
        Turn(number=number, load_balancer_id=LoadBalancerId(holder), taken_at=from_microseconds(since))
        for number, holder, since, ahead, status in tx.rows(_SELECT, {})
        if _is_held(since, ahead, status, now)
    ]


def _is_held(since: int, ahead: int | None, status: str | None, now: datetime) -> bool:
    settled = not ahead or status == ProvisioningStatus.DELETED.value
    return not settled and abs(now - from_microseconds(since)) < HELD_FOR_AT_MOST
