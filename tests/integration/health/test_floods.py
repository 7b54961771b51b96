"""More datagrams than anybody can take: what a receiver knows of it, and whom it listens to meanwhile."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from frontinus.drivers.amphora.agent.authority import Authority
from frontinus.drivers.amphora.agent.heartbeat_keys import HeartbeatKeys
from frontinus.drivers.amphora.interface import Refused
from frontinus.health.accounts import UNKNOWN_IN_A_CROWD
from frontinus.health.receiver import Receiver
from frontinus.health.settings import HealthSettings
from frontinus.model.ids import AmphoraId, new_id
from frontinus.testing.simulated_amphorae import SimulatedAmphora

from tests.integration.health.calm_world import CalmWorld, Pace, key_of

PREFIX = b"FRH1"


async def drained(taken: list[int], count: int) -> None:
    async with asyncio.timeout(10):
        while len(taken) < count:  # noqa: ASYNC110 - what the kernel hands over
            await asyncio.sleep(0.01)


async def test_a_receiver_knows_when_the_kernel_had_no_room() -> None:
    taken: list[int] = []
    settings = HealthSettings(bind_port=0, receive_buffer=8192, batch=4)
    receiver = Receiver(settings, lambda x: taken.append(len(x)), (PREFIX,))
    seen = [receiver.has_overflowed()]
    with closing(receiver), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.connect(("127.0.0.1", receiver.port))
        for _ in range(200):
            sender.send(PREFIX + bytes(500))
        receiver.start()
        await drained(taken, 5)
        seen += [receiver.has_overflowed()]
        async with asyncio.timeout(10):
            while receiver.is_crowded:  # noqa: ASYNC110 - until nothing waits
                await asyncio.sleep(0.01)
        receiver.has_overflowed()
        for _ in range(200):  # the kernel drops these, and counts them as it does what it had no room for
            sender.send(bytes(500))
        before = len(taken)
        sender.send(PREFIX + b"the end")
        await drained(taken, before + 1)
        seen += [receiver.has_overflowed()]
    assert seen == [False, True, False]
    assert len(taken) < 201


async def test_in_a_crowd_only_the_fleet_is_listened_to(tmp_path: Path) -> None:
    world = CalmWorld(tmp_path, Pace(0.2))
    await world.start(1)
    (known,) = world.crowd.amphorae
    stranger = SimulatedAmphora(AmphoraId(new_id()), key_of("somebody"))
    accepted = world.accepted(world.ear)
    async with asyncio.timeout(10):
        while world.accepted(world.ear) == accepted:  # noqa: ASYNC110 - a counter of the ear
            await asyncio.sleep(0.01)
    world.ear.receiver.is_crowded = True
    world.ear.take(memoryview(stranger.datagram()))
    assert world.refused(world.ear, UNKNOWN_IN_A_CROWD) == 1
    before = world.accepted(world.ear)
    world.ear.take(memoryview(known.datagram()))
    assert world.accepted(world.ear) == before + 1
    world.ear.receiver.is_crowded = False
    world.ear.take(memoryview(stranger.datagram()))
    assert world.refused(world.ear, UNKNOWN_IN_A_CROWD) == 1
    assert world.refused(world.ear, "signature does not match") == 1
    await world.stop()


def test_names_that_nobody_has_fill_no_memory_and_displace_no_key(tmp_path: Path) -> None:
    authority = Authority.open(tmp_path)
    keys, now = HeartbeatKeys(authority), datetime.now(UTC)
    name = AmphoraId(new_id())
    honest = SimulatedAmphora(name, authority.heartbeat_key(name).encode())
    assert keys.decode(honest.datagram(), now).amphora_id == honest.id
    for number in range(500):
        with pytest.raises(Refused, match="signature"):
            keys.decode(struct.pack(">4sQQQQ", PREFIX, number, number, 1, 1) + bytes(60), now)
    assert list(keys._good) == [honest.id]
