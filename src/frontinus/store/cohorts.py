"""Cohorts, and which one each load balancer belongs to.

Controllers join by registering (controllers.py); what a cohort of the same driver leaves behind is taken over in parts, so
that no edit waits for it. A load balancer without a cohort was made by a version that knew none. Next: leases.py, where a
controller claims what is its cohort's; model/cohorts.py decides."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import cache

import msgspec
from sqlalchemy import and_, bindparam, case, delete, exists, func, select, update

from frontinus.model.capabilities import Capabilities
from frontinus.model.cohorts import SILENT_AFTER, Cohort, CohortName, CohortState, heir, unserved
from frontinus.model.enums import ProvisioningStatus
from frontinus.model.errors import NotFound
from frontinus.model.ids import LoadBalancerId
from frontinus.model.rollouts import RolloutKind
from frontinus.store import schema
from frontinus.store.engine import Transaction
from frontinus.store.health import mark_due
from frontinus.store.rows import from_microseconds, to_json, to_microseconds
from frontinus.store.statement import Row, Statement, Value, chunks, insert_if_absent, is_one_of, padded, padded_size

MOST_AT_ONCE = 256
"""Load balancers that are given to another cohort in one transaction."""

_FORGET_AFTER = timedelta(days=7)

_t, _c, _lb = schema.cohort.c, schema.controller.c, schema.load_balancer.c
_COLUMNS = (
    "driver",
    "driver_version",
    "state",
    "providers",
    "capabilities",
    "config_digest",
    "first_seen_at",
    "changed_at",
    "registered_at",
)
_THIS = and_(_t.driver == bindparam("which_driver"), _t.driver_version == bindparam("which_version"))
_OURS = and_(_lb.driver == bindparam("which_driver"), _lb.driver_version == bindparam("which_version"))
_IS_THERE = _lb.provisioning_status != ProvisioningStatus.DELETED.value

_SEEN_OF = select(func.max(_c.seen_at)).where(_c.driver == _t.driver, _c.driver_version == _t.driver_version)
_SELECT_ALL = Statement(
    select(
        *(_t[name] for name in _COLUMNS),
        _SEEN_OF.scalar_subquery(),
        _SEEN_OF.where(_c.stopped_at.is_(None)).scalar_subquery(),
    ).order_by(_t.driver, _t.first_seen_at, _t.driver_version)
)
_STATE_OF = Statement(select(_t.state).where(_THIS))
_LOCK = Statement(select(_t.state).where(_THIS).with_for_update())
_INSERT = Statement(insert_if_absent(schema.cohort, _COLUMNS))
_JOINED = Statement(
    update(schema.cohort)
    .where(_THIS)
    .values(
        capabilities=bindparam("can"),
        providers=bindparam("names"),
        config_digest=bindparam("digest"),
        registered_at=bindparam("now"),
    )
)
_SET_STATE = Statement(
    update(schema.cohort).where(_THIS).values(state=bindparam("new_state"), changed_at=bindparam("now"))
)
_FORGET = Statement(
    delete(schema.cohort).where(
        _t.driver == bindparam("which_driver"),
        _t.registered_at < bindparam("before"),
        ~exists(
            select(_c.id).where(_c.driver == _t.driver, _c.driver_version == _t.driver_version, _c.stopped_at.is_(None))
        ),
        ~exists(select(_lb.id).where(_lb.driver == _t.driver, _lb.driver_version == _t.driver_version)),
    )
)
_PROVIDERS_OF = Statement(select(_t.providers).where(_THIS))
_CAPABILITIES_OF = Statement(
    select(_t.capabilities)
    .select_from(
        schema.cohort.join(schema.load_balancer, and_(_lb.driver == _t.driver, _lb.driver_version == _t.driver_version))
    )
    .where(_lb.id == bindparam("which"))
)
_COHORT_OF = Statement(select(_lb.driver, _lb.driver_version).where(_lb.id == bindparam("which")))
_COUNT = Statement(
    select(_lb.driver, _lb.driver_version, func.count())
    .where(_IS_THERE, _lb.driver.is_not(None))
    .group_by(_lb.driver, _lb.driver_version)
)
_LIVING = Statement(
    select(func.count())
    .where(
        _c.driver == bindparam("which_driver"),
        _c.driver_version == bindparam("which_version"),
        _c.stopped_at.is_(None),
        _c.seen_at > bindparam("since"),
    )
    .group_by(_c.provider)
)
_ROLLOUT_OF = Statement(
    select(schema.rollout.c.id).where(
        schema.rollout.c.active_driver == bindparam("which_driver"),
        schema.rollout.c.kind == bindparam("of", RolloutKind.DRIVER.value),
    )
)
_SOME = Statement(select(_lb.id).where(_OURS).limit(1))
_ANY = Statement(select(_lb.id).where(_OURS, _IS_THERE).limit(1))
_PAGE = Statement(
    select(_lb.id).where(_OURS, _IS_THERE, _lb.id > bindparam("after")).order_by(_lb.id).limit(bindparam("most"))
)
# Whoever else edits or works on one has its row locked; it is taken at the next look.
_LEFT_BEHIND = Statement(select(_lb.id).where(_OURS).limit(bindparam("most")).with_for_update(skip_locked=True))
# What one version of a driver could not carry another may: faults that wait for the user are judged anew.
_JUDGED_ANEW = and_(_lb.fault.is_not(None), _lb.due_at.is_(None), _IS_THERE)


@cache
def _give(size: int) -> Statement:
    # In this order: MariaDB sets from left to right, and what comes after sees it.
    return Statement(
        update(schema.load_balancer)
        .where(is_one_of(_lb.id, size))
        .ordered_values(
            (_lb.driver, bindparam("new_driver")),
            (_lb.driver_version, bindparam("new_version")),
            (_lb.nudges, case((_JUDGED_ANEW, _lb.nudges + 1), else_=_lb.nudges)),
            (_lb.due_at, case((_JUDGED_ANEW, bindparam("now")), else_=_lb.due_at)),
        )
    )


@cache
def _without(size: int, *, for_update: bool) -> Statement:
    """Load balancers of these providers that have no cohort."""
    found = (
        select(_lb.id)
        .where(_lb.driver.is_(None), _lb.driver_version.is_(None), is_one_of(_lb.provider, size))
        .limit(bindparam("most"))
    )
    return Statement(found.with_for_update(skip_locked=True) if for_update else found)


_load_capabilities = msgspec.json.Decoder(Capabilities).decode
_load_names = msgspec.json.Decoder(tuple[str, ...]).decode


def all_cohorts(tx: Transaction) -> list[Cohort]:
    """Every cohort that is known, in order of driver and age."""
    return [_decode(row) for row in tx.rows(_SELECT_ALL, {})]


def join(
    tx: Transaction,
    name: CohortName,
    provider: str,
    capabilities: Capabilities,
    config_digest: str | None,
    now: datetime,
) -> None:
    """A controller of this cohort serves the provider. The cohort is made if it is the first, and its row is locked until
    the transaction ends. A cohort that drains goes on to drain."""
    moment = to_microseconds(now)
    which = _which(name)
    fresh: tuple[Value, ...] = (
        name.driver,
        name.driver_version,
        CohortState.ACTIVE.value,
        "[]",
        to_json(capabilities),
        config_digest,
        moment,
        moment,
        moment,
    )
    tx.insert(_INSERT, _COLUMNS, [fresh])
    tx.row(_LOCK, which)
    row = tx.row(_PROVIDERS_OF, which)
    known = () if row is None else _load_names(row[0])
    joined: dict[str, Value] = {
        "can": to_json(capabilities),
        "names": to_json(sorted({*known, provider})),
        "digest": config_digest,
        "now": moment,
    }
    tx.run(_JOINED, {**which, **joined})
    tx.run(_FORGET, {"which_driver": name.driver, "before": to_microseconds(now - _FORGET_AFTER)})


def set_state(tx: Transaction, name: CohortName, state: CohortState, now: datetime) -> bool:
    """Have a cohort drain or not; False if it was so already. Raises NotFound."""
    row = tx.row(_LOCK, _which(name))
    if row is None:
        raise NotFound("cohort", f"no controller of {name} was ever registered")
    if row[0] == state.value:
        return False
    tx.run(_SET_STATE, {**_which(name), "new_state": state.value, "now": to_microseconds(now)})
    tx.wake()
    return True


def state_of(tx: Transaction, name: CohortName) -> CohortState | None:
    """None if there is no such cohort."""
    row = tx.row(_STATE_OF, _which(name))
    return None if row is None else CohortState(row[0])


def of(tx: Transaction, load_balancer_id: LoadBalancerId) -> CohortName | None:
    """Which cohort serves a load balancer; None if it has none yet, or does not exist."""
    row = tx.row(_COHORT_OF, {"which": load_balancer_id})
    return None if row is None or row[0] is None else CohortName(row[0], row[1])


def capabilities_of(tx: Transaction, load_balancer_id: LoadBalancerId) -> Capabilities | None:
    """What the driver that serves this load balancer can do; None if it has no cohort yet."""
    row = tx.row(_CAPABILITIES_OF, {"which": load_balancer_id})
    return None if row is None else _load_capabilities(row[0])


def count_load_balancers(tx: Transaction) -> dict[CohortName, int]:
    """How many load balancers, less those that are DELETED, each cohort has; those with none are missing."""
    return {CohortName(row[0], row[1]): int(row[2]) for row in tx.rows(_COUNT, {})}


def has_load_balancers(tx: Transaction, name: CohortName) -> bool:
    return tx.row(_ANY, _which(name)) is not None


def load_balancers_of(
    tx: Transaction, name: CohortName, after: LoadBalancerId | None, most: int
) -> list[LoadBalancerId]:
    """Load balancers of a cohort, a page of them, in order of their ids from the one after this."""
    rows = tx.rows(_PAGE, {**_which(name), "after": after or "", "most": most})
    return [LoadBalancerId(row[0]) for row in rows]


def move(tx: Transaction, load_balancer_ids: list[LoadBalancerId], to: CohortName, now: datetime) -> None:
    """Give load balancers to another cohort, and have it look at them: what it renders otherwise is pushed.

    Whoever works on one under a lease goes on until the lease is free. Raises NotFound if there is no such cohort."""
    if tx.row(_STATE_OF, _which(to)) is None:
        raise NotFound("cohort", f"no controller of {to} was ever registered")
    _give_to(tx, load_balancer_ids, to, now)
    mark_due(tx, load_balancer_ids, now)


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How a cohort stands: `left_behind` says that there is something to take over, `is_done` that it drains and nothing is
    left to serve. `controllers` are those of it that live. `holds_back`: it would take over more, were there no rollout."""

    state: CohortState
    left_behind: bool
    holds_back: bool
    is_done: bool
    controllers: int


def standing(tx: Transaction, mine: CohortName, now: datetime, known: list[Cohort]) -> Standing | None:
    """Read how this cohort stands; None if it is not known (any more). `known` are all cohorts, with times that the caller
    believes."""
    me = next((x for x in known if x.name == mine), None)
    if me is None:
        return None
    left_behind = holds_back = False
    if _is_heir(known, me, now):
        some = [x for x in unserved(known, me, now) if tx.row(_SOME, _which(x.name)) is not None]
        free = _not_in_a_rollout(tx, me, some)
        left_behind = bool(free) or bool(_without_cohort(tx, me, 1, for_update=False))
        holds_back = len(free) < len(some)
    is_done = me.state is CohortState.DRAINING and not left_behind and not has_load_balancers(tx, mine)
    # Each registers under every provider name that it serves.
    living = tx.rows(_LIVING, {**_which(mine), "since": to_microseconds(now - SILENT_AFTER)})
    return Standing(
        state=me.state,
        left_behind=left_behind,
        holds_back=holds_back,
        is_done=is_done,
        controllers=max((int(row[0]) for row in living), default=0),
    )


def take_over(tx: Transaction, mine: CohortName, now: datetime, known: list[Cohort]) -> int:
    """Take what nobody serves, if this cohort is the heir: load balancers of cohorts whose controllers are gone, and those
    that have no cohort. Up to MOST_AT_ONCE of each; how many. Nothing of them is pushed because of it. `known` as of standing."""
    me = next((x for x in known if x.name == mine), None)
    if me is None or not _is_heir(known, me, now):
        return 0
    taken = _take_without(tx, me, now)
    for gone in _not_in_a_rollout(tx, me, unserved(known, me, now)):
        taken += _take(tx, gone.name, mine, now)
    return taken


def _not_in_a_rollout(tx: Transaction, taker: Cohort, unserved_ones: list[Cohort]) -> list[Cohort]:
    """While a rollout of the driver is not over, a newer version is given load balancers by its gates alone. An older one may
    take what a newer leaves: it served that before."""
    if not unserved_ones or tx.row(_ROLLOUT_OF, {"which_driver": taker.driver}) is None:
        return unserved_ones
    return [x for x in unserved_ones if x.age_order > taker.age_order]


def _is_heir(cohorts: list[Cohort], me: Cohort, now: datetime) -> bool:
    first = heir(cohorts, me.driver, now)
    return first is not None and first.name == me.name


def take_all(tx: Transaction, mine: CohortName, now: datetime) -> None:
    """Take every load balancer of every other cohort. Only for a caller who can prove that no other controller lives."""
    for other in all_cohorts(tx):
        while other.name != mine and _take(tx, other.name, mine, now):
            continue
    me = next(x for x in all_cohorts(tx) if x.name == mine)
    while _take_without(tx, me, now):
        continue


def _take(tx: Transaction, gone: CohortName, mine: CohortName, now: datetime) -> int:
    ids = [LoadBalancerId(row[0]) for row in tx.rows(_LEFT_BEHIND, {**_which(gone), "most": MOST_AT_ONCE})]
    _give_to(tx, ids, mine, now)
    return len(ids)


def _take_without(tx: Transaction, me: Cohort, now: datetime) -> int:
    ids = _without_cohort(tx, me, MOST_AT_ONCE, for_update=True)
    _give_to(tx, ids, me.name, now)
    return len(ids)


def _without_cohort(tx: Transaction, me: Cohort, most: int, *, for_update: bool) -> list[LoadBalancerId]:
    size = padded_size(len(me.providers))
    found = tx.rows(_without(size, for_update=for_update), {**padded(me.providers, size), "most": most})
    return [LoadBalancerId(row[0]) for row in found]


def _give_to(tx: Transaction, load_balancer_ids: list[LoadBalancerId], to: CohortName, now: datetime) -> None:
    for part in chunks(load_balancer_ids, MOST_AT_ONCE):
        size = padded_size(len(part))
        values: dict[str, Value] = {"new_driver": to.driver, "new_version": to.driver_version}
        tx.run(_give(size), {**padded(part, size), **values, "now": to_microseconds(now)})
    if load_balancer_ids:
        tx.wake()


def _which(name: CohortName) -> dict[str, Value]:
    return {"which_driver": name.driver, "which_version": name.driver_version}


def _decode(row: Row) -> Cohort:
    driver, version, state, providers, capabilities, digest, first, changed, _, seen, alive = row
    return Cohort(
        driver=driver,
        driver_version=version,
        state=CohortState(state),
        providers=_load_names(providers),
        capabilities=_load_capabilities(capabilities),
        config_digest=digest,
        first_seen_at=from_microseconds(first),
        changed_at=from_microseconds(changed),
        seen_at=None if seen is None else from_microseconds(seen),
        alive_at=None if alive is None else from_microseconds(alive),
    )
