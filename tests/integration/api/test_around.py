"""What stands around the resources: versions, providers, health, metrics, documents, look-ups of unmodified clients."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
import uvicorn

from frontinus.api.fields import RESOURCES
from frontinus.api.operations import resource_operations
from frontinus.api.settings import ApiSettings
from frontinus.testing.fake_network import FAKE_SUBNET, FAKE_SUBNET_V6

from tests.contract import facts
from tests.integration.api.world import EVERYTHING, SUBNET_ID, UNKNOWN, World


@pytest.mark.parametrize("path", ["/", "/v2", "/v2.0", "/v2/", "/load-balancer/", "/load-balancer/v2"])
async def test_versions_are_found_at_every_door(world: World, path: str) -> None:
    versions = (await world.call("GET", path)).json["versions"]
    known = facts.behaviours()["discovery"]["versions"]
    assert [(x["id"], x["updated"]) for x in versions] == [(x["id"], x["updated"]) for x in known]
    assert [x["id"] for x in versions if x["status"] == "CURRENT"] == [
        facts.behaviours()["discovery"]["root"]["current"]
    ]
    prefix = "/load-balancer" if path.startswith("/load-balancer") else ""
    assert {x["links"][0]["href"] for x in versions} == {f"http://lb.example:9876{prefix}/v2"}


async def test_operator_says_what_links_start_with(database_url: str) -> None:
    world = await World.open(database_url, EVERYTHING, ApiSettings(api_base_uri="https://cloud.example/lb/"))
    await world.load_balancer()
    versions = (await world.call("GET", "/")).json["versions"]
    assert versions[0]["links"][0]["href"] == "https://cloud.example/lb/v2"
    (link,) = (await world.call("GET", "loadbalancers?limit=1")).json["loadbalancers_links"]
    assert link["href"].startswith("https://cloud.example/lb/v2/lbaas/loadbalancers?")
    await world.close()


async def test_providers(world: World) -> None:
    providers = (await world.call("GET", "providers")).json
    assert set(providers) == {"providers"}
    assert [set(x) for x in providers["providers"]] == [{"name", "description"}] * 2
    names = (await world.call("GET", "providers?fields=name")).json["providers"]
    assert names == [{"name": "amphora"}, {"name": "octavia"}]


async def test_health(world: World) -> None:
    assert (await world.call("GET", "/healthcheck")).status == 204
    assert (await world.call("HEAD", "/healthcheck")).status == 204
    told = await world.call("GET", "/healthcheck", headers={"Accept": "application/json"})
    assert (told.status, told.json) == (200, {"detailed": False, "reasons": []})
    assert (await world.call("POST", "/healthcheck", {})).status == 405


async def test_metrics_count_requests(world: World) -> None:
    await world.load_balancer()
    await world.call("GET", f"loadbalancers/{UNKNOWN}")
    answer = await world.call("GET", "/metrics", headers={"Accept": "text/plain"})
    assert answer.headers["content-type"].startswith("text/plain")
    lines = answer.body.decode().splitlines()
    assert 'frontinus_api_requests_total{operation="loadbalancer.create",status="201"} 1.0' in lines
    assert 'frontinus_api_requests_total{operation="loadbalancer.show",status="404"} 1.0' in lines


async def test_document_describes_every_operation_and_attribute(world: World) -> None:
    document = (await world.call("GET", "/docs/openapi.json")).json
    described = {x["operationId"] for methods in document["paths"].values() for x in methods.values()}
    assert described == {x.id for x in resource_operations()}
    for key, resource in RESOURCES.items():
        shown = document["components"]["schemas"][key]["properties"]
        assert set(shown) == {x.wire for x in resource.fields if x.read is not None}
    text = json.dumps(document)
    for reference in set(_references(document)):
        assert reference.rpartition("/")[2] in document["components"]["schemas"], reference
    assert "<property" not in text


def _references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [x for child in value.values() for x in _references(child)]
    return [x for child in value for x in _references(child)] if isinstance(value, list) else []


async def test_page_for_people_needs_nothing_from_elsewhere(world: World) -> None:
    answer = await world.call("GET", "/docs", headers={"Accept": "text/html"})
    page = answer.body.decode()
    assert answer.headers["content-type"].startswith("text/html")
    assert "http://" not in page
    assert "https://" not in page
    for resource in RESOURCES.values():
        assert all(f"<code>{x.wire}</code>" in page for x in resource.fields)


@pytest.mark.parametrize(
    "query, found",
    [
        ("", {FAKE_SUBNET.id, FAKE_SUBNET_V6.id}),
        (f"?id={FAKE_SUBNET.id}", {FAKE_SUBNET.id}),
        ("?name=fake", {FAKE_SUBNET.id}),
        ("?name=fak", set()),
        (f"?id={UNKNOWN}", set()),
        ("?name=fake&limit=5", {FAKE_SUBNET.id}),
    ],
)
@pytest.mark.parametrize("version", ["v2", "v2.0"])
async def test_clients_find_subnets_exactly(world: World, version: str, query: str, found: set[str]) -> None:
    answer = await world.call("GET", f"/{version}/subnets{query}")
    assert {x["id"] for x in answer.json["subnets"]} == found


async def test_other_look_ups_of_clients(world: World) -> None:
    subnet = (await world.call("GET", f"/v2/subnets/{SUBNET_ID}")).json["subnet"]
    assert (subnet["cidr"], subnet["ip_version"]) == ("198.51.100.0/24", 4)
    assert (await world.call("GET", "/v2/subnets/fake")).status == 404
    networks = (await world.call("GET", f"/v2/networks?id={FAKE_SUBNET.network_id}")).json["networks"]
    assert [x["subnets"] for x in networks] == [[FAKE_SUBNET.id, FAKE_SUBNET_V6.id]]
    for path, key in (("ports", "ports"), ("security-groups", "security_groups"), ("qos/policies", "policies")):
        assert (await world.call("GET", f"/v2/{path}?name=x")).json == {key: []}
    assert (await world.call("GET", "/projects/mine")).json["project"]["id"] == "mine"
    assert (await world.call("POST", "/v2/subnets", {})).status == 405


async def test_clients_find_the_port_of_a_vip_by_its_id(world: World) -> None:
    """`openstack loadbalancer list --vip-port-id` asks for it first."""
    made = await world.make("loadbalancer", vip_subnet_id=SUBNET_ID)
    await world.load_balancer()
    (port,) = (await world.call("GET", f"/v2.0/ports?id={made['vip_port_id']}")).json["ports"]
    assert (port["id"], port["network_id"]) == (made["vip_port_id"], made["vip_network_id"])
    assert port["fixed_ips"] == [{"subnet_id": SUBNET_ID, "ip_address": made["vip_address"]}]
    listed = (await world.call("GET", f"loadbalancers?vip_port_id={port['id']}")).json["loadbalancers"]
    assert [x["id"] for x in listed] == [made["id"]]
    for query in (f"?id={UNKNOWN}", "", "?name=web"):
        assert (await world.call("GET", f"/v2.0/ports{query}")).json == {"ports": []}


async def test_look_ups_are_off_where_a_network_service_answers(database_url: str) -> None:
    world = await World.open(database_url, EVERYTHING, ApiSettings(network_compat=False))
    for path in ("/v2/subnets", "/projects"):
        assert (await world.call("GET", path)).status == 404
    await world.close()


class _Server(uvicorn.Server):
    """Says when it answers."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()


@asynccontextmanager
async def served(world: World) -> AsyncIterator[str]:
    """The API behind a real server on loopback."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = _Server(uvicorn.Config(world.app, log_config=None, access_log=False))
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    await server.ready.wait()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving


async def test_over_a_real_connection(world: World) -> None:
    async with served(world) as base, aiohttp.ClientSession() as session:
        body = {"loadbalancer": {"name": "žluťoučký", "vip_subnet_id": SUBNET_ID}}
        async with session.post(f"{base}/v2.0/lbaas/loadbalancers", json=body) as answer:
            assert answer.status == 201
            made = (await answer.json())["loadbalancer"]
        async with session.get(f"{base}/v2.0/lbaas/loadbalancers", params={"name": "žluťoučký"}) as answer:
            assert [x["id"] for x in (await answer.json())["loadbalancers"]] == [made["id"]]
        async with session.head(f"{base}/v2/lbaas/loadbalancers") as answer:
            assert answer.status == 405

        async def endless() -> AsyncIterator[bytes]:
            for _ in range(200):
                yield b" " * 1024

        headers = {"Content-Type": "application/json"}
        async with session.post(f"{base}/v2/lbaas/loadbalancers", data=endless(), headers=headers) as answer:
            assert answer.status == 413
        async with session.get(f"{base}/") as answer:
            versions = (await answer.json())["versions"]
            assert versions[0]["links"][0]["href"] == f"{base}/v2"
