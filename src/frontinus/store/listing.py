"""Lists and single objects for the API: filtered, sorted, paged, with the ids that each object refers to.

A page costs a fixed number of statements whatever its size, and none of them reads whole trees. Statements are built once per
shape of query. Load balancers that are DELETED are hidden; their children do not exist any more."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache, lru_cache
from typing import Any, Generic, TypeVar

import msgspec
from sqlalchemy import Select, and_, bindparam, case, false, func, not_, or_, select, tuple_
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import ColumnElement
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import BigInteger, Boolean, Integer

from frontinus.model.compatibility import VRRP_ID, VRRP_PRIORITY
from frontinus.model.enums import AmphoraStatus, Kind, ProvisioningStatus
from frontinus.model.errors import Invalid, Unreadable
from frontinus.model.ids import (
    AmphoraId,
    AvailabilityZoneProfileId,
    FlavorId,
    FlavorProfileId,
    HealthMonitorId,
    L7PolicyId,
    L7RuleId,
    ListenerId,
    LoadBalancerId,
    MemberId,
    PoolId,
    ProjectId,
)
from frontinus.model.offers import AvailabilityZone, AvailabilityZoneProfile, Flavor, FlavorProfile
from frontinus.model.quotas import COUNTED, Limits, Quota
from frontinus.model.tree import Amphora, HealthMonitor, L7Policy, L7Rule, Listener, LoadBalancer, Member, Pool
from frontinus.store import rows, schema
from frontinus.store.engine import Transaction
from frontinus.store.references import references_of
from frontinus.store.rows import Shape
from frontinus.store.statement import Row, Statement, Value
from frontinus.store.trees import SHAPE_OF, columns_of

T = TypeVar("T")

_SHAPES_KEPT = 512

_SHAPES: Mapping[Kind, Shape[Any]] = {
    **SHAPE_OF,
    Kind.AMPHORA: rows.AMPHORA,
    Kind.QUOTA: rows.QUOTA,
    Kind.FLAVOR: rows.FLAVOR,
    Kind.FLAVOR_PROFILE: rows.FLAVOR_PROFILE,
    Kind.AVAILABILITY_ZONE: rows.AVAILABILITY_ZONE,
    Kind.AVAILABILITY_ZONE_PROFILE: rows.AVAILABILITY_ZONE_PROFILE,
}
_KEYS: Mapping[Kind, str] = {Kind.QUOTA: "project_id", Kind.AVAILABILITY_ZONE: "name"}
"""What those are known by that have no id."""

_HIDDEN: Mapping[Kind, tuple[str, str]] = {
    Kind.LOAD_BALANCER: ("provisioning_status", ProvisioningStatus.DELETED.value),
    Kind.AMPHORA: ("status", AmphoraStatus.DELETED.value),
}
"""Rows that are kept for a while, but shown to nobody."""


def _of_load_balancer(name: str) -> ColumnElement[Any]:
    owner = schema.load_balancer.c
    return select(owner[name]).where(owner.id == schema.amphora.c.load_balancer_id).scalar_subquery()


_DERIVED: Mapping[tuple[Kind, str], ColumnElement[Any]] = {
    (Kind.AMPHORA, "ha_ip"): _of_load_balancer("vip_address"),
    (Kind.AMPHORA, "ha_port_id"): _of_load_balancer("vip_port_id"),
    (Kind.AMPHORA, "vrrp_priority"): case(
        *((schema.amphora.c.role == role.value, number) for role, number in VRRP_PRIORITY.items()), else_=None
    ),
    (Kind.AMPHORA, "vrrp_id"): case(
        (or_(*(schema.amphora.c.role == x.value for x in VRRP_PRIORITY)), VRRP_ID), else_=None
    ),
    # A limit that the record does not say is the operator's default, as it is shown.
    **{
        (Kind.QUOTA, kind.value): func.coalesce(
            schema.quota.c[kind.value], bindparam(f"default_{kind.value}", type_=Integer)
        )
        for kind in COUNTED
    },
}
"""What lists can be filtered and sorted by although no column of the table holds it; unset values may be among it."""


def key_of(kind: Kind) -> str:
    """The attribute that an object is known by."""
    return _KEYS.get(kind, "id")


def _column(kind: Kind, name: str) -> ColumnElement[Any]:
    derived = _DERIVED.get((kind, name))
    return _SHAPES[kind].table.c[name] if derived is None else derived


def _shown_only(kind: Kind, wanted: Select[Any]) -> Select[Any]:
    if kind not in _HIDDEN:
        return wanted
    column, value = _HIDDEN[kind]
    return wanted.where(_SHAPES[kind].table.c[column] != bindparam(None, value))


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """What of a list is wanted.

    `filters` are (column, value), all of which must hold; the value is of the column's own type, None means unset.
    A parent is a filter too (load_balancer_id, listener_id, pool_id, l7_policy_id). `sort` is (column, descending);
    created_at and id always break ties, in the direction of the last key. `marker` is the id after which the page begins; with `reverse` the page is the
    one directly before it, in the same order. `project_id` None means every project. `defaults` are what quotas hold
    where they say nothing."""

    filters: tuple[tuple[str, object], ...] = ()
    tags: tuple[str, ...] = ()
    tags_any: tuple[str, ...] = ()
    not_tags: tuple[str, ...] = ()
    not_tags_any: tuple[str, ...] = ()
    sort: tuple[tuple[str, bool], ...] = ()
    limit: int | None = None
    marker: str | None = None
    reverse: bool = False
    project_id: ProjectId | None = None
    defaults: Limits | None = None


class Listed(msgspec.Struct, Generic[T], frozen=True):
    """An object, and the ids that its answer names, by kind in the plural (or `health_monitor`).

    load balancer: listeners, pools. listener: l7_policies, by position. pool: listeners (those attached to it), members,
    health_monitor (none or one). health monitor: pools. L7 policy: l7_rules. amphora: ha_ip and ha_port_id, which are
    its load balancer's. The others: nothing."""

    value: T
    references: dict[str, tuple[str, ...]]


class _HasTag(FunctionElement[bool]):
    """Whether the JSON array of a column has the element: exact, whatever characters the tag is made of."""

    type = Boolean()
    inherit_cache = True
    name = "has_tag"


@compiles(_HasTag)
def _has_tag_sqlite(element: _HasTag, compiler: SQLCompiler, **options: Any) -> str:
    column, tag = (compiler.process(x, **options) for x in element.clauses)
    return f"EXISTS (SELECT 1 FROM json_each({column}) WHERE json_each.value = {tag})"  # noqa: S608 - both are a column and a bind


@compiles(_HasTag, "postgresql")
def _has_tag_postgresql(element: _HasTag, compiler: SQLCompiler, **options: Any) -> str:
    column, tag = (compiler.process(x, **options) for x in element.clauses)
    return f"jsonb_exists(CAST({column} AS jsonb), {tag})"


@compiles(_HasTag, "mysql", "mariadb")
def _has_tag_mariadb(element: _HasTag, compiler: SQLCompiler, **options: Any) -> str:
    column, tag = (compiler.process(x, **options) for x in element.clauses)
    return f"JSON_CONTAINS({column}, JSON_QUOTE({tag}))"


class _Term(msgspec.Struct, frozen=True):
    """One key of an order. `after_null` says whether the marker's value is unset (only asked when there is a marker)."""

    column: str
    descending: bool
    optional: bool
    after_null: bool = False


class _PageShape(msgspec.Struct, frozen=True):
    """Everything of a query but its values: what a statement depends on."""

    kind: Kind
    of_project: bool
    filters: tuple[tuple[str, bool], ...]  # column, whether it is asked to be unset
    tags: tuple[int, int, int, int]
    order: tuple[_Term, ...]
    limited: bool
    after_marker: bool


@lru_cache(_SHAPES_KEPT)
def _page_statement(page: _PageShape) -> Statement:
    shape = _SHAPES[page.kind]
    table = shape.table
    wanted = _shown_only(page.kind, select(*columns_of(shape)))
    if page.of_project:
        wanted = wanted.where(table.c.project_id == bindparam("project"))
    for number, (name, unset) in enumerate(page.filters):
        column = _column(page.kind, name)
        wanted = wanted.where(column.is_(None) if unset else column == bindparam(f"filter_{number}", type_=column.type))
    if any(page.tags):
        wanted = _with_tags(page.kind, wanted, page.tags)
    if page.after_marker:
        wanted = wanted.where(_after(page.kind, page.order))
    wanted = wanted.order_by(
        *(part for term in page.order for part in _order_by(_column(page.kind, term.column), term))
    )
    if page.limited:
        wanted = wanted.limit(bindparam("limit", type_=Integer))
    return Statement(wanted)


@lru_cache(_SHAPES_KEPT)
def _marker_statement(kind: Kind, columns: tuple[str, ...], of_project: bool) -> Statement:
    table = _SHAPES[kind].table
    found = select(*[_column(kind, name) for name in columns]).where(table.c[key_of(kind)] == bindparam("marker"))
    return Statement(found.where(table.c.project_id == bindparam("project")) if of_project else found)


@cache
def _show_statement(kind: Kind) -> Statement:
    shape = _SHAPES[kind]
    found = select(*columns_of(shape)).where(shape.table.c[key_of(kind)] == bindparam("id"))
    return Statement(_shown_only(kind, found))


def _has_tag(kind: Kind, tag: str) -> ColumnElement[bool]:
    table = _SHAPES[kind].table
    if kind is Kind.LOAD_BALANCER:
        # Answered by an index; of the others there are few in one list, or the list is of everything.
        tags = schema.load_balancer_tag.c
        return table.c.id.in_(select(tags.load_balancer_id).where(tags.tag == bindparam(tag)))
    return _HasTag(table.c.tags, bindparam(tag, type_=table.c.tags.type))


def _with_tags(kind: Kind, wanted: Select[Any], counts: tuple[int, int, int, int]) -> Select[Any]:
    has = [[_has_tag(kind, f"tag_{group}_{number}") for number in range(count)] for group, count in enumerate(counts)]
    every, some, not_every, not_some = has
    if every:
        wanted = wanted.where(*every)
    if some:
        wanted = wanted.where(or_(*some))
    if not_every:
        wanted = wanted.where(not_(and_(*not_every)))
    if not_some:
        wanted = wanted.where(not_(or_(*not_some)))
    return wanted


def _order_by(column: ColumnElement[Any], term: _Term) -> list[ColumnElement[Any]]:
    keys: list[ColumnElement[Any]] = [column]
    if term.optional:
        # Engines disagree about where unset values go; here they come first, on all of them.
        keys = [column.is_not(None), column]
    return [key.desc() if term.descending else key for key in keys]


def _after(kind: Kind, order: tuple[_Term, ...]) -> ColumnElement[bool]:
    """The rows that come after the marker's values, which are the parameters marker_0, marker_1, ..."""
    columns = {term.column: _column(kind, term.column) for term in order}
    marks = [bindparam(f"marker_{n}", type_=columns[term.column].type) for n, term in enumerate(order)]
    if not any(term.optional for term in order) and len({term.descending for term in order}) == 1:
        # The comparison that an index answers.
        here, there = tuple_(*(columns[term.column] for term in order)), tuple_(*marks)
        return and_(_not_before(columns, order, marks), here < there if order[0].descending else here > there)
    alternatives: list[ColumnElement[bool]] = []
    equal_so_far: list[ColumnElement[bool]] = []
    for term, mark in zip(order, marks, strict=True):
        column = columns[term.column]
        alternatives.append(and_(*equal_so_far, _strictly_after(column, term, mark)))
        equal_so_far.append(column.is_(None) if term.after_null else column == mark)
    found = or_(*alternatives)
    return found if order[0].optional else and_(_not_before(columns, order, marks), found)


def _not_before(
    columns: Mapping[str, ColumnElement[Any]], order: tuple[_Term, ...], marks: Sequence[Any]
) -> ColumnElement[bool]:
    """Follows from the rest, and lets an index begin at the marker: SQLite and MariaDB do not see it in a comparison of
    rows, nor anybody in alternatives."""
    first = columns[order[0].column]
    bound: ColumnElement[bool] = first <= marks[0] if order[0].descending else first >= marks[0]
    return bound


def _strictly_after(column: ColumnElement[Any], term: _Term, mark: Any) -> ColumnElement[bool]:
    if not term.descending:
        return column.is_not(None) if term.after_null else column > mark
    if term.after_null:
        return false()
    return or_(column < mark, column.is_(None)) if term.optional else column < mark


def _page(tx: Transaction, kind: Kind, query: Query) -> Sequence[Row]:
    parameters: dict[str, Value] = {}
    if query.project_id is not None:
        parameters["project"] = query.project_id
    if query.defaults is not None:
        parameters |= {f"default_{kind.value}": getattr(query.defaults, kind) for kind in COUNTED}
    filters: list[tuple[str, bool]] = []
    for number, (name, value) in enumerate(query.filters):
        stored = _stored(kind, name, value)
        filters.append((name, stored is None))
        if stored is not None:
            parameters[f"filter_{number}"] = stored
        if isinstance(stored, int) and not _fits(_column(kind, name), stored):
            return []  # nothing stored can equal it, and drivers refuse to send it
    wanted_tags = (query.tags, query.tags_any, query.not_tags, query.not_tags_any)
    for group, tags in enumerate(wanted_tags):
        parameters |= {f"tag_{group}_{number}": tag for number, tag in enumerate(tags)}
    order = _order(kind, query)
    if query.marker is not None:
        order = _from_marker(tx, kind, query, order, parameters)
    if query.limit is not None:
        parameters["limit"] = query.limit
    page = _PageShape(
        kind=kind,
        of_project=query.project_id is not None,
        filters=tuple(filters),
        tags=(len(query.tags), len(query.tags_any), len(query.not_tags), len(query.not_tags_any)),
        order=order,
        limited=query.limit is not None,
        after_marker=query.marker is not None,
    )
    found = tx.rows(_page_statement(page), parameters)
    return found[::-1] if query.reverse else found


def _order(kind: Kind, query: Query) -> tuple[_Term, ...]:
    directions: dict[str, bool] = {}
    for name, descending in query.sort:
        _require_column(kind, name)
        directions.setdefault(name, descending)
    # Ties are broken in the direction of the last key, so that one index answers the whole order, forwards or backwards.
    last = query.sort[-1][1] if query.sort else False
    for name in ("created_at", key_of(kind)):
        directions.setdefault(name, last)
    names = list(directions)
    del names[names.index(key_of(kind)) + 1 :]  # nothing ties after it
    return tuple(
        _Term(column=name, descending=descending is not query.reverse, optional=_is_optional(kind, name))
        for name, descending in ((name, directions[name]) for name in names)
    )


def _from_marker(
    tx: Transaction, kind: Kind, query: Query, order: tuple[_Term, ...], parameters: dict[str, Value]
) -> tuple[_Term, ...]:
    statement = _marker_statement(kind, tuple(term.column for term in order), query.project_id is not None)
    row = tx.row(statement, {**parameters, "marker": query.marker})
    if row is None:
        raise Invalid("marker", f"there is no {kind} {query.marker}")
    parameters |= {f"marker_{number}": value for number, value in enumerate(row)}
    return tuple(
        msgspec.structs.replace(term, after_null=True) if value is None else term
        for term, value in zip(order, row, strict=True)
    )


def _is_optional(kind: Kind, name: str) -> bool:
    return (kind, name) in _DERIVED or _SHAPES[kind].is_optional(name)


def _require_column(kind: Kind, name: str) -> None:
    shape = _SHAPES[kind]
    if (kind, name) not in _DERIVED and (name not in shape.columns or not shape.is_plain(name)):
        raise Invalid(name, f"a {shape.table.name} cannot be filtered or sorted by it")


def _fits(column: ColumnElement[Any], number: int) -> bool:
    bits = 63 if isinstance(column.type, BigInteger) else 31
    return -(1 << bits) <= number < 1 << bits


def _stored(kind: Kind, name: str, value: object) -> Value:
    _require_column(kind, name)
    if (kind, name) in _DERIVED:
        if value is None or isinstance(value, str | int):
            return value
        raise Invalid(name, "is a text or a number")
    try:
        return _SHAPES[kind].stored(name, value)
    except ValueError as error:
        raise Invalid(name, str(error)) from error


# --- with what they refer to -------------------------------------------------------------------------------------------


def _listed(tx: Transaction, kind: Kind, shape: Shape[T], found: Iterable[Row]) -> list[Listed[T]]:
    position = shape.columns.index(key_of(kind))
    found = list(found)
    references = references_of(tx, kind, [x[position] for x in found])
    # Shown as it is: one row that only a newer version understands must not hide the others from whoever lists them.
    return [Listed(_shown(shape, row), named) for row, named in zip(found, references, strict=True)]


def _shown(shape: Shape[T], row: Row) -> T:
    try:
        return shape.decode(row)
    except Unreadable:
        return shape.decode_leniently(row)


def _got(tx: Transaction, kind: Kind, shape: Shape[T], object_id: str) -> Listed[T] | None:
    row = tx.row(_show_statement(kind), {"id": object_id})
    return None if row is None else _listed(tx, kind, shape, [row])[0]


# --- the calls --------------------------------------------------------------------------------------------------------


def list_load_balancers(tx: Transaction, query: Query) -> list[Listed[LoadBalancer]]:
    """Raises Invalid for an unknown marker, column or value, as do all lists."""
    return _listed(tx, Kind.LOAD_BALANCER, rows.LOAD_BALANCER, _page(tx, Kind.LOAD_BALANCER, query))


def list_listeners(tx: Transaction, query: Query) -> list[Listed[Listener]]:
    """See list_load_balancers."""
    return _listed(tx, Kind.LISTENER, rows.LISTENER, _page(tx, Kind.LISTENER, query))


def list_pools(tx: Transaction, query: Query) -> list[Listed[Pool]]:
    """See list_load_balancers."""
    return _listed(tx, Kind.POOL, rows.POOL, _page(tx, Kind.POOL, query))


def list_members(tx: Transaction, query: Query) -> list[Listed[Member]]:
    """See list_load_balancers."""
    return _listed(tx, Kind.MEMBER, rows.MEMBER, _page(tx, Kind.MEMBER, query))


def list_health_monitors(tx: Transaction, query: Query) -> list[Listed[HealthMonitor]]:
    """See list_load_balancers."""
    found = _listed(tx, Kind.HEALTH_MONITOR, rows.HEALTH_MONITOR, _page(tx, Kind.HEALTH_MONITOR, query))
    return [_with_pool(each) for each in found]


def list_l7_policies(tx: Transaction, query: Query) -> list[Listed[L7Policy]]:
    """See list_load_balancers."""
    return _listed(tx, Kind.L7_POLICY, rows.L7_POLICY, _page(tx, Kind.L7_POLICY, query))


def list_l7_rules(tx: Transaction, query: Query) -> list[Listed[L7Rule]]:
    """See list_load_balancers."""
    return _listed(tx, Kind.L7_RULE, rows.L7_RULE, _page(tx, Kind.L7_RULE, query))


def list_amphorae(tx: Transaction, query: Query) -> list[Listed[Amphora]]:
    """See list_load_balancers. Those that are DELETED are hidden."""
    return _listed(tx, Kind.AMPHORA, rows.AMPHORA, _page(tx, Kind.AMPHORA, query))


def list_quotas(tx: Transaction, query: Query) -> list[Listed[Quota]]:
    """See list_load_balancers. Only projects that have a record; it is known by its project."""
    return _listed(tx, Kind.QUOTA, rows.QUOTA, _page(tx, Kind.QUOTA, query))


def list_flavors(tx: Transaction, query: Query) -> list[Listed[Flavor]]:
    """See list_load_balancers."""
    return _listed(tx, Kind.FLAVOR, rows.FLAVOR, _page(tx, Kind.FLAVOR, query))


def list_flavor_profiles(tx: Transaction, query: Query) -> list[Listed[FlavorProfile]]:
    """See list_load_balancers."""
    return _listed(tx, Kind.FLAVOR_PROFILE, rows.FLAVOR_PROFILE, _page(tx, Kind.FLAVOR_PROFILE, query))


def list_availability_zones(tx: Transaction, query: Query) -> list[Listed[AvailabilityZone]]:
    """See list_load_balancers. A zone is known by its name."""
    return _listed(tx, Kind.AVAILABILITY_ZONE, rows.AVAILABILITY_ZONE, _page(tx, Kind.AVAILABILITY_ZONE, query))


def list_availability_zone_profiles(tx: Transaction, query: Query) -> list[Listed[AvailabilityZoneProfile]]:
    """See list_load_balancers."""
    kind = Kind.AVAILABILITY_ZONE_PROFILE
    return _listed(tx, kind, rows.AVAILABILITY_ZONE_PROFILE, _page(tx, kind, query))


def get_load_balancer(tx: Transaction, load_balancer_id: LoadBalancerId) -> Listed[LoadBalancer] | None:
    """None if there is no such load balancer, or it is DELETED."""
    return _got(tx, Kind.LOAD_BALANCER, rows.LOAD_BALANCER, load_balancer_id)


def get_listener(tx: Transaction, listener_id: ListenerId) -> Listed[Listener] | None:
    """None if there is no such listener."""
    return _got(tx, Kind.LISTENER, rows.LISTENER, listener_id)


def get_pool(tx: Transaction, pool_id: PoolId) -> Listed[Pool] | None:
    """None if there is no such pool."""
    return _got(tx, Kind.POOL, rows.POOL, pool_id)


def get_member(tx: Transaction, member_id: MemberId) -> Listed[Member] | None:
    """None if there is no such member."""
    return _got(tx, Kind.MEMBER, rows.MEMBER, member_id)


def get_health_monitor(tx: Transaction, health_monitor_id: HealthMonitorId) -> Listed[HealthMonitor] | None:
    """None if there is no such health monitor."""
    found = _got(tx, Kind.HEALTH_MONITOR, rows.HEALTH_MONITOR, health_monitor_id)
    return None if found is None else _with_pool(found)


def get_l7_policy(tx: Transaction, l7_policy_id: L7PolicyId) -> Listed[L7Policy] | None:
    """None if there is no such policy."""
    return _got(tx, Kind.L7_POLICY, rows.L7_POLICY, l7_policy_id)


def get_l7_rule(tx: Transaction, l7_rule_id: L7RuleId) -> Listed[L7Rule] | None:
    """None if there is no such rule."""
    return _got(tx, Kind.L7_RULE, rows.L7_RULE, l7_rule_id)


def get_amphora(tx: Transaction, amphora_id: AmphoraId) -> Listed[Amphora] | None:
    """None if there is no such amphora, or it is DELETED."""
    return _got(tx, Kind.AMPHORA, rows.AMPHORA, amphora_id)


def get_quota(tx: Transaction, project_id: ProjectId) -> Listed[Quota] | None:
    """None if the project has no record: then the defaults hold."""
    return _got(tx, Kind.QUOTA, rows.QUOTA, project_id)


def get_flavor(tx: Transaction, flavor_id: FlavorId) -> Listed[Flavor] | None:
    """None if there is no such flavor."""
    return _got(tx, Kind.FLAVOR, rows.FLAVOR, flavor_id)


def get_flavor_profile(tx: Transaction, flavor_profile_id: FlavorProfileId) -> Listed[FlavorProfile] | None:
    """None if there is no such profile."""
    return _got(tx, Kind.FLAVOR_PROFILE, rows.FLAVOR_PROFILE, flavor_profile_id)


def get_availability_zone(tx: Transaction, name: str) -> Listed[AvailabilityZone] | None:
    """None if there is no zone of this name."""
    return _got(tx, Kind.AVAILABILITY_ZONE, rows.AVAILABILITY_ZONE, name)


def get_availability_zone_profile(
    tx: Transaction, profile_id: AvailabilityZoneProfileId
) -> Listed[AvailabilityZoneProfile] | None:
    """None if there is no such profile."""
    return _got(tx, Kind.AVAILABILITY_ZONE_PROFILE, rows.AVAILABILITY_ZONE_PROFILE, profile_id)


def _with_pool(found: Listed[HealthMonitor]) -> Listed[HealthMonitor]:
    return Listed(found.value, {"pools": (found.value.pool_id,)})
