"""Ask compute about amphorae that are not heard, and suspect those of which it says that they do not run.

The ear brakes when too many fall silent at once, because it may be the ear that is deaf. Compute's word is knowledge: an
amphora whose place is gone or stopped is dead however many share its fate, as all do after a restart of the machine. Without
this the brake would hold for ever. Next: sweeper.py."""

from __future__ import annotations

import asyncio

import structlog

from frontinus.controller.hands import Hands
from frontinus.drivers.compute.interface import PlaceState
from frontinus.model.errors import WorldError
from frontinus.model.ids import AmphoraId
from frontinus.store import health, inventory

log = structlog.get_logger()

QUESTIONS_AT_ONCE = 32
"""So many places are asked after at a time; a fleet that fell silent shall not crowd out the work that heals it."""


LINKS_AT_A_LOOK = 100
"""Of so many amphorae that are heard it is looked each time whether they still hang on their networks."""


class Witness:
    """One per controller. One owner: its own loop."""

    def __init__(self, hands: Hands) -> None:
        self._hands = hands
        self._seen_last = AmphoraId("")

    async def run(self) -> None:
        """Look until cancelled; first at once, since a start is when most may have died unseen."""
        while True:
            try:
                await self.look()
                if self._hands.has_ports:
                    await self.look_at_links()
            except WorldError as trouble:
                log.warning("compute was not asked about silent amphorae", reason=str(trouble))
            except Exception:  # the loop protects its next turn
                log.exception("asking compute about silent amphorae failed")
            await asyncio.sleep(self._hands.settings.witness_interval.total_seconds())

    async def look(self) -> None:
        """Suspect the amphorae that are meant to serve, were not heard lately, and do not run."""
        hands = self._hands
        since = hands.now() - hands.settings.unheard_after
        unheard = await hands.store.read(lambda tx: inventory.unheard(tx, since))
        turns = asyncio.Semaphore(QUESTIONS_AT_ONCE)

        async def is_dead(amphora_id: AmphoraId) -> bool:
            async with turns:
                place = await hands.compute.get(amphora_id)
            return place.state in (PlaceState.ABSENT, PlaceState.STOPPED)

        answers = await asyncio.gather(*(is_dead(x) for x in unheard))
        dead = [amphora_id for amphora_id, answer in zip(unheard, answers, strict=True) if answer]
        if dead:
            log.warning("silent amphorae do not run", amphorae=len(dead))
            now = hands.now()
            await hands.store.transact(lambda tx: health.suspect(tx, dead, now))

    async def look_at_links(self) -> None:
        """Suspect the next amphorae that are heard, and lack the link of a port: their heartbeats come by another. Whoever
        looks at one closely plugs it again."""
        hands, after = self._hands, self._seen_last
        some = await hands.store.read(lambda tx: inventory.plugged(tx, after, LINKS_AT_A_LOOK))
        self._seen_last = max(some) if len(some) == LINKS_AT_A_LOOK else AmphoraId("")
        places = await asyncio.gather(*(hands.compute.get(x) for x in some))
        lame = [x.amphora_id for x in places if x.attached is not None and not some[x.amphora_id] <= x.attached]
        if lame:
            log.warning("amphorae have lost links", amphorae=len(lame))
            now = hands.now()
            await hands.store.transact(lambda tx: health.suspect(tx, lame, now))
