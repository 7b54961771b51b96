"""Whose silence counts: what this controller has witnessed, by its own clock, of the other cohorts.

A time in a row says when somebody could write, by his clock. Where nobody could, or a clock is ahead, all others look silent to
whoever looks first. So silence is counted only here: while this controller could write itself, from the moment when
it first found a row as it still is. Holds no time but what it is told. Next: membership.py, which looks; model/cohorts.py,
which judges."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

import msgspec
from msgspec.structs import replace

from frontinus.model.cohorts import SILENT_AFTER, Cohort, CohortName

LONGEST_PAUSE = SILENT_AFTER / 2
"""Between two looks. After a longer one, and when the clock was set, everybody counts as seen at the second: it was we who were
away, or nobody could write."""


class _Found(msgspec.Struct, frozen=True):
    """What a cohort's controllers had written, and when that was first found."""

    seen_at: datetime | None
    alive_at: datetime | None
    at: datetime

    def is_as_in(self, cohort: Cohort) -> bool:
        return (self.seen_at, self.alive_at) == (cohort.seen_at, cohort.alive_at)


class Attendance:
    """What one controller knows of who is there. One owner, its keep-alive loop, looks; others of its tasks ask."""

    def __init__(self, longest_pause: timedelta = LONGEST_PAUSE) -> None:
        self._longest_pause = longest_pause
        self._looked_at: datetime | None = None
        self._found: dict[CohortName, _Found] = {}

    @classmethod
    def of_interval(cls, interval: timedelta) -> Attendance:
        """For one who looks so often."""
        return cls(max(LONGEST_PAUSE, 2 * interval))

    def look(self, known: Iterable[Cohort], now: datetime) -> None:
        """The cohorts as they stand in the store, just after this controller has itself written there that it lives."""
        pause = None if self._looked_at is None else now - self._looked_at
        is_kept = pause is not None and timedelta(0) <= pause <= self._longest_pause
        before = self._found if is_kept else {}
        self._found = {}
        for cohort in known:
            found = before.get(cohort.name)
            if found is None or not found.is_as_in(cohort):
                found = _Found(cohort.seen_at, cohort.alive_at, now)
            self._found[cohort.name] = found
        self._looked_at = now

    def of(self, known: Iterable[Cohort], now: datetime) -> list[Cohort]:
        """The cohorts with the times at which this controller knows them to have been there. Who has written since the last
        look, and who is new, is there now."""
        return [self._witnessed(x, now) for x in known]

    def _witnessed(self, cohort: Cohort, now: datetime) -> Cohort:
        found = self._found.get(cohort.name)
        silent_for = timedelta(0)
        if found is not None and self._looked_at is not None and found.is_as_in(cohort):
            silent_for = self._looked_at - found.at
        at = now - silent_for
        return replace(
            cohort,
            seen_at=None if cohort.seen_at is None else at,
            alive_at=None if cohort.alive_at is None else at,
        )
