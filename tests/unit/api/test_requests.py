"""Bodies: what is not JSON, not enveloped, not known or not changeable is refused with its name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from frontinus.api.fields import LISTENER, LOAD_BALANCER, MEMBER, POOL
from frontinus.api.requests import Operation, parse_body, parse_list
from frontinus.model.errors import Invalid


@pytest.mark.parametrize(
    "body, field",
    [
        pytest.param(b"", "", id="empty"),
        pytest.param(b"{", "", id="cut off"),
        pytest.param(b"[]", "", id="a list"),
        pytest.param(b'"listener"', "", id="a string"),
        pytest.param(b"null", "", id="null"),
        pytest.param(b"{}", "listener", id="no envelope"),
        pytest.param(b'{"listener": null}', "listener", id="null envelope"),
        pytest.param(b'{"listener": []}', "listener", id="list in the envelope"),
        pytest.param(b'{"listener": {}, "pool": {}}', "pool", id="two envelopes"),
        pytest.param(b'{"listener": {"protocol_port": NaN}}', "", id="not a number"),
        pytest.param(b'{"listener": {"protocol_port": 1e400}}', "", id="too large a number"),
        pytest.param(b'{"listener": {"name": "\\u0041", "protocol_port": 1e400}}', "", id="and an escape"),
        pytest.param(b'{"listener": {"name": "\\ud800", "protocol_port": -1e400}}', "", id="and half a character"),
        pytest.param(b'{"listener": {"name": "\xff"}}', "", id="not UTF-8"),
        pytest.param(b"[" * 100_000, "", id="bottomless"),
        pytest.param(b'{"listener": {"name": "\\ud800"}}', "listener.name", id="half a character"),
        pytest.param(b'{"listener": {"name": "\\u0000"}}', "listener.name", id="nul"),
    ],
)
def test_body_that_is_no_request(body: bytes, field: str) -> None:
    with pytest.raises(Invalid) as refusal:
        parse_body(LISTENER, Operation.CREATE, body)
    assert refusal.value.field == field


def listener(**values: Any) -> bytes:
    return json.dumps(
        {"listener": {"protocol": "HTTP", "protocol_port": 80, "loadbalancer_id": "0" * 32, **values}}
    ).encode()


@pytest.mark.parametrize(
    "values, field",
    [
        pytest.param({"colour": "red"}, "listener.colour", id="unknown"),
        pytest.param({"provisioning_status": "ACTIVE"}, "listener.provisioning_status", id="read-only"),
        pytest.param({"id": "0" * 32}, "listener.id", id="id"),
        pytest.param({"default_pool": {"name": "p"}}, "listener.default_pool", id="nested object outside a whole tree"),
        pytest.param({"l7policies": [{}]}, "listener.l7policies", id="nested list outside a whole tree"),
        pytest.param({"admin_state_up": "perhaps"}, "listener.admin_state_up", id="ill-typed"),
    ],
)
def test_attribute_that_create_does_not_take(values: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as refusal:
        parse_body(LISTENER, Operation.CREATE, listener(**values))
    assert refusal.value.field == field


def test_immutable_attribute_is_refused_with_the_reason() -> None:
    with pytest.raises(Invalid, match="cannot be changed") as refusal:
        parse_body(LISTENER, Operation.UPDATE, b'{"listener": {"protocol_port": 81}}')
    assert refusal.value.field == "listener.protocol_port"


@pytest.mark.parametrize("missing", ["protocol", "protocol_port", "loadbalancer_id"])
def test_required_attribute_is_named(missing: str) -> None:
    values = json.loads(listener())["listener"]
    del values[missing]
    with pytest.raises(Invalid) as refusal:
        parse_body(LISTENER, Operation.CREATE, json.dumps({"listener": values}).encode())
    assert refusal.value.field == f"listener.{missing}"


def test_empty_nested_lists_are_fine_everywhere() -> None:
    asked = parse_body(LISTENER, Operation.CREATE, listener(l7policies=[], default_pool=None))
    assert asked.extra["l7_policies"] == ()


def test_path_of_a_fault_leads_into_the_tree() -> None:
    body = {"loadbalancer": {"pools": [{"name": "p", "members": [{"address": "192.0.2.1", "protocol_port": 0}]}]}}
    with pytest.raises(Invalid) as refusal:
        parse_body(LOAD_BALANCER, Operation.CREATE, json.dumps(body).encode())
    assert refusal.value.field == "loadbalancer.pools[0].members[0].protocol_port"


@pytest.mark.parametrize("forbidden", ["project_id", "tenant_id", "loadbalancer_id", "listener_id", "id"])
def test_nested_objects_take_no_owner(forbidden: str) -> None:
    body = {"loadbalancer": {"pools": [{"name": "p", forbidden: "0" * 32}]}}
    with pytest.raises(Invalid) as refusal:
        parse_body(LOAD_BALANCER, Operation.CREATE, json.dumps(body).encode())
    assert refusal.value.field == f"loadbalancer.pools[0].{forbidden}"


def test_update_holds_only_what_was_sent() -> None:
    asked = parse_body(POOL, Operation.UPDATE, b'{"pool": {"name": null, "tags": null}}')
    assert asked.values == {"name": ""}
    assert asked.given == {"name", "tags"}


def test_batch_is_a_list_of_creates() -> None:
    asked = parse_list(MEMBER, Operation.CREATE, b'{"members": [{"address": "192.0.2.1", "protocol_port": "80"}]}')
    assert [(x.values["address"], x.values["protocol_port"], x.values["weight"]) for x in asked] == [
        ("192.0.2.1", 80, 1)
    ]
    for wrong in (b'{"members": {}}', b'{"members": null}', b'{"members": [5]}', b'{"member": []}'):
        with pytest.raises(Invalid):
            parse_list(MEMBER, Operation.CREATE, wrong)
