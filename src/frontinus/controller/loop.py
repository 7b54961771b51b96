"""Claim due load balancers and converge many at once; keep leases alive; say that this controller is there.

Owns the pace: how many, how often, how long to sleep. Decides nothing about load balancers. Next: reconcile.py."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import structlog

from frontinus.controller.hands import Hands
from frontinus.controller.membership import Membership
from frontinus.controller.previewer import Previewer
from frontinus.controller.reconcile import reconcile
from frontinus.controller.renewals import Renewals
from frontinus.controller.rollouts import Rollouts
from frontinus.controller.secret_watch import SecretWatch
from frontinus.controller.spares import Spares
from frontinus.controller.sweeper import Sweeper
from frontinus.controller.witness import Witness
from frontinus.model.errors import LeaseLost, NotFound, WorldError
from frontinus.model.ids import ControllerId, LoadBalancerId, new_id
from frontinus.store import convergence, idempotency, leases, maintenance, previews
from frontinus.store.engine import Wakeups
from frontinus.store.leases import Lease

log = structlog.get_logger()

RETRY_AFTER_TROUBLE_S = 1.0


class Controller:
    """One controller process' work. `run` until cancelled; cancelling lets the steps under way finish or be resumed by
    whoever claims next.

    Immutable: hands, id, membership. One owner (the claim loop): `_busy`."""

    def __init__(
        self,
        hands: Hands,
        providers: tuple[str, ...],
        *,
        configuration: Mapping[str, str] | None = None,
        alone: bool = False,
        ends_when_drained: bool = False,
    ) -> None:
        """`configuration` has a digest of each setting that the whole cohort must share. `alone` as of Membership."""
        self.id = ControllerId(new_id())
        self._hands = hands
        self._membership = Membership(hands, self.id, providers, configuration or {}, alone=alone)
        self._ends_when_drained = ends_when_drained
        self._drained = asyncio.Event()
        self._sweeper = Sweeper(hands)
        self._witness = Witness(hands)
        self._previewer = Previewer(self.id, hands)
        self._secret_watch = SecretWatch(hands)
        self._renewals = Renewals(self.id, hands)
        self._spares = Spares(hands, lambda: bool(self._busy))
        self._rollouts = Rollouts(self.id, hands)
        self._busy: dict[LoadBalancerId, asyncio.Task[None]] = {}
        self._freed = asyncio.Event()

    async def register(self) -> None:
        """Join the cohort. Call before serving. Raises Conflict when it has other settings."""
        await self._membership.register()

    async def run(self) -> None:
        """Work until cancelled, or where that was asked for until the cohort is drained and nothing is left to do."""
        keepers = [
            asyncio.create_task(self._keep_alive(), name="controller-keep-alive"),
            asyncio.create_task(self._sweeper.run(), name="controller-sweeper"),
            asyncio.create_task(self._witness.run(), name="controller-witness"),
            asyncio.create_task(self._previewer.run(), name="controller-previewer"),
            asyncio.create_task(self._secret_watch.run(), name="controller-secret-watch"),
            asyncio.create_task(self._renewals.run(), name="controller-renewals"),
            asyncio.create_task(self._spares.run(), name="controller-spares"),
            asyncio.create_task(self._rollouts.run(), name="controller-rollouts"),
        ]
        # One listener for all turns: what is said between two of them is kept.
        wakeups = self._hands.store.wakeups()
        try:
            while not self._drained.is_set() or self._busy:
                await self._claim_and_start()
                await self._rest(wakeups)
            log.info("cohort is drained", cohort=str(self._hands.cohort))
        finally:
            for task in [*keepers, *self._busy.values()]:
                task.cancel()
            await asyncio.gather(*keepers, *self._busy.values(), return_exceptions=True)
            with suppress(Exception):  # going away anyway; the row's age says the same
                await self._membership.leave()

    async def _claim_and_start(self) -> None:
        room = self._hands.settings.concurrency - len(self._busy)
        if room <= 0:
            return
        now, duration = self._hands.now(), self._hands.settings.lease_duration
        cohort = self._hands.cohort
        try:
            claimed = await self._hands.store.transact(
                lambda tx: leases.claim_due(tx, self.id, cohort, now, duration, room)
            )
            self._hands.grace.found(now)
        except Exception:  # the loop must live through a store outage; work is claimed when it is back
            self._hands.grace.lose()
            log.exception("work could not be claimed")
            await asyncio.sleep(RETRY_AFTER_TROUBLE_S)
            return
        for lease in claimed:
            # After a pause of this process its own leases have run out, and it may be the first to claim them again.
            before = self._busy.get(lease.load_balancer_id)
            task = asyncio.create_task(self._converge(lease, before), name=f"reconcile-{lease.load_balancer_id}")
            self._busy[lease.load_balancer_id] = task
        self._hands.metrics.leases.set(len(self._busy))

    async def _rest(self, wakeups: Wakeups) -> None:
        """Until a wake-up, a free place, or the poll interval (spread, so that many controllers do not poll as one)."""
        self._freed.clear()
        longest = self._hands.settings.poll_interval.total_seconds() * (0.75 + random.random() / 2)
        waiters: list[asyncio.Task[Any]] = [asyncio.create_task(self._freed.wait())]
        if len(self._busy) < self._hands.settings.concurrency:
            waiters.append(asyncio.create_task(wakeups.wait(longest)))
        try:
            await asyncio.wait(waiters, timeout=longest, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for waiter in waiters:
                waiter.cancel()
            await asyncio.gather(*waiters, return_exceptions=True)

    async def _converge(self, lease: Lease, before: asyncio.Task[None] | None) -> None:
        """Work on one load balancer until nothing remains for now. `before` is this process's work under an older lease:
        it ends first, since the fence keeps it from writing, not from building."""
        if before is not None:
            before.cancel()
            await asyncio.gather(before, return_exceptions=True)
        metrics = self._hands.metrics
        started = time.perf_counter()
        work = asyncio.create_task(reconcile(lease, self._hands))
        renewal = asyncio.create_task(self._renew(lease))
        try:
            await asyncio.wait((work, renewal), return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                await work
            else:
                raise LeaseLost("it ran out, or was taken over")
        except LeaseLost:
            metrics.reconciles.labels("lease-lost").inc()
            log.warning("lease lost", load_balancer_id=lease.load_balancer_id)
        except Exception:  # one load balancer's trouble must not stop the others; the lease runs out and it is retried
            log.exception("reconcile failed", load_balancer_id=lease.load_balancer_id)
        finally:
            for task in (work, renewal):
                task.cancel()
            await asyncio.gather(work, renewal, return_exceptions=True)
            with suppress(Exception):  # an unreleased lease runs out by itself
                await self._hands.store.transact(lambda tx: leases.release(tx, lease))
            metrics.reconcile_seconds.observe(time.perf_counter() - started)
            if self._busy.get(lease.load_balancer_id) is asyncio.current_task():
                del self._busy[lease.load_balancer_id]
            metrics.leases.set(len(self._busy))
            self._freed.set()

    async def _renew(self, lease: Lease) -> None:
        """Renew until cancelled; returns when the lease is lost. Trouble with the store is tried again until the lease
        would have run out, and then it counts as lost."""
        duration = self._hands.settings.lease_duration
        while True:
            await asyncio.sleep(duration.total_seconds() / 3)
            now = self._hands.now()
            if now >= lease.expires_at:
                return  # stopped for a while: whoever has it now is not to be disturbed while we ask
            try:
                renew = partial(leases.renew, lease=lease, now=now, duration=duration)
                lease = await self._hands.store.transact(renew)
            except LeaseLost:
                return
            except Exception:  # see the docstring
                log.exception("lease could not be renewed", load_balancer_id=lease.load_balancer_id)

    async def _keep_alive(self) -> None:
        while True:
            await asyncio.sleep(self._hands.settings.keep_alive_interval.total_seconds())
            now = self._hands.now()
            oldest = now - self._hands.settings.deleted_retention
            try:
                is_done = await self._membership.look()
                await self._hands.store.transact(partial(convergence.purge_deleted, before=oldest))
                count = partial(leases.count_due, cohort=self._hands.cohort, now=now)
                self._hands.metrics.due.set(await self._hands.store.read(count))
                await self._hands.store.transact(partial(idempotency.purge, now=now))
                await self._hands.store.transact(partial(previews.purge, now=now))
                await self._hands.store.transact(partial(maintenance.purge, now=now))
                if is_done and self._ends_when_drained:
                    self._drained.set()
                    self._freed.set()
            except NotFound:  # somebody forgot a silent controller: this process was stopped, or the database restored
                with suppress(WorldError):
                    await self.register()
            except Exception:  # the next turn says it again
                log.exception("keep-alive could not be written")
