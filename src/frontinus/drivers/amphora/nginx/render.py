"""From the wanted tree to the nginx configuration of one amphora and its outline. Pure: same input, same text.

TCP, HTTPS and UDP listeners are nginx's stream module's, HTTP and TERMINATED_HTTPS its http module's; those of UDP are an
nginx of their own. Texts and outlines go as files beside an empty HAProxy text: nothing of HAProxy runs. Objects are written in the order of their ids.
Next: http.py, l7.py, tls.py; agent/stream.py for what goes through the stream module."""

from __future__ import annotations

from collections.abc import Sequence

from frontinus.drivers.amphora.agent.files import FOR_CONNECTIONS, digest, marks
from frontinus.drivers.amphora.agent.nginx_text import Directive, block
from frontinus.drivers.amphora.agent.outline import ListenerOutline, MemberOutline, Outline
from frontinus.drivers.amphora.agent.stream import (
    NginxSettings,
    datagram_files,
    main,
    nginx_files,
    stream_server,
    vip_addresses,
)
from frontinus.drivers.amphora.interface import Rendered, RenderedFile
from frontinus.drivers.amphora.nginx.http import BACKUP_ALGORITHMS, HEADERS, http_block, passive_outlines, upstream
from frontinus.drivers.amphora.nginx.l7 import RULE_TYPES
from frontinus.drivers.amphora.nginx.tls import tls_servers
from frontinus.model.capabilities import (
    Capabilities,
    insert_header_feature,
    l7_action_feature,
    l7_compare_feature,
    l7_rule_feature,
    require,
)
from frontinus.model.certificates import NO_SECRETS, Secrets
from frontinus.model.enums import (
    HealthMonitorType,
    Kind,
    L7PolicyAction,
    L7RuleCompareType,
    LbAlgorithm,
    ListenerProtocol,
    PoolProtocol,
    Topology,
)
from frontinus.model.errors import Rejected, Unsupported, blaming
from frontinus.model.tree import Listener, LoadBalancerTree, Pool

CAPABILITIES = Capabilities(
    topologies=frozenset({Topology.SINGLE}),
    listener_protocols=frozenset(
        {
            ListenerProtocol.HTTP,
            ListenerProtocol.HTTPS,
            ListenerProtocol.TCP,
            ListenerProtocol.TERMINATED_HTTPS,
            ListenerProtocol.UDP,
        }
    ),
    pool_protocols=frozenset({PoolProtocol.HTTP, PoolProtocol.HTTPS, PoolProtocol.TCP, PoolProtocol.UDP}),
    lb_algorithms=frozenset(LbAlgorithm),
    # nginx examines nobody; the agent does so for datagrams, where nginx could not even guess.
    health_monitor_types=frozenset({HealthMonitorType.UDP_CONNECT}),
    backup_algorithms=BACKUP_ALGORITHMS,
    features=frozenset(
        {
            *(
                "allowed_cidrs",
                "datagram_access",
                "datagram_timeouts",
                "additional_vips",
                "backup",
                "monitor_address",
                "hsts",
                "tls_gaps",
            ),
            *(insert_header_feature(name) for name in HEADERS),
            *(l7_action_feature(action) for action in L7PolicyAction),
            *(l7_rule_feature(rule_type) for rule_type in RULE_TYPES),
            *(l7_compare_feature(compare_type) for compare_type in L7RuleCompareType),
        }
    ),
)
"""What this package renders and tests/integration/drivers proves with real traffic; nothing else."""

_HTTP = frozenset({ListenerProtocol.HTTP, ListenerProtocol.TERMINATED_HTTPS})
_STREAM = frozenset({ListenerProtocol.TCP, ListenerProtocol.HTTPS})


def render(tree: LoadBalancerTree, settings: NginxSettings, secrets: Secrets = NO_SECRETS) -> Rendered:
    """The configuration for the wanted tree; nothing at all when nothing shall listen.

    Raises Rejected naming the field when something cannot be expressed."""
    wanted = tree.wanted()
    try:
        require(wanted, CAPABILITIES)
    except Unsupported as error:
        rejected = Rejected(error.field, error.reason)
        rejected.subject = error.subject
        raise rejected from error
    listeners = sorted((x for x in wanted.listeners if x.admin_state_up), key=lambda x: x.id)
    if not listeners or not wanted.load_balancer.admin_state_up or wanted.load_balancer.delete_requested:
        return _rendered(())
    over_http = [x for x in listeners if x.protocol in _HTTP]
    tls = {x.id: tls_servers(wanted, x, secrets) for x in over_http if x.protocol is ListenerProtocol.TERMINATED_HTTPS}
    directives = list(main(settings))
    if over_http:
        directives.append(http_block(wanted, over_http, tls))
    stream = [*_connections(wanted, [x for x in listeners if x.protocol in _STREAM], settings)]
    if stream:
        directives.append(block("stream", inside=stream))
    of_connections: tuple[RenderedFile, ...] = ()
    if over_http or stream:
        of_these = [x for x in listeners if x.protocol in _HTTP | _STREAM]
        outline = Outline(listeners=_places(wanted, of_these), pools=_pools(wanted, of_these))
        of_connections = nginx_files(FOR_CONNECTIONS, directives, outline)
    certificates = {server.file.name: server.file for servers in tls.values() for server in servers}
    return _rendered((*of_connections, *datagram_files(wanted, settings), *certificates.values()))


def _rendered(files: Sequence[RenderedFile]) -> Rendered:
    ordered = tuple(sorted(files, key=lambda file: file.name))
    return Rendered(text="", digest=digest("", marks(ordered)), files=ordered)


def _connections(tree: LoadBalancerTree, listeners: list[Listener], settings: NginxSettings) -> list[Directive]:
    """TCP, passed on as it is."""
    pools = {pool.id: pool for x in listeners if (pool := _pool_of(tree, x)) is not None}
    directives: list[Directive] = []
    for pool_id in sorted(pools):
        with blaming(Kind.POOL, pool_id):
            directives.append(upstream(tree, pools[pool_id], keepalive=False))
    for listener in listeners:
        with blaming(listener.kind, listener.id):
            directives += stream_server(tree, listener, _pool_of(tree, listener), settings)
    return directives


def _pool_of(tree: LoadBalancerTree, listener: Listener) -> Pool | None:
    pool = tree.pool(listener.default_pool_id)
    return pool if pool is not None and pool.admin_state_up else None


def _places(tree: LoadBalancerTree, listeners: list[Listener]) -> dict[str, ListenerOutline]:
    return {
        x.id: ListenerOutline(
            binds=tuple((address, x.protocol_port) for address in vip_addresses(tree)), datagrams=False
        )
        for x in listeners
    }


def _pools(tree: LoadBalancerTree, listeners: list[Listener]) -> dict[str, dict[str, MemberOutline]]:
    used = {pool.id: pool for x in listeners for pool in tree.pools_of(x) if pool.admin_state_up}
    return {pool_id: passive_outlines(tree, used[pool_id]) for pool_id in sorted(used)}
