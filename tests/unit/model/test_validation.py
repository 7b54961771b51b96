"""What is never right is refused with the attribute's name, whatever way it came in; what the contract allows passes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frontinus.model.enums import (
    ClientAuthentication,
    HealthMonitorType,
    L7PolicyAction,
    L7RuleCompareType,
    L7RuleType,
    ListenerProtocol,
    PoolProtocol,
    SessionPersistenceType,
)
from frontinus.model.errors import CallerError, Conflict, Invalid, NotFound
from frontinus.model.ids import PoolId, SubnetId
from frontinus.model.tree import AdditionalVip, LoadBalancerTree, SessionPersistence
from frontinus.model.validation import validate

from tests.contract import facts
from tests.unit.model import samples
from tests.unit.model.samples import health_monitor, l7_policy, l7_rule, listener, member, pool, tree

MATRICES = facts.resources()["matrices"]
TLS = {"protocol": ListenerProtocol.TERMINATED_HTTPS, "default_tls_container_ref": "secret"}
POOL = PoolId("pool")


def grid(name: str) -> list[Any]:
    return [
        pytest.param(row, column, allowed, id=f"{row}-{column}")
        for row, columns in MATRICES[name]["grid"].items()
        for column, allowed in columns.items()
    ]


def is_right(candidate: LoadBalancerTree) -> bool:
    try:
        validate(candidate)
    except CallerError:
        return False
    return True


def test_one_of_everything_is_right() -> None:
    validate(samples.one_of_everything())


@pytest.mark.parametrize("protocol, pool_protocol, allowed", grid("listener_to_pool_protocol"))
def test_listener_and_its_pools(protocol: str, pool_protocol: str, allowed: bool) -> None:
    above = listener(
        protocol=ListenerProtocol(protocol),
        default_tls_container_ref="secret" if protocol == "TERMINATED_HTTPS" else None,
    )
    below = pool(protocol=PoolProtocol(pool_protocol))
    as_default = listener(**{**_fields(above), "default_pool_id": POOL})
    redirect = l7_policy(action=L7PolicyAction.REDIRECT_TO_POOL, redirect_pool_id=POOL)
    assert is_right(tree(as_default, below)) == allowed
    assert is_right(tree(above, below, redirect)) == allowed


def _fields(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__struct_fields__}


@pytest.mark.parametrize("protocol, type_, allowed", grid("pool_to_healthmonitor_type"))
def test_pool_and_its_health_monitor(protocol: str, type_: str, allowed: bool) -> None:
    watched = tree(pool(protocol=PoolProtocol(protocol)), health_monitor(type=HealthMonitorType(type_)))
    assert is_right(watched) == allowed


_VALUES = {"SSL_CONN_HAS_CERT": "True", "SSL_VERIFY_RESULT": "0"}


@pytest.mark.parametrize("type_, compare_type, allowed", grid("l7rule_type_compare"))
def test_rule_and_its_comparison(type_: str, compare_type: str, allowed: bool) -> None:
    rule = l7_rule(
        type=L7RuleType(type_),
        compare_type=L7RuleCompareType(compare_type),
        key="CN" if type_ in MATRICES["l7rule_key"]["required"] else None,
        value=_VALUES.get(type_, "x"),
    )
    assert is_right(tree(listener(), l7_policy(), rule)) == allowed


@pytest.mark.parametrize("protocol", ListenerProtocol)
@pytest.mark.parametrize("header", MATRICES["insert_headers"]["TERMINATED_HTTPS"])
def test_headers_that_a_listener_inserts(protocol: ListenerProtocol, header: str) -> None:
    tls = {"default_tls_container_ref": "secret"} if protocol is ListenerProtocol.TERMINATED_HTTPS else {}
    allowed = header in MATRICES["insert_headers"].get(protocol.value, ())
    assert is_right(tree(listener(protocol=protocol, insert_headers={header: "true"}, **tls))) == allowed


def wrong(field: str, *children: Any, error: type[CallerError] = Invalid, id: str = "", **load_balancer: Any) -> Any:  # noqa: A002 - pytest's own word
    return pytest.param(tree(*children, **load_balancer), error, field, id=id or field)


def persistence(protocol: PoolProtocol, **values: Any) -> Any:
    return pool(protocol=protocol, session_persistence=SessionPersistence(**values))


_APP, _HTTP, _SOURCE = (
    SessionPersistenceType.APP_COOKIE,
    SessionPersistenceType.HTTP_COOKIE,
    SessionPersistenceType.SOURCE_IP,
)
_TCP_POOL, _UDP_POOL, _HTTP_POOL = PoolProtocol.TCP, PoolProtocol.UDP, PoolProtocol.HTTP
_TCP_MONITOR = HealthMonitorType.TCP


@pytest.mark.parametrize(
    "candidate, error, field",
    [
        wrong("load_balancer.name", name="x" * 256),
        wrong("load_balancer.name", name="a\nb", id="line end in a name"),
        wrong("load_balancer.description", description="nul\0"),
        wrong("load_balancer.tags", tags=("a", "a")),
        wrong("load_balancer.vip_sg_ids", vip_sg_ids=("g", "g")),
        wrong(
            "load_balancer.additional_vips[0].subnet_id",
            additional_vips=(AdditionalVip(address="", subnet_id=SubnetId("subnet")),),
            id="two VIPs on one subnet",
        ),
        wrong("listener.protocol_port", listener(protocol_port=0)),
        wrong("listener.protocol_port", listener(protocol_port=65536), id="port too high"),
        wrong("listener.connection_limit", listener(connection_limit=-2)),
        wrong("listener.timeout_client_data", listener(timeout_client_data=-1)),
        wrong("listener.timeout_tcp_inspect", listener(timeout_tcp_inspect=2_073_600_001)),
        wrong("pool", listener(default_pool_id=PoolId("elsewhere")), error=NotFound, id="unknown default pool"),
        wrong("listener.tags", listener(tags=("a", "a"))),
        wrong("listener.l7_policies", listener(protocol=ListenerProtocol.PROMETHEUS), l7_policy()),
        wrong("listener.insert_headers", listener(insert_headers={"X-Unknown": "true"})),
        wrong("listener.insert_headers", listener(insert_headers={"X-Real-IP": "a\r\nb"}), id="header splitting"),
        wrong("listener.default_tls_container_ref", listener(default_tls_container_ref="s")),
        wrong("listener.sni_container_refs", listener(sni_container_refs=("s",))),
        wrong(
            "listener.default_tls_container_ref",
            listener(protocol=ListenerProtocol.TERMINATED_HTTPS),
            id="TLS without certificate",
        ),
        wrong("listener.client_ca_tls_container_ref", listener(client_ca_tls_container_ref="ca")),
        wrong("listener.client_authentication", listener(**TLS, client_authentication=ClientAuthentication.MANDATORY)),
        wrong("listener.client_crl_container_ref", listener(**TLS, client_crl_container_ref="crl")),
        wrong("listener.tls_versions", listener(**TLS, tls_versions=())),
        wrong("listener.tls_versions", listener(**TLS, tls_versions=("TLSv9",)), id="unknown TLS version"),
        wrong("listener.alpn_protocols", listener(**TLS, alpn_protocols=("h3",))),
        wrong("listener.alpn_protocols", listener(**TLS, alpn_protocols=()), id="no ALPN protocol"),
        wrong("listener.tls_ciphers", listener(**TLS, tls_ciphers="A:B ssl-default-bind-options")),
        wrong("listener.hsts_max_age", listener(hsts_max_age=1)),
        wrong("listener.hsts_preload", listener(**TLS, hsts_preload=True)),
        wrong("listener.allowed_cidrs", listener(allowed_cidrs=("2001:db8::/32",)), id="no VIP of that family"),
        wrong("listener.allowed_cidrs", listener(allowed_cidrs=("192.0.2.0/24",)), vip_sg_ids=("g",)),
        wrong("listener.allowed_cidrs", listener(allowed_cidrs=("192.0.2.9/24",)), id="host bits in storage"),
        wrong(
            "listener.sni_container_refs",
            listener(**TLS, sni_container_refs=("s", "s")),
            error=Conflict,
            id="SNI twice",
        ),
        wrong(
            "listener.protocol_port",
            listener(),
            listener(id="other", protocol=ListenerProtocol.TCP),
            error=Conflict,
            id="one port of one family twice",
        ),
        wrong("pool.tags", pool(tags=("a", "a"))),
        wrong("pool.crl_container_ref", pool(crl_container_ref="crl")),
        wrong("pool.tls_versions", pool(tls_versions=("TLSv9",))),
        wrong("pool.session_persistence.cookie_name", persistence(_HTTP_POOL, type=_APP)),
        wrong(
            "pool.session_persistence.cookie_name", persistence(_HTTP_POOL, type=_APP, cookie_name="a;b"), id="cookie ;"
        ),
        wrong(
            "pool.session_persistence.cookie_name",
            persistence(_HTTP_POOL, type=_HTTP, cookie_name="c"),
            id="HTTP_COOKIE",
        ),
        wrong("pool.session_persistence.type", persistence(_UDP_POOL, type=_HTTP)),
        wrong(
            "pool.session_persistence.persistence_timeout", persistence(_TCP_POOL, type=_SOURCE, persistence_timeout=1)
        ),
        wrong(
            "pool.session_persistence.persistence_granularity",
            persistence(_UDP_POOL, type=_SOURCE, persistence_granularity="24"),
        ),
        wrong("member.address", pool(), member(address="example.org")),
        wrong("member.address", pool(), member(), member(id="twin"), error=Conflict, id="member twice"),
        wrong("member.protocol_port", pool(), member(protocol_port=0)),
        wrong("member.weight", pool(), member(weight=257)),
        wrong("member.monitor_port", pool(), member(monitor_port=0)),
        wrong("member.monitor_address", pool(), member(monitor_address="x")),
        wrong("health_monitor.delay", pool(), health_monitor(delay=-1)),
        wrong("health_monitor.timeout", pool(), health_monitor(timeout=-1)),
        wrong("health_monitor.max_retries", pool(), health_monitor(max_retries=0)),
        wrong("health_monitor.max_retries_down", pool(), health_monitor(max_retries_down=11)),
        wrong("health_monitor.url_path", pool(), health_monitor(type=_TCP_MONITOR, url_path="/")),
        wrong("health_monitor.url_path", pool(), health_monitor(url_path="//host/x"), id="host in a path"),
        wrong("health_monitor.url_path", pool(), health_monitor(url_path="/a b"), id="space in a path"),
        wrong("health_monitor.url_path", pool(), health_monitor(url_path="x"), id="relative path"),
        wrong("health_monitor.expected_codes", pool(), health_monitor(expected_codes="200-204,300")),
        wrong("health_monitor.expected_codes", pool(), health_monitor(expected_codes="204-200"), id="backwards"),
        wrong("health_monitor.expected_codes", pool(), health_monitor(expected_codes="٢٠٠"), id="other digits"),
        wrong("health_monitor.http_version", pool(), health_monitor(http_version=2.0)),
        wrong("health_monitor.domain_name", pool(), health_monitor(domain_name="a.example")),
        wrong("health_monitor.domain_name", pool(), health_monitor(http_version=1.0, domain_name="a.b"), id="HTTP 1.0"),
        wrong(
            "health_monitor.domain_name", pool(), health_monitor(http_version=1.1, domain_name="-a"), id="hyphen first"
        ),
        wrong(
            "health_monitor.domain_name", pool(), health_monitor(http_version=1.1, domain_name="a..b"), id="empty label"
        ),
        wrong(
            "health_monitor.domain_name", pool(), health_monitor(http_version=1.1, domain_name="a\nb"), id="line end"
        ),
        wrong("health_monitor.pool_id", pool(), health_monitor(), health_monitor(id="second"), error=Conflict),
        wrong("l7_policy.redirect_url", listener(), l7_policy(action=L7PolicyAction.REDIRECT_TO_URL)),
        wrong(
            "l7_policy.redirect_url",
            listener(),
            l7_policy(action=L7PolicyAction.REDIRECT_TO_URL, redirect_url="ftp://x/"),
            id="not http",
        ),
        wrong(
            "l7_policy.redirect_prefix",
            listener(),
            l7_policy(action=L7PolicyAction.REDIRECT_PREFIX, redirect_prefix="http://x:99999"),
        ),
        wrong("l7_policy.redirect_pool_id", listener(), l7_policy(action=L7PolicyAction.REDIRECT_TO_POOL)),
        wrong("l7_policy.redirect_url", listener(), l7_policy(redirect_url="http://x"), id="target of another action"),
        wrong("l7_policy.redirect_http_code", listener(), l7_policy(redirect_http_code=304)),
        wrong(
            "pool",
            listener(),
            l7_policy(action=L7PolicyAction.REDIRECT_TO_POOL, redirect_pool_id=PoolId("elsewhere")),
            error=NotFound,
            id="unknown redirect pool",
        ),
        wrong("l7_rule.key", listener(), l7_policy(), l7_rule(type=L7RuleType.HEADER)),
        wrong("l7_rule.key", listener(), l7_policy(), l7_rule(type=L7RuleType.COOKIE, key="a b"), id="space in a key"),
        wrong(
            "l7_rule.key",
            listener(),
            l7_policy(),
            l7_rule(type=L7RuleType.SSL_DN_FIELD, compare_type=L7RuleCompareType.EQUAL_TO, key="1CN"),
            id="DN field",
        ),
        wrong("l7_rule.value", listener(), l7_policy(), l7_rule(value="a b")),
        wrong("l7_rule.value", listener(), l7_policy(), l7_rule(value=""), id="empty value"),
        wrong(
            "l7_rule.value",
            listener(),
            l7_policy(),
            l7_rule(compare_type=L7RuleCompareType.REGEX, value="(unclosed"),
            id="no regular expression",
        ),
        wrong(
            "l7_rule.value",
            listener(),
            l7_policy(),
            l7_rule(compare_type=L7RuleCompareType.REGEX, value="a{99999999999999999999}"),
            id="overflowing regular expression",
        ),
        wrong(
            "l7_policy.l7_rules",
            listener(),
            l7_policy(),
            *(l7_rule(id=f"rule {n}") for n in range(51)),
            error=Conflict,
        ),
    ],
)
def test_refused_naming_the_attribute(candidate: LoadBalancerTree, error: type[CallerError], field: str) -> None:
    with pytest.raises(error) as refusal:
        validate(candidate)
    assert type(refusal.value) is error
    assert refusal.value.field == field


@pytest.mark.parametrize(
    "candidate",
    [
        pytest.param(tree(description="two\nlines"), id="line end in a description"),
        pytest.param(tree(listener(connection_limit=None)), id="connection limit null"),
        pytest.param(tree(listener(insert_headers={"X-Real-IP": "anything"})), id="header values are free"),
        pytest.param(tree(listener(), listener(id="u", protocol=ListenerProtocol.UDP)), id="UDP and TCP share a port"),
        pytest.param(tree(listener(allowed_cidrs=("192.0.2.0/24",))), id="CIDR of the VIP's family"),
        pytest.param(tree(listener(protocol=ListenerProtocol.PROMETHEUS)), id="PROMETHEUS without TLS"),
        pytest.param(tree(pool(), member(weight=None)), id="weight null"),
        pytest.param(
            tree(pool(), member(address="2001:DB8::1"), member(id="b", address="2001:db8::1")), id="text decides"
        ),
        pytest.param(tree(pool(), health_monitor(expected_codes="200, 204")), id="list of codes"),
        pytest.param(tree(pool(), health_monitor(url_path="/a?b=c#d")), id="query and fragment"),
        pytest.param(tree(pool(), health_monitor(delay=0, timeout=0)), id="delay 0"),
        pytest.param(tree(pool(), health_monitor(http_version=1.1, domain_name="_a.b-c.example.")), id="domain name"),
        pytest.param(tree(persistence(_UDP_POOL, type=_SOURCE, persistence_timeout=-1)), id="negative timeout"),
        pytest.param(tree(persistence(_TCP_POOL, type=_HTTP)), id="cookies on TCP pools"),
        pytest.param(tree(listener(), l7_policy(), l7_rule(value='"a b"')), id="quoted words"),
        pytest.param(tree(listener(), listener(id="gone", delete_requested=True)), id="port of what is being deleted"),
        pytest.param(tree(pool(), member(), member(id="gone", delete_requested=True)), id="address of what goes"),
        pytest.param(tree(listener(**TLS, hsts_max_age=0, hsts_preload=True)), id="HSTS"),
    ],
)
def test_accepted(candidate: LoadBalancerTree) -> None:
    validate(candidate)


def test_what_an_edit_did_not_touch_is_not_held_against_it() -> None:
    old = tree(listener(timeout_client_data=-1), pool(changed_generation=2))
    validate(old, touched_since=2)
    with pytest.raises(Invalid):
        validate(old)


def test_values_are_judged_before_duplicates() -> None:
    both = tree(pool(), member(), member(id="twin", weight=999))
    with pytest.raises(Invalid):
        validate(both)


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=300))
def test_no_text_breaks_the_validator(text: str) -> None:
    """Whatever a caller writes is right or refused; nothing else happens, and control characters never pass."""
    candidates = [
        tree(name=text),
        tree(listener(insert_headers={"X-Real-IP": text}, tls_ciphers=text)),
        tree(persistence(_HTTP_POOL, type=_APP, cookie_name=text)),
        tree(pool(), member(address=text)),
        tree(pool(), health_monitor(url_path=text)),
        tree(pool(), health_monitor(expected_codes=text)),
        tree(pool(), health_monitor(http_version=1.1, domain_name=text)),
        tree(listener(), l7_policy(action=L7PolicyAction.REDIRECT_TO_URL, redirect_url=text)),
        tree(listener(), l7_policy(), l7_rule(value=text)),
        tree(listener(), l7_policy(), l7_rule(compare_type=L7RuleCompareType.REGEX, value=text)),
        tree(listener(), l7_policy(), l7_rule(type=L7RuleType.HEADER, key=text)),
    ]
    has_control = any(ord(x) < 32 or ord(x) == 127 for x in text)
    for candidate in candidates:
        if is_right(candidate):
            assert not has_control
