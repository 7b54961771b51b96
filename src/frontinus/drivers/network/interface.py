"""The network driver: addresses for VIPs, and later ports and plugs.

Errors: CallerError branches when what was asked is wrong (Invalid for an unknown subnet or an address outside it,
Conflict for an address taken), Retry when the network cannot be asked."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import msgspec

from frontinus.model.ids import LoadBalancerId, NetworkId, PortId, ProjectId, SubnetId
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


class NetworkDriver(ABC):
    name: ClassVar[str]

    @abstractmethod
    async def allocate_vip(
        self, load_balancer_id: LoadBalancerId, project_id: ProjectId, request: VipRequest
    ) -> AllocatedVip:
        """Give the load balancer its address. Repeating it for one load balancer gives the same answer; two load
        balancers never get one address. Raises Invalid, Conflict, or Retry; leaves nothing behind when it fails."""

    @abstractmethod
    async def release_vip(self, load_balancer_id: LoadBalancerId, vip: Vip, *, port_owned: bool) -> None:
        """Give the address back. Unknown ones are done already. A port that the user brought is kept."""

    @abstractmethod
    async def get_subnet(self, subnet_id: SubnetId) -> Subnet:
        """Raises Invalid naming the subnet when it does not exist."""

    @abstractmethod
    async def list_subnets(self) -> tuple[Subnet, ...]:
        """The subnets that a load balancer can be put on, as far as the driver owns the answer; may be empty."""

    @abstractmethod
    async def list_owned(self) -> tuple[LoadBalancerId, ...]:
        """Load balancers that hold an address or port under our naming. Feeds the sweeper."""

    async def close(self) -> None:  # noqa: B027 - nothing to let go of by default
        """Let go of connections."""
