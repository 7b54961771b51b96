"""Keep a few amphorae running that no load balancer has yet.

Every controller of a driver looks after the same slots; whoever touches one first has it for that turn. Each spare has a
row before it is built and until it is destroyed, so a death on the way leaves what the next one finds. act.py takes
them. Next: store/spares.py."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog
from msgspec import Struct
from msgspec.structs import replace

from frontinus.controller import places
from frontinus.controller.hands import Hands
from frontinus.controller.settings import SparesOf
from frontinus.drivers.compute.interface import PlaceState
from frontinus.model.enums import AmphoraStatus
from frontinus.model.errors import CallerError, Retry, WorldError
from frontinus.model.ids import AmphoraId, new_id
from frontinus.model.offers import (
    AvailabilityZoneData,
    FlavorData,
    placement_of,
    read_availability_zone_data,
    read_flavor_data,
)
from frontinus.model.placement import Placement
from frontinus.model.spares import Spare, SpareStatus, tree_of, waiting
from frontinus.model.tree import Amphora
from frontinus.store import profiles, spares
from frontinus.store.engine import Transaction

log = structlog.get_logger()


SELDOM = 15
"""So much longer is the interval where none are wanted and none were there: others may have been told to want some, once."""

LONGEST_WAIT_S = 30.0
"""An empty slot waits no longer for a controller without work: one that always has some needs spares most."""


class Pool(Struct, frozen=True):
    """Spares that are alike, and how many there shall be."""

    name: str
    placement: Placement | None
    wanted: int


def _placement(tx: Transaction, spares_of: SparesOf) -> Placement | None:
    """How amphorae of load balancers with these choices are made. Raises Invalid and Unsupported."""
    flavor, zone = FlavorData(), AvailabilityZoneData()
    if spares_of.flavor:
        flavor = read_flavor_data(profiles.flavor_data(tx, spares_of.flavor), "flavor")
    if spares_of.availability_zone:
        told = profiles.availability_zone_data(tx, spares_of.availability_zone)
        zone = read_availability_zone_data(told, "availability_zone")
    return placement_of(flavor, zone)


class Spares:
    """One per controller. One owner: its own loop."""

    def __init__(self, hands: Hands, is_busy: Callable[[], bool] = lambda: False) -> None:
        """`is_busy` says whether load balancers are being worked on: an amphora that starts would take the processor from
        one that is about to serve, so empty slots wait for that a while."""
        self._hands = hands
        self._is_busy = is_busy
        self._waiting_since: float | None = None
        self._are_any = True

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            try:
                await self.look()
            except WorldError as trouble:
                log.warning("spare amphorae were not looked after", reason=str(trouble))
            except Exception:  # the loop protects its next turn
                log.exception("looking after spare amphorae failed")
            seldom = 1 if self._hands.spares_wanted or self._hands.settings.spares_of or self._are_any else SELDOM
            await asyncio.sleep(self._hands.settings.spare_interval.total_seconds() * seldom)

    async def look(self) -> None:
        """Fill empty slots, look at what is in the others, and empty those that are too many."""
        hands = self._hands
        every = hands.spare_pool(None)
        pools = await hands.store.read(self._pools)
        found = {(x.pool, x.slot): x for x in await hands.store.read(lambda tx: spares.of_kind(tx, every))}
        self._are_any = bool(found)
        hands.metrics.spares.set(sum(x.status is SpareStatus.READY for x in found.values()))
        empty = [(x, slot) for x in pools.values() for slot in range(x.wanted) if (x.name, slot) not in found]
        work = [self._fill(pool, slot) for pool, slot in empty] if empty and self._has_turn() else []
        for spare in found.values():
            pool = pools.get(spare.pool)
            if self._is_free(spare):
                work.append(self._look_at(spare, is_wanted=pool is not None and spare.slot < pool.wanted))
        for outcome in await asyncio.gather(*work, return_exceptions=True):
            if isinstance(outcome, WorldError):
                log.warning("a spare amphora is in trouble", reason=str(outcome))
            elif isinstance(outcome, BaseException):
                raise outcome

    def _pools(self, tx: Transaction) -> dict[str, Pool]:
        """Which pools shall have how many, by name. What an operator named and nobody offers is told, and has none."""
        hands = self._hands
        pools = [Pool(hands.spare_pool(None), None, hands.spares_wanted)]
        for each in hands.settings.spares_of:
            try:
                placement = _placement(tx, each)
            except CallerError as error:
                log.warning("no spare amphorae of this kind", reason=str(error))
                continue
            pools.append(Pool(hands.spare_pool(placement), placement, each.count))
        found: dict[str, Pool] = {}
        for pool in pools:  # choices that say the same of how amphorae are made share one
            there = found.get(pool.name)
            found[pool.name] = pool if there is None else replace(there, wanted=there.wanted + pool.wanted)
        return found

    def _has_turn(self) -> bool:
        """Whether empty slots are filled now: nobody is being served, or that has gone on for long."""
        moment = asyncio.get_running_loop().time()
        if self._waiting_since is None:
            self._waiting_since = moment
        if self._is_busy() and moment - self._waiting_since < LONGEST_WAIT_S:
            return False
        self._waiting_since = None
        return True

    def _is_free(self, spare: Spare) -> bool:
        """Whether nobody has to do with it: a turn is over, or whoever builds or removes it must be dead."""
        settings = self._hands.settings
        longest = settings.spare_interval if spare.status is SpareStatus.READY else 2 * self._hands.boot_timeout
        # A time ahead is of a clock that was wrong.
        return abs(self._hands.now() - spare.touched_at) >= longest

    async def _fill(self, pool: Pool, slot: int) -> None:
        hands, now = self._hands, self._hands.now()
        amphora = waiting(AmphoraId(new_id()), now)
        spare = Spare(
            pool=pool.name,
            slot=slot,
            amphora_id=amphora.id,
            status=SpareStatus.BUILDING,
            amphora=amphora,
            touched_at=now,
        )
        if not await hands.store.transact(lambda tx: spares.reserve(tx, spare)):
            return  # another controller was first
        try:
            built = await places.build(amphora, tree_of(amphora, pool.placement), hands)
            ready = replace(await places.first_answer(built, tree_of(built), hands), status=AmphoraStatus.READY)
        except WorldError:
            await self._remove(spare)
            raise
        await hands.store.transact(lambda tx: spares.write(tx, spare, SpareStatus.READY, ready, hands.now()))
        log.info("spare amphora ready", amphora_id=amphora.id)

    async def _look_at(self, spare: Spare, *, is_wanted: bool) -> None:
        hands = self._hands
        if spare.status is SpareStatus.READY and is_wanted:
            if not await hands.store.transact(lambda tx: spares.touch(tx, spare, spare.status, hands.now())):
                return  # taken, or looked at by another
            spare = replace(spare, touched_at=hands.now())
            if await self._is_fit(spare.amphora):
                return
            log.info("spare amphora is of no use any more", amphora_id=spare.amphora_id)
        if await hands.store.transact(lambda tx: spares.touch(tx, spare, SpareStatus.LEAVING, hands.now())):
            await self._remove(spare)

    async def _is_fit(self, amphora: Amphora) -> bool:
        """Whether it could carry something now, and for a while."""
        hands = self._hands
        due = amphora.certificate_renew_at
        if (due is not None and due <= hands.now()) or (
            amphora.identity_digest or ""
        ) != hands.amphora_driver.identity_digest:
            return False
        if (await hands.compute.get_known(amphora.id, amphora.compute_id)).state is not PlaceState.RUNNING:
            return False
        try:
            await hands.amphora_driver.info(amphora, tree_of(amphora))
        except Retry:
            return False
        return True

    async def _remove(self, spare: Spare) -> None:
        """Nothing is left of it. What fails is tried again when the slot is free."""
        hands = self._hands
        await hands.compute.destroy_known(spare.amphora_id, spare.amphora.compute_id)
        await places.delete_ports(spare.amphora_id, hands)
        await hands.store.transact(lambda tx: spares.forget(tx, spare))
