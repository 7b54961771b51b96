"""A fleet of simulated amphorae that beat each second, a real receiver and a real controller in one process (as in `frontinus
up`), and 100,000 datagrams of garbage a second beside them, for ten times as long as an amphora may be silent. Of each kind of
garbage: how many heartbeats were lost, and how many amphorae were suspected, started again or replaced (goal: none).

    noise     random bytes
    unknown   envelopes in names that nobody has (what random bytes behind our prefix are)
    known     envelopes in the names of the fleet, signed with nothing

Usage: python bench/heartbeats_beside.py [SECONDS [AMPHORAE [KIND...]]]"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import struct
import sys
import tempfile
import time
import uuid
from contextlib import suppress
from datetime import datetime
from functools import partial
from multiprocessing.synchronize import Event
from pathlib import Path

import structlog
from common import print_result
from heartbeats import GARBAGE_PER_SECOND, disturb
from msgspec.structs import replace

from frontinus.drivers.amphora.agent.authority import Authority
from frontinus.drivers.amphora.agent.heartbeat import MAGIC, PART_MAGIC
from frontinus.drivers.amphora.agent.heartbeat_keys import HeartbeatKeys
from frontinus.model.heartbeat import Heartbeat
from frontinus.model.ids import AmphoraId
from frontinus.testing.fake_compute import FakePlace
from frontinus.testing.fake_network import FAKE_SUBNET
from frontinus.testing.simulated_amphorae import Crowd, SimulatedAmphora

from tests.integration.health.calm_world import CalmWorld, HeardDriver, Pace

INTERVAL_S = 1.0
DIFFERENT = 5_000
KINDS = ("nothing", "noise", "unknown", "known")


class OwnCodec(HeardDriver):
    """The fake driver with the keys of a real one."""

    def __init__(self, places: dict[AmphoraId, FakePlace], authority: Authority) -> None:
        super().__init__(places)
        self.prefixes = (MAGIC, PART_MAGIC)
        self._keys = HeartbeatKeys(authority)

    def decode(self, datagram: bytes, now: datetime) -> Heartbeat:
        return self._keys.decode(datagram, now)


def garbage(kind: str, fleet: list[AmphoraId]) -> list[bytes]:
    chance = random.Random(7)
    if kind == "noise":
        return [b"\0" + chance.randbytes(300) for _ in range(DIFFERENT)]
    if kind == "unknown":
        return [MAGIC + chance.randbytes(300) for _ in range(DIFFERENT)]
    boot = time.time_ns()
    return [
        struct.pack(">4s16sQQ", MAGIC, uuid.UUID(fleet[x % len(fleet)]).bytes, boot, 2**40 + x) + chance.randbytes(264)
        for x in range(DIFFERENT)
    ]


def send(crowd: list[SimulatedAmphora], port: int, seconds: float, counted: object) -> None:
    """A process of its own."""

    async def run() -> None:
        sender = Crowd(crowd, ("127.0.0.1", port), interval=INTERVAL_S)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await sender.run()
        counted.value = sender.sent  # type: ignore[attr-defined]

    asyncio.run(run())


async def beside(kind: str | None, seconds: float, count: int) -> dict[str, object]:
    with tempfile.TemporaryDirectory(prefix="frontinus-bench-") as name:
        directory = Path(name)
        authority = Authority.open(directory / "authority")
        world = CalmWorld(directory, Pace(INTERVAL_S))
        world.driver = OwnCodec(world.places, authority)
        world.network.subnets = (replace(FAKE_SUBNET, cidr="10.64.0.0/16"),)
        await world.start(count, sends=False)
        fleet = sorted(world.at_first)
        crowd = [SimulatedAmphora(x, authority.heartbeat_key(x).encode()) for x in fleet]
        port = world.ear.receiver.port
        context = multiprocessing.get_context("fork")
        ready: Event = context.Event()
        ready.set()
        sent, thrown = context.Value("q", 0), context.Value("q", 0)
        # The fleet is heard before the garbage begins, and after it has ended.
        sender = context.Process(target=send, args=(crowd, port, seconds + 6, sent))
        helpers = [sender]
        sender.start()
        await asyncio.sleep(3)
        if kind is not None:
            helpers.append(
                context.Process(target=partial(disturb, port, seconds, ready, thrown, datagrams=garbage(kind, fleet)))
            )
            helpers[1].start()
        began, used = time.monotonic(), time.process_time()
        suspected, braked = set[AmphoraId](), False
        while time.monotonic() - began < seconds:
            await asyncio.sleep(0.25)
            suspected |= await world.suspects()
            braked = braked or await world.is_braked()
        used = (time.process_time() - used) / (time.monotonic() - began)
        for helper in helpers:
            await asyncio.to_thread(helper.join)
        await asyncio.sleep(1)
        accepted = world.accepted(world.ear)
        result = {
            "sent": sent.value,
            "lost": sent.value - int(accepted),
            "garbage_per_second": round(thrown.value / seconds),
            "suspected": len(suspected),
            "braked": braked,
            "started_again": len(world.started_again()),
            "replaced": len(world.replaced()),
            "cpu_share": round(used, 2),
        }
        await world.stop()
        return result


async def main(seconds: float, count: int, kinds: list[str]) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    figures = {}
    for kind in kinds:
        figures[kind] = await beside(None if kind == "nothing" else kind, seconds, count)
        print(kind, figures[kind], file=sys.stderr)
    print_result(
        "heartbeats_beside", amphorae=count, goal_per_second=GARBAGE_PER_SECOND, cores=os.cpu_count(), **figures
    )


if __name__ == "__main__":
    given = sys.argv[1:]
    seconds, count = float(given[0]) if given else 30.0, int(given[1]) if len(given) > 1 else 1600
    asyncio.run(main(seconds, count, given[2:] or list(KINDS)))
