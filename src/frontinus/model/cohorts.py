"""Cohorts: all controllers with one driver in one version. Which of them a load balancer belongs to is decided here.

Pure: callers read the cohorts and pass the time. Next: store/cohorts.py."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from enum import StrEnum

import msgspec
from packaging.version import InvalidVersion, Version

from frontinus.model.capabilities import Capabilities

SILENT_AFTER = timedelta(seconds=30)
"""A controller that did not say for so long that it lives is not counted on: what it served is another's."""


class CohortState(StrEnum):
    """Whether a cohort is given new load balancers."""

    ACTIVE = "active"
    DRAINING = "draining"


class CohortName(msgspec.Struct, frozen=True):
    """What tells a cohort: its driver and the driver's version."""

    driver: str
    driver_version: str

    def __str__(self) -> str:
        return f"{self.driver} {self.driver_version}"


class Cohort(msgspec.Struct, frozen=True, kw_only=True):
    """A cohort as it is known, whether or not a controller of it runs.

    `providers` are the names under which its controllers registered, `config_digest` is of the settings that all of them
    have. `changed_at` is since when it is in this state. `seen_at` is when one of its controllers was last seen, `alive_at` the
    same of those that have not said goodbye; None: there is none."""

    driver: str
    driver_version: str
    state: CohortState
    providers: tuple[str, ...]
    capabilities: Capabilities
    config_digest: str | None
    first_seen_at: datetime
    changed_at: datetime
    seen_at: datetime | None = None
    alive_at: datetime | None = None

    @property
    def name(self) -> CohortName:
        return CohortName(self.driver, self.driver_version)

    def is_served(self, now: datetime) -> bool:
        """Whether a controller of it lives. A time ahead is of a clock that runs before ours, or was set back."""
        return self.alive_at is not None and self.alive_at > now - SILENT_AFTER

    @property
    def age_order(self) -> tuple[bool, Version, datetime]:
        """Sorts from the oldest driver to the newest: by PEP 440, versions that are none before all others."""
        try:
            return True, Version(self.driver_version), self.first_seen_at
        except InvalidVersion:
            return False, Version("0"), self.first_seen_at


def newest(cohorts: Iterable[Cohort]) -> Cohort | None:
    """The one with the newest driver, or None of none."""
    return max(cohorts, key=lambda x: x.age_order, default=None)


def for_new(cohorts: Iterable[Cohort], provider: str, default_driver: str, now: datetime) -> Cohort | None:
    """Who gets a new load balancer of this provider: the newest active cohort of the driver.

    The driver is `default_driver` where a cohort of it serves the provider, else that of the newest cohort. One whose controllers
    live goes before one whose controllers are away, as all are while they are restarted. None when no cohort is active."""
    serving = [x for x in cohorts if provider in x.providers]
    of_driver = [x for x in serving if x.driver == default_driver] or serving
    active = [x for x in of_driver if x.state is CohortState.ACTIVE]
    return newest([x for x in active if x.is_served(now)] or active)


def heir(cohorts: Iterable[Cohort], driver: str, now: datetime) -> Cohort | None:
    """Who takes over what other cohorts of this driver leave behind: the newest active one that is served, or where there
    is none the newest that is served, since nothing may be stuck."""
    served = [x for x in cohorts if x.driver == driver and x.is_served(now)]
    return newest([x for x in served if x.state is CohortState.ACTIVE] or served)


def unserved(cohorts: Iterable[Cohort], taker: Cohort, now: datetime) -> list[Cohort]:
    """Cohorts of the taker's driver whose load balancers nobody serves.

    Silence counts after a while. Goodbyes of all count at once towards a newer driver, so that an upgrade is not noticed; an
    older one waits, since the newer may only be restarting."""
    return [
        x
        for x in cohorts
        if x.driver == taker.driver
        and x.name != taker.name
        and not x.is_served(now)
        and (x.age_order < taker.age_order or x.seen_at is None or x.seen_at <= now - SILENT_AFTER)
    ]
