"""Every attribute of every resource over HTTP: its default, null on create and on update, as resources.yaml has them.

Where the contract notes that the reference fails with 500, 400 is expected."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract import facts
from tests.integration.api.world import SUBNET_ID, UNKNOWN, Answer, World

KEYS = ["loadbalancer", "listener", "pool", "member", "healthmonitor", "l7policy", "rule"]
ECHOED = {"p": "default"}
"""What the contract's measurements call the caller's project."""


class Family:
    """A load balancer with one of everything, and how to make and change one more of a kind."""

    def __init__(self, world: World, ids: dict[str, str]) -> None:
        self.world = world
        self.ids = ids
        self.next_port = 8000

    @classmethod
    async def born(cls, world: World) -> Family:
        ids = {"loadbalancer": await world.load_balancer()}
        ids["listener"] = await world.listener(ids["loadbalancer"])
        ids["pool"] = await world.pool(ids["loadbalancer"])
        ids["member"] = await world.member(ids["pool"])
        ids["healthmonitor"] = await world.health_monitor(ids["pool"])
        ids["l7policy"] = (await world.make("l7policy", listener_id=ids["listener"], action="REJECT"))["id"]
        ids["rule"] = (
            await world.make("rule", l7policy=ids["l7policy"], type="PATH", compare_type="EQUAL_TO", value="/")
        )["id"]
        return cls(world, ids)

    def path(self, key: str) -> str:
        if key == "member":
            return f"pools/{self.ids['pool']}/members"
        if key == "rule":
            return f"l7policies/{self.ids['l7policy']}/rules"
        return {"l7policy": "l7policies"}.get(key, f"{key}s")

    async def minimum(self, key: str) -> dict[str, Any]:
        """The least that a create of this kind needs, of something that does not clash with what is there."""
        self.next_port += 1
        match key:
            case "loadbalancer":
                return {"vip_subnet_id": SUBNET_ID}
            case "listener":
                return {
                    "protocol": "HTTP",
                    "protocol_port": self.next_port,
                    "loadbalancer_id": self.ids["loadbalancer"],
                }
            case "pool":
                return {"protocol": "HTTP", "lb_algorithm": "ROUND_ROBIN", "loadbalancer_id": self.ids["loadbalancer"]}
            case "member":
                return {"address": "192.0.2.7", "protocol_port": self.next_port}
            case "healthmonitor":
                pool_id = await self.world.pool(self.ids["loadbalancer"])
                return {"pool_id": pool_id, "type": "HTTP", "delay": 3, "timeout": 2, "max_retries": 3}
            case "l7policy":
                return {"listener_id": self.ids["listener"], "action": "REJECT"}
            case _:
                return {"type": "PATH", "compare_type": "EQUAL_TO", "value": f"/{self.next_port}"}

    async def create(self, key: str, /, **values: Any) -> Answer:
        return await self.world.call("POST", self.path(key), {key: {**await self.minimum(key), **values}})

    async def update(self, key: str, /, **values: Any) -> Answer:
        return await self.world.call("PUT", f"{self.path(key)}/{self.ids[key]}", {key: values})


def cases(operation: str, wanted: str) -> list[Any]:
    return [
        pytest.param(key, wire, fact[operation][wanted], id=f"{key}.{wire}")
        for key in KEYS
        for wire, fact in facts.fields(key).items()
        if fact[operation]["accepted"] and wanted in fact[operation]
    ]


@pytest.mark.parametrize("key, wire, default", cases("create", "default"))
async def test_absent_attribute_has_its_default(world: World, key: str, wire: str, default: object) -> None:
    family = await Family.born(world)
    shown = (await family.create(key)).one(key)
    if isinstance(default, str) and default not in ("NONE", ""):
        # In words: "null, or ... on TERMINATED_HTTPS"; "GET for HTTP/HTTPS, else null"; appended.
        expected = {
            "http_method": "GET",
            "url_path": "/",
            "expected_codes": "200",
            "position": 2,
        }.get(wire)
        assert shown[wire] == expected
    elif wire in shown:
        assert shown[wire] == default
    else:
        assert not facts.fields(key)[wire]["in_response"]


@pytest.mark.parametrize("key, wire, null", cases("create", "null"))
async def test_null_at_create(world: World, key: str, wire: str, null: dict[str, Any]) -> None:
    family = await Family.born(world)
    answer = await family.create(key, **{wire: None})
    assert answer.status == (400 if null["status"] == 500 else null["status"]), answer.body
    if answer.status != 201:
        assert answer.fault
    elif null["result"] == "<not-in-response>":
        assert wire not in answer.one(key)
    elif (key, wire) in {
        ("loadbalancer", "vip_address"),
        ("loadbalancer", "vip_port_id"),
        ("loadbalancer", "vip_network_id"),
    }:
        assert answer.one(key)[wire], "null means that the network decides"
    elif wire == "position":
        assert answer.one(key)[wire] == 2, "null appends"
    else:
        result = null["result"]
        assert answer.one(key)[wire] == (ECHOED.get(result, result) if isinstance(result, str) else result)


@pytest.mark.parametrize("key, wire, null", cases("update", "null"))
async def test_null_at_update(world: World, key: str, wire: str, null: dict[str, Any]) -> None:
    family = await Family.born(world)
    before = (await world.call("GET", f"{family.path(key)}/{family.ids[key]}")).one(key)
    answer = await family.update(key, **{wire: None})
    assert answer.status == (400 if null["status"] == 500 else null["status"]), answer.body
    if answer.status != 200:
        assert answer.fault.startswith(f"{key}.{wire}")
        return
    shown = answer.one(key)
    if null["result"] == "unchanged":
        assert shown[wire] == before[wire]
    elif isinstance(null["result"], str) and null["result"].startswith("<configured"):
        assert "TLS_AES_128_GCM_SHA256" in shown[wire]
    else:
        assert shown[wire] == null["result"]


NOT_TAKEN = [
    pytest.param(key, wire, operation, id=f"{operation} {key}.{wire}")
    for key in KEYS
    for wire, fact in facts.fields(key).items()
    for operation in ("create", "update")
    if not fact[operation]["accepted"]
]


@pytest.mark.parametrize("key, wire, operation", NOT_TAKEN)
async def test_attribute_that_is_not_taken_is_refused_by_name(
    world: World, key: str, wire: str, operation: str
) -> None:
    family = await Family.born(world)
    generation = (await world.tree(family.ids["loadbalancer"])).load_balancer.generation
    if operation == "create":
        answer = await world.call(
            "POST",
            family.path(key),
            {key: {**(await family.minimum(key) if key != "healthmonitor" else {}), wire: "x"}},
        )
    else:
        answer = await family.update(key, **{wire: "x"})
    assert answer.status == 400
    assert answer.fault.startswith(f"{key}.{wire}: ")
    assert (await world.tree(family.ids["loadbalancer"])).load_balancer.generation == generation


@pytest.mark.parametrize("key", KEYS)
async def test_answers_hold_exactly_the_contract_s_attributes(world: World, key: str) -> None:
    family = await Family.born(world)
    shown = (await world.call("GET", f"{family.path(key)}/{family.ids[key]}")).one(key)
    expected = {wire for wire, fact in facts.fields(key).items() if fact["in_response"]} | {"fault"}
    assert set(shown) == expected
    assert shown["tenant_id"] == shown["project_id"] == "default"
    assert shown["fault"] is None


PARENTS = [
    ("listener", "loadbalancer_id"),
    ("pool", "loadbalancer_id"),
    ("pool", "listener_id"),
    ("healthmonitor", "pool_id"),
    ("l7policy", "listener_id"),
    ("listener", "default_pool_id"),
    ("l7policy", "redirect_pool_id"),
]


@pytest.mark.parametrize("key, wire", PARENTS)
async def test_unknown_parent_is_not_found(world: World, key: str, wire: str) -> None:
    family = await Family.born(world)
    extra = {"action": "REDIRECT_TO_POOL"} if wire == "redirect_pool_id" else {}
    answer = await family.create(key, **{wire: UNKNOWN}, **extra)
    assert answer.status == 404
    assert UNKNOWN in answer.fault


@pytest.mark.parametrize("key, wire", [("pool", "listener_id"), ("listener", "default_pool_id")])
async def test_parent_on_another_load_balancer_is_not_found(world: World, key: str, wire: str) -> None:
    family, other = await Family.born(world), await Family.born(world)
    foreign = other.ids["listener" if wire == "listener_id" else "pool"]
    assert (await family.create(key, **{wire: foreign})).status == 404
