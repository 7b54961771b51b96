"""One time for all processes of an installation: the database's, as each knows it.

What one process writes (when work is due, how long a lease lasts, when a receiver was seen) another compares with its own clock.
Hosts whose clocks differ by seconds would hold work up or take it from each other, so each measures now and then how far
its own is from the database's, and goes by the database's where that is more than a trifle. Times that others outside know
(certificates, say) are no business of this."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import structlog

from frontinus.model.errors import FrontinusError
from frontinus.store import diagnosis
from frontinus.store.engine import Store
from frontinus.store.leases import CLOCK_WAS_WRONG_BEYOND

log = structlog.get_logger()

TRIFLE = timedelta(seconds=0.5)
"""Clocks of hosts that agree differ by less, and so do two measurements; time shall not jump for it."""

SLOWEST_ANSWER = timedelta(seconds=1)
"""After a longer one nobody knows when the database looked at its clock."""

LOOK_EVERY_S = 10.0
MEASURE_EVERY_S = 300.0
"""Of a clock that nobody set: one that drifts by 0.1 per mille is off by 30 ms then. A hundred processes ask the database once in
three seconds; what somebody does to a host's clock is seen without it."""

AGREES = timedelta(0)


def own_clock() -> datetime:
    """The clock of this host."""
    return datetime.now(UTC)


def since_boot() -> float:
    """Seconds, also those in which the host slept; nobody sets this clock."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class SharedClock:
    """What time it is, as a function. One per process; one owner, `run`, measures.

    It is this host's clock while that agrees with the database's, else the database's as of the last measurement, carried on by a clock
    that nobody sets: if the host's is put right meanwhile, time does not jump."""

    def __init__(self, store: Store, own: Callable[[], datetime] = own_clock, steady: Callable[[], float] = since_boot):
        self._store = store
        self._own = own
        self._steady = steady
        self._anchor: tuple[datetime, float] | None = None
        self._measured: tuple[datetime, float] | None = None  # by both clocks of this host
        self.off = AGREES
        """How far this host's clock was ahead of the database's at the last measurement."""

    def __call__(self) -> datetime:
        if self._anchor is None:
            return self._own()
        there, at = self._anchor
        return there + timedelta(seconds=self._steady() - at)

    def seconds_ahead(self) -> float:
        return self.off.total_seconds()

    async def measure(self) -> None:
        """Ask the database. When it is away, or slow, nothing changes; when it is farther away than anything that is written lasts,
        one of the two clocks is no clock, and this host's is kept."""
        asked, began = self._own(), self._steady()
        try:
            there = await self._store.read(diagnosis.clock)
        except FrontinusError as trouble:
            log.info("clock could not be compared with the database's", reason=str(trouble))
            return
        took = timedelta(seconds=self._steady() - began)
        if took > SLOWEST_ANSWER:
            return
        self._measured = (asked, began)
        before, self.off = self.off, asked + took / 2 - there
        if abs(self.off - before) > TRIFLE:
            say = log.info if abs(self.off) <= TRIFLE else log.warning
            say("clock is off the database's: let NTP set both", seconds=round(self.off.total_seconds(), 3))
        if not TRIFLE < abs(self.off) <= CLOCK_WAS_WRONG_BEYOND:
            self._anchor = None
            return
        here = there + took / 2
        if self._anchor is None or abs(self() - here) > TRIFLE:
            self._anchor = (here, began + took.total_seconds())

    def is_due(self) -> bool:
        """Whether to measure: long after the last time, or when somebody has set the clock of this host since."""
        if self._measured is None:
            return True
        then, at = self._measured
        passed = self._steady() - at
        return passed >= MEASURE_EVERY_S or abs(self._own() - then - timedelta(seconds=passed)) > TRIFLE

    async def run(self) -> None:
        """Measure when it is due, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S * random.uniform(0.5, 1.5))
            try:
                if self.is_due():
                    await self.measure()
            except Exception:  # the next turn measures
                log.exception("clock could not be compared with the database's")
