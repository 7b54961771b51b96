"""What a driver can do, published when a controller registers, and the one question asked of it: can you carry this?

A field that a driver cannot honour is refused when it is asked for; never ignored (DESIGN section 6, rule 9)."""

from __future__ import annotations

from collections.abc import Collection

import msgspec
from msgspec.structs import replace

from frontinus.model.compatibility import (
    DATAGRAM_LISTENERS,
    DATAGRAM_POOLS,
    INSERT_HEADERS_OF_LISTENER,
    TLS_LISTENERS,
    TLS_VERSIONS,
)
from frontinus.model.enums import (
    HealthMonitorType,
    L7PolicyAction,
    L7RuleCompareType,
    L7RuleType,
    LbAlgorithm,
    ListenerProtocol,
    PoolProtocol,
    SessionPersistenceType,
    Topology,
)
from frontinus.model.errors import Unsupported, blaming
from frontinus.model.offers import FlavorData
from frontinus.model.placement import BY_FLAVOR, BY_ZONE, MANAGEMENT_NETWORK, field_of
from frontinus.model.ports import PORTS
from frontinus.model.tree import (
    DEFAULT_IDLE_MS,
    HealthMonitor,
    L7Policy,
    Listener,
    LoadBalancer,
    LoadBalancerTree,
    Member,
    Pool,
)


class Foreign(msgspec.Struct, frozen=True, kw_only=True):
    """What a third-party provider's driver is asked beside what every driver is: the keys that it takes in the data of its
    flavors and availability zones, with what it says of each (None: it has no such thing), and whether it does failovers."""

    flavor_words: dict[str, str] | None = None
    zone_words: dict[str, str] | None = None
    fails_over: bool = False


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """Closed sets of what is honoured. `features` holds the optional attributes by name: see FEATURES."""

    topologies: frozenset[Topology] = frozenset({Topology.SINGLE})
    listener_protocols: frozenset[ListenerProtocol] = frozenset()
    pool_protocols: frozenset[PoolProtocol] = frozenset()
    lb_algorithms: frozenset[LbAlgorithm] = frozenset()
    health_monitor_types: frozenset[HealthMonitorType] = frozenset()
    session_persistence_types: frozenset[SessionPersistenceType] = frozenset()
    backup_algorithms: frozenset[LbAlgorithm] = frozenset(LbAlgorithm)
    """Algorithms whose pools may have backup members, where those are a feature at all."""
    persistence_granularities: frozenset[str] = frozenset()
    """Netmasks by which datagram pools tell clients apart; each of them is offered by every pool that persists."""
    features: frozenset[str] = frozenset()
    flavor_keys: frozenset[str] = frozenset({"loadbalancer_topology"})
    """Keys of flavor data that are honoured; a load balancer whose flavor asks for another is refused."""
    least_memory_mib: tuple[int, int] = (0, 0)
    """What a flavor's max_memory must give at least: with one thread, and more for each other."""
    availability_zone_keys: frozenset[str] = frozenset({"valid_vip_networks"})
    """Keys of availability zone data that are honoured. The API itself sees to valid_vip_networks."""
    foreign: Foreign | None = None
    """Of a third-party provider: its load balancers have no amphorae of ours."""


def insert_header_feature(name: str) -> str:
    return f"insert_headers.{name}"


def l7_action_feature(action: L7PolicyAction) -> str:
    return f"l7_policy.{action}"


def l7_rule_feature(rule_type: L7RuleType) -> str:
    return f"l7_rule.{rule_type}"


def l7_compare_feature(compare_type: L7RuleCompareType) -> str:
    return f"l7_compare.{compare_type}"


FEATURES: dict[str, str] = {
    **{
        insert_header_feature(name): f"the header {name} inserted by a listener"
        for name in sorted(frozenset().union(*INSERT_HEADERS_OF_LISTENER.values()))
    },
    **{l7_action_feature(action): f"L7 policies that {action}" for action in L7PolicyAction},
    **{l7_rule_feature(rule_type): f"L7 rules about {rule_type}" for rule_type in L7RuleType},
    **{
        l7_compare_feature(compare_type): f"L7 rules that compare by {compare_type}"
        for compare_type in L7RuleCompareType
    },
    "allowed_cidrs": "source restriction of a listener",
    "additional_vips": "more than one VIP",
    "vrrp": "pairs whose addresses move by VRRP, for which amphorae must have ports of their own",
    "vip_qos_policy_id": "a QoS policy on the VIP",
    "vip_sg_ids": "security groups on the VIP",
    "pool_tls": "TLS from amphora to member",
    "client_authentication": "TLS client authentication of a listener",
    "connection_limit": "connection limit of a listener",
    "datagram_access": "source restrictions and connection limits of UDP and SCTP listeners",
    "datagram_timeouts": "a timeout of its own for each UDP listener, and one for SCTP listeners",
    "backup": "backup members",
    "monitor_address": "another address or port for health checks",
    "ping_monitor_address": "PING health monitors of another address than the member's",
    "domain_name": "HTTP version and host name of health checks",
    "timeout_tcp_inspect": "time to wait for content before a decision",
    "persistence_timeout": "a time after which a client may be sent to another member",
    "hsts": "HTTP Strict Transport Security",
    "prometheus_tls": "TLS on PROMETHEUS listeners",
    "tls_ssl_3": "SSLv3",
    "tls_1_0": "TLSv1 and TLSv1.1",
    "alpn_any": "ALPN protocols but http/1.1 and, before it, h2",
    "tls_gaps": "TLS versions with one between them left out",
}
"""Every feature name, with what it stands for."""


NETWORK_FEATURES = frozenset({"additional_vips", "vip_qos_policy_id", "vip_sg_ids"})
"""Features of addresses and their ports, which a network driver must have too."""


def with_network(amphorae: Capabilities, network_features: frozenset[str]) -> Capabilities:
    """What an amphora driver can do together with a network driver that has these features.

    Pairs by VRRP need ports. Amphorae must listen on every address; of a port's security groups and QoS policy they know nothing."""
    offered = network_features & NETWORK_FEATURES
    if "additional_vips" not in amphorae.features:
        offered -= {"additional_vips"}
    topologies = amphorae.topologies
    if "vrrp" in amphorae.features and PORTS not in network_features:
        topologies -= {Topology.ACTIVE_STANDBY}
    return replace(
        amphorae,
        topologies=topologies,
        features=(amphorae.features - NETWORK_FEATURES) | offered,
        availability_zone_keys=amphorae.availability_zone_keys | (network_features & {MANAGEMENT_NETWORK}),
    )


def with_compute(amphorae: Capabilities, placement_words: frozenset[str]) -> Capabilities:
    """What an amphora driver can do together with a compute driver that honours these words of a placement."""
    return replace(
        amphorae,
        flavor_keys=amphorae.flavor_keys | (placement_words & BY_FLAVOR),
        availability_zone_keys=amphorae.availability_zone_keys | (placement_words & (BY_ZONE - {MANAGEMENT_NETWORK})),
    )


def require(tree: LoadBalancerTree, capabilities: Capabilities) -> None:
    """Raise Unsupported naming the first field of the wanted tree that these capabilities do not cover."""
    wanted = tree.wanted()
    with blaming(wanted.load_balancer.kind, wanted.id):
        _require_load_balancer(wanted.load_balancer, capabilities)
    for listener in wanted.listeners:
        with blaming(listener.kind, listener.id):
            _require_listener(listener, capabilities)
    if "datagram_timeouts" not in capabilities.features:
        _require_one_time(wanted)
    for pool in wanted.pools:
        with blaming(pool.kind, pool.id):
            _require_pool(pool, capabilities)
            _refuse_cookies_without_http(pool, wanted)
    for member in wanted.members:
        with blaming(member.kind, member.id):
            _require_member(member, wanted, capabilities)
    for monitor in wanted.health_monitors:
        with blaming(monitor.kind, monitor.id):
            _require_health_monitor(monitor, capabilities)
    for policy in wanted.l7_policies:
        with blaming(policy.kind, policy.id):
            _require_l7_policy(policy, wanted, capabilities)
    for rule in wanted.l7_rules:
        with blaming(rule.kind, rule.id):
            _need(capabilities, l7_rule_feature(rule.type), "type")
            _need(capabilities, l7_compare_feature(rule.compare_type), "compare_type")


def _need(capabilities: Capabilities, feature: str, field: str) -> None:
    if feature not in capabilities.features:
        raise Unsupported(field, f"this provider does not offer {FEATURES[feature]}")


def refuse_small_memory(data: FlavorData, capabilities: Capabilities, field: str) -> None:
    """Raise Unsupported for a flavor in whose memory its own threads have no place."""
    first, other = capabilities.least_memory_mib
    threads = data.threads or 1
    least = first + other * (threads - 1)
    if data.max_memory is not None and data.max_memory < least:
        reason = f"{data.max_memory} MiB of max_memory are too few for {threads} threads; this provider needs {least}"
        raise Unsupported(field, reason)


_SIZES = ("threads", "max_connections", "max_memory")
"""Keys of flavor data that a load balancer keeps."""


def _require_load_balancer(load_balancer: LoadBalancer, capabilities: Capabilities) -> None:
    for key in _SIZES:
        if getattr(load_balancer, key) is not None and key not in capabilities.flavor_keys:
            raise Unsupported("flavor_id", f"it asks for {key}, which this provider does not offer")
    if load_balancer.placement is not None:
        for word in sorted(
            load_balancer.placement.asked - capabilities.flavor_keys - capabilities.availability_zone_keys
        ):
            raise Unsupported(field_of(word), f"it asks for {word}, which this provider does not offer")
    if load_balancer.topology not in capabilities.topologies:
        raise Unsupported("topology", f"this provider does not offer {load_balancer.topology}")
    if load_balancer.additional_vips:
        _need(capabilities, "additional_vips", "additional_vips")
    if load_balancer.vip_qos_policy_id:
        _need(capabilities, "vip_qos_policy_id", "vip_qos_policy_id")
    if load_balancer.vip_sg_ids:
        _need(capabilities, "vip_sg_ids", "vip_sg_ids")


def _require_one_time(wanted: LoadBalancerTree) -> None:
    """Where sessions of datagrams have no times of their own: all UDP listeners agree, and SCTP has the kernel's."""
    times = [x.idle_ms for x in sorted(wanted.listeners, key=lambda x: x.id) if x.protocol is ListenerProtocol.UDP]
    for listener in wanted.listeners:
        field = "timeout_client_data" if listener.timeout_client_data == listener.idle_ms else "timeout_member_data"
        with blaming(listener.kind, listener.id):
            if listener.protocol is ListenerProtocol.UDP and listener.idle_ms != times[0]:
                reason = (
                    f"this provider has one timeout for all UDP listeners of a load balancer, which is {times[0]} ms"
                )
                raise Unsupported(field, reason)
            if listener.protocol is ListenerProtocol.SCTP and listener.idle_ms != DEFAULT_IDLE_MS:
                raise Unsupported(field, "this provider has no timeout that could be set for SCTP listeners")


def _require_listener(listener: Listener, capabilities: Capabilities) -> None:
    if listener.protocol not in capabilities.listener_protocols:
        raise Unsupported("protocol", f"this provider does not offer {listener.protocol} listeners")
    for name, value in listener.insert_headers.items():
        if value.lower() == "true":
            _need(capabilities, insert_header_feature(name), "insert_headers")
    if listener.allowed_cidrs:
        _need(capabilities, "allowed_cidrs", "allowed_cidrs")
    if listener.connection_limit not in (None, -1):
        _need(capabilities, "connection_limit", "connection_limit")
    if listener.protocol in DATAGRAM_LISTENERS and (
        listener.allowed_cidrs or listener.connection_limit not in (None, -1)
    ):
        _need(capabilities, "datagram_access", "allowed_cidrs" if listener.allowed_cidrs else "connection_limit")
    if listener.timeout_tcp_inspect and listener.protocol in DATAGRAM_LISTENERS:
        reason = f"no provider waits for the content of a {listener.protocol} listener's datagrams"
        raise Unsupported("timeout_tcp_inspect", reason)
    if listener.timeout_tcp_inspect:
        _need(capabilities, "timeout_tcp_inspect", "timeout_tcp_inspect")
    if listener.client_ca_tls_container_ref:
        _need(capabilities, "client_authentication", "client_ca_tls_container_ref")
    if listener.protocol is ListenerProtocol.PROMETHEUS and (
        listener.default_tls_container_ref or listener.sni_container_refs
    ):
        _need(capabilities, "prometheus_tls", "default_tls_container_ref")
    if listener.hsts_max_age is not None:
        _need(capabilities, "hsts", "hsts_max_age")
    if listener.protocol in TLS_LISTENERS:
        _require_tls_versions(listener.tls_versions or (), capabilities)
        if listener.alpn_protocols not in _ALPN_OF_ALL:
            _need(capabilities, "alpn_any", "alpn_protocols")


_ALPN_OF_ALL = frozenset(
    {None, ("h2", "http/1.1", "http/1.0"), ("h2", "http/1.1"), ("http/1.1", "http/1.0"), ("http/1.1",)}
)
"""Any server of HTTP takes these; whether a client of HTTP/1.0 may say so beforehand makes no difference."""


def _require_pool(pool: Pool, capabilities: Capabilities) -> None:
    if pool.protocol not in capabilities.pool_protocols:
        raise Unsupported("protocol", f"this provider does not offer {pool.protocol} pools")
    if pool.lb_algorithm not in capabilities.lb_algorithms:
        raise Unsupported("lb_algorithm", f"this provider does not offer {pool.lb_algorithm}")
    persistence = pool.session_persistence
    if persistence is not None and persistence.type not in capabilities.session_persistence_types:
        raise Unsupported("session_persistence", f"this provider does not offer {persistence.type} persistence")
    if persistence is not None and persistence.persistence_timeout is not None:
        _need(capabilities, "persistence_timeout", "persistence_timeout")
    if persistence is not None and persistence.persistence_granularity is not None:
        offered = sorted(capabilities.persistence_granularities)
        if persistence.persistence_granularity not in offered:
            what = f"only {', '.join(offered)}" if offered else "none"
            reason = f"this provider does not tell clients apart by this netmask; it offers {what}"
            raise Unsupported("persistence_granularity", reason)
    if pool.tls_enabled and pool.protocol in DATAGRAM_POOLS:
        raise Unsupported("tls_enabled", f"no provider speaks TLS to the members of a {pool.protocol} pool")
    if pool.tls_enabled:
        _need(capabilities, "pool_tls", "tls_enabled")
        _require_tls_versions(pool.tls_versions or (), capabilities)


def _require_tls_versions(versions: Collection[str], capabilities: Capabilities) -> None:
    if "SSLv3" in versions:
        _need(capabilities, "tls_ssl_3", "tls_versions")
    if "TLSv1" in versions or "TLSv1.1" in versions:
        _need(capabilities, "tls_1_0", "tls_versions")
    places = sorted(TLS_VERSIONS.index(version) for version in versions if version in TLS_VERSIONS)
    if places and places[-1] - places[0] + 1 != len(set(places)):
        _need(capabilities, "tls_gaps", "tls_versions")


def _refuse_cookies_without_http(pool: Pool, tree: LoadBalancerTree) -> None:
    """Octavia takes it, and then nobody persists."""
    persistence = pool.session_persistence
    if persistence is None or persistence.type not in _COOKIES:
        return
    without = [x.protocol for x in tree.listeners_of(pool.id) if x.protocol not in _L7_LISTENERS]
    if pool.protocol in _OPAQUE_POOLS or without:
        whose = f"a {without[0]} listener" if without else f"a {pool.protocol} pool"
        raise Unsupported("session_persistence", f"no provider finds cookies in the traffic of {whose}")


_COOKIES = frozenset({SessionPersistenceType.HTTP_COOKIE, SessionPersistenceType.APP_COOKIE})
_OPAQUE_POOLS = frozenset({PoolProtocol.TCP, PoolProtocol.HTTPS, PoolProtocol.UDP, PoolProtocol.SCTP})


def _require_member(member: Member, tree: LoadBalancerTree, capabilities: Capabilities) -> None:
    if member.backup:
        _need(capabilities, "backup", "backup")
        pool = tree.pool(member.pool_id)
        if pool is not None and pool.lb_algorithm not in capabilities.backup_algorithms:
            raise Unsupported("backup", f"this provider has no backup members in a pool of {pool.lb_algorithm}")
    if member.monitor_address or member.monitor_port:
        _need(capabilities, "monitor_address", "monitor_address" if member.monitor_address else "monitor_port")

    if member.monitor_address and "ping_monitor_address" not in capabilities.features:
        monitor = tree.health_monitor_of(member.pool_id)
        if monitor is not None and monitor.type is HealthMonitorType.PING:
            _need(capabilities, "ping_monitor_address", "monitor_address")


def _require_health_monitor(monitor: HealthMonitor, capabilities: Capabilities) -> None:
    if monitor.type not in capabilities.health_monitor_types:
        raise Unsupported("type", f"this provider does not offer {monitor.type} health monitors")
    if monitor.http_version is not None or monitor.domain_name is not None:
        _need(capabilities, "domain_name", "domain_name" if monitor.domain_name else "http_version")


def _require_l7_policy(policy: L7Policy, tree: LoadBalancerTree, capabilities: Capabilities) -> None:
    listener = tree.listener(policy.listener_id)
    if listener is not None and listener.protocol not in _L7_LISTENERS:
        raise Unsupported("listener_id", f"no provider looks into the requests of a {listener.protocol} listener")
    _need(capabilities, l7_action_feature(policy.action), "action")


_L7_LISTENERS = frozenset({ListenerProtocol.HTTP, ListenerProtocol.TERMINATED_HTTPS})
