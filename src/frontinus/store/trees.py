"""Whole trees: read in a fixed number of selects, created in bulk, written by difference.

A tree that is to be changed is read and written in one transaction, with `for_update`: that row lock is what makes two
edits follow each other. Deletion is a flag here; rows are removed by convergence.py, when it has been carried out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any

from msgspec.structs import replace
from sqlalchemy import bindparam, case, delete, insert, select, update

from frontinus.model.cohorts import CohortName
from frontinus.model.enums import AmphoraStatus, Kind, ProvisioningStatus
from frontinus.model.errors import Bug, Unreadable
from frontinus.model.ids import LoadBalancerId, ProjectId
from frontinus.model.tree import LoadBalancer, LoadBalancerTree
from frontinus.store import rows, schema
from frontinus.store.engine import Transaction
from frontinus.store.rows import Shape
from frontinus.store.statement import Statement, Value, chunks, is_one_of, padded, padded_size

_MOST_TREES_AT_ONCE = 1024

SHAPE_OF: Mapping[Kind, Shape[Any]] = {
    Kind.LOAD_BALANCER: rows.LOAD_BALANCER,
    Kind.LISTENER: rows.LISTENER,
    Kind.POOL: rows.POOL,
    Kind.MEMBER: rows.MEMBER,
    Kind.HEALTH_MONITOR: rows.HEALTH_MONITOR,
    Kind.L7_POLICY: rows.L7_POLICY,
    Kind.L7_RULE: rows.L7_RULE,
}

# The tree's attribute, how its objects lie, parents before what refers to them.
_BRANCHES: tuple[tuple[str, Shape[Any]], ...] = (
    ("pools", rows.POOL),
    ("listeners", rows.LISTENER),
    ("members", rows.MEMBER),
    ("health_monitors", rows.HEALTH_MONITOR),
    ("l7_policies", rows.L7_POLICY),
    ("l7_rules", rows.L7_RULE),
)
_ALL_BRANCHES = (*_BRANCHES, ("amphorae", rows.AMPHORA))
_OWNER_POSITION = {shape.table.name: shape.columns.index("load_balancer_id") for _, shape in _ALL_BRANCHES}

_ID_POSITION = rows.LOAD_BALANCER.columns.index("id")

_LOAD_BALANCER_WORK: Mapping[str, Value] = {
    "driver": None,
    "driver_version": None,
    "due_at": None,
    "lease_owner": None,
    "lease_epoch": 0,
    "lease_expires_at": None,
    "nudges": 0,
    "claimed_nudges": 0,
    "claimed_generation": 0,
}
_LOAD_BALANCER_COLUMNS = (*rows.LOAD_BALANCER.columns, *_LOAD_BALANCER_WORK)


def columns_of(shape: Shape[Any]) -> list[Any]:
    """The columns to select so that `shape.decode` understands the row."""
    return [shape.table.c[name] for name in shape.columns]


def inserts(shape: Shape[Any], columns: Sequence[str]) -> Statement:
    """An insert of one row of `shape`, with its values in the order of `columns`."""
    return Statement(insert(shape.table).values({name: bindparam(name) for name in columns}))


_INSERT_LOAD_BALANCER = inserts(rows.LOAD_BALANCER, _LOAD_BALANCER_COLUMNS)
_INSERT_TAG = Statement(
    insert(schema.load_balancer_tag).values(tag=bindparam("tag"), load_balancer_id=bindparam("load_balancer_id"))
)
_DELETE_TAGS = Statement(
    delete(schema.load_balancer_tag).where(schema.load_balancer_tag.c.load_balancer_id == bindparam("which"))
)
_INSERT = {shape.table.name: inserts(shape, shape.columns) for _, shape in _BRANCHES}


@cache
def _select_load_balancers(count: int, *, for_update: bool) -> Statement:
    table = schema.load_balancer
    found = select(*columns_of(rows.LOAD_BALANCER)).where(
        is_one_of(table.c.id, count), table.c.provisioning_status != ProvisioningStatus.DELETED.value
    )
    return Statement(found.with_for_update() if for_update else found)


@cache
def _select_branch(name: str, count: int) -> Statement:
    shape = dict(_ALL_BRANCHES)[name]
    table = shape.table
    found = select(*columns_of(shape)).where(is_one_of(table.c.load_balancer_id, count))
    if shape is rows.AMPHORA:
        found = found.where(table.c.status != AmphoraStatus.DELETED.value)
    # One tree's rows together and in the order of lists; what is rendered from them does not depend on luck.
    return Statement(found.order_by(table.c.load_balancer_id, table.c.created_at, table.c.id))


@cache
def update_of(shape: Shape[Any], columns: tuple[str, ...]) -> Statement:
    """`UPDATE table SET these columns WHERE id = :which`."""
    return Statement(
        update(shape.table)
        .where(shape.table.c.id == bindparam("which"))
        .values({name: bindparam(name) for name in columns})
    )


@cache
def _update_load_balancer(columns: tuple[str, ...]) -> Statement:
    table = schema.load_balancer
    values: dict[str, Any] = {name: bindparam(name) for name in columns}
    if "due_at" in values:
        # One that waits already keeps its place in the queue, however often it is edited.
        is_waiting = table.c.due_at <= bindparam("due_at")
        values["due_at"] = case((is_waiting, table.c.due_at), else_=bindparam("due_at"))
    return Statement(
        update(table)
        .where(table.c.id == bindparam("which"), table.c.generation == bindparam("generation_before"))
        .values(values)
    )


@cache
def _select_owner(kind: Kind) -> Statement:
    table = SHAPE_OF[kind].table
    if kind is Kind.LOAD_BALANCER:
        return Statement(
            select(table.c.id).where(
                table.c.id == bindparam("id"), table.c.provisioning_status != ProvisioningStatus.DELETED.value
            )
        )
    return Statement(select(table.c.load_balancer_id).where(table.c.id == bindparam("id")))


_PARENT_COLUMN = {Kind.MEMBER: "pool_id", Kind.L7_RULE: "l7_policy_id"}


@cache
def _select_project(kind: Kind, *, below: bool) -> Statement:
    table = SHAPE_OF[kind].table
    found = select(table.c.project_id).where(table.c.id == bindparam("id"))
    if kind is Kind.LOAD_BALANCER:
        found = found.where(table.c.provisioning_status != ProvisioningStatus.DELETED.value)
    if below:
        found = found.where(table.c[_PARENT_COLUMN[kind]] == bindparam("parent_id"))
    return Statement(found)


_SELECT_PROJECT_OF_AMPHORA = Statement(
    select(schema.load_balancer.c.project_id)
    .select_from(
        schema.amphora.join(schema.load_balancer, schema.load_balancer.c.id == schema.amphora.c.load_balancer_id)
    )
    .where(schema.amphora.c.id == bindparam("id"))
)


def read_tree(
    tx: Transaction, load_balancer_id: LoadBalancerId, *, for_update: bool = False
) -> LoadBalancerTree | None:
    """The tree in eight selects whatever its size, or None if there is none or it is DELETED.

    `for_update` locks the load balancer's row until the transaction ends; whoever writes the tree must ask for it.
    Amphorae that are DELETED are left out."""
    wanted = {"id_0": load_balancer_id}
    row = tx.row(_select_load_balancers(1, for_update=for_update), wanted)
    if row is None:
        return None
    branches: dict[str, Any] = {
        name: tuple([shape.decode(x) for x in tx.rows(_select_branch(name, 1), wanted)])
        for name, shape in _ALL_BRANCHES
    }
    return LoadBalancerTree(load_balancer=rows.LOAD_BALANCER.decode(row), **branches)


def read_again(tx: Transaction, before: LoadBalancerTree) -> LoadBalancerTree | None:
    """The same tree as it is now, for whoever holds its lease: in two selects where nothing was asked or settled since.
    What is below the load balancer is then as `before` has it, but for what health has seen."""
    wanted = {"id_0": before.id}
    row = tx.row(_select_load_balancers(1, for_update=False), wanted)
    if row is None:
        return None
    load_balancer, known = rows.LOAD_BALANCER.decode(row), before.load_balancer
    if (load_balancer.generation, load_balancer.applied_generation) != (known.generation, known.applied_generation):
        return read_tree(tx, before.id)
    amphorae = tuple([rows.AMPHORA.decode(x) for x in tx.rows(_select_branch("amphorae", 1), wanted)])
    return replace(before, load_balancer=load_balancer, amphorae=amphorae)


def read_trees(
    tx: Transaction,
    load_balancer_ids: Iterable[LoadBalancerId],
    *,
    unreadable: dict[LoadBalancerId, Unreadable] | None = None,
) -> dict[LoadBalancerId, LoadBalancerTree]:
    """Many trees in the same eight selects (eight per 1,024 trees). Unknown and DELETED ones are missing, and so are those with
    a row that cannot be understood, if there is a place to tell why; else that is raised (Unreadable)."""
    result: dict[LoadBalancerId, LoadBalancerTree] = {}
    broken: dict[LoadBalancerId, Unreadable] = {}
    for part in chunks(list(dict.fromkeys(load_balancer_ids)), _MOST_TREES_AT_ONCE):
        size = padded_size(len(part))
        wanted = padded(part, size)
        found: list[LoadBalancer] = []
        for row in tx.rows(_select_load_balancers(size, for_update=False), wanted):
            try:
                found.append(rows.LOAD_BALANCER.decode(row))
            except Unreadable as error:
                broken[LoadBalancerId(row[_ID_POSITION])] = error
        branches: dict[str, dict[str, list[Any]]] = {}
        for name, shape in _ALL_BRANCHES:
            of_owner: dict[str, list[Any]] = defaultdict(list)
            position = _OWNER_POSITION[shape.table.name]
            for row in tx.rows(_select_branch(name, size), wanted):
                try:
                    of_owner[row[position]].append(shape.decode(row))
                except Unreadable as error:
                    broken[LoadBalancerId(row[position])] = error
            branches[name] = of_owner
        if broken and unreadable is None:
            raise next(iter(broken.values()))
        for load_balancer in found:
            if load_balancer.id in broken:
                continue
            own: dict[str, Any] = {name: tuple(x.get(load_balancer.id, ())) for name, x in branches.items()}
            result[load_balancer.id] = LoadBalancerTree(load_balancer=load_balancer, **own)
    if unreadable is not None:
        unreadable |= broken
    return result


def create_tree(tx: Transaction, tree: LoadBalancerTree, cohort: CohortName | None = None) -> None:
    """Insert a whole new load balancer, due at once, and wake the controllers of its cohort; without one it waits until
    one takes it (cohorts.take_over). Its amphorae must be none.

    Raises Bug if an id exists already or an object names a parent that does not."""
    if tree.amphorae:
        raise Bug("a new load balancer has no amphorae yet; convergence.add_amphora makes them")
    insert_tree(tx, tree, cohort, due_at=tree.load_balancer.created_at)
    tx.wake()


def insert_tree(tx: Transaction, tree: LoadBalancerTree, cohort: CohortName | None, *, due_at: datetime | None) -> None:
    """The rows of a whole new load balancer, without its amphorae. For create_tree, and for what is carried already."""
    load_balancer = tree.load_balancer
    work: dict[str, Value] = {
        **_LOAD_BALANCER_WORK,
        "driver": None if cohort is None else cohort.driver,
        "driver_version": None if cohort is None else cohort.driver_version,
        "due_at": rows.optional_microseconds(due_at),
    }
    tx.insert(
        _INSERT_LOAD_BALANCER,
        _LOAD_BALANCER_COLUMNS,
        [(*rows.LOAD_BALANCER.encode(load_balancer), *work.values())],
    )
    _write_tags(tx, load_balancer, afresh=True)
    for name, shape in _BRANCHES:
        tx.insert(_INSERT[shape.table.name], shape.columns, [shape.encode(x) for x in getattr(tree, name)])


def write_tree(tx: Transaction, before: LoadBalancerTree, after: LoadBalancerTree) -> None:
    """Write what differs between two values of one tree: new objects, and of the others only the columns that changed.

    `before` must have been read in this transaction with `for_update`. If the generation moved, the load balancer is
    due at the time of the edit (its updated_at) if it was not before, and the controllers are woken. Amphorae are never written, objects are
    never removed. Raises Bug if `before` is not what is stored, or `after` lacks an object."""
    _write_load_balancer(tx, before.load_balancer, after.load_balancer)
    for name, shape in _BRANCHES:
        _write_branch(tx, shape, getattr(before, name), getattr(after, name))


def load_balancer_of(tx: Transaction, kind: Kind, object_id: str) -> LoadBalancerId | None:
    """Which tree an object is in, or None if there is no such object."""
    row = tx.row(_select_owner(kind), {"id": object_id})
    return None if row is None else LoadBalancerId(row[0])


def project_of(tx: Transaction, kind: Kind, object_id: str, *, parent_id: str | None = None) -> ProjectId | None:
    """Whose an object is, or None if there is no such object, or not below that pool (member) or L7 policy (rule)."""
    row = tx.row(_select_project(kind, below=parent_id is not None), {"id": object_id, "parent_id": parent_id})
    return None if row is None else ProjectId(row[0])


def project_of_amphora(tx: Transaction, amphora_id: str) -> ProjectId | None:
    """Whose load balancer an amphora serves, or None if there is no such amphora."""
    row = tx.row(_SELECT_PROJECT_OF_AMPHORA, {"id": amphora_id})
    return None if row is None else ProjectId(row[0])


def _write_tags(tx: Transaction, load_balancer: LoadBalancer, *, afresh: bool) -> None:
    """Where listing.py finds load balancers by tag. Costs nothing for those that have none."""
    if not afresh:
        tx.run(_DELETE_TAGS, {"which": load_balancer.id})
    tx.insert(_INSERT_TAG, ("tag", "load_balancer_id"), [(tag, load_balancer.id) for tag in set(load_balancer.tags)])


def _write_load_balancer(tx: Transaction, before: LoadBalancer, after: LoadBalancer) -> None:
    if before is after:
        return
    if before.id != after.id:
        raise Bug(f"these are two trees: {before.id} and {after.id}")
    changed = rows.LOAD_BALANCER.changed(before, after)
    if after.generation != before.generation:
        changed["due_at"] = rows.to_microseconds(after.updated_at or after.created_at)
        tx.wake()
    if not changed:
        return
    matched = tx.run(
        _update_load_balancer(tuple(changed)), {**changed, "which": before.id, "generation_before": before.generation}
    )
    if matched != 1:
        raise Bug(f"load balancer {before.id} was changed since it was read: read it in the transaction that writes it")
    if "tags" in changed:
        _write_tags(tx, after, afresh=False)


def _write_branch(tx: Transaction, shape: Shape[Any], before: tuple[Any, ...], after: tuple[Any, ...]) -> None:
    if before is after:
        return
    known = {x.id: x for x in before}
    fresh: list[tuple[Value, ...]] = []
    updates: dict[tuple[str, ...], list[dict[str, Value]]] = defaultdict(list)
    for each in after:
        old = known.pop(each.id, None)
        if old is None:
            fresh.append(shape.encode(each))
        elif old is not each:
            changed = shape.changed(old, each)
            if changed:
                updates[tuple(changed)].append({**changed, "which": each.id})
    if known:
        raise Bug(f"{shape.table.name} {', '.join(sorted(known))} is missing: deletion is a flag, not an absence")
    for columns, parameters in updates.items():
        tx.run_many(update_of(shape, columns), parameters)
    tx.insert(_INSERT[shape.table.name], shape.columns, fresh)
