"""CPU per request of the API process: uvicorn, the API and SQLite, without controller and health receiver.

Goals (DESIGN section 10), a tenth (whole tree and batch: a twentieth) of what Octavia 19 takes: show 1.7 ms, list of 100
10.7 ms, create 4 ms, whole tree 12.2 ms, member update 4.3 ms, batch of 100 14.5 ms. Usage: python bench/api_cost.py [REQUESTS]"""

from __future__ import annotations

import asyncio
import multiprocessing
import socket
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import uvicorn
from common import cpu_seconds, print_result

from frontinus.api.app import create_app
from frontinus.api.settings import ApiSettings
from frontinus.store.engine import Store
from frontinus.testing.fake_network import FAKE_SUBNET_V6, FakeNetwork

from tests.integration.api.world import EVERYTHING, World

SUBNET_ID = str(FAKE_SUBNET_V6.id)  # large enough for every load balancer of a run
POOL = {"protocol": "HTTP", "lb_algorithm": "ROUND_ROBIN"}


def serve(database: str, listening: socket.socket) -> None:
    """The measured process."""

    async def run() -> None:
        world = await World.open(Path(database), EVERYTHING)
        app = create_app(world.store, FakeNetwork(), ApiSettings(), lambda: datetime.now(UTC))
        config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off")
        await uvicorn.Server(config).serve(sockets=[listening])

    asyncio.run(run())


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

    async def cost(self, method: str, path: str, body: Callable[[int], object] | None = None) -> float:
        """Milliseconds of the server's CPU per request, on a kept connection."""
        for number in range(5):
            await self.ask(method, path, None if body is None else body(number))
        before = cpu_seconds(self._pid)
        for number in range(self._requests):
            await self.ask(method, path, None if body is None else body(number))
        return float(round((cpu_seconds(self._pid) - before) / self._requests * 1000, 2))


async def measure(client: Client) -> dict[str, float]:
    simple = {"loadbalancer": {"vip_subnet_id": SUBNET_ID, "name": "x"}}
    costs = {"create": await client.cost("POST", "loadbalancers", lambda _: simple)}
    costs["whole_tree"] = await client.cost("POST", "loadbalancers", whole_tree)
    made = (await client.ask("POST", "loadbalancers", whole_tree(0)))["loadbalancer"]
    pool = made["pools"][0]
    member = f"pools/{pool['id']}/members/{pool['members'][0]['id']}"
    costs["show"] = await client.cost("GET", f"loadbalancers/{made['id']}")
    costs["list_of_100"] = await client.cost("GET", "loadbalancers?limit=100")
    costs["member_update"] = await client.cost("PUT", member, lambda n: {"member": {"weight": n % 250}})
    empty = {"pool": {**POOL, "loadbalancer_id": made["id"]}}
    large = (await client.ask("POST", "pools", empty))["pool"]["id"]

    def batch(number: int) -> object:
        return {"members": [{**x, "weight": number % 250} for x in members(9, 100)]}

    costs["batch_of_100"] = await client.cost("PUT", f"pools/{large}/members", batch)
    return costs


async def main(requests: int) -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    base = f"http://127.0.0.1:{listening.getsockname()[1]}"
    with tempfile.TemporaryDirectory(prefix="frontinus-bench-") as directory:
        database = str(Path(directory) / "frontinus.sqlite")
        store = Store.open(f"sqlite:///{database}")
        store.upgrade()
        await store.close()
        server = multiprocessing.Process(target=serve, args=(database, listening), daemon=True)
        server.start()
        try:
            async with aiohttp.ClientSession() as session:
                client = Client(session, base, server.pid or 0, requests)
                await until_it_answers(session, base)
                print_result("api_cost", unit="ms CPU per request", requests=requests, **await measure(client))
        finally:
            server.terminate()
            server.join()


async def until_it_answers(session: aiohttp.ClientSession, base: str) -> None:
    async with session.get(f"{base}/healthcheck") as answer:  # the socket listens already; this waits for the process
        if answer.status != 204:
            raise RuntimeError(f"the API is not well: {answer.status}")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 300))
