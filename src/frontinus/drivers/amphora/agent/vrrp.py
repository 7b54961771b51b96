"""The configuration of keepalived on one amphora of a pair: who has the VIPs, and how soon the other takes them.

VRRP version 3 (RFC 5798) between the amphorae's own addresses. Version 3 has no authentication; an advert counts only if
it comes from the peer's address over no router (a TTL of 255), and the network lets VRRP in from nobody else
(controller/plugging.py). Where LVS carries datagrams, keepalived also has the kernel of whoever has the VIPs tell the
other's of its sessions, to a multicast group of the pair's own: nothing else is a destination for the kernel. Both begin as BACKUP and neither preempts: whoever has the VIPs keeps them until he fails, and
the return of the other moves nothing. The priorities are the two highest, because what a priority lacks to 256 makes a
takeover wait longer. What the agent adds: agent-extension.md, keepalived. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address
from uuid import UUID

from frontinus.drivers.amphora.agent.files import KEEPALIVED
from frontinus.drivers.amphora.agent.settings import AgentDriverSettings
from frontinus.drivers.amphora.interface import RenderedFile
from frontinus.model.compatibility import DATAGRAM_LISTENERS, LVS_SYNC_PORT, VRRP_ID
from frontinus.model.enums import AmphoraRole, AmphoraStatus
from frontinus.model.ids import LoadBalancerId
from frontinus.model.ports import PortPurpose, port_for
from frontinus.model.tree import Amphora, LoadBalancerTree

PRIORITY: dict[AmphoraRole, int] = {AmphoraRole.MASTER: 254, AmphoraRole.BACKUP: 253}
_LEAVING = frozenset({AmphoraStatus.PENDING_DELETE, AmphoraStatus.DELETED, AmphoraStatus.ERROR})


def keepalived_file(
    tree: LoadBalancerTree, amphora: Amphora, settings: AgentDriverSettings, *, lvs: bool = False
) -> RenderedFile | None:
    """What keepalived runs there; None for an amphora that is alone, or is not plugged yet, and where nothing is wanted.
    With `lvs` it is LVS that carries datagrams.

    A pair whose listeners are all gone still holds its VIPs, as a single amphora does."""
    load_balancer = tree.load_balancer
    own, priority = own_address(tree, amphora), PRIORITY.get(amphora.role)
    if priority is None or own is None or amphora.vrrp_interface is None:
        return None
    if not load_balancer.admin_state_up or load_balancer.delete_requested:
        return None
    others = peers_of(tree, amphora)
    if amphora.speaks_plain and all(x.speaks_plain for x in others):
        return None  # Octavia told them, and they agree
    peers = [address for x in others if (address := own_address(tree, x)) is not None]
    family = ip_address(load_balancer.vip.address).version
    vips = {each: ip_address(each).version == family for each in tree.addresses()}
    name = load_balancer.id.replace("-", "")
    datagrams = any(x.admin_state_up and x.protocol in DATAGRAM_LISTENERS for x in tree.listeners)
    synchronised = lvs and datagrams and not amphora.speaks_plain
    text = _TEXT.format(
        sync=_sync(name, amphora.vrrp_interface, load_balancer.id, family) if synchronised else "",
        name=name,
        interface=amphora.vrrp_interface,
        router_id=VRRP_ID,
        priority=priority,
        advert=f"{settings.vrrp_advert_interval.total_seconds():g}",
        own=own,
        peers=_lines(f"{peer} min_ttl 255" for peer in peers),
        addresses=_lines(_address(each, amphora.vrrp_interface) for each, same in vips.items() if same),
        excluded=_lines(_address(each, amphora.vrrp_interface) for each, same in vips.items() if not same),
        scripts=_SCRIPTS.format(base=settings.plain_base_path.rstrip("/")) if amphora.speaks_plain else "",
        track=_TRACK_SCRIPT if amphora.speaks_plain else _TRACK_FILE,
    )
    return RenderedFile(name=KEEPALIVED, content=text.encode(), private=False)


def peers_of(tree: LoadBalancerTree, amphora: Amphora) -> tuple[Amphora, ...]:
    """The other amphorae of its pair that are there, or will be."""
    return tuple(x for x in tree.amphorae if x.id != amphora.id and x.status not in _LEAVING)


def own_address(tree: LoadBalancerTree, amphora: Amphora) -> str | None:
    """Where its peer reaches it: its own address on the VIP's subnet; None before it has one."""
    port = port_for(amphora.ports, PortPurpose.VIP)
    subnet_id = tree.load_balancer.vip.subnet_id
    on_subnet = (x.address for x in (() if port is None else port.addresses) if x.subnet_id == subnet_id)
    return next(on_subnet, amphora.vrrp_address)


def _sync(name: str, interface: str, load_balancer_id: LoadBalancerId, family: int) -> str:
    words = f"lvs_sync_daemon {interface} {name} id {VRRP_ID} port {LVS_SYNC_PORT}"
    return f"\n    {words} group {sync_group(load_balancer_id, family)}"


def sync_group(load_balancer_id: LoadBalancerId, family: int) -> IPv4Address | IPv6Address:
    """The multicast group of a pair, of those that are each site's own (RFC 2365, 6.2; RFC 4291, 2.7). Two pairs may meet in
    one of IPv4: the network lets each hear its peer only."""
    own = UUID(load_balancer_id).int
    if family == 4:
        return IPv4Address(int(IPv4Address("239.192.0.0")) + own % 2**18)
    return IPv6Address(int(IPv6Address("ff15::")) + own % 2**32)


def _address(address: str, interface: str) -> str:
    return f"{address}/{ip_address(address).max_prefixlen} dev {interface}"


def _lines(lines: Iterable[str]) -> str:
    return "".join(f"\n        {line}" for line in lines)


_TEXT = """global_defs {{
    vrrp_version 3
    vrrp_skip_check_adv_addr
    dynamic_interfaces{sync}
}}
{scripts}vrrp_instance {name} {{
    state BACKUP
    nopreempt
    accept
    interface {interface}
    virtual_router_id {router_id}
    priority {priority}
    advert_int {advert}
    check_unicast_src
    unicast_src_ip {own}
    unicast_peer {{{peers}
    }}
    garp_master_delay 1
    garp_master_repeat 3
    garp_master_refresh 5
    garp_master_refresh_repeat 2
    virtual_ipaddress {{{addresses}
    }}
    virtual_ipaddress_excluded {{{excluded}
    }}
{track}
}}
"""
_TRACK_FILE = """    track_file {
        balancers
    }"""

# An agent of Octavia's has no such file; it keeps scripts that ask its HAProxy (contract, vrrp_config_facts, tracking).
_TRACK_SCRIPT = """    track_script {
        check_script
    }"""
_SCRIPTS = """vrrp_script check_script {{
    script {base}/vrrp/check_script.sh
    interval 5
    fall 2
    rise 2
}}
"""
