"""What an agent is told of ports: the bodies of the plain protocol (contract amphora-agent.yaml, plug_vip, plug_network).

Pure. A port of VIPs has the VIPs themselves, the amphora's own address on the first one's subnet, and own addresses on
further subnets of that network, which go as `fixed_ips`."""

from __future__ import annotations

from frontinus.model.enums import Topology
from frontinus.model.ports import Port, PortAddress
from frontinus.model.tree import LoadBalancerTree

Body = dict[str, object]


def vip_body(port: Port, tree: LoadBalancerTree) -> Body:
    """Of POST plug/vip/{the first VIP}."""
    load_balancer = tree.load_balancer
    on = {x.subnet_id: x for x in port.addresses}
    own = on[load_balancer.vip.subnet_id]
    body: Body = {
        **_subnet(own),
        "mac_address": port.mac,
        "mtu": port.mtu,
        "vrrp_ip": own.address,
        "additional_vips": [
            {**_subnet(on[x.subnet_id]), "ip_address": x.address} for x in load_balancer.additional_vips
        ],
    }
    if load_balancer.topology is not Topology.SINGLE:
        body["hold_vips"] = False  # keepalived gives them to one of the two
    return body


def network_body(port: Port, tree: LoadBalancerTree | None) -> Body:
    """Of POST plug/network; with a tree it is the port of its VIPs."""
    first = None if tree is None else tree.load_balancer.vip.subnet_id
    body: Body = {
        "mac_address": port.mac,
        "mtu": port.mtu,
        "fixed_ips": [{**_subnet(x), "ip_address": x.address} for x in port.addresses if x.subnet_id != first],
    }
    if tree is not None:
        body["vip_net_info"] = {**vip_body(port, tree), "vip": tree.load_balancer.vip.address}
    return body


def _subnet(address: PortAddress) -> Body:
    return {
        "subnet_cidr": address.subnet_cidr,
        "gateway": address.gateway,
        "host_routes": [{"destination": x.destination, "nexthop": x.next_hop} for x in address.routes],
    }
