"""When an amphora that looks dead is left alone all the same. Pure, but for Grace, which is told the time.

A maintenance mark holds whatever would be done to an amphora that it covers. The brake of a receiver, or receivers that are
all gone, hold what rests on silence alone: compute's word that a place is gone is knowledge, whoever is deaf. What is held
shows as a fault that says what it waits for. Next: plan.py, which obeys."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta

import msgspec

from frontinus.drivers.compute.interface import Place, PlaceState
from frontinus.model.ids import AmphoraId
from frontinus.model.maintenance import Mark, mark_on
from frontinus.model.receivers import Receiver
from frontinus.model.tree import Amphora

SILENT_ONLY = (PlaceState.RUNNING, PlaceState.BUILDING)

CLOCK_JUMPED_BEYOND = timedelta(seconds=2)
"""So far may the clock of the day run from the one that only goes forward, between two looks, before it counts as a jump."""


class Hold(msgspec.Struct, frozen=True, kw_only=True):
    """Why an amphora is left as it is, for the fault."""

    code: str
    message: str


class Restraint(msgspec.Struct, frozen=True, kw_only=True):
    """What was read of the store, for one look at one load balancer."""

    marks: tuple[Mark, ...] = ()
    receivers: tuple[Receiver, ...] = ()

    def hold_on(self, amphora: Amphora, place: Place | None, now: datetime) -> Hold | None:
        """Why this amphora must not be replaced or started again now; None if it may."""
        mark = mark_on(amphora.id, amphora.load_balancer_id, amphora.host, self.marks, now)
        if mark is not None:
            message = f"amphora {amphora.id} is not replaced: maintenance of {mark.in_words()}"
            return Hold(code="held-by-maintenance", message=message)
        if place is None or place.state not in SILENT_ONLY:
            return None
        reason = _deafness(self.receivers, now)
        if reason is None:
            return None
        return Hold(
            code="held-by-brake",
            message=f"amphora {amphora.id} is silent and its place runs: {reason}, so that it is not believed",
        )


def _deafness(receivers: Iterable[Receiver], now: datetime) -> str | None:
    known = tuple(receivers)
    alive = [x for x in known if x.is_alive(now)]
    if known and not alive:
        return "no receiver of heartbeats is running"
    braked = next((x for x in alive if x.braked), None)
    if braked is None:
        return None
    return f"{braked.silent} of {braked.watched} amphorae are silent at once for the receiver on {braked.host}"


def holds_of(
    amphorae: Iterable[Amphora], places: Mapping[AmphoraId, Place | None], restraint: Restraint, now: datetime
) -> dict[AmphoraId, Hold]:
    """The amphorae that are left alone."""
    found = {x.id: restraint.hold_on(x, places.get(x.id), now) for x in amphorae}
    return {amphora_id: hold for amphora_id, hold in found.items() if hold is not None}


class Grace:
    """Since when this controller has had its bearings: its start, the end of the last outage of the database, the last jump
    of the clock. What rests on how long something lasts counts from then. One owner: the controller's claim loop."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._ahead: timedelta | None = None
        self._lost = True
        self.since: datetime | None = None

    def found(self, now: datetime) -> None:
        """The database answered, at this time by the clock of the day."""
        ahead = timedelta(seconds=self._monotonic())
        moved = self._ahead is not None and abs((now - _EPOCH) - ahead - self._ahead) > CLOCK_JUMPED_BEYOND
        self._ahead = (now - _EPOCH) - ahead
        if self._lost or moved:
            self.since = now
        self._lost = False

    def lose(self) -> None:
        """The database did not answer."""
        self._lost = True


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
