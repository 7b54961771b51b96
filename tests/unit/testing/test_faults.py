"""Faults come when they were ordered, once, and leave the world as they say."""

from __future__ import annotations

import asyncio

import pytest

from frontinus.drivers.compute.interface import PlaceState
from frontinus.model.boot import BootFiles
from frontinus.model.errors import Retry
from frontinus.model.ids import AmphoraId, LoadBalancerId, new_id
from frontinus.testing.fake_compute import FakeCompute
from frontinus.testing.faults import Faults, Killed, When

NO_FILES = BootFiles(files={})
LOAD_BALANCER = LoadBalancerId(new_id())


def fresh() -> AmphoraId:
    return AmphoraId(new_id())


async def test_a_call_that_fails_before_leaves_nothing() -> None:
    compute, amphora_id = FakeCompute(), fresh()
    compute.faults.fail("build")
    with pytest.raises(Retry):
        await compute.build(amphora_id, LOAD_BALANCER, NO_FILES)
    assert (await compute.get(amphora_id)).state is PlaceState.ABSENT


async def test_a_call_that_fails_after_has_done_it() -> None:
    compute, amphora_id = FakeCompute(), fresh()
    compute.faults.fail("build", when=When.AFTER)
    with pytest.raises(Retry):
        await compute.build(amphora_id, LOAD_BALANCER, NO_FILES)
    assert (await compute.get(amphora_id)).state is PlaceState.RUNNING


async def test_a_call_that_hangs_has_done_it_and_can_be_cancelled() -> None:
    compute, amphora_id = FakeCompute(), fresh()
    compute.faults.fail("build", when=When.HANG)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await compute.build(amphora_id, LOAD_BALANCER, NO_FILES)
    assert (await compute.get(amphora_id)).state is PlaceState.RUNNING


async def test_faults_are_counted_from_the_order_and_come_once() -> None:
    compute, ids = FakeCompute(), [fresh() for _ in range(5)]
    await compute.build(ids[0], LOAD_BALANCER, NO_FILES)
    compute.faults.fail("build", 2)
    await compute.build(ids[1], LOAD_BALANCER, NO_FILES)
    with pytest.raises(Retry):
        await compute.build(ids[2], LOAD_BALANCER, NO_FILES)
    await compute.build(ids[2], LOAD_BALANCER, NO_FILES)
    assert set(compute.places) == set(ids[:3])


async def test_a_fault_of_any_method_counts_across_fakes() -> None:
    faults = Faults()
    one, other = FakeCompute(faults=faults), FakeCompute(faults=faults)
    faults.fail(None, 3, error=Killed())
    await one.get(fresh())
    await other.list_owned()
    with pytest.raises(Killed):
        await one.list_owned()
    assert faults.total == 3


async def test_lasting_faults_end_when_cleared() -> None:
    compute = FakeCompute()
    compute.faults.fail_always("list_owned")
    for _ in range(3):
        with pytest.raises(Retry):
            await compute.list_owned()
    compute.faults.clear()
    assert await compute.list_owned() == ()


def test_calls_are_counted_from_one() -> None:
    with pytest.raises(ValueError, match="counted from 1"):
        Faults().fail("build", 0)
