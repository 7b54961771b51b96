"""Values that cross between the API and whatever owns addresses: what was asked of a VIP, what was given, subnets.

Shared by the network driver's interface and by api/ports.py, which must not import drivers."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import msgspec

from frontinus.model.errors import Invalid
from frontinus.model.ids import NetworkId, PortId, ProjectId, SubnetId
from frontinus.model.secrets import Secret
from frontinus.model.tree import AdditionalVip, Vip


class VipRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What the user said of the VIP. At least one of port, network and subnet is given (behaviours.yaml
    vip_resolution); precedence is port, network, subnet."""

    address: str | None = None
    subnet_id: SubnetId | None = None
    network_id: NetworkId | None = None
    port_id: PortId | None = None
    additional: tuple[AdditionalVip, ...] = ()
    """Further addresses, each on a subnet of its own that is on the network of the first."""


class AllocatedVip(msgspec.Struct, frozen=True, kw_only=True):
    """`port_owned` says that the port was made for this load balancer and goes with it. `additional` are as many as were
    asked for, in the same order. `qos_policy_id` is of a port that the user brought, where it has one."""

    vip: Vip
    port_owned: bool
    qos_policy_id: str | None = None
    additional: tuple[AdditionalVip, ...] = ()


class Subnet(msgspec.Struct, frozen=True, kw_only=True):
    id: SubnetId
    network_id: NetworkId
    name: str
    cidr: str
    gateway: str | None = None


class ReferenceKind(StrEnum):
    """Objects of the network that a user may name."""

    NETWORK = "network"
    SUBNET = "subnet"
    PORT = "port"
    SECURITY_GROUP = "security_group"
    QOS_POLICY = "qos_policy"


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """An object that a user named, and in which field of his request."""

    kind: ReferenceKind
    id: str
    field: str


class Tenant(msgspec.Struct, frozen=True, kw_only=True):
    """For whom something is asked: the project that it will belong to, and the caller's own token where it is one that
    the network can be asked with."""

    project_id: ProjectId
    token: Secret | None = None


def check_additional_subnets(primary: Vip, subnets: Sequence[Subnet]) -> None:
    """Raise Invalid naming the first additional VIP whose subnet is that of another VIP, or on another network than the
    primary's (behaviours.yaml vip_resolution.additional_vips)."""
    seen = {primary.subnet_id}
    for number, subnet in enumerate(subnets):
        field = f"load_balancer.additional_vips[{number}].subnet_id"
        if subnet.id in seen:
            raise Invalid(field, "every VIP of a load balancer is on a subnet of its own")
        seen.add(subnet.id)
        if subnet.network_id != primary.network_id:
            raise Invalid(field, f"subnet {subnet.id} is not on network {primary.network_id}, on which the VIP is")
