"""HTTP and TERMINATED_HTTPS listeners as nginx servers, and their pools as upstreams. Pure. Next: l7.py, tls.py.

What a client sent reaches the member as it was: nothing is merged, decoded, buffered or left out, and what a member says
to nginx by X-Accel headers is not obeyed. Members' health is nginx's own guess (max_fails, fail_timeout): one that
refuses connections is passed over for ten seconds. Source: nginx's reference of ngx_http_proxy_module and
ngx_http_upstream_module."""

from __future__ import annotations

from collections.abc import Mapping

from frontinus.drivers.amphora.agent.nginx_text import Directive, block, dollar_variable, line
from frontinus.drivers.amphora.agent.outline import MemberOutline, member_outline
from frontinus.drivers.amphora.agent.stream import (
    BALANCE,
    LOG,
    NOBODY,
    networks,
    place,
    server_line,
    timeout,
    vip_addresses,
)
from frontinus.drivers.amphora.nginx.l7 import Choice, policies, sources
from frontinus.drivers.amphora.nginx.tls import TlsServer
from frontinus.model.enums import LbAlgorithm, ListenerProtocol
from frontinus.model.errors import Rejected, blaming
from frontinus.model.ids import ListenerId
from frontinus.model.tree import Listener, LoadBalancerTree, Pool

BACKUP_ALGORITHMS = frozenset({LbAlgorithm.ROUND_ROBIN, LbAlgorithm.LEAST_CONNECTIONS})
"""nginx has no backups behind a hash."""

IDLE_CONNECTIONS = 32
"""Kept to the members of a pool, by each worker."""

IDLE_TIME = "4s"
"""For a connection to a member that waits for a request: less than the five seconds after which many servers close one, since
nginx does not send a POST again that met such an end."""

_TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")

_MAIN: tuple[Directive, ...] = (
    *(line(f"{name}_temp_path", f"temp-{name}") for name in _TEMPORARY),
    line("server_tokens", "off"),
    line("default_type", "text/plain"),
    line("variables_hash_max_size", "65536"),
    line("variables_hash_bucket_size", "128"),
    line("map_hash_bucket_size", "256"),
    line("server_names_hash_bucket_size", "512"),
    line("server_names_hash_max_size", "65536"),
    line("client_max_body_size", "0"),
    line("large_client_header_buffers", "8", "32k"),
    line("underscores_in_headers", "on"),
    line("ignore_invalid_headers", "off"),
    line("merge_slashes", "off"),
    line("keepalive_requests", "1000000000"),
    line("proxy_http_version", "1.1"),
    line("proxy_buffering", "off"),
    line("proxy_request_buffering", "off"),
    line("proxy_buffer_size", "32k"),
    line("proxy_buffers", "4", "32k"),
    line("proxy_busy_buffers_size", "64k"),
    line("proxy_redirect", "off"),
    line("proxy_pass_header", "Server"),
    line("proxy_pass_header", "Date"),
    *(
        line("proxy_pass_header", f"X-Accel-{name}")
        for name in ("Expires", "Redirect", "Limit-Rate", "Buffering", "Charset")
    ),
    line("proxy_pass_header", "X-Pad"),
    Directive(
        (
            *("proxy_ignore_headers", "X-Accel-Redirect", "X-Accel-Expires", "X-Accel-Limit-Rate", "X-Accel-Buffering"),
            *("X-Accel-Charset", "Expires", "Cache-Control", "Set-Cookie", "Vary"),
        )
    ),
    dollar_variable(),
    # A WebSocket's upgrade passes, and any other, but not to HTTP/2: what came then would go past the L7 policies.
    block("map", "$http_upgrade", "$frontinus_upgrade", inside=[line("default", "$http_upgrade"), line("~*h2c", "")]),
    # Without one connections to members are kept.
    block("map", "$frontinus_upgrade", "$frontinus_connection", inside=[line("default", "upgrade"), line("", "")]),
    # What the log counts: the first request of a connection counts it, and the client's own mistakes are its errors.
    block("map", "$connection_requests", "$frontinus_opened", inside=[line("default", "0"), line("1", "1")]),
    block(
        "map",
        "$status",
        "$frontinus_failed",
        inside=[
            line("default", "0"),
            *(line(code, "1") for code in ("400", "408", "414", "431", "494", "495", "496", "497")),
        ],
    ),
)

_HEADER_VALUES: dict[str, str] = {
    "X-Forwarded-For": "$proxy_add_x_forwarded_for",
    "X-Forwarded-Port": "$server_port",
    "X-Forwarded-IP": "$remote_addr",
    "X-Client-IP": "$remote_addr",
    "X-Real-IP": "$remote_addr",
}

HEADERS = frozenset({*_HEADER_VALUES, "X-Forwarded-Proto"})
"""Those of insert_headers that this driver can insert."""


def http_block(
    tree: LoadBalancerTree, listeners: list[Listener], tls: Mapping[ListenerId, list[TlsServer]]
) -> Directive:
    """The http block with these listeners; `tls` has the servers of those that end TLS, by listener."""
    inside: list[Directive] = [*_MAIN, *sources()]
    pools = {pool.id: pool for listener in listeners for pool in tree.pools_of(listener) if pool.admin_state_up}
    for pool in sorted(pools.values(), key=lambda x: x.id):
        with blaming(pool.kind, pool.id):
            inside.append(upstream(tree, pool, keepalive=True))
    for index, listener in enumerate(listeners):
        choice = policies(tree, listener, index)
        inside += [*choice.maps, *_allowed(listener, index)]
        inside.append(_log_format(listener))
        servers: list[TlsServer | None] = [*tls.get(listener.id, ())] or [None]
        for number, server in enumerate(servers):
            inside.append(_server(tree, listener, index, choice, server, is_default=number == 0))
    return block("http", inside=inside)


def upstream(tree: LoadBalancerTree, pool: Pool, *, keepalive: bool) -> Directive:
    """A pool whose members nginx itself passes over when they refuse."""
    members = sorted(tree.members_of(pool.id), key=lambda x: x.id)
    if any(x.backup for x in members) and pool.lb_algorithm not in BACKUP_ALGORITHMS:
        raise Rejected("backup", f"nginx has no backup members with {pool.lb_algorithm}")
    able = [x for x in members if x.admin_state_up and x.weight != 0]
    only_backups = all(x.backup for x in members)
    servers = [
        server_line(
            member,
            pool,
            *(("backup",) if member.backup and not only_backups else ()),
            resting=member not in able,
        )
        for member in members
    ]
    tail = [line("keepalive", str(IDLE_CONNECTIONS)), line("keepalive_timeout", IDLE_TIME)] if keepalive else []
    return block("upstream", pool.id, inside=[*BALANCE[pool.lb_algorithm], *(servers or [NOBODY]), *tail])


def passive_outlines(tree: LoadBalancerTree, pool: Pool) -> dict[str, MemberOutline]:
    """What is said of members that nobody examines. Backups are nginx's own business here."""
    return {x.id: MemberOutline(status=member_outline(x, None, tree).status) for x in tree.members_of(pool.id)}


def _server(
    tree: LoadBalancerTree, listener: Listener, index: int, choice: Choice, tls: TlsServer | None, *, is_default: bool
) -> Directive:
    options = () if tls is None else tls.listen_options
    client, member = timeout(listener.timeout_client_data), timeout(listener.timeout_member_data)
    inside = [
        *(
            line(
                "listen",
                place(address, listener.protocol_port),
                *(("default_server",) if is_default else ()),
                *(("ipv6only=on",) if ":" in address and is_default else ()),
                *options,
            )
            for address in vip_addresses(tree)
        ),
        *(() if tls is None else tls.directives),
        line("access_log", LOG, listener.id, "buffer=16k", "flush=1s"),
        line("client_header_timeout", client),
        line("client_body_timeout", client),
        line("send_timeout", client),
        line("keepalive_timeout", client),
        line("proxy_connect_timeout", timeout(listener.timeout_member_connect)),
        line("proxy_read_timeout", member),
        line("proxy_send_timeout", member),
    ]
    if listener.protocol is ListenerProtocol.TERMINATED_HTTPS and listener.hsts_max_age is not None:
        inside.append(line("add_header", "Strict-Transport-Security", _hsts(listener), "always"))
    if listener.allowed_cidrs:
        # Not `deny`, which looks only after the redirects below.
        inside.append(block("if", *f"($allowed_{index} = 0)".split(), inside=[line("return", "444")]))
    inside += choice.answers
    inside += _pass(tree, listener, choice)
    return block("server", inside=inside)


def _pass(tree: LoadBalancerTree, listener: Listener, choice: Choice) -> list[Directive]:
    default = tree.pool(listener.default_pool_id)
    default_id = default.id if default is not None and default.admin_state_up else ""
    if not choice.pool_variable and not default_id:
        return [block("location", "/", inside=[line("return", "503")])]
    target = choice.pool_variable or default_id
    inside: list[Directive] = []
    if choice.pool_variable and not default_id:
        inside.append(block("if", *f"({choice.pool_variable} = none)".split(), inside=[line("return", "503")]))
    inside += [
        line("proxy_set_header", "Host", "$http_host"),
        line("proxy_set_header", "Connection", "$frontinus_connection"),
        line("proxy_set_header", "Upgrade", "$frontinus_upgrade"),
        line("proxy_set_header", "HTTP2-Settings", ""),
        *(line("proxy_set_header", name, value) for name, value in _headers(listener)),
        Directive(("proxy_pass", f"http://{target}")),
    ]
    return [
        # When nobody can be reached: HAProxy's code for it, and not that of a member which answers nonsense.
        line("error_page", "502", "=", "@nobody"),
        block("location", "@nobody", inside=[line("return", "503")]),
        block("location", "/", inside=inside),
    ]


def _headers(listener: Listener) -> list[tuple[str, str]]:
    """Those asked for with the text `true` (contract/resources.yaml, insert_headers)."""
    scheme = "https" if listener.protocol is ListenerProtocol.TERMINATED_HTTPS else "http"
    values = {**_HEADER_VALUES, "X-Forwarded-Proto": scheme}
    asked = {name for name, value in listener.insert_headers.items() if value.lower() == "true"}
    return [(name, values[name]) for name in sorted(asked & values.keys())]


def _allowed(listener: Listener, index: int) -> list[Directive]:
    if not listener.allowed_cidrs:
        return []
    inside = [line("default", "0"), *(line(network, "1") for network in networks(listener.allowed_cidrs))]
    return [block("geo", f"$allowed_{index}", inside=inside)]


def _log_format(listener: Listener) -> Directive:
    counted = f"{listener.id} $bytes_sent $request_length $frontinus_opened $frontinus_failed"
    return line("log_format", listener.id, counted)


def _hsts(listener: Listener) -> str:
    parts = [f"max-age={listener.hsts_max_age}"]
    parts += ["includeSubDomains"] if listener.hsts_include_subdomains else []
    parts += ["preload"] if listener.hsts_preload else []
    return "; ".join(parts)
