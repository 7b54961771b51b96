"""Find what nobody wants any more: whatever stands outside under our names and has no row; tell of it; delete it later.

Ownership is proved by the drivers, never guessed. What is an orphan, and when it may go, is decided in sweep_plan.py. The
other way round, rows without a place, is witness.py. Next: store/orphans.py."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import structlog

from frontinus.controller import places, sweep_plan
from frontinus.controller.draws import Draws
from frontinus.controller.hands import Hands
from frontinus.controller.sweep_plan import Orphan, Survey
from frontinus.drivers.compute.interface import LOSES_SIGHT
from frontinus.model.belongings import Belonging, Owner, OwnerKind
from frontinus.model.errors import FrontinusError, WorldError
from frontinus.model.ids import AmphoraId, LoadBalancerId
from frontinus.model.orphans import Known, Sighting
from frontinus.store import inventory, orphans
from frontinus.store.engine import Transaction

log = structlog.get_logger()


class Sweeper:
    """One per controller, and one for `frontinus sweep`. One owner: its own loop."""

    def __init__(self, hands: Hands) -> None:
        self._hands = hands
        self._told: frozenset[Owner] = frozenset()
        self._draws = Draws()
        self._has_swept = False

    def among(self, controllers: int) -> None:
        """So many sweep, this one included."""
        self._draws.among(controllers)

    async def run(self) -> None:
        """Sweep until cancelled; first at once, since a start is when most has drifted."""
        while True:
            try:
                await self.turn()
            except WorldError as trouble:
                log.warning("sweep put off", reason=str(trouble))
            except Exception:  # the loop protects its next turn
                log.exception("sweep failed")
            await asyncio.sleep(self._hands.settings.sweep_interval.total_seconds())

    async def turn(self) -> None:
        """A sweep; of many controllers that ask one cloud, which tells each of them the same, only by those whose turn it is."""
        is_elsewhere = LOSES_SIGHT in self._hands.compute.features
        if not self._has_swept or not is_elsewhere or self._draws.is_drawn():
            await self.sweep()
            self._has_swept = True
        elif self._told:
            # What others saw to is not told of any longer.
            still = await self._hands.store.read(orphans.sightings)
            self._told &= still.keys()
            if not self._told:
                self._measure(held=0, waiting=0)

    async def sweep(self) -> None:
        """One look at everything that is ours: tell of new orphans, delete those whose grace is over."""
        survey = await self.look()
        self._tell(survey)
        held = {x.owner for x in survey.held}
        await self.delete(tuple(x for x in survey.due(self._hands.now()) if x.owner not in held))

    async def look(self) -> Survey:
        """What stands outside, and what of it is nobody's. The grace of an orphan begins when it is first seen, by whomever."""
        # Outside first, rows second: what appears between the two has a row already, so it is no orphan.
        owned = sweep_plan.group(await self._list())

        def read(tx: Transaction) -> tuple[Known, Mapping[Owner, Sighting]]:
            return inventory.known(tx), orphans.sightings(tx)

        known, before = await self._hands.store.read(read)
        lost, now = [x for x in owned if not known.has(x)], self._hands.now()
        sightings: Mapping[Owner, Sighting] = {}
        if lost or before:
            sightings = await self._hands.store.transact(lambda tx: orphans.note(tx, lost, now))
        return sweep_plan.survey(owned, sightings, self._hands.settings.orphan_grace)

    async def delete(self, due: tuple[Orphan, ...]) -> tuple[Orphan, ...]:
        """Those of these that are gone; one that cannot be deleted is told in the log, and does not keep the others."""
        gone: list[Orphan] = []
        for orphan in due:
            try:
                await self._delete(orphan)
            except FrontinusError as trouble:
                log.warning("orphan not deleted", **_facts(orphan), reason=str(trouble))
                continue
            gone.append(orphan)
            log.warning("orphan deleted", **_facts(orphan))
            await self._hands.store.transact(lambda tx, owner=orphan.owner: orphans.forget(tx, owner))  # type: ignore[misc]
        return tuple(gone)

    async def _list(self) -> list[Belonging]:
        hands = self._hands
        found = [*await hands.compute.list_belongings(), *await hands.network.list_belongings()]
        for keeper in (hands.amphora_driver, hands.secret):
            found += await keeper.list_unused()
        return found

    async def _delete(self, orphan: Orphan) -> None:
        hands = self._hands
        match orphan.owner.kind:
            case OwnerKind.AMPHORA:
                amphora_id = AmphoraId(orphan.owner.id)
                await hands.compute.destroy(amphora_id)
                await places.delete_ports(amphora_id, hands)
            case OwnerKind.LOAD_BALANCER:
                await hands.network.release_owned(LoadBalancerId(orphan.owner.id))
            case OwnerKind.NOBODY:
                for keeper in (hands.amphora_driver, hands.secret):
                    unused = await keeper.list_unused()
                    for belonging in orphan.belongings:
                        if belonging in unused:
                            await keeper.discard(belonging)
                for belonging in orphan.belongings:
                    await hands.network.discard(belonging)

    def _tell(self, survey: Survey) -> None:
        for orphan in survey.orphans:
            if orphan.owner not in self._told:
                log.warning("orphan found", **_facts(orphan), since=orphan.since.isoformat(timespec="seconds"))
        self._told = frozenset(x.owner for x in survey.orphans)
        held = len(survey.held)
        self._measure(held=held, waiting=len(survey.orphans) - held)
        if held:
            log.error("too many orphans to be believed; see `frontinus sweep list`", orphans=held)

    def _measure(self, *, held: int, waiting: int) -> None:
        self._hands.metrics.orphans.labels("held").set(held)
        self._hands.metrics.orphans.labels("waiting").set(waiting)


def _facts(orphan: Orphan) -> dict[str, str]:
    return {
        "owner": orphan.owner.kind.value,
        "owner_id": orphan.owner.id,
        "belongings": ", ".join(f"{x.kind} {x.name}" for x in orphan.belongings),
    }
