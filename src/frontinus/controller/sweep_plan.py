"""Decide what of all that stands outside is nobody's, and what of that may go now.

Pure. Two rules keep what is wanted safe: an orphan is one only after it was seen as such for a grace, because a thing is made
before it is recorded, or recorded by somebody who is slow; and many orphans at once are not believed, because a database that
was lost, restored or mistaken makes orphans of everything. How many is counted where nobody else could have made them: else whoever
can would decide what is deleted. Next: sweeper.py."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta

import msgspec

from frontinus.model.belongings import Belonging, Owner, OwnerKind
from frontinus.model.ids import ProjectId
from frontinus.model.orphans import Sighting

ALWAYS_BELIEVED = 5
"""So many orphans are deleted unasked, whatever part they are of what there is."""

BELIEVED_PART = 10
"""And of more, one of so many owners. A controller that dies leaves one or two; a wrong database leaves all."""


class Orphan(msgspec.Struct, frozen=True, kw_only=True):
    """Nobody's, seen first at `since`; may be deleted from `until` on."""

    owner: Owner
    since: datetime
    until: datetime
    belongings: tuple[Belonging, ...]


class Survey(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that stands outside: what is wanted, and what is nobody's."""

    wanted: tuple[Belonging, ...]
    orphans: tuple[Orphan, ...]

    @property
    def is_believed(self) -> bool:
        """Whether the orphans are so few that any may be deleted unasked. What was nobody's from the start is not counted: no
        database says so. What tenants can make counts for no more than what only we can."""
        lost = _by_tenant(self._lost)
        ours = len(lost.pop(None, ()))
        count = ours + min(ours, len(set().union(*lost.values())))
        return _are_believed(count, count + len({x.owner for x in self.wanted}))

    @property
    def held(self) -> tuple[Orphan, ...]:
        """Those that are not deleted unasked, because they are too many to be believed.

        Of what tenants can make, each project's are counted by themselves, and how many projects have any: so a tenant who
        marks what is his as ours holds up his own project, and a lost database still everything."""
        if not self.is_believed:
            return self.orphans
        wanted, lost = _by_tenant(self.wanted), _by_tenant(self._lost)
        projects = {x for x in (*wanted, *lost) if x is not None}
        losing = {x for x in lost if x is not None}
        if _are_believed(len(losing), len(projects)):
            losing = {x for x in losing if not _are_believed(len(lost[x]), len(lost[x] | wanted.get(x, set())))}
        return tuple(x for x in self.orphans if any(y.tenant in losing for y in x.belongings))

    @property
    def _lost(self) -> Iterator[Belonging]:
        return (y for x in self.orphans if x.owner.kind is not OwnerKind.NOBODY for y in x.belongings)

    def due(self, now: datetime) -> tuple[Orphan, ...]:
        """The orphans whose grace is over."""
        return tuple(x for x in self.orphans if x.until <= now)


def _are_believed(lost: int, there: int) -> bool:
    return lost <= max(ALWAYS_BELIEVED, there // BELIEVED_PART)


def _by_tenant(belongings: Iterable[Belonging]) -> dict[ProjectId | None, set[Owner]]:
    """Their owners."""
    found: dict[ProjectId | None, set[Owner]] = {}
    for each in belongings:
        found.setdefault(each.tenant, set()).add(each.owner)
    return found


def group(belongings: Sequence[Belonging]) -> dict[Owner, tuple[Belonging, ...]]:
    """What each owner has, amphorae first: their ports go after their places."""
    found: dict[Owner, list[Belonging]] = {}
    for each in belongings:
        found.setdefault(each.owner, []).append(each)
    return {owner: tuple(found[owner]) for owner in sorted(found)}


def survey(
    owned: Mapping[Owner, tuple[Belonging, ...]], sightings: Mapping[Owner, Sighting], grace: timedelta
) -> Survey:
    """What it comes to; `sightings` has every owner that is lost."""
    return Survey(
        wanted=tuple(x for owner, things in owned.items() if owner not in sightings for x in things),
        orphans=tuple(
            Orphan(
                owner=owner,
                since=sightings[owner].first_seen_at,
                until=sightings[owner].first_seen_at + grace,
                belongings=things,
            )
            for owner, things in owned.items()
            if owner in sightings
        ),
    )
