"""What a request moves, what it meets while another is under way, and that requests at one time do not lose each other."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from frontinus.api.settings import ApiSettings, Immutability
from frontinus.model.enums import FaultPhase, Kind, ProvisioningStatus
from frontinus.model.ids import LoadBalancerId
from frontinus.model.tree import Fault
from frontinus.store import trees
from frontinus.store.engine import Transaction

from tests.contract import facts
from tests.integration.api.world import EVERYTHING, NOON, SUBNET_ID, World

TRANSITIONS = {
    name: moved
    for name, moved in facts.behaviours()["states"]["transitions_at_request"].items()
    if name.split()[0] != "amphora" and name not in ("loadbalancer create", "loadbalancer create nested")
}
_WORDS = {
    "attached listeners": "listener",
    "listener (if listener_id)": "listener",
    "l7rule": "rule",
}


async def family(world: World) -> dict[str, str]:
    """One of everything, settled: ACTIVE throughout."""
    ids = {"loadbalancer": await world.load_balancer()}
    ids["listener"] = await world.listener(ids["loadbalancer"])
    ids["pool"] = await world.pool(ids["loadbalancer"], listener_id=ids["listener"])
    ids["member"] = await world.member(ids["pool"])
    ids["healthmonitor"] = await world.health_monitor(ids["pool"])
    ids["l7policy"] = (await world.make("l7policy", listener_id=ids["listener"], action="REJECT"))["id"]
    rule = await world.make("rule", l7policy=ids["l7policy"], type="PATH", compare_type="EQUAL_TO", value="/")
    ids["rule"] = rule["id"]
    await world.settle(ids["loadbalancer"])
    return ids


def paths(ids: dict[str, str]) -> dict[str, str]:
    return {
        "loadbalancer": "loadbalancers",
        "listener": "listeners",
        "pool": "pools",
        "member": f"pools/{ids['pool']}/members",
        "healthmonitor": "healthmonitors",
        "l7policy": "l7policies",
        "rule": f"l7policies/{ids['l7policy']}/rules",
    }


async def ask(world: World, ids: dict[str, str], name: str) -> int:
    """Do what a line of transitions_at_request is about; the answer's status."""
    word, operation = name.split()
    key = _WORDS.get(word, word)
    path = paths(ids)[key]
    if operation == "failover":
        return (await world.call("PUT", f"{path}/{ids[key]}/failover")).status
    if operation == "delete":
        cascade = "?cascade=true" if key == "loadbalancer" else ""
        return (await world.call("DELETE", f"{path}/{ids[key]}{cascade}")).status
    if operation == "update":
        values: dict[str, Any] = {"admin_state_up": True}
        return (await world.call("PUT", f"{path}/{ids[key]}", {key: values})).status
    if operation == "batch":
        members = [{"address": "192.0.2.1", "protocol_port": 80}, {"address": "192.0.2.2", "protocol_port": 80}]
        return (await world.call("PUT", path, {"members": members})).status
    creates: dict[str, dict[str, Any]] = {
        "listener": {"loadbalancer_id": ids["loadbalancer"], "protocol": "TCP", "protocol_port": 81},
        "pool": {"loadbalancer_id": ids["loadbalancer"], "protocol": "HTTP", "lb_algorithm": "ROUND_ROBIN"},
        "member": {"address": "192.0.2.2", "protocol_port": 80},
        "healthmonitor": {"pool_id": ids["pool"], "type": "TCP", "delay": 1, "timeout": 1, "max_retries": 1},
        "l7policy": {"listener_id": ids["listener"], "action": "REJECT"},
        "rule": {"type": "PATH", "compare_type": "EQUAL_TO", "value": "/y"},
    }
    return (await world.call("POST", path, {key: creates[key]})).status


async def statuses(world: World, load_balancer_id: str) -> dict[str, str]:
    tree = await world.tree(load_balancer_id)
    return {x.id: x.provisioning_status.value for x in (tree.load_balancer, *tree.children())}


@pytest.mark.parametrize("name", TRANSITIONS)
async def test_request_moves_what_the_contract_says(world: World, name: str) -> None:
    ids = await family(world)
    if name == "healthmonitor create":
        await world.call("DELETE", f"healthmonitors/{ids['healthmonitor']}")
        await world.settle(ids["loadbalancer"])
    before = await statuses(world, ids["loadbalancer"])
    generation = (await world.tree(ids["loadbalancer"])).load_balancer.generation
    success = {"create": 201, "update": 200, "delete": 204, "failover": 202, "batch": 202}[name.split()[1]]
    assert await ask(world, ids, name) == success
    after = await statuses(world, ids["loadbalancer"])
    assert (await world.tree(ids["loadbalancer"])).load_balancer.generation == generation + 1
    fresh = set(after) - set(before)
    word, operation = name.split()
    for moved, status in TRANSITIONS[name].items():
        if moved in ("children", "untouched (additive)", "removed", "listener (if listener_id)"):
            continue
        if (moved == word and operation == "create") or moved == "new":
            assert {after[x] for x in fresh} == {status}
        else:
            key = "member" if moved == "matched" else _WORDS.get(moved, moved)
            assert after[ids[key]] == status, moved


async def test_answer_to_an_update_holds_the_new_values(world: World) -> None:
    ids = await family(world)
    answer = await world.call(
        "PUT", f"listeners/{ids['listener']}", {"listener": {"name": "new", "connection_limit": 7}}
    )
    shown = answer.one("listener")
    assert (shown["name"], shown["connection_limit"], shown["provisioning_status"]) == ("new", 7, "PENDING_UPDATE")
    assert (await world.call("GET", f"listeners/{ids['listener']}")).one("listener") == shown


async def test_deleted_object_stays_visible_until_it_is_gone(world: World) -> None:
    ids = await family(world)
    assert await ask(world, ids, "member delete") == 204
    shown = (await world.call("GET", f"pools/{ids['pool']}/members/{ids['member']}")).one("member")
    assert shown["provisioning_status"] == "PENDING_DELETE"
    for name in ("member update", "member delete"):
        assert await ask(world, ids, name) == 409
    assert await ask(world, ids, "member create") == 201


async def test_nothing_below_a_load_balancer_on_its_way_out_can_be_edited(world: World) -> None:
    ids = await family(world)
    assert await ask(world, ids, "loadbalancer delete") == 204
    for name in TRANSITIONS:
        if name != "healthmonitor create":
            assert await ask(world, ids, name) == 409, name


async def test_load_balancer_in_error_can_be_repaired_by_editing(world: World) -> None:
    ids = await family(world)
    await world.settle(ids["loadbalancer"], ProvisioningStatus.ERROR)
    assert await ask(world, ids, "member update") == 200
    assert (await statuses(world, ids["loadbalancer"]))[ids["loadbalancer"]] == "PENDING_UPDATE"


async def test_twenty_edits_at_one_time_all_succeed(world: World) -> None:
    ids = await family(world)
    generation = (await world.tree(ids["loadbalancer"])).load_balancer.generation
    path = f"pools/{ids['pool']}/members"
    answers = await asyncio.gather(
        *(
            world.call("POST", path, {"member": {"address": f"192.0.2.{n + 10}", "protocol_port": 80}})
            for n in range(20)
        )
    )
    assert [x.status for x in answers] == [201] * 20
    tree = await world.tree(ids["loadbalancer"])
    assert len(tree.members) == 21
    assert tree.load_balancer.generation == generation + 20


async def test_one_of_two_equal_members_at_one_time_wins(world: World) -> None:
    ids = await family(world)
    body = {"member": {"address": "192.0.2.50", "protocol_port": 80}}
    answers = await asyncio.gather(*(world.call("POST", f"pools/{ids['pool']}/members", body) for _ in range(5)))
    assert sorted(x.status for x in answers) == [201, 409, 409, 409, 409]


@pytest.mark.parametrize("status", [x for x in ProvisioningStatus if x is not ProvisioningStatus.DELETED])
async def test_strict_installation_wants_active(database_url: str, status: ProvisioningStatus) -> None:
    world = await World.open(database_url, EVERYTHING, ApiSettings(immutable=Immutability.STRICT))
    load_balancer_id = await world.load_balancer()
    await world.settle(load_balancer_id, status)
    expected = {ProvisioningStatus.ACTIVE: (200, 202, 204), ProvisioningStatus.ERROR: (409, 202, 204)}
    update, failover, delete = expected.get(status, (409, 409, 409))
    path = f"loadbalancers/{load_balancer_id}"
    assert (await world.call("PUT", path, {"loadbalancer": {}})).status == update
    await world.settle(load_balancer_id, status)
    assert (await world.call("PUT", f"{path}/failover")).status == failover
    await world.settle(load_balancer_id, status)
    assert (await world.call("DELETE", path)).status == delete
    assert (await world.call("GET", path)).status == 200
    await world.close()


async def test_strict_installation_lets_one_edit_through(database_url: str) -> None:
    world = await World.open(database_url, EVERYTHING, ApiSettings(immutable=Immutability.STRICT))
    load_balancer_id = await world.load_balancer()
    await world.settle(load_balancer_id)
    assert (await world.call("PUT", f"loadbalancers/{load_balancer_id}", {"loadbalancer": {}})).status == 200
    body = {"loadbalancer_id": load_balancer_id, "protocol": "HTTP", "protocol_port": 80}
    assert (await world.call("POST", "listeners", {"listener": body})).status == 409
    await world.settle(load_balancer_id)
    assert (await world.call("POST", "listeners", {"listener": body})).status == 201
    await world.close()


async def test_without_cascade_a_load_balancer_with_children_stays(world: World) -> None:
    ids = await family(world)
    path = f"loadbalancers/{ids['loadbalancer']}"
    for query in ("", "?cascade=false", "?cascade=perhaps"):
        assert (await world.call("DELETE", path + query)).status == 400
    assert (await world.call("DELETE", f"{path}?cascade=TRUE")).status == 204


async def test_edit_wakes_the_controllers(world: World) -> None:
    wakeups = world.store.wakeups()
    await world.load_balancer()
    assert await wakeups.wait(timeout=1)


async def test_child_belongs_to_the_project_of_its_load_balancer(world: World) -> None:
    made = await world.make("loadbalancer", vip_subnet_id=SUBNET_ID, project_id="one", tenant_id="two")
    assert made["project_id"] == made["tenant_id"] == "two"
    listener = await world.make(
        "listener", loadbalancer_id=made["id"], protocol="HTTP", protocol_port=80, project_id="other"
    )
    assert listener["project_id"] == "two"


async def test_project_of_the_caller_is_the_default(world: World) -> None:
    body = {"loadbalancer": {"vip_subnet_id": SUBNET_ID}}
    answer = await world.call("POST", "loadbalancers", body, {"X-Project-Id": "mine"})
    assert answer.one("loadbalancer")["project_id"] == "mine"


async def test_policies_move_both_ways(world: World) -> None:
    listener_id = await world.listener(await world.load_balancer())
    ids = [(await world.make("l7policy", listener_id=listener_id, action="REJECT", name=x))["id"] for x in "abcd"]

    async def order() -> str:
        policies = (await world.call("GET", "l7policies?sort=position")).json["l7policies"]
        assert [x["position"] for x in policies] == [1, 2, 3, 4]
        return "".join(x["name"] for x in policies)

    for index, position, expected in ((0, 3, "bcad"), (3, 1, "dbca"), (1, 99, "dcab")):
        answer = await world.call("PUT", f"l7policies/{ids[index]}", {"l7policy": {"position": position}})
        assert answer.status == 200
        assert await order() == expected


@pytest.mark.parametrize(
    "asked, expected",
    [
        pytest.param(
            {"redirect_url": "http://x.example/"}, {"action": "REDIRECT_TO_URL", "redirect_http_code": 302}, id="url"
        ),
        pytest.param(
            {"redirect_prefix": "http://x.example"}, {"action": "REDIRECT_PREFIX", "redirect_url": None}, id="prefix"
        ),
        pytest.param(
            {"action": "REDIRECT_TO_URL", "redirect_url": "http://x.example/", "redirect_http_code": 308},
            {"action": "REDIRECT_TO_URL", "redirect_http_code": 308},
            id="url with code",
        ),
    ],
)
async def test_naming_a_target_switches_the_action(
    world: World, asked: dict[str, Any], expected: dict[str, Any]
) -> None:
    listener_id = await world.listener(await world.load_balancer())
    policy = await world.make("l7policy", listener_id=listener_id, action="REJECT")
    shown = (await world.call("PUT", f"l7policies/{policy['id']}", {"l7policy": asked})).one("l7policy")
    assert {key: shown[key] for key in expected} == expected
    back = (await world.call("PUT", f"l7policies/{policy['id']}", {"l7policy": {"action": "REJECT"}})).one("l7policy")
    assert (back["action"], back["redirect_url"]) == ("REDIRECT_PREFIX" if back["redirect_prefix"] else "REJECT", None)


async def test_empty_update_is_refused_for_policies_only(world: World) -> None:
    ids = await family(world)
    for key, path in paths(ids).items():
        answer = await world.call("PUT", f"{path}/{ids[key]}", {key: {}})
        assert answer.status == (400 if key == "l7policy" else 200), key


@pytest.mark.parametrize(
    "stored, asked, shown",
    [
        pytest.param(
            {"type": "APP_COOKIE", "cookie_name": "c"},
            {"type": "SOURCE_IP"},
            {"type": "SOURCE_IP", "cookie_name": None},
            id="another type drops the cookie",
        ),
        pytest.param(
            {"type": "APP_COOKIE", "cookie_name": "c"},
            {"cookie_name": "d"},
            {"type": "APP_COOKIE", "cookie_name": "d"},
            id="type is kept",
        ),
        pytest.param({"type": "SOURCE_IP"}, None, None, id="null removes"),
    ],
)
async def test_session_persistence_is_changed(world: World, stored: Any, asked: Any, shown: Any) -> None:
    pool_id = await world.pool(await world.load_balancer(), session_persistence=stored)
    answer = await world.call("PUT", f"pools/{pool_id}", {"pool": {"session_persistence": asked}})
    found = answer.one("pool")["session_persistence"]
    expected = None if shown is None else {"persistence_timeout": None, "persistence_granularity": None, **shown}
    assert found == expected


async def test_session_persistence_without_a_type_anywhere(world: World) -> None:
    pool_id = await world.pool(await world.load_balancer())
    for spec in ({}, {"cookie_name": "c"}):
        answer = await world.call("PUT", f"pools/{pool_id}", {"pool": {"session_persistence": spec}})
        assert answer.status == 400


async def test_http_attributes_of_other_monitors_are_refused_even_as_null(world: World) -> None:
    pool_id = await world.pool(await world.load_balancer())
    monitor_id = await world.health_monitor(pool_id, type="TCP")
    for wire in ("http_method", "url_path", "expected_codes"):
        answer = await world.call("PUT", f"healthmonitors/{monitor_id}", {"healthmonitor": {wire: None}})
        assert answer.status == 400
        assert answer.fault.startswith(f"healthmonitor.{wire}")


async def test_switching_hsts_off_takes_its_qualifiers_along(world: World) -> None:
    listener_id = await world.listener(
        await world.load_balancer(),
        protocol="TERMINATED_HTTPS",
        default_tls_container_ref="secret",
        hsts_max_age=5,
        hsts_preload=True,
    )
    answer = await world.call("PUT", f"listeners/{listener_id}", {"listener": {"hsts_max_age": None}})
    shown = answer.one("listener")
    assert (shown["hsts_max_age"], shown["hsts_preload"]) == (None, False)
    assert shown["tls_versions"] == ["TLSv1.2", "TLSv1.3"]


async def test_fault_is_shown_with_its_words_and_its_object(world: World) -> None:
    ids = await family(world)
    fault = Fault(
        code="bind_refused",
        phase=FaultPhase.APPLY,
        message="port 80 is taken",
        since=NOON,
        attempts=3,
        retry_at=NOON + timedelta(seconds=5),
        object_kind=Kind.HEALTH_MONITOR,
        object_id=ids["healthmonitor"],
    )

    def work(tx: Transaction) -> None:
        before = trees.read_tree(tx, LoadBalancerId(ids["loadbalancer"]), for_update=True)
        assert before is not None
        monitors = tuple(replace(x, fault=fault) for x in before.health_monitors)
        after = replace(before, load_balancer=replace(before.load_balancer, fault=fault), health_monitors=monitors)
        trees.write_tree(tx, before, after)

    await world.store.transact(work)
    expected = {
        "code": "bind_refused",
        "phase": "apply",
        "message": "port 80 is taken",
        "since": "2026-01-31T12:00:00",
        "retry_at": "2026-01-31T12:00:05",
        "attempts": 3,
        "permanent": False,
        "left_out": False,
        "object_type": "healthmonitor",
        "object_id": ids["healthmonitor"],
    }
    for key in ("loadbalancer", "healthmonitor"):
        assert (await world.call("GET", f"{paths(ids)[key]}/{ids[key]}")).one(key)["fault"] == expected
    listed = (await world.call("GET", "loadbalancers?fields=fault")).json["loadbalancers"]
    assert listed == [{"fault": expected}]
    assert (await world.call("GET", f"pools/{ids['pool']}")).one("pool")["fault"] is None
