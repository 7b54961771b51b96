"""Every operation of resources.yaml: where it is, what success and strangers are answered with, and what it takes.

Also what moves at request time, and what a delete takes along or is kept from (behaviours.yaml)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest

from frontinus.api.settings import ApiSettings, Immutability
from frontinus.model.enums import ProvisioningStatus

from tests.contract import facts
from tests.integration.api.contract.family import TREE, Family, encoded, resource_of
from tests.integration.api.contract.ledger import Ledger
from tests.integration.api.world import EVERYTHING, UNKNOWN, Answer, World

KEYS = {name: key for key, name in facts.RESOURCE_NAMES.items()}
IN_PATH = {
    "loadbalancer_id": "loadbalancer",
    "listener_id": "listener",
    "pool_id": "pool",
    "member_id": "member",
    "healthmonitor_id": "healthmonitor",
    "l7policy_id": "l7policy",
    "l7rule_id": "rule",
}
OWN = [name for name, key in KEYS.items() if key in TREE]


def filled(path: str, ids: Mapping[str, str]) -> str:
    return re.sub(r"{(\w+)}", lambda found: ids[IN_PATH[found[1]]], path)


async def body_of(family: Family, key: str, operation: str) -> Any:
    match operation:
        case "create":
            return {key: await family.minimum(key)}
        case "update":
            return {key: {"admin_state_up": True}}
        case "batch_update":
            return {"members": [await family.minimum("member")]}
        case _:
            return None


@pytest.mark.parametrize("resource", OWN)
async def test_operations(world: World, ledger: Ledger, resource: str) -> None:
    key = KEYS[resource]
    table = facts.resources()["resources"][resource]
    nobody = Family(world, dict.fromkeys(IN_PATH.values(), UNKNOWN))
    for operation in table["operations"]:
        family = await Family.born(world)
        name, path = operation["id"], filled(operation["path"], family.ids)
        body = await body_of(family, key, name)
        query = "?cascade=true" if (key, name) == ("loadbalancer", "delete") else ""

        async def ask(where: str, method: str = operation["method"], body: Any = body) -> Answer:
            return await world.call(method, where, None if body is None else encoded(body))

        if operation["method"] == "GET":
            for prefix in ("/v2.0/", "/v2/"):
                alias = path.replace("/v2/", prefix, 1)
                ledger.check(f"{name} under {prefix}", operation["success"], (await ask(alias)).status)
            for suffix in ("/", ".json"):
                ledger.check(f"{name} with {suffix}", operation["success"], (await ask(path + suffix)).status)
            if "parent" not in table:
                without = path.replace("/lbaas", "", 1)
                ledger.check(f"{name} without lbaas", operation["success"], (await ask(without)).status)
        if "{" in operation["path"]:
            answer = await ask(filled(operation["path"], nobody.ids))
            ledger.check(f"{name} of what is not there", 404, answer.status, answer.body)
            if "parent" in table and f"{{{table['parent']}_id}}" in operation["path"]:
                stranger = await Family.born(world)
                ids = {**family.ids, table["parent"]: UNKNOWN}
                answer = await ask(filled(operation["path"], ids))
                ledger.check(f"{name} below an unknown parent", 404, answer.status, answer.body)
                if operation["path"].count("{") == 2:
                    ids[table["parent"]] = stranger.ids[table["parent"]]
                    answer = await ask(filled(operation["path"], ids))
                    ledger.check(f"{name} below another parent", 404, answer.status, answer.body)
        if name in ("create", "update", "delete"):
            unknown = await ask(f"{path}?colour=red")
            ledger.check(f"{name} with an unknown argument", 400, unknown.status, unknown.body)
        answer = await ask(path + query)
        ledger.check(f"{name} succeeds", operation["success"], answer.status, answer.body)
        check_envelope(ledger, table, name, answer)
    for method in ("PATCH", "HEAD"):
        answer = await world.call(method, nobody.path(key))
        ledger.check(f"{method} on the collection", 405, answer.status)


def check_envelope(ledger: Ledger, table: Any, name: str, answer: Answer) -> None:
    envelopes = {
        "list": {table["collection_key"], table["links_key"]},
        "stats": {"stats"},
        "status": {"statuses"},
        **{x: {table["item_key"]} for x in ("create", "show", "update")},
    }
    if name in envelopes:
        ledger.check(f"{name} has its envelope", envelopes[name], set(answer.json))
    else:
        ledger.check(f"{name} has no body", b"", answer.body)
    if name == "stats":
        keys = {"active_connections", "bytes_in", "bytes_out", "request_errors", "total_connections"}
        ledger.check("stats has its keys", keys, set(answer.json["stats"]))


async def test_status_tree(world: World, ledger: Ledger) -> None:
    family = await Family.born(world)
    await family.update("listener", default_pool_id=family.ids["pool"])
    answer = await world.call("GET", f"{family.item('loadbalancer')}/status")
    tree = answer.json["statuses"]["loadbalancer"]
    listener = tree["listeners"][0]
    pool = listener["pools"][0]
    table = facts.resources()["resources"]["loadbalancer"]["status_tree"]
    seen = {
        "loadbalancer": tree,
        "listeners[]": listener,
        "pools[]": pool,
        "health_monitor": pool["health_monitor"],
        "members[]": pool["members"][0],
    }
    for part, shown in seen.items():
        ledger.check(f"keys of {part}", {x.split(" ")[0] for x in table[part]}, set(shown))
    ledger.check("pools without a listener do not appear", 1, len(listener["pools"]))
    spare = await family.made("pool")
    await family.made("l7policy", action="REDIRECT_TO_POOL", redirect_pool_id=spare)
    tree = (await world.call("GET", f"{family.item('loadbalancer')}/status")).json["statuses"]["loadbalancer"]
    ledger.check("a policy without rules adds no pool", 1, len(tree["listeners"][0]["pools"]))
    alias = await world.call("GET", f"{family.item('loadbalancer')}/statuses")
    ledger.check("statuses is another name", tree, alias.json["statuses"]["loadbalancer"])


# ---------------------------------------------------------------- states

OF_PATH = {"healthmonitor": "healthmonitors", "l7policy": "l7policies"}
BRANCHES = {
    "listener": "listeners",
    "pool": "pools",
    "member": "members",
    "healthmonitor": "health_monitors",
    "l7policy": "l7_policies",
    "l7rule": "l7_rules",
}
WORDS = {"attached listeners": "listener", "listener (if listener_id)": "listener", "listener": "listener"}


async def statuses(world: World, load_balancer_id: str) -> dict[str, str]:
    tree = await world.tree(load_balancer_id)
    objects = (tree.load_balancer, *tree.children())
    return {x.id: x.provisioning_status.value for x in objects}


async def test_what_moves_at_request_time(world: World, ledger: Ledger) -> None:
    """Every row of transitions_at_request about a tree, from everything being ACTIVE."""
    table = facts.behaviours()["states"]["transitions_at_request"]
    for row, moves in table.items():
        what, verb = row.split(" ", 1)
        if what == "amphora" or verb in ("create nested", "batch"):
            continue
        family = await Family.born(world)
        ids = family.ids
        if row == "healthmonitor create":
            ids["pool"] = await family.made("pool")  # which has none
        await family.update("listener", default_pool_id=ids["pool"])
        await world.settle(ids["loadbalancer"])
        key = KEYS[what]
        answer = await act(family, key, verb)
        assert answer.status < 300, (row, answer.body)
        subject = answer.one(key)["id"] if verb == "create" else ids[key]
        load_balancer_id = subject if row == "loadbalancer create" else ids["loadbalancer"]
        after = await statuses(world, load_balancer_id)
        expected = dict.fromkeys(after, "ACTIVE")
        for word, status in moves.items():
            named = WORDS.get(word, word)
            if named == "children":
                continue
            if named == what:
                expected[subject] = status
            elif word == "listener (if listener_id)":
                continue
            else:
                expected[ids[KEYS[named]]] = status
        owned = possessions(family, key) if verb == "delete" and key != "loadbalancer" else ()
        for child in owned:
            expected[child] = "PENDING_DELETE"
        for n, (object_id, status) in enumerate(expected.items()):
            other = "the new one" if object_id == subject else f"another, number {n}"
            who = next((name for name, known in ids.items() if known == object_id), other)
            ledger.check(f"{row}: {who}", status, after[object_id])


async def test_pool_of_a_listener_moves_it_at_request_time(world: World, ledger: Ledger) -> None:
    family = await Family.born(world)
    await world.settle(family.ids["loadbalancer"])
    pool_id = await family.made("pool", listener_id=family.ids["listener"])
    after = await statuses(world, family.ids["loadbalancer"])
    moves = facts.behaviours()["states"]["transitions_at_request"]["pool create"]
    ledger.check("listener", moves["listener (if listener_id)"], after[family.ids["listener"]])
    ledger.check("pool", moves["pool"], after[pool_id])


def possessions(family: Family, key: str) -> list[str]:
    """What goes with an object: behaviours.yaml delete_rules."""
    owned = {"listener": ("l7policy", "rule"), "pool": ("member", "healthmonitor"), "l7policy": ("rule",)}
    return [family.ids[x] for x in owned.get(key, ())]


async def act(family: Family, key: str, verb: str) -> Answer:
    match verb:
        case "create":
            if key == "healthmonitor":
                monitor = {"pool_id": family.ids["pool"], "type": "TCP", "delay": 1, "timeout": 1, "max_retries": 1}
                return await family.world.call("POST", "healthmonitors", {key: monitor})
            return await family.create(key)
        case "update":
            return await family.update(key, admin_state_up=False)
        case "delete":
            query = "?cascade=true" if key == "loadbalancer" else ""
            return await family.world.call("DELETE", family.item(key) + query)
        case _:
            return await family.world.call("PUT", f"{family.item(key)}/failover")


async def test_whole_tree_and_batch_move_at_request_time(world: World, ledger: Ledger) -> None:
    family = await Family.born(world)
    for object_id, status in (await statuses(world, family.ids["loadbalancer"])).items():
        ledger.check(f"whole tree: {object_id}", "PENDING_CREATE", status)
    ids = family.ids
    await family.update("listener", default_pool_id=ids["pool"])
    spare = await family.made("member", address="192.0.2.99", protocol_port=99)
    for additive in (True, False):
        await world.settle(ids["loadbalancer"])
        body = {"members": [{"address": "192.0.2.1", "protocol_port": 80}]}
        body["members"].append({"address": "192.0.2.2", "protocol_port": 81 + additive})
        answer = await world.call("PUT", f"{family.path('member')}?additive_only={additive}", body)
        assert answer.status == 202, answer.body
        after = await statuses(world, ids["loadbalancer"])
        tree = await world.tree(ids["loadbalancer"])
        (new,) = (x.id for x in tree.members if x.protocol_port == 81 + additive)
        moves = facts.behaviours()["states"]["transitions_at_request"]["member batch"]
        for word, object_id in (
            ("loadbalancer", ids["loadbalancer"]),
            ("attached listeners", ids["listener"]),
            ("pool", ids["pool"]),
            ("new", new),
            ("matched", ids["member"]),
            ("untouched (additive)" if additive else "removed", spare),
        ):
            ledger.check(f"batch, additive {additive}: {word}", moves[word], after[object_id])


async def test_gates_of_strict_immutability(database: Any, ledger: Ledger) -> None:
    """What states.gate says of every operation and every status of the load balancer, with immutable = "strict"."""
    strict = ApiSettings(immutable=Immutability.STRICT)
    world = await World.open(database, EVERYTHING, strict)
    states = facts.behaviours()["states"]
    allowed = {"delete": states["deletable_loadbalancer"], "failover": states["failover_loadbalancer"]}
    try:
        for status in ("ACTIVE", "ERROR", "PENDING_CREATE", "PENDING_UPDATE"):
            for key in TREE:
                for verb in (
                    ("create", "update", "delete", "failover") if key == "loadbalancer" else ("update", "delete")
                ):
                    family = await Family.born(world)
                    await world.settle(family.ids["loadbalancer"])
                    await world.settle(family.ids["loadbalancer"], ProvisioningStatus(status))
                    if (key, verb) == ("loadbalancer", "create"):
                        continue
                    answer = await act(family, key, verb)
                    may = allowed.get(verb, states["mutable"]) if key == "loadbalancer" else states["mutable"]
                    ledger.check(f"{status}: {verb} {key}", status in may, answer.status != 409, answer.body)
                    shown = await world.call("GET", family.item(key))
                    ledger.check(f"{status}: read {key} after {verb}", 200, shown.status)
    finally:
        await world.close()


async def test_delete_rules(world: World, ledger: Ledger) -> None:
    rules = facts.behaviours()["delete_rules"]
    family = await Family.born(world)
    balancer = family.item("loadbalancer")
    without = rules["loadbalancer"]["without_cascade"]["else"]
    for value in ("", "?cascade=false", "?cascade=0", "?cascade=perhaps"):
        answer = await world.call("DELETE", balancer + value)
        ledger.check(f"load balancer with children {value}", without, answer.status, answer.body)
    for value in ("true", "1", "t", "y", "yes", "on", "TRUE", "On"):
        family = await Family.born(world)
        answer = await world.call("DELETE", f"{family.item('loadbalancer')}?cascade={value}")
        ledger.check(f"cascade={value}", 204, answer.status, answer.body)
        again = await world.call("DELETE", f"{family.item('loadbalancer')}?cascade=true")
        ledger.check(f"cascade={value}, again", 409, again.status, again.body)
    family = await Family.born(world)
    await family.update("listener", default_pool_id=family.ids["pool"])
    redirect = await family.made("l7policy", action="REDIRECT_TO_POOL", redirect_pool_id=family.ids["pool"])
    answer = await world.call("DELETE", family.item("pool"))
    ledger.check("pool that a policy redirects to", 409, answer.status, answer.body)
    await world.call("DELETE", family.item("l7policy", redirect))
    answer = await world.call("DELETE", family.item("pool"))
    ledger.check("pool that is a default pool", 204, answer.status, answer.body)
    ledger.check("its listener loses it", None, (await family.show("listener"))["default_pool_id"])
    family = await Family.born(world)
    await family.update("listener", default_pool_id=family.ids["pool"])
    await world.call("DELETE", family.item("listener"))
    gone = {x.id for x in (await world.tree(family.ids["loadbalancer"])).children() if x.delete_requested}
    ledger.check("listener takes policies and rules", {family.ids[x] for x in ("listener", "l7policy", "rule")}, gone)
    family = await Family.born(world)
    await world.settle(family.ids["loadbalancer"])
    await world.call("DELETE", family.item("healthmonitor"))
    ledger.check("members are no longer watched", "NO_MONITOR", (await family.show("member"))["operating_status"])
    family = await Family.born(world)
    second = await family.made("l7policy")
    third = await family.made("l7policy")
    await world.call("DELETE", family.item("l7policy"))
    positions = [(await family.show("l7policy", x))["position"] for x in (second, third)]
    ledger.check("remaining policies count from 1", [1, 2], positions)


async def test_parents_that_are_not_there(world: World, ledger: Ledger) -> None:
    for key, wire, extra in (
        ("listener", "loadbalancer_id", {}),
        ("pool", "loadbalancer_id", {}),
        ("pool", "listener_id", {}),
        ("healthmonitor", "pool_id", {}),
        ("l7policy", "listener_id", {}),
        ("listener", "default_pool_id", {}),
        ("l7policy", "redirect_pool_id", {"action": "REDIRECT_TO_POOL"}),
    ):
        family, other = await Family.born(world), await Family.born(world)
        answer = await family.create(key, **{wire: UNKNOWN}, **extra)
        ledger.check(f"{key}.{wire} unknown", 404, answer.status, answer.body)
        ledger.check(f"{key}.{wire} unknown: is named", True, UNKNOWN in answer.fault)
        if wire in ("default_pool_id", "redirect_pool_id") or (key, wire) == ("pool", "listener_id"):
            foreign = other.ids["listener" if wire == "listener_id" else "pool"]
            answer = await family.create(key, **{wire: foreign}, **extra)
            ledger.check(f"{key}.{wire} of another load balancer", 404, answer.status, answer.body)
    body = {"pool": {"protocol": "HTTP", "lb_algorithm": "ROUND_ROBIN"}}
    answer = await world.call("POST", "pools", body)
    ledger.check("pool without any parent", 400, answer.status, answer.body)


async def test_whole_trees(world: World, ledger: Ledger) -> None:
    """What nested_create says of pools: defined once, named elsewhere."""
    family = await Family.born(world)
    pool = family.sample_pool()
    listener: Any = {"protocol": "HTTP", "protocol_port": 80}
    named = {"name": pool["name"]}
    redirect = {"action": "REDIRECT_TO_POOL", "redirect_pool": named}
    cases: dict[str, tuple[Any, int]] = {
        "definition as default pool": ({"listeners": [{**listener, "default_pool": pool}]}, 201),
        "name of a pool at the top": ({"pools": [pool], "listeners": [{**listener, "default_pool": named}]}, 201),
        "name of nothing": ({"listeners": [{**listener, "default_pool": named}]}, 400),
        "name as redirect pool": ({"pools": [pool], "listeners": [{**listener, "l7policies": [redirect]}]}, 201),
        "one name, two definitions": ({"pools": [pool], "listeners": [{**listener, "default_pool": pool}]}, 400),
        "default pool without a name": (
            {"listeners": [{**listener, "default_pool": {"protocol": "HTTP", "lb_algorithm": "ROUND_ROBIN"}}]},
            400,
        ),
        "top pool without a name": ({"pools": [{"protocol": "HTTP", "lb_algorithm": "ROUND_ROBIN"}]}, 201),
        "definition without a protocol": ({"pools": [{"name": "a", "lb_algorithm": "ROUND_ROBIN"}]}, 400),
        "definition without an algorithm": ({"pools": [{"name": "a", "protocol": "HTTP"}]}, 400),
        "null children": ({"listeners": None, "pools": None}, 201),
        "pool with TLS and nothing else": ({"pools": [{**pool, "tls_enabled": True}]}, 201),
        "persistence that does not fit": (
            {"pools": [{**family.sample_pool("UDP"), "session_persistence": {"type": "HTTP_COOKIE"}}]},
            400,
        ),
        "members twice": ({"pools": [{**pool, "members": [{"address": "192.0.2.1", "protocol_port": 1}] * 2}]}, 409),
        "member and monitor": ({"pools": [{**pool, "members": [{"address": "192.0.2.1", "protocol_port": 1}]}]}, 201),
    }
    for name, (tree, status) in cases.items():
        world.network.vips.clear()
        body = {"loadbalancer": {"vip_subnet_id": (await family.minimum("loadbalancer"))["vip_subnet_id"], **tree}}
        answer = await world.call("POST", "loadbalancers", body)
        ledger.check(name, status, answer.status, answer.body)
    forbidden = facts.behaviours()["nested_create"]["forbidden_in_children"]
    for key in TREE[1:]:
        for wire in forbidden:
            answer, _ = await family.create_nested(key, **{wire: UNKNOWN})
            ledger.check(f"{wire} in {key}", 400, answer.status, answer.body)


def test_every_operation_of_the_contract_is_looked_at() -> None:
    """The others are amphorae, offers and quotas, which have tests of their own."""
    rest = set(facts.resources()["resources"]) - set(OWN)
    assert rest == {
        "amphora",
        "availabilityzone",
        "availabilityzoneprofile",
        "flavor",
        "flavorprofile",
        "provider",
        "provider_availability_zone_capabilities",
        "provider_flavor_capabilities",
        "quota",
    }
    assert resource_of("pool")["collection_key"] == "pools"
