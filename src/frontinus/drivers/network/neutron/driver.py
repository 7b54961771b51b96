"""The network driver whose networks are OpenStack's: VIPs are Neutron ports in their tenant's project, amphorae have ports in ours.

Each method is one piece of blocking work in a thread (drivers/openstack/cloud.py), and each looks before it acts, so that it
may be repeated after any crash. Nothing is kept between calls; Neutron is the record. Nothing that another program made is
touched, but for ports that users bring and what is taken over from an Octavia.

Which names and marks our things bear: names.py. VIPs: vips.py. Ports of amphorae: amphora_ports.py. What a tenant may
use: access.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from openstack.connection import Connection

from frontinus.drivers.network.interface import ADOPTS, MANAGEMENT_NETWORK, PORTS, NetworkDriver
from frontinus.drivers.network.neutron import access
from frontinus.drivers.network.neutron.amphora_ports import AmphoraPorts, Management, NoManagementNetwork
from frontinus.drivers.network.neutron.facts import PortFacts
from frontinus.drivers.network.neutron.names import ATTACHMENT, Names
from frontinus.drivers.network.neutron.neutron import Neutron
from frontinus.drivers.network.neutron.vips import Vips
from frontinus.drivers.openstack.cloud import Cloud
from frontinus.drivers.openstack.settings import OpenStackSettings
from frontinus.model.belongings import Belonging, BelongingKind
from frontinus.model.capabilities import NETWORK_FEATURES
from frontinus.model.errors import Invalid, Retry
from frontinus.model.findings import Finding, fine, trouble, warning
from frontinus.model.ids import AmphoraId, LoadBalancerId, NetworkId, PortId, ProjectId, SubnetId
from frontinus.model.network import AllocatedVip, Reference, Subnet, Tenant, VipRequest
from frontinus.model.ports import Adoptee, Port, PortRequest
from frontinus.model.tree import AdditionalVip, Vip

_BY_NAME = "by its name and description in our project"
_BY_MARKS = "by its device, or its tags"
NEEDED = ("allowed-address-pairs", "port-security", "revision-if-match", "security-group", "standard-attr-tag")
USEFUL = {"qos": "QoS policies of VIPs are refused", "network-ip-availability": "a VIP may be put on a full subnet"}
"""Extensions of Neutron that the driver cannot do without; others, and what is lost without them."""


@dataclass(frozen=True)
class NeutronSettings:
    """How amphorae are managed; [driver_options.neutron]. Which cloud it is, is in [openstack]."""

    management_network: str = "lb-mgmt-net"
    """Name or id of the network on which agents listen and from which heartbeats come. Our account must see it, and the
    controllers must reach its addresses."""

    management_security_groups: tuple[str, ...] = ()
    """Ids of the security groups of ports on it, of our account's project; they must let controllers in to agents. None: each
    port gets a group that lets management_ports in from anywhere, since agents authenticate by certificates."""

    management_ports: tuple[int, ...] = (9443,)
    """TCP ports of agents, where management_security_groups names no group."""

    openstack: OpenStackSettings = field(default_factory=OpenStackSettings)
    """As in [openstack], unless it is written here too."""

    def check(self) -> None:
        """Raises Invalid naming the setting that cannot be."""
        if not self.management_network:
            raise Invalid("management_network", "name the network by which amphorae are managed")
        for port in self.management_ports:
            if not 0 < port < 65_536:
                raise Invalid("management_ports", f"{port} is no port number")
        self.openstack.check()


class NeutronNetwork(NetworkDriver):
    """See drivers/network/interface.py, whose docstrings are the law."""

    name: ClassVar[str] = "neutron"
    features: ClassVar[frozenset[str]] = NETWORK_FEATURES | {PORTS, ADOPTS, MANAGEMENT_NETWORK}
    hangs_on: ClassVar[str] = ATTACHMENT
    Settings: ClassVar[type[NeutronSettings]] = NeutronSettings

    def __init__(
        self, settings: NeutronSettings, connect: Callable[[OpenStackSettings], Connection] | None = None
    ) -> None:
        """Asks nothing yet. Raises Invalid naming the setting that cannot be."""
        settings.check()
        self._settings = settings
        self._cloud = Cloud(settings.openstack, connect)
        self._neutron = Neutron(self._cloud)
        marks = Names(settings.openstack.installation)
        self._vips = Vips(self._neutron, marks)
        management = Management(
            settings.management_network, settings.management_security_groups, settings.management_ports
        )
        self._ports = AmphoraPorts(self._neutron, marks, management)

    async def allocate_vip(
        self, load_balancer_id: LoadBalancerId, project_id: ProjectId, request: VipRequest
    ) -> AllocatedVip:
        return await self._cloud.run(lambda: self._vips.allocate(load_balancer_id, project_id, request))

    async def preview_vip(
        self, load_balancer_id: LoadBalancerId, project_id: ProjectId, request: VipRequest
    ) -> AllocatedVip:
        return await self._cloud.run(lambda: self._vips.preview(load_balancer_id, project_id, request))

    async def release_vip(
        self,
        load_balancer_id: LoadBalancerId,
        vip: Vip,
        *,
        port_owned: bool,
        additional: tuple[AdditionalVip, ...] = (),
    ) -> None:
        await self._cloud.run(lambda: self._vips.release(load_balancer_id, vip, additional, port_owned=port_owned))

    async def require_access(self, tenant: Tenant, references: Sequence[Reference]) -> None:
        if references:
            await self._cloud.run(lambda: access.require(self._neutron, tenant, references))

    async def require_management_network(self, id_or_name: str, field: str) -> None:
        def work() -> None:
            try:
                self._ports.management_subnet(NetworkId(id_or_name))
            except NoManagementNetwork as lack:
                raise Invalid(field, lack.reason) from lack

        await self._cloud.run(work)

    async def get_subnet(self, subnet_id: SubnetId) -> Subnet:
        found = await self._cloud.run(lambda: self._neutron.subnet(subnet_id))
        if found is None:
            raise Invalid("subnet_id", f"subnet {subnet_id} does not exist")
        return found.as_subnet()

    async def list_subnets(self) -> tuple[Subnet, ...]:
        """None: tenants ask Neutron, which knows what each may see."""
        return ()

    async def list_owned(self) -> tuple[LoadBalancerId, ...]:
        def work() -> list[LoadBalancerId]:
            vips, ports = self._vips.held(), self._ports.owned(self._cloud.project_id())
            return [*(holder for _, holder in vips), *(load_balancer_id for _, _, load_balancer_id in ports)]

        return tuple(dict.fromkeys(await self._cloud.run(work)))

    async def list_belongings(self) -> tuple[Belonging, ...]:
        def work() -> tuple[Belonging, ...]:
            vips = (
                Belonging(
                    kind=BelongingKind.ADDRESS,
                    name=_told(port),
                    proof=_BY_MARKS,
                    load_balancer_id=load_balancer_id,
                    tenant=port.project_id,
                )
                for port, load_balancer_id in self._vips.held()
            )
            ours, groups = self._ports.surveyed(self._cloud.project_id())
            ports = (
                Belonging(kind=BelongingKind.PORT, name=_told(port), proof=_BY_NAME, amphora_id=amphora_id)
                for port, amphora_id, _ in ours
            )
            left = (
                Belonging(
                    kind=BelongingKind.SECURITY_GROUP,
                    name=f"{group.id} {group.name}",
                    proof=f"{_BY_NAME}, and its port is not there",
                )
                for group in groups
            )
            return (*vips, *ports, *left)

        return await self._cloud.run(work)

    async def discard(self, belonging: Belonging) -> None:
        if belonging.kind is BelongingKind.SECURITY_GROUP:
            group_id = belonging.name.partition(" ")[0]
            await self._cloud.run(lambda: self._ports.discard_group(group_id, self._cloud.project_id()))

    async def release_owned(self, load_balancer_id: LoadBalancerId) -> None:
        def work() -> None:
            project_id = self._cloud.project_id()
            for amphora_id, port_id in self._ports.of_load_balancer(load_balancer_id, project_id):
                self._ports.delete(amphora_id, port_id, project_id)
            for group in self._ports.groups_of_load_balancer(load_balancer_id, project_id):
                self._neutron.delete_group(group.id)
            self._vips.release_all(load_balancer_id)

        await self._cloud.run(work)

    async def create_port(self, request: PortRequest) -> Port:
        return await self._cloud.run(lambda: self._ports.create(request, self._cloud.project_id()))

    async def find_ports(self, adoptee: Adoptee) -> tuple[Port, ...]:
        return await self._cloud.run(lambda: self._ports.of_octavia(adoptee, self._cloud.project_id()))

    async def delete_port(self, amphora_id: AmphoraId, port_id: PortId) -> None:
        await self._cloud.run(lambda: self._ports.delete(amphora_id, port_id, self._cloud.project_id()))

    async def list_port_owners(self) -> tuple[AmphoraId, ...]:
        ports = await self._cloud.run(lambda: self._ports.owned(self._cloud.project_id()))
        return tuple(dict.fromkeys(amphora_id for _, amphora_id, _ in ports))

    async def list_ports(self, amphora_id: AmphoraId) -> tuple[Port, ...]:
        return await self._cloud.run(lambda: self._ports.of_amphora(amphora_id, self._cloud.project_id()))

    async def examine(self) -> tuple[Finding, ...]:
        return await self._cloud.run(lambda: tuple(self._examine()))

    async def close(self) -> None:
        await self._cloud.close()

    def _examine(self) -> list[Finding]:
        try:
            extensions = self._neutron.extensions()
            self._ports.management_subnet()
        except Retry as unreachable:
            return [trouble("neutron", unreachable.reason, "see [openstack] and clouds.yaml")]
        missing = [x for x in NEEDED if x not in extensions]
        findings = [
            trouble("neutron", f"has no extension {x}", "switch it on in Neutron; it comes with ML2") for x in missing
        ]
        findings += [
            warning("neutron", f"has no extension {name}", told)
            for name, told in USEFUL.items()
            if name not in extensions
        ]
        return findings or [fine("neutron", f"answers, and has the network {self._settings.management_network}")]


def _told(port: PortFacts) -> str:
    return " ".join((port.id, port.name, *(x.ip_address for x in port.fixed_ips)))
