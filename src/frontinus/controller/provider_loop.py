"""A controller of a third-party provider: claim what is due, converge each, keep leases alive, say that it is there.

Like loop.py, with nothing that is about amphorae. Next: provider_reconcile.py."""

from __future__ import annotations

import asyncio
import os
import random
import socket
from contextlib import suppress
from functools import partial

import structlog

from frontinus.controller.provider_reconcile import ProviderHands, reconcile
from frontinus.model.capabilities import with_network
from frontinus.model.errors import LeaseLost, NotFound, WorldError
from frontinus.model.ids import LoadBalancerId
from frontinus.store import cohorts, controllers, convergence, leases
from frontinus.store.engine import Wakeups
from frontinus.store.leases import Lease

log = structlog.get_logger()

RETRY_AFTER_TROUBLE_S = 1.0


class ProviderController:
    """`run` until cancelled. One owner (the claim loop): `_busy`."""

    def __init__(self, hands: ProviderHands, provider: str) -> None:
        self._hands = hands
        self._provider = provider
        self._busy: dict[LoadBalancerId, asyncio.Task[None]] = {}
        self._freed = asyncio.Event()

    async def register(self) -> None:
        """Publish the provider and what can be handed on to it. Call before serving."""
        hands, now = self._hands, self._hands.now()
        record = controllers.Controller(
            id=hands.id,
            driver=hands.driver.name,
            driver_version=hands.driver.version,
            host=socket.gethostname(),
            pid=os.getpid(),
            provider=self._provider,
            capabilities=with_network(hands.driver.offers(), hands.network.features),
            started_at=now,
            seen_at=now,
        )
        await hands.store.transact(lambda tx: controllers.register(tx, record))
        await self._take_over()

    async def _take_over(self) -> None:
        """Serve what controllers of other versions of the driver left behind, or nobody served yet."""
        take = partial(cohorts.take_over, mine=self._hands.cohort, now=self._hands.now())
        while taken := await self._hands.store.transact(take):
            log.info("load balancers taken over", cohort=str(self._hands.cohort), count=taken)

    async def run(self) -> None:
        """Work until cancelled."""
        keeper = asyncio.create_task(self._keep_alive(), name="provider-keep-alive")
        wakeups = self._hands.store.wakeups()
        try:
            while True:
                await self._claim_and_start()
                await self._rest(wakeups)
        finally:
            tasks = [keeper, *self._busy.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            with suppress(WorldError):  # going away anyway; the row's age says the same
                await self._hands.store.transact(lambda tx: controllers.unregister(tx, self._hands.id))

    async def _claim_and_start(self) -> None:
        hands = self._hands
        room = hands.settings.concurrency - len(self._busy)
        if room <= 0:
            return
        claim = partial(
            leases.claim_due,
            owner=hands.id,
            cohort=hands.cohort,
            now=hands.now(),
            duration=hands.settings.lease_duration,
            limit=room,
        )
        try:
            claimed = await hands.store.transact(claim)
        except Exception:  # the loop must live through a store outage; work is claimed when it is back
            log.exception("work could not be claimed")
            await asyncio.sleep(RETRY_AFTER_TROUBLE_S)
            return
        for lease in claimed:
            before = self._busy.get(lease.load_balancer_id)
            self._busy[lease.load_balancer_id] = asyncio.create_task(self._converge(lease, before))

    async def _rest(self, wakeups: Wakeups) -> None:
        self._freed.clear()
        longest = self._hands.settings.poll_interval.total_seconds() * (0.75 + random.random() / 2)
        waiters = [
            asyncio.ensure_future(self._freed.wait()),
            asyncio.ensure_future(wakeups.wait(longest)),
        ]
        try:
            await asyncio.wait(waiters, timeout=longest, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for waiter in waiters:
                waiter.cancel()
            await asyncio.gather(*waiters, return_exceptions=True)

    async def _converge(self, lease: Lease, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            before.cancel()
            await asyncio.gather(before, return_exceptions=True)
        work = asyncio.create_task(reconcile(lease, self._hands))
        renewal = asyncio.create_task(self._renew(lease))
        try:
            await asyncio.wait((work, renewal), return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                await work
        except LeaseLost:
            log.warning("lease lost", load_balancer_id=lease.load_balancer_id)
        except Exception:  # one load balancer's trouble must not stop the others; the lease runs out and it is retried
            log.exception("reconcile failed", load_balancer_id=lease.load_balancer_id)
        finally:
            for task in (work, renewal):
                task.cancel()
            await asyncio.gather(work, renewal, return_exceptions=True)
            with suppress(WorldError):  # an unreleased lease runs out by itself
                await self._hands.store.transact(lambda tx: leases.release(tx, lease))
            if self._busy.get(lease.load_balancer_id) is asyncio.current_task():
                del self._busy[lease.load_balancer_id]
            self._freed.set()

    async def _renew(self, lease: Lease) -> None:
        """Renew until cancelled; returns when the lease is lost."""
        duration = self._hands.settings.lease_duration
        while True:
            await asyncio.sleep(duration.total_seconds() / 3)
            now = self._hands.now()
            try:
                lease = await self._hands.store.transact(partial(leases.renew, lease=lease, now=now, duration=duration))
            except LeaseLost:
                return
            except WorldError:
                log.warning("lease could not be renewed", load_balancer_id=lease.load_balancer_id)
                if now >= lease.expires_at:
                    return

    async def _keep_alive(self) -> None:
        hands = self._hands
        while True:
            await asyncio.sleep(hands.settings.keep_alive_interval.total_seconds())
            now = hands.now()
            try:
                await hands.store.transact(partial(controllers.keep_alive, controller_id=hands.id, now=now))
                standing = await hands.store.read(partial(cohorts.standing, mine=hands.cohort, now=now))
                if standing is not None and standing.left_behind:
                    await self._take_over()
                oldest = now - hands.settings.deleted_retention
                await hands.store.transact(partial(convergence.purge_deleted, before=oldest))
            except NotFound:  # somebody forgot a silent controller: this process was stopped, or the database restored
                with suppress(WorldError):
                    await self.register()
            except Exception:  # the next turn says it again
                log.exception("keep-alive could not be written")
