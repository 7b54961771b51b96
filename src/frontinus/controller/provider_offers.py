"""Answer the API's questions about a third-party provider: does its driver take the data of this flavor, of this zone?

Next: store/previews.py, by which they come."""

from __future__ import annotations

import random
from functools import partial

import structlog

from frontinus.controller.provider_reconcile import ProviderHands
from frontinus.store import previews

log = structlog.get_logger()

MOST_AT_ONCE = 8


class ProviderOffers:
    """One per provider's process. One owner: its own loop."""

    def __init__(self, hands: ProviderHands) -> None:
        self._hands = hands

    async def run(self) -> None:
        """Answer until cancelled."""
        wakeups = self._hands.store.wakeups()
        while True:
            try:
                while await self.turn():
                    pass
            except Exception:  # the loop protects its next turn; whoever asked is told that nobody answered
                log.exception("questions about offers could not be answered")
            await wakeups.wait(self._hands.settings.poll_interval.total_seconds() * (0.75 + random.random() / 2))

    async def turn(self) -> bool:
        """Answer what is open; whether there was anything."""
        hands, now = self._hands, self._hands.now()
        if not await hands.store.read(lambda tx: previews.is_any_open(tx, hands.cohort, now)):
            return False
        claimed = await hands.store.transact(
            lambda tx: previews.claim_about_offers(tx, hands.id, hands.cohort, now, MOST_AT_ONCE)
        )
        for each in claimed:
            answer = await hands.driver.judge(each.question)
            await hands.store.transact(partial(previews.answer, question_id=each.id, owner=hands.id, given=answer))
        return bool(claimed)
