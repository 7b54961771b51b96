"""A network driver whose addresses are entries of a dict, with faults on order.

Hand the same dicts to a second FakeNetwork and it is the same world after a restart."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import ClassVar
from uuid import NAMESPACE_OID, uuid5

from msgspec.structs import replace

from frontinus.drivers.network.interface import KEEPS_CONNECTIONS, MANAGEMENT_NETWORK, PORTS, NetworkDriver
from frontinus.model.capabilities import NETWORK_FEATURES
from frontinus.model.errors import Conflict, FrontinusError, Invalid, NoFreeAddress
from frontinus.model.ids import AmphoraId, LoadBalancerId, NetworkId, PortId, ProjectId, SubnetId, new_id
from frontinus.model.network import AllocatedVip, Subnet, VipRequest, check_additional_subnets
from frontinus.model.ports import Port, PortAddress, PortPurpose, PortRequest
from frontinus.model.tree import AdditionalVip, Vip
from frontinus.testing.faults import Faults

FAKE_SUBNET = Subnet(
    id=SubnetId("5b0c7b5e-0000-4000-8000-000000000001"),
    network_id=NetworkId("5b0c7b5e-0000-4000-8000-000000000002"),
    name="fake",
    cidr="198.51.100.0/24",
)
"""Documentation addresses (RFC 5737): no traffic can go there by accident."""

FAKE_SUBNET_V6 = Subnet(
    id=SubnetId("5b0c7b5e-0000-4000-8000-000000000006"),
    network_id=NetworkId("5b0c7b5e-0000-4000-8000-000000000002"),
    name="fake-v6",
    cidr="2001:db8::/64",
)


class FakeNetwork(NetworkDriver):
    """`vips` (address -> owner) and `vip_ports` (address -> the port that was made for it; a new one each time that it is taken)
    are the world. `brought_ports` are ports that users made: they stay when released; `policies`
    are those of them that have one."""

    name: ClassVar[str] = "fake"
    features: ClassVar[frozenset[str]] = NETWORK_FEATURES

    def __init__(
        self,
        vips: MutableMapping[str, LoadBalancerId] | None = None,
        faults: Faults | None = None,
        *,
        vip_ports: MutableMapping[str, PortId] | None = None,
        subnets: tuple[Subnet, ...] = (FAKE_SUBNET, FAKE_SUBNET_V6),
        brought_ports: Mapping[PortId, Vip] | None = None,
        policies: Mapping[PortId, str] | None = None,
    ) -> None:
        self.vips: MutableMapping[str, LoadBalancerId] = {} if vips is None else vips
        self.vip_ports: MutableMapping[str, PortId] = {} if vip_ports is None else vip_ports
        self.faults = Faults() if faults is None else faults
        self.subnets = subnets
        self.brought_ports: Mapping[PortId, Vip] = {} if brought_ports is None else brought_ports
        self.policies: Mapping[PortId, str] = {} if policies is None else policies
        self.of_several: set[PortId] = set()
        """Ports that users made with other addresses beside: which of them is the VIP's has to be said."""

    async def allocate_vip(
        self, load_balancer_id: LoadBalancerId, project_id: ProjectId, request: VipRequest
    ) -> AllocatedVip:
        async with self.faults.around("allocate_vip"):
            before = {address for address, owner in self.vips.items() if owner == load_balancer_id}
            try:
                vip = self._first(load_balancer_id, request)
                subnets = [self._subnet(x.subnet_id) for x in request.additional]
                check_additional_subnets(vip, [(x.id, x.network_id) for x in subnets])
                additional = tuple(
                    self._further(load_balancer_id, asked, subnet)
                    for asked, subnet in zip(request.additional, subnets, strict=True)
                )
            except FrontinusError:
                for address in [x for x, owner in self.vips.items() if owner == load_balancer_id and x not in before]:
                    del self.vips[address]
                raise
        policy = None if request.port_id is None else self.policies.get(request.port_id)
        return AllocatedVip(vip=vip, port_owned=request.port_id is None, qos_policy_id=policy, additional=additional)

    async def preview_vip(
        self, load_balancer_id: LoadBalancerId, project_id: ProjectId, request: VipRequest
    ) -> AllocatedVip:
        async with self.faults.around("preview_vip"):
            elsewhere = FakeNetwork(
                dict(self.vips),
                vip_ports=dict(self.vip_ports),
                subnets=self.subnets,
                brought_ports=self.brought_ports,
                policies=self.policies,
            )
            return await elsewhere.allocate_vip(load_balancer_id, project_id, request)

    async def release_vip(
        self,
        load_balancer_id: LoadBalancerId,
        vip: Vip,
        *,
        port_owned: bool,
        additional: tuple[AdditionalVip, ...] = (),
    ) -> None:
        async with self.faults.around("release_vip"):
            for address in (vip.address, *(x.address for x in additional)):
                if self.vips.get(address) == load_balancer_id:
                    del self.vips[address]

    async def get_subnet(self, subnet_id: SubnetId) -> Subnet:
        async with self.faults.around("get_subnet"):
            return self._subnet(subnet_id)

    async def list_subnets(self) -> tuple[Subnet, ...]:
        async with self.faults.around("list_subnets"):
            return self.subnets

    async def list_owned(self) -> tuple[LoadBalancerId, ...]:
        async with self.faults.around("list_owned"):
            return tuple(dict.fromkeys(self.vips.values()))

    async def release_owned(self, load_balancer_id: LoadBalancerId) -> None:
        async with self.faults.around("release_owned"):
            for address in [address for address, owner in self.vips.items() if owner == load_balancer_id]:
                del self.vips[address]

    def _first(self, load_balancer_id: LoadBalancerId, request: VipRequest) -> Vip:
        if request.port_id is not None:
            if request.port_id in self.of_several and request.subnet_id is None and request.address is None:
                raise Invalid("vip_port_id", f"port {request.port_id} has several addresses; say which")
            return self._brought(load_balancer_id, request.port_id)
        subnet = self._choose_subnet(request)
        address = self._take_address(load_balancer_id, subnet, request.address)
        return Vip(
            address=address,
            subnet_id=subnet.id,
            network_id=subnet.network_id,
            port_id=self._port_of(address),
        )

    def _further(self, load_balancer_id: LoadBalancerId, asked: AdditionalVip, subnet: Subnet) -> AdditionalVip:
        if asked.port_id is not None:
            brought = self._brought(load_balancer_id, asked.port_id)
            return replace(asked, address=brought.address, port_owned=False)
        address = self._take_address(load_balancer_id, subnet, asked.address or None)
        return AdditionalVip(address=address, subnet_id=subnet.id, port_id=self._port_of(address))

    def _brought(self, load_balancer_id: LoadBalancerId, port_id: PortId) -> Vip:
        vip = self.brought_ports.get(port_id)
        if vip is None:
            raise Invalid("vip_port_id", f"port {port_id} does not exist")
        if self.vips.setdefault(vip.address, load_balancer_id) != load_balancer_id:
            raise Conflict("vip_port_id", f"port {port_id} is used by another load balancer")
        return vip

    def _choose_subnet(self, request: VipRequest) -> Subnet:
        if request.network_id is None:
            if request.subnet_id is None:
                raise Invalid("vip_subnet_id", "name a port, a network or a subnet")
            return self._subnet(request.subnet_id)
        candidates = [x for x in self.subnets if x.network_id == request.network_id]
        if not candidates:
            raise Invalid("vip_network_id", f"network {request.network_id} does not exist")
        if request.subnet_id is not None:
            candidates = [x for x in candidates if x.id == request.subnet_id]
            if not candidates:
                raise Invalid("vip_subnet_id", f"subnet {request.subnet_id} is not on network {request.network_id}")
        if request.address is not None:
            wanted = _parse(request.address)
            candidates = [x for x in candidates if wanted in ip_network(x.cidr)] or candidates
        return candidates[0]

    def _subnet(self, subnet_id: SubnetId) -> Subnet:
        for subnet in self.subnets:
            if subnet.id == subnet_id:
                return subnet
        raise Invalid("vip_subnet_id", f"subnet {subnet_id} does not exist")

    def _take_address(self, load_balancer_id: LoadBalancerId, subnet: Subnet, asked: str | None) -> str:
        network = ip_network(subnet.cidr)
        if asked is not None:
            wanted = _parse(asked)
            if wanted not in network:
                raise Invalid("vip_address", f"{wanted} is not in subnet {subnet.id} ({subnet.cidr})")
            if self._take(load_balancer_id, str(wanted)) != load_balancer_id:
                raise Conflict("vip_address", f"{wanted} belongs to another load balancer")
            return str(wanted)
        for address, owner in self.vips.items():
            if owner == load_balancer_id and ip_address(address) in network:
                return address
        for candidate in network.hosts():
            if str(candidate) not in self.vips:
                self._take(load_balancer_id, str(candidate))
                return str(candidate)
        raise NoFreeAddress(subnet.id, f"subnet {subnet.id} has no free address; release some")

    def _take(self, load_balancer_id: LoadBalancerId, address: str) -> LoadBalancerId:
        """Whose it is now; with a port of its own if it was nobody's."""
        if address not in self.vips:
            self.vip_ports[address] = PortId(new_id())
        return self.vips.setdefault(address, load_balancer_id)

    def _port_of(self, address: str) -> PortId:
        return self.vip_ports.setdefault(address, PortId(new_id()))  # a test may have written the address itself

    async def vanish(self, port_id: PortId) -> None:
        """Somebody removes a port that was made for a VIP."""
        for address in [x for x, made in self.vip_ports.items() if made == port_id]:
            del self.vip_ports[address], self.vips[address]


FAKE_MANAGEMENT_SUBNET = Subnet(
    id=SubnetId("5b0c7b5e-0000-4000-8000-000000000011"),
    network_id=NetworkId("5b0c7b5e-0000-4000-8000-000000000012"),
    name="fake-management",
    cidr="203.0.113.0/24",
)

FAKE_MEMBER_SUBNET = Subnet(
    id=SubnetId("5b0c7b5e-0000-4000-8000-000000000021"),
    network_id=NetworkId("5b0c7b5e-0000-4000-8000-000000000022"),
    name="fake-members",
    cidr="192.0.2.0/24",
)


class FakePortNetwork(FakeNetwork):
    """One that makes ports too: `ports` is that part of the world. Every network that is asked for serves for management."""

    features: ClassVar[frozenset[str]] = NETWORK_FEATURES | {PORTS, KEEPS_CONNECTIONS, MANAGEMENT_NETWORK}

    def __init__(
        self,
        vips: MutableMapping[str, LoadBalancerId] | None = None,
        faults: Faults | None = None,
        *,
        vip_ports: MutableMapping[str, PortId] | None = None,
        ports: MutableMapping[PortId, Port] | None = None,
        port_owners: MutableMapping[PortId, LoadBalancerId] | None = None,
    ) -> None:
        super().__init__(vips, faults, vip_ports=vip_ports, subnets=(FAKE_SUBNET, FAKE_SUBNET_V6, FAKE_MEMBER_SUBNET))
        self.ports: MutableMapping[PortId, Port] = {} if ports is None else ports
        self.groups: set[PortId] = set()
        """Ports that something is let in by: as with Neutron's groups, that stays where somebody removes the port alone."""
        self.full: set[SubnetId] = set()
        """Subnets on which nobody gets an address."""
        self.port_owners: MutableMapping[PortId, LoadBalancerId] = {} if port_owners is None else port_owners

    async def create_port(self, request: PortRequest) -> Port:
        async with self.faults.around("create_port"):
            subnets = tuple(self._subnet(x) for x in request.subnet_ids)
            network_id = request.network_id
            if request.purpose is PortPurpose.MANAGEMENT:
                subnets, network_id = (FAKE_MANAGEMENT_SUBNET,), network_id or FAKE_MANAGEMENT_SUBNET.network_id
            elif network_id is None or any(x.network_id != network_id for x in subnets):
                raise Invalid("network_id", f"the subnets are not on network {network_id}")
            port_id = PortId(str(uuid5(NAMESPACE_OID, f"{request.amphora_id} {request.purpose} {network_id}")))
            before = self.ports.get(port_id)
            kept = {} if before is None else {x.subnet_id: x for x in before.addresses}
            self.ports[port_id] = Port(
                id=port_id,
                amphora_id=request.amphora_id,
                purpose=request.purpose,
                network_id=network_id,
                mac=":".join(("02", *(port_id.replace("-", "")[n : n + 2] for n in range(0, 10, 2)))),
                mtu=1500,
                addresses=tuple(kept.get(x.id) or self._free(x) for x in subnets),
                attachment=f"fake-{network_id}",
                allowed=request.allowed,
                security_group_ids=request.security_group_ids,
                qos_policy_id=request.qos_policy_id,
            )
            self.port_owners[port_id] = request.load_balancer_id
            self.groups.add(port_id)
        return self.ports[port_id]

    async def delete_port(self, amphora_id: AmphoraId, port_id: PortId) -> None:
        async with self.faults.around("delete_port"):
            self.ports.pop(port_id, None)
            self.groups.discard(port_id)
            self.port_owners.pop(port_id, None)

    async def list_ports(self, amphora_id: AmphoraId) -> tuple[Port, ...]:
        async with self.faults.around("list_ports"):
            return tuple(x for x in self.ports.values() if x.amphora_id == amphora_id)

    async def list_port_owners(self) -> tuple[AmphoraId, ...]:
        async with self.faults.around("list_port_owners"):
            return tuple(dict.fromkeys(x.amphora_id for x in self.ports.values()))

    async def list_owned(self) -> tuple[LoadBalancerId, ...]:
        return tuple(dict.fromkeys((*await super().list_owned(), *self.port_owners.values())))

    async def release_owned(self, load_balancer_id: LoadBalancerId) -> None:
        await super().release_owned(load_balancer_id)
        for port_id in [x for x, owner in self.port_owners.items() if owner == load_balancer_id]:
            del self.ports[port_id], self.port_owners[port_id]
            self.groups.discard(port_id)

    def _free(self, subnet: Subnet) -> PortAddress:
        if subnet.id in self.full:
            raise NoFreeAddress(subnet.id, f"subnet {subnet.id} has no free address; release some")
        network = ip_network(subnet.cidr)
        # From the end, so that VIPs, which are given from the start, never meet them.
        taken = {x.address for port in self.ports.values() for x in port.addresses}
        last = int(network.network_address) + min(network.num_addresses, 256) - 2
        for number in range(last, last - 200, -1):
            address = type(network.network_address)(number)
            if str(address) not in taken and str(address) not in self.vips:
                return PortAddress(address=str(address), prefix_length=network.prefixlen, subnet_id=subnet.id)
        raise NoFreeAddress(subnet.id, f"subnet {subnet.id} has no free address; release some")


def _parse(address: str) -> IPv4Address | IPv6Address:
    try:
        return ip_address(address)
    except ValueError as error:
        raise Invalid("vip_address", f"{address!r} is not an IP address") from error
