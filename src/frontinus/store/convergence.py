"""What a controller writes while it converges a load balancer: every write is fenced by its lease.

The first statement of each function reads, and on engines with row locks locks, the load balancer's row under owner and
epoch of the lease; if there is none, LeaseLost is raised and nothing was written. Functions that are told the time also refuse
a lease whose time is over.

A wish or a suspicion that arose after the lease was taken keeps the load balancer due, whatever is recorded here: the
row remembers generation and nudges at the time of the claim."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from functools import cache
from typing import Any

import msgspec
from msgspec.structs import replace
from sqlalchemy import and_, bindparam, case, delete, func, or_, select, update

from frontinus.model.enums import AmphoraStatus, Kind, OperatingStatus, ProvisioningStatus
from frontinus.model.errors import Bug, NoTurn
from frontinus.model.ids import AmphoraId, PortId
from frontinus.model.status import after_edit, move_amphora, move_provisioning
from frontinus.model.tree import AdditionalVip, Amphora, Fault, LoadBalancer, LoadBalancerTree
from frontinus.store import amphorae, replacements, rows, schema, spares
from frontinus.store.engine import Transaction
from frontinus.store.health import mark_due
from frontinus.store.leases import Lease, lost
from frontinus.store.rows import from_microseconds, optional_microseconds, to_microseconds
from frontinus.store.statement import Statement, Value, is_one_of, padded, padded_size
from frontinus.store.trees import SHAPE_OF, columns_of, inserts, update_of

_P = ProvisioningStatus
_t = schema.load_balancer.c

_WORK_COLUMNS = ("lease_expires_at", "due_at", "nudges", "claimed_nudges", "claimed_generation")
_PENDING = (_P.PENDING_CREATE, _P.PENDING_UPDATE, _P.PENDING_DELETE)
_SETTLED_FROM = (_P.PENDING_CREATE, _P.PENDING_UPDATE, _P.ERROR)
_OBSERVED_BY_WISH = (Kind.HEALTH_MONITOR, Kind.L7_POLICY, Kind.L7_RULE)
"""Nothing in the data plane reports on these: their operating status follows from what was asked."""

_CHILDREN_LAST_FIRST = (
    Kind.L7_RULE,
    Kind.L7_POLICY,
    Kind.LISTENER,
    Kind.MEMBER,
    Kind.HEALTH_MONITOR,
    Kind.POOL,
)


class _Held(msgspec.Struct, frozen=True):
    """The load balancer's row as it is under the lease."""

    load_balancer: LoadBalancer
    expires_at: datetime | None
    due_at: int | None
    nudged: bool
    claimed_generation: int

    @property
    def has_news(self) -> bool:
        """Whether something was asked or noticed since the lease was taken. If not, a tree that was read under the lease is
        what another look would find, but for what the holder himself wrote."""
        return self.nudged or self.claimed_generation != self.load_balancer.generation


_SELECT_HELD = Statement(
    select(*columns_of(rows.LOAD_BALANCER), *[_t[name] for name in _WORK_COLUMNS])
    .where(_t.id == bindparam("which"), _t.lease_owner == bindparam("owner"), _t.lease_epoch == bindparam("epoch"))
    .with_for_update()
)
_SELECT_AMPHORA = Statement(
    select(*columns_of(rows.AMPHORA)).where(schema.amphora.c.id == bindparam("which")).with_for_update()
)
_INSERT_AMPHORA = inserts(rows.AMPHORA, rows.AMPHORA.columns)
_DELETE_AMPHORAE = Statement(
    update(schema.amphora)
    .where(
        schema.amphora.c.load_balancer_id == bindparam("which"),
        schema.amphora.c.status != AmphoraStatus.DELETED.value,
    )
    .values(status=AmphoraStatus.DELETED.value, updated_at=bindparam("now"))
)
_PURGE_AMPHORAE = Statement(
    delete(schema.amphora).where(
        schema.amphora.c.status == AmphoraStatus.DELETED.value,
        func.coalesce(schema.amphora.c.updated_at, schema.amphora.c.created_at) < bindparam("before"),
    )
)
_PURGE_LOAD_BALANCERS = Statement(
    delete(schema.load_balancer).where(
        _t.provisioning_status == _P.DELETED.value, func.coalesce(_t.updated_at, _t.created_at) < bindparam("before")
    )
)


def _words(words: tuple[ProvisioningStatus, ...]) -> list[Any]:
    # A bind per word, because a list would become one expanding parameter, which is not compiled once.
    return [bindparam(None, word.value) for word in words]


@cache
def _remove_children(kind: Kind) -> Statement:
    table = SHAPE_OF[kind].table
    return Statement(
        delete(table).where(
            table.c.load_balancer_id == bindparam("which"),
            table.c.delete_requested.is_(True),
            table.c.changed_generation <= bindparam("applied"),
        )
    )


@cache
def _remove_all(kind: Kind) -> Statement:
    table = SHAPE_OF[kind].table
    return Statement(delete(table).where(table.c.load_balancer_id == bindparam("which")))


@cache
def _settle_children(kind: Kind, excluded: int) -> Statement:
    table = SHAPE_OF[kind].table
    settled = and_(
        table.c.load_balancer_id == bindparam("which"),
        table.c.changed_generation <= bindparam("applied"),
        table.c.delete_requested.is_(False),
        or_(table.c.provisioning_status.in_(_words(_SETTLED_FROM)), table.c.fault.is_not(None)),
    )
    if excluded:
        settled = and_(settled, ~is_one_of(table.c.id, excluded))
    values: dict[str, Any] = {"provisioning_status": _P.ACTIVE.value, "fault": None}
    if kind in _OBSERVED_BY_WISH:
        values["operating_status"] = case(
            (table.c.admin_state_up.is_(True), OperatingStatus.ONLINE.value), else_=OperatingStatus.OFFLINE.value
        )
    return Statement(update(table).where(settled).values(values))


@cache
def _exclude_child(kind: Kind) -> Statement:
    table = SHAPE_OF[kind].table
    return Statement(
        update(table)
        .where(
            table.c.load_balancer_id == bindparam("which"),
            table.c.id == bindparam("child"),
            table.c.changed_generation <= bindparam("applied"),
        )
        .values(provisioning_status=_P.ERROR.value, fault=bindparam("fault_text"))
    )


@cache
def _blame_child(kind: Kind) -> Statement:
    table = SHAPE_OF[kind].table
    return Statement(
        update(table)
        .where(table.c.load_balancer_id == bindparam("which"), table.c.id == bindparam("child"))
        .values(fault=bindparam("fault_text"))
    )


@cache
def _fail_children(kind: Kind, *, new: bool) -> Statement:
    table = SHAPE_OF[kind].table
    failed = update(table).where(
        table.c.load_balancer_id == bindparam("which"),
        table.c.changed_generation <= bindparam("claimed"),
        table.c.provisioning_status.in_(_words((_P.PENDING_CREATE,) if new else _PENDING)),
    )
    # The status alone would not tell any more that no amphora has it.
    told: dict[str, Any] = {"fault": bindparam("fault_text")} if new else {}
    return Statement(failed.values(provisioning_status=_P.ERROR.value, **told))


def add_amphora(tx: Transaction, lease: Lease, amphora: Amphora) -> Amphora | None:
    """Note an amphora before anything is built under its name. Returns it, or None when there is news (see
    update_amphora). Raises LeaseLost; Bug if the id exists."""
    held = _hold(tx, lease)
    _require_own(lease, amphora)
    tx.insert(_INSERT_AMPHORA, rows.AMPHORA.columns, [rows.AMPHORA.encode(amphora)])
    return None if held.has_news else amphora


def add_spare_amphora(
    tx: Transaction, lease: Lease, wanted: Amphora, pool: str, hosts: Collection[str]
) -> Amphora | None:
    """Note a ready spare (on none of these hosts) as the amphora that is wanted; None, and nothing noted, if there is
    none. Raises LeaseLost."""
    _hold(tx, lease)
    taken = spares.take(tx, pool, hosts)
    if taken is None:
        return None
    amphora = replace(
        taken,
        load_balancer_id=wanted.load_balancer_id,
        project_id=wanted.project_id,
        role=wanted.role,
        created_at=wanted.created_at,
    )
    add_amphora(tx, lease, amphora)
    return amphora


def update_amphora(tx: Transaction, lease: Lease, amphora: Amphora) -> Amphora | None:
    """Write what changed of an amphora, and return it as it is now; None when there is news: something was asked or noticed
    since the lease was taken, and whoever goes on must read the tree anew. Raises LeaseLost; Bug for an unknown id or a
    status that cannot follow.

    What health/ noted meanwhile is not undone: a later seen_at stays, and so does a suspicion that arose since the
    lease was taken, because this controller cannot have looked into it. Nor are wishes of the API."""
    held = _hold(tx, lease)
    changed = _update_amphora(tx, lease, held, amphora)
    return None if held.has_news else changed


def _update_amphora(tx: Transaction, lease: Lease, held: _Held, amphora: Amphora) -> Amphora:
    _require_own(lease, amphora)
    row = tx.row(_SELECT_AMPHORA, {"which": amphora.id})
    if row is None:
        raise Bug(f"amphora {amphora.id} was never added")
    before = rows.AMPHORA.decode(row)
    _require_own(lease, before)
    move_amphora(before.status, amphora.status)
    kept: dict[str, datetime | None] = {
        # Others ask: the API, and health.
        "replacement_requested_at": before.replacement_requested_at,
        "push_requested_at": before.push_requested_at,
    }
    if before.seen_at is not None and (amphora.seen_at is None or amphora.seen_at < before.seen_at):
        kept["seen_at"] = before.seen_at
    if held.nudged and before.suspected_at is not None:
        kept["suspected_at"] = before.suspected_at
    after = replace(amphora, **kept)
    changed = rows.AMPHORA.changed(before, after)
    if changed:
        tx.run(update_of(rows.AMPHORA, tuple(changed)), {**changed, "which": amphora.id})
    return after


def request_replacement(tx: Transaction, lease: Lease, amphora_id: AmphoraId, now: datetime) -> None:
    """The controller's own wish that this amphora be replaced, kept as if an administrator had asked. Raises LeaseLost."""
    _hold(tx, lease)
    amphorae.request_replacement(tx, amphora_id, now)


def replace_outgrown(tx: Transaction, lease: Lease, amphora_id: AmphoraId, now: datetime) -> None:
    """The same, asked by who does not go on to converge: controllers look at it as soon as the lease is free. Raises
    LeaseLost."""
    request_replacement(tx, lease, amphora_id, now)
    mark_due(tx, [lease.load_balancer_id], now)


def record_settled(
    tx: Transaction,
    lease: Lease,
    generation: int,
    now: datetime,
    *,
    excluding: Mapping[str, Fault] | None = None,
    failed: Fault | None = None,
    tree: LoadBalancerTree | None = None,
    again_at: datetime | None = None,
) -> LoadBalancer:
    """The amphorae run `generation`: settle what it touched, and return the load balancer as it is now.

    Children that it touched become ACTIVE and lose their fault, or are removed if that was asked; those that a later
    edit touched stay as they are. The load balancer becomes ACTIVE if no later edit came. `excluding` maps ids of
    children that could not be carried, or not whole, to why: they become ERROR with that fault, the first fault is shown on the load
    balancer too, and it is due again at the earliest retry_at. `failed` is a permanent fault of the load balancer itself, though
    all of it is carried: it becomes ERROR, and its children do not. `tree` is this one as it was read at that generation or a
    later one, under this lease: of what it does not have nothing need be settled. `again_at`: something that nobody waits for
    remains to be done, and it is due again then at the latest. Raises LeaseLost; Bug for a generation never asked for or a load
    balancer that is to be deleted."""
    held = _hold(tx, lease, now)
    return _record_settled(tx, held, generation, excluding or {}, tree, failed=failed, again_at=again_at)


def finish(
    tx: Transaction,
    lease: Lease,
    generation: int,
    now: datetime,
    *,
    amphora: Amphora | None = None,
    tree: LoadBalancerTree | None = None,
) -> bool:
    """As record_settled, after update_amphora of `amphora` if the last step was its, and give the lease back: everything
    that ends the work on a load balancer, in one transaction. Returns whether the lease was given back.

    It is not while there is news (see update_amphora): then the amphora is written and nothing is settled before the
    holder has looked again; without an amphora, what is settled is settled. Raises as both."""
    held = _hold(tx, lease, None if amphora is not None else now)
    if amphora is not None:
        _update_amphora(tx, lease, held, amphora)
        if held.has_news or held.expires_at is None or held.expires_at <= now:
            return False
    _record_settled(tx, held, generation, {}, tree, release=not held.has_news)
    return not held.has_news


def _record_settled(
    tx: Transaction,
    held: _Held,
    generation: int,
    excluding: Mapping[str, Fault],
    tree: LoadBalancerTree | None,
    *,
    failed: Fault | None = None,
    release: bool = False,
    again_at: datetime | None = None,
) -> LoadBalancer:
    load_balancer = held.load_balancer
    if generation > load_balancer.generation:
        raise Bug(f"generation {generation} of load balancer {load_balancer.id} was never asked for")
    is_current = generation == load_balancer.generation
    if is_current and load_balancer.delete_requested:
        raise Bug(f"load balancer {load_balancer.id} is to be deleted, not settled")
    faults = dict(excluding)
    # Where it was settled already, as when only a driver of another version pushed, nothing below it can be otherwise.
    was_settled = (
        load_balancer.applied_generation == generation
        and load_balancer.provisioning_status is _P.ACTIVE
        and load_balancer.fault is None
    )
    if faults or not was_settled:
        _settle(tx, load_balancer, generation, faults, tree)
    first_fault = next(iter(faults.values()), None)
    settled = replace(
        load_balancer,
        applied_generation=max(generation, load_balancer.applied_generation),
        fault=failed or first_fault,
        provisioning_status=(
            move_provisioning(load_balancer.provisioning_status, _P.ACTIVE if failed is None else _P.ERROR)
            if is_current
            else load_balancer.provisioning_status
        ),
    )
    retries = [x.retry_at for x in faults.values() if x.retry_at is not None and not x.permanent]
    again = min(retries if again_at is None else (*retries, again_at), default=None)
    due_at = optional_microseconds(again) if is_current and not held.nudged else held.due_at
    _write(tx, held, settled, due_at, release=release)
    return settled


def record_fault(tx: Transaction, lease: Lease, fault: Fault, now: datetime, *, report_error: bool) -> None:
    """It could not be carried out: show why on the load balancer, and on the child that the fault names.

    Due again at the fault's retry_at, or never without one; at once if something was asked since the lease was
    taken. `report_error` turns PENDING statuses of what was asked by then into ERROR; a requested deletion stays
    requested, and what is new beside what runs is marked as left out by the fault. Raises LeaseLost."""
    held = _hold(tx, lease, now)
    load_balancer = held.load_balancer
    is_current = held.claimed_generation == load_balancer.generation
    which: dict[str, Value] = {"which": load_balancer.id}
    if fault.object_id is not None and fault.object_kind not in (None, Kind.LOAD_BALANCER):
        told: dict[str, Value] = {**which, "child": fault.object_id, "fault_text": rows.to_json(fault)}
        tx.run(_blame_child(fault.object_kind), told)
    if report_error:
        asked_by_then: dict[str, Value] = {**which, "claimed": held.claimed_generation}
        left_out: dict[str, Value] = {**asked_by_then, "fault_text": rows.to_json(replace(fault, left_out=True))}
        for kind in _CHILDREN_LAST_FIRST:
            if load_balancer.applied_generation:  # else everything is new, and this number tells it
                tx.run(_fail_children(kind, new=True), left_out)
            tx.run(_fail_children(kind, new=False), asked_by_then)
    fails = report_error and is_current and load_balancer.provisioning_status in _PENDING
    failed = replace(
        load_balancer,
        fault=fault,
        provisioning_status=_P.ERROR if fails else load_balancer.provisioning_status,
    )
    due_at = optional_microseconds(fault.retry_at) if is_current and not held.nudged else held.due_at
    _write(tx, held, failed, due_at)


def record_left_out(
    tx: Transaction, lease: Lease, generation: int, left_out: Mapping[str, Fault], now: datetime
) -> None:
    """That these children are carried by no amphora, or not whole, before one is built for the rest: whoever goes on after a
    death must not take them for what it carries. They become ERROR with their faults, unless a later edit touched them, and
    the first is shown on the load balancer too, so that what is settled next settles them as well. Raises LeaseLost."""
    held = _hold(tx, lease, now)
    _exclude(tx, {"which": lease.load_balancer_id, "applied": generation}, left_out)
    first = next(iter(left_out.values()))
    _write(tx, held, replace(held.load_balancer, fault=first), held.due_at)


def postpone(tx: Transaction, lease: Lease, until: datetime, now: datetime) -> None:
    """Nothing can be done before `until`: due again then, or at once if something was asked since the lease was taken.
    Raises LeaseLost."""
    held = _hold(tx, lease, now)
    is_current = held.claimed_generation == held.load_balancer.generation
    due_at = to_microseconds(until) if is_current and not held.nudged else held.due_at
    _write(tx, held, held.load_balancer, due_at)


def record_deleted(tx: Transaction, lease: Lease, now: datetime) -> None:
    """Nothing of it runs any more: children are removed, the load balancer and its amphorae are kept as DELETED until
    they are purged. Raises LeaseLost."""
    held = _hold(tx, lease, now)
    load_balancer = held.load_balancer
    which: dict[str, Value] = {"which": load_balancer.id}
    for kind in _CHILDREN_LAST_FIRST:
        tx.run(_remove_all(kind), which)
    tx.run(_DELETE_AMPHORAE, {**which, "now": to_microseconds(now)})
    gone = replace(
        load_balancer,
        provisioning_status=move_provisioning(load_balancer.provisioning_status, _P.DELETED),
        operating_status=OperatingStatus.OFFLINE,
        applied_generation=load_balancer.generation,
        fault=None,
        updated_at=now,
    )
    _write(tx, held, gone, None)


def record_vip_ports(
    tx: Transaction, lease: Lease, port_id: PortId, additional: tuple[AdditionalVip, ...]
) -> LoadBalancer:
    """The addresses have these ports now; returns the load balancer as it is. Raises LeaseLost."""
    held = _hold(tx, lease)
    before = held.load_balancer
    after = replace(before, vip=replace(before.vip, port_id=port_id), additional_vips=additional)
    _write(tx, held, after, held.due_at)
    return after


def begin_replacement(tx: Transaction, lease: Lease, now: datetime, *, turns: int | None = None) -> int:
    """Ask for the next generation although nobody edited anything, because amphorae must be made anew; returns it.

    With `turns`, it takes one of so many of the installation. The holder of the lease goes on with it; the row is due in
    case it dies. Raises LeaseLost, NoTurn."""
    held = _hold(tx, lease, now)
    load_balancer = held.load_balancer
    if turns is not None and not replacements.take_turn(tx, load_balancer.id, now, turns):
        raise NoTurn(turns)
    moved = replace(
        load_balancer,
        generation=load_balancer.generation + 1,
        provisioning_status=after_edit(load_balancer.provisioning_status),
    )
    # An edit that came since the claim stays unseen; this generation itself is no news to its maker.
    claimed = moved.generation if held.claimed_generation == load_balancer.generation else held.claimed_generation
    _write(tx, held, moved, to_microseconds(now), claimed_generation=claimed)
    return moved.generation


def take_turn(tx: Transaction, lease: Lease, now: datetime, turns: int) -> None:
    """Have one of the installation's turns at replacing, or keep the one that it has. Raises LeaseLost, NoTurn."""
    _hold(tx, lease, now)
    if not replacements.take_turn(tx, lease.load_balancer_id, now, turns):
        raise NoTurn(turns)


def purge_deleted(tx: Transaction, before: datetime) -> int:
    """Forget load balancers and amphorae that have been DELETED since before this time; how many rows."""
    moment = to_microseconds(before)
    return tx.run(_PURGE_AMPHORAE, {"before": moment}) + tx.run(_PURGE_LOAD_BALANCERS, {"before": moment})


def require_lease(tx: Transaction, lease: Lease) -> None:
    """For what is written beside the load balancer. Raises LeaseLost."""
    _hold(tx, lease)


def _hold(tx: Transaction, lease: Lease, now: datetime | None = None) -> _Held:
    row = tx.row(_SELECT_HELD, {"which": lease.load_balancer_id, "owner": lease.owner, "epoch": lease.epoch})
    if row is None:
        raise lost(lease)
    expires_at, due_at, nudges, claimed_nudges, claimed_generation = row[-len(_WORK_COLUMNS) :]
    expires = None if expires_at is None else from_microseconds(expires_at)
    if now is not None and (expires is None or expires <= now):
        raise lost(lease)
    return _Held(
        load_balancer=rows.LOAD_BALANCER.decode(row[: -len(_WORK_COLUMNS)]),
        expires_at=expires,
        due_at=due_at,
        nudged=nudges != claimed_nudges,
        claimed_generation=claimed_generation,
    )


def _write(
    tx: Transaction,
    held: _Held,
    after: LoadBalancer,
    due_at: int | None,
    *,
    claimed_generation: int | None = None,
    release: bool = False,
) -> None:
    changed: dict[str, Value] = rows.LOAD_BALANCER.changed(held.load_balancer, after)
    if due_at != held.due_at:
        changed["due_at"] = due_at
    if claimed_generation is not None:
        changed["claimed_generation"] = claimed_generation
    if release:
        changed |= {"lease_owner": None, "lease_expires_at": None}
    if changed:
        tx.run(update_of(rows.LOAD_BALANCER, tuple(changed)), {**changed, "which": after.id})


def _settle(
    tx: Transaction,
    load_balancer: LoadBalancer,
    generation: int,
    faults: Mapping[str, Fault],
    tree: LoadBalancerTree | None,
) -> None:
    which: dict[str, Value] = {"which": load_balancer.id, "applied": generation}
    size = padded_size(len(faults)) if faults else 0
    excluded = padded(list(faults), size) if faults else {}
    there = set(_CHILDREN_LAST_FIRST) if tree is None else {x.kind for x in tree.children()}
    leaving = there if tree is None else {x.kind for x in tree.children() if x.delete_requested}
    for kind in _CHILDREN_LAST_FIRST:
        if kind in leaving:
            tx.run(_remove_children(kind), which)
    for kind in _CHILDREN_LAST_FIRST:
        if kind in there:
            tx.run(_settle_children(kind, size), {**which, **excluded})
    _exclude(tx, which, faults)


def _exclude(tx: Transaction, which: Mapping[str, Value], faults: Mapping[str, Fault]) -> None:
    for child, fault in faults.items():
        kinds = (fault.object_kind,) if fault.object_id == child and fault.object_kind else _CHILDREN_LAST_FIRST
        for kind in kinds:
            tx.run(_exclude_child(kind), {**which, "child": child, "fault_text": rows.to_json(fault)})


def _require_own(lease: Lease, amphora: Amphora) -> None:
    if amphora.load_balancer_id != lease.load_balancer_id:
        raise Bug(f"amphora {amphora.id} is not of load balancer {lease.load_balancer_id}")
