"""What a driver lacks is refused by the name of the object and the field."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from frontinus.drivers.amphora.noop import NoopAmphoraDriver
from frontinus.model.capabilities import FEATURES, require
from frontinus.model.enums import (
    HealthMonitorType,
    Kind,
    L7PolicyAction,
    L7RuleCompareType,
    L7RuleType,
    ListenerProtocol,
    PoolProtocol,
    SessionPersistenceType,
)
from frontinus.model.errors import Unsupported
from frontinus.model.tree import SessionPersistence

from tests.unit.drivers.trees import a_listener, a_load_balancer, a_member, a_monitor, a_policy, a_pool, a_rule, a_tree

EVERYTHING = NoopAmphoraDriver.capabilities
COOKIE = SessionPersistence(type=SessionPersistenceType.HTTP_COOKIE)
REGEX = L7RuleCompareType.REGEX


def refusal(without: str | None, **fields: Any) -> tuple[Kind, str]:
    parts: dict[str, Any] = {"listeners": [a_listener()], "pools": [a_pool()], "members": [a_member()]}
    with pytest.raises(Unsupported) as raised:
        require(a_tree(**{**parts, **fields}), replace(EVERYTHING, features=EVERYTHING.features - {without}))
    assert raised.value.subject is not None
    return Kind(raised.value.subject.kind), raised.value.field


@pytest.mark.parametrize(
    "without, fields, expected",
    [
        (
            "insert_headers.X-Real-IP",
            {"listeners": [a_listener(insert_headers={"X-Real-IP": "true"})]},
            (Kind.LISTENER, "insert_headers"),
        ),
        (
            "max_memory",
            {"load_balancer": a_load_balancer(max_memory=64)},
            (Kind.LOAD_BALANCER, "flavor_id"),
        ),
        ("l7_policy.REJECT", {"policies": [a_policy()]}, (Kind.L7_POLICY, "action")),
        ("l7_rule.PATH", {"policies": [a_policy()], "rules": [a_rule()]}, (Kind.L7_RULE, "type")),
        (
            "l7_compare.REGEX",
            {"policies": [a_policy()], "rules": [a_rule(compare_type=REGEX)]},
            (Kind.L7_RULE, "compare_type"),
        ),
        (
            "ping_monitor_address",
            {"members": [a_member(monitor_address="127.0.0.2")], "monitors": [a_monitor(type=HealthMonitorType.PING)]},
            (Kind.MEMBER, "monitor_address"),
        ),
        (
            "prometheus_tls",
            {"listeners": [a_listener(10, ListenerProtocol.PROMETHEUS, pool=None, default_tls_container_ref="x")]},
            (Kind.LISTENER, "default_tls_container_ref"),
        ),
        # What no driver can do, whatever it says.
        (
            None,
            {"listeners": [a_listener(protocol=ListenerProtocol.TCP)], "policies": [a_policy()]},
            (Kind.L7_POLICY, "listener_id"),
        ),
        (
            None,
            {"listeners": [a_listener(protocol=ListenerProtocol.UDP, timeout_tcp_inspect=1_000)]},
            (Kind.LISTENER, "timeout_tcp_inspect"),
        ),
        (None, {"pools": [a_pool(protocol=PoolProtocol.UDP, tls_enabled=True)]}, (Kind.POOL, "tls_enabled")),
        (
            None,
            {"pools": [a_pool(protocol=PoolProtocol.TCP, session_persistence=COOKIE)]},
            (Kind.POOL, "session_persistence"),
        ),
        (
            None,
            {"listeners": [a_listener(protocol=ListenerProtocol.TCP)], "pools": [a_pool(session_persistence=COOKIE)]},
            (Kind.POOL, "session_persistence"),
        ),
    ],
)
def test_what_is_lacking_is_named(without: str | None, fields: dict[str, Any], expected: tuple[Kind, str]) -> None:
    assert refusal(without, **fields) == expected


def test_there_is_a_feature_for_every_action_rule_and_comparison() -> None:
    wanted = {
        *(f"l7_policy.{x}" for x in L7PolicyAction),
        *(f"l7_rule.{x}" for x in L7RuleType),
        *(f"l7_compare.{x}" for x in L7RuleCompareType),
    }
    assert wanted <= FEATURES.keys()
