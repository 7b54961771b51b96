"""Several receivers are one ear: what one heard is known to the others, and to the one that comes after it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from frontinus.health import memory
from frontinus.health.accounts import REPLAYED
from frontinus.model.ids import AmphoraId, ReceiverId
from frontinus.store import receivers

from tests.integration.health.calm_world import CalmWorld, Pace


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[CalmWorld]:
    made = CalmWorld(tmp_path, Pace(0.2))
    await made.start(4)
    yield made
    await made.stop()


async def until(fact: Callable[[], Awaitable[bool]], what: str) -> None:
    try:
        async with asyncio.timeout(20):
            while not await fact():  # noqa: ASYNC110 - the fact is in the database
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(what) from None


async def ever_suspected(world: CalmWorld, intervals: int) -> set[AmphoraId]:
    found: set[AmphoraId] = set()
    for _ in range(4 * intervals):
        await world.intervals(0.25)
        found |= await world.suspects()
    return found


async def test_a_receiver_that_dies_fails_nobody_over_and_the_dead_are_found(world: CalmWorld) -> None:
    """Four amphorae are too few for the brake: here it is only that the receivers know of each other."""
    world.start_second_receiver()
    await world.intervals(5)
    assert await ever_suspected(world, 10) == set(), "each hears every other heartbeat"
    await world.stop_second_receiver()
    assert await ever_suspected(world, 10) == set(), "every other heartbeat is lost"
    assert world.replaced() == frozenset()
    dead = world.crowd.amphorae[0].id
    world.places[dead].kill()
    world.crowd.silent.add(dead)

    async def is_replaced() -> bool:
        return world.replaced() == {dead}

    await until(is_replaced, "who is dead is replaced")


async def test_the_dead_are_found_by_two_that_share_a_fleet(world: CalmWorld) -> None:
    world.start_second_receiver()
    await world.intervals(5)
    dead = world.crowd.amphorae[0].id
    world.places[dead].kill()
    world.crowd.silent.add(dead)

    async def is_replaced() -> bool:
        return world.replaced() == {dead}

    await until(is_replaced, "neither takes the other's word for a sign of life")


async def test_what_was_accepted_is_a_replay_for_every_receiver_and_after_a_restart(world: CalmWorld) -> None:
    second = world.start_second_receiver()
    amphora = world.crowd.amphorae[0]
    world.crowd.silent.add(amphora.id)
    await world.intervals(2)
    recorded = amphora.datagram()

    def send(port: int) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(recorded, ("127.0.0.1", port))

    async def is_remembered() -> bool:
        """By both, and in the store."""
        known = await world.store.read(receivers.all_receivers)
        return len(known) == 2 and all([await knows(x.id) for x in known])

    async def knows(receiver_id: ReceiverId) -> bool:
        text = await world.store.read(lambda tx: receivers.heard_by(tx, receiver_id))
        return any(x.amphora_id == amphora.id and x.sequence == amphora.sequence for x in memory.read(text))

    send(world.ear.receiver.port)
    await until(is_remembered, "the receivers tell each other")

    async def is_refused() -> bool:
        return world.refused(ear, REPLAYED) > before

    for ear in (world.ear, second):
        before = world.refused(ear, REPLAYED)
        send(ear.receiver.port)
        await until(is_refused, "a replay is refused")
    await world.stop_second_receiver()
    port = await world.stop_receiver()
    world.start_receiver(port)
    send(port)
    ear, before = world.ear, 0.0
    await until(is_refused, "a replay is refused by the one that comes after it")
