"""Ask compute about amphorae that are not heard, or of which it tells by itself, and suspect those of which it says that they
do not run.

The ear brakes when too many fall silent at once, because it may be the ear that is deaf. Compute's word is knowledge: an
amphora whose place is gone or stopped is dead however many share its fate, as all do after a restart of the machine. Without
this the brake would hold for ever. A link that is gone while somebody works on the load balancer is no failure yet: its port may be
about to leave the record too. Each of many controllers looks at a share of the silent, and breaks off what it says to
those that have ended (talks.py). Next: sweeper.py."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from datetime import datetime, timedelta

import structlog

from frontinus.controller.draws import LOOKS, Draws
from frontinus.controller.hands import Hands
from frontinus.drivers.compute.interface import LOSES_SIGHT, Place, PlaceState
from frontinus.model.errors import WorldError
from frontinus.model.ids import AmphoraId, PortId
from frontinus.store import health, inventory
from frontinus.store.inventory import Hanging

log = structlog.get_logger()

QUESTIONS_AT_ONCE = 32
"""So many places are asked after at a time; a fleet that fell silent shall not crowd out the work that heals it."""


LINKS_AT_A_LOOK = 100
"""Of so many amphorae that are heard it is looked each time at most whether they still hang on their networks."""

ONE_BY_ONE = 5
"""Of more than so many that are unheard those that run are asked for at once, where compute can tell."""

NO_PORTS = frozenset[PortId]()

CHANGE_POLL_S = 1.0
"""So often it is looked whether work on the load balancers of those that lacked a link under it is over: one read, and only while
there are any."""

CHANGE_PATIENCE = timedelta(minutes=2)
"""Who lacks a link for so long is suspected even so: a tenant who edits without end has somebody work on it without end. No
driver takes half of it for a detach."""

OVERLAP = 2
"""All controllers together look at each amphora so many times in the mean: shares are drawn, so that nobody has to agree, and
of those that one look leaves out the next finds six in seven."""

AFTER_ALL_IDS = "g"
"""In every collation, which a tilde is not."""


class Witness:
    """One per controller. One owner: its own loops."""

    def __init__(self, hands: Hands) -> None:
        self._hands = hands
        self._controllers = 1
        self._draws = Draws()
        # Anywhere, so that after a restart of all not all look at the same ones.
        self._seen_last = AmphoraId(_id_at(random.random()))
        self._told: set[AmphoraId] = set()
        self._was_told = asyncio.Event()
        # Lacked a link while somebody worked on their load balancers, with the time when that was first seen.
        self._changing: dict[AmphoraId, datetime] = {}
        self._is_changing = asyncio.Event()

    def among(self, controllers: int) -> None:
        """So many look, this one included."""
        self._controllers = controllers
        self._draws.among(controllers)

    async def run(self) -> None:
        """Look until cancelled; first at once, since a start is when most may have died unseen."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._turns(self._look_around), name="witness-look")
            tasks.create_task(self._turns(self._watch), name="witness-watch")
            tasks.create_task(self._answer_hints(), name="witness-hints")
            tasks.create_task(self._await_changes(), name="witness-changes")

    async def _turns(self, turn: Callable[[], Awaitable[None]]) -> None:
        while True:
            await self._protected(turn())
            await asyncio.sleep(self._hands.settings.witness_interval.total_seconds())

    async def _protected(self, work: Awaitable[None]) -> None:
        try:
            await work
        except WorldError as trouble:
            log.warning("compute was not asked about amphorae", reason=str(trouble))
        except Exception:  # the loop protects its next turn
            log.exception("asking compute about amphorae failed")

    async def _look_around(self) -> None:
        await self.look()
        if self._hands.has_ports:
            await self.look_at_links()

    async def look(self) -> None:
        """Suspect the amphorae of this controller's share that are meant to serve, were not heard lately, and do not run."""
        since, spans = self._hands.now() - self._hands.settings.unheard_after, share(self._controllers, random.random())
        unheard = await self._hands.store.read(lambda tx: inventory.unheard(tx, since, spans))
        if len(unheard) > ONE_BY_ONE:
            running = await self._hands.compute.list_running() or frozenset()
            unheard = [x for x in unheard if x not in running]
        await self._suspect(dict.fromkeys(unheard, NO_PORTS))

    async def look_at_links(self) -> None:
        """Suspect the next amphorae that are heard, and lack the link of a port: their heartbeats come by another. Whoever
        looks at one closely plugs it again."""
        if not self._draws.is_drawn():
            return
        settings, after = self._hands.settings, self._seen_last
        most = links_at_a_look(self._hands.compute.looks_per_second, settings.witness_interval, self._controllers)
        some = await self._hands.store.read(lambda tx: inventory.plugged(tx, after, most))
        if len(some) < most:  # round again
            some |= await self._hands.store.read(lambda tx: inventory.plugged(tx, AmphoraId(""), most - len(some)))
        self._seen_last = next(reversed(some), AmphoraId(""))
        await self._suspect(some, are_heard=True)

    async def look_at(self, amphorae: Iterable[AmphoraId]) -> None:
        """Suspect those of these that are meant to serve, and do not run or lack a link."""
        serving = await self._hands.store.read(lambda tx: inventory.serving(tx, amphorae))
        await self._suspect(serving)

    async def look_again(self) -> None:
        """Suspect those that lacked a link while somebody worked on their load balancers, and lack it still when nobody does."""
        now, waiting = self._hands.now(), tuple(self._changing)
        recorded = await self._hands.store.read(lambda tx: inventory.hanging(tx, waiting, now))
        ready = {x: y.ports for x, y in recorded.items() if not self._is_to_wait_for(x, y, now)}
        again = await self._suspect(ready, are_heard=True)
        for amphora_id in waiting:
            if (amphora_id in ready and amphora_id not in again) or amphora_id not in recorded:
                self._changing.pop(amphora_id, None)

    async def _watch(self) -> None:
        """What compute sees by itself."""

        def tell(amphora_id: AmphoraId) -> None:
            self._told.add(amphora_id)
            self._was_told.set()

        await self._hands.compute.watch(tell)

    async def _answer_hints(self) -> None:
        while True:
            await self._was_told.wait()
            self._was_told.clear()
            told, self._told = self._told, set()
            await self._protected(self.look_at(told))

    async def _await_changes(self) -> None:
        while True:
            await self._is_changing.wait()
            await asyncio.sleep(CHANGE_POLL_S)
            await self._protected(self.look_again())
            if not self._changing:
                self._is_changing.clear()

    async def _suspect(
        self, ports: Mapping[AmphoraId, frozenset[PortId]], *, are_heard: bool = False
    ) -> Collection[AmphoraId]:
        """Those of these that do not run, and those that run without the links of their ports. Who is heard and only not shown
        by a compute that may lose sight of what runs is none of them. Answers which are looked at again when the work on their
        load balancers is over."""
        hands = self._hands
        turns = asyncio.Semaphore(QUESTIONS_AT_ONCE)

        async def seen(amphora_id: AmphoraId) -> Place | WorldError:
            async with turns:
                try:
                    return await hands.compute.get(amphora_id)
                except WorldError as trouble:
                    return trouble  # the others are looked at all the same

        answers = await asyncio.gather(*(seen(x) for x in ports))
        places = [x for x in answers if isinstance(x, Place)]
        if troubles := [x for x in answers if isinstance(x, WorldError)]:
            log.warning("compute was not asked about amphorae", amphorae=len(troubles), reason=str(troubles[0]))
        if are_heard and LOSES_SIGHT in hands.compute.features:
            if unseen := [x.amphora_id for x in places if x.state is PlaceState.ABSENT]:
                log.warning("compute does not show amphorae that are heard", amphorae=len(unseen), one=unseen[0])
            places = [x for x in places if x.state is not PlaceState.ABSENT]
        dead = [x.amphora_id for x in places if x.state in (PlaceState.ABSENT, PlaceState.STOPPED)]
        lacking = {
            x.amphora_id: ports[x.amphora_id] - x.attached
            for x in places
            if x.amphora_id not in dead and x.attached is not None
        }
        lame, changing = await self._lame({x: y for x, y in lacking.items() if y})
        for found, event in ((dead, "amphorae do not run"), (lame, "amphorae have lost links")):
            if found:
                log.warning(event, amphorae=len(found))
        if dead or lame:
            now = hands.now()
            await hands.store.transact(lambda tx: health.suspect(tx, [*dead, *lame], now))
            hands.talks.break_off(dead)
        return changing

    async def _lame(
        self, lacking: Mapping[AmphoraId, frozenset[PortId]]
    ) -> tuple[list[AmphoraId], Collection[AmphoraId]]:
        """Those that lack the link of a port which is on record still, and, apart from them, those on whose load balancers somebody
        works meanwhile: a port loses its link before it leaves the record, and with a cloud that takes seconds."""
        if not lacking:
            return [], ()
        now = self._hands.now()
        recorded = await self._hands.store.read(lambda tx: inventory.hanging(tx, lacking, now))
        lame = {x: y for x, y in recorded.items() if lacking[x] & y.ports}
        changing = {x: self._changing.get(x, now) for x, y in lame.items() if self._is_to_wait_for(x, y, now)}
        if changing:
            self._changing |= changing
            self._is_changing.set()
        return [x for x in lame if x not in changing], changing

    def _is_to_wait_for(self, amphora_id: AmphoraId, recorded: Hanging, now: datetime) -> bool:
        return recorded.is_changing and now - self._changing.get(amphora_id, now) < CHANGE_PATIENCE


def links_at_a_look(per_second: float | None, interval: timedelta, controllers: int) -> int:
    """So many links one controller looks at, of those that are drawn (draws.py) each time. Pure."""
    if per_second is None:
        return LINKS_AT_A_LOOK
    all_together = per_second * interval.total_seconds()
    return max(1, min(LINKS_AT_A_LOOK, round(all_together / min(controllers, LOOKS))))


def share(controllers: int, drawn: float) -> tuple[tuple[str, str], ...]:
    """Spans of ids for one of so many to look at, from a number in [0, 1) on: ids are random UUIDs, so a part of them all is as
    large a part of the amphorae. Pure."""
    width = OVERLAP / controllers
    if width >= 1:
        return (("", AFTER_ALL_IDS),)
    end = drawn + width
    if end < 1:
        return ((_id_at(drawn), _id_at(end)),)
    return ((_id_at(drawn), AFTER_ALL_IDS), ("", _id_at(end - 1)))


def _id_at(part: float) -> str:
    return f"{int(part * 2**32):08x}"
