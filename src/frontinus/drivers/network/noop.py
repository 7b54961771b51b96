"""A network driver that owns no addresses: every answer is computed from the question, and nothing is kept.

For the start of a driver of your own, and to measure the API alone. Addresses are of 10.0.0.0/8 unless one is asked
for; nobody checks that they are free, so two load balancers can be told the same one (about 3 pairs in 10,000 load
balancers)."""

from __future__ import annotations

from hashlib import sha256
from ipaddress import IPv4Address, ip_address
from typing import ClassVar
from uuid import UUID, uuid5

from frontinus.drivers.network.interface import NetworkDriver
from frontinus.model.capabilities import NETWORK_FEATURES
from frontinus.model.errors import Invalid
from frontinus.model.ids import LoadBalancerId, NetworkId, PortId, ProjectId, SubnetId
from frontinus.model.network import AllocatedVip, Subnet, VipRequest
from frontinus.model.tree import AdditionalVip, Vip

_IDS = UUID("3d0c7a4e-51f2-4a6b-8c11-6f0e9d2b7a55")
_FIRST = int(IPv4Address("10.0.0.0"))

NOOP_SUBNET = SubnetId("00000000-0000-4000-8000-000000000001")
"""The one that is listed. Any other id is answered for as well."""


class NoopNetwork(NetworkDriver):
    """See drivers/network/interface.py. Does nothing, successfully."""

    name: ClassVar[str] = "noop"
    features: ClassVar[frozenset[str]] = NETWORK_FEATURES

    async def allocate_vip(
        self, load_balancer_id: LoadBalancerId, project_id: ProjectId, request: VipRequest
    ) -> AllocatedVip:
        if request.port_id is None and request.network_id is None and request.subnet_id is None:
            raise Invalid("vip_subnet_id", "name a port, a network or a subnet")
        subnet_id = request.subnet_id or SubnetId(str(uuid5(_IDS, f"subnet of {request.network_id}")))
        vip = Vip(
            address=_some_address(load_balancer_id) if request.address is None else _parse(request.address),
            subnet_id=subnet_id,
            network_id=request.network_id or _network_of(subnet_id),
            port_id=request.port_id or PortId(str(uuid5(_IDS, f"port of {load_balancer_id}"))),
        )
        additional = tuple(_further(load_balancer_id, x) for x in request.additional)
        return AllocatedVip(vip=vip, port_owned=request.port_id is None, additional=additional)

    async def preview_vip(
        self, load_balancer_id: LoadBalancerId, project_id: ProjectId, request: VipRequest
    ) -> AllocatedVip:
        return await self.allocate_vip(load_balancer_id, project_id, request)

    async def release_vip(
        self,
        load_balancer_id: LoadBalancerId,
        vip: Vip,
        *,
        port_owned: bool,
        additional: tuple[AdditionalVip, ...] = (),
    ) -> None:
        return

    async def release_owned(self, load_balancer_id: LoadBalancerId) -> None:
        return

    async def get_subnet(self, subnet_id: SubnetId) -> Subnet:
        return Subnet(id=subnet_id, network_id=_network_of(subnet_id), name="noop", cidr="10.0.0.0/8")

    async def list_subnets(self) -> tuple[Subnet, ...]:
        return (await self.get_subnet(NOOP_SUBNET),)

    async def list_owned(self) -> tuple[LoadBalancerId, ...]:
        return ()


def _further(load_balancer_id: LoadBalancerId, asked: AdditionalVip) -> AdditionalVip:
    name = f"{load_balancer_id} on {asked.subnet_id}"
    return AdditionalVip(
        address=_parse(asked.address) if asked.address else _some_address(name),
        subnet_id=asked.subnet_id,
        port_id=asked.port_id or PortId(str(uuid5(_IDS, f"port of {name}"))),
        port_owned=asked.port_id is None,
    )


def _network_of(subnet_id: SubnetId) -> NetworkId:
    return NetworkId(str(uuid5(_IDS, f"network of {subnet_id}")))


def _some_address(owner: str) -> str:
    return str(IPv4Address(_FIRST + int.from_bytes(sha256(owner.encode()).digest()[:3])))


def _parse(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError as error:
        raise Invalid("vip_address", f"{text!r} is not an IP address") from error
