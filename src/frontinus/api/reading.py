"""Lists and shows, the same for every kind of object: arguments to a query of the store, a page to the wire.

Filters, sort keys and selectable attributes come from fields.py; links follow contract/behaviours.yaml listing, with its
recommendations: links keep every argument, and a page without a limit has no next one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
from starlette.responses import Response

from frontinus.api.calls import Call, Handler, json_response
from frontinus.api.changes import not_found
from frontinus.api.etags import not_modified, object_response
from frontinus.api.fields import (
    AMPHORA,
    AVAILABILITY_ZONE,
    AVAILABILITY_ZONE_PROFILE,
    FLAVOR,
    FLAVOR_PROFILE,
    HEALTH_MONITOR,
    L7_POLICY,
    L7_RULE,
    LISTENER,
    LOAD_BALANCER,
    MEMBER,
    NOTHING,
    POOL,
    QUOTA,
    Field,
    Resource,
)
from frontinus.api.rendering import Wire, render
from frontinus.api.settings import ApiSettings
from frontinus.api.wire_types import Choice
from frontinus.model.enums import Kind
from frontinus.model.errors import Invalid
from frontinus.model.ids import ProjectId
from frontinus.store import listing
from frontinus.store.engine import Transaction
from frontinus.store.listing import Listed, Query

FIELDS = "fields"
PAGING = frozenset({"limit", "marker", "page_reverse"})
SORTING = frozenset({"sort", "sort_key", "sort_dir"})
TAGS = {"tags": "tags", "tags-any": "tags_any", "not-tags": "not_tags", "not-tags-any": "not_tags_any"}
PROJECT = "project_id"

MOST_TAGS = 100
"""How many tags one list may be filtered by, in all. Each is a condition of the statement, and a thousand are more than
an engine takes, or keep it busy for a minute."""


class Source(msgspec.Struct, frozen=True):
    """Where objects of one kind are read, and which column holds the parent that their path names."""

    resource: Resource
    list: Callable[[Transaction, Query], list[Listed[Any]]]
    get: Callable[[Transaction, Any], Listed[Any] | None]
    parent: Kind | None = None
    parent_column: str = ""
    complete: Callable[[Any, ApiSettings], Any] | None = None
    """What is shown of a stored value, where settings take part in it."""


SOURCES: Mapping[Kind, Source] = {
    Kind.LOAD_BALANCER: Source(LOAD_BALANCER, listing.list_load_balancers, listing.get_load_balancer),
    Kind.LISTENER: Source(LISTENER, listing.list_listeners, listing.get_listener),
    Kind.POOL: Source(POOL, listing.list_pools, listing.get_pool),
    Kind.MEMBER: Source(MEMBER, listing.list_members, listing.get_member, Kind.POOL, "pool_id"),
    Kind.HEALTH_MONITOR: Source(HEALTH_MONITOR, listing.list_health_monitors, listing.get_health_monitor),
    Kind.L7_POLICY: Source(L7_POLICY, listing.list_l7_policies, listing.get_l7_policy),
    Kind.L7_RULE: Source(L7_RULE, listing.list_l7_rules, listing.get_l7_rule, Kind.L7_POLICY, "l7_policy_id"),
    Kind.AMPHORA: Source(AMPHORA, listing.list_amphorae, listing.get_amphora),
    Kind.QUOTA: Source(
        QUOTA,
        listing.list_quotas,
        listing.get_quota,
        complete=lambda quota, settings: quota.completed(settings.quotas.limits),
    ),
    Kind.FLAVOR: Source(FLAVOR, listing.list_flavors, listing.get_flavor),
    Kind.FLAVOR_PROFILE: Source(FLAVOR_PROFILE, listing.list_flavor_profiles, listing.get_flavor_profile),
    Kind.AVAILABILITY_ZONE: Source(AVAILABILITY_ZONE, listing.list_availability_zones, listing.get_availability_zone),
    Kind.AVAILABILITY_ZONE_PROFILE: Source(
        AVAILABILITY_ZONE_PROFILE, listing.list_availability_zone_profiles, listing.get_availability_zone_profile
    ),
}


def show(kind: Kind) -> Handler:
    """The handler of GET on one object."""
    source = SOURCES[kind]
    resource = source.resource

    async def show_object(call: Call) -> Response:
        found = await call.api.store.read(lambda tx: get_object(tx, kind, call.params))
        shown = render(resource, found.value, found.references)
        unchanged = not_modified(call.headers, shown)
        return unchanged or object_response(resource, shown, body=select_attributes(shown, call))

    return show_object


def list_all(kind: Kind) -> Handler:
    """The handler of GET on a collection."""
    source = SOURCES[kind]
    resource = source.resource

    async def list_objects(call: Call) -> Response:
        page = _Page(call, source)

        def work(tx: Transaction) -> list[Listed[Any]]:
            if source.parent is not None and SOURCES[source.parent].get(tx, call.params[source.parent]) is None:
                raise not_found(source.parent, call.params[source.parent])
            query = page.query(tx)
            return [] if query is None else source.list(tx, query)

        found = await call.api.store.read(work)
        complete, settings = source.complete, call.api.settings
        if complete is not None:
            found = [Listed(complete(x.value, settings), x.references) for x in found]
        shown = [select_attributes(render(resource, x.value, x.references), call) for x in found]
        ids = [getattr(x.value, listing.key_of(kind)) for x in found]
        return json_response({resource.collection_key: shown, resource.links_key: page.links(ids)})

    return list_objects


def get_object(tx: Transaction, kind: Kind, params: Mapping[str, str]) -> Listed[Any]:
    """The object that a path names, which must be below the parent that it names. Raises NotFound."""
    source = SOURCES[kind]
    if source.parent is not None and SOURCES[source.parent].get(tx, params[source.parent]) is None:
        raise not_found(source.parent, params[source.parent])
    found = source.get(tx, params[kind])
    if found is None or (
        source.parent is not None and getattr(found.value, source.parent_column) != params[source.parent]
    ):
        raise not_found(kind, params[kind])
    return found


def select_attributes(shown: Wire, call: Call) -> Wire:
    """The attributes that `fields` names; names that do not exist are ignored. tenant_id cannot be picked (contract)."""
    if not call.query or not call.api.settings.allow_field_selection:
        return shown
    names = call.arguments(FIELDS)
    if not names:
        return shown
    return {name: shown[name] for name in names if name in shown and name != "tenant_id"}


class _Page:
    """What of a list a request wants."""

    def __init__(self, call: Call, source: Source) -> None:
        self._call = call
        self._resource = source.resource
        self._columns = {x.wire: x for x in source.resource.fields if is_filter(x)}
        self._filters: list[tuple[str, object]] = []
        self._health_monitor_id: str | None = None
        self._is_empty = False
        self._tags: dict[str, list[str]] = {name: [] for name in TAGS.values()}
        if source.parent is not None:
            self._filters.append((source.parent_column, call.params[source.parent]))
        settings = call.api.settings
        self._is_paged, self._is_sorted = settings.allow_pagination, settings.allow_sorting
        if settings.allow_filtering:
            self._read_filters()
        self._limit, self._unlimited = self._read_limit()

    def query(self, tx: Transaction) -> Query | None:
        """None where nothing can match."""
        filters = list(self._filters)
        if self._health_monitor_id is not None:
            # A pool does not hold its monitor's id; the monitor holds the pool's.
            monitor = SOURCES[Kind.HEALTH_MONITOR].get(tx, self._health_monitor_id)
            if monitor is None:
                return None
            filters.append(("id", monitor.value.pool_id))
        if self._is_empty:
            return None
        project_id = self._call.restricted_to or self._call.argument(PROJECT)
        return Query(
            filters=tuple(filters),
            tags=tuple(self._tags["tags"]),
            tags_any=tuple(self._tags["tags_any"]),
            not_tags=tuple(self._tags["not_tags"]),
            not_tags_any=tuple(self._tags["not_tags_any"]),
            sort=self._read_sort() if self._is_sorted else (),
            limit=None if self._unlimited else self._limit,
            marker=self._call.argument("marker") if self._is_paged else None,
            reverse=self._is_reverse and self._is_paged,
            project_id=None if project_id is None else ProjectId(project_id),
            defaults=self._call.api.settings.quotas.limits if self._resource is QUOTA else None,
        )

    def links(self, ids: list[str]) -> list[dict[str, str]]:
        """previous, if the request had a marker; next, if the page is full."""
        links: list[dict[str, str]] = []
        if not self._is_paged:
            return links
        if ids and self._call.argument("marker") is not None:
            links.append({"rel": "previous", "href": self._href(ids[0], reverse=True)})
        if ids and not self._unlimited and len(ids) >= self._limit:
            links.append({"rel": "next", "href": self._href(ids[-1], reverse=False)})
        return links

    @property
    def _is_reverse(self) -> bool:
        return self._call.argument("page_reverse") == "True"

    def _href(self, marker: str, *, reverse: bool) -> str:
        kept = [(name, value) for name, value in self._call.query if name not in PAGING]
        kept += [("limit", str(self._limit)), ("marker", marker)]
        if reverse:
            kept.append(("page_reverse", "True"))
        return f"{self._call.base}{quote(self._call.path)}?{urlencode(kept)}"

    def _read_filters(self) -> None:
        seen: set[str] = set()
        for name, value in self._call.query:
            if name in PAGING or name in SORTING or name == FIELDS:
                continue
            if name in TAGS and any(x.wire == "tags" for x in self._resource.fields):
                self._tags[TAGS[name]] += [x for x in value.split(",") if x] or [""]
                continue
            field = self._columns.get(name)
            if field is None:
                raise Invalid(name[:80], f"{self._resource.collection_key} cannot be filtered by it")
            if name in seen:
                raise Invalid(name, "can be given only once")
            seen.add(name)
            self._add_filter(name, value, field)
        for group, tags in self._tags.items():
            self._tags[group] = list(dict.fromkeys(tags))
        if sum(len(tags) for tags in self._tags.values()) > MOST_TAGS:
            raise Invalid("tags", f"a list can be filtered by {MOST_TAGS} tags at most")

    def _add_filter(self, name: str, value: str, field: Field) -> None:
        if field.constant is not NOTHING:
            self._is_empty |= field.constant is None or field.type.query(value, name) != field.constant
        elif field.column == "health_monitor_id":
            self._health_monitor_id = value
        elif isinstance(field.type, Choice) and not field.type.has(value):
            self._is_empty = True
        elif name != PROJECT and field.column is not None:
            self._filters.append((field.column, field.type.query(value, name)))

    def _read_sort(self) -> tuple[tuple[str, bool], ...]:
        combined = self._call.argument("sort")
        if combined is not None:
            pairs = [part.partition(":")[::2] for part in combined.split(",") if part]
        else:
            keys = [x for x in (self._call.argument("sort_key") or "").split(",") if x]
            directions = (self._call.argument("sort_dir") or "").split(",")
            pairs = [(key, directions[n] if n < len(directions) else "") for n, key in enumerate(keys)]
        directed = [(self._sort_column(key.strip()), _is_descending(direction)) for key, direction in pairs]
        return tuple((column, descending) for column, descending in directed if column is not None)

    def _sort_column(self, key: str) -> str | None:
        """None for what is the same of all."""
        field = self._columns.get(key)
        if field is None or field.column == "health_monitor_id":
            raise Invalid("sort", f"{self._resource.collection_key} cannot be sorted by {key[:80]!r}")
        return field.column

    def _read_limit(self) -> tuple[int, bool]:
        """The page's size, and whether there is none."""
        most = self._call.api.settings.pagination_max_limit
        if not self._is_paged:
            return most, True
        text = self._call.argument("limit")
        if text is None:
            return most, most <= 0
        if text.strip().lower() == "infinite":
            return most, True
        try:
            limit = int(text) if len(text) <= 20 else None
        except ValueError:
            limit = None
        if limit is None:
            raise Invalid("limit", f"must be a number, not {text[:80]!r}")
        return (most, True) if limit <= 0 else (min(limit, most) if most > 0 else limit, False)


def _is_descending(direction: str) -> bool:
    word = direction.strip().lower()
    if word not in ("", "asc", "desc"):
        raise Invalid("sort", f"must be asc or desc, not {direction[:80]!r}")
    return word == "desc"


def known_list_arguments(resource: Resource) -> list[str]:
    """Every argument of a list, for the OpenAPI document."""
    filters = [x.wire for x in resource.fields if is_filter(x)]
    tags = TAGS if any(x.wire == "tags" for x in resource.fields) else ()
    return sorted({*filters, *tags, *PAGING, *SORTING, FIELDS})


def is_filter(field: Field) -> bool:
    """Whether lists can be filtered and sorted by it."""
    return field.column is not None or field.constant is not NOTHING
