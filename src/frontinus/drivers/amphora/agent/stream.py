"""UDP listeners as nginx's stream module serves them, the same for every driver whose amphorae have it.

What nginx does with datagrams: those of one client socket make a session, which goes to one member until it was idle
for the listener's timeout. A change lets sessions begin anew, so that with ROUND_ROBIN and LEAST_CONNECTIONS a client
may be sent to another member; the source algorithms are consistent hashes and stay. Health is the agent's
(outline.py): nginx's own guesses, which take a service that answers nothing for a dead one, are off. Objects are
written in the order of their ids. Pure. Next: outline.py, nginx_text.py."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence

import msgspec

from frontinus.drivers.amphora.agent.files import FOR_DATAGRAMS
from frontinus.drivers.amphora.agent.nginx_text import Directive, Unwritable, block, line, write
from frontinus.drivers.amphora.agent.outline import ListenerOutline, MemberOutline, Outline, member_outline
from frontinus.drivers.amphora.interface import RenderedFile
from frontinus.model.enums import LbAlgorithm, ListenerProtocol
from frontinus.model.errors import Rejected, blaming
from frontinus.model.tree import Listener, LoadBalancerTree, Member, Pool

LOG = "nginx.log"
"""Where the agent reads what was counted: a file in nginx's own directory (agent-extension.md)."""

MOST_SESSIONS_COUNTED = 65_535
"""nginx's limit_conn counts no further; more sessions than that nginx has no room for anyway."""

NEVER_S = 30 * 24 * 3600
"""For a timeout of 0, which is none."""

BALANCE: dict[LbAlgorithm, tuple[Directive, ...]] = {
    LbAlgorithm.ROUND_ROBIN: (),
    LbAlgorithm.LEAST_CONNECTIONS: (line("least_conn"),),
    LbAlgorithm.SOURCE_IP: (line("hash", "$remote_addr", "consistent"),),
    LbAlgorithm.SOURCE_IP_PORT: (Directive(("hash", "$remote_addr:$remote_port", "consistent")),),
}

GRANULARITIES: dict[str, int] = {"255.0.0.0": 1, "255.255.0.0": 2, "255.255.255.0": 3, "255.255.255.255": 4}
"""Netmasks of persistence that can be had, and how many numbers of a client's address they keep. An IPv6 client is
always told apart by its whole address."""

NOBODY = line("server", "127.0.0.1:9", "down")
"""nginx refuses an upstream without servers; this one gets nothing."""


class NginxSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What of the driver's settings shows in the text."""

    workers: int = 1
    most_sessions: int = 8_192
    """Connections and datagram sessions at once; memory for them is set aside at the start (1 kB each)."""
    shutdown_timeout_s: int = 1_800
    """How long what an old worker still serves may go on after a reload."""


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """What some listeners are to nginx, and to the agent."""

    directives: tuple[Directive, ...] = ()
    outline: Outline = Outline(listeners={}, pools={})


def main(settings: NginxSettings) -> tuple[Directive, ...]:
    """What stands before the blocks of listeners."""
    return (
        line("worker_processes", str(settings.workers)),
        line("worker_shutdown_timeout", f"{settings.shutdown_timeout_s}s"),
        # What went wrong with one client or member is no news to the agent, which reads this.
        line("error_log", "stderr", "crit"),
        # A session takes two: to the client and to the member. Some more for listeners and the log.
        block("events", inside=[line("worker_connections", str(2 * settings.most_sessions + 100))]),
    )


def datagram_listeners(tree: LoadBalancerTree) -> list[Listener]:
    """Those of the wanted tree that nginx shall serve, in the order of their ids."""
    return sorted(
        (x for x in tree.listeners if x.admin_state_up and x.protocol is ListenerProtocol.UDP), key=lambda x: x.id
    )


def _datagrams(tree: LoadBalancerTree, settings: NginxSettings) -> Part:
    """The UDP listeners of the wanted tree with their pools."""
    listeners = datagram_listeners(tree)
    pools = {x.id: x for listener in listeners if (x := _pool_of(tree, listener)) is not None}
    directives: list[Directive] = []
    outlines: dict[str, dict[str, MemberOutline]] = {}
    for pool in sorted(pools.values(), key=lambda x: x.id):
        with blaming(pool.kind, pool.id):
            upstream, outlines[pool.id] = _upstream(tree, pool)
        directives += upstream
    for listener in listeners:
        with blaming(listener.kind, listener.id):
            directives += stream_server(tree, listener, _pool_of(tree, listener), settings)
    return Part(
        directives=tuple(directives),
        outline=Outline(
            listeners={
                x.id: ListenerOutline(
                    binds=tuple((address, x.protocol_port) for address in vip_addresses(tree)),
                    datagrams=True,
                    pool=used.id if (used := _pool_of(tree, x)) is not None else None,
                )
                for x in listeners
            },
            pools=outlines,
            workers=settings.workers,
        ),
    )


def nginx_files(
    names: tuple[str, str], directives: Sequence[Directive], outline: Outline
) -> tuple[RenderedFile, RenderedFile]:
    """The files from which the agent runs one nginx. Raises Rejected when something cannot be written."""
    try:
        text = write(directives)
    except Unwritable as error:
        raise Rejected("load_balancer", str(error)) from error
    return (
        RenderedFile(name=names[0], content=text.encode(), private=False),
        RenderedFile(name=names[1], content=outline.encode(), private=False),
    )


def datagram_files(tree: LoadBalancerTree, settings: NginxSettings) -> tuple[RenderedFile, ...]:
    """The files for an nginx that serves the UDP listeners of the wanted tree; none when there are none."""
    part = _datagrams(tree, settings)
    if not part.directives:
        return ()
    return nginx_files(FOR_DATAGRAMS, [*main(settings), block("stream", inside=part.directives)], part.outline)


def vip_addresses(tree: LoadBalancerTree) -> list[str]:
    """Every address on which listeners listen, in canonical form."""
    load_balancer = tree.load_balancer
    addresses = [load_balancer.vip.address, *(x.address for x in load_balancer.additional_vips)]
    return list(dict.fromkeys(canonical(address, "vip_address") for address in addresses if address))


def canonical(text: str, field: str) -> str:
    """An IP address in its one form. Raises Rejected naming the field."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError as error:
        raise Rejected(field, f"{text!r} is not an IP address") from error
    if isinstance(address, ipaddress.IPv6Address) and address.scope_id is not None:
        raise Rejected(field, f"{text!r} has a scope, which an amphora cannot know")
    return str(address)


def place(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def server_line(member: Member, pool: Pool, *options: str, resting: bool) -> Directive:
    """A member; the comment is how the agent finds it."""
    weight = 1 if member.weight is None else max(1, member.weight)
    words = ["server", place(canonical(member.address, "address"), member.protocol_port), f"weight={weight}", *options]
    if resting:
        return line(*words, "down")
    return line(*words, comment=f"{pool.id}/{member.id}")


def timeout(*milliseconds: int) -> str:
    """The shortest of some timeouts, of which 0 is none."""
    return f"{min((x for x in milliseconds if x), default=NEVER_S * 1000)}ms"


def _access(listener: Listener) -> list[Directive]:
    """Who may come: everybody, or the networks of allowed_cidrs. A connection limit of 0 lets nobody in."""
    if listener.connection_limit == 0:
        return [line("deny", "all")]
    if not listener.allowed_cidrs:
        return []
    return [*(line("allow", network) for network in networks(listener.allowed_cidrs)), line("deny", "all")]


NOBODYS = ipaddress.ip_network("255.255.255.255/32")
"""The broadcast address, which no packet comes from (RFC 1122 3.2.1.3). nginx takes the word for no network at all."""


def networks(cidrs: Iterable[str]) -> tuple[str, ...]:
    """Networks as nginx reads them, each once; nobody is lost who could come."""
    found = dict.fromkeys(ipaddress.ip_network(cidr, strict=False) for cidr in cidrs)
    return tuple(str(network) for network in found if network != NOBODYS)


def _pool_of(tree: LoadBalancerTree, listener: Listener) -> Pool | None:
    pool = tree.pool(listener.default_pool_id)
    return pool if pool is not None and pool.admin_state_up else None


def _upstream(tree: LoadBalancerTree, pool: Pool) -> tuple[list[Directive], dict[str, MemberOutline]]:
    monitor = tree.health_monitor_of(pool.id)
    if monitor is not None and not monitor.admin_state_up:
        monitor = None
    before, balance = _balance(pool)
    servers: list[Directive] = []
    outlines: dict[str, MemberOutline] = {}
    for member in sorted(tree.members_of(pool.id), key=lambda x: x.id):
        with blaming(member.kind, member.id):
            outlines[member.id] = seen = member_outline(member, monitor, tree)
            servers.append(server_line(member, pool, "max_fails=0", resting=seen.status in ("MAINT", "DRAIN")))
    return [*before, block("upstream", pool.id, inside=[*balance, *(servers or [NOBODY])])], outlines


def _balance(pool: Pool) -> tuple[list[Directive], tuple[Directive, ...]]:
    """How a pool spreads sessions, and what must stand before it. Persistence by source is a hash of the source: it
    needs no memory, outlives any reload, and never ends."""
    persistence = pool.session_persistence
    if persistence is None:
        return [], BALANCE[pool.lb_algorithm]
    kept = GRANULARITIES.get(persistence.persistence_granularity or "255.255.255.255")
    if kept is None:
        raise Rejected("session_persistence", f"nginx knows no granularity of {persistence.persistence_granularity}")
    if kept == 4:
        return [], BALANCE[LbAlgorithm.SOURCE_IP]
    variable = f"$source_{pool.id.replace('-', '')}"
    network = "[.]".join(["[0-9]+"] * kept)
    inside = [line("default", "$remote_addr"), line(f"~^({network})[.]", "$1")]
    return [block("map", "$remote_addr", variable, inside=inside)], (line("hash", variable, "consistent"),)


def stream_server(
    tree: LoadBalancerTree, listener: Listener, pool: Pool | None, settings: NginxSettings
) -> list[Directive]:
    """A listener of the stream module, with what it needs around it. Without a pool it lets nobody in."""
    before: list[Directive] = [line("log_format", listener.id, f"{listener.id} $bytes_sent $bytes_received 1 0")]
    is_datagram = listener.protocol is ListenerProtocol.UDP
    inside = [
        *(
            line(
                "listen",
                place(address, listener.protocol_port),
                *(("udp",) if is_datagram else ()),
                # A session is one worker's: with a socket for each, the kernel gives a client's datagrams to the same.
                *(("reuseport",) if is_datagram and settings.workers > 1 else ()),
                *(("ipv6only=on",) if ":" in address else ()),
            )
            for address in vip_addresses(tree)
        ),
        *(_access(listener) if pool is not None else [line("deny", "all")]),
        line("access_log", LOG, listener.id, "buffer=16k", "flush=1s"),
        line("proxy_timeout", timeout(listener.timeout_client_data, listener.timeout_member_data)),
    ]
    if is_datagram:
        # An answer has to fit: of a longer one the rest is lost, and the client gets the beginning.
        inside.append(line("proxy_buffer_size", "64k"))
    else:
        inside.append(line("proxy_connect_timeout", timeout(listener.timeout_member_connect)))
    limit = listener.connection_limit
    if limit is not None and 0 < limit <= MOST_SESSIONS_COUNTED:
        before.append(line("limit_conn_zone", "$protocol", f"zone={listener.id}:64k"))
        inside.append(line("limit_conn", listener.id, str(limit)))
    if pool is None:
        before.append(block("upstream", f"nobody-{listener.id}", inside=[NOBODY]))
    inside.append(line("proxy_pass", pool.id if pool is not None else f"nobody-{listener.id}"))
    return [*before, block("server", inside=inside)]
