"""Examines whether a compute driver makes places as their placement says, against drivers/compute/interface.py. How to use
it: exam.py.

Beside compute_conformance.py, which every compute driver sits, and with its bench."""

from __future__ import annotations

from frontinus.drivers.compute.interface import PlaceState
from frontinus.model.errors import Retry
from frontinus.model.ids import AmphoraId, new_id
from frontinus.model.placement import BY_FLAVOR, BY_ZONE, MANAGEMENT_NETWORK, UNSPECIFIED, Placement
from frontinus.testing.compute_conformance import Candidate, ComputeBench, candidate_of
from frontinus.testing.exam import Checks, NotApplicable, NotExaminable, Report, expect, hold, require


async def examine(bench: ComputeBench, *, limit: float = 60.0) -> Report:
    """Run every check; each may take `limit` seconds."""
    return await hold(CHECKS, bench, limit)


_checks: Checks[ComputeBench] = Checks()
_WORDS = (BY_FLAVOR | BY_ZONE) - {MANAGEMENT_NETWORK}


def _honoured(candidate: Candidate) -> list[str]:
    """Raises NotApplicable for a driver that honours none."""
    words = sorted(candidate.driver.placement_words)
    if not words:
        raise NotApplicable("the driver honours no word of a placement")
    return words


@_checks.claim("placement_words are words of a placement, and the same for every driver with these settings")
async def placement_words_are_known(bench: ComputeBench) -> None:
    async with candidate_of(bench) as candidate:
        words, another = candidate.driver.placement_words, bench.factory()
        try:
            require(words == another.placement_words, f"{sorted(words)}, and then {sorted(another.placement_words)}")
        finally:
            await another.close()
        require(words <= _WORDS, f"{sorted(words - _WORDS)} are none of compute's: {sorted(_WORDS)}")


@_checks.claim("a place is made as its placement says, in each word that the driver honours; else as the settings say")
async def place_is_made_as_asked(bench: ComputeBench) -> None:
    async with candidate_of(bench) as candidate:
        words = _honoured(candidate)
        if bench.made_as is None or not frozenset(words) <= bench.placement.asked:
            raise NotExaminable("the bench has no `made_as`, or `placement` lacks a word that the driver honours")
        asked, plain = candidate.fresh_id(), candidate.fresh_id()
        wanted = Placement(**{word: getattr(bench.placement, word) for word in words})
        for amphora_id, placement in ((asked, wanted), (plain, UNSPECIFIED), (asked, wanted)):
            await candidate.build(amphora_id, placement=placement)
            await candidate.until(amphora_id, PlaceState.RUNNING)
        made, other = await bench.made_as(asked), await bench.made_as(plain)
        for word in words:
            seen, value = getattr(made, word), getattr(wanted, word)
            require(seen == value, f"asked for {word} {value!r}, it made {seen!r}")
            require(getattr(other, word) != value, f"it made {word} {value!r}, which nobody asked for")


@_checks.claim("a place that stopped comes back as its placement says")
async def revived_place_is_as_asked(bench: ComputeBench) -> None:
    async with candidate_of(bench) as candidate:
        words = _honoured(candidate)
        if bench.made_as is None or bench.stop is None or not frozenset(words) <= bench.placement.asked:
            raise NotExaminable("the bench has no `made_as` or `stop`, or `placement` lacks a word")
        amphora_id = candidate.fresh_id()
        wanted = Placement(**{word: getattr(bench.placement, word) for word in words})
        await candidate.build(amphora_id, placement=wanted)
        await candidate.until(amphora_id, PlaceState.RUNNING)
        await bench.stop(amphora_id)
        await candidate.build(amphora_id, placement=wanted)
        await candidate.until(amphora_id, PlaceState.RUNNING)
        made = await bench.made_as(amphora_id)
        for word in words:
            require(getattr(made, word) == getattr(wanted, word), f"its {word} is {getattr(made, word)!r} now")


@_checks.claim("while there is no such flavor, image or zone a build raises Retry, and makes nothing")
async def what_is_not_there_is_waited_for(bench: ComputeBench) -> None:
    async with candidate_of(bench) as candidate:
        for word in _honoured(candidate):
            amphora_id = candidate.fresh_id()
            wanted = Placement(**{word: f"no-such-{new_id()}"})
            await expect(Retry, candidate.build(amphora_id, placement=wanted), f"a place whose {word} is not there")
            await _require_nothing(candidate, amphora_id, word)


async def _require_nothing(candidate: Candidate, amphora_id: AmphoraId, word: str) -> None:
    state = (await candidate.driver.get(amphora_id)).state
    require(state is PlaceState.ABSENT, f"without its {word} the place is {state}")
    require(amphora_id not in await candidate.driver.list_owned(), f"without its {word} list_owned names the place")


CHECKS = _checks.all()
