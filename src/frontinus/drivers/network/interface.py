"""The network driver: addresses for VIPs, and, with the feature `ports`, the ports by which amphorae hang on networks.

Errors: CallerError branches when what was asked is wrong (Invalid for an unknown subnet or an address outside it,
Conflict for an address taken), Retry when the network cannot be asked."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from frontinus.model import placement
from frontinus.model.belongings import Belonging, BelongingKind
from frontinus.model.errors import Bug
from frontinus.model.findings import Finding
from frontinus.model.ids import AmphoraId, LoadBalancerId, PortId, ProjectId, SubnetId
from frontinus.model.network import AllocatedVip, Reference, Subnet, Tenant, VipRequest
from frontinus.model.ports import PORTS, Adoptee, Port, PortRequest
from frontinus.model.tree import AdditionalVip, Vip

__all__ = [
    "PORTS",
    "AllocatedVip",
    "NetworkDriver",
    "Port",
    "PortRequest",
    "Reference",
    "Subnet",
    "Tenant",
    "VipRequest",
]


ADOPTS = "adopts"
"""The feature of a driver that makes ports, and finds those by which the amphorae of an Octavia hang on networks. Without it an
amphora that was taken over would get a second port on the network of its VIPs with its first change."""

KEEPS_CONNECTIONS = "keeps-connections"
"""The feature of a driver whose ports are stateless filters: where `create_port` lets less in than before, TCP connections that are
there go on, and one that is asked for meets silence. So an amphora can be shut to newcomers before it gives its VIPs up."""

MANAGEMENT_NETWORK = placement.MANAGEMENT_NETWORK
"""The feature of a driver that makes ports, and puts one for management on the network that is asked for."""

INTERFACE_VERSION = 1
INTERFACE_MATURITY = "experimental"


class NetworkDriver(ABC):
    name: ClassVar[str]
    interface: ClassVar[int] = INTERFACE_VERSION
    """The version of this interface that it was written for; a driver of another distribution says it itself."""
    features: ClassVar[frozenset[str]] = frozenset()
    """Which of model.capabilities.NETWORK_FEATURES it has, and PORTS, ADOPTS, KEEPS_CONNECTIONS and
    MANAGEMENT_NETWORK. What it lacks is refused before it is called."""
    hangs_on: ClassVar[str | None] = None
    """With PORTS: what the attachment of its ports (Port.attachment) names: `bridge`, a bridge of this machine; `neutron`,
    a port of Neutron's, by its id. None: not said."""

    @abstractmethod
    async def allocate_vip(
        self, load_balancer_id: LoadBalancerId, project_id: ProjectId, request: VipRequest
    ) -> AllocatedVip:
        """Give the load balancer its address. Repeating it for one load balancer gives the same answer, but that a port which
        somebody removed is another now, at the address that is asked for; two load
        balancers never get one address. Raises Invalid, Conflict, or Retry; leaves nothing behind when it fails.

        With the feature additional_vips, `request.additional` are given together with the first, all or none of them;
        model.network.check_additional_subnets says on which subnets they may be."""

    @abstractmethod
    async def preview_vip(
        self, load_balancer_id: LoadBalancerId, project_id: ProjectId, request: VipRequest
    ) -> AllocatedVip:
        """What allocate_vip would answer or raise now; nothing is taken, so another may have the address a moment later."""

    @abstractmethod
    async def release_vip(
        self,
        load_balancer_id: LoadBalancerId,
        vip: Vip,
        *,
        port_owned: bool,
        additional: tuple[AdditionalVip, ...] = (),
    ) -> None:
        """Give the addresses back. Unknown ones are done already. A port that the user brought is kept."""

    async def require_access(self, tenant: Tenant, references: Sequence[Reference]) -> None:  # noqa: B027 - all may be used by default
        """That the tenant may use each of the objects, where the network knows tenants: asked before anything is given or
        stored that names them. Raises Invalid naming the field of the first that he may not, or that does not exist."""

    async def require_management_network(self, id_or_name: str, field: str) -> None:  # noqa: B027 - not every driver can know
        """With MANAGEMENT_NETWORK: that amphorae could be managed on it by now, asked before an availability zone promises it.
        Raises Invalid naming `field`, and Retry."""

    @abstractmethod
    async def get_subnet(self, subnet_id: SubnetId) -> Subnet:
        """Raises Invalid naming the subnet when it does not exist."""

    @abstractmethod
    async def list_subnets(self) -> tuple[Subnet, ...]:
        """The subnets that a load balancer can be put on, as far as the driver owns the answer; may be empty."""

    @abstractmethod
    async def list_owned(self) -> tuple[LoadBalancerId, ...]:
        """Load balancers that hold an address or port under our naming. Feeds the sweeper."""

    @abstractmethod
    async def release_owned(self, load_balancer_id: LoadBalancerId) -> None:
        """Give back whatever this load balancer still holds under our naming, ports of its amphorae too; nothing held is
        done already."""

    async def list_belongings(self) -> tuple[Belonging, ...]:
        """Every address and port that is held: one at least for each load balancer of `list_owned` and, of a driver that
        makes ports, each amphora of `list_port_owners`; and whatever else the driver made and nobody uses any more, as nobody's
        (`discard`). People read it (`frontinus sweep list`). Raises Retry."""
        found = [
            Belonging(kind=BelongingKind.ADDRESS, name=x, proof="on record", load_balancer_id=x)
            for x in await self.list_owned()
        ]
        if PORTS in self.features:
            for amphora_id in await self.list_port_owners():
                found += [
                    Belonging(kind=BelongingKind.PORT, name=x.id, proof="on record", amphora_id=amphora_id)
                    for x in await self.list_ports(amphora_id)
                ]
        return tuple(found)

    async def discard(self, belonging: Belonging) -> None:  # noqa: B027 - all that is held is somebody's by default
        """What `list_belongings` named as nobody's is gone, if it would still name it so; what it never named is left alone.
        Safe to repeat. Raises Retry."""

    @classmethod
    def controller_address(cls, settings: Any) -> str | None:
        """At which address of this machine amphorae reach it, where the driver gives it one (perhaps not before the first
        port); None: they are told what the health receiver is bound to. `settings` are the driver's own. Pure."""
        return None

    async def create_port(self, request: PortRequest) -> Port:
        """The amphora's port on that network, as it is asked for: made, or brought to it, and with `port_id` that one if it is
        there. An amphora has one port of a
        purpose on a network; its id, its MAC and the addresses that it keeps are the same for ever. Safe to repeat, also
        after a crash. What is let in by the port is what the request says, before this returns;
        and what is sent by it comes from its MAC and its addresses, or the request's VIPs, in ARP and neighbour discovery too.

        Raises Invalid naming the subnet or network that does not exist, NoFreeAddress naming the subnet that has none left
        (what the port had before it keeps)."""
        raise Bug(f"network driver {self.name} makes no ports")

    async def find_ports(self, adoptee: Adoptee) -> tuple[Port, ...]:
        """With ADOPTS: the port for management of somebody else's amphora, and one for each of the networks, in this order, as they
        are. Changes nothing: they are ours from the first create_port that names one as `port_id`, and are owned, listed
        and deleted as ours from then on.

        Raises Invalid naming what is not there; such an amphora is not taken over."""
        raise Bug(f"network driver {self.name} finds no ports of others")

    async def delete_port(self, amphora_id: AmphoraId, port_id: PortId) -> None:
        """The port is gone, and its addresses are free. An unknown one is done already. Compute has let go of it."""
        raise Bug(f"network driver {self.name} makes no ports")

    async def list_port_owners(self) -> tuple[AmphoraId, ...]:
        """Amphorae that have a port. Feeds the sweeper."""
        raise Bug(f"network driver {self.name} makes no ports")

    async def list_ports(self, amphora_id: AmphoraId) -> tuple[Port, ...]:
        """Every port that the amphora has, those too that were never recorded; `interface` is None."""
        raise Bug(f"network driver {self.name} makes no ports")

    async def dismantle(self) -> None:  # noqa: B027 - nothing outside its records by default
        """What the driver made outside its records is gone, ports first: `frontinus down --purge`, which then removes the
        records. No amphora is there any more."""

    async def examine(self) -> tuple[Finding, ...]:
        """What on this machine stands in the driver's way, or will, and what does not; `frontinus doctor` asks. Changes
        nothing, and raises nothing that a finding could say."""
        return ()

    async def close(self) -> None:  # noqa: B027 - nothing to let go of by default
        """Let go of connections."""
