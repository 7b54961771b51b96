"""What clients without an interpreter here do: the requests that they send in the order in which they send them, and what
they expect. Sources: behaviours.yaml clients; gophercloud's and cloud-provider-openstack's public code.

The clients that can be run are run: tests/acceptance/test_every_command.py, test_every_sdk_method.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from frontinus.api.settings import ApiSettings, Immutability

from tests.contract import facts
from tests.integration.api.world import EVERYTHING, SUBNET_ID, UNKNOWN, World

CLIENTS = facts.behaviours()["clients"]


async def walk(world: World, collection: str, query: str) -> list[str]:
    """Ids of every page, as gophercloud and the SDK follow `next` until there is none, or no row."""
    ids: list[str] = []
    where = f"/v2.0/lbaas/{collection}?{query}"
    while True:
        body = (await world.call("GET", where)).json
        ids += [x["id"] for x in body[collection]]
        links = [x["href"] for x in body[f"{collection}_links"] if x["rel"] == "next"]
        if not links or not body[collection]:
            return ids
        parts = urlsplit(links[0])
        where = f"{parts.path}?{parts.query}"


async def test_terraform_waits_and_comes_back_after_409(database: Path) -> None:
    """gophercloud's provider polls the load balancer until ACTIVE before each child, and repeats what met a 409."""
    world = await World.open(database, EVERYTHING, ApiSettings(immutable=Immutability.STRICT))
    try:
        body: Any = {"name": "tf", "vip_subnet_id": SUBNET_ID, "admin_state_up": True, "tags": ["terraform"]}
        made = (await world.call("POST", "loadbalancers", {"loadbalancer": body})).one("loadbalancer")
        listener = {"loadbalancer_id": made["id"], "name": "tf", "protocol": "HTTP", "protocol_port": 80}
        refused = await world.call("POST", "listeners", {"listener": listener})
        assert refused.status == 409, "PENDING_CREATE"
        assert refused.fault
        await world.settle(made["id"])
        polled = (await world.call("GET", f"loadbalancers/{made['id']}")).one("loadbalancer")
        assert polled["provisioning_status"] == "ACTIVE"
        again = await world.call("POST", "listeners", {"listener": listener})
        assert again.status == 201, "the refusal left nothing behind"
        listener_id = again.one("listener")["id"]
        await world.settle(made["id"])
        changed = await world.call("PUT", f"listeners/{listener_id}", {"listener": {"connection_limit": 5}})
        assert changed.status in (200, 202)
        assert changed.one("listener")["provisioning_status"] == "PENDING_UPDATE"
        await world.settle(made["id"])
        assert (await world.call("DELETE", f"listeners/{listener_id}")).status == 204
        assert (await world.call("GET", f"listeners/{UNKNOWN}")).status == 404, "which ends the wait for a delete"
    finally:
        await world.close()


async def test_cloud_provider_openstack_of_kubernetes(world: World) -> None:
    """Features by version, a whole tree with tags, look-ups by name and tag, members in one batch, shared by tag."""
    versions = (await world.call("GET", "/")).json["versions"]
    ids = [tuple(int(x) for x in v["id"].removeprefix("v").split(".")) for v in versions]
    assert max(ids) == (2, 30)
    assert {v["status"] for v in versions} == {"SUPPORTED", "CURRENT"}
    name = "kube_service_kubernetes_default_web"
    pool = {
        "name": f"pool_0_{name}",
        "protocol": "TCP",
        "lb_algorithm": "ROUND_ROBIN",
        "members": [{"name": "node-1", "address": "192.0.2.1", "protocol_port": 30080, "subnet_id": SUBNET_ID}],
        "healthmonitor": {"name": "m", "type": "TCP", "delay": 5, "timeout": 3, "max_retries": 1},
    }
    listener = {"name": f"listener_0_{name}", "protocol": "TCP", "protocol_port": 80, "default_pool": pool}
    listener |= {"tags": [name], "allowed_cidrs": ["0.0.0.0/0"], "connection_limit": -1}
    body = {"name": name, "vip_subnet_id": SUBNET_ID, "provider": "amphora", "tags": [name], "listeners": [listener]}
    made = (await world.call("POST", "loadbalancers", {"loadbalancer": body})).one("loadbalancer")
    assert [x["id"] for x in (await world.call("GET", f"loadbalancers?name={name}")).json["loadbalancers"]] == [
        made["id"]
    ]
    assert await walk(world, "listeners", f"loadbalancer_id={made['id']}&tags={name}") == [made["listeners"][0]["id"]]
    pool_id = made["pools"][0]["id"]
    assert await walk(world, "pools", f"loadbalancer_id={made['id']}&name=pool_0_{name}") == [pool_id]
    nodes = [{"name": f"node-{n}", "address": f"192.0.2.{n}", "protocol_port": 30080} for n in range(1, 4)]
    batch = await world.call("PUT", f"pools/{pool_id}/members", {"members": nodes})
    assert (batch.status, batch.body) == (202, b"")
    members = (await world.call("GET", f"pools/{pool_id}/members")).json["members"]
    assert {x["name"] for x in members} == {"node-1", "node-2", "node-3"}
    shared = await world.call(
        "PUT", f"loadbalancers/{made['id']}", {"loadbalancer": {"tags": [name, f"{name}_second"]}}
    )
    assert shared.one("loadbalancer")["tags"] == [name, f"{name}_second"]
    assert (await world.call("DELETE", f"loadbalancers/{made['id']}?cascade=true")).status == 204
    polled = await world.call("GET", f"loadbalancers/{made['id']}")
    assert polled.status == 404 or polled.one("loadbalancer")["provisioning_status"] == "PENDING_DELETE"


async def test_dashboard_shows_everything_of_a_project(world: World) -> None:
    """Horizon's panels list each kind of a project through the SDK, then the parts of what is opened."""
    load_balancer_id = await world.load_balancer(name="web")
    listener_id = await world.listener(load_balancer_id)
    pool_id = await world.pool(load_balancer_id, listener_id=listener_id)
    await world.member(pool_id)
    for collection in ("loadbalancers", "listeners", "pools", "healthmonitors", "l7policies"):
        answer = await world.call("GET", f"/v2.0/lbaas/{collection}?project_id=default")
        assert answer.status == 200
        assert isinstance(answer.json[f"{collection}_links"], list), "a null breaks the SDK"
    for where in (
        f"listeners?loadbalancer_id={load_balancer_id}",
        f"pools?loadbalancer_id={load_balancer_id}",
        f"pools/{pool_id}/members?pool_id={pool_id}",
        f"healthmonitors?pool_id={pool_id}",
        f"l7policies?listener_id={listener_id}",
        "availabilityzones",
        "flavors",
        "providers",
        f"loadbalancers/{load_balancer_id}/status",
        "quotas/defaults",
    ):
        assert (await world.call("GET", f"/v2.0/lbaas/{where}")).status == 200, where


@pytest.mark.parametrize("limit", [1, 2, 3])
async def test_pages_are_followed_to_their_end(world: World, limit: int) -> None:
    ids = [await world.load_balancer(name=f"lb-{n}", tags=["of-pages"]) for n in range(3)]
    assert await walk(world, "loadbalancers", f"limit={limit}&tags=of-pages") == ids


async def test_rules_are_named_beside_their_path(world: World) -> None:
    """openstacksdk sends the policy's id as a filter too."""
    listener_id = await world.listener(await world.load_balancer())
    policy = await world.make("l7policy", listener_id=listener_id, action="REJECT")
    rule = await world.make("rule", l7policy=policy["id"], type="PATH", compare_type="EQUAL_TO", value="/")
    path = f"l7policies/{policy['id']}/rules"
    assert [x["id"] for x in (await world.call("GET", f"{path}?l7policy_id={policy['id']}")).json["rules"]] == [
        rule["id"]
    ]
    assert (await world.call("GET", f"{path}?l7policy_id={UNKNOWN}")).json["rules"] == []


def test_every_client_of_the_contract_is_replayed_or_run() -> None:
    known = {"python_octaviaclient", "openstacksdk", "both", "other_consumers"}
    assert set(CLIENTS) == known
    replayed = {"Terraform/gophercloud", "cloud-provider-openstack", "Horizon dashboard"}
    sends_nothing_else = {"Heat", "Kuryr"}  # both through openstacksdk
    named = {str(x).partition(" (")[0] for x in CLIENTS["other_consumers"]}
    assert named - {"uses tags)"} == replayed | sends_nothing_else, "one name holds a comma, where YAML divides it"
