"""Decide what of all that stands outside is nobody's, and what of that may go now.

Pure. Two rules keep what is wanted safe: an orphan is one only after it was seen as such for a grace, because a thing is made
before it is recorded, or recorded by somebody who is slow; and many orphans at once are not believed, because a database that
was lost, restored or mistaken makes orphans of everything. Next: sweeper.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import msgspec

from frontinus.model.belongings import Belonging, Owner, OwnerKind
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
        """Whether the orphans are so few that they may be deleted unasked. What was nobody's from the start is not counted:
        no database says so."""
        lost = {x.owner for x in self.orphans if x.owner.kind is not OwnerKind.NOBODY}
        owners = lost | {x.owner for x in self.wanted}
        return len(lost) <= max(ALWAYS_BELIEVED, len(owners) // BELIEVED_PART)

    def due(self, now: datetime) -> tuple[Orphan, ...]:
        """The orphans whose grace is over."""
        return tuple(x for x in self.orphans if x.until <= now)


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
