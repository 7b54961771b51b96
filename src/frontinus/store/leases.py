"""Who may work on a load balancer: leases with a fencing epoch, on the load balancer's own row.

A lease is taken by compare-and-set, so that two controllers never hold one load balancer; each taking raises the epoch, and
every write of a controller names owner and epoch (convergence.py). Nothing here needs more of the engine than an update
that says how many rows it matched."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import cache
from typing import Any

import msgspec
from sqlalchemy import and_, bindparam, case, func, or_, select, update

from frontinus.model.cohorts import CohortName
from frontinus.model.errors import Bug, LeaseLost
from frontinus.model.ids import ControllerId, LoadBalancerId
from frontinus.store.engine import Transaction
from frontinus.store.rows import from_microseconds, to_microseconds
from frontinus.store.schema import load_balancer
from frontinus.store.statement import Statement, Value, is_one_of, padded, padded_size

_t = load_balancer.c

CLOCK_WAS_WRONG_BEYOND = timedelta(minutes=5)
"""Nothing is put off for so long and no lease is this long. A time farther ahead was written by a clock that has been set
back since, and would keep a fault from healing until the clock gets there again."""

LONGEST_PAUSE = CLOCK_WAS_WRONG_BEYOND / 2
"""For so long something may be put off: clocks of controllers differ."""


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """The right to work on one load balancer until `expires_at`. Another controller's lease has a greater epoch. `left_by` is
    who had the one before and did not give it back: he died, or was stopped, at work."""

    load_balancer_id: LoadBalancerId
    owner: ControllerId
    epoch: int
    expires_at: datetime
    left_by: ControllerId | None = None


_OURS = and_(_t.driver == bindparam("which_driver"), _t.driver_version == bindparam("which_version"))
_FREE = or_(
    _t.lease_owner.is_(None), _t.lease_expires_at <= bindparam("now"), _t.lease_expires_at > bindparam("beyond")
)
_HELD = and_(_t.id == bindparam("which"), _t.lease_owner == bindparam("owner"), _t.lease_epoch == bindparam("epoch"))
# When a due row can be worked on: at its time, or when the lease on it is over.
_WORKABLE_AT = func.min(
    case((or_(_t.lease_owner.is_(None), _t.lease_expires_at <= _t.due_at), _t.due_at), else_=_t.lease_expires_at)
)


def _claimed(epoch: Any) -> dict[Any, Any]:
    return {
        _t.lease_owner: bindparam("owner"),
        _t.lease_epoch: epoch,
        _t.lease_expires_at: bindparam("expires"),
        _t.claimed_nudges: _t.nudges,
        _t.claimed_generation: _t.generation,
    }


@cache
def _claim_all(size: int) -> Statement:
    # As _next says, by the engine, whose rows these are: they were locked when their epochs were read.
    following = case((_t.lease_epoch + 1 > bindparam("now"), _t.lease_epoch + 1), else_=bindparam("now"))
    return Statement(update(load_balancer).where(is_one_of(_t.id, size), _FREE).values(_claimed(following)))


# The cohort stands in both halves, since each must be found by the index alone: SQLite looks at them one by one.
_DUE_AND_OURS = or_(and_(_OURS, _t.due_at <= bindparam("now")), and_(_OURS, _t.due_at > bindparam("beyond")))

_SELECT_DUE = Statement(
    select(_t.id, _t.lease_epoch, _t.lease_owner)
    .where(_DUE_AND_OURS, _FREE)
    .order_by(_t.due_at, _t.id)
    .limit(bindparam("most"))
    # Where rows can be locked, two that claim at once do not see each other's rows; SQLite leaves it out.
    .with_for_update(skip_locked=True)
)
_SELECT_ONE = Statement(
    select(_t.lease_epoch).where(_t.id == bindparam("which"), _FREE).with_for_update(skip_locked=True)
)
_COUNT_DUE = Statement(
    select(func.count()).select_from(load_balancer).where(_OURS, _t.due_at <= bindparam("now"), _FREE)
)
_CLAIM = Statement(
    update(load_balancer)
    .where(_t.id == bindparam("which"), _t.lease_epoch == bindparam("epoch"), _FREE)
    .values(_claimed(bindparam("next")))
)
_RENEW = Statement(
    update(load_balancer)
    .where(_HELD, _t.lease_expires_at > bindparam("now"))
    .values(lease_expires_at=bindparam("expires"))
)
_RELEASE = Statement(update(load_balancer).where(_HELD).values(lease_owner=None, lease_expires_at=None))
_PUT_OFF = Statement(
    update(load_balancer)
    .where(_HELD)
    .values(
        due_at=case(
            (and_(_t.nudges == _t.claimed_nudges, _t.generation == _t.claimed_generation), bindparam("until")),
            else_=_t.due_at,
        ),
        lease_owner=None,
        lease_expires_at=None,
    )
)
_BREAK_ALL = Statement(
    update(load_balancer).where(_t.lease_owner.is_not(None)).values(lease_owner=None, lease_expires_at=None)
)
_SELECT_DUE_AT = Statement(select(_t.due_at).where(_t.id == bindparam("which")))
_SELECT_NEXT = Statement(select(_WORKABLE_AT).where(_t.due_at.is_not(None)))
_SELECT_NEXT_OURS = Statement(select(_WORKABLE_AT).where(_OURS, _t.due_at.is_not(None)))


def claim_due(
    tx: Transaction, owner: ControllerId, cohort: CohortName, now: datetime, duration: timedelta, limit: int
) -> list[Lease]:
    """Take up to `limit` load balancers of this cohort that are due and free, the longest due first."""
    expires_at = now + duration
    moment = to_microseconds(now)
    when: dict[str, Value] = {"now": moment, "beyond": to_microseconds(now + CLOCK_WAS_WRONG_BEYOND)}
    free = tx.rows(_SELECT_DUE, {**when, **_whose(cohort), "most": limit})
    if not free:
        return []
    size = padded_size(len(free))
    claim: dict[str, Value] = {"owner": owner, "expires": to_microseconds(expires_at)}
    if tx.run(_claim_all(size), {**padded([row[0] for row in free], size), **when, **claim}) != len(free):
        raise Bug("load balancers that were free and locked are somebody's")
    return [
        Lease(
            load_balancer_id=LoadBalancerId(which),
            owner=owner,
            epoch=_next(epoch, moment),
            expires_at=expires_at,
            left_by=None if before is None else ControllerId(before),
        )
        for which, epoch, before in free
    ]


def claim_one(
    tx: Transaction, owner: ControllerId, load_balancer_id: LoadBalancerId, now: datetime, duration: timedelta
) -> Lease | None:
    """Take this load balancer, due or not, for work beside its convergence; None when somebody has it. What is due stays
    due."""
    moment = {"now": to_microseconds(now), "beyond": to_microseconds(now + CLOCK_WAS_WRONG_BEYOND)}
    row = tx.row(_SELECT_ONE, {"which": load_balancer_id, **moment})
    if row is None:
        return None
    expires_at = now + duration
    taken = _next(row[0], moment["now"])
    claim = {
        "which": load_balancer_id,
        "epoch": row[0],
        "next": taken,
        "owner": owner,
        "expires": to_microseconds(expires_at),
    }
    if tx.run(_CLAIM, {**claim, **moment}) != 1:
        return None
    return Lease(load_balancer_id=load_balancer_id, owner=owner, epoch=taken, expires_at=expires_at)


def renew(tx: Transaction, lease: Lease, now: datetime, duration: timedelta) -> Lease:
    """The lease with a new end. Raises LeaseLost if it ran out or was taken over."""
    expires_at = now + duration
    matched = tx.run(_RENEW, {**_held(lease), "now": to_microseconds(now), "expires": to_microseconds(expires_at)})
    if matched != 1:
        raise lost(lease)
    return msgspec.structs.replace(lease, expires_at=expires_at)


def release(tx: Transaction, lease: Lease) -> None:
    """Let others take it. Nothing happens if it was lost already. Wakes the controllers if there is work left."""
    if tx.run(_RELEASE, _held(lease)) == 1:
        row = tx.row(_SELECT_DUE_AT, {"which": lease.load_balancer_id})
        if row is not None and row[0] is not None:
            tx.wake()


def put_off(tx: Transaction, lease: Lease, until: datetime) -> None:
    """Give it back, due again at `until`, or at once if something was asked since it was taken. Reads nothing of the load
    balancer but numbers: for one that cannot be understood. Nothing happens if it was lost already."""
    tx.run(_PUT_OFF, {**_held(lease), "until": to_microseconds(until)})


def break_all(tx: Transaction) -> int:
    """Free every lease; how many there were. Only for a caller who can prove that no other controller lives, as the
    holder of a state directory's lock can: work that a killed process left need not wait then. Epochs still fence."""
    broken = tx.run(_BREAK_ALL, {})
    if broken:
        tx.wake()
    return broken


def next_due(tx: Transaction, *, cohort: CohortName | None = None) -> datetime | None:
    """When the next load balancer can be worked on: how long a controller may sleep. None if nothing is due at all.

    Work that is leased counts from the end of its lease. `cohort` counts only what that one may claim."""
    row = tx.row(_SELECT_NEXT, {}) if cohort is None else tx.row(_SELECT_NEXT_OURS, _whose(cohort))
    return None if row is None or row[0] is None else from_microseconds(row[0])


def count_due(tx: Transaction, *, cohort: CohortName, now: datetime) -> int:
    """How many load balancers of this cohort are due and free: the backlog."""
    beyond = to_microseconds(now + CLOCK_WAS_WRONG_BEYOND)
    row = tx.row(_COUNT_DUE, {"now": to_microseconds(now), "beyond": beyond, **_whose(cohort)})
    return 0 if row is None else int(row[0])


def is_held(owner: str | None, expires_at: int | None, now: datetime) -> bool:
    """What _FREE denies, of a row that was read."""
    return (
        owner is not None
        and expires_at is not None
        and to_microseconds(now) < expires_at <= to_microseconds(now + CLOCK_WAS_WRONG_BEYOND)
    )


def _whose(cohort: CohortName) -> dict[str, Value]:
    return {"which_driver": cohort.driver, "which_version": cohort.driver_version}


def _next(epoch: int, moment: int) -> int:
    """The epoch after this one: greater, and also greater than any of a database that was restored from a backup since.
    Amphorae have heard of those, and refuse whoever comes with less."""
    return max(int(epoch) + 1, moment)


def lost(lease: Lease) -> LeaseLost:
    return LeaseLost(f"controller {lease.owner} no longer holds load balancer {lease.load_balancer_id}")


def _held(lease: Lease) -> dict[str, str | int | float | bool | None]:
    return {"which": lease.load_balancer_id, "owner": lease.owner, "epoch": lease.epoch}
