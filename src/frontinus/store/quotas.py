"""What projects may have, and the count of what they have.

Rows are counted, there is no counter that could go wrong: what is being deleted counts until it is gone. Two creates of
one project follow each other, because whoever may add something holds the project's record for the transaction."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import cache

from msgspec.structs import replace
from sqlalchemy import bindparam, func, insert, select, update

from frontinus.model.enums import Kind, ProvisioningStatus
from frontinus.model.errors import OverQuota
from frontinus.model.ids import ProjectId
from frontinus.model.quotas import COUNTED, Limits, Quota, limited
from frontinus.store import rows, schema
from frontinus.store.engine import Transaction
from frontinus.store.statement import Statement
from frontinus.store.trees import SHAPE_OF, columns_of

_t = schema.quota.c
_HOLD = Statement(select(*columns_of(rows.QUOTA)).where(_t.project_id == bindparam("which")).with_for_update())
_READ = Statement(select(*columns_of(rows.QUOTA)).where(_t.project_id == bindparam("which")))
_INSERT = Statement(insert(schema.quota).values({name: bindparam(name) for name in rows.QUOTA.columns}))
_UPDATE = Statement(
    update(schema.quota)
    .where(_t.project_id == bindparam("which"))
    .values({kind.value: bindparam(kind.value) for kind in COUNTED})
)


@cache
def _count(kind: Kind) -> Statement:
    table = SHAPE_OF[kind].table
    found = select(func.count()).select_from(table).where(table.c.project_id == bindparam("which"))
    if kind is Kind.LOAD_BALANCER:
        found = found.where(table.c.provisioning_status != ProvisioningStatus.DELETED.value)
    return Statement(found)


def require_room(
    tx: Transaction, project_id: ProjectId, added: Mapping[Kind, int], defaults: Limits, now: datetime
) -> None:
    """Raise OverQuota naming the first kind of which the project would have more than it may.

    To be called in the transaction that adds the objects, before it does. A project that no limit concerns costs one
    select; the first time that one does, it gets a record."""
    if not added:
        return
    record = _hold(tx, project_id)
    quota = record or Quota(project_id=project_id, created_at=now)
    concerned = limited(quota.effective(defaults), added)
    if not concerned:
        return
    if record is None:
        _add(tx, quota)
    _refuse_excess(tx, project_id, added, concerned)


def look_for_room(tx: Transaction, project_id: ProjectId, added: Mapping[Kind, int], defaults: Limits) -> None:
    """As `require_room`, but keeping nobody out and writing nothing: for refusing early what is refused anyway."""
    row = tx.row(_READ, {"which": project_id})
    limits = {kind: getattr(defaults, kind) for kind in COUNTED}
    if row is not None:
        limits = rows.QUOTA.decode(row).effective(defaults)
    _refuse_excess(tx, project_id, added, limited(limits, added))


def _refuse_excess(
    tx: Transaction, project_id: ProjectId, added: Mapping[Kind, int], limits: Mapping[Kind, int]
) -> None:
    for kind, limit in limits.items():
        row = tx.row(_count(kind), {"which": project_id})
        used = 0 if row is None else int(row[0])
        if used + added[kind] > limit:
            raise OverQuota(
                kind, f"the project may have {limit} and has {used}; {added[kind]} more would be too many: delete some"
            )


def change(tx: Transaction, project_id: ProjectId, limits: Mapping[Kind, int | None], now: datetime) -> Quota:
    """Set some limits of a project (None: the default holds), and return its record, which is made if there is none."""
    record = _hold(tx, project_id)
    if record is None:
        record = Quota(project_id=project_id, created_at=now)
        _add(tx, record)
    changed = replace(record, **{kind.value: limit for kind, limit in limits.items()})
    tx.run(_UPDATE, {"which": project_id} | {kind.value: getattr(changed, kind) for kind in COUNTED})
    return changed


def has_record(tx: Transaction, project_id: ProjectId) -> bool:
    """Whether the project has a record, be it one in which the defaults hold."""
    return tx.row(_READ, {"which": project_id}) is not None


def reset(tx: Transaction, project_id: ProjectId) -> bool:
    """Let the defaults hold again; whether the project had a record. The record stays."""
    return tx.run(_UPDATE, {"which": project_id} | dict.fromkeys((kind.value for kind in COUNTED), None)) > 0


def _hold(tx: Transaction, project_id: ProjectId) -> Quota | None:
    row = tx.row(_HOLD, {"which": project_id})
    return None if row is None else rows.QUOTA.decode(row)


def _add(tx: Transaction, quota: Quota) -> None:
    tx.insert(_INSERT, rows.QUOTA.columns, [rows.QUOTA.encode(quota)])
