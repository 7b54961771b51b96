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


def check_additional_subnets(primary: Vip, places: Sequence[tuple[SubnetId, NetworkId]]) -> None:
    """Raise Invalid naming the first additional VIP whose subnet is that of another VIP, or on another network than the
    primary's (behaviours.yaml vip_resolution.additional_vips). `places` are the subnet and the network of each, in order."""
    require_subnets_of_their_own(primary.subnet_id, [subnet_id for subnet_id, _ in places])
    for number, (subnet_id, network_id) in enumerate(places):
        if network_id != primary.network_id:
            reason = f"subnet {subnet_id} is not on network {primary.network_id}, on which the VIP is"
            raise Invalid(_subnet_field(number), reason)


def require_subnets_of_their_own(primary: SubnetId, additional: Sequence[SubnetId]) -> None:
    """Raise Invalid naming the first additional VIP whose subnet is that of another VIP."""
    seen = {primary}
    for number, subnet_id in enumerate(additional):
        if subnet_id in seen:
            raise Invalid(_subnet_field(number), "every VIP of a load balancer is on a subnet of its own")
        seen.add(subnet_id)


def _subnet_field(number: int) -> str:
    return f"load_balancer.additional_vips[{number}].subnet_id"
