"""Servers of the lab's Nova under an installation of this run's own, and ports of its Neutron for them. Nothing of it outlives
the run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from openstack.connection import Connection

from frontinus.drivers.compute.nova.driver import NovaCompute
from frontinus.drivers.compute.nova.settings import NovaSettings
from frontinus.drivers.openstack.settings import OpenStackSettings
from frontinus.model.ids import AmphoraId, NetworkId, PortId, SubnetId
from frontinus.model.placement import Placement
from frontinus.model.ports import Port, PortAddress, PortPurpose

from tests import openstack_lab
from tests.openstack_makes import another_make

IMAGE_TAG, FLAVOR, MANAGEMENT_NETWORK = "fake-image", "lb.tiny", "lb-mgmt-net"


@dataclass
class NovaSite:
    """`look` sees our account's project with the driver's rights, `admin` everything; both go past the driver."""

    look: Connection
    admin: Connection
    installation: str
    image_owner: str
    network_id: str
    ports: dict[tuple[AmphoraId, PortPurpose], Port] = field(default_factory=dict)

    def settings(self, **others: Any) -> NovaSettings:
        words: dict[str, Any] = {
            "flavor": FLAVOR,
            "image_tag": IMAGE_TAG,
            "image_owner": self.image_owner,
            "build_timeout": timedelta(seconds=180),
            "openstack": OpenStackSettings(
                cloud=openstack_lab.OURS, installation=self.installation, timeout=timedelta(seconds=60)
            ),
        }
        return NovaSettings(**{**words, **others})

    def driver(self, **others: Any) -> NovaCompute:
        return NovaCompute(self.settings(**others))

    def port(self, amphora_id: AmphoraId, purpose: PortPurpose) -> Port:
        """The same for the same amphora and purpose."""
        if (amphora_id, purpose) not in self.ports:
            made = self.look.network.create_port(
                network_id=self.network_id, name=f"{self.installation}-{amphora_id}-{purpose}"
            )
            address = made.fixed_ips[0]
            self.ports[amphora_id, purpose] = Port(
                id=PortId(made.id),
                amphora_id=amphora_id,
                purpose=purpose,
                network_id=NetworkId(made.network_id),
                mac=made.mac_address,
                mtu=1500,
                addresses=(
                    PortAddress(
                        address=address["ip_address"], prefix_length=24, subnet_id=SubnetId(address["subnet_id"])
                    ),
                ),
                attachment="neutron",
            )
        return self.ports[amphora_id, purpose]

    def servers(self, amphora_id: AmphoraId | None = None) -> list[Any]:
        """What is really there of this amphora; without one, of all that carry this run's tag."""
        if amphora_id is None:
            return list(self.look.compute.servers(tags=f"frontinus-{self.installation}"))
        return [x for x in self.look.compute.servers() if x.name == f"amphora-{amphora_id}"]

    def hosts(self, amphora_ids: Iterable[AmphoraId]) -> set[str]:
        """Where their servers are."""
        found = [server for x in amphora_ids for server in self.servers(x)]
        return {self.admin.compute.get_server(x.id).compute_host for x in found}

    def groups(self) -> list[Any]:
        return [x for x in self.look.compute.server_groups() if self.installation in x.name]


@pytest.fixture(scope="session")
def nova_site() -> Iterator[NovaSite]:
    admin, look = openstack_lab.connect(openstack_lab.ADMIN), openstack_lab.connect(openstack_lab.OURS)
    image = next(iter(look.image.images(tag=IMAGE_TAG)))
    network = look.network.find_network(MANAGEMENT_NETWORK, ignore_missing=False)
    site = NovaSite(look, admin, f"t{uuid4().hex[:8]}", image.owner, network.id)
    yield site
    for server in site.servers():
        look.compute.delete_server(server.id)
    for port in list(look.network.ports(network_id=network.id)):
        if port.name.startswith(f"{site.installation}-"):
            look.network.delete_port(port.id)
    for group in site.groups():
        look.compute.delete_server_group(group.id)


@pytest.fixture(scope="session")
def other_make(nova_site: NovaSite) -> Iterator[Placement]:
    with another_make(nova_site.admin, f"{nova_site.installation}-other", IMAGE_TAG) as make:
        yield make


@pytest.fixture
def tidy(nova_site: NovaSite) -> Iterator[None]:
    """Fails a test that leaves a server or a server group behind; its ports go."""
    yield
    for port in nova_site.ports.values():
        nova_site.look.network.delete_port(port.id)
    nova_site.ports.clear()
    assert [x.name for x in nova_site.servers()] == []
    assert [x.name for x in nova_site.groups()] == []
