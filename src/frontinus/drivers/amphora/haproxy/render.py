"""From the wanted tree to the configuration of one amphora. Pure: no clock, no I/O; same input, same text.

What agent and heartbeats read back from the text: contract/amphora-agent.yaml, haproxy_config_contract. Objects are
written in the order of their ids, so that the order in which the store hands them over changes nothing. Nothing is
rendered that the default does not need: each option costs every request. Next: driver.py, diff.py."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from frontinus.drivers.amphora.agent.files import digest, marks
from frontinus.drivers.amphora.agent.lvs import FOR_EVER_MS, lvs_files, with_lvs
from frontinus.drivers.amphora.agent.stream import GRANULARITIES, datagram_files
from frontinus.drivers.amphora.haproxy import logs
from frontinus.drivers.amphora.haproxy.headers import header_lines
from frontinus.drivers.amphora.haproxy.l7 import l7_lines
from frontinus.drivers.amphora.haproxy.memory import LEAST_MIB, Load, room_within
from frontinus.drivers.amphora.haproxy.monitors import (
    FIRST_CHECK_WITHIN,
    LONGEST_TIMER_S,
    PROCESSES_WANTED,
    examines,
    is_of_http,
    monitor_lines,
    needs_processes,
)
from frontinus.drivers.amphora.haproxy.patterns import NETWORKS, networks_content
from frontinus.drivers.amphora.haproxy.persistence import (
    learns,
    peers_section,
    persistence_lines,
    table_line,
)
from frontinus.drivers.amphora.haproxy.server import Check, Server, address_of, bracket
from frontinus.drivers.amphora.haproxy.settings import HaproxySettings
from frontinus.drivers.amphora.haproxy.text import Section, Unwritable, checked, write
from frontinus.drivers.amphora.haproxy.tls import Files, Tls, bind_words, hsts_lines, server_tls
from frontinus.drivers.amphora.haproxy.versions import PRESUMED, Version, says
from frontinus.drivers.amphora.interface import Rendered, RenderedFile
from frontinus.model.capabilities import (
    NETWORK_FEATURES,
    Capabilities,
    insert_header_feature,
    l7_action_feature,
    l7_compare_feature,
    l7_rule_feature,
    require,
    with_network,
)
from frontinus.model.certificates import NO_SECRETS, Secrets
from frontinus.model.compatibility import DATAGRAM_LISTENERS, INSERT_HEADERS_OF_LISTENER, TLS_LISTENERS
from frontinus.model.enums import (
    HealthMonitorType,
    Kind,
    L7PolicyAction,
    L7RuleCompareType,
    L7RuleType,
    LbAlgorithm,
    ListenerProtocol,
    PoolProtocol,
    SessionPersistenceType,
    Topology,
)
from frontinus.model.errors import Rejected, Unsupported, blaming
from frontinus.model.ports import PORTS
from frontinus.model.tree import HealthMonitor, Listener, LoadBalancerTree, Member, Pool

CAPABILITIES = Capabilities(
    topologies=frozenset(Topology),
    flavor_keys=frozenset({"loadbalancer_topology", "threads", "max_connections", "max_memory"}),
    least_memory_mib=LEAST_MIB,
    listener_protocols=frozenset(
        {
            *(ListenerProtocol.HTTP, ListenerProtocol.TCP, ListenerProtocol.HTTPS, ListenerProtocol.TERMINATED_HTTPS),
            ListenerProtocol.PROMETHEUS,
            ListenerProtocol.UDP,
        }
    ),
    pool_protocols=frozenset(
        {
            *(PoolProtocol.HTTP, PoolProtocol.TCP, PoolProtocol.HTTPS, PoolProtocol.PROXY, PoolProtocol.PROXYV2),
            PoolProtocol.UDP,
        }
    ),
    lb_algorithms=frozenset(LbAlgorithm),
    health_monitor_types=frozenset(
        {
            *(HealthMonitorType.HTTP, HealthMonitorType.HTTPS, HealthMonitorType.TCP, HealthMonitorType.TLS_HELLO),
            *(HealthMonitorType.PING, HealthMonitorType.UDP_CONNECT),
        }
    ),
    session_persistence_types=frozenset(SessionPersistenceType),
    persistence_granularities=frozenset(GRANULARITIES),
    features=frozenset(
        {
            *(
                "vrrp",
                "additional_vips",
                "connection_limit",
                "datagram_access",
                "datagram_timeouts",
                "backup",
                "monitor_address",
                "domain_name",
                "timeout_tcp_inspect",
                "allowed_cidrs",
            ),
            *(insert_header_feature(name) for name in INSERT_HEADERS_OF_LISTENER[ListenerProtocol.TERMINATED_HTTPS]),
            *("pool_tls", "client_authentication", "hsts", "tls_1_0", "alpn_any", "prometheus_tls"),
            *(l7_action_feature(action) for action in L7PolicyAction),
            *(l7_rule_feature(rule_type) for rule_type in L7RuleType),
            *(l7_compare_feature(compare_type) for compare_type in L7RuleCompareType),
        }
    ),
)
"""What this module renders and tests/integration/drivers proves with real traffic; nothing else."""

_JUDGED_BY = {
    "nginx": with_network(CAPABILITIES, NETWORK_FEATURES | {PORTS}),
    "lvs": with_network(with_lvs(CAPABILITIES), NETWORK_FEATURES | {PORTS}),
}
"""What is the network's to honour has been judged before: a port's security groups are nothing that an amphora renders."""

Lines = tuple[tuple[str, ...], ...]

_BALANCE: dict[LbAlgorithm, Lines] = {
    LbAlgorithm.ROUND_ROBIN: (("balance", "roundrobin"),),
    LbAlgorithm.LEAST_CONNECTIONS: (("balance", "leastconn"),),
    # Consistent, because HAProxy adds and removes servers at run time only with a dynamic algorithm, and because a
    # member that comes or goes then moves only its own share of the clients.
    LbAlgorithm.SOURCE_IP: (("balance", "source"), ("hash-type", "consistent")),
    # `balance hash` takes one sample, and converters reach the port only through a variable.
    LbAlgorithm.SOURCE_IP_PORT: (
        ("tcp-request", "content", "set-var(txn.source_port)", "src_port"),
        ("balance", "hash", "src,concat(:,txn.source_port)"),
        ("hash-type", "consistent"),
    ),
}

SHORTEST_INTERVAL = "100ms"
"""For a delay of 0, checks one after another, which HAProxy does not have: as often as is sane."""

MAX_MEMORY = "FRONTINUS_MAX_MEMORY"
"""The variable by which the agent knows how many MiB HAProxy may take (agent-extension.md)."""

LONGEST_HEAD_MS = 60_000
"""For the head of a request to arrive, as nginx and others have it (and less where a client may be silent for less)."""

NO_H2C: Lines = (
    ("http-request", "del-header", "Upgrade", "if", "{", "req.hdr(Upgrade)", "-i", "h2c", "}"),
    ("http-request", "del-header", "HTTP2-Settings"),
)
"""A client that would go on in HTTP/2 with a member (RFC 7540 3.2, taken out of the protocol by RFC 9113) would get a tunnel
through us, and what it asks in there would go past every L7 policy and inserted header. Other upgrades pass."""

MOST_CONNECTIONS = 2_147_483_647
"""HAProxy counts connections in 31 bits."""

_METRICS: Lines = (
    ("http-request", "use-service", "prometheus-exporter", "if", "{", "path", "/metrics", "}"),
    ("http-request", "return", "status", "404"),
)
"""A PROMETHEUS listener has the path of Octavia's, and nothing else."""

NETWORKS_PER_LINE = 50
"""Where there is no file for them: ACL lines of one name are ored, and a line has a bounded number of words."""

_HTTP_LISTENERS = frozenset({ListenerProtocol.HTTP, ListenerProtocol.TERMINATED_HTTPS, ListenerProtocol.PROMETHEUS})
_TLS_MONITORS = frozenset({HealthMonitorType.HTTPS, HealthMonitorType.TLS_HELLO})
"""TLS_HELLO is a whole handshake: what HAProxy's ssl-hello-chk sends is SSLv3, which servers of today turn away."""

_PROXY_PROTOCOL = {PoolProtocol.PROXY: 1, PoolProtocol.PROXYV2: 2}


def render(
    tree: LoadBalancerTree,
    settings: HaproxySettings,
    secrets: Secrets = NO_SECRETS,
    *,
    amphora_id: str = "",
    version: Version = PRESUMED,
) -> Rendered:
    """The configuration for the wanted tree; an empty text when nothing shall listen. `amphora_id` shows in it where logs are
    sent somewhere, and where stick tables are handed on. `version` is that of the HAProxy that shall run it.

    Raises Rejected naming object and field when something cannot be expressed."""
    wanted = tree.wanted()
    try:
        require(wanted, _JUDGED_BY[settings.datagram_balancer])
    except Unsupported as error:
        rejected = Rejected(error.field, error.reason)
        rejected.subject = error.subject
        raise rejected from error
    listeners = sorted((x for x in wanted.listeners if x.admin_state_up), key=lambda x: x.id)
    if not listeners or not wanted.load_balancer.admin_state_up or wanted.load_balancer.delete_requested:
        return rendered("")
    load_balancer = wanted.load_balancer
    if settings.datagram_balancer == "lvs":
        datagrams = lvs_files(wanted)
    else:
        datagrams = datagram_files(wanted, settings.nginx(load_balancer.threads, load_balancer.max_connections))
    listeners = [x for x in listeners if x.protocol not in DATAGRAM_LISTENERS]  # those are for the balancer beside
    if not listeners:
        return rendered("", datagrams)
    pairs = [(pool, listener) for listener in listeners for pool in _enabled_pools(wanted, listener)]
    settings = _sized(wanted, settings, listeners, [pool for pool, _ in pairs])
    sections = [_global(wanted, settings, amphora_id, version), _defaults(), *logs.ring_sections(settings)]
    tables = [x for pool, of in pairs if (x := table_line(pool, backend_name(pool, of), settings)) is not None]
    if tables:
        sections.append(peers_section(wanted, amphora_id, settings, tables))
    files = Files(wanted.id, secrets, settings)
    for listener in listeners:
        with blaming(listener.kind, listener.id):
            sections.append(_frontend(wanted, listener, files, settings, version))
        for pool in _enabled_pools(wanted, listener):
            with blaming(pool.kind, pool.id):
                sections.append(_backend(wanted, listener, pool, files, settings, version))
    try:
        return rendered(write(tuple(sections)), (*datagrams, *files.all()))
    except Unwritable as error:  # every string of a tenant that can get here was tried, and named, by `checked`
        raise Rejected("load_balancer", str(error)) from error


def rendered(text: str, files: Sequence[RenderedFile] = ()) -> Rendered:
    """Text and files with their digest."""
    ordered = tuple(sorted(files, key=lambda file: file.name))
    return Rendered(text=text, digest=digest(text, marks(ordered)), files=ordered)


def server_number(member_id: str) -> int:
    """A HAProxy server id for a member: positive, below 2**31, spread evenly, and the same everywhere."""
    return int.from_bytes(hashlib.sha256(member_id.encode()).digest()[:4], "big") % (2**31 - 1) + 1


def server_numbers(members: list[Member]) -> dict[str, int]:
    """`server_number` of each member, with the rare clash resolved by counting on."""
    taken: set[int] = set()
    numbers: dict[str, int] = {}
    for member in members:
        number = server_number(member.id)
        while number in taken:
            number = number % (2**31 - 1) + 1
        taken.add(number)
        numbers[member.id] = number
    return numbers


def _sized(
    tree: LoadBalancerTree, settings: HaproxySettings, listeners: list[Listener], pools: list[Pool]
) -> HaproxySettings:
    """The settings with what the flavor says of sizes. `pools` once for each listener. Raises Rejected."""
    load_balancer = tree.load_balancer
    threads = load_balancer.threads or settings.threads
    connections = load_balancer.max_connections or settings.max_connections
    entries = settings.stick_table_size
    if load_balancer.max_memory is not None:
        if settings.base_path:
            raise Rejected("max_memory", "agents of Octavia do not limit memory")
        tls = any(x.protocol in TLS_LISTENERS for x in listeners), any(x.tls_enabled for x in pools)
        load = Load(
            threads=threads,
            servers=sum(len(tree.members_of(x.id)) for x in pools),
            tables=sum(learns(x) for x in pools),
            tls_sides=sum(tls),
        )
        room = room_within(load_balancer.max_memory, load)
        connections = min(connections, room.connections)
        entries = min(entries, room.table_entries or entries)
    return replace(settings, threads=threads, max_connections=connections, stick_table_size=entries)


def _global(tree: LoadBalancerTree, settings: HaproxySettings, amphora_id: str, version: Version) -> Section:
    base = _base(settings)
    memory = tree.load_balancer.max_memory
    # Without a slash in front HAProxy takes a relative path for an address; unix@ says what it is.
    socket = f"{base}{tree.id}.sock" if base else f"unix@{tree.id}.sock"
    return Section(
        "global",
        "",
        (
            # expose-fd listeners: a reload hands the listening sockets over, so that no connection is refused.
            ("stats", "socket", socket, "mode", "600", "level", "admin", "expose-fd", "listeners"),
            ("server-state-file", f"{base}{tree.id}/servers-state"),
            # For the agent, which has the kernel see to it.
            *([("setenv", MAX_MEMORY, str(memory))] if memory is not None else []),
            ("nbthread", str(settings.threads)),
            *_connection_limit(settings.max_connections, settings.threads, version),
            # Our agent sees to that itself; Octavia's starts HAProxy as root, and its own configurations say this.
            *([("user", "nobody")] if base else []),
            ("hard-stop-after", _seconds(settings.hard_stop_after)),
            ("mworker-max-reloads", str(settings.max_old_workers)),
            # HAProxy's own HTTP client (Lua's) is not used here. Left to itself it reads every authority of the system at
            # each start, check and reload: three quarters of what these take, and memory in each worker.
            *([("httpclient.ssl.verify", "none")] if says(version, "httpclient.ssl.verify") else []),
            *([("max-spread-checks", FIRST_CHECK_WITHIN)] if examines(tree) else []),
            *logs.global_lines(settings, amphora_id),
            *(PROCESSES_WANTED if needs_processes(tree) else ()),
        ),
    )


def _connection_limit(connections: int, threads: int, version: Version) -> Lines:
    """What lets at most so many connections be, and fewer where the process may not have as many descriptors."""
    if says(version, "fd-hard-limit"):
        # Two descriptors per connection, three per thread, and a hundred for listeners, checks and sockets.
        return (("fd-hard-limit", str(2 * connections + 3 * (threads - 1) + 100)),)
    return (("no", "strict-limits"), ("maxconn", str(connections)))


def _defaults() -> Section:
    return Section(
        "defaults",
        "",
        (
            # A member that refuses the connection costs a request nothing: the next try goes to another at once.
            ("retries", "3"),
            ("option", "redispatch", "1"),
            # safe: the first request of a client never goes over a connection that the member may just be closing, so
            # a client sees no error that it would not see without us; later ones cost no new connection.
            ("http-reuse", "safe"),
            # All backup members share the load when no other is left, as Octavia has it.
            ("option", "allbackups"),
            ("load-server-state-from-file", "global"),
        ),
    )


def _frontend(
    tree: LoadBalancerTree, listener: Listener, files: Files, settings: HaproxySettings, version: Version
) -> Section:
    mode = _mode(listener)
    with blaming(Kind.LOAD_BALANCER, tree.id):
        addresses = [address_of(x, "vip_address") for x in tree.addresses()]
    tls = bind_words(listener, files, version) if listener.protocol in TLS_LISTENERS else ()
    lines: list[tuple[str, ...]] = [
        ("mode", mode),
        *(("bind", f"{bracket(x)}:{listener.protocol_port}", *tls) for x in addresses),
        ("timeout", "client", str(listener.timeout_client_data)),
        *logs.frontend_lines(settings, tree.load_balancer, mode),
    ]
    if mode == "http":
        # After a reload, an idle keep-alive connection is closed with its next answer, never under a request.
        lines.append(("option", "idle-close-on-response"))
        lines += _request_times(listener)
        lines += NO_H2C
        lines += hsts_lines(listener)
    lines += _allowed_cidrs(listener, files)
    match listener.connection_limit:
        case None | -1:
            pass
        case 0:
            # HAProxy reads maxconn 0 as unlimited; the limit that was asked for lets nobody in.
            lines.append(("tcp-request", "connection", "reject"))
        case limit:
            lines.append(("maxconn", str(min(limit, MOST_CONNECTIONS))))
    if listener.timeout_tcp_inspect:
        # Bounds the wait for rules that look into the content; without such a rule nothing waits.
        lines.append(("tcp-request", "inspect-delay", str(listener.timeout_tcp_inspect)))
    if listener.protocol is ListenerProtocol.PROMETHEUS:
        lines += _METRICS
    backends = {str(pool.id): backend_name(pool, listener) for pool in _enabled_pools(tree, listener)}
    lines += l7_lines(tree, listener, backends, files)
    default = tree.pool(listener.default_pool_id)
    if default is not None and default.admin_state_up:
        lines.append(("default_backend", backend_name(default, listener)))
    return Section("frontend", listener.id, tuple(lines))


def _request_times(listener: Listener) -> Lines:
    """`timeout client` begins anew with each byte, so that the head of a request could take for ever, and hold a connection
    (manual 4.2, timeout http-request). Between requests it is as long as it was: unsaid, or 0, that time would be the former."""
    idle = listener.timeout_client_data
    head = LONGEST_HEAD_MS if idle == 0 else min(idle, LONGEST_HEAD_MS)
    return (("timeout", "http-request", str(head)), ("timeout", "http-keep-alive", str(idle or FOR_EVER_MS)))


def _allowed_cidrs(listener: Listener, files: Files) -> list[tuple[str, ...]]:
    """Whoever comes from elsewhere is turned away before a byte of his is read."""
    if not listener.allowed_cidrs:
        return []
    try:
        networks = [ipaddress.ip_network(cidr, strict=False) for cidr in listener.allowed_cidrs]
    except ValueError as error:
        raise Rejected("allowed_cidrs", str(error)) from error
    acl, reject = ("acl", "allowed_cidrs"), ("tcp-request", "connection", "reject", "unless", "allowed_cidrs")
    path = files.patterns(f"{NETWORKS}{listener.id}.map", networks_content(networks))
    if path is not None:
        # A map rather than a list, because many networks are added to it by one command.
        return [(*acl, f"src,map_ip({path})", "-m", "found"), reject]
    parts = (networks[start : start + NETWORKS_PER_LINE] for start in range(0, len(networks), NETWORKS_PER_LINE))
    return [*((*acl, "src", *map(str, part)) for part in parts), reject]


def _backend(
    tree: LoadBalancerTree,
    listener: Listener,
    pool: Pool,
    files: Files,
    settings: HaproxySettings,
    version: Version,
) -> Section:
    monitor = tree.health_monitor_of(pool.id)
    if monitor is not None and not monitor.admin_state_up:
        monitor = None
    lines: list[tuple[str, ...]] = [
        # The listener decides: a TCP listener does not look into what an HTTP pool speaks.
        ("mode", _mode(listener)),
        *_balance(pool.lb_algorithm, version),
        ("timeout", "connect", str(listener.timeout_member_connect)),
        ("timeout", "server", str(listener.timeout_member_data)),
        *logs.backend_lines(settings),
    ]
    lines.extend(persistence_lines(tree, pool, backend_name(pool, listener)))
    lines.extend(header_lines(listener))
    if monitor is not None:
        with blaming(monitor.kind, monitor.id):
            lines.extend(monitor_lines(tree, monitor, _base(settings)))
    tls = server_tls(pool, _mode(listener), files)
    members = sorted(tree.members_of(pool.id), key=lambda x: x.id)
    numbers = server_numbers(members)
    for member in members:
        with blaming(member.kind, member.id):
            lines.append(_server(member, numbers[member.id], pool, tls, monitor).words())
    return Section("backend", backend_name(pool, listener), tuple(lines))


def _balance(algorithm: LbAlgorithm, version: Version) -> Lines:
    if algorithm is LbAlgorithm.SOURCE_IP_PORT and not says(version, "balance hash"):
        raise Rejected("lb_algorithm", "SOURCE_IP_PORT needs HAProxy 2.6 or later on the amphora")
    return _BALANCE[algorithm]


def backend_name(pool: Pool, listener: Listener) -> str:
    """Heartbeats find pool and listener again in this name."""
    return f"{pool.id}:{listener.id}"


def _server(member: Member, number: int, pool: Pool, tls: Tls | None, monitor: HealthMonitor | None) -> Server:
    check = None
    if monitor is not None:
        elsewhere = member.monitor_address is not None or member.monitor_port is not None
        is_tls = monitor.type in _TLS_MONITORS or (tls is not None and not elsewhere)
        check = Check(
            inter=f"{min(monitor.delay, LONGEST_TIMER_S)}s" if monitor.delay else SHORTEST_INTERVAL,
            fall=monitor.max_retries_down,
            rise=monitor.max_retries,
            address=address_of(member.monitor_address, "monitor_address") if member.monitor_address else None,
            port=member.monitor_port,
            tls=is_tls,
            sni=checked(monitor.domain_name, "domain_name") if is_tls and monitor.domain_name else None,
            alpn=_check_alpn(tls, monitor) if is_tls else None,
        )
    return Server(
        name=member.id,
        number=number,
        address=address_of(member.address, "address"),
        port=member.protocol_port,
        weight=1 if member.weight is None else member.weight,
        backup=member.backup,
        disabled=not member.admin_state_up,
        proxy_protocol=_PROXY_PROTOCOL.get(pool.protocol, 0),
        check=check,
        tls=tls,
    )


def _check_alpn(tls: Tls | None, monitor: HealthMonitor) -> str | None:
    """What an HTTP check offers where its server offers something, for HAProxy would offer as much and then speak HTTP/1
    whatever was agreed upon: HTTP/1 if the pool allows it, as the monitor has a version of that, and else HTTP/2."""
    if tls is None or tls.alpn is None or not is_of_http(monitor):
        return None
    oldest = [x for x in tls.alpn.split(",") if x.startswith("http/1")]
    return ",".join(oldest) or tls.alpn


def _enabled_pools(tree: LoadBalancerTree, listener: Listener) -> list[Pool]:
    return sorted((pool for pool in tree.pools_of(listener) if pool.admin_state_up), key=lambda x: x.id)


def _mode(listener: Listener) -> str:
    return "http" if listener.protocol in _HTTP_LISTENERS else "tcp"


def _base(settings: HaproxySettings) -> str:
    """What stands before a path of the agent's; nothing when paths are relative."""
    return f"{settings.base_path.rstrip('/')}/" if settings.base_path else ""


def _seconds(duration: timedelta) -> str:
    return f"{int(duration.total_seconds())}s"
