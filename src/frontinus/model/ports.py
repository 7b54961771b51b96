"""Ports: how an amphora hangs on networks, as Neutron has them and Octavia plugs them.

A network driver makes a port (an address on each of its subnets, a MAC, what may reach it), a compute driver attaches it
to a place, an amphora driver has the agent configure it. Here are the values that go between the three, and which ports
a tree needs; all pure. Next: drivers/network/interface.py, controller/plugging.py."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from ipaddress import ip_address

import msgspec

from frontinus.model.ids import AmphoraId, LoadBalancerId, NetworkId, PortId, ProjectId, SubnetId

PORTS = "ports"
"""The feature of a network driver that makes ports. Without it amphorae are wherever addresses already work, nothing is
plugged, and the methods of ports are never called."""


class PortPurpose(StrEnum):
    MANAGEMENT = "management"
    """Where the agent listens and from where heartbeats come. The network driver knows on which network it is."""
    VIP = "vip"
    """On the network of the VIPs; listeners are reached by it, and it carries the amphora's own address beside them."""
    MEMBER = "member"
    """On a network where only members are. Nobody reaches the amphora by it."""


class PortRoute(msgspec.Struct, frozen=True):
    destination: str
    next_hop: str


class PortAddress(msgspec.Struct, frozen=True, kw_only=True):
    """One address of a port. `gateway` is that of its subnet, None where it has none."""

    address: str
    prefix_length: int
    subnet_id: SubnetId
    gateway: str | None = None
    routes: tuple[PortRoute, ...] = ()

    @property
    def subnet_cidr(self) -> str:
        """The subnet in the form of addresses, e.g. 10.0.0.0/24."""
        size = 32 if ip_address(self.address).version == 4 else 128
        bits = int(ip_address(self.address)) >> (size - self.prefix_length) << (size - self.prefix_length)
        family = type(ip_address(self.address))
        return f"{family(bits)}/{self.prefix_length}"


class TrafficProtocol(StrEnum):
    TCP = "tcp"
    UDP = "udp"
    SCTP = "sctp"
    VRRP = "vrrp"


class AllowedTraffic(msgspec.Struct, frozen=True, order=True):
    """What may come in by a port beside answers and ICMP. No port: every one (VRRP has none); no source: from anywhere."""

    protocol: TrafficProtocol
    port: int | None = None
    source: str | None = None
    """A network in CIDR notation."""


class Port(msgspec.Struct, frozen=True, kw_only=True):
    """`attachment` tells a compute driver where it goes, in words that the two drivers agree on: for `bridge` the name of
    a bridge of this host. `interface` is what the amphora calls it, None until its agent has configured it as it is
    here; the network driver never says it."""

    id: PortId
    amphora_id: AmphoraId
    purpose: PortPurpose
    network_id: NetworkId
    mac: str
    mtu: int
    addresses: tuple[PortAddress, ...]
    attachment: str
    allowed: tuple[AllowedTraffic, ...] = ()
    security_group_ids: tuple[str, ...] = ()
    qos_policy_id: str | None = None
    interface: str | None = None

    @property
    def link(self) -> str:
        return link_name(self.id)

    @property
    def subnet_ids(self) -> frozenset[SubnetId]:
        return frozenset(x.subnet_id for x in self.addresses)


class PortRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The port that an amphora shall have on a network: with an address on each of these subnets, no others; with just
    this traffic let in. `vips` are the addresses beside its own under which it may send and be reached.

    A management port names no subnets, and a network only where the placement of its load balancer does (feature
    management_network): else the driver knows. `port_id` is of the port that is on record as
    this one: it is brought to what is asked, even if another program made it, and no other is made beside it."""

    amphora_id: AmphoraId
    load_balancer_id: LoadBalancerId
    project_id: ProjectId
    purpose: PortPurpose
    network_id: NetworkId | None = None
    subnet_ids: tuple[SubnetId, ...] = ()
    vips: tuple[str, ...] = ()
    allowed: tuple[AllowedTraffic, ...] = ()
    security_group_ids: tuple[str, ...] = ()
    """Groups of the user's that say what else comes in (features vip_sg_ids)."""
    qos_policy_id: str | None = None
    """A policy of the user's that what goes through the port is held to (feature vip_qos_policy_id)."""
    port_id: PortId | None = None


class Adoptee(msgspec.Struct, frozen=True, kw_only=True):
    """An amphora that an Octavia built, as its database tells it: its server, the address of its agent, the port of its VIPs, and
    the networks and subnets on which it must have ports, that of the VIPs first."""

    amphora_id: AmphoraId
    compute_id: str | None
    management_address: str
    vip_port_id: PortId
    subnets: tuple[tuple[NetworkId, tuple[SubnetId, ...]], ...]


def link_name(port_id: PortId) -> str:
    """What a port's end on a host is called, where it has one: the network driver's filters are for this name, so the
    compute driver gives it to the veth or the tap. 15 characters is the most that Linux takes."""
    return "fr" + port_id.replace("-", "")[:13]


def port_for(ports: Sequence[Port], purpose: PortPurpose) -> Port | None:
    """The port of this purpose; the first, where an amphora may have several (members)."""
    return next((x for x in ports if x.purpose is purpose), None)
