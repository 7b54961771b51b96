"""Database statements a second of one health receiver in its steady state, for a fleet and for one of ten times its size:
each amphora beats every 6.25 s (10,000 of them: 1,600 a second), and each of its listeners has carried something since.

What a statement is: heard_fleet.py. The fleet is known, and weighed once, before counting begins; then a minute is counted.
Goal (DESIGN section 10): statements do not grow with the fleet. Usage:
python bench/heartbeat_statements.py [sqlite|postgresql|mariadb [SECONDS [AMPHORAE...]]]"""

from __future__ import annotations

import asyncio
import multiprocessing
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from multiprocessing.synchronize import Event
from pathlib import Path

from common import print_result
from heard_fleet import Counting, fill, simulated
from prometheus_client import CollectorRegistry

from frontinus.drivers.amphora.agent.authority import Authority
from frontinus.drivers.amphora.haproxy.driver import HaproxyDriver
from frontinus.drivers.amphora.haproxy.settings import HaproxySettings
from frontinus.health.loop import Health
from frontinus.health.metrics import HealthMetrics
from frontinus.health.settings import HealthSettings
from frontinus.store import health
from frontinus.store.engine import Store
from frontinus.testing.simulated_amphorae import Crowd, SimulatedAmphora

from tests.integration.store.world import register
from tests.servers import serving

INTERVAL_S = 6.25
SETTLING_S = 90.0
"""The whole fleet is heard fourteen times, and weighed: PostgreSQL takes more than half a minute to weigh 10,000."""


class Working(Crowd):
    """Each carries some more connections with each beat."""

    def _send(self, sender, amphora: SimulatedAmphora) -> None:  # type: ignore[no-untyped-def]
        amphora.say(connections=amphora.sequence)
        super()._send(sender, amphora)


def send(crowd: list[SimulatedAmphora], port: int, stop: Event) -> None:
    """A process of its own."""

    async def run() -> None:
        sending = asyncio.create_task(Working(crowd, ("127.0.0.1", port), interval=INTERVAL_S).run())
        await asyncio.to_thread(stop.wait)
        sending.cancel()

    asyncio.run(run())


async def count(
    store: Store, driver: HaproxyDriver, fleet: list[SimulatedAmphora], seconds: float
) -> dict[str, object]:
    registry, counting = CollectorRegistry(), Counting(store)
    ear = Health(
        counting,  # type: ignore[arg-type]
        driver,
        HealthSettings(bind_port=0, silence_deadline=timedelta(seconds=3 * INTERVAL_S)),
        lambda: datetime.now(UTC),
        HealthMetrics(registry),
    )
    listening = asyncio.create_task(ear.run())
    await asyncio.sleep(2)
    context = multiprocessing.get_context("fork")
    stop = context.Event()
    sender = context.Process(target=send, args=(fleet, ear.receiver.port, stop))
    sender.start()
    try:
        await asyncio.sleep(SETTLING_S)
        counting.texts.clear()
        heard = registry.get_sample_value("frontinus_health_datagrams_accepted_total") or 0.0
        statements, transactions = counting.statements, counting.transactions
        began, used = time.monotonic(), time.process_time()
        await asyncio.sleep(seconds)
        passed, used = time.monotonic() - began, time.process_time() - used
        figures = {
            "statements_per_second": round((counting.statements - statements) / passed, 1),
            "transactions_per_second": round((counting.transactions - transactions) / passed, 1),
            "heard_per_second": round(
                ((registry.get_sample_value("frontinus_health_datagrams_accepted_total") or 0.0) - heard) / passed
            ),
            "receiver_cpu_share": round(used / passed, 2),
            "of_them": {x: round(y / passed, 1) for x, y in counting.texts.most_common(12)},
        }
        members = await store.read(health.fleet)
        figures["suspected"] = sum(x.suspected_at is not None for x in members)
    finally:
        stop.set()
        sender.join(10)
        listening.cancel()
        with suppress(asyncio.CancelledError):
            await listening
    return figures


async def main(engine: str, seconds: float, sizes: list[int]) -> None:
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="frontinus-bench-")))
        server = None if engine == "sqlite" else stack.enter_context(serving(engine))
        driver = HaproxyDriver(HaproxySettings(state_dir=directory))
        authority = Authority.open(directory / "authority")
        figures: dict[str, object] = {}
        for size in sizes:
            url = f"sqlite:///{directory}/{size}.sqlite" if server is None else server.make_database(f"fleet_{size}")
            store = Store.open(url)
            await asyncio.to_thread(store.upgrade)
            await register(store)
            fleet = [simulated(amphora_id, tree, authority) for amphora_id, tree in await fill(store, size)]
            figures[str(size)] = await count(store, driver, fleet, seconds)
            print(engine, size, figures[str(size)], file=sys.stderr)
            await store.close()
    print_result("heartbeat_statements", engine=engine, interval_s=INTERVAL_S, amphorae=figures)


if __name__ == "__main__":
    given = sys.argv[1:]
    minute = float(given[1]) if len(given) > 1 else 60.0
    asyncio.run(main(given[0] if given else "sqlite", minute, [int(x) for x in given[2:]] or [1_000, 10_000]))
