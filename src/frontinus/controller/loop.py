"""A controller of amphorae: work on its cohort's load balancers, look after what belongs to all, say that it is there.

Decides nothing about load balancers. Next: claims.py, which gives them to reconcile.py."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from contextlib import suppress
from functools import partial

import structlog

from frontinus.controller.abandoned import tell_abandoned
from frontinus.controller.attendance import Attendance
from frontinus.controller.claims import Claims
from frontinus.controller.hands import Hands
from frontinus.controller.membership import Membership, work_as_member
from frontinus.controller.previewer import Previewer
from frontinus.controller.reconcile import reconcile
from frontinus.controller.renewals import Renewals
from frontinus.controller.rollouts import Rollouts
from frontinus.controller.secret_watch import SecretWatch
from frontinus.controller.spares import Spares
from frontinus.controller.sweeper import Sweeper
from frontinus.controller.witness import Witness
from frontinus.model.capabilities import with_compute, with_network
from frontinus.model.errors import NotFound
from frontinus.model.ids import ControllerId, new_id
from frontinus.store import convergence, idempotency, leases, maintenance, previews

log = structlog.get_logger()

TIDY_EVERY_S = 60.0
"""How often a controller forgets in the store what has served its time. A hundred of them look a hundred times as often."""


class Controller:
    """One controller process' work. `run` until cancelled; cancelling lets the steps under way finish or be resumed by
    whoever claims next."""

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
        self._membership = Membership(
            hands.store,
            self.id,
            hands.cohort,
            providers,
            with_compute(
                with_network(hands.amphora_driver.offers(), hands.network.features), hands.compute.placement_words
            ),
            hands.now,
            configuration=configuration,
            alone=alone,
            attendance=Attendance.of_interval(hands.settings.keep_alive_interval),
        )
        self._ends_when_drained = ends_when_drained
        self._claims = Claims(
            hands.store,
            self.id,
            hands.cohort,
            hands.settings,
            hands.now,
            lambda lease: reconcile(lease, hands),
            hands.metrics,
            hands.grace,
        )
        self._sweeper = Sweeper(hands)
        self._witness = Witness(hands)
        self._previewer = Previewer(self.id, hands)
        self._secret_watch = SecretWatch(hands)
        self._renewals = Renewals(self.id, hands)
        self._spares = Spares(hands, lambda: self._claims.is_busy)
        self._rollouts = Rollouts(self.id, hands, self._membership.attendance)

    async def register(self) -> None:
        """Join the cohort. Call before serving. Raises Conflict when it has other settings."""
        await self._membership.register()

    async def run(self) -> None:
        """Work until cancelled, or where that was asked for until the cohort is drained and nothing is left to do. Raises
        Conflict when it had been forgotten, and the cohort has other settings by now."""
        work = asyncio.create_task(self._claims.run(), name="controller-claims")
        keep_alive = asyncio.create_task(self._keep_alive(), name="controller-keep-alive")
        keepers = [
            work,
            keep_alive,
            asyncio.create_task(self._tidy(), name="controller-tidy"),
            asyncio.create_task(self._sweeper.run(), name="controller-sweeper"),
            asyncio.create_task(self._witness.run(), name="controller-witness"),
            asyncio.create_task(self._previewer.run(), name="controller-previewer"),
            asyncio.create_task(self._secret_watch.run(), name="controller-secret-watch"),
            asyncio.create_task(self._renewals.run(), name="controller-renewals"),
            asyncio.create_task(self._spares.run(), name="controller-spares"),
            asyncio.create_task(self._rollouts.run(), name="controller-rollouts"),
        ]
        try:
            await work_as_member(work, keep_alive)
            log.info("cohort is drained", cohort=str(self._hands.cohort))
        finally:
            for task in keepers:
                task.cancel()
            await asyncio.gather(*keepers, return_exceptions=True)
            with suppress(Exception):  # going away anyway; the row's age says the same
                await self._membership.leave()

    async def _keep_alive(self) -> None:
        while True:
            await asyncio.sleep(self._hands.settings.keep_alive_interval.total_seconds())
            now = self._hands.now()
            try:
                is_done = await self._membership.look()
                self._claims.among(self._membership.controllers)
                self._previewer.among(self._membership.controllers)
                self._witness.among(self._membership.controllers)
                self._secret_watch.among(self._membership.controllers)
                self._sweeper.among(self._membership.controllers)
                count = partial(leases.count_due, cohort=self._hands.cohort, now=now)
                self._hands.metrics.due.set(await self._hands.store.read(count))
                if is_done and self._ends_when_drained:
                    self._claims.end()
            except NotFound:  # somebody forgot a silent controller
                await self._membership.register_again()
            except Exception:  # the next turn says it again
                log.exception("keep-alive could not be written")

    async def _tidy(self) -> None:
        """Forget in the store what has served its time, and tell what nobody serves. Each controller does it, so with many
        it is done often enough."""
        store = self._hands.store
        while True:
            # At its own time, so that many controllers that were started at once do not do it at once.
            await asyncio.sleep(TIDY_EVERY_S * random.uniform(0.5, 1.5))
            now = self._hands.now()
            oldest = now - self._hands.settings.deleted_retention
            try:
                await store.transact(partial(convergence.purge_deleted, before=oldest))
                while await store.transact(partial(idempotency.purge, now=now)) >= idempotency.MOST_PURGED:
                    pass
                await store.transact(partial(previews.purge, now=now))
                await store.transact(partial(maintenance.purge, now=now))
                attendance = self._membership.attendance
                await tell_abandoned(store, self.id, self._hands.settings, self._hands.now, attendance)
            except Exception:  # the next turn does it
                log.exception("what is old could not be forgotten, or what nobody serves be told")
