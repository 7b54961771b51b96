"""Quotas, flavors, zones, their profiles and providers by the contract's data, as far as their attributes are not looked
at in test_fields.py: operations, limits, what is in use, filters."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from tests.contract import facts
from tests.integration.api.contract import samples
from tests.integration.api.contract.family import OFFERS, Family
from tests.integration.api.contract.ledger import Ledger
from tests.integration.api.world import UNKNOWN, World

RESOURCES = facts.resources()["resources"]
QUOTA = RESOURCES["quota"]["fields"]
SPELLINGS = {"load_balancer": "loadbalancer", "health_monitor": "healthmonitor"}


def succeeds(resource: str, operation: str) -> int:
    return int(next(x["success"] for x in RESOURCES[resource]["operations"] if x["id"] == operation))


async def test_limits_of_quotas(world: World, ledger: Ledger) -> None:
    updated = succeeds("quota", "update")
    for wire, fact in QUOTA.items():
        path = f"quotas/of-{wire}"
        if not fact["update"]["accepted"]:
            answer = await world.call("PUT", path, {"quota": {wire: "x"}})
            ledger.check(f"{wire} is not taken", 400, answer.status, answer.body)
            continue
        for case in samples.wrong(wire, fact):
            answer = await world.call("PUT", path, {"quota": {wire: case.sent}})
            ledger.check(f"{wire} {case.label}", 400, answer.status, answer.body)
        listed = (await world.call("GET", "quotas")).json["quotas"]
        ledger.check(
            f"{wire}: refusals leave no record", False, path.split("/")[1] in {x["project_id"] for x in listed}
        )
        for case in samples.right(wire, fact, {}):
            answer = await world.call("PUT", path, {"quota": {wire: case.sent}})
            if ledger.check(f"{wire} {case.label}", updated, answer.status, answer.body):
                ledger.check(f"{wire} {case.label} is shown", case.shown, answer.json["quota"][wire])
                other = {**SPELLINGS, **{y: x for x, y in SPELLINGS.items()}}.get(wire, wire)
                read = (await world.call("GET", path)).one("quota")
                ledger.check(f"{wire} {case.label} is read back", (case.shown,) * 2, (read[wire], read[other]))
        answer = await world.call("PUT", path, {"quota": {wire: None}})
        ledger.check(f"{wire} null", fact["update"]["null"]["status"], answer.status, answer.body)
        ledger.check(f"{wire} null means the default", fact["default"], answer.json["quota"][wire])
    for old, new in SPELLINGS.items():
        answer = await world.call("PUT", "quotas/both", {"quota": {new: 1, old: 2}})
        ledger.check(f"{new} wins over {old}", 1, answer.json["quota"][old])


async def test_operations_of_quotas(world: World, ledger: Ledger) -> None:
    for path in ("quotas/nobody", "quotas/nobody/default", "quotas/defaults"):
        answer = await world.call("GET", path)
        ledger.check(f"{path} shows defaults", 200, answer.status, answer.body)
        expected = {wire for wire, fact in QUOTA.items() if fact["in_response"]}
        ledger.check(f"{path} shows all", expected, set(answer.one("quota")) - {"fault"})
    ledger.check("nobody's is not listed", [], (await world.call("GET", "quotas")).json["quotas"])
    answer = await world.call("DELETE", "quotas/nobody")
    ledger.check("reset of nobody's", facts.behaviours()["quotas"]["reset_unknown_project"], answer.status)
    answer = await world.call("PUT", "quotas/p", {"quota": {}})
    ledger.check("an empty change", succeeds("quota", "update"), answer.status, answer.body)
    wrong: tuple[Any, ...] = ({}, {"quota": None}, {"quota": []}, [])
    for body in wrong:
        answer = await world.call("PUT", "quotas/p", body)
        ledger.check(f"body {body}", 400, answer.status, answer.body)
    await world.call("PUT", "quotas/p", {"quota": {"pool": 5}})
    await world.call("PUT", "quotas/q", {"quota": {"pool": 6}})
    listed = (await world.call("GET", "quotas")).json
    ledger.check("list has its envelope", {"quotas", "quotas_links"}, set(listed))
    ledger.check("list shows who has a record", {"p", "q"}, {x["project_id"] for x in listed["quotas"]})
    for name in facts.resources()["filterable"]["quotas"]:
        value = {"project_id": "p", "pool": 5}.get(name, -1)
        found = (await world.call("GET", f"quotas?{name}={value}")).json["quotas"]
        expected = {"p"} if name in ("project_id", "pool") else {"p", "q"}
        ledger.check(f"filter {name}", expected, {x["project_id"] for x in found})
        ordered = await world.call("GET", f"quotas?sort={name}:desc")
        ledger.check(f"sort {name}", 200, ordered.status, ordered.body)
    answer = await world.call("DELETE", "quotas/p")
    ledger.check("reset", succeeds("quota", "reset"), answer.status)
    ledger.check("reset has no body", b"", answer.body)
    ledger.check("then the default holds", -1, (await world.call("GET", "quotas/p")).one("quota")["pool"])
    for method in ("POST", "PATCH"):
        answer = await world.call(method, "quotas", {"quota": {}})
        ledger.check(f"{method} on quotas", True, answer.status in (400, 405), answer.status)


@pytest.mark.parametrize("key", OFFERS)
async def test_operations(world: World, ledger: Ledger, key: str) -> None:
    resource, table = OFFERS[key], RESOURCES[OFFERS[key]]
    family = await Family.born(world)
    is_zone = key == "availability_zone"
    answer = await family.create(key)
    ledger.check("create", succeeds(resource, "create"), answer.status, answer.body)
    made = answer.one(key)
    item_id = made["name"] if is_zone else made["id"]
    listed = await world.call("GET", family.path(key))
    links_key = table["links_key"].split(" ")[0]
    ledger.check("list", {table["collection_key"], links_key}, set(listed.json))
    for method, body, name in (("GET", None, "show"), ("PUT", {key: {}}, "update")):
        answer = await world.call(method, family.item(key, item_id), body)
        ledger.check(name, succeeds(resource, name), answer.status, answer.body)
    hidden = "00000000-0000-0000-0000-000000000000"
    for nobody in (UNKNOWN, hidden, "nobody"):
        for method, body in (("GET", None), ("PUT", {key: {}}), ("DELETE", None)):
            answer = await world.call(method, family.item(key, nobody), body)
            ledger.check(f"{method} of {nobody}", 404, answer.status, answer.body)
    again = await family.create(key, name=made["name"])
    is_unique = key in ("flavor", "availability_zone")
    ledger.check("the same name", 409 if is_unique else 201, again.status, again.body)
    for name in facts.resources()["filterable"][table["collection_key"]]:
        value = str(made[name]).lower() if isinstance(made[name], bool) else made[name]
        found = await world.call("GET", f"{family.path(key)}?{name}={quote(str(value), safe='')}")
        ledger.check(f"filter {name}", True, made in found.json[table["collection_key"]], found.body)
        for direction in ("asc", "desc"):
            ordered = (await world.call("GET", f"{family.path(key)}?sort={name}:{direction}")).json
            values = [x[name] for x in ordered[table["collection_key"]]]
            ledger.check(f"sort {name} {direction}", sorted(values, reverse=direction == "desc"), values)
    for wrong in ("colour=x", "tags=x", "sort=colour"):
        answer = await world.call("GET", f"{family.path(key)}?{wrong}")
        ledger.check(f"{wrong} is refused", 400, answer.status, answer.body)
    answer = await world.call("DELETE", family.item(key, item_id))
    ledger.check("delete", succeeds(resource, "delete"), answer.status, answer.body)


async def test_what_offers_stand_on(world: World, ledger: Ledger) -> None:
    family = await Family.born(world)
    for offer, profile, attribute, data in (
        ("flavor", "flavorprofile", "flavor_profile_id", "flavor_data"),
        ("availability_zone", "availability_zone_profile", "availability_zone_profile_id", "availability_zone_data"),
    ):
        profile_id = await family.made(profile)
        made = await family.made(offer, **{attribute: profile_id})
        answer = await world.call("DELETE", family.item(profile, profile_id))
        ledger.check(f"{profile} in use is not deleted", 409, answer.status, answer.body)
        for wire, value, status in (
            (data, '{"valid_vip_networks": []}', 409),
            ("provider_name", "octavia", 409),
            ("name", "n", 200),
        ):
            sent = '{"loadbalancer_topology": "SINGLE"}' if wire == "flavor_data" else value
            answer = await family.update(profile, profile_id, **{wire: sent})
            ledger.check(f"{profile}.{wire} in use", status, answer.status, answer.body)
        answer = await family.create(offer, **{attribute: UNKNOWN})
        ledger.check(f"{offer} of an unknown profile", 400, answer.status, answer.body)
        answer = await family.create(profile, provider_name="nobody")
        ledger.check(f"{profile} of an unknown provider", 400, answer.status, answer.body)
        answer = await family.create(profile, **{data: '{"no-such-key": 1}'})
        ledger.check(f"{profile} with an unknown key", 501, answer.status, answer.body)
        await world.call("DELETE", family.item(offer, made))
        answer = await world.call("DELETE", family.item(profile, profile_id))
        ledger.check(f"{profile} is free again", 204, answer.status, answer.body)
    answer = await family.create("flavor", name="one")
    other = await family.made("flavor", name="other")
    renamed = await family.update("flavor", other, name="one")
    ledger.check("a flavor is given a name that another has", 409, renamed.status, renamed.body)
    assert answer.status == 201


async def test_providers(world: World, ledger: Ledger) -> None:
    answer = await world.call("GET", "providers")
    ledger.check("list", {"providers"}, set(answer.json))
    ledger.check("keys", {"name", "description"}, set(answer.json["providers"][0]))
    names = {x["name"] for x in answer.json["providers"]}
    ledger.check("names", True, {"amphora", "octavia"} <= names)
    picked = (await world.call("GET", "providers?fields=name")).json["providers"]
    ledger.check("fields", {"name"}, set(picked[0]))
    ledger.check("no single one", True, (await world.call("GET", "providers/amphora")).status in (404, 405))
    for word, resource in (
        ("flavor_capabilities", "provider_flavor_capabilities"),
        ("availability_zone_capabilities", "provider_availability_zone_capabilities"),
    ):
        path = f"providers/amphora/{word}"
        shown = (await world.call("GET", path)).json
        ledger.check(f"{word}: envelope", {RESOURCES[resource]["collection_key"]}, set(shown))
        known: list[Any] = shown[word]
        added = {x["name"] for x in known} - set(RESOURCES[resource]["amphora_values"])
        ledger.check(f"{word}: keys", len(RESOURCES[resource]["amphora_values"]), len(known) - len(added))
        ledger.check(f"{word}: keys of our own", True, added <= {"threads", "max_connections", "max_memory"}, added)
        for one in known:
            for name in ("name", "description"):
                found = (await world.call("GET", f"{path}?{name}={quote(one[name], safe='')}")).json[word]
                ledger.check(f"{word}: {one['name']} by {name}", [one], found)
        unknown = await world.call("GET", f"providers/nobody/{word}")
        ledger.check(f"{word} of nobody", 400, unknown.status, unknown.body)
