"""What is balanced in an exam: trees within what a driver offers, and pairs of trees that differ in one attribute.

A driver is asked for nothing that the API would refuse it: whatever model/validation.py and model/capabilities.py let
through is fair. Next: amphora_conformance.py."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from msgspec.structs import replace

from frontinus.model.capabilities import Capabilities, require
from frontinus.model.certificates import Authorities, SecretKind, Secrets, secret_uses
from frontinus.model.compatibility import (
    COMPARISONS_OF_L7_RULE,
    DATAGRAM_LISTENERS,
    INSERT_HEADERS_OF_LISTENER,
    L7_RULE_KEY_REQUIRED,
    TLS_LISTENERS,
)
from frontinus.model.enums import (
    ClientAuthentication,
    HealthMonitorType,
    HttpMethod,
    L7PolicyAction,
    L7RuleCompareType,
    L7RuleType,
    LbAlgorithm,
    ListenerProtocol,
    PoolProtocol,
    SessionPersistenceType,
)
from frontinus.model.errors import CallerError
from frontinus.model.ids import (
    HealthMonitorId,
    L7PolicyId,
    L7RuleId,
    ListenerId,
    LoadBalancerId,
    MemberId,
    NetworkId,
    PoolId,
    PortId,
    ProjectId,
    SubnetId,
    new_id,
)
from frontinus.model.tree import (
    HealthMonitor,
    L7Policy,
    L7Rule,
    Listener,
    LoadBalancer,
    LoadBalancerTree,
    Member,
    Pool,
    SessionPersistence,
    Vip,
)
from frontinus.model.validation import validate
from frontinus.testing.certificates import TestAuthority
from frontinus.testing.exam import Violation

PROJECT = ProjectId("conformance")
_MADE = datetime(2026, 1, 1, tzinfo=UTC)

_L, _P = ListenerProtocol, PoolProtocol
_SPOKEN: tuple[tuple[ListenerProtocol, PoolProtocol], ...] = (
    (_L.HTTP, _P.HTTP),
    (_L.TCP, _P.TCP),
    (_L.HTTPS, _P.HTTPS),
    (_L.UDP, _P.UDP),
    (_L.SCTP, _P.SCTP),
)
"""What a plain tree speaks: the first of these that the driver offers."""

_TERMINATED = (_L.TERMINATED_HTTPS, _P.HTTP)


def spoken(offers: Capabilities) -> tuple[ListenerProtocol, PoolProtocol]:
    """What trees for this driver speak. Raises Violation when it offers nothing that could be balanced."""
    for listener, pool in _SPOKEN:
        if listener in offers.listener_protocols and pool in offers.pool_protocols:
            return listener, pool
    raise Violation("it offers no listener protocol together with a pool protocol for it")


def plain_tree(
    offers: Capabilities,
    vip_address: str,
    *ports: int,
    load_balancer_id: LoadBalancerId | None = None,
    speaking: tuple[ListenerProtocol, PoolProtocol] | None = None,
) -> LoadBalancerTree:
    """A load balancer with a listener on each port, all on one pool of one member."""
    listener_protocol, pool_protocol = speaking or spoken(offers)
    made_for, pool_id = load_balancer_id or LoadBalancerId(new_id()), PoolId(new_id())
    vip = Vip(
        address=vip_address, subnet_id=SubnetId(new_id()), network_id=NetworkId(new_id()), port_id=PortId(new_id())
    )
    preferred = sorted(offers.lb_algorithms, key=lambda x: (x is not LbAlgorithm.ROUND_ROBIN, x))
    if not preferred:
        raise Violation("it offers no algorithm")
    return LoadBalancerTree(
        load_balancer=LoadBalancer(id=made_for, project_id=PROJECT, vip=vip, created_at=_MADE),
        pools=(
            Pool(
                id=pool_id,
                load_balancer_id=made_for,
                project_id=PROJECT,
                protocol=pool_protocol,
                lb_algorithm=preferred[0],
                created_at=_MADE,
            ),
        ),
        members=(a_member(made_for, pool_id, 9),),
        listeners=tuple(
            Listener(
                id=ListenerId(new_id()),
                load_balancer_id=made_for,
                project_id=PROJECT,
                protocol=listener_protocol,
                protocol_port=port,
                default_pool_id=pool_id,
                created_at=_MADE,
            )
            for port in ports
        ),
    )


def a_member(load_balancer_id: LoadBalancerId, pool_id: PoolId, port: int, address: str = "127.0.0.1") -> Member:
    return Member(
        id=MemberId(new_id()),
        load_balancer_id=load_balancer_id,
        project_id=PROJECT,
        pool_id=pool_id,
        address=address,
        protocol_port=port,
        created_at=_MADE,
    )


def with_member(tree: LoadBalancerTree, port: int) -> LoadBalancerTree:
    """The tree with one more member in its pool."""
    return replace(tree, members=(*tree.members, a_member(tree.id, tree.pools[0].id, port)))


def terminating(tree: LoadBalancerTree) -> LoadBalancerTree:
    """The tree with its first listener ending TLS, with a default certificate and one more for another name."""
    listener = replace(
        tree.listeners[0],
        protocol=ListenerProtocol.TERMINATED_HTTPS,
        default_tls_container_ref=f"default:{new_id()}",
        sni_container_refs=(f"sni:{new_id()}",),
    )
    pools = tuple(replace(x, protocol=PoolProtocol.HTTP) for x in tree.pools)
    return replace(tree, listeners=(listener, *tree.listeners[1:]), pools=pools)


def secrets_for(authority: TestAuthority, *trees: LoadBalancerTree) -> Secrets:
    """Something fresh behind every reference of the trees."""
    uses = {(use.kind, use.reference) for tree in trees for use in secret_uses(tree)}
    references = {kind: sorted(ref for each, ref in uses if each is kind) for kind in SecretKind}
    return Secrets(
        certificates={
            reference: authority.issue(f"{number}.example.org")
            for number, reference in enumerate(references[SecretKind.CERTIFICATE])
        },
        authorities={
            reference: Authorities(certificates=(authority.pem,)) for reference in references[SecretKind.AUTHORITIES]
        },
    )


# Pairs that must not look alike


@dataclass(frozen=True)
class Pair:
    """Two trees within what a driver offers, and the attribute in which they differ, with the value that it gets."""

    name: str
    before: LoadBalancerTree
    after: LoadBalancerTree


def pairs(offers: Capabilities, vip_address: str, port: int) -> Iterator[Pair]:
    """For every attribute that the driver offers, two trees that differ in it and in nothing else."""
    for speaking in (*_SPOKEN, _TERMINATED):
        if speaking[0] not in offers.listener_protocols or speaking[1] not in offers.pool_protocols:
            continue
        tree = with_member(plain_tree(offers, vip_address, port, speaking=speaking), 10)
        if speaking is _TERMINATED:
            tree = terminating(tree)
        for name, before, after in _changes(tree):
            if _is_offered(before, offers) and _is_offered(after, offers):
                yield Pair(f"{speaking[0]}: {name}", before, after)


def _is_offered(tree: LoadBalancerTree, offers: Capabilities) -> bool:
    try:
        validate(tree)
        require(tree, offers)
    except CallerError:
        return False
    return True


_Change = tuple[str, LoadBalancerTree, LoadBalancerTree]


def _changes(tree: LoadBalancerTree) -> Iterator[_Change]:
    yield from _of_listeners(tree)
    yield from _of_pools(tree)
    yield from _of_members(tree)
    yield from _of_monitors(tree)
    yield from _of_policies(tree)


def _listener(tree: LoadBalancerTree, **changed: object) -> LoadBalancerTree:
    return replace(tree, listeners=(replace(tree.listeners[0], **changed), *tree.listeners[1:]))


def _pool(tree: LoadBalancerTree, **changed: object) -> LoadBalancerTree:
    return replace(tree, pools=(replace(tree.pools[0], **changed), *tree.pools[1:]))


def _member(tree: LoadBalancerTree, **changed: object) -> LoadBalancerTree:
    return replace(tree, members=(*tree.members[:-1], replace(tree.members[-1], **changed)))


def _of_listeners(tree: LoadBalancerTree) -> Iterator[_Change]:
    protocol = tree.listeners[0].protocol
    rows: list[tuple[str, dict[str, object]]] = [
        ("listener.admin_state_up false", {"admin_state_up": False}),
        ("listener.default_pool_id none", {"default_pool_id": None}),
        ("listener.allowed_cidrs", {"allowed_cidrs": ("192.0.2.0/24",)}),
        ("listener.connection_limit", {"connection_limit": 77}),
        ("listener.timeout_tcp_inspect", {"timeout_tcp_inspect": 1_500}),
        ("listener.hsts_max_age", {"hsts_max_age": 3_600}),
    ]
    if protocol not in DATAGRAM_LISTENERS:
        rows += [
            ("listener.timeout_client_data", {"timeout_client_data": 12_000}),
            ("listener.timeout_member_connect", {"timeout_member_connect": 1_200}),
            ("listener.timeout_member_data", {"timeout_member_data": 13_000}),
        ]
    for header in sorted(INSERT_HEADERS_OF_LISTENER.get(protocol, ())):
        rows.append((f"listener.insert_headers {header}", {"insert_headers": {header: "true"}}))
    if protocol in TLS_LISTENERS:
        rows += [
            ("listener.sni_container_refs none", {"sni_container_refs": ()}),
            ("listener.tls_versions", {"tls_versions": ("TLSv1.3",)}),
            ("listener.tls_ciphers", {"tls_ciphers": "ECDHE-ECDSA-AES128-GCM-SHA256", "tls_versions": ("TLSv1.2",)}),
            ("listener.alpn_protocols", {"alpn_protocols": ("h2", "http/1.1")}),
            (
                "listener.client_authentication MANDATORY",
                {
                    "client_ca_tls_container_ref": "authorities:of-clients",
                    "client_authentication": ClientAuthentication.MANDATORY,
                },
            ),
        ]
    for name, changed in rows:
        yield name, tree, _listener(tree, **changed)


def _of_pools(tree: LoadBalancerTree) -> Iterator[_Change]:
    yield "pool.admin_state_up false", tree, _pool(tree, admin_state_up=False)
    for algorithm in LbAlgorithm:
        if algorithm is not tree.pools[0].lb_algorithm:
            yield f"pool.lb_algorithm {algorithm}", tree, _pool(tree, lb_algorithm=algorithm)
    for protocol in (PoolProtocol.PROXY, PoolProtocol.PROXYV2):
        yield f"pool.protocol {protocol}", tree, _pool(tree, protocol=protocol)
    yield "pool.tls_enabled", tree, _pool(tree, tls_enabled=True)
    for kind in SessionPersistenceType:
        cookie = "exam" if kind is SessionPersistenceType.APP_COOKIE else None
        persisting = _pool(tree, session_persistence=SessionPersistence(type=kind, cookie_name=cookie))
        yield f"pool.session_persistence {kind}", tree, persisting
    lasting = SessionPersistence(type=SessionPersistenceType.SOURCE_IP, persistence_timeout=77)
    by_address = _pool(tree, session_persistence=SessionPersistence(type=SessionPersistenceType.SOURCE_IP))
    yield "pool.session_persistence.persistence_timeout", by_address, _pool(tree, session_persistence=lasting)


def _of_members(tree: LoadBalancerTree) -> Iterator[_Change]:
    yield "member.address", tree, _member(tree, address="127.0.0.2")
    yield "member.protocol_port", tree, _member(tree, protocol_port=11)
    yield "member.weight 7", tree, _member(tree, weight=7)
    yield "member.weight 0", tree, _member(tree, weight=0)
    yield "member.admin_state_up false", tree, _member(tree, admin_state_up=False)
    yield "member.backup", tree, _member(tree, backup=True)
    yield "one member less", tree, replace(tree, members=tree.members[:-1])


def _monitor(tree: LoadBalancerTree, kind: HealthMonitorType, **changed: object) -> LoadBalancerTree:
    monitor = HealthMonitor(
        id=HealthMonitorId("00000000-0000-4000-8000-00000000000a"),
        load_balancer_id=tree.id,
        project_id=PROJECT,
        pool_id=tree.pools[0].id,
        type=kind,
        delay=5,
        timeout=3,
        max_retries=2,
        created_at=_MADE,
    )
    return replace(tree, health_monitors=(replace(monitor, **changed),))


def _of_monitors(tree: LoadBalancerTree) -> Iterator[_Change]:
    for kind in HealthMonitorType:
        looked_after = _monitor(tree, kind)
        yield f"health_monitor {kind}", tree, looked_after
        for name, value in (("delay", 9), ("timeout", 2), ("max_retries", 4), ("max_retries_down", 5)):
            yield f"health_monitor {kind}.{name}", looked_after, _monitor(tree, kind, **{name: value})
        if kind in (HealthMonitorType.HTTP, HealthMonitorType.HTTPS):
            http: dict[str, object] = {"http_method": HttpMethod.GET, "url_path": "/", "expected_codes": "200"}
            asked = _monitor(tree, kind, **http)
            for name, changed in (
                ("http_method", HttpMethod.HEAD),
                ("url_path", "/alive"),
                ("expected_codes", "204"),
            ):
                yield f"health_monitor {kind}.{name}", asked, _monitor(tree, kind, **{**http, name: changed})
            named = _monitor(tree, kind, **{**http, "http_version": 1.1, "domain_name": "exam.example.org"})
            yield f"health_monitor {kind}.domain_name", asked, named
        yield f"member.monitor_port with {kind}", looked_after, _member(looked_after, monitor_port=8_001)
        if kind is not HealthMonitorType.PING:
            moved = _member(looked_after, monitor_address="127.0.0.3")
            yield f"member.monitor_address with {kind}", looked_after, moved


_REDIRECTS: dict[L7PolicyAction, dict[str, object]] = {
    L7PolicyAction.REJECT: {},
    L7PolicyAction.REDIRECT_TO_URL: {"redirect_url": "http://exam.example.org/", "redirect_http_code": 302},
    L7PolicyAction.REDIRECT_PREFIX: {"redirect_prefix": "http://exam.example.org", "redirect_http_code": 302},
}

_VALUES: dict[L7RuleType, str] = {
    L7RuleType.SSL_CONN_HAS_CERT: "True",
    L7RuleType.SSL_VERIFY_RESULT: "1",
    L7RuleType.HOST_NAME: "exam.example.org",
    L7RuleType.PATH: "/exam",
    L7RuleType.FILE_TYPE: "png",
}


def _policy(tree: LoadBalancerTree, action: L7PolicyAction, rule: L7Rule) -> LoadBalancerTree:
    policy = L7Policy(
        id=rule.l7_policy_id,
        load_balancer_id=tree.id,
        project_id=PROJECT,
        listener_id=tree.listeners[0].id,
        action=action,
        position=1,
        created_at=_MADE,
    )
    if action is L7PolicyAction.REDIRECT_TO_POOL:
        other = replace(tree.pools[0], id=PoolId("00000000-0000-4000-8000-00000000000b"))
        tree = replace(tree, pools=(tree.pools[0], other))
        policy = replace(policy, redirect_pool_id=other.id)
    else:
        policy = replace(policy, **_REDIRECTS[action])
    return replace(tree, l7_policies=(policy,), l7_rules=(rule,))


def _rule(tree: LoadBalancerTree, kind: L7RuleType, compare: L7RuleCompareType, **changed: object) -> L7Rule:
    rule = L7Rule(
        id=L7RuleId("00000000-0000-4000-8000-00000000000c"),
        l7_policy_id=L7PolicyId("00000000-0000-4000-8000-00000000000d"),
        load_balancer_id=tree.id,
        project_id=PROJECT,
        type=kind,
        compare_type=compare,
        key=("CN" if kind is L7RuleType.SSL_DN_FIELD else "exam") if kind in L7_RULE_KEY_REQUIRED else None,
        value=_VALUES.get(kind, "exam"),
        created_at=_MADE,
    )
    return replace(rule, **changed)


def _of_policies(tree: LoadBalancerTree) -> Iterator[_Change]:
    if tree.listeners[0].protocol not in (ListenerProtocol.HTTP, ListenerProtocol.TERMINATED_HTTPS):
        return
    equals = L7RuleCompareType.EQUAL_TO
    plain = _rule(tree, L7RuleType.PATH, equals)
    for action in L7PolicyAction:
        yield f"l7_policy {action}", tree, _policy(tree, action, plain)
    act = L7PolicyAction.REJECT
    refused = _policy(tree, act, plain)
    yield "l7_rule.value", refused, _policy(tree, act, _rule(tree, L7RuleType.PATH, equals, value="/other"))
    yield "l7_rule.invert", refused, _policy(tree, act, _rule(tree, L7RuleType.PATH, equals, invert=True))
    for kind in L7RuleType:
        if kind is not L7RuleType.PATH:
            yield f"l7_rule {kind}", refused, _policy(tree, act, _rule(tree, kind, equals))
        for compare in sorted(COMPARISONS_OF_L7_RULE[kind] - {equals}):
            other = _policy(tree, act, _rule(tree, kind, compare))
            yield f"l7_rule {kind} {compare}", _policy(tree, act, _rule(tree, kind, equals)), other
