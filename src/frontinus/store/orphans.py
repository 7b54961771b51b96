"""Who was seen outside without being known here, and since when (model/orphans.py). Few rows; none, most of the time."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta

from sqlalchemy import bindparam, delete, select, update

from frontinus.model.belongings import Owner
from frontinus.model.orphans import Sighting
from frontinus.store import inventory, schema
from frontinus.store.engine import Transaction
from frontinus.store.rows import Shape, to_microseconds
from frontinus.store.statement import Statement, Value, insert_if_absent

FORGOTTEN_AFTER = timedelta(days=1)
"""Who has not been seen for so long is gone; if he is seen again, that is the first time."""

_SHAPE = Shape(Sighting, schema.orphan)
_t = schema.orphan.c
_THIS = (_t.kind == bindparam("which_kind"), _t.owner_id == bindparam("which_id"))
_SELECT = Statement(select(*[_t[name] for name in _SHAPE.columns]).order_by(_t.kind, _t.owner_id))
_INSERT = Statement(insert_if_absent(schema.orphan, _SHAPE.columns))
_SEEN = Statement(update(schema.orphan).where(*_THIS, _t.seen_at < bindparam("now")).values(seen_at=bindparam("now")))
_DELETE = Statement(delete(schema.orphan).where(*_THIS))
_PURGE = Statement(delete(schema.orphan).where(_t.seen_at < bindparam("before")))


def sightings(tx: Transaction) -> dict[Owner, Sighting]:
    """All that are remembered."""
    return {x.owner: x for x in map(_SHAPE.decode, tx.rows(_SELECT, {}))}


def note(tx: Transaction, seen: Collection[Owner], now: datetime) -> dict[Owner, Sighting]:
    """These were seen now without a row: those of them that have none still, each with its first time. Whoever has one by now
    is forgotten, and so is who was not seen for long."""
    tx.run(_PURGE, {"before": to_microseconds(now - FORGOTTEN_AFTER)})
    known, before = inventory.known(tx), sightings(tx)
    for owner in before:
        if known.has(owner):
            forget(tx, owner)
    lost = [x for x in seen if not known.has(x)]
    for owner in lost:
        if owner in before:
            tx.run(_SEEN, {**_which(owner), "now": to_microseconds(now)})
        else:
            sighting = Sighting(kind=owner.kind, owner_id=owner.id, first_seen_at=now, seen_at=now)
            tx.insert(_INSERT, _SHAPE.columns, [_SHAPE.encode(sighting)])
    after = sightings(tx)
    return {owner: after[owner] for owner in lost if owner in after}


def forget(tx: Transaction, owner: Owner) -> None:
    """It is gone."""
    tx.run(_DELETE, _which(owner))


def _which(owner: Owner) -> dict[str, Value]:
    return {"which_kind": owner.kind.value, "which_id": owner.id}
