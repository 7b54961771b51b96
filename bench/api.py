"""CPU per request of the API process (uvicorn and the API; with SQLite the database too, which is in it) and latency as
one client sees it, one request at a time, on each engine. Without controller and health receiver.

Goals (DESIGN section 10): a tenth (whole tree and batch: a twentieth) of what Octavia 19 takes on MariaDB.
Usage: python bench/api.py [REQUESTS [ENGINE...]]"""

from __future__ import annotations

import asyncio
import multiprocessing
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import uvicorn
import uvloop
from common import cpu_seconds, print_result

from frontinus.api.app import create_app
from frontinus.api.settings import ApiSettings
from frontinus.store.engine import Store
from frontinus.testing.fake_network import FAKE_SUBNET_V6, FakeNetwork

from tests.integration.api.world import EVERYTHING, World
from tests.servers import SERVERS, serving

SUBNET_ID = str(FAKE_SUBNET_V6.id)  # large enough for every load balancer of a run
GOALS_MS = {
    "create": 4.0,
    "whole_tree": 12.2,
    "show": 1.7,
    "list_of_100": 10.7,
    "status_tree": None,  # never measured with Octavia
    "member_update": 4.3,
    "batch_of_100": 14.5,
}
POOL = {"protocol": "HTTP", "lb_algorithm": "ROUND_ROBIN"}


def serve(database: str, listening: socket.socket) -> None:
    """The measured process."""

    async def run() -> None:
        world = await World.open(database, EVERYTHING)
        app = create_app(world.store, FakeNetwork(), ApiSettings(), lambda: datetime.now(UTC))
        config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off")
        await uvicorn.Server(config).serve(sockets=[listening])

    uvloop.run(run())


def members(network: int, count: int) -> list[dict[str, Any]]:
    return [{"address": f"10.{network}.0.{n + 1}", "protocol_port": 80} for n in range(count)]


def whole_tree(_: int) -> dict[str, Any]:
    """Two listeners, two pools, two health monitors, twenty members."""
    monitor = {"type": "HTTP", "delay": 3, "timeout": 2, "max_retries": 3}
    pools = [{**POOL, "name": f"p{n}", "healthmonitor": monitor, "members": members(n, 10)} for n in range(2)]
    listeners = [{"protocol": "HTTP", "protocol_port": 80 + n, "default_pool": {"name": f"p{n}"}} for n in range(2)]
    return {"loadbalancer": {"vip_subnet_id": SUBNET_ID, "listeners": listeners, "pools": pools}}


class Client:
    def __init__(self, session: aiohttp.ClientSession, base: str, pid: int, requests: int) -> None:
        self._session = session
        self._base = base
        self._pid = pid
        self._requests = requests

    async def ask(self, method: str, path: str, body: object = None) -> Any:
        async with self._session.request(method, f"{self._base}/v2.0/lbaas/{path}", json=body) as answer:
            text = await answer.text()
            if answer.status >= 300:
                raise RuntimeError(f"{method} {path}: {answer.status} {text}")
            return await answer.json() if text else None

    async def cost(self, method: str, path: str, body: Callable[[int], object] | None = None) -> dict[str, float]:
        """Milliseconds of the server's CPU per request, and of waiting, on a kept connection."""
        for number in range(10):
            await self.ask(method, path, None if body is None else body(number))
        before = cpu_seconds(self._pid)
        waits: list[float] = []
        for number in range(self._requests):
            began = time.perf_counter()
            await self.ask(method, path, None if body is None else body(number))
            waits.append((time.perf_counter() - began) * 1000)
        used = (cpu_seconds(self._pid) - before) / self._requests * 1000
        waits.sort()
        return {
            "cpu_ms": round(used, 2),
            "median_ms": round(statistics.median(waits), 2),
            "p99_ms": round(waits[int(len(waits) * 0.99)], 2),
        }


async def measure(client: Client) -> dict[str, dict[str, float]]:
    simple = {"loadbalancer": {"vip_subnet_id": SUBNET_ID, "name": "x"}}
    costs = {"create": await client.cost("POST", "loadbalancers", lambda _: simple)}
    costs["whole_tree"] = await client.cost("POST", "loadbalancers", whole_tree)
    made = (await client.ask("POST", "loadbalancers", whole_tree(0)))["loadbalancer"]
    pool = made["pools"][0]
    member = f"pools/{pool['id']}/members/{pool['members'][0]['id']}"
    costs["show"] = await client.cost("GET", f"loadbalancers/{made['id']}")
    costs["list_of_100"] = await client.cost("GET", "loadbalancers?limit=100")
    costs["status_tree"] = await client.cost("GET", f"loadbalancers/{made['id']}/status")
    costs["member_update"] = await client.cost("PUT", member, lambda n: {"member": {"weight": n % 250}})
    empty = {"pool": {**POOL, "loadbalancer_id": made["id"]}}
    large = (await client.ask("POST", "pools", empty))["pool"]["id"]

    def batch(number: int) -> object:
        return {"members": [{**x, "weight": number % 250} for x in members(9, 100)]}

    costs["batch_of_100"] = await client.cost("PUT", f"pools/{large}/members", batch)
    return costs


@contextmanager
def database_of(engine: str) -> Iterator[str]:
    """The URL of an empty, migrated database."""
    if engine == "sqlite":
        with tempfile.TemporaryDirectory(prefix="frontinus-bench-") as directory:
            yield migrated(f"sqlite:///{Path(directory) / 'frontinus.sqlite'}")
    else:
        with serving(engine) as server:
            yield migrated(server.make_database("frontinus"))


def migrated(url: str) -> str:
    Store.open(url).upgrade()
    return url


async def on(engine: str, requests: int) -> dict[str, dict[str, float]]:
    listening = socket.create_server(("127.0.0.1", 0))
    base = f"http://127.0.0.1:{listening.getsockname()[1]}"
    with database_of(engine) as database:
        server = multiprocessing.get_context("spawn").Process(target=serve, args=(database, listening), daemon=True)
        server.start()
        try:
            async with aiohttp.ClientSession() as session:
                client = Client(session, base, server.pid or 0, requests)
                await until_it_answers(session, base)
                return await measure(client)
        finally:
            server.terminate()
            server.join()
            listening.close()


async def until_it_answers(session: aiohttp.ClientSession, base: str) -> None:
    async with session.get(f"{base}/healthcheck") as answer:  # the socket listens already; this waits for the process
        if answer.status != 204:
            raise RuntimeError(f"the API is not well: {answer.status}")


def main(requests: int, engines: list[str]) -> None:
    figures = {engine: asyncio.run(on(engine, requests)) for engine in engines}
    rows = {
        operation: {"goal_cpu_ms": goal, **{engine: figures[engine][operation] for engine in engines}}
        for operation, goal in GOALS_MS.items()
    }
    print_result("api", unit="ms per request", requests=requests, **rows)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 300, sys.argv[2:] or ["sqlite", *SERVERS])
