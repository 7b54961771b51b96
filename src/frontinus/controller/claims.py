"""Claim due load balancers of a cohort, work on many at once, and keep their leases while that goes on.

Owns the pace: how many, how long to sleep. What is done under a lease is handed in: it knows no driver and no step. Next:
reconcile.py for amphorae, provider_reconcile.py for third-party providers."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial

import structlog

from frontinus.controller.backoff import budget_of, is_reported_as_error, pause
from frontinus.controller.hesitation import Hesitation
from frontinus.controller.metrics import ControllerMetrics
from frontinus.controller.restraint import Grace
from frontinus.controller.settings import ControllerSettings
from frontinus.model.cohorts import CohortName
from frontinus.model.enums import FaultPhase
from frontinus.model.errors import FrontinusError, LeaseLost, Retry, Unreadable, WorldError
from frontinus.model.ids import ControllerId, LoadBalancerId
from frontinus.model.tree import Fault
from frontinus.store import convergence, leases
from frontinus.store.engine import Store, Wakeups
from frontinus.store.leases import Lease

log = structlog.get_logger()

RETRY_AFTER_TROUBLE_S = 1.0

FIRST_HESITATION = timedelta(milliseconds=5)
"""What a controller that found nothing waits for at most after the next wake-up, before it looks again."""

GATHERED = 4
"""Where all places were taken, work is claimed when one in so many is free, ..."""

GATHER_S = 0.05
"""... or after this: what is claimed together costs the database hardly more than one alone."""


class Claims:
    """What one controller works on. One owner: the task that runs `run`."""

    def __init__(
        self,
        store: Store,
        owner: ControllerId,
        cohort: CohortName,
        settings: ControllerSettings,
        now: Callable[[], datetime],
        work: Callable[[Lease], Awaitable[bool | None]],
        metrics: ControllerMetrics,
        grace: Grace | None = None,
    ) -> None:
        """`work` brings one load balancer as far as it goes for now, and says True when it gave the lease back itself; it may
        raise LeaseLost, and whatever else it raises is logged, told as a fault and tried again after a pause. `grace` is told of outages of the store."""
        self._store = store
        self._owner = owner
        self._cohort = cohort
        self._settings = settings
        self._now = now
        self._work = work
        self._metrics = metrics
        self._grace = grace
        self._busy: dict[LoadBalancerId, asyncio.Task[None]] = {}
        # Of which the work failed without a word, since when and how often. Forgotten when it is done, or was somebody else's.
        self._failures: dict[LoadBalancerId, tuple[datetime, int]] = {}
        self._is_more = False  # the last look found all that it asked for: there may be more
        self._hesitation = Hesitation(FIRST_HESITATION, settings.poll_interval)
        self._freed = asyncio.Event()
        self._end = asyncio.Event()

    @property
    def is_busy(self) -> bool:
        return bool(self._busy)

    def among(self, controllers: int) -> None:
        """So many hear the same wake-ups, this one included."""
        self._hesitation.among(controllers)

    def end(self) -> None:
        """Have `run` return as soon as nothing is being worked on."""
        self._end.set()

    async def run(self) -> None:
        """Work until cancelled or ended. Cancelling leaves the steps under way to whoever claims next."""
        # One listener for all turns: what is said between two of them is kept.
        wakeups = self._store.wakeups()
        woken = False
        try:
            while not self._end.is_set() or self._busy:
                if woken:
                    await asyncio.sleep(self._hesitation.pause())
                claimed = await self._claim_and_start()
                if claimed or (woken and claimed is not None):
                    self._hesitation.found(anything=bool(claimed))
                woken = await self._rest(wakeups)
        finally:
            for task in self._busy.values():
                task.cancel()
            await asyncio.gather(*self._busy.values(), return_exceptions=True)

    async def _claim_and_start(self) -> int | None:
        """How many load balancers were claimed; None if nobody could look."""
        room = self._settings.concurrency - len(self._busy)
        if room <= 0:
            return None
        self._is_more = False
        now, duration = self._now(), self._settings.lease_duration
        try:
            claimed = await self._store.transact(
                lambda tx: leases.claim_due(tx, self._owner, self._cohort, now, duration, room)
            )
            if self._grace is not None:
                self._grace.found(now)
        except Exception:  # the loop must live through a store outage; work is claimed when it is back
            if self._grace is not None:
                self._grace.lose()
            log.exception("work could not be claimed")
            await asyncio.sleep(RETRY_AFTER_TROUBLE_S)
            return None
        for lease in claimed:
            # After a pause of this process its own leases have run out, and it may be the first to claim them again.
            before = self._busy.get(lease.load_balancer_id)
            task = asyncio.create_task(self._converge(lease, before), name=f"reconcile-{lease.load_balancer_id}")
            self._busy[lease.load_balancer_id] = task
        self._metrics.leases.set(len(self._busy))
        self._is_more = len(claimed) == room
        return len(claimed)

    async def _rest(self, wakeups: Wakeups) -> bool:
        """Until a wake-up, or the poll interval (spread, so that many controllers do not poll as one), or, where all places
        are taken or the end is near, a place is free. Whether it was a wake-up. Nobody wakes for what was due before, so
        where there may be more of it this is only a moment, also when places became free during the look."""
        longest = self._settings.poll_interval.total_seconds() * (0.75 + random.random() / 2)
        self._freed.clear()
        is_full = len(self._busy) >= self._settings.concurrency
        if self._end.is_set() or is_full:
            with suppress(TimeoutError):
                async with asyncio.timeout(longest):
                    await self._freed.wait()
        if not self._end.is_set() and (is_full or self._is_more):
            await self._gather()
            return False
        if self._end.is_set():
            return False
        waiting: asyncio.Task[bool] = asyncio.create_task(wakeups.wait(longest))
        ending = asyncio.create_task(self._end.wait())
        try:
            await asyncio.wait((waiting, ending), return_when=asyncio.FIRST_COMPLETED)
            return waiting.done() and waiting.result()
        finally:
            for task in (waiting, ending):
                task.cancel()
            await asyncio.gather(waiting, ending, return_exceptions=True)

    async def _gather(self) -> None:
        """Wait for further places, for a moment."""
        with suppress(TimeoutError):
            async with asyncio.timeout(GATHER_S):
                while (self._settings.concurrency - len(self._busy)) * GATHERED < self._settings.concurrency:
                    self._freed.clear()
                    await self._freed.wait()

    async def _converge(self, lease: Lease, before: asyncio.Task[None] | None) -> None:
        """Work on one load balancer until nothing remains for now. `before` is this process's work under an older lease:
        it ends first, since the fence keeps it from writing, not from building."""
        if before is not None:
            before.cancel()
            await asyncio.gather(before, return_exceptions=True)
        started = time.perf_counter()
        released: bool | None = False
        work = asyncio.ensure_future(self._work(lease))
        renewal = asyncio.create_task(self._renew(lease))
        try:
            await asyncio.wait((work, renewal), return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                released = await work
            else:
                raise LeaseLost("it ran out, or was taken over")
        except LeaseLost:
            self._failures.pop(lease.load_balancer_id, None)
            self._metrics.reconciles.labels("lease-lost").inc()
            log.warning("lease lost", load_balancer_id=lease.load_balancer_id)
        except Exception as error:  # noqa: BLE001 - one load balancer's trouble must not stop the others; it is tried again
            released = await self._put_off(lease, error)
        else:
            self._failures.pop(lease.load_balancer_id, None)
        finally:
            for task in (work, renewal):
                task.cancel()
            await asyncio.gather(work, renewal, return_exceptions=True)
            if not released:
                with suppress(Exception):  # an unreleased lease runs out by itself
                    await self._store.transact(lambda tx: leases.release(tx, lease))
            self._metrics.reconcile_seconds.observe(time.perf_counter() - started)
            if self._busy.get(lease.load_balancer_id) is asyncio.current_task():
                del self._busy[lease.load_balancer_id]
            self._metrics.leases.set(len(self._busy))
            self._freed.set()

    async def _put_off(self, lease: Lease, error: Exception) -> bool:
        """What the work has no answer to is tried again after a pause, which no care of the work's can forget: still due, it
        would be claimed again at once. Told as a fault where that can be written. Whether the lease was given back."""
        now, settings = self._now(), self._settings
        since, before = self._failures.get(lease.load_balancer_id, (now, 0))
        attempts = before + 1
        self._failures[lease.load_balancer_id] = (since, attempts)
        asked = timedelta(seconds=error.after) if isinstance(error, Retry) else timedelta(0)
        after = max(asked, pause(attempts, settings.backoff_base, settings.backoff_cap, random.random()))
        until = now + min(after, leases.LONGEST_PAUSE)
        log.error(
            "reconcile failed",
            load_balancer_id=lease.load_balancer_id,
            reason=f"{type(error).__name__}: {error}",
            attempts=attempts,
            exc_info=error if attempts == 1 else None,  # the same again tells nothing more
        )
        if not isinstance(error, WorldError):
            fault = _unforeseen(error, since, attempts, until)
            as_error = is_reported_as_error(fault, now, budget_of(fault, settings))
            with suppress(FrontinusError):  # it may be this very row that cannot be understood
                await self._store.transact(
                    lambda tx: convergence.record_fault(tx, lease, fault, now, report_error=as_error)
                )
                return False
        with suppress(Exception):  # an unreleased lease runs out by itself
            await self._store.transact(lambda tx: leases.put_off(tx, lease, until))
            return True
        return False

    async def _renew(self, lease: Lease) -> None:
        """Renew until cancelled; returns when the lease is lost. Trouble with the store is tried again until the lease
        would have run out, and then it counts as lost."""
        duration = self._settings.lease_duration
        while True:
            await asyncio.sleep(duration.total_seconds() / 3)
            now = self._now()
            if now >= lease.expires_at:
                return  # stopped for a while: whoever has it now is not to be disturbed while we ask
            try:
                renew = partial(leases.renew, lease=lease, now=now, duration=duration)
                lease = await self._store.transact(renew)
            except LeaseLost:
                return
            except Exception:  # see the docstring
                log.exception("lease could not be renewed", load_balancer_id=lease.load_balancer_id)


def _unforeseen(error: Exception, since: datetime, attempts: int, retry_at: datetime) -> Fault:
    told = partial(Fault, phase=FaultPhase.INTERNAL, since=since, attempts=attempts, retry_at=retry_at)
    if isinstance(error, Unreadable):
        return told(code="unreadable", message=str(error))
    message = f"a fault of Frontinus itself ({type(error).__name__}); the controller's log has the details"
    return told(code="bug", message=message)
