"""A newer version gets load balancers by a rollout's gates, or because their own has really gone; never because nobody could
write for a while, nor by a clock that is ahead."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from frontinus.controller.membership import Membership
from frontinus.model.capabilities import Capabilities
from frontinus.model.cohorts import SILENT_AFTER, CohortName
from frontinus.model.ids import ControllerId, new_id
from frontinus.model.rollouts import Gates, Rollout, RolloutId, RolloutKind, RolloutState, Selection, Waves
from frontinus.store import cohorts, rollouts, trees
from frontinus.store.engine import Store, Transaction

from tests.integration.store.world import a_tree

pytestmark = pytest.mark.integration

OLD, NEW = CohortName("fake", "1.0"), CohortName("fake", "2.0")
COUNT = 3
EACH = timedelta(seconds=5)
SECOND = timedelta(seconds=1)


class Site:
    """Controllers of both versions on one store, a clock that is moved by hand, and a fleet of the older version."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        self.old, self.new = self.member(OLD), self.member(NEW)

    def member(self, name: CohortName, ahead: timedelta = timedelta(0)) -> Membership:
        return Membership(
            self.store, ControllerId(new_id()), name, ("amphora",), Capabilities(), lambda: self.now + ahead
        )

    async def begin(self) -> None:
        await self.old.register()

        def make(tx: Transaction) -> None:
            for _ in range(COUNT):
                trees.create_tree(tx, a_tree(members=0, at=self.now), OLD)

        await self.store.transact(make)

    async def live(self, duration: timedelta, *who: Membership) -> None:
        """These look as often as controllers do."""
        end = self.now + duration
        while self.now < end:
            self.now += EACH
            for each in who:
                await each.look()

    async def whose(self) -> dict[CohortName, int]:
        return await self.store.read(cohorts.count_load_balancers)

    async def rollout(self) -> Rollout:
        made = Rollout(
            id=RolloutId(new_id()),
            kind=RolloutKind.DRIVER,
            driver=NEW.driver,
            target=NEW.driver_version,
            selection=Selection(),
            waves=Waves(),
            gates=Gates(),
            state=RolloutState.RUNNING,
            in_canary=True,
            wave_since=self.now,
            created_at=self.now,
            active_driver=NEW.driver,
        )
        await self.store.transact(lambda tx: rollouts.add(tx, made, []))
        return made


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    store = Store.open(f"sqlite:///{tmp_path / 'frontinus.sqlite'}")
    store.upgrade()
    yield Site(store)
    await store.close()


async def test_an_outage_of_the_database_gives_nothing_away(site: Site) -> None:
    await site.begin()
    await site.new.register()
    await site.live(SILENT_AFTER, site.old, site.new)
    site.now += SILENT_AFTER + EACH  # nobody could write
    await site.new.look()
    assert await site.whose() == {OLD: COUNT}
    await site.live(SILENT_AFTER * 2, site.new, site.old)
    assert await site.whose() == {OLD: COUNT}


async def test_who_comes_when_nobody_could_write_takes_nothing(site: Site) -> None:
    await site.begin()
    site.now += SILENT_AFTER + EACH
    await site.new.register()
    await site.live(SILENT_AFTER, site.new, site.old)
    assert await site.whose() == {OLD: COUNT}


async def test_a_clock_that_is_ahead_sees_no_silence(site: Site) -> None:
    await site.begin()
    ahead = site.member(NEW, SILENT_AFTER + SECOND)
    await ahead.register()
    await site.live(SILENT_AFTER * 2, site.old, ahead)
    assert await site.whose() == {OLD: COUNT}


async def test_a_clock_that_is_set_sees_no_silence(site: Site) -> None:
    await site.begin()
    await site.new.register()
    await site.live(EACH, site.old, site.new)
    behind = site.now
    site.now += timedelta(hours=1)
    await site.new.look()
    site.now = behind
    await site.live(SILENT_AFTER, site.new, site.old)
    assert await site.whose() == {OLD: COUNT}


async def test_who_is_really_silent_is_not_waited_for(site: Site) -> None:
    await site.begin()
    await site.new.register()
    await site.live(EACH, site.old, site.new)
    await site.live(SILENT_AFTER - EACH, site.new)
    assert await site.whose() == {OLD: COUNT}
    await site.live(EACH * 2, site.new)
    assert await site.whose() == {NEW: COUNT}


async def test_a_goodbye_is_believed_at_once_towards_a_newer_one(site: Site) -> None:
    await site.begin()
    await site.new.register()
    await site.old.leave()
    await site.new.look()
    assert await site.whose() == {NEW: COUNT}
    await site.old.register()
    await site.new.leave()
    await site.live(SILENT_AFTER - EACH, site.old)
    assert await site.whose() == {NEW: COUNT}, "it may only be restarted"
    await site.live(EACH * 3, site.old)
    assert await site.whose() == {OLD: COUNT}


@pytest.mark.parametrize("goodbye", [False, True], ids=["silent", "stopped"])
async def test_while_a_rollout_is_not_over_its_gates_alone_give(site: Site, goodbye: bool) -> None:
    """Its halt, say, is worth nothing where the last controller of the version before is killed."""
    await site.begin()
    await site.new.register()
    rollout = await site.rollout()
    if goodbye:
        await site.old.leave()
    await site.live(SILENT_AFTER * 2, site.new)
    assert await site.whose() == {OLD: COUNT}
    await site.store.transact(partial(end, rollout=rollout, now=site.now))
    await site.live(EACH, site.new)
    assert await site.whose() == {NEW: COUNT}


async def test_what_a_dead_target_had_the_version_before_takes(site: Site) -> None:
    """Nothing may be stuck, and it served that before."""
    await site.begin()
    await site.new.register()
    await site.rollout()
    some = (await site.store.read(lambda tx: cohorts.load_balancers_of(tx, OLD, None, 1)))[:1]
    await site.store.transact(lambda tx: cohorts.move(tx, some, NEW, site.now))
    assert await site.whose() == {OLD: COUNT - 1, NEW: 1}
    await site.live(SILENT_AFTER * 2, site.old)
    assert await site.whose() == {OLD: COUNT}


def end(tx: Transaction, rollout: Rollout, now: datetime) -> None:
    rollouts.change_state(tx, rollout, RolloutState.ABORTED, "", now)
