"""The published examples: every request is taken, and every answer has the example's keys, each of its type.

Ids in a request are replaced by those of objects that are there, as a reader of the reference would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from frontinus.testing.fake_network import FAKE_SUBNET, FAKE_SUBNET_V6

from tests.contract import facts
from tests.integration.api.contract.family import Family
from tests.integration.api.contract.ledger import Ledger, type_name
from tests.integration.api.world import Answer, World

EXAMPLES = sorted(x.stem for x in (Path(facts.HERE) / "examples").glob("*.json"))
WORDS = {"l7rule": "rule"}
LEFT_OUT = ("flavor_id", "vip_qos_policy_id")
"""What examples ask for in vain: one has an empty text for a flavor, which is no UUID and was never taken; and the network
of these tests knows no QoS."""


def request(name: str, ids: dict[str, str]) -> Any:
    body = facts.example(f"{name}-request")
    known: dict[str, Any] = {
        "vip_subnet_id": FAKE_SUBNET.id,
        "subnet_id": FAKE_SUBNET.id,
        "vip_address": "198.51.100.50",
        "additional_vips": [{"subnet_id": FAKE_SUBNET_V6.id, "ip_address": "2001:db8::b33f"}],
        "loadbalancer_id": ids["loadbalancer"],
        "listener_id": ids["listener"],
        "pool_id": ids["spare"],
        "default_pool_id": ids["pool"],
        "redirect_pool_id": ids["pool"],
    }

    def filled(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: known.get(name, filled(content)) for name, content in value.items() if name not in LEFT_OUT}
        return [filled(x) for x in value] if isinstance(value, list) else value

    return filled(body)


def compare(ledger: Ledger, where: str, example: Any, shown: Any) -> None:
    """Every key of the example is there with a value of its type; null fits where nothing was said."""
    for name, value in example.items():
        fact = f"{where}.{name}"
        if not ledger.check(f"{fact} is there", True, name in shown):
            continue
        kinds = {type_name(value), type_name(shown[name])}
        fits = len(kinds) == 1 or "null" in kinds or kinds == {"integer", "number"} or value == ""
        ledger.check(f"{fact} has its type", True, fits, (value, shown[name]))
        if isinstance(value, dict) and isinstance(shown[name], dict) and name != "insert_headers":
            compare(ledger, fact, value, shown[name])
        if isinstance(value, list) and isinstance(shown[name], list) and value and shown[name]:
            kind = type_name(value[0])
            ledger.check(f"{fact}[] has its type", kind, type_name(shown[name][0]))
            if kind == "object":
                likest = max(shown[name], key=lambda x: len(set(x) & set(value[0])))
                compare(ledger, f"{fact}[]", value[0], likest)


async def prepared(world: World) -> Family:
    family = await Family.born(world)
    family.ids["spare"] = await family.made("pool")
    await family.made("availability_zone", name="my_az")
    return family


async def ask(family: Family, name: str) -> Answer:
    """What an example's request is sent to."""
    world, ids = family.world, family.ids
    resource, verb = name.split("-", 1)
    key = WORDS.get(resource, resource)
    world.network.vips.clear()
    if name == "member-batch-update":
        return await world.call("PUT", family.path("member"), request(name, ids))
    if name == "loadbalancer-full-create":
        return await world.call("POST", "loadbalancers", request(name, ids))
    if verb == "create":
        return await world.call("POST", family.path(key), request(name, ids))
    item_id = ids[key]
    if key == "listener":  # the example changes one that terminates TLS, and asks for no clients' certificates any more
        made = request("listener-create", ids)["listener"]
        asked = {x: y for x, y in made.items() if not x.startswith("client_") and x != "protocol_port"}
        item_id = await family.made("listener", **asked)
    return await world.call("PUT", family.item(key, item_id), request(name, ids))


REQUESTS = [x.removesuffix("-request") for x in EXAMPLES if x.endswith("-request")]


@pytest.mark.parametrize("name", REQUESTS)
async def test_examples(world: World, ledger: Ledger, name: str) -> None:
    family = await prepared(world)
    answer = await ask(family, name)
    success = {"create": 201, "update": 200}[name.rpartition("-")[2]]
    status = 202 if "batch" in name else success
    if not ledger.check("request is taken", status, answer.status, answer.body):
        return
    sent = request(name, family.ids)
    key = WORDS.get(name.split("-", maxsplit=1)[0], name.split("-", maxsplit=1)[0])
    if name.endswith(("create", "update")) and "batch" not in name:
        example = facts.example(f"{name}-response")[key]
        # One of the published examples puts its object into a list, which nothing ever answered.
        compare(
            ledger, "answer", without_left_out(example[0] if isinstance(example, list) else example), answer.one(key)
        )
        for wire, value in sent[key].items():
            shown = answer.one(key).get(wire)
            if not isinstance(value, list | dict) and wire in answer.one(key) and wire != "project_id":
                ledger.check(f"{wire} is taken over", str(value).lower(), str(shown).lower())


def without_left_out(example: Any) -> Any:
    return {name: value for name, value in example.items() if name not in LEFT_OUT}


async def test_examples_of_reads(world: World, ledger: Ledger) -> None:
    family = await prepared(world)
    await family.update("listener", default_pool_id=family.ids["pool"])
    for name in ("loadbalancer", "listener", "pool", "member", "healthmonitor", "l7policy", "l7rule"):
        key = WORDS.get(name, name)
        example = facts.example(f"{name}-show-response")
        compare(ledger, f"{name}-show", example[key], await family.show(key))
        plural = {"l7policy": "l7policies"}.get(name, f"{name}s")
        listed = facts.example(f"{plural}-list-response")
        answer = (await world.call("GET", family.path(key))).json
        compare(ledger, f"{plural}-list", listed, answer)
    for name in ("loadbalancer", "listener"):
        stats = (await world.call("GET", f"{family.item(name)}/stats")).json
        compare(ledger, f"{name}-stats", facts.example(f"{name}-stats-response"), stats)
    tree = (await world.call("GET", f"{family.item('loadbalancer')}/status")).json
    compare(ledger, "loadbalancer-status", facts.example("loadbalancer-status-response"), tree)


READS = {
    "amphora-show-stats-response": "test_amphorae.py, which has amphorae with statistics",
    "pool-session-persistence-obj": "a part of the pool's",
}


def test_no_example_is_left_out() -> None:
    written = {f"{x}-request" for x in REQUESTS} | {f"{x}-response" for x in REQUESTS} | set(READS)
    kinds = ("show", "list", "stats", "status")
    rest = {x for x in EXAMPLES if x not in written and not any(f"-{kind}-response" in x for kind in kinds)}
    assert rest == set()
