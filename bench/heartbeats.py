"""Heartbeats of 10,000 simulated amphorae (2 listeners, 2 pools of 20 members each): how many are verified, decoded and
accounted in a second of one core; and a real receiver on a real database while 1,600 come in each second, with and
without 100,000 datagrams of garbage beside them.

Goals (DESIGN section 10): at least 15,000 a second and core; no loss; database statements that do not grow with the fleet;
no false failover. Usage: python bench/heartbeats.py [SECONDS [AMPHORAE]]"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import socket
import sys
import tempfile
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from multiprocessing.synchronize import Event
from pathlib import Path

from common import print_result
from heard_fleet import LISTENERS, MEMBERS, POOLS, Counting, fill, simulated
from prometheus_client import CollectorRegistry

from frontinus.drivers.amphora.agent.authority import Authority
from frontinus.drivers.amphora.haproxy.driver import HaproxyDriver
from frontinus.drivers.amphora.haproxy.settings import HaproxySettings
from frontinus.health.accounts import Accounts
from frontinus.health.loop import Health
from frontinus.health.metrics import HealthMetrics
from frontinus.health.settings import HealthSettings
from frontinus.store import health
from frontinus.store.engine import Store
from frontinus.testing.simulated_amphorae import Crowd, SimulatedAmphora

from tests.integration.store.world import a_tree, an_amphora, register

PER_SECOND = 1_600
GARBAGE_PER_SECOND = 100_000


def per_core(driver: HaproxyDriver, crowd: list[SimulatedAmphora]) -> dict[str, float]:
    """Datagrams per second of CPU, in one thread; the counters of each change every time. Best and median of five rounds."""
    accounts, rates = Accounts(), []
    accounts.watch([x.id for x in crowd], 0.0)
    now = datetime.now(UTC)
    for number in range(6):
        for amphora in crowd:
            amphora.say(connections=number)
        datagrams = [x.datagram() for x in crowd]
        began = time.process_time()
        for datagram in datagrams:
            if accounts.hear(driver.decode(datagram, now), float(number)) is not None:
                raise AssertionError("a heartbeat was refused")
        if number:  # the first derives every key
            rates.append(len(datagrams) / (time.process_time() - began))
        accounts.take_counters(2 * len(crowd))
        accounts.take_fresh()
        accounts.take_to_weigh(float(number))
    return {"best": round(max(rates)), "median": round(sorted(rates)[len(rates) // 2]), "bytes": len(datagrams[0])}


def send(crowd: list[SimulatedAmphora], port: int, seconds: float, ready: Event, counted: object) -> None:
    """A process of its own: heartbeats at PER_SECOND."""

    async def run() -> None:
        sender = Crowd(crowd, ("127.0.0.1", port), interval=len(crowd) / PER_SECOND)
        ready.wait()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await sender.run()
        counted.value = sender.sent  # type: ignore[attr-defined]

    asyncio.run(run())


def disturb(port: int, seconds: float, ready: Event, counted: object, *, datagrams: list[bytes]) -> None:
    """A process of its own: garbage at GARBAGE_PER_SECOND, or as fast as it can."""
    ready.wait()
    sent, began = 0, time.monotonic()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.connect(("127.0.0.1", port))
        while (passed := time.monotonic() - began) < seconds:
            for _ in range(int(passed * GARBAGE_PER_SECOND) - sent):
                with suppress(OSError):
                    sender.send(datagrams[sent % len(datagrams)])
                sent += 1
            time.sleep(0.001)
    counted.value = sent  # type: ignore[attr-defined]


async def receive(
    store: Store, driver: HaproxyDriver, fleet: list[SimulatedAmphora], seconds: float, disturbance: str | None
) -> dict[str, object]:
    count = len(fleet)
    registry, counting = CollectorRegistry(), Counting(store)
    interval = count / PER_SECOND
    settings = HealthSettings(bind_port=0, silence_deadline=timedelta(seconds=max(3.0, 3 * interval)))
    ear = Health(counting, driver, settings, lambda: datetime.now(UTC), HealthMetrics(registry))  # type: ignore[arg-type]
    listening = asyncio.create_task(ear.run())
    await asyncio.sleep(2)
    context = multiprocessing.get_context("fork")
    ready, sent, garbage = context.Event(), context.Value("q", 0), context.Value("q", 0)
    port = ear.receiver.port
    helpers = [context.Process(target=send, args=(fleet, port, seconds, ready, sent))]
    if disturbance is not None:
        chance, prefix = random.Random(7), b"FRH1" if disturbance == "forged" else b""
        datagrams = [prefix + chance.randbytes(300) for _ in range(5_000)]
        disturbing = partial(disturb, port, seconds, ready, garbage, datagrams=datagrams)
        helpers.append(context.Process(target=disturbing))
    for helper in helpers:
        helper.start()
    before, statements, transactions = time.process_time(), counting.statements, counting.transactions
    began = time.monotonic()
    ready.set()
    suspected = 0
    while any(x.is_alive() for x in helpers):
        await asyncio.sleep(0.5)
        members = await store.read(health.fleet)
        suspected = max(suspected, sum(x.suspected_at is not None for x in members))
    passed = time.monotonic() - began
    await asyncio.sleep(1)
    used = time.process_time() - before
    accepted = registry.get_sample_value("frontinus_health_datagrams_accepted_total") or 0.0
    refused = sum(
        sample.value
        for metric in registry.collect()
        for sample in metric.samples
        if sample.name == "frontinus_health_datagrams_refused_total"
    )
    listening.cancel()
    with suppress(asyncio.CancelledError):
        await listening
    for amphora in fleet:
        amphora.sequence += 1_000_000  # the sender's process had counted on
    return {
        "amphorae": count,
        "sent": sent.value,
        "sent_per_second": round(sent.value / seconds),
        "lost": sent.value - int(accepted),
        "garbage_sent_per_second": round(garbage.value / seconds),
        "garbage_refused_per_second": round(refused / seconds),
        "suspected_at_most": suspected,
        "receiver_cpu_share": round(used / passed, 2),
        "statements_per_second": round((counting.statements - statements) / passed, 1),
        "transactions_per_second": round((counting.transactions - transactions) / passed, 1),
    }


async def main(seconds: float, count: int) -> None:
    with tempfile.TemporaryDirectory(prefix="frontinus-bench-") as directory:
        state_dir = Path(directory)
        driver = HaproxyDriver(HaproxySettings(state_dir=state_dir))
        authority = Authority.open(state_dir / "authority")
        many = [a_tree(listeners=LISTENERS, pools=POOLS, members=MEMBERS * POOLS) for _ in range(count)]
        crowd = [simulated(an_amphora(tree).id, tree, authority) for tree in many]
        figures: dict[str, object] = {"accounted_per_second_and_core": per_core(driver, crowd)}
        del many, crowd
        for size, disturbances in ((count // 10, (None,)), (count, (None, "noise", "forged"))):
            store = Store.open(f"sqlite:///{state_dir / f'fleet-{size}.sqlite'}")
            store.upgrade()
            await register(store)
            fleet = [simulated(amphora_id, tree, authority) for amphora_id, tree in await fill(store, size)]
            for disturbance in disturbances:
                name = f"{size}_amphorae" + (f"_beside_{disturbance}" if disturbance else "")
                figures[name] = await receive(store, driver, fleet, seconds, disturbance)
                print(name, figures[name], file=sys.stderr)
            await store.close()
    print_result("heartbeats", goal_per_second_and_core=15_000, cores=os.cpu_count(), **figures)


if __name__ == "__main__":
    asyncio.run(main(float((sys.argv[1:] or ["20"])[0]), int((sys.argv[2:] or ["10000"])[0])))
