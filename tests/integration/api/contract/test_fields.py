"""Every attribute of every resource in resources.yaml, exercised over HTTP from what the contract says of it.

Where it is taken, whether it must be there, its default, null, its type with all coercions, its bounds, words and
formats, on create, on update and inside a whole tree; where it is shown, and as what. Nothing here names a value of an
attribute: they are made in samples.py."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest

from frontinus.model.ids import PortId
from frontinus.model.tree import Vip
from frontinus.testing.fake_network import FAKE_SUBNET

from tests.integration.api.contract import samples
from tests.integration.api.contract.family import COMPANIONS, OFFERS, TREE, UPDATE_OF_NOTHING, Family, resource_of
from tests.integration.api.contract.ledger import Ledger, type_name
from tests.integration.api.world import SUBNET_ID, Answer, World

PROJECT = "default"
WORDS_OF_DEFAULTS: Mapping[str, Any] = {
    "http_method": "GET",
    "url_path": "/",
    "expected_codes": "200",
    "position": 2,
    "client_authentication": "NONE",
}
"""Defaults that the contract gives in words (`GET for HTTP/HTTPS, else null`; `appended`) for what a family makes."""


IS_OFFERED = ("flavor_id", "availability_zone")
"""Attributes of a load balancer that name an offer."""


def fields_of(key: str) -> dict[str, Any]:
    found: dict[str, Any] = resource_of(key)["fields"]
    not_taken = {"accepted": False}
    return {wire: {"create": not_taken, "update": not_taken} | fact for wire, fact in found.items()}


class Examination:
    """One attribute of one resource under every operation."""

    def __init__(self, ledger: Ledger, world: World, key: str, wire: str, fact: Any) -> None:
        self.ledger, self.world, self.key, self.wire, self.fact = ledger, world, key, wire, fact
        self.companions = dict(COMPANIONS.get(key, {}).get(wire, {}))
        self.companions.pop(wire, None)
        self._fitting: str | None = None

    async def run(self) -> None:
        self.family = await Family.born(self.world)
        port = PortId(samples.UUID.lower())
        vip = Vip(address="198.51.100.10", subnet_id=FAKE_SUBNET.id, network_id=FAKE_SUBNET.network_id, port_id=port)
        self.world.network.brought_ports = {port: vip}
        self.ids = {**self.family.ids, "subnet": SUBNET_ID, "network": FAKE_SUBNET.network_id, "port": port}
        if self.wire == "pool_id":
            self.ids["spare_pool"] = await self.world.pool(self.ids["loadbalancer"])
        if self.key in OFFERS or self.wire in IS_OFFERED:
            for offer in OFFERS:
                self.ids[offer] = self.family.ids[offer] = await self.family.made(offer)
        await self.examine_create()
        await self.examine_update()
        if self.key in TREE and "nested_create" in self.fact:
            await self.examine_nested()
        await self.examine_answers()

    # ---------------------------------------------------------------- one check

    def expect(self, name: str, status: int, answer: Answer) -> bool:
        """Check the status, and that a refusal names the attribute."""
        fact = f"{self.wire} {name}"
        good = self.ledger.check(fact, status, answer.status, answer.body)
        if good and status == 400:
            self.ledger.check(f"{fact}: is named", True, self.wire in answer.fault, answer.fault)
        return answer.status < 300

    def shows(self, name: str, expected: Any, shown: Mapping[str, Any]) -> None:
        if not self.fact["in_response"]:
            return
        fact = f"{self.wire} {name}: is shown as"
        if self.wire == "position" and expected not in (None, samples.SOMETHING):
            # What is beyond the end is appended, and the contract's figures are those of its own experiments.
            expected = min(expected, shown["position"]) if "null" not in name else shown["position"]
        if expected is samples.SOMETHING:
            self.ledger.check(fact, True, shown.get(self.wire) is not None)
        else:
            self.ledger.check(fact, expected, shown.get(self.wire))

    # ---------------------------------------------------------------- operations

    async def create(self, **values: Any) -> Answer:
        if (self.key, self.wire) == ("listener", "protocol_port"):
            self.family = await Family.born(self.world)  # where the port is still free
        return await self.family.create(self.key, **{**self.companions, **values})

    async def examine_create(self) -> None:
        rule = self.fact["create"]
        if not rule["accepted"]:
            self.expect("at create", 400, await self.create(**{self.wire: "x"}))
            return
        if rule.get("required"):
            await self.examine_absence_at_create()
        elif "default" in rule:
            shown = (await self.family.create(self.key)).one(self.key)
            self.shows("absent at create", self.default(rule["default"]), shown)
        if "null" in rule:
            await self.examine_null_at_create(rule["null"])
        for case in samples.wrong(self.wire, self.fact):
            self.expect(f"at create, {case.label}", 400, await self.create(**{self.wire: case.sent}))
        for case in samples.right(self.wire, self.fact, self.ids):
            answer = await self.create(**{self.wire: case.sent})
            if self.expect(f"at create, {case.label}", 201 if case.taken else 400, answer):
                self.shows(f"at create, {case.label}", self.owned(case.shown), answer.one(self.key))
                await self.make_room(answer.one(self.key))

    async def examine_absence_at_create(self) -> None:
        body = {**await self.family.minimum(self.key), **self.companions}
        body.pop(self.wire, None)
        answer = await self.world.call("POST", self.family.path(self.key), {self.key: body})
        self.expect("absent at create", 400, answer)

    async def examine_null_at_create(self, null: Any) -> None:
        body = {**await self.family.minimum(self.key), self.wire: None}
        answer = await self.world.call("POST", self.family.path(self.key), {self.key: body})
        fact = f"{self.wire} null at create"
        self.ledger.check(fact, null["status"], answer.status, answer.body)
        if answer.status == 201:
            shown = answer.one(self.key)
            await self.make_room(shown)
            if null["result"] == "<not-in-response>":
                self.ledger.check(f"{fact}: is not shown", True, self.wire not in shown)
            elif self.wire in ("vip_address", "vip_port_id", "vip_network_id"):
                # The network decides, and the answer tells: behaviours.yaml vip_resolution.response.
                self.shows("null at create", samples.SOMETHING, shown)
            else:
                self.shows("null at create", PROJECT if null["result"] == "p" else null["result"], shown)

    def default(self, default: Any) -> Any:
        in_words = isinstance(default, str) and default not in ("", "NONE")
        return WORDS_OF_DEFAULTS.get(self.wire) if in_words else default

    async def make_room(self, made: Mapping[str, Any]) -> None:
        """For one more like the one just made: a pool has one monitor, a listener one default pool, a name one flavor."""
        if self.wire == "pool_id" or (self.key == "flavor" and self.wire == "name"):
            await self.world.call("DELETE", self.family.item(self.key, made["id"]))
        if (self.key, self.wire) == ("pool", "listener_id"):
            await self.family.update("listener", default_pool_id=None)

    def owned(self, shown: Any) -> Any:
        """A child belongs to the project of its load balancer, whatever was sent."""
        is_ignored = self.key in TREE and self.key != "loadbalancer" and self.wire in ("project_id", "tenant_id")
        return PROJECT if is_ignored else shown

    async def examine_update(self) -> None:
        rule = self.fact["update"]
        if not rule["accepted"]:
            self.expect("at update", 400, await self.family.update(self.key, self.ids[self.key], **{self.wire: "x"}))
            return
        item_id = await self.one_to_change()
        if "null" in rule:
            await self.examine_null_at_update(rule["null"], item_id)
        for case in samples.wrong(self.wire, self.fact):
            answer = await self.family.update(self.key, item_id, **{self.wire: case.sent})
            self.expect(f"at update, {case.label}", 400, answer)
        for case in samples.right(self.wire, self.fact, self.ids):
            item_id = await self.one_to_change()
            companions = self.changed_with(case)
            answer = await self.family.update(self.key, item_id, **companions, **{self.wire: case.sent})
            if self.expect(f"at update, {case.label}", 200, answer):
                self.shows(f"at update, {case.label}", case.shown, answer.one(self.key))

    async def one_to_change(self) -> str:
        """One that the attribute's own rules can be seen of."""
        if not self.companions:
            return self.ids[self.key]
        if self._fitting is None:
            self._fitting = await self.family.made(self.key, **self.companions)
        return self._fitting

    def changed_with(self, case: samples.Case) -> dict[str, Any]:
        if (self.key, self.wire) == ("l7policy", "action"):
            target = self.family.target_of(case.sent)
            return {name: value for name, value in target.items() if name != "action"}
        if (self.key, self.wire) == ("rule", "type"):
            needs = {"COOKIE": {"key": "a", "value": "b"}, "HEADER": {"key": "a"}, "SSL_DN_FIELD": {"key": "CN"}}
            values = {"SSL_CONN_HAS_CERT": {"value": "true"}, "SSL_VERIFY_RESULT": {"value": "0"}}
            return {"compare_type": "EQUAL_TO", **needs.get(case.sent, {}), **values.get(case.sent, {})}
        return {}

    async def examine_null_at_update(self, null: Any, item_id: str) -> None:
        plain = self.ids.get(self.key, item_id)
        before = await self.family.show(self.key, plain)
        answer = await self.family.update(self.key, plain, **{self.wire: None})
        self.ledger.check(f"{self.wire} null at update", null["status"], answer.status, answer.body)
        if answer.status != 200:
            self.ledger.check(f"{self.wire} null at update: is named", True, self.wire in answer.fault, answer.fault)
            return
        shown, result = answer.one(self.key), null["result"]
        if isinstance(result, str) and result.startswith("<configured"):
            self.ledger.check(f"{self.wire} null at update: is the default", True, "TLS_AES" in shown[self.wire])
        elif result == "unchanged":
            self.shows("null at update", before[self.wire], shown)
        else:
            self.shows("null at update", result, shown)

    # ---------------------------------------------------------------- inside a whole tree

    async def examine_nested(self) -> None:
        rule = self.fact["nested_create"]
        if not rule["accepted"]:
            answer, _ = await self.family.create_nested(self.key, **{self.wire: "x"})
            self.expect("nested", 400, answer)
            return
        fact = {**self.fact, "constraints": rule.get("constraints", self.fact.get("constraints", {}))}
        if rule.get("required"):
            await self.examine_absence_nested()
        elif "default" in self.fact["create"] and self.wire != "position":
            _, shown = await self.family.create_nested(self.key)
            self.shows("absent, nested", self.default(self.fact["create"]["default"]), shown)
        for case in samples.wrong(self.wire, fact):
            answer, _ = await self.family.create_nested(self.key, **{**self.companions, self.wire: case.sent})
            self.expect(f"nested, {case.label}", 400, answer)
        for case in samples.right(self.wire, fact, self.ids):
            values = {**self.companions, self.wire: case.sent}
            answer, shown = await self.family.create_nested(self.key, **values)
            taken = 201 if case.taken else 400
            if self.wire == "default_pool_id":
                taken = 404  # known, but nothing is there yet: behaviours.yaml nested_create.accepted_children
            if self.expect(f"nested, {case.label}", taken, answer):
                self.shows(f"nested, {case.label}", self.nested_result(case), shown)

    def nested_result(self, case: samples.Case) -> Any:
        # A policy is the only one of its listener here, whatever place it asks for.
        return 1 if (self.key, self.wire) == ("l7policy", "position") else case.shown

    async def examine_absence_nested(self) -> None:
        answer = await self.family.create_nested_without(self.key, self.wire)
        self.expect("absent, nested", 400, answer)

    # ---------------------------------------------------------------- answers

    async def examine_answers(self) -> None:
        made = (await self.family.create(self.key)).one(self.key)
        item_id = made["name"] if self.key == "availability_zone" else made["id"]
        shown = await self.family.show(self.key, item_id)
        changed = (await self.family.update(self.key, item_id, **UPDATE_OF_NOTHING.get(self.key, {}))).one(self.key)
        answer = await self.world.call("GET", self.family.path(self.key))
        listed = answer.json[resource_of(self.key)["collection_key"]][-1]
        for name, answer_of in (("create", made), ("show", shown), ("update", changed), ("list", listed)):
            is_full = self.key == "loadbalancer" and name == "create"
            self.ledger.check(f"{self.wire} is in the answer of {name}", self.is_shown(), self.wire in answer_of)
            if self.wire in answer_of and not is_full:
                value = answer_of[self.wire]
                fits = value is None or type_name(value) == self.fact["type"] or self.wire == "http_version"
                self.ledger.check(f"{self.wire} has its type in the answer of {name}", True, fits, value)
        if self.wire in shown:
            self.examine_format(shown[self.wire])
        shown = await self.family.show(self.key, item_id)
        picked = await self.world.call("GET", f"{self.family.item(self.key, item_id)}?fields={self.wire}")
        expected = {self.wire: shown[self.wire]} if self.wire in shown and self.wire != "tenant_id" else {}
        self.ledger.check(f"{self.wire} can be picked", expected, picked.one(self.key))
        if self.key in TREE and self.key != "loadbalancer" and self.fact["in_response"]:
            _, nested = await self.family.create_nested(self.key)
            in_full = self.fact.get("in_full_response", True)
            self.ledger.check(f"{self.wire} is in the answer to a whole tree", in_full, self.wire in nested)

    def is_shown(self) -> bool:
        # The one key that is absent when there is nothing to show: contract, defaulting.absent_key.
        return bool(self.fact["in_response"]) and self.wire != "healthmonitor_id"

    def examine_format(self, value: Any) -> None:
        formats = {
            "uuid": r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
            "timestamp": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?",
        }
        wanted = formats.get(self.fact.get("constraints", {}).get("format", ""))
        if wanted is not None:
            fits = value is None or re.fullmatch(wanted, value) is not None
            self.ledger.check(f"{self.wire} has its format", True, fits, value)


@pytest.mark.parametrize("key", [*TREE, *OFFERS])
async def test_attributes(world: World, ledger: Ledger, key: str) -> None:
    for wire, fact in fields_of(key).items():
        await Examination(ledger, world, key, wire, fact).run()
