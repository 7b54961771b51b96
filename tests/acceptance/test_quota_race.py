"""Fifty creates at the same time, against a running API that asks for tokens: exactly the limit is made."""

from __future__ import annotations

import http.client
import json
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from tests.acceptance.support import Installation, report

CALLS, LIMIT = 50, 7
ADMIN, TENANT = "admin-token-0123456789", "tenant-token-0123456789"
SUBNET_ID = "10c0bac0-0000-4000-8000-000000000001"
CONFIG = f"""
[drivers]
amphora = "noop"
compute = "noop"
[api]
auth = "token"
[[api.tokens]]
token = "{ADMIN}"
project_id = "ops"
roles = ["admin"]
[[api.tokens]]
token = "{TENANT}"
project_id = "shop"
"""


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    made = Installation(tmp_path / "state", CONFIG)
    made.start()
    yield made
    made.remove()


def ask(port: int, method: str, path: str, body: object, token: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        headers = {"Content-Type": "application/json", "X-Auth-Token": token}
        connection.request(method, f"/v2/lbaas/{path}", json.dumps(body), headers)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def at_once(create: Callable[[int], tuple[int, bytes]]) -> Counter[int]:
    """How often each status was answered."""
    start = Barrier(CALLS)

    def one(number: int) -> int:
        start.wait()
        return create(number)[0]

    with ThreadPoolExecutor(CALLS) as pool:
        return Counter(pool.map(one, range(CALLS)))


def test_fifty_creates_at_once_make_exactly_the_limit(installation: Installation) -> None:
    port = installation.api_port
    limits = {"load_balancer": LIMIT, "member": LIMIT}
    assert ask(port, "PUT", "quotas/shop", {"quota": limits}, ADMIN)[0] == 202

    def create_load_balancer(_: int) -> tuple[int, bytes]:
        asked = {"loadbalancer": {"vip_subnet_id": SUBNET_ID}}
        return ask(port, "POST", "loadbalancers", asked, TENANT)

    answers = at_once(create_load_balancer)
    made = json.loads(ask(port, "GET", "loadbalancers", None, TENANT)[1])["loadbalancers"]
    report(f"{CALLS} creates of load balancers at once, limit {LIMIT}: {len(made)} made, answers {dict(answers)}")
    assert (answers, len(made)) == ({201: LIMIT, 403: CALLS - LIMIT}, LIMIT)

    # Members of seven load balancers: nothing but the quota keeps their creates apart.
    pools = []
    for load_balancer in made:
        asked = {"loadbalancer_id": load_balancer["id"], "protocol": "HTTP", "lb_algorithm": "ROUND_ROBIN"}
        status, body = ask(port, "POST", "pools", {"pool": asked}, TENANT)
        assert status == 201, body
        pools.append(json.loads(body)["pool"]["id"])

    def create_member(number: int) -> tuple[int, bytes]:
        asked = {"member": {"address": f"192.0.2.{number}", "protocol_port": 80}}
        return ask(port, "POST", f"pools/{pools[number % len(pools)]}/members", asked, TENANT)

    answers = at_once(create_member)
    count = sum(
        len(json.loads(ask(port, "GET", f"pools/{pool}/members", None, TENANT)[1])["members"]) for pool in pools
    )
    report(f"{CALLS} creates of members at once, limit {LIMIT}: {count} made, answers {dict(answers)}")
    assert (answers, count) == ({201: LIMIT, 403: CALLS - LIMIT}, LIMIT)
