"""Values that cross between the API and whatever owns addresses: what was asked of a VIP, what was given, subnets.

Shared by the network driver's interface and by api/ports.py, which must not import drivers."""

from __future__ import annotations

import msgspec

from frontinus.model.ids import NetworkId, PortId, SubnetId
from frontinus.model.tree import Vip


class VipRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What the user said of the VIP. At least one of port, network and subnet is given (behaviours.yaml
    vip_resolution); precedence is port, network, subnet."""

    address: str | None = None
    subnet_id: SubnetId | None = None
    network_id: NetworkId | None = None
    port_id: PortId | None = None


class AllocatedVip(msgspec.Struct, frozen=True, kw_only=True):
    """`port_owned` says that the port was made for this load balancer and goes with it."""

    vip: Vip
    port_owned: bool


class Subnet(msgspec.Struct, frozen=True, kw_only=True):
    id: SubnetId
    network_id: NetworkId
    name: str
    cidr: str
    gateway: str | None = None
