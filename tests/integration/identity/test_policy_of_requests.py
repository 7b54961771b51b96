"""Every operation × role × own or foreign project, over HTTP with static tokens, compared with the contract (rbac.yaml)."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from frontinus.api.identity.settings import StaticToken
from frontinus.api.operations import resource_operations
from frontinus.api.policy.rules import needs_rule
from frontinus.api.routing import Operation
from frontinus.api.settings import ApiSettings, Authentication
from frontinus.model.secrets import Secret

from tests.contract.facts import rbac
from tests.integration.api.world import SUBNET_ID, UNKNOWN, Answer, World

pytestmark = pytest.mark.integration

RBAC = rbac()
OWN, FOREIGN = "own-project", "foreign-project"
ROLES = ("admin", "member", "reader", "service", "creator", *RBAC["deprecated_roles"]["names"])
COLLECTIONS = ("loadbalancers", "listeners", "pools", "healthmonitors", "l7policies")


def token_of(role: str) -> str:
    return f"token-of-{role}-0123456789"


def settings(*, enforce_new_defaults: bool = True) -> ApiSettings:
    tokens = tuple(
        StaticToken(token=Secret(token_of(role)), project_id=OWN, user_id=role, roles=(role,)) for role in ROLES
    )
    return ApiSettings(auth=Authentication.TOKEN, tokens=tokens, enforce_new_defaults=enforce_new_defaults)


class Tenants:
    """A load balancer with one of everything in each project; `ids` are the path variables of each."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.ids: dict[str, dict[str, str]] = {}

    async def ask(self, role: str, method: str, path: str, body: object = None) -> Answer:
        return await self.world.call(method, path, body, {"X-Auth-Token": token_of(role)})

    async def make(self, path: str, key: str, **values: object) -> str:
        return str((await self.ask("admin", "POST", path, {key: values})).one(key)["id"])

    async def settle_in(self, project_id: str) -> None:
        lb = await self.make("loadbalancers", "loadbalancer", vip_subnet_id=SUBNET_ID, project_id=project_id)
        listener = await self.make("listeners", "listener", loadbalancer_id=lb, protocol="HTTP", protocol_port=80)
        pool = await self.make("pools", "pool", loadbalancer_id=lb, protocol="HTTP", lb_algorithm="ROUND_ROBIN")
        member = await self.make(f"pools/{pool}/members", "member", address="192.0.2.1", protocol_port=80)
        monitor = await self.make(
            "healthmonitors", "healthmonitor", pool_id=pool, type="TCP", delay=5, timeout=3, max_retries=2
        )
        policy = await self.make("l7policies", "l7policy", listener_id=listener, action="REJECT")
        rule = await self.make(
            f"l7policies/{policy}/rules", "rule", type="PATH", compare_type="EQUAL_TO", value="/private"
        )
        self.ids[project_id] = {
            "load_balancer": lb,
            "listener": listener,
            "pool": pool,
            "member": member,
            "health_monitor": monitor,
            "l7_policy": policy,
            "l7_rule": rule,
        }


@pytest.fixture(params=[True, False], ids=["keystone's roles", "load-balancer roles too"])
async def tenants(request: pytest.FixtureRequest, database_url: str) -> AsyncIterator[Tenants]:
    world = await World.open(database_url, settings=settings(enforce_new_defaults=request.param))
    made = Tenants(world)
    await made.settle_in(OWN)
    await made.settle_in(FOREIGN)
    yield made
    await world.close()


def pattern(path: str) -> str:
    return re.sub(r"{[^}]*}", "*", path)


LIKE = {"loadbalancer.receipts": "/v2/lbaas/loadbalancers/{load_balancer}/status"}
"""Operations beyond the contract, and which one of it has the same readers."""


def contract_rules(operation: Operation) -> Iterator[Mapping[str, Any]]:
    """The contract's rules about an operation as this test sends it: nothing said of security groups, all removed."""
    for name, rule in RBAC["rules"].items():
        for each in rule["operations"]:
            when = each.get("when") or rule.get("when")
            if each["method"] != operation.method or when not in (None, "not additive_only"):
                continue
            wanted, given = pattern(each["path"]).split("/"), pattern(LIKE.get(operation.id, operation.path)).split("/")
            if len(wanted) == len(given) and all(x in (y, "*") for x, y in zip(wanted, given, strict=True)):
                yield {"name": name, **rule}


def granted(rule: Mapping[str, Any], role: str, *, foreign: bool, legacy: bool) -> bool:
    tier = RBAC["tiers"][rule["tier"]]
    roles = tier["roles_default"] + (tier["roles_legacy_extra"] if legacy else [])
    return role in roles or (not foreign and f"{role}@project" in roles)


def is_of_a_project(operation: Operation) -> bool:
    """Whether the operation's target is not simply the caller's own project."""
    return operation.resource in BODIES_OF or any(
        x in operation.path
        for x in ("/loadbalancers", "/listeners", "/pools", "/healthmonitors", "/l7policies", "/quotas/")
    )


BODIES_OF: Mapping[str, Callable[[Mapping[str, str], str], Mapping[str, object]]] = {
    "loadbalancer": lambda ids, project: {"vip_subnet_id": SUBNET_ID, "project_id": project},
    "listener": lambda ids, project: {"loadbalancer_id": ids["load_balancer"], "protocol": "TCP", "protocol_port": 81},
    "pool": lambda ids, project: {
        "loadbalancer_id": ids["load_balancer"],
        "protocol": "HTTP",
        "lb_algorithm": "ROUND_ROBIN",
    },
    "member": lambda ids, project: {"address": "192.0.2.7", "protocol_port": 80},
    "healthmonitor": lambda ids, project: {
        "pool_id": ids["pool"],
        "type": "TCP",
        "delay": 5,
        "timeout": 3,
        "max_retries": 2,
    },
    "l7policy": lambda ids, project: {"listener_id": ids["listener"], "action": "REJECT"},
    "rule": lambda ids, project: {"type": "PATH", "compare_type": "EQUAL_TO", "value": "/other"},
}
CHANGES: Mapping[str, Mapping[str, object]] = {"rule": {"value": "/changed"}}


def body_of(operation: Operation, ids: Mapping[str, str], project_id: str) -> object:
    resource = operation.resource
    if operation.method not in ("POST", "PUT") or operation.id.endswith("failover"):
        return None
    if resource is None or resource not in BODIES_OF:
        return {}
    if operation.id.endswith(".batch"):
        return {"members": []}
    if operation.id.endswith(".create"):
        return {resource: BODIES_OF[resource](ids, project_id)}
    return {resource: CHANGES.get(resource, {"name": "changed"})}


def path_of(operation: Operation, ids: Mapping[str, str], project_id: str) -> str:
    path = re.sub(
        r"{([^}]*)}",
        lambda found: project_id if "/quotas/" in operation.path else ids.get(found[1], UNKNOWN),
        operation.path,
    )
    is_list = operation.id in {"loadbalancer.list", "listener.list", "pool.list", "healthmonitor.list", "l7policy.list"}
    return f"{path}?project_id={project_id}" if is_list else path


def is_refused_by_policy(answer: Answer) -> bool:
    return answer.status == 403 and "policy" in answer.fault


async def test_matrix_of_operations_roles_and_projects(
    tenants: Tenants, request: pytest.FixtureRequest, record_property: Callable[[str, object], None]
) -> None:
    legacy = "load-balancer" in request.node.callspec.id
    operations = [x for x in resource_operations() if needs_rule(x.path)]
    # What deletes comes last; what is being deleted answers 409, which is not policy's word.
    operations.sort(key=lambda x: (x.method == "DELETE", x.path.count("/") == 4))
    cells, wrong = 0, []
    for operation in operations:
        rules = list(contract_rules(operation))
        assert rules, operation.id
        for role in ROLES:
            for project_id in (OWN, FOREIGN):
                ids = tenants.ids[project_id]
                # "defaults" in a project's place is a project that nobody is of.
                foreign = operation.id == "quota.defaults.of-clients" or (
                    project_id == FOREIGN and is_of_a_project(operation)
                )
                expected = all(granted(x, role, foreign=foreign, legacy=legacy) for x in rules)
                answer = await tenants.ask(
                    role, operation.method, path_of(operation, ids, project_id), body_of(operation, ids, project_id)
                )
                cells += 1
                allowed = answer.status != 401 and not is_refused_by_policy(answer)
                hidden = answer.status == 404 and operation.resource not in BODIES_OF
                if answer.status >= 500 or (allowed is not expected and not hidden):
                    wrong.append((operation.id, role, project_id, expected, answer.status, answer.body[:120]))
    record_property("cells of requests", cells)
    assert wrong == []
    assert cells >= 40 * len(ROLES) * 2


@pytest.mark.parametrize("collection", COLLECTIONS)
async def test_lists_never_reveal_foreign_objects(
    tenants: Tenants, request: pytest.FixtureRequest, collection: str
) -> None:
    legacy = "load-balancer" in request.node.callspec.id
    kinds = dict(zip(COLLECTIONS, ("load_balancer", "listener", "pool", "health_monitor", "l7_policy"), strict=True))
    own, foreign = (tenants.ids[x][kinds[collection]] for x in (OWN, FOREIGN))
    for role in ROLES:
        sees_all = granted({"tier": "load-balancer:read-global"}, role, foreign=True, legacy=legacy)
        sees_own = granted({"tier": "load-balancer:read"}, role, foreign=False, legacy=legacy)
        for query, matching in (
            ("", {own, foreign}),
            ("?limit=0", {own, foreign}),
            (f"?id={foreign}", {foreign}),
            ("?sort=project_id", {own, foreign}),
            ("?fields=id", {own, foreign}),
        ):
            answer = await tenants.ask(role, "GET", collection + query)
            if not sees_own:
                assert is_refused_by_policy(answer), (role, query, answer.body)
                continue
            shown = {x["id"] for x in answer.one(collection)}
            assert shown == (matching if sees_all else matching - {foreign}), (role, query)
        elsewhere = await tenants.ask(role, "GET", f"{collection}?project_id={FOREIGN}")
        if sees_all:
            assert {x["id"] for x in elsewhere.one(collection)} == {foreign}
        else:
            assert is_refused_by_policy(elsewhere)
        behind = await tenants.ask(role, "GET", f"{collection}?marker={foreign}")
        if sees_own and not sees_all:
            assert behind.status == 400, "a foreign object is no mark in one's own list"


async def test_not_there_comes_before_policy_and_policy_before_values(tenants: Tenants) -> None:
    foreign = tenants.ids[FOREIGN]

    async def status(method: str, path: str, body: object = None) -> int:
        return (await tenants.ask("member", method, path, body)).status

    assert await status("GET", f"loadbalancers/{UNKNOWN}") == 404
    assert await status("GET", f"loadbalancers/{foreign['load_balancer']}") == 403
    assert await status("PUT", f"listeners/{UNKNOWN}", {"listener": {"name": "x"}}) == 404
    assert await status("PUT", f"listeners/{foreign['listener']}", {"listener": {"nmae": "x"}}) == 400
    assert await status("PUT", f"listeners/{foreign['listener']}", {"listener": {"default_pool_id": UNKNOWN}}) == 403
    assert await status("GET", f"pools/{foreign['pool']}/members/{UNKNOWN}") == 404
    own_pool = tenants.ids[OWN]["pool"]
    assert await status("GET", f"pools/{own_pool}/members/{foreign['member']}") == 404
    assert await status("POST", "listeners", {"listener": {"protocol": "HTTP", "protocol_port": 1}}) == 400
    wrong_port = {"protocol": "HTTP", "protocol_port": 80, "loadbalancer_id": foreign["load_balancer"]}
    assert await status("POST", "listeners", {"listener": wrong_port}) == 403, "the port is taken, but that is a value"


async def test_a_child_cannot_be_made_below_a_foreign_parent_by_naming_ones_own_project(tenants: Tenants) -> None:
    body = {
        "loadbalancer_id": tenants.ids[FOREIGN]["load_balancer"],
        "project_id": OWN,
        "tenant_id": OWN,
        "protocol": "HTTP",
        "protocol_port": 8080,
    }
    assert is_refused_by_policy(await tenants.ask("member", "POST", "listeners", {"listener": body}))


@pytest.mark.parametrize("key", ["project_id", "tenant_id"])
async def test_a_load_balancer_of_another_project_is_refused(tenants: Tenants, key: str) -> None:
    body = {"loadbalancer": {"vip_subnet_id": SUBNET_ID, key: FOREIGN}}
    assert is_refused_by_policy(await tenants.ask("member", "POST", "loadbalancers", body))
    both = {"loadbalancer": {"vip_subnet_id": SUBNET_ID, "project_id": OWN, "tenant_id": FOREIGN}}
    assert is_refused_by_policy(await tenants.ask("member", "POST", "loadbalancers", both)), "tenant_id wins"
    own = await tenants.ask("member", "POST", "loadbalancers", {"loadbalancer": {"vip_subnet_id": SUBNET_ID}})
    assert own.one("loadbalancer")["project_id"] == OWN


async def test_rules_for_parts_of_a_request(database_url: str, tmp_path: Path) -> None:
    """vip_sg_ids has a rule of its own, even when null; a batch needs the rule to delete unless it only adds."""
    file = tmp_path / "policy.yaml"
    prefix = "os_load-balancer_api:"
    file.write_text(
        "".join(
            f'"{prefix}{x}": "rule:load-balancer:admin"\n'
            for x in ("loadbalancer:post:vip_sg_ids", "loadbalancer:put:vip_sg_ids", "member:delete")
        )
    )
    world = await World.open(database_url, settings=dataclasses.replace(settings(), policy_file=file))
    try:
        made = Tenants(world)
        await made.settle_in(OWN)
        ids = made.ids[OWN]
        here = f"loadbalancers/{ids['load_balancer']}"
        values: tuple[object, ...] = (None, [])
        for value in values:
            body = {"loadbalancer": {"vip_sg_ids": value}}
            assert is_refused_by_policy(await made.ask("member", "PUT", here, body))
            assert not is_refused_by_policy(await made.ask("admin", "PUT", here, body))
            created = {"loadbalancer": {"vip_subnet_id": SUBNET_ID, "vip_sg_ids": value}}
            answer = await made.ask("member", "POST", "loadbalancers", created)
            assert is_refused_by_policy(answer) or answer.status == 400, (value, answer.body)
        assert (await made.ask("member", "PUT", here, {"loadbalancer": {"name": "x"}})).status == 200
        batch = f"pools/{ids['pool']}/members"
        assert is_refused_by_policy(await made.ask("member", "PUT", batch, {"members": []}))
        assert (await made.ask("member", "PUT", f"{batch}?additive_only=true", {"members": []})).status == 202
        assert (await made.ask("admin", "PUT", batch, {"members": []})).status == 202
    finally:
        await world.close()
