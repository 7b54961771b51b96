"""Every row of the field tables says what resources.yaml says: taken, required, shown, bounded, null."""

from __future__ import annotations

from typing import Any

import pytest

from frontinus.api.fields import NOTHING, REFUSED, REQUIRED, RESOURCES, UNCHANGED, Field
from frontinus.api.wire_types import Nested
from frontinus.model.errors import Invalid

from tests.contract import facts

ADDED = {"fault", "deletion_protection", "last_check"}
"""Attributes that Frontinus adds to the contract."""

FILTERS_ONLY = {
    "loadbalancer": {"topology"},
    "amphora": {"project_id"},
    # Columns of the reference's model, by which it filters; openstacksdk sends the one of rules.
    "member": {"pool_id"},
    "rule": {"l7policy_id"},
}

CASES = [
    pytest.param(key, wire, fact, id=f"{key}.{wire}") for key in RESOURCES for wire, fact in facts.fields(key).items()
]


def field(key: str, wire: str) -> Field:
    return next(x for x in RESOURCES[key].fields if x.wire == wire)


@pytest.mark.parametrize("key", RESOURCES)
def test_tables_hold_the_contract_s_attributes_and_no_others(key: str) -> None:
    assert {x.wire for x in RESOURCES[key].fields} - ADDED - FILTERS_ONLY.get(key, set()) == set(facts.fields(key))


@pytest.mark.parametrize("key, wire, fact", CASES)
def test_attribute_is_taken_where_the_contract_takes_it(key: str, wire: str, fact: Any) -> None:
    row = field(key, wire)
    taken = {"create": row.create is not None, "update": row.update is not None}
    assert taken == {name: fact[name]["accepted"] for name in taken}
    if "nested_create" in fact:
        assert (row.nested is not None) == fact["nested_create"]["accepted"]


@pytest.mark.parametrize("key, wire, fact", CASES)
def test_attribute_is_required_and_shown_as_in_the_contract(key: str, wire: str, fact: Any) -> None:
    row = field(key, wire)
    # A project is the caller's by default, and a VIP needs one of three: neither is required by itself.
    required = row.create is not None and row.create.absent is REQUIRED
    assert required == bool(fact["create"].get("required"))
    assert (row.read is not None) == bool(fact["in_response"])
    if "in_full_response" in fact and row.read is not None and fact["in_response"]:
        assert row.in_full == fact["in_full_response"]


@pytest.mark.parametrize("key, wire, fact", CASES)
def test_attribute_dates_from_the_contract_s_version(key: str, wire: str, fact: Any) -> None:
    assert field(key, wire).since == fact["since"]


def nullable(fact: Any, operation: str) -> Any:
    return fact[operation].get("null") if fact[operation]["accepted"] else None


@pytest.mark.parametrize("key, wire, fact", CASES)
def test_null_is_refused_exactly_where_the_contract_refuses_it(key: str, wire: str, fact: Any) -> None:
    row = field(key, wire)
    for operation, rule in (("create", row.create), ("update", row.update)):
        null = nullable(fact, operation)
        if null is None or rule is None:
            continue
        # A null parent is an unknown parent; a null subnet or load balancer is judged together with its alternatives.
        if null["status"] == 404 or wire in ("vip_subnet_id", "loadbalancer_id"):
            continue
        assert (rule.null is REFUSED) == (null["status"] in (400, 500)), operation


DEFAULTS = [
    pytest.param(key, wire, fact["create"]["default"], id=f"{key}.{wire}")
    for key in RESOURCES
    for wire, fact in facts.fields(key).items()
    if "default" in fact["create"] and not isinstance(fact["create"]["default"], str)
]


@pytest.mark.parametrize("key, wire, default", DEFAULTS)
def test_default_is_the_contract_s(key: str, wire: str, default: object) -> None:
    row = field(key, wire)
    assert row.create is not None
    absent = row.create.absent
    assert absent is not NOTHING
    shown = row.type.render(absent) if row.type.renders else absent
    assert (list(shown) if isinstance(shown, tuple) else shown) == default


def test_null_of_tags_on_update_differs_for_policies_and_rules() -> None:
    nulls = {
        key: x.null
        for key in RESOURCES
        if any(x.wire == "tags" for x in RESOURCES[key].fields)
        if (x := field(key, "tags").update) is not None
    }
    cleared = {key for key, null in nulls.items() if null == ()}
    assert cleared == {"l7policy", "rule"}
    assert {null for key, null in nulls.items() if key not in cleared} == {UNCHANGED}


def bounded() -> list[Any]:
    """(attribute, a value just inside, one just outside) for every numeric or textual bound."""
    cases = []
    for key in RESOURCES:
        for wire, fact in facts.fields(key).items():
            limits = fact.get("constraints", {})
            if not fact["create"]["accepted"] or isinstance(field(key, wire).type, Nested):
                continue
            for name, step in (("minimum", -1), ("maximum", 1)):
                if name in limits:
                    cases.append(pytest.param(key, wire, limits[name], limits[name] + step, id=f"{key}.{wire} {name}"))
            if "max_length" in limits and fact["type"] == "string" and "pattern" not in limits:
                longest = limits["max_length"]
                cases.append(pytest.param(key, wire, "x" * longest, "x" * (longest + 1), id=f"{key}.{wire} length"))
            words = limits.get("enum", ()) if fact["type"] == "string" else ()
            cases += [pytest.param(key, wire, word, word.lower(), id=f"{key}.{wire} {word}") for word in words]
    return cases


@pytest.mark.parametrize("key, wire, inside, outside", bounded())
def test_bounds_are_the_contract_s(key: str, wire: str, inside: object, outside: object) -> None:
    type_ = field(key, wire).type
    assert type_.parse(inside, wire) == inside
    with pytest.raises(Invalid) as refusal:
        type_.parse(outside, wire)
    assert refusal.value.field == wire


@pytest.mark.parametrize(
    "key, collection",
    [(key, facts.resources()["resources"][name]["collection_key"]) for key, name in facts.RESOURCE_NAMES.items()],
)
def test_lists_can_be_filtered_by_what_the_contract_names(key: str, collection: str) -> None:
    columns = {x.wire for x in RESOURCES[key].fields if x.column is not None or x.constant is not NOTHING}
    named = {x.removesuffix(" (filter only)") for x in facts.resources()["filterable"][collection]}
    assert named <= columns | {"tags*"}
    assert not columns & {"tenant_id", "loadbalancers", "rules"}
