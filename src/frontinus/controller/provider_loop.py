"""A controller of a third-party provider: work on its load balancers, and say that it is there.

Like loop.py, with nothing that is about amphorae. Next: claims.py, which gives them to provider_reconcile.py."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial

import structlog

from frontinus.controller.abandoned import tell_abandoned
from frontinus.controller.attendance import Attendance
from frontinus.controller.claims import Claims
from frontinus.controller.membership import Membership, work_as_member
from frontinus.controller.provider_offers import ProviderOffers
from frontinus.controller.provider_reconcile import ProviderHands, reconcile
from frontinus.model.capabilities import with_network
from frontinus.model.errors import NotFound, WorldError
from frontinus.store import convergence, leases, previews

log = structlog.get_logger()


class ProviderController:
    """One provider process' work. `run` until cancelled."""

    def __init__(self, hands: ProviderHands, provider: str) -> None:
        self._hands = hands
        self._membership = Membership(
            hands.store,
            hands.id,
            hands.cohort,
            (provider,),
            with_network(hands.driver.offers(), hands.network.features),
            hands.now,
            attendance=Attendance.of_interval(hands.settings.keep_alive_interval),
        )
        self._claims = Claims(
            hands.store,
            hands.id,
            hands.cohort,
            hands.settings,
            hands.now,
            lambda lease: reconcile(lease, hands),
            hands.metrics,
        )
        self._offers = ProviderOffers(hands)

    async def register(self) -> None:
        """Publish the provider and what can be handed on to it. Call before serving."""
        await self._membership.register()

    async def run(self) -> None:
        """Work until cancelled, or until the cohort is drained and nothing is left to do."""
        work = asyncio.create_task(self._claims.run(), name="provider-claims")
        keep_alive = asyncio.create_task(self._keep_alive(), name="provider-keep-alive")
        keepers = [
            work,
            keep_alive,
            asyncio.create_task(self._offers.run(), name="provider-offers"),
        ]
        try:
            await work_as_member(work, keep_alive)
            log.info("cohort is drained", cohort=str(self._hands.cohort))
        finally:
            for task in keepers:
                task.cancel()
            await asyncio.gather(*keepers, return_exceptions=True)
            with suppress(WorldError):  # going away anyway; the row's age says the same
                await self._membership.leave()

    async def _keep_alive(self) -> None:
        hands = self._hands
        while True:
            await asyncio.sleep(hands.settings.keep_alive_interval.total_seconds())
            oldest = hands.now() - hands.settings.deleted_retention
            try:
                is_done = await self._membership.look()
                self._claims.among(self._membership.controllers)
                count = partial(leases.count_due, cohort=hands.cohort, now=hands.now())
                hands.metrics.due.set(await hands.store.read(count))
                await hands.store.transact(partial(previews.purge, now=hands.now()))
                await hands.store.transact(partial(convergence.purge_deleted, before=oldest))
                attendance = self._membership.attendance
                await tell_abandoned(hands.store, hands.id, hands.settings, hands.now, attendance)
                if is_done:
                    self._claims.end()
            except NotFound:  # somebody forgot a silent controller
                await self._membership.register_again()
            except Exception:  # the next turn says it again
                log.exception("keep-alive could not be written")
