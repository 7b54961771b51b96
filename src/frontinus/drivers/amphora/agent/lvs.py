"""UDP and SCTP listeners as LVS serves them, on amphorae whose kernel has it: keepalived's virtual servers, and their
outline (outline.py).

Health is the agent's, as with nginx: it leaves out the blocks of members that are down, by the comment at their
beginning. Unlike nginx LVS remembers: sessions go on over every change, a drained member (weight 0) keeps its sessions,
and persistence ends after a time. Objects are written in the order of their ids. Pure. See keepalived.conf(5)."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from msgspec.structs import replace

from frontinus.drivers.amphora.agent.files import FOR_LVS
from frontinus.drivers.amphora.agent.outline import ListenerOutline, MemberOutline, Outline, member_outline
from frontinus.drivers.amphora.agent.stream import canonical, vip_addresses
from frontinus.drivers.amphora.interface import RenderedFile
from frontinus.model.capabilities import Capabilities
from frontinus.model.compatibility import DATAGRAM_LISTENERS
from frontinus.model.enums import HealthMonitorType, LbAlgorithm, ListenerProtocol, PoolProtocol
from frontinus.model.errors import Rejected, blaming
from frontinus.model.tree import Listener, LoadBalancerTree, Member, Pool

BALANCERS = ("nginx", "lvs")
"""What may carry datagrams on an amphora."""

PERSISTENCE_S = 360
"""How long a client stays with a member where no time is said; keepalived's own."""

FOR_EVER_MS = 2_000_000_000
"""23 days; the kernel, and HAProxy, count in 31 bits of a thousandth of a second."""

SCHEDULERS: dict[LbAlgorithm, tuple[str, ...]] = {
    LbAlgorithm.ROUND_ROBIN: ("lvs_sched wrr",),
    LbAlgorithm.LEAST_CONNECTIONS: ("lvs_sched wlc",),
    # Maglev: when a member comes or goes, hardly anybody else's clients move.
    LbAlgorithm.SOURCE_IP: ("lvs_sched mh",),
    LbAlgorithm.SOURCE_IP_PORT: ("lvs_sched mh", "mh-port"),
}

NOBODY = {False: "127.0.0.1 9", True: "::1 9"}
"""By family, where datagrams go while no member has a weight: the kernel drops what would be sent from outside to a loopback
address. keepalived refuses a virtual server whose real ones weigh nothing, or which has none; but a listener may be made
before its members, and all of them may be drained."""

GRANULARITIES = frozenset(str(ipaddress.IPv4Network(f"0.0.0.0/{length}").netmask) for length in range(1, 33))


def with_lvs(capabilities: Capabilities) -> Capabilities:
    """What a driver offers that has datagrams carried by LVS instead of nginx. Who may come, how many at once, and how
    long a session may be silent, is nothing that a virtual server knows; the last the kernel has for UDP as a whole."""
    return replace(
        capabilities,
        listener_protocols=capabilities.listener_protocols | {ListenerProtocol.SCTP},
        pool_protocols=capabilities.pool_protocols | {PoolProtocol.SCTP},
        health_monitor_types=capabilities.health_monitor_types | {HealthMonitorType.SCTP},
        persistence_granularities=GRANULARITIES,
        features=(capabilities.features | {"persistence_timeout"}) - {"datagram_access", "datagram_timeouts"},
    )


def lvs_files(tree: LoadBalancerTree) -> tuple[RenderedFile, ...]:
    """The files from which the agent runs LVS for the wanted tree; none when it has no such listeners. Raises
    Rejected."""
    listeners = sorted(
        (x for x in tree.listeners if x.admin_state_up and x.protocol in DATAGRAM_LISTENERS), key=lambda x: x.id
    )
    if not listeners:
        return ()
    pools: dict[str, dict[str, MemberOutline]] = {}
    lines = _global(listeners)
    for listener in listeners:
        pool = tree.pool(listener.default_pool_id)
        if pool is not None and not pool.admin_state_up:
            pool = None
        if pool is not None and pool.id not in pools:
            with blaming(pool.kind, pool.id):
                pools[pool.id] = _members(tree, pool)
        with blaming(listener.kind, listener.id):
            for address in vip_addresses(tree):
                lines += _virtual_server(tree, listener, pool, address, pools)
    outline = Outline(
        listeners={
            x.id: ListenerOutline(
                binds=tuple((address, x.protocol_port) for address in vip_addresses(tree)), datagrams=True
            )
            for x in listeners
        },
        pools=pools,
    )
    text = "".join(f"{line}\n" for line in lines)
    return (
        RenderedFile(name=FOR_LVS[0], content=text.encode(), private=False),
        RenderedFile(name=FOR_LVS[1], content=outline.encode(), private=False),
    )


def _global(listeners: list[Listener]) -> list[str]:
    """The time after which the kernel forgets a session of UDP (`ipvsadm --set`), in whole seconds."""
    idle = max((x.idle_ms or FOR_EVER_MS for x in listeners if x.protocol is ListenerProtocol.UDP), default=None)
    if idle is None:
        return []
    return ["global_defs {", f"    lvs_timeouts udp {-(-min(idle, FOR_EVER_MS) // 1000)}", "}"]


def _members(tree: LoadBalancerTree, pool: Pool) -> dict[str, MemberOutline]:
    monitor = tree.health_monitor_of(pool.id)
    if monitor is not None and not monitor.admin_state_up:
        monitor = None
    outlines: dict[str, MemberOutline] = {}
    for member in sorted(tree.members_of(pool.id), key=lambda x: x.id):
        with blaming(member.kind, member.id):
            outlines[member.id] = member_outline(member, monitor, tree)
    return outlines


def _virtual_server(
    tree: LoadBalancerTree,
    listener: Listener,
    pool: Pool | None,
    address: str,
    pools: dict[str, dict[str, MemberOutline]],
) -> Iterator[str]:
    """One address of a listener. The agent knows what is counted there by the comment."""
    yield f"virtual_server {address} {listener.protocol_port} {{ # {listener.id}"
    yield f"    protocol {listener.protocol}"
    yield "    lvs_method NAT"
    algorithm = LbAlgorithm.ROUND_ROBIN if pool is None else pool.lb_algorithm
    yield from (f"    {line}" for line in SCHEDULERS[algorithm])
    weighs = False
    if pool is not None:
        yield from _persistence(pool, address)
        members: dict[str, Member] = {x.id: x for x in tree.members_of(pool.id)}
        for member_id, seen in pools[pool.id].items():
            if seen.status != "MAINT":
                with blaming(members[member_id].kind, member_id):
                    yield from _real_server(members[member_id], pool, address)
                weighs = weighs or members[member_id].weight != 0
    if not weighs:
        yield f"    real_server {NOBODY[':' in address]} {{"
        yield "        weight 1"
        yield "    }"
    yield "}"


def _persistence(pool: Pool, address: str) -> Iterator[str]:
    persistence = pool.session_persistence
    if persistence is None:
        return
    yield f"    persistence_timeout {persistence.persistence_timeout or PERSISTENCE_S}"
    # A netmask tells IPv4 clients apart; each IPv6 client is one by itself.
    if persistence.persistence_granularity is not None and ":" not in address:
        yield f"    persistence_granularity {persistence.persistence_granularity}"


def _real_server(member: Member, pool: Pool, vip: str) -> Iterator[str]:
    address = canonical(member.address, "address")
    if (":" in address) != (":" in vip):
        raise Rejected("address", f"LVS does not translate between {vip} and {address}: they are of two families")
    weight = 1 if member.weight is None else member.weight
    yield f"    real_server {address} {member.protocol_port} {{ # {pool.id}/{member.id}"
    yield f"        weight {weight}"
    yield "    }"
