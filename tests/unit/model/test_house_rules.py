"""An operator's rules hold for what an edit brings in, and leave alone what was there before."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from frontinus.model.enums import HealthMonitorType, ListenerProtocol, PoolProtocol
from frontinus.model.errors import Invalid
from frontinus.model.house_rules import HouseRules, check_house_rules
from frontinus.model.tree import LoadBalancerTree

from tests.unit.model.samples import health_monitor, listener, member, pool, tree

TLS = {"protocol": ListenerProtocol.TERMINATED_HTTPS, "default_tls_container_ref": "ref"}
OFF = HouseRules(
    allow_tls_terminated_listeners=False, allow_prometheus_listeners=False, allow_ping_health_monitors=False
)
STRICT = HouseRules(prohibited_ciphers=frozenset({"RC4"}), minimum_tls_version="TLSv1.2")

CASES = [
    pytest.param(HouseRules(), "member.address", [pool(), member(address="169.254.169.254")], id="metadata address"),
    pytest.param(
        HouseRules(reserved_addresses=frozenset({"fe80::1"})),
        "member.address",
        [pool(), member(address="FE80:0::1")],
        id="reserved in another spelling",
    ),
    pytest.param(
        HouseRules(),
        "health_monitor.delay",
        [pool(protocol=PoolProtocol.UDP), health_monitor(type=HealthMonitorType.UDP_CONNECT, delay=2)],
        id="UDP-CONNECT too often",
    ),
    pytest.param(OFF, "listener.protocol", [listener(**TLS)], id="TLS switched off"),
    pytest.param(
        OFF, "listener.protocol", [listener(protocol=ListenerProtocol.PROMETHEUS)], id="PROMETHEUS switched off"
    ),
    pytest.param(
        OFF, "health_monitor.type", [pool(), health_monitor(type=HealthMonitorType.PING)], id="PING switched off"
    ),
    pytest.param(STRICT, "listener.tls_ciphers", [listener(**TLS, tls_ciphers="AES:RC4")], id="cipher of a listener"),
    pytest.param(STRICT, "pool.tls_ciphers", [pool(tls_enabled=True, tls_ciphers="RC4")], id="cipher of a pool"),
    pytest.param(STRICT, "listener.tls_versions", [listener(**TLS, tls_versions=("TLSv1.3", "TLSv1.1"))], id="old TLS"),
    pytest.param(
        STRICT, "pool.tls_versions", [pool(tls_enabled=True, tls_versions=("SSLv3",))], id="old TLS of a pool"
    ),
]


@pytest.mark.parametrize("rules, field, children", CASES)
def test_what_comes_in_is_judged(rules: HouseRules, field: str, children: list[Any]) -> None:
    for before in (None, tree()):
        with pytest.raises(Invalid) as refused:
            check_house_rules(before, tree(*children), rules)
        assert refused.value.field == field


@pytest.mark.parametrize("rules, field, children", CASES)
def test_what_was_there_before_stays_as_it_is(rules: HouseRules, field: str, children: list[Any]) -> None:
    before = tree(*children)
    check_house_rules(before, renamed(before), rules)


def renamed(given: LoadBalancerTree) -> LoadBalancerTree:
    """Everything touched, nothing that the rules are about."""
    branches = ("listeners", "pools", "members", "health_monitors")
    return replace(given, **{x: tuple(replace(y, name="new") for y in getattr(given, x)) for x in branches})


def test_rules_that_are_looser_let_through_what_the_contract_would_not() -> None:
    loose = HouseRules(udp_connect_min_delay=-1, reserved_addresses=frozenset())
    quick = health_monitor(type=HealthMonitorType.UDP_CONNECT, delay=0)
    check_house_rules(None, tree(pool(protocol=PoolProtocol.UDP), quick, member(address="169.254.169.254")), loose)
