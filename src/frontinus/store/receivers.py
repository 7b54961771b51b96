"""Receivers of heartbeats: who they are, whether they brake, and what each has heard.

What was heard lies in one text per receiver (health/memory.py makes it and reads it), so that it costs one statement
whatever the size of the fleet."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import bindparam, delete, select, update

from frontinus.model.ids import ReceiverId
from frontinus.model.receivers import Receiver
from frontinus.store import schema
from frontinus.store.engine import Transaction
from frontinus.store.rows import Shape, to_microseconds
from frontinus.store.statement import Statement, Value, insert_if_absent

_FORGET_AFTER = timedelta(minutes=10)

_t = schema.receiver.c


_SHAPE = Shape(Receiver, schema.receiver)
_ADD = Statement(insert_if_absent(schema.receiver, (*_SHAPE.columns, "heard")))
_TELL = Statement(
    update(schema.receiver)
    .where(_t.id == bindparam("which"))
    .values({name: bindparam(name) for name in ("seen_at", "watched", "silent", "braked")})
)
_REMEMBER = Statement(
    update(schema.receiver)
    .where(_t.id == bindparam("which"))
    .values(heard=bindparam("heard"), turn=bindparam("turn"), seen_at=bindparam("seen_at"))
)
_SELECT = Statement(select(*[_t[name] for name in _SHAPE.columns]).order_by(_t.started_at, _t.id))
_HEARD = Statement(select(_t.heard).where(_t.id == bindparam("which")))
_FORGET = Statement(delete(schema.receiver).where(_t.id != bindparam("which"), _t.seen_at < bindparam("before")))


def tell(tx: Transaction, receiver: Receiver) -> None:
    """Say that a receiver is there and how things stand with it."""
    values = dict(zip(_SHAPE.columns, _SHAPE.encode(receiver), strict=True))
    if tx.run(_TELL, {**values, "which": receiver.id}) != 1:
        tx.run(_ADD, {**values, "heard": ""})


def remember(tx: Transaction, receiver: Receiver, heard: str) -> None:
    """Keep what it has heard, as of `receiver.turn`. Nothing happens for one that was never told of."""
    told: dict[str, Value] = {
        "which": receiver.id,
        "heard": heard,
        "turn": receiver.turn,
        "seen_at": to_microseconds(receiver.seen_at),
    }
    tx.run(_REMEMBER, told)


def all_receivers(tx: Transaction) -> list[Receiver]:
    """Those that are there, and those that were, until somebody forgets them."""
    return [_SHAPE.decode(row) for row in tx.rows(_SELECT, {})]


def heard_by(tx: Transaction, receiver_id: ReceiverId) -> str:
    """What a receiver kept last; empty if it kept nothing, or is not known."""
    row = tx.row(_HEARD, {"which": receiver_id})
    return "" if row is None else str(row[0])


def forget_silent(tx: Transaction, reader: ReceiverId, now: datetime) -> int:
    """Forget receivers that have been gone for long; `reader` has read what they heard. How many."""
    return tx.run(_FORGET, {"which": reader, "before": to_microseconds(now - _FORGET_AFTER)})
