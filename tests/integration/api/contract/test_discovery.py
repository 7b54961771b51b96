"""What clients learn before they ask for anything: the versions, the ways to the API, its headers."""

from __future__ import annotations

from typing import Any

from tests.contract import facts
from tests.integration.api.contract.family import TREE, Family
from tests.integration.api.contract.ledger import Ledger
from tests.integration.api.world import World

DISCOVERY = facts.behaviours()["discovery"]


async def test_versions(world: World, ledger: Ledger) -> None:
    for path in ("/", "/load-balancer/", "/v2", "/v2.0"):
        answer = await world.call("GET", path)
        shown: list[Any] = answer.json["versions"]
        ledger.check(f"{path}: ids", [x["id"] for x in DISCOVERY["versions"]], [x["id"] for x in shown])
        ledger.check(f"{path}: dates", [x["updated"] for x in DISCOVERY["versions"]], [x["updated"] for x in shown])
        current = [x["id"] for x in shown if x["status"] == "CURRENT"]
        ledger.check(f"{path}: current", [DISCOVERY["root"]["current"]], current)
        prefix = "/load-balancer" if path.startswith("/load") else ""
        for version in shown:
            href = f"http://lb.example:9876{prefix}/v2"
            links = [{"href": href, "rel": "self"}]
            ledger.check(f"{path}: links of {version['id']}", links, version["links"])
    for path in ("/v2/lbaas", "/v2/octavia"):
        ledger.check(path, "v2", (await world.call("GET", path)).json)
    for path in ("/v1", "/v3", "/v3/lbaas/loadbalancers", "/v2.1"):
        ledger.check(path, DISCOVERY["v1_or_v3"], (await world.call("GET", path)).status)


async def test_headers(world: World, ledger: Ledger) -> None:
    http = facts.behaviours()["http"]["response_headers"]
    for key in TREE:
        family = await Family.born(world)
        for method, path in (("GET", family.path(key)), ("GET", family.item(key)), ("DELETE", f"{family.path(key)}/x")):
            answer = await world.call(method, path, headers={"openstack-api-version": "load-balancer 1.0"})
            ledger.check(f"{method} {key} {path.count('/')}: type", "application/json", answer.headers["content-type"])
            request_id = answer.headers["x-openstack-request-id"]
            ledger.check(f"{method} {key} {path.count('/')}: request id", True, request_id.startswith("req-"))
            for name in http["absent"]:
                if name not in ("ETag", "microversion headers"):  # the first is an addition, the second is no name
                    absent = name.lower() not in answer.headers
                    ledger.check(f"{method} {key} {path.count('/')}: no {name}", True, absent)
        ids = family.ids[key]
        for other in (ids.upper(), ids.replace("-", "")):
            answer = await world.call("GET", family.item(key, other))
            ledger.check(f"{key}: id as {other[:9]}", 404, answer.status)
