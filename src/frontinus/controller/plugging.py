"""Decide by which ports an amphora hangs on networks: one on the VIPs' network, one on each further network of members.

Pure: on which network a subnet is, callers have asked. Ports are widened before a configuration is pushed that needs
them, and narrowed after one that does not, so that no change of members or listeners disturbs what goes on beside it.
Next: plan.py, and act.py for what is done about it."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address

import msgspec
from msgspec.structs import replace

from frontinus.model.compatibility import DATAGRAM_LISTENERS, LVS_SYNC_PORT
from frontinus.model.enums import AmphoraStatus, ListenerProtocol
from frontinus.model.ids import NetworkId, SubnetId
from frontinus.model.ports import AllowedTraffic, Port, PortPurpose, PortRequest, TrafficProtocol, port_for
from frontinus.model.tree import Amphora, LoadBalancerTree

PEERS_PORT = 1025
"""Where HAProxy of one amphora tells the other of its stick tables (contract amphora-agent.yaml, peers)."""

_PROTOCOL_OF = {ListenerProtocol.UDP: TrafficProtocol.UDP, ListenerProtocol.SCTP: TrafficProtocol.SCTP}


class Plugging(msgspec.Struct, frozen=True, kw_only=True):
    """How the ports of an amphora differ from what its tree needs: something is not there, something is no longer
    needed. Both may be."""

    lacks: bool = False
    spare: bool = False


def plugging_of(tree: LoadBalancerTree, amphora: Amphora) -> Plugging:
    """What is to be done about an amphora of this tree, which is the one that is carried."""
    ports = [x for x in amphora.ports if x.purpose is not PortPurpose.MANAGEMENT]
    vip_port = port_for(ports, PortPurpose.VIP)
    has = frozenset[SubnetId]().union(*(x.subnet_ids for x in ports))
    wanted, lets_in = frozenset((*_vip_subnets(tree), *member_subnets(tree))), set(wanted_traffic(tree, amphora))
    allowed = set[AllowedTraffic]() if vip_port is None else set(vip_port.allowed)
    return Plugging(
        lacks=vip_port is None
        or not wanted <= has
        or not lets_in <= allowed
        or any(x.interface is None for x in ports)
        # What a user wants of the VIP's port is brought to it in one step, whatever it was.
        or set(vip_port.security_group_ids) != set(tree.load_balancer.vip_sg_ids)
        or vip_port.qos_policy_id != tree.load_balancer.vip_qos_policy_id,
        spare=bool(has - wanted) or bool(allowed - lets_in),
    )


def member_subnets(tree: LoadBalancerTree) -> tuple[SubnetId, ...]:
    """The subnets that members are said to be on. A member without one is reached by the VIP network's gateway."""
    return tuple(sorted({x.subnet_id for x in tree.members if x.subnet_id is not None}))


def wanted_traffic(tree: LoadBalancerTree, amphora: Amphora) -> tuple[AllowedTraffic, ...]:
    """What reaches the VIP port: enabled listeners, from where they may be asked, unless the user has groups of his own that
    say so; and the other amphora of a pair."""
    wanted = {
        AllowedTraffic(_PROTOCOL_OF.get(x.protocol, TrafficProtocol.TCP), x.protocol_port, source)
        for x in tree.listeners
        if x.admin_state_up and not tree.load_balancer.vip_sg_ids
        for source in x.allowed_cidrs or (None,)
    }
    # Where nginx carries datagrams nobody listens there.
    synchronised = any(x.admin_state_up and x.protocol in DATAGRAM_LISTENERS for x in tree.listeners)
    for other in tree.amphorae:
        if other.id == amphora.id or other.status is AmphoraStatus.PENDING_DELETE:
            continue
        port = port_for(other.ports, PortPurpose.VIP)
        for address in () if port is None else port.addresses:
            alone = f"{address.address}/{ip_address(address.address).max_prefixlen}"
            wanted |= {
                AllowedTraffic(TrafficProtocol.VRRP, None, alone),
                AllowedTraffic(TrafficProtocol.TCP, PEERS_PORT, alone),
            }
            if synchronised:
                wanted.add(AllowedTraffic(TrafficProtocol.UDP, LVS_SYNC_PORT, alone))
    return tuple(sorted(wanted, key=_order))


def port_requests(
    tree: LoadBalancerTree, amphora: Amphora, network_of: Mapping[SubnetId, NetworkId], *, exact: bool
) -> tuple[PortRequest, ...]:
    """The ports that the amphora shall have beside that for management, the VIP's first. `network_of` knows every subnet
    of members. Unless `exact`, what the amphora has already stays beside what it needs."""
    vip_network = tree.load_balancer.vip.network_id
    subnets: dict[NetworkId, set[SubnetId]] = {vip_network: set(_vip_subnets(tree))}
    for subnet_id in member_subnets(tree):
        if subnet_id not in subnets[vip_network]:
            subnets.setdefault(network_of[subnet_id], set()).add(subnet_id)
    recorded_on = {x.network_id: x.id for x in amphora.ports if x.purpose is not PortPurpose.MANAGEMENT}
    allowed = set(wanted_traffic(tree, amphora))
    if not exact:
        for port in amphora.ports:
            if port.purpose is not PortPurpose.MANAGEMENT:
                subnets.setdefault(port.network_id, set()).update(port.subnet_ids)
                allowed.update(port.allowed)
    return tuple(
        PortRequest(
            amphora_id=amphora.id,
            load_balancer_id=tree.id,
            project_id=tree.load_balancer.project_id,
            purpose=PortPurpose.VIP if network_id == vip_network else PortPurpose.MEMBER,
            network_id=network_id,
            # The VIP's own subnet first: the address there is the one by which the amphora is known (vrrp_ip).
            subnet_ids=tuple(sorted(on_network, key=lambda x: (x != tree.load_balancer.vip.subnet_id, x))),
            vips=tree.addresses() if network_id == vip_network else (),
            allowed=tuple(sorted(allowed, key=_order)) if network_id == vip_network else (),
            port_id=recorded_on.get(network_id),
            security_group_ids=tree.load_balancer.vip_sg_ids if network_id == vip_network else (),
            qos_policy_id=tree.load_balancer.vip_qos_policy_id if network_id == vip_network else None,
        )
        for network_id, on_network in subnets.items()
    )


def shut_to_clients(request: PortRequest) -> PortRequest:
    """The same port, but no client may open a TCP connection by it; the other one of the pair may."""
    kept = (x for x in request.allowed if x.protocol is not TrafficProtocol.TCP or x.port == PEERS_PORT)
    return replace(request, allowed=tuple(kept))


def management_request(tree: LoadBalancerTree, amphora: Amphora) -> PortRequest:
    """The port that every amphora has from its build on; that on record, should its place be made again."""
    placement, on_record = tree.load_balancer.placement, port_for(amphora.ports, PortPurpose.MANAGEMENT)
    return PortRequest(
        amphora_id=amphora.id,
        load_balancer_id=tree.id,
        project_id=tree.load_balancer.project_id,
        purpose=PortPurpose.MANAGEMENT,
        network_id=None
        if placement is None or placement.management_network is None
        else NetworkId(placement.management_network),
        port_id=None if on_record is None else on_record.id,
    )


def recorded(ports: tuple[Port, ...]) -> dict[str, object]:
    """What of an amphora's row its ports say."""
    port = port_for(ports, PortPurpose.VIP)
    return {
        "ports": ports,
        "vrrp_address": port.addresses[0].address if port is not None and port.addresses else None,
        "vrrp_port_id": None if port is None else port.id,
        "vrrp_interface": None if port is None else port.interface,
    }


def _vip_subnets(tree: LoadBalancerTree) -> tuple[SubnetId, ...]:
    load_balancer = tree.load_balancer
    return (load_balancer.vip.subnet_id, *(x.subnet_id for x in load_balancer.additional_vips))


def _order(traffic: AllowedTraffic) -> tuple[str, int, str]:
    return traffic.protocol.value, traffic.port or 0, traffic.source or ""
