"""Maintenance marks (model/maintenance.py): few rows, read whole."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import bindparam, delete, func, select

from frontinus.model.enums import AmphoraStatus
from frontinus.model.errors import NotFound
from frontinus.model.maintenance import Mark, MarkScope
from frontinus.store import schema
from frontinus.store.engine import Transaction
from frontinus.store.rows import Shape, to_microseconds
from frontinus.store.statement import Statement
from frontinus.store.trees import inserts

_SHAPE = Shape(Mark, schema.maintenance)
_t = schema.maintenance.c

_INSERT = inserts(_SHAPE, _SHAPE.columns)
_DELETE = Statement(
    delete(schema.maintenance).where(_t.scope == bindparam("which_scope"), _t.target == bindparam("which_target"))
)
_PURGE = Statement(delete(schema.maintenance).where(_t.until < bindparam("now")))
_SELECT = Statement(select(*[_t[name] for name in _SHAPE.columns]).order_by(_t.scope, _t.target))

_a = schema.amphora.c
_IS_HERE = _a.status.not_in([bindparam(None, x.value) for x in (AmphoraStatus.DELETED, AmphoraStatus.PENDING_DELETE)])
_COUNT = {
    scope: Statement(select(func.count()).select_from(schema.amphora).where(_IS_HERE, *which))
    for scope, which in {
        MarkScope.AMPHORA: (_a.id == bindparam("which"),),
        MarkScope.LOAD_BALANCER: (_a.load_balancer_id == bindparam("which"),),
        MarkScope.HOST: (_a.host == bindparam("which"),),
        MarkScope.INSTALLATION: (),
    }.items()
}


def put(tx: Transaction, mark: Mark) -> None:
    """Set a mark; one on the same thing gives way to it."""
    _delete(tx, mark.scope, mark.target)
    tx.insert(_INSERT, _SHAPE.columns, [_SHAPE.encode(mark)])


def remove(tx: Transaction, scope: MarkScope, target: str) -> None:
    """Take a mark off, and wake the controllers. Raises NotFound if there is none."""
    if _delete(tx, scope, target) != 1:
        raise NotFound("maintenance", f"there is no mark on {scope.replace('_', ' ')} {target}".rstrip())
    tx.wake()


def marks(tx: Transaction) -> list[Mark]:
    """Every mark, also those whose time is over and that are not purged yet."""
    return [_SHAPE.decode(row) for row in tx.rows(_SELECT, {})]


def count_covered(tx: Transaction, mark: Mark) -> int:
    """How many amphorae it covers now."""
    row = tx.row(_COUNT[mark.scope], {"which": mark.target})
    return 0 if row is None else int(row[0])


def purge(tx: Transaction, now: datetime) -> int:
    """Forget marks whose time is over; how many."""
    return tx.run(_PURGE, {"now": to_microseconds(now)})


def _delete(tx: Transaction, scope: MarkScope, target: str) -> int:
    return tx.run(_DELETE, {"which_scope": scope.value, "which_target": target})
