"""When to try again, and when a failure is worth the word ERROR. Pure: the random number comes in as an argument."""

from __future__ import annotations

from datetime import datetime, timedelta

from msgspec.structs import replace

from frontinus.controller.settings import ControllerSettings
from frontinus.model.tree import Fault


def pause(attempts: int, base: timedelta, cap: timedelta, jitter: float) -> timedelta:
    """The pause after so many failures in a row (1 or more): doubling, capped, spread by `jitter` in [0, 1) over
    ±20 % so that a thousand load balancers with one cause do not come back in one moment."""
    doubled: timedelta = base * (1 << min(attempts - 1, 16))
    return min(doubled, cap) * (0.8 + 0.4 * jitter)


def continued(fault: Fault, before: Fault | None) -> Fault:
    """The fault as the continuation of the one before, whatever that was about: the trouble keeps its beginning until
    it is over. Causes that take turns would otherwise begin anew each time, and never be worth the word ERROR. That one of
    them was an outage is kept with it.

    Another cause after a permanent one is new all the same: that one waited for the user, who has changed something."""
    if before is None or before.object_id != fault.object_id or (before.permanent and before.code != fault.code):
        return fault
    return replace(fault, since=before.since, attempts=before.attempts + 1, outage=fault.outage or before.outage)


def budget_of(fault: Fault, settings: ControllerSettings) -> timedelta:
    """For how long after its beginning a transient fault leaves PENDING what was asked."""
    return max(settings.retry_budget, settings.outage_budget) if fault.outage else settings.retry_budget


def is_reported_as_error(fault: Fault, now: datetime, budget: timedelta) -> bool:
    """A permanent fault at once; a transient one when its budget (`budget_of`) is spent."""
    return fault.permanent or now - fault.since >= budget
