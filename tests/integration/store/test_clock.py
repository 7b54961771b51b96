"""Hosts whose clocks differ work as one: all go by the database's."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from frontinus.controller.restraint import Restraint
from frontinus.drivers.compute.interface import Place, PlaceState
from frontinus.model.errors import Retry
from frontinus.model.ids import ReceiverId, new_id
from frontinus.model.receivers import Receiver
from frontinus.store import leases, receivers, trees
from frontinus.store.clock import MEASURE_EVERY_S, TRIFLE, SharedClock
from frontinus.store.engine import Store, Transaction
from frontinus.store.leases import CLOCK_WAS_WRONG_BEYOND

from tests.integration.store.world import COHORT, LEASE, OURS, THEIRS, a_tree, an_amphora

pytestmark = [pytest.mark.integration, pytest.mark.engines]

MINUTE = timedelta(minutes=1)
SECOND = timedelta(seconds=1)


def host(ahead: timedelta) -> Callable[[], datetime]:
    return lambda: datetime.now(UTC) + ahead


async def clock_of(store: Store, ahead: timedelta) -> SharedClock:
    made = SharedClock(store, host(ahead))
    await made.measure()
    return made


@pytest.mark.parametrize("ahead", [MINUTE, -MINUTE], ids=["ahead", "behind"])
async def test_what_is_made_where_the_clock_is_off_is_due_at_once(store: Store, ahead: timedelta) -> None:
    api, controller = await clock_of(store, ahead), await clock_of(store, timedelta(0))
    await store.transact(lambda tx: trees.create_tree(tx, a_tree(at=api()), COHORT))
    now = controller() + TRIFLE * 2
    claimed = await store.transact(lambda tx: leases.claim_due(tx, OURS, COHORT, now, LEASE, 1))
    assert len(claimed) == 1
    # Another controller, whose clock is off, does not take what is being worked on.
    other = (await clock_of(store, ahead))()
    assert await store.transact(lambda tx: leases.claim_due(tx, THEIRS, COHORT, other, LEASE, 1)) == []


@pytest.mark.parametrize("ahead", [11 * SECOND, -11 * SECOND], ids=["ahead", "behind"])
async def test_a_receiver_whose_clock_is_off_is_there(store: Store, ahead: timedelta) -> None:
    receiver, controller = await clock_of(store, ahead), await clock_of(store, timedelta(0))
    me = Receiver(
        id=ReceiverId(new_id()), host="h", port=1, started_at=receiver(), seen_at=receiver(), watched=9, silent=1
    )
    await store.transact(lambda tx: receivers.tell(tx, me))
    known = await store.read(receivers.all_receivers)
    silent = an_amphora(a_tree())
    place = Place(amphora_id=silent.id, state=PlaceState.RUNNING)
    assert Restraint(receivers=tuple(known)).hold_on(silent, place, controller()) is None


async def test_time_does_not_jump_when_the_host_is_put_right(store: Store) -> None:
    ahead = MINUTE
    clock = SharedClock(store, lambda: datetime.now(UTC) + ahead)
    await clock.measure()
    assert abs(clock.off - MINUTE) < TRIFLE
    before = clock()
    ahead = timedelta(0)
    assert timedelta(0) <= clock() - before < SECOND * 2
    await clock.measure()
    assert abs(clock.off) < TRIFLE
    assert -TRIFLE < clock() - before < SECOND * 2


async def test_the_database_is_asked_seldom_and_when_somebody_set_the_clock(store: Store) -> None:
    began, passed, ahead = datetime.now(UTC), 0.0, timedelta(0)
    clock = SharedClock(store, lambda: began + timedelta(seconds=passed) + ahead, lambda: passed)
    assert clock.is_due()
    await clock.measure()
    passed = MEASURE_EVERY_S - 1
    assert not clock.is_due()
    ahead = SECOND
    assert clock.is_due()
    ahead, passed = timedelta(0), MEASURE_EVERY_S
    assert clock.is_due()


async def test_what_is_no_clock_is_not_followed(store: Store) -> None:
    """That it is off is told all the same."""
    ahead = CLOCK_WAS_WRONG_BEYOND + MINUTE
    clock = await clock_of(store, ahead)
    assert abs(clock() - host(ahead)()) < SECOND
    assert abs(clock.off - ahead) < TRIFLE


async def test_a_database_that_is_slow_or_away_changes_nothing(store: Store) -> None:
    seconds = iter((0.0, 5.0))  # so long it took
    slow = SharedClock(store, host(MINUTE), lambda: next(seconds))
    await slow.measure()
    assert slow.off == timedelta(0)

    class Away:
        async def read(self, work: Callable[[Transaction], datetime]) -> datetime:
            raise Retry("it is away", after=1.0)

    away = await clock_of(store, MINUTE)
    away._store = Away()  # type: ignore[assignment]
    await away.measure()
    assert abs(away.off - MINUTE) < TRIFLE
    assert abs(away() - host(timedelta(0))()) < SECOND
