"""What Neutron says of networks, subnets, ports and security groups, as far as we read it. Values, decoded at the edge
(neutron.py) and turned into ours by whoever asked; none leaves this package but to the command that judges a cloud
(cli/openstack)."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import TypeAlias

import msgspec

from frontinus.model.ids import NetworkId, PortId, ProjectId, SubnetId
from frontinus.model.network import Subnet
from frontinus.model.ports import PortAddress, PortRoute

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network


class NetworkFacts(msgspec.Struct, frozen=True, kw_only=True):
    id: NetworkId
    name: str = ""
    admin_state_up: bool = True
    project_id: ProjectId = ProjectId("")
    mtu: int = 1500
    shared: bool = False


class Pool(msgspec.Struct, frozen=True, kw_only=True):
    start: str
    end: str


class HostRoute(msgspec.Struct, frozen=True, kw_only=True):
    destination: str
    nexthop: str


class SubnetFacts(msgspec.Struct, frozen=True, kw_only=True):
    id: SubnetId
    network_id: NetworkId
    name: str
    cidr: str
    ip_version: int
    gateway_ip: str | None = None
    allocation_pools: tuple[Pool, ...] = ()
    host_routes: tuple[HostRoute, ...] = ()

    @property
    def network(self) -> Network:
        return ip_network(self.cidr)

    def as_subnet(self) -> Subnet:
        return Subnet(
            id=self.id, network_id=self.network_id, name=self.name, cidr=self.cidr, gateway=self.gateway_ip or None
        )

    def as_address(self, address: str) -> PortAddress:
        return PortAddress(
            address=address,
            prefix_length=self.network.prefixlen,
            subnet_id=self.id,
            gateway=self.gateway_ip or None,
            routes=tuple(PortRoute(x.destination, x.nexthop) for x in self.host_routes),
        )


class FixedIp(msgspec.Struct, frozen=True, kw_only=True):
    subnet_id: SubnetId
    ip_address: str


class AddressPair(msgspec.Struct, frozen=True, kw_only=True):
    ip_address: str
    mac_address: str = ""


class PortFacts(msgspec.Struct, frozen=True, kw_only=True):
    """`revision_number` moves with every change; an update may be made to depend on it (extension revision-if-match)."""

    id: PortId
    name: str = ""
    description: str = ""
    network_id: NetworkId = NetworkId("")
    project_id: ProjectId = ProjectId("")
    mac_address: str = ""
    fixed_ips: tuple[FixedIp, ...] = ()
    device_id: str = ""
    device_owner: str = ""
    security_groups: tuple[str, ...] = ()
    allowed_address_pairs: tuple[AddressPair, ...] = ()
    qos_policy_id: str | None = None
    port_security_enabled: bool = True
    tags: tuple[str, ...] = ()
    revision_number: int = 0

    def address_on(self, subnet_id: SubnetId) -> str | None:
        return next((x.ip_address for x in self.fixed_ips if x.subnet_id == subnet_id), None)


class SecurityGroupFacts(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    name: str = ""
    description: str = ""


class RuleFacts(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    security_group_id: str
    direction: str
    ethertype: str
    protocol: str | None = None
    port_range_min: int | None = None
    port_range_max: int | None = None
    remote_ip_prefix: str | None = None
