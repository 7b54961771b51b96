"""What nobody has signed, or somebody else has, or what was said before: refused by the running ear, with our own codec, and it
does not grow by it."""

from __future__ import annotations

import asyncio
import hmac
import random
import socket
import struct
import tracemalloc
import uuid
import zlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from frontinus.health.accounts import NOT_PLAIN, REPLAYED
from frontinus.model.ids import AmphoraId
from frontinus.testing.simulated_amphorae import SimulatedAmphora

from tests.integration.health.calm_world import CalmWorld, Pace, key_of

SIGNATURE = "signature does not match"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[CalmWorld]:
    made = CalmWorld(tmp_path, Pace(0.2))
    await made.start(2)
    yield made
    await made.stop()


def signed(amphora_id: str, key: bytes, boot: int, sequence: int, message: bytes) -> bytes:
    header = struct.pack(">4s16sQQ", b"FRH1", uuid.UUID(amphora_id).bytes, boot, sequence)
    return header + message + hmac.digest(key, header + message, "sha256")


def bombs(amphora: SimulatedAmphora) -> Iterator[bytes]:
    """A megabyte and more of inflated text in a datagram of some kilobytes, signed well."""
    for size in (2**20 + 1, 2**22, 2**25):
        packed = zlib.compress(b" " * size, 9)[:60_000]
        yield signed(amphora.id, key_of(amphora.id), amphora.boot, 2**40, packed)


async def told(world: CalmWorld, datagrams: list[bytes], reason: str) -> None:
    """Send them all, and wait until each has been refused for this reason."""
    expected = world.refused(world.ear, reason) + len(datagrams)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for number, datagram in enumerate(datagrams):
            sender.sendto(datagram, ("127.0.0.1", world.ear.receiver.port))
            if number % 50 == 0:
                await asyncio.sleep(0)
    async with asyncio.timeout(10):
        while world.refused(world.ear, reason) < expected:  # noqa: ASYNC110 - a counter of the ear
            await asyncio.sleep(0.01)


async def test_the_forger_keeps_nobody_alive(world: CalmWorld) -> None:
    """One amphora is dead in its place; whatever is sent in its name, it is replaced, and the other is left alone."""
    dead, other = world.crowd.amphorae
    recorded = [dead.datagram() for _ in range(3)]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for datagram in recorded:
            sender.sendto(datagram, ("127.0.0.1", world.ear.receiver.port))
    world.crowd.silent.add(dead.id)
    world.places[dead.id].kill()
    chance = random.Random(4)
    fresh = dead.datagram()

    def flipped() -> bytes:
        changed = bytearray(fresh)
        # Behind the magic: another one is no envelope.
        changed[chance.randrange(4, len(changed))] ^= 1 << chance.randrange(8)
        return bytes(changed)

    message = zlib.compress(b'{"id": "%s", "listeners": {}}' % dead.id.encode())
    until_replaced = 0
    bombing = list(bombs(dead))
    while not world.replaced():
        until_replaced += 1
        assert until_replaced < 200, "it is kept alive by forgeries"
        await told(world, [signed(dead.id, b"a wrong key", dead.boot, 99, message)], SIGNATURE)
        await told(world, [signed(dead.id, key_of(other.id), dead.boot, 99, message)], SIGNATURE)
        await told(
            world,
            [signed(other.id, key_of(other.id), 2**62, 1, message)],
            "message and envelope name different amphorae",
        )
        await told(world, recorded, REPLAYED)
        await told(world, [flipped() for _ in range(20)], SIGNATURE)
        await told(world, [fresh[:length] for length in range(68, len(fresh), 7)], SIGNATURE)
        await told(world, [fresh[:length] for length in range(4, 68, 9)], "not an envelope")
        await told(world, bombing, "message is cut off or too large")
    assert world.replaced() == {dead.id}


async def test_a_flood_of_forgeries_takes_no_memory(world: CalmWorld) -> None:
    amphora = world.crowd.amphorae[0]
    chance = random.Random(5)

    def round_of(count: int) -> list[bytes]:
        return [signed(str(uuid.UUID(int=chance.getrandbits(128))), b"x", 1, 1, b"y" * 200) for _ in range(count)]

    rounds, bombing = [round_of(1_000) for _ in range(11)], list(bombs(amphora))
    await told(world, rounds.pop(), SIGNATURE)
    await told(world, bombing, "message is cut off or too large")
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        for forged in rounds:
            await told(world, forged, SIGNATURE)
            await told(world, bombing, "message is cut off or too large")
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 700_000, "something is kept of each"
    assert peak - before < 8 * 2**20, "no bomb inflates to more than a message may be"
    assert world.replaced() == frozenset()


async def test_a_plain_heartbeat_is_taken_from_those_only_that_know_no_other(world: CalmWorld) -> None:
    """Whoever has the shared key of Octavia's format cannot speak for an amphora of ours."""
    amphora = world.crowd.amphorae[0]
    world.driver.plain_key = b"shared"
    payload = zlib.compress(b'{"id": "%s", "listeners": {}, "ver": 3}' % amphora.id.encode())
    await told(world, [payload + hmac.digest(b"shared", payload, "sha256").hex().encode()], NOT_PLAIN)


async def test_the_kernel_drops_what_can_be_no_heartbeat(world: CalmWorld) -> None:
    """With a driver that says how its datagrams begin: noise is not even read, and heartbeats are heard."""
    world.driver.prefixes = (b"FRH1", b"FRH2")
    port = await world.stop_receiver()
    world.start_receiver(port)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for noise in (b"", b"FRH", b"FRH3" + b"x" * 200, b"x" * 1_400):
            sender.sendto(noise, ("127.0.0.1", port))
    amphora = world.crowd.amphorae[0]
    await told(world, [signed(amphora.id, b"wrong", 1, 1, b"")], SIGNATURE)
    assert world.refused(world.ear, "not an envelope") == 0
    await world.intervals(10)
    assert AmphoraId(amphora.id) not in await world.suspects()
