"""Quotas over HTTP: what is shown and set, under both spellings, and that every way in is held to them."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from frontinus import main
from frontinus.api.identity.settings import StaticToken
from frontinus.api.settings import ApiSettings, Authentication, DefaultQuotas
from frontinus.model.errors import Invalid
from frontinus.model.ids import ControllerId, LoadBalancerId
from frontinus.model.secrets import Secret
from frontinus.settings import Settings
from frontinus.store import convergence, leases

from tests.contract.facts import resources
from tests.integration.api.world import COHORT, SUBNET_ID, Answer, World

ADMIN, TENANT = "admin-token-0123456789", "tenant-token-0123456789"
TOKENS = (
    StaticToken(token=Secret(ADMIN), project_id="ops", roles=("admin",)),
    StaticToken(token=Secret(TENANT), project_id="shop"),
)
SETTINGS = ApiSettings(
    auth=Authentication.TOKEN, tokens=TOKENS, quotas=DefaultQuotas(listener=9), preview_wait=timedelta(0)
)
DEFAULTS = {
    "loadbalancer": -1,
    "load_balancer": -1,
    "listener": 9,
    "pool": -1,
    "member": -1,
    "healthmonitor": -1,
    "health_monitor": -1,
    "l7policy": -1,
    "l7rule": -1,
}


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    opened = await World.open(database_url, settings=SETTINGS)
    yield opened
    await opened.close()


async def ask(world: World, method: str, path: str, body: object = None, token: str = ADMIN) -> Answer:
    return await world.call(method, path, body, {"X-Auth-Token": token})


async def allow(world: World, limits: dict[str, int | None], project_id: str = "shop") -> Any:
    answer = await ask(world, "PUT", f"quotas/{project_id}", {"quota": limits})
    assert answer.status == 202, answer.body
    return answer.json["quota"]


async def quota(world: World, path: str = "quotas/shop") -> Any:
    return (await ask(world, "GET", path)).one("quota")


async def make(world: World, path: str, key: str, **values: object) -> Answer:
    return await ask(world, "POST", path, {key: values}, TENANT)


async def test_a_project_without_a_record_has_the_defaults(world: World) -> None:
    assert await quota(world) == {**DEFAULTS, "project_id": "shop", "tenant_id": "shop"}
    assert set(DEFAULTS) | {"project_id", "tenant_id"} == set(resources()["resources"]["quota"]["fields"])


@pytest.mark.parametrize("path, project_id", [("quotas/shop/default", "shop"), ("quotas/defaults", "defaults")])
async def test_defaults_are_shown_whatever_the_project_has(world: World, path: str, project_id: str) -> None:
    await allow(world, {"listener": 1})
    assert await quota(world, path) == {**DEFAULTS, "project_id": project_id, "tenant_id": project_id}


async def test_limits_are_set_kept_and_taken_back_one_by_one(world: World) -> None:
    assert (await allow(world, {"loadbalancer": 3, "healthmonitor": 4, "l7rule": 5}))["load_balancer"] == 3
    assert (await allow(world, {"listener": 7}))["health_monitor"] == 4
    assert (await quota(world))["listener"] == 7
    assert (await allow(world, {"listener": None, "l7rule": None}))["listener"] == 9
    shown = await quota(world)
    assert (shown["loadbalancer"], shown["listener"], shown["l7rule"]) == (3, 9, -1)
    assert await allow(world, {}) == shown, "an empty object changes nothing"


async def test_of_two_spellings_the_one_without_underscore_wins(world: World) -> None:
    for first, second in (("loadbalancer", "load_balancer"), ("load_balancer", "loadbalancer")):
        values = {"loadbalancer": 1, "load_balancer": 2}
        shown = await allow(world, {first: values[first], second: values[second]})
        assert (shown["loadbalancer"], shown["load_balancer"]) == (1, 1)
    assert (await allow(world, {"health_monitor": 6}))["healthmonitor"] == 6


async def test_reset_is_202_and_404_without_a_record(world: World) -> None:
    assert (await ask(world, "DELETE", "quotas/shop")).status == 404
    await allow(world, {"member": 1})
    answer = await ask(world, "DELETE", "quotas/shop")
    assert (answer.status, answer.body) == (202, b"")
    assert (await quota(world))["member"] == -1
    listed = (await ask(world, "GET", "quotas")).one("quotas")
    assert [x["project_id"] for x in listed] == ["shop"], "the record stays"


@pytest.mark.parametrize(
    "values",
    [{"member": -2}, {"member": 2_000_000_001}, {"member": "many"}, {"member": []}, {"project_id": "x"}, {"router": 1}],
    ids=str,
)
async def test_what_is_no_limit_is_refused_by_name(world: World, values: dict[str, object]) -> None:
    answer = await ask(world, "PUT", "quotas/shop", {"quota": values})
    assert answer.status == 400
    assert next(iter(values)) in answer.fault
    assert (await ask(world, "GET", "quotas")).json["quotas"] == []


@pytest.mark.engines
async def test_the_list_is_filtered_and_sorted_by_what_it_shows(world: World) -> None:
    await allow(world, {"listener": 9}, "a")
    await allow(world, {"listener": 2}, "b")
    await allow(world, {"member": 1}, "c")

    async def listed(query: str) -> list[str]:
        return [x["project_id"] for x in (await ask(world, "GET", f"quotas?{query}")).one("quotas")]

    assert await listed("") == ["a", "b", "c"]
    assert await listed("listener=9") == ["a", "c"], "c has it by default"
    assert await listed("sort=listener:asc,project_id:desc") == ["b", "c", "a"]
    assert await listed("project_id=b") == ["b"]
    assert await listed("limit=1&marker=b") == ["c"]
    assert await listed("load_balancer=-1&healthmonitor=-1&listener=2") == ["b"]
    assert (await ask(world, "GET", "quotas?tenant_id=b")).status == 400
    assert (await ask(world, "GET", "quotas", token=TENANT)).one("quotas") == []


@pytest.mark.engines
async def test_every_create_is_held_to_the_limit_of_its_kind(world: World) -> None:
    lb = (await make(world, "loadbalancers", "loadbalancer", vip_subnet_id=SUBNET_ID)).one("loadbalancer")["id"]
    listener_values: dict[str, Any] = {"loadbalancer_id": lb, "protocol": "HTTP", "protocol_port": 80}
    listener = (await make(world, "listeners", "listener", **listener_values)).one("listener")["id"]
    pool_values: dict[str, Any] = {"loadbalancer_id": lb, "protocol": "HTTP", "lb_algorithm": "ROUND_ROBIN"}
    pool = (await make(world, "pools", "pool", **pool_values)).one("pool")["id"]
    policy_values = {"listener_id": listener, "action": "REJECT"}
    policy = (await make(world, "l7policies", "l7policy", **policy_values)).one("l7policy")["id"]
    monitor: dict[str, Any] = {"pool_id": pool, "type": "TCP", "delay": 5, "timeout": 3, "max_retries": 2}
    creates: list[tuple[str, str, str, dict[str, Any]]] = [
        ("loadbalancer", "loadbalancers", "loadbalancer", {"vip_subnet_id": SUBNET_ID}),
        ("listener", "listeners", "listener", listener_values | {"protocol_port": 81}),
        ("pool", "pools", "pool", pool_values),
        ("member", f"pools/{pool}/members", "member", {"address": "192.0.2.1", "protocol_port": 80}),
        ("healthmonitor", "healthmonitors", "healthmonitor", monitor),
        ("l7policy", "l7policies", "l7policy", policy_values),
        ("l7rule", f"l7policies/{policy}/rules", "rule", {"type": "PATH", "compare_type": "EQUAL_TO", "value": "/x"}),
    ]
    used = {"loadbalancer": 1, "listener": 1, "pool": 1, "l7policy": 1}
    words = {"loadbalancer": "loadbalancer", "l7rule": "rule"}
    for limit, path, key, values in creates:
        await allow(world, {limit: used.get(limit, 0)})
        refused = await make(world, path, key, **values)
        assert refused.status == 403, (limit, refused.body)
        assert refused.fault.startswith(words.get(limit, limit)), refused.fault
        await allow(world, {limit: used.get(limit, 0) + 1})
        assert (await make(world, path, key, **values)).status == 201, limit
    addresses = set(world.network.vips.values())
    assert addresses == {x["id"] for x in (await ask(world, "GET", "loadbalancers")).json["loadbalancers"]}


@pytest.mark.parametrize("limit", ["listener", "pool", "member", "healthmonitor", "l7policy", "l7rule"])
async def test_a_whole_tree_is_counted_as_a_whole(world: World, limit: str) -> None:
    def tree(count: int) -> dict[str, Any]:
        rules = [{"type": "PATH", "compare_type": "EQUAL_TO", "value": f"/{n}"} for n in range(count)]
        pools = [
            {
                "name": f"p{n}",
                "protocol": "HTTP",
                "lb_algorithm": "ROUND_ROBIN",
                "members": [{"address": "192.0.2.1", "protocol_port": 80}],
                "healthmonitor": {"type": "TCP", "delay": 5, "timeout": 3, "max_retries": 2},
            }
            for n in range(count)
        ]
        listeners = [
            {
                "protocol": "HTTP",
                "protocol_port": 80 + n,
                "l7policies": [{"action": "REJECT", "rules": rules[:1]}],
            }
            for n in range(count)
        ]
        return {"vip_subnet_id": SUBNET_ID, "listeners": listeners, "pools": pools}

    await allow(world, {limit: 2})
    refused = await make(world, "loadbalancers", "loadbalancer", **tree(3))
    assert refused.status == 403, refused.body
    assert world.network.vips == {}
    assert (await make(world, "loadbalancers", "loadbalancer", **tree(2))).status == 201


async def test_a_batch_counts_what_comes_less_what_goes(world: World) -> None:
    lb = (await make(world, "loadbalancers", "loadbalancer", vip_subnet_id=SUBNET_ID)).one("loadbalancer")["id"]
    pool = (await make(world, "pools", "pool", loadbalancer_id=lb, protocol="HTTP", lb_algorithm="ROUND_ROBIN")).one(
        "pool"
    )["id"]
    await allow(world, {"member": 3})

    async def batch(*hosts: int, query: str = "") -> int:
        members = [{"address": f"192.0.2.{n}", "protocol_port": 80} for n in hosts]
        return (await ask(world, "PUT", f"pools/{pool}/members{query}", {"members": members}, TENANT)).status

    assert await batch(1, 2, 3, 4) == 403
    assert await batch(1, 2, 3) == 202
    assert await batch(4, query="?additive_only=true") == 403
    assert await batch(1, 2, 3, query="?additive_only=true") == 202
    assert await batch(4, 5, 6) == 202, "three for three"
    assert await batch(4, 5, 6, 7) == 403


async def test_what_is_deleted_makes_room_when_it_is_gone(world: World) -> None:
    await allow(world, {"loadbalancer": 1})
    lb = (await make(world, "loadbalancers", "loadbalancer", vip_subnet_id=SUBNET_ID)).one("loadbalancer")["id"]
    assert (await ask(world, "DELETE", f"loadbalancers/{lb}", token=TENANT)).status == 204
    assert (await make(world, "loadbalancers", "loadbalancer", vip_subnet_id=SUBNET_ID)).status == 403
    now = world.clock()
    lease = (
        await world.store.transact(
            lambda tx: leases.claim_due(tx, ControllerId("ours"), COHORT, now, timedelta(minutes=1), 1)
        )
    )[0]
    assert lease.load_balancer_id == LoadBalancerId(lb)
    await world.store.transact(lambda tx: convergence.record_deleted(tx, lease, now))
    assert (await make(world, "loadbalancers", "loadbalancer", vip_subnet_id=SUBNET_ID)).status == 201


async def test_a_limit_below_what_there_is_may_be_set(world: World) -> None:
    for _ in range(2):
        await make(world, "loadbalancers", "loadbalancer", vip_subnet_id=SUBNET_ID)
    assert (await allow(world, {"loadbalancer": 0}))["loadbalancer"] == 0
    assert (await make(world, "loadbalancers", "loadbalancer", vip_subnet_id=SUBNET_ID)).status == 403
    assert len((await ask(world, "GET", "loadbalancers")).json["loadbalancers"]) == 2


async def test_nobody_is_held_to_a_quota_where_nobody_is_asked(database: Path) -> None:
    world = await World.open(database, settings=ApiSettings(quotas=DefaultQuotas(load_balancer=0)))
    assert (await world.call("POST", "loadbalancers", {"loadbalancer": {"vip_subnet_id": SUBNET_ID}})).status == 201
    await world.close()


async def test_an_edit_of_what_another_has_set_is_refused_to_whom_asks(world: World) -> None:
    seen = (await ask(world, "GET", "quotas/shop")).headers["etag"]
    await allow(world, {"pool": 1})
    headers = {"X-Auth-Token": ADMIN, "If-Match": seen}
    assert (await world.call("PUT", "quotas/shop", {"quota": {"pool": 2}}, headers)).status == 412
    assert (await quota(world))["pool"] == 1


@pytest.mark.parametrize("limit", [-2, 2_000_000_001])
def test_a_default_that_is_no_limit_is_refused_at_the_start(limit: int) -> None:
    api = dataclasses.replace(ApiSettings(), quotas=DefaultQuotas(member=limit))
    with pytest.raises(Invalid) as refused:
        main.check(Settings(api=api))
    assert refused.value.field == "api.quotas.member"


async def test_a_create_that_is_sent_again_counts_once(world: World) -> None:
    await allow(world, {"loadbalancer": 1})
    body = {"loadbalancer": {"vip_subnet_id": SUBNET_ID}}

    async def create(key: str) -> Answer:
        return await world.call("POST", "loadbalancers", body, {"X-Auth-Token": TENANT, "Idempotency-Key": key})

    answers = await asyncio.gather(*(create("one") for _ in range(3)))
    assert {(x.status, x.body) for x in answers} == {(201, answers[0].body)}
    assert (await create("another")).status == 403
    await allow(world, {"loadbalancer": 2})
    assert (await create("another")).status == 201, "what was refused left its key free"


async def test_a_dry_run_meets_the_quota_and_uses_none_of_it(world: World) -> None:
    await allow(world, {"loadbalancer": 1})
    body = {"loadbalancer": {"vip_subnet_id": SUBNET_ID}}
    tried = [(await ask(world, "POST", "loadbalancers?dry_run=true", body, TENANT)).status for _ in range(2)]
    assert tried == [200, 200]
    assert (await ask(world, "POST", "loadbalancers", body, TENANT)).status == 201
    assert (await ask(world, "POST", "loadbalancers?dry_run=true", body, TENANT)).status == 403


async def test_policy_holds_in_a_dry_run(world: World) -> None:
    mine = (await ask(world, "POST", "loadbalancers", {"loadbalancer": {"vip_subnet_id": SUBNET_ID}})).json
    path = f"loadbalancers/{mine['loadbalancer']['id']}?dry_run=true"
    assert (await ask(world, "DELETE", path, token=TENANT)).status == 403
    assert (await ask(world, "PUT", "quotas/shop?dry_run=true", {"quota": {"pool": 1}}, TENANT)).status == 403


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_a_project_that_no_engine_can_store_is_refused(world: World, method: str) -> None:
    body = {"quota": {"pool": 1}} if method == "PUT" else None
    refused = await ask(world, method, "quotas/sh\0op", body)
    assert (refused.status, refused.fault.partition(":")[0]) == (400, "project_id")
