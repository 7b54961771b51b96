"""Slots of spare amphorae: reserved before anything is built, guarded by the amphora's id and the time it was touched.

No lease: whoever touches a slot first has it until the others think him dead. Next: controller/spares.py."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import and_, bindparam, delete, or_, select, update

from frontinus.model.ids import AmphoraId
from frontinus.model.spares import Spare, SpareStatus
from frontinus.model.tree import Amphora
from frontinus.store import schema
from frontinus.store.engine import Transaction
from frontinus.store.rows import Shape, to_json, to_microseconds
from frontinus.store.statement import Statement, insert_if_absent

_t = schema.spare.c
_SHAPE = Shape(Spare, schema.spare)
_COLUMNS = [_t[name] for name in _SHAPE.columns]
_THIS = and_(
    _t.pool == bindparam("which_pool"), _t.slot == bindparam("which_slot"), _t.amphora_id == bindparam("whose")
)

_RESERVE = Statement(insert_if_absent(schema.spare, _SHAPE.columns))
_IN_POOL = Statement(select(*_COLUMNS).where(_t.pool == bindparam("which_pool")).order_by(_t.slot))
_OF_KIND = Statement(
    select(*_COLUMNS)
    .where(or_(_t.pool == bindparam("which_pool"), _t.pool.like(bindparam("below"))))
    .order_by(_t.pool, _t.slot)
)
_READY = Statement(
    select(*_COLUMNS)
    .where(_t.pool == bindparam("which_pool"), _t.status == SpareStatus.READY.value)
    .order_by(_t.slot)
    .with_for_update(skip_locked=True)
)
_TOUCH = Statement(
    update(schema.spare)
    .where(_THIS, _t.status == bindparam("status_before"), _t.touched_at == bindparam("touched_before"))
    .values(status=bindparam("status_after"), touched_at=bindparam("now"))
)
_WRITE = Statement(
    update(schema.spare)
    .where(_THIS, _t.status == bindparam("status_before"))
    .values(status=bindparam("status_after"), amphora=bindparam("text"), touched_at=bindparam("now"))
)
_FORGET = Statement(delete(schema.spare).where(_THIS))
_KNOWN = Statement(select(_t.amphora_id))


def reserve(tx: Transaction, spare: Spare) -> bool:
    """Note a spare before anything is built under its name; False if its slot is not free."""
    tx.insert(_RESERVE, _SHAPE.columns, [_SHAPE.encode(spare)])
    return any(x.slot == spare.slot and x.amphora_id == spare.amphora_id for x in in_pool(tx, spare.pool))


def in_pool(tx: Transaction, pool: str) -> list[Spare]:
    """All slots that are not empty."""
    return [_SHAPE.decode(row) for row in tx.rows(_IN_POOL, {"which_pool": pool})]


def of_kind(tx: Transaction, pool: str) -> list[Spare]:
    """All slots that are not empty of this pool and of those whose names go on from its name with a slash."""
    return [_SHAPE.decode(row) for row in tx.rows(_OF_KIND, {"which_pool": pool, "below": f"{pool}/%"})]


def touch(tx: Transaction, spare: Spare, status: SpareStatus, now: datetime) -> bool:
    """Have to do with it from now on, as it was read; False if somebody else did meanwhile."""
    values = {"status_before": spare.status.value, "touched_before": to_microseconds(spare.touched_at)}
    return tx.run(_TOUCH, {**_this(spare), **values, "status_after": status.value, "now": to_microseconds(now)}) == 1


def write(tx: Transaction, spare: Spare, status: SpareStatus, amphora: Amphora, now: datetime) -> bool:
    """Record what was made of it; False if it is in this status no more."""
    values = {"status_before": spare.status.value, "status_after": status.value, "text": to_json(amphora)}
    return tx.run(_WRITE, {**_this(spare), **values, "now": to_microseconds(now)}) == 1


def forget(tx: Transaction, spare: Spare) -> None:
    """The slot is empty: nothing of it is left outside."""
    tx.run(_FORGET, _this(spare))


def take(tx: Transaction, pool: str, hosts: Collection[str]) -> Amphora | None:
    """A ready spare, out of its slot, on none of these hosts; None if there is none. Whoever takes it records it as an
    amphora in the same transaction."""
    for row in tx.rows(_READY, {"which_pool": pool}):
        spare = _SHAPE.decode(row)
        if spare.amphora.host in hosts:
            continue
        tx.run(_FORGET, _this(spare))
        return spare.amphora
    return None


def known(tx: Transaction) -> frozenset[AmphoraId]:
    """Every spare of every pool."""
    return frozenset(AmphoraId(row[0]) for row in tx.rows(_KNOWN, {}))


def _this(spare: Spare) -> dict[str, str | int | float | bool | None]:
    return {"which_pool": spare.pool, "which_slot": spare.slot, "whose": spare.amphora_id}
