"""How many objects of each kind a project may have.

Pure: the store counts and keeps, the API says when. A limit that a project's record does not say is the operator's
default, at the time of asking; -1 means that there is none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import ClassVar

import msgspec
from msgspec.structs import replace

from frontinus.model.enums import Kind
from frontinus.model.ids import ProjectId
from frontinus.model.tree import LoadBalancerTree, TreeChild

UNLIMITED = -1
MAX_LIMIT = 2_000_000_000

COUNTED: tuple[Kind, ...] = (
    Kind.LOAD_BALANCER,
    Kind.LISTENER,
    Kind.POOL,
    Kind.MEMBER,
    Kind.HEALTH_MONITOR,
    Kind.L7_POLICY,
    Kind.L7_RULE,
)
"""The kinds that have a limit; each is the name of its column and of its attribute."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The operator's defaults."""

    load_balancer: int = UNLIMITED
    listener: int = UNLIMITED
    pool: int = UNLIMITED
    member: int = UNLIMITED
    health_monitor: int = UNLIMITED
    l7_policy: int = UNLIMITED
    l7_rule: int = UNLIMITED


class Quota(msgspec.Struct, frozen=True, kw_only=True):
    """A project's record; None where the default holds."""

    kind: ClassVar[Kind] = Kind.QUOTA

    project_id: ProjectId
    load_balancer: int | None = None
    listener: int | None = None
    pool: int | None = None
    member: int | None = None
    health_monitor: int | None = None
    l7_policy: int | None = None
    l7_rule: int | None = None
    created_at: datetime

    def completed(self, defaults: Limits) -> Quota:
        """As it is shown: with the defaults where it says nothing."""
        return replace(self, **{kind.value: limit for kind, limit in self.effective(defaults).items()})

    def effective(self, defaults: Limits) -> dict[Kind, int]:
        """The limit of each kind, defaults filled in."""
        own = {kind: getattr(self, kind) for kind in COUNTED}
        return {kind: getattr(defaults, kind) if limit is None else limit for kind, limit in own.items()}


def new_objects(before: Iterable[tuple[Kind, str, bool]], after: Iterable[tuple[Kind, str, bool]]) -> dict[Kind, int]:
    """How many objects an edit adds of each kind, less those that it asks to be removed; only where that is positive.

    Objects are (kind, id, whether removal was asked for)."""
    known = {(kind, object_id): leaving for kind, object_id, leaving in before}
    added: dict[Kind, int] = {}
    for kind, object_id, leaving in after:
        left_already = known.get((kind, object_id))
        if left_already is None:
            added[kind] = added.get(kind, 0) + 1
        elif leaving and not left_already:
            added[kind] = added.get(kind, 0) - 1
    return {kind: count for kind, count in added.items() if count > 0}


def added_by(before: LoadBalancerTree | None, after: LoadBalancerTree) -> dict[Kind, int]:
    """As `new_objects`, for an edit of a load balancer; for its create, where there was none before.

    Only branches that grew are looked through: objects that are being deleted stay in a tree until they are gone."""
    if before is None:
        counts = {kind: len(getattr(after, branch)) for kind, branch in _BRANCHES.items()}
        return {Kind.LOAD_BALANCER: 1} | {kind: count for kind, count in counts.items() if count}
    added: dict[Kind, int] = {}
    for branch in _BRANCHES.values():
        then, now = getattr(before, branch), getattr(after, branch)
        if len(now) > len(then):
            added |= new_objects(_named(then), _named(now))
    return added


def _named(children: Iterable[TreeChild]) -> Iterator[tuple[Kind, str, bool]]:
    return ((x.kind, x.id, x.delete_requested) for x in children)


_BRANCHES: dict[Kind, str] = {
    Kind.LISTENER: "listeners",
    Kind.POOL: "pools",
    Kind.MEMBER: "members",
    Kind.HEALTH_MONITOR: "health_monitors",
    Kind.L7_POLICY: "l7_policies",
    Kind.L7_RULE: "l7_rules",
}


def limited(limits: Mapping[Kind, int], added: Mapping[Kind, int]) -> dict[Kind, int]:
    """Those limits that what is added could reach."""
    return {kind: limits[kind] for kind in added if limits[kind] > UNLIMITED}
