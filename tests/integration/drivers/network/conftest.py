"""A network of the lab's tenant, and drivers for it. What the tests make carries a word of this run, and is gone after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from uuid import uuid4

import pytest
from openstack.connection import Connection

from frontinus.drivers.network.neutron.driver import NeutronNetwork, NeutronSettings
from frontinus.drivers.openstack.settings import OpenStackSettings
from frontinus.model.ids import NetworkId, ProjectId, SubnetId

from tests import openstack_lab


@dataclass(frozen=True)
class Site:
    """`look` is an administrator's own connection, by which tests see what is really there."""

    look: Connection
    installation: str
    project_id: ProjectId
    network_id: NetworkId
    subnet_ids: tuple[SubnetId, ...]
    """Two of IPv4, one of IPv6."""

    def settings(self, **others: object) -> NeutronSettings:
        return NeutronSettings(
            openstack=OpenStackSettings(cloud=openstack_lab.OURS, installation=self.installation),
            **others,  # type: ignore[arg-type]
        )

    def driver(self) -> NeutronNetwork:
        return NeutronNetwork(self.settings())

    def ports(self) -> list[object]:
        """Everything on the network but what Neutron itself has there."""
        found = self.look.network.ports(network_id=self.network_id)
        return [x for x in found if not x.device_owner.startswith("network:")]


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    look = openstack_lab.connect(openstack_lab.ADMIN)
    word = f"t{uuid4().hex[:8]}"
    project_id = openstack_lab.connect(openstack_lab.TENANT).session.get_project_id()
    assert project_id
    network = look.network.create_network(name=f"front-{word}", project_id=project_id)
    try:
        subnets = [
            look.network.create_subnet(
                network_id=network.id,
                project_id=project_id,
                name=f"{name}-{word}",
                cidr=cidr,
                ip_version=version,
                **more,
            )
            for name, cidr, version, more in (
                ("a4", "10.20.0.0/24", 4, {"host_routes": [{"destination": "10.99.0.0/16", "nexthop": "10.20.0.9"}]}),
                ("b4", "10.21.0.0/24", 4, {}),
                ("c6", "fd20::/64", 6, {"ipv6_address_mode": "dhcpv6-stateful"}),
            )
        ]
        yield Site(
            look,
            word,
            ProjectId(project_id),
            NetworkId(network.id),
            tuple(SubnetId(x.id) for x in subnets),
        )
    finally:
        _remove(look, network.id)


def _remove(look: Connection, network_id: str) -> None:
    for port in list(look.network.ports(network_id=network_id)):
        if not port.device_owner.startswith("network:"):
            look.network.delete_port(port.id)
    look.network.delete_network(network_id)


@pytest.fixture
def tidy(site: Site) -> Iterator[None]:
    """Fails a test that leaves a port or a security group behind, wherever that is."""
    yield
    network = site.look.network
    left = [x.name for x in site.ports()]  # type: ignore[attr-defined]
    left += [x.name for x in network.ports() if site.installation in (x.description or "")]
    left += [x.name for x in network.security_groups() if site.installation in (x.description or "")]
    assert left == []


@pytest.fixture
def factory(site: Site) -> Callable[[], NeutronNetwork]:
    return site.driver
