"""Examines a compute driver against drivers/compute/interface.py. How to use it: exam.py."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from frontinus.drivers.compute.interface import ATTACH, LOSES_SIGHT, ComputeDriver, Place, PlaceState
from frontinus.model.boot import BootFiles
from frontinus.model.ids import AmphoraId, LoadBalancerId, new_id
from frontinus.model.placement import UNSPECIFIED, Placement
from frontinus.model.ports import Port, PortPurpose
from frontinus.testing.exam import Checks, NotApplicable, NotExaminable, Report, hold, require


def _little_boot(amphora_id: AmphoraId, address: str | None) -> BootFiles:
    text = f"id = {amphora_id}\naddress = {address}\nplace = {{place}}\n"
    return BootFiles(files={"agent.conf": text.encode(), "deeper/down.bin": b"\x00{place}"})


@dataclass(frozen=True)
class ComputeBench:
    """`boot` makes boot files from an amphora's id and management address. `stop` ends all that runs in a place,
    behind the driver's back; `patience` is how many seconds a place may take to come up after its build.

    `port` makes the port of an amphora for a purpose, for a driver that attaches ports: those for VIPs and members it may
    make up as long as their attachment exists. `unplug` takes the link of a port away behind the driver's back.

    `placement` says words that are there, and that the driver's settings do not say, for a driver that honours some; `made_as`
    tells of what and where a place was made, in the same words, seen behind the driver's back.

    `hide` has compute not show a place by its name any more, behind the driver's back, for a driver that loses sight."""

    factory: Callable[[], ComputeDriver]
    boot: Callable[[AmphoraId, str | None], BootFiles] = _little_boot
    stop: Callable[[AmphoraId], Awaitable[None]] | None = None
    patience: float = 10.0
    port: Callable[[AmphoraId, PortPurpose], Awaitable[Port]] | None = None
    unplug: Callable[[AmphoraId, Port], Awaitable[None]] | None = None
    placement: Placement = UNSPECIFIED
    made_as: Callable[[AmphoraId], Awaitable[Placement]] | None = None
    hide: Callable[[AmphoraId], Awaitable[None]] | None = None


async def examine(bench: ComputeBench, *, limit: float = 60.0) -> Report:
    """Run every check; each may take `limit` seconds."""
    return await hold(CHECKS, bench, limit)


_checks: Checks[ComputeBench] = Checks()


@dataclass(frozen=True)
class Candidate:
    """A driver on trial, and the ids that the check uses."""

    bench: ComputeBench
    driver: ComputeDriver
    used: list[AmphoraId]

    def fresh_id(self) -> AmphoraId:
        amphora_id = AmphoraId(new_id())
        self.used.append(amphora_id)
        return amphora_id

    async def build(
        self, amphora_id: AmphoraId, driver: ComputeDriver | None = None, placement: Placement = UNSPECIFIED
    ) -> Place:
        by = driver or self.driver
        address, ports = by.management_address(amphora_id), await self.management(amphora_id)
        if ports:
            address = ports[0].addresses[0].address
        boot = self.bench.boot(amphora_id, address)
        return await by.build(amphora_id, LoadBalancerId(new_id()), boot, ports, placement)

    async def management(self, amphora_id: AmphoraId) -> tuple[Port, ...]:
        """The port that a place is built with, for a driver that attaches ports."""
        if ATTACH not in self.driver.features or self.bench.port is None:
            return ()
        return (await self.bench.port(amphora_id, PortPurpose.MANAGEMENT),)

    async def port(self, amphora_id: AmphoraId, purpose: PortPurpose) -> Port:
        """A port to attach. Raises NotExaminable for a driver that attaches none."""
        if ATTACH not in self.driver.features:
            raise NotExaminable("the driver does not have the feature attach")
        if self.bench.port is None:
            raise NotExaminable("the bench has no `port`")
        return await self.bench.port(amphora_id, purpose)

    async def until(self, amphora_id: AmphoraId, state: PlaceState, driver: ComputeDriver | None = None) -> Place:
        """The place once it is in this state. Raises Violation when it does not get there in time."""
        clock = asyncio.get_running_loop()
        deadline = clock.time() + self.bench.patience
        while (place := await (driver or self.driver).get(amphora_id)).state is not state:
            require(clock.time() < deadline, f"the place is {place.state}, not {state}, after {self.bench.patience} s")
            await asyncio.sleep(0.02)
        return place

    async def built(self) -> AmphoraId:
        amphora_id = self.fresh_id()
        await self.build(amphora_id)
        await self.until(amphora_id, PlaceState.RUNNING)
        return amphora_id


@asynccontextmanager
async def candidate_of(bench: ComputeBench) -> AsyncIterator[Candidate]:
    candidate = Candidate(bench, bench.factory(), [])
    try:
        yield candidate
    finally:
        for amphora_id in candidate.used:
            await candidate.driver.destroy(amphora_id)
        await candidate.driver.close()


@_checks.claim("management_address is pure, and the one that the place will have, if it is known before the build")
async def management_address_is_known_or_none(bench: ComputeBench) -> None:
    async with candidate_of(bench) as candidate:
        amphora_id, another = candidate.fresh_id(), candidate.fresh_id()
        before = candidate.driver.management_address(amphora_id)
        candidate.driver.management_address(another)
        await candidate.build(amphora_id)
        place = await candidate.until(amphora_id, PlaceState.RUNNING)
        require(candidate.driver.management_address(amphora_id) == before, "the answer changed with the build")
        if before is not None:
            require(place.management_address == before, f"said {before}, became {place.management_address}")


@_checks.claim("get never raises for an unknown id: that is ABSENT")
async def unknown_is_absent(bench: ComputeBench) -> None:
    async with candidate_of(bench) as candidate:
        place = await candidate.driver.get(candidate.fresh_id())
        require(place.state is PlaceState.ABSENT, f"it is {place.state}")


@_checks.claim("build makes the place and starts what should run in it")
async def build_makes_a_running_place(bench: ComputeBench) -> None:
    async with candidate_of(bench) as candidate:
        amphora_id = candidate.fresh_id()
        built = await candidate.build(amphora_id)
        require(built.amphora_id == amphora_id, f"the answer is about {built.amphora_id}")
        started = (PlaceState.RUNNING, PlaceState.BUILDING)
        require(built.state in started, f"build answers {built.state}")
        seen = await candidate.until(amphora_id, PlaceState.RUNNING)
        require(seen.amphora_id == amphora_id, f"get is about {seen.amphora_id}")
        require(seen.management_address, "a running place has no management address")
        require(seen.compute_id, "a running place has no compute id")
        if built.compute_id is not None:
            require(seen.compute_id == built.compute_id, "build and get tell different compute ids")


@_checks.claim("build may be repeated: the place is the same one, and goes on running")
async def build_repeats(bench: ComputeBench) -> None:
    async with candidate_of(bench) as candidate:
        amphora_id = await candidate.built()
        first = await candidate.driver.get(amphora_id)
        again = await candidate.build(amphora_id)
        require(again.compute_id in (None, first.compute_id), f"{first.compute_id} became {again.compute_id}")
        second = await candidate.until(amphora_id, PlaceState.RUNNING)
        require(second.compute_id == first.compute_id, f"{first.compute_id} became {second.compute_id}")
        owned = (await candidate.driver.list_owned()).count(amphora_id)
        require(owned == 1, f"list_owned names it {owned} times")


@_checks.claim("all methods may be called for many amphorae at once, also twice for one")
async def many_at_once(bench: ComputeBench) -> None:
    async with candidate_of(bench) as candidate:
        ids = [candidate.fresh_id() for _ in range(4)]
        await asyncio.gather(*(candidate.build(amphora_id) for amphora_id in (*ids, *ids)))
        for amphora_id in ids:
            await candidate.until(amphora_id, PlaceState.RUNNING)
        owned = [amphora_id for amphora_id in await candidate.driver.list_owned() if amphora_id in ids]
        require(sorted(owned) == sorted(ids), f"of {len(ids)} places list_owned names {len(owned)}")
        await asyncio.gather(*(candidate.driver.destroy(amphora_id) for amphora_id in (*ids, *ids)))
        for amphora_id in ids:
            place = await candidate.driver.get(amphora_id)
            require(place.state is PlaceState.ABSENT, f"destroyed, and {place.state}")


@_checks.claim("two drivers that build one amphora at once make one place")
async def two_builders_make_one_place(bench: ComputeBench) -> None:
    async with candidate_of(bench) as candidate:
        amphora_id, other = candidate.fresh_id(), bench.factory()
        try:
            await asyncio.gather(candidate.build(amphora_id), candidate.build(amphora_id, other))
            mine = await candidate.until(amphora_id, PlaceState.RUNNING)
            theirs = await candidate.until(amphora_id, PlaceState.RUNNING, other)
        finally:
            await other.close()
        require(mine.compute_id == theirs.compute_id, f"{mine.compute_id} and {theirs.compute_id}")


@_checks.claim("names are derived from our ids, so that a place is found again; closing does not touch places")
async def places_outlive_the_driver(bench: ComputeBench) -> None:
    async with candidate_of(bench) as candidate:
        amphora_id, maker = candidate.fresh_id(), bench.factory()
        await candidate.build(amphora_id, maker)
        before = await candidate.until(amphora_id, PlaceState.RUNNING, maker)
        await maker.close()
        after = await candidate.driver.get(amphora_id)
        require(after.state is PlaceState.RUNNING, f"another driver sees it {after.state}")
        require(after.compute_id == before.compute_id, f"{before.compute_id} became {after.compute_id}")
        require(after.management_address == before.management_address, "its address changed")
        require(amphora_id in await candidate.driver.list_owned(), "another driver's list_owned lacks it")


@_checks.claim("list_owned names every place under our naming, and none that was destroyed")
async def list_owned_names_places(bench: ComputeBench) -> None:
    async with candidate_of(bench) as candidate:
        kept, gone, never = await candidate.built(), await candidate.built(), candidate.fresh_id()
        await candidate.driver.destroy(gone)
        owned = await candidate.driver.list_owned()
        require(kept in owned, "it lacks a place that runs")
        require(gone not in owned, "it names a place that was destroyed")
        require(never not in owned, "it names a place that was never built")


@_checks.claim("list_belongings tells at least one thing of every place that list_owned names, and none of another")
async def belongings_are_of_owned_places(bench: ComputeBench) -> None:
    async with candidate_of(bench) as candidate:
        kept, gone = await candidate.built(), await candidate.built()
        await candidate.driver.destroy(gone)
        told = await candidate.driver.list_belongings()
        require(any(x.amphora_id == kept for x in told), "it tells nothing of a place that runs")
        require(all(x.amphora_id != gone for x in told), "it tells of a place that was destroyed")
        require(
            all(x.name and x.proof for x in told), "it tells of something without a name, or without saying whose it is"
        )
        owners = {x.amphora_id for x in told if x.amphora_id in candidate.used}
        owned = {x for x in await candidate.driver.list_owned() if x in candidate.used}
        require(owners == owned, f"it tells of {sorted(map(str, owners))}, and list_owned names {sorted(owned)}")


@_checks.claim("when destroy returns the place is gone; unknown ids are done already")
async def destroy_leaves_nothing(bench: ComputeBench) -> None:
    async with candidate_of(bench) as candidate:
        amphora_id = await candidate.built()
        await candidate.driver.destroy(amphora_id)
        place = await candidate.driver.get(amphora_id)
        require(place.state is PlaceState.ABSENT, f"it is {place.state}")
        await candidate.driver.destroy(amphora_id)
        await candidate.driver.destroy(candidate.fresh_id())


@_checks.claim("get_known tells what get does, and of an id that nobody has that it is ABSENT")
async def known_place_is_told(bench: ComputeBench) -> None:
    async with candidate_of(bench) as candidate:
        amphora_id = await candidate.built()
        seen = await candidate.driver.get(amphora_id)
        for recorded in (seen.compute_id, None):
            known = await candidate.driver.get_known(amphora_id, recorded)
            require(known.state is PlaceState.RUNNING, f"recorded as {recorded} it is {known.state}")
            require(known.amphora_id == amphora_id, f"it is about {known.amphora_id}")
            require(known.compute_id == seen.compute_id, f"{seen.compute_id} became {known.compute_id}")
            require(known.management_address == seen.management_address, "its address is another")
        await candidate.driver.destroy(amphora_id)
        gone = await candidate.driver.get_known(amphora_id, seen.compute_id)
        require(gone.state is PlaceState.ABSENT, f"destroyed, and {gone.state}")
        never = await candidate.driver.get_known(candidate.fresh_id(), new_id())
        require(never.state is PlaceState.ABSENT, f"never built, and {never.state}")


@_checks.claim("when destroy_known returns the place is gone, and no other; unknown ids are done already")
async def destroy_known_leaves_nothing(bench: ComputeBench) -> None:
    async with candidate_of(bench) as candidate:
        kept, gone = await candidate.built(), await candidate.built()
        before, recorded = await candidate.driver.get(kept), (await candidate.driver.get(gone)).compute_id
        await candidate.driver.destroy_known(gone, recorded)
        state = (await candidate.driver.get(gone)).state
        require(state is PlaceState.ABSENT, f"it is {state}")
        require(gone not in await candidate.driver.list_owned(), "list_owned names it")
        for unknown, compute_id in ((gone, recorded), (gone, None), (candidate.fresh_id(), new_id())):
            await candidate.driver.destroy_known(unknown, compute_id)
        after = await candidate.driver.get(kept)
        require(after.state is PlaceState.RUNNING, f"another place is {after.state} since")
        require(after.compute_id == before.compute_id, "another place came back as another")


@_checks.claim(
    "with the feature loses_sight, a place that is not shown by its name is known, and destroyed, by its compute id"
)
async def unseen_place_is_known_by_its_id(bench: ComputeBench) -> None:
    async with candidate_of(bench) as candidate:
        driver = candidate.driver
        if LOSES_SIGHT not in driver.features:
            raise NotApplicable("the driver does not have the feature loses_sight")
        if bench.hide is None:
            raise NotExaminable("the bench has no `hide`")
        amphora_id = await candidate.built()
        recorded = (await driver.get(amphora_id)).compute_id
        try:
            await bench.hide(amphora_id)
            state = (await driver.get(amphora_id)).state
            require(state is PlaceState.ABSENT, f"not shown by its name it is {state}")
            known = await driver.get_known(amphora_id, recorded)
            require(known.state is PlaceState.RUNNING, f"by its compute id it is {known.state}")
            require(known.compute_id == recorded, f"{recorded} became {known.compute_id}")
        finally:
            await driver.destroy_known(amphora_id, recorded)
        state = (await driver.get_known(amphora_id, recorded)).state
        require(state is PlaceState.ABSENT, f"destroyed by its compute id it is {state}")


@_checks.claim(
    "list_running, where it tells, names those of list_owned that run or start, and none that ended or is gone"
)
async def list_running_names_what_runs(bench: ComputeBench) -> None:
    async with candidate_of(bench) as candidate:
        if await candidate.driver.list_running() is None:
            raise NotApplicable("the driver tells of each by `get` only")
        if bench.stop is None:
            raise NotExaminable("the bench has no `stop`")
        runs, ended, gone = [await candidate.built() for _ in range(3)]
        await bench.stop(ended)
        await candidate.until(ended, PlaceState.STOPPED)
        await candidate.driver.destroy(gone)
        starts, never = candidate.fresh_id(), candidate.fresh_id()
        await candidate.build(starts)
        named = await candidate.driver.list_running() or frozenset()
        require(runs in named, "it lacks a place that runs")
        require(starts in named, "it lacks a place that starts")
        require(ended not in named, "it names a place in which nothing runs")
        require(gone not in named, "it names a place that was destroyed")
        require(never not in named, "it names a place that was never built")
        owned = await candidate.driver.list_owned()
        require(all(x in owned for x in named if x in candidate.used), "list_owned lacks a place that is said to run")


@_checks.claim("a place that was destroyed can be built again")
async def destroyed_can_be_built_again(bench: ComputeBench) -> None:
    async with candidate_of(bench) as candidate:
        amphora_id = await candidate.built()
        await candidate.driver.destroy(amphora_id)
        await candidate.build(amphora_id)
        await candidate.until(amphora_id, PlaceState.RUNNING)


@_checks.claim("a crash in the middle of a build leaves something that build, destroy and list_owned find")
async def interrupted_build_is_found(bench: ComputeBench) -> None:
    for turns in (1, 2, 3, 5, 8):
        async with candidate_of(bench) as candidate:
            amphora_id, dying = candidate.fresh_id(), bench.factory()
            task = asyncio.create_task(candidate.build(amphora_id, dying))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            await dying.close()
            state = (await candidate.driver.get(amphora_id)).state
            if state is not PlaceState.ABSENT:
                require(amphora_id in await candidate.driver.list_owned(), f"it is {state}, and list_owned lacks it")
            await candidate.build(amphora_id)
            await candidate.until(amphora_id, PlaceState.RUNNING)
            await candidate.driver.destroy(amphora_id)
            state = (await candidate.driver.get(amphora_id)).state
            require(state is PlaceState.ABSENT, f"destroyed after an interrupted build, and {state}")
            require(amphora_id not in await candidate.driver.list_owned(), "list_owned names what was destroyed")


@_checks.claim("a place in which nothing runs is STOPPED, is owned still, and build brings it back")
async def stopped_place_is_seen_and_revived(bench: ComputeBench) -> None:
    if bench.stop is None:
        raise NotExaminable("the bench has no `stop`")
    async with candidate_of(bench) as candidate:
        amphora_id = await candidate.built()
        before = await candidate.driver.get(amphora_id)
        await bench.stop(amphora_id)
        stopped = await candidate.until(amphora_id, PlaceState.STOPPED)
        require(stopped.balancing is not True, "it is said to balance with nothing in it")
        require(amphora_id in await candidate.driver.list_owned(), "list_owned lacks a stopped place")
        await candidate.build(amphora_id)
        after = await candidate.until(amphora_id, PlaceState.RUNNING)
        require(after.compute_id == before.compute_id, "it came back as another")
        require(after.management_address == before.management_address, "it came back at another address")


@_checks.claim("destroy takes away a place in which nothing runs as well")
async def stopped_place_is_destroyed(bench: ComputeBench) -> None:
    if bench.stop is None:
        raise NotExaminable("the bench has no `stop`")
    async with candidate_of(bench) as candidate:
        amphora_id = await candidate.built()
        await bench.stop(amphora_id)
        await candidate.driver.destroy(amphora_id)
        state = (await candidate.driver.get(amphora_id)).state
        require(state is PlaceState.ABSENT, f"it is {state}")


_SEEN_AFTER_S = 1.5
"""So long a place has run before its end must be told; one that ends sooner may be found by its silence."""


@_checks.claim("watch tells of what ended in a place as soon as it is seen, of places that it found and of later ones")
async def an_end_is_told(bench: ComputeBench) -> None:
    if bench.stop is None:
        raise NotExaminable("the bench has no `stop`")
    async with candidate_of(bench) as candidate:
        told = asyncio.Queue[AmphoraId]()
        found = await candidate.built()
        watching = asyncio.create_task(candidate.driver.watch(told.put_nowait))
        try:
            await asyncio.sleep(0.1)
            if watching.done():
                raise NotExaminable("the driver sees nothing by itself")
            for amphora_id in (found, await candidate.built()):
                await asyncio.sleep(_SEEN_AFTER_S)
                await bench.stop(amphora_id)
                async with asyncio.timeout(bench.patience):
                    while (heard := await told.get()) != amphora_id:
                        require(heard in candidate.used, f"told of {heard}, which nobody built")
                state = (await candidate.driver.get(amphora_id)).state
                require(state is PlaceState.STOPPED, f"when it was told, the place is {state}")
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


CHECKS = _checks.all()
