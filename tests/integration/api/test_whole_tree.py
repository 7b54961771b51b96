"""A whole load balancer in one call, the status tree, and the published examples."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract import facts
from tests.integration.api.world import SUBNET_ID, UNKNOWN, Answer, World

POOL = {"protocol": "HTTP", "lb_algorithm": "ROUND_ROBIN"}


async def create(world: World, **values: Any) -> Answer:
    return await world.call("POST", "loadbalancers", {"loadbalancer": {"vip_subnet_id": SUBNET_ID, **values}})


async def test_published_example_makes_the_tree_that_it_describes(world: World) -> None:
    request = facts.example("loadbalancer-full-create-request")["loadbalancer"]
    # What this installation does not have: flavors, zones, QoS, the example's subnet.
    for wire in ("flavor_id", "availability_zone", "vip_qos_policy_id", "vip_address"):
        del request[wire]
    made = (await create(world, **{**request, "vip_subnet_id": SUBNET_ID})).one("loadbalancer")
    listeners = {x["name"]: x for x in made["listeners"]}
    pools = {x["name"]: x for x in made["pools"]}
    assert set(listeners) == {"http_listener", "https_listener", "redirect_listener"}
    assert set(pools) == {"rr_pool", "https_pool"}
    assert listeners["http_listener"]["default_pool_id"] == pools["rr_pool"]["id"]
    assert listeners["https_listener"]["default_pool_id"] == pools["https_pool"]["id"]
    assert listeners["redirect_listener"]["default_pool_id"] is None
    (policy,) = listeners["redirect_listener"]["l7policies"]
    assert (policy["action"], policy["redirect_url"], policy["position"]) == (
        "REDIRECT_TO_URL",
        "https://www.example.com/",
        1,
    )
    assert pools["rr_pool"]["healthmonitor"]["expected_codes"] == "200,201,202"
    assert pools["rr_pool"]["healthmonitor"]["delay"] == 3
    assert {x["operating_status"] for x in pools["rr_pool"]["members"]} == {"NO_MONITOR"}
    assert set(await statuses(world, made["id"])) == {"PENDING_CREATE"}


async def statuses(world: World, load_balancer_id: str) -> list[str]:
    tree = await world.tree(load_balancer_id)
    return [tree.load_balancer.provisioning_status, *(x.provisioning_status for x in tree.children())]


async def test_full_answer_nests_what_shows_only_refer_to(world: World) -> None:
    made = (
        await create(
            world,
            listeners=[{"protocol": "HTTP", "protocol_port": 80, "default_pool": {"name": "p"}}],
            pools=[{"name": "p", **POOL, "members": [{"address": "192.0.2.1", "protocol_port": 80}]}],
        )
    ).one("loadbalancer")
    (listener,), (pool,) = made["listeners"], made["pools"]
    assert not {"loadbalancers"} & set(listener)
    assert not {"loadbalancers", "healthmonitor_id", "healthmonitor"} & set(pool)
    assert pool["listeners"] == [{"id": listener["id"]}]
    shown = (await world.call("GET", f"loadbalancers/{made['id']}")).one("loadbalancer")
    assert shown["listeners"] == [{"id": listener["id"]}]
    assert shown["pools"] == [{"id": pool["id"]}]
    shown_pool = (await world.call("GET", f"pools/{pool['id']}")).one("pool")
    assert shown_pool["members"] == [{"id": pool["members"][0]["id"]}]
    assert "healthmonitor_id" not in shown_pool


async def test_redirect_pool_is_made_with_its_policy(world: World) -> None:
    policy = {
        "action": "REDIRECT_TO_POOL",
        "redirect_pool": {"name": "r", **POOL},
        "rules": [{"type": "PATH", "compare_type": "STARTS_WITH", "value": "/x"}],
    }
    made = (await create(world, listeners=[{"protocol": "HTTP", "protocol_port": 80, "l7policies": [policy]}])).one(
        "loadbalancer"
    )
    (pool,) = made["pools"]
    (shown,) = made["listeners"][0]["l7policies"]
    assert shown["redirect_pool_id"] == pool["id"]
    assert len(shown["rules"]) == 1
    assert pool["listeners"] == [{"id": made["listeners"][0]["id"]}]


async def test_positions_of_nested_policies_are_insertions(world: World) -> None:
    policies = [
        {"name": "a", "action": "REJECT"},
        {"name": "b", "action": "REJECT", "position": 1},
        {"name": "c", "action": "REJECT", "position": 9},
    ]
    made = (await create(world, listeners=[{"protocol": "HTTP", "protocol_port": 80, "l7policies": policies}])).one(
        "loadbalancer"
    )
    assert [(x["name"], x["position"]) for x in made["listeners"][0]["l7policies"]] == [("b", 1), ("a", 2), ("c", 3)]


async def test_null_children_count_as_none(world: World) -> None:
    made = (await create(world, listeners=None, pools=None)).one("loadbalancer")
    assert made["listeners"] == made["pools"] == []


HTTP80 = {"protocol": "HTTP", "protocol_port": 80}


@pytest.mark.parametrize(
    "values, status, named",
    [
        pytest.param(
            {"listeners": [{**HTTP80, "default_pool": {"name": "p"}}]}, 400, "default_pool.name", id="unknown name"
        ),
        pytest.param(
            {"listeners": [{**HTTP80, "default_pool": {**POOL}}]}, 400, "default_pool.name", id="pool without name"
        ),
        pytest.param(
            {"listeners": [{**HTTP80, "default_pool": {"name": "p", "protocol": "HTTP"}}]},
            400,
            "lb_algorithm",
            id="half a pool",
        ),
        pytest.param({"pools": [{"name": "p"}]}, 400, "protocol", id="name alone at the top"),
        pytest.param(
            {"pools": [{"name": "p", **POOL}, {"name": "p", **POOL}]}, 400, "pools[1].name", id="one name twice"
        ),
        pytest.param(
            {"listeners": [{**HTTP80, "default_pool_id": UNKNOWN}]}, 404, UNKNOWN, id="pool id of another world"
        ),
        pytest.param(
            {"listeners": [HTTP80, {"protocol": "TCP", "protocol_port": 80}]}, 409, "protocol_port", id="port twice"
        ),
        pytest.param(
            {"pools": [{**POOL, "members": [{"address": "192.0.2.1", "protocol_port": 80}] * 2}]},
            409,
            "address",
            id="member twice",
        ),
        pytest.param(
            {"pools": [{**POOL, "members": [{"address": "192.0.2.1", "protocol_port": 80, "subnet_id": UNKNOWN}]}]},
            400,
            "pools[0].members[0].subnet_id",
            id="unknown subnet of a member",
        ),
        pytest.param(
            {"pools": [{**POOL, "healthmonitor": {"type": "UDP-CONNECT", "delay": 5, "timeout": 1, "max_retries": 1}}]},
            400,
            "healthmonitor.type",
            id="monitor that does not fit",
        ),
        pytest.param(
            {
                "listeners": [
                    {
                        "protocol": "TCP",
                        "protocol_port": 1,
                        "default_pool": {"name": "p", "protocol": "UDP", "lb_algorithm": "ROUND_ROBIN"},
                    }
                ]
            },
            400,
            "default_pool_id",
            id="pool that does not fit",
        ),
        pytest.param(
            {"pools": [{**POOL, "session_persistence": {"type": "HTTP_COOKIE", "cookie_name": "x"}}]},
            400,
            "cookie_name",
            id="persistence is judged too",
        ),
        pytest.param(
            {"listeners": [{"protocol": "PROMETHEUS", "protocol_port": 1, "default_pool": {"name": "p", **POOL}}]},
            400,
            "PROMETHEUS",
            id="PROMETHEUS with a pool",
        ),
        pytest.param(
            {"listeners": [{**HTTP80, "l7policies": [{"action": "REJECT", "redirect_pool_id": UNKNOWN}]}]},
            400,
            "redirect_pool_id",
            id="pool by id in a policy",
        ),
        pytest.param({"listeners": [{**HTTP80, "l7policies": None}]}, 400, "l7policies", id="null policies"),
        pytest.param({"listeners": [[]]}, 400, "listeners[0]", id="list as listener"),
        pytest.param({"pools": {}}, 400, "pools", id="object as list"),
        pytest.param(
            {"pools": [{**POOL, "members": [{"address": "192.0.2.1", "protocol_port": 80, "request_sriov": True}]}]},
            400,
            "request_sriov",
            id="SR-IOV",
        ),
    ],
)
async def test_tree_that_cannot_be_leaves_nothing(
    world: World, values: dict[str, Any], status: int, named: str
) -> None:
    answer = await create(world, **values)
    assert answer.status == status, answer.body
    assert named in answer.fault
    assert (await world.call("GET", "loadbalancers")).json["loadbalancers"] == []
    assert not world.network.vips


async def test_tls_defaults_of_listeners_and_pools(world: World) -> None:
    made = (
        await create(
            world,
            listeners=[
                {
                    "protocol": "TERMINATED_HTTPS",
                    "protocol_port": 443,
                    "default_tls_container_ref": "secret",
                    "tls_versions": None,
                }
            ],
            pools=[{**POOL, "tls_enabled": True}],
        )
    ).one("loadbalancer")
    for shown in (made["listeners"][0], made["pools"][0]):
        assert shown["tls_versions"] == ["TLSv1.2", "TLSv1.3"]
        assert shown["alpn_protocols"] == ["h2", "http/1.1", "http/1.0"]
        assert shown["tls_ciphers"].startswith("TLS_AES_128_GCM_SHA256:")


async def test_status_tree_shows_what_takes_part(world: World) -> None:
    made = (
        await create(
            world,
            name="lb",
            listeners=[{**HTTP80, "name": "l", "default_pool": {"name": "p"}}],
            pools=[
                {
                    "name": "p",
                    **POOL,
                    "members": [{"address": "192.0.2.1", "protocol_port": 80, "name": "m"}],
                    "healthmonitor": {"name": "h", "type": "HTTP", "delay": 1, "timeout": 1, "max_retries": 1},
                },
                {"name": "unattached", **POOL},
            ],
        )
    ).one("loadbalancer")
    for path in ("status", "statuses"):
        shown = (await world.call("GET", f"loadbalancers/{made['id']}/{path}")).json["statuses"]["loadbalancer"]
        keys = facts.resources()["resources"]["loadbalancer"]["status_tree"]
        assert set(shown) == set(keys["loadbalancer"])
        (listener,) = shown["listeners"]
        assert set(listener) == set(keys["listeners[]"])
        (pool,) = listener["pools"]
        assert (pool["name"], pool["health_monitor"]["name"], pool["members"][0]["name"]) == ("p", "h", "m")
        assert set(pool["health_monitor"]) == set(keys["health_monitor"])
        assert set(pool["members"][0]) == set(keys["members[]"])


async def test_statistics_of_what_never_carried_anything_are_zero(world: World) -> None:
    load_balancer_id = await world.load_balancer()
    listener_id = await world.listener(load_balancer_id)
    for path in (f"loadbalancers/{load_balancer_id}/stats", f"listeners/{listener_id}/stats"):
        stats = (await world.call("GET", path)).json["stats"]
        assert stats == dict.fromkeys(facts.example("loadbalancer-stats-response")["stats"], 0)


EXAMPLES = [
    ("listener", "listener-create"),
    ("pool", "pool-create"),
    ("member", "member-create"),
    ("healthmonitor", "healthmonitor-create"),
    ("l7policy", "l7policy-create"),
    ("rule", "l7rule-create"),
]


@pytest.mark.parametrize("key, name", EXAMPLES)
async def test_published_create_comes_back_as_it_was_sent(world: World, key: str, name: str) -> None:
    request: dict[str, Any] = facts.example(f"{name}-request")[key]
    load_balancer_id = await world.load_balancer()
    listener_id = await world.listener(load_balancer_id)
    pool_id = await world.pool(load_balancer_id)
    policy_id = (await world.make("l7policy", listener_id=listener_id, action="REJECT"))["id"]
    here = {
        "loadbalancer_id": load_balancer_id,
        "listener_id": listener_id,
        "pool_id": pool_id,
        "redirect_pool_id": pool_id,
        "default_pool_id": pool_id,
        "subnet_id": SUBNET_ID,
    }
    request = {wire: here.get(wire, value) for wire, value in request.items()}
    paths = {
        "listener": "listeners",
        "pool": "pools",
        "member": f"pools/{pool_id}/members",
        "healthmonitor": "healthmonitors",
        "l7policy": "l7policies",
        "rule": f"l7policies/{policy_id}/rules",
    }
    made = (await world.call("POST", paths[key], {key: request})).one(key)
    for wire, value in request.items():
        if wire not in made or wire in ("project_id", "tenant_id", "listener_id"):
            continue
        expected = int(value) if type(made[wire]) is int else value
        if isinstance(expected, dict):
            assert {x: made[wire][x] for x in expected} == expected
        else:
            assert made[wire] == expected, wire
    published = facts.example(f"{name}-response")[key]
    if isinstance(published, list):  # as one of the examples has it, which the reference does not answer
        (published,) = published
    assert set(published) - {"healthmonitor_id"} <= set(made)
