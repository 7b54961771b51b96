"""What the driver `neutron` does is really so, looked up with openstacksdk behind its back; and its death between any two
calls to OpenStack leaks nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest
from msgspec.structs import replace

from frontinus.drivers.network.neutron.driver import NeutronNetwork
from frontinus.model.belongings import OwnerKind
from frontinus.model.errors import Conflict, Invalid, Retry
from frontinus.model.ids import AmphoraId, LoadBalancerId, PortId, ProjectId, SubnetId, new_id
from frontinus.model.network import Reference, ReferenceKind, Tenant, VipRequest
from frontinus.model.ports import Adoptee, AllowedTraffic, PortPurpose, PortRequest, TrafficProtocol
from frontinus.model.secrets import Secret
from frontinus.model.tree import AdditionalVip, Vip
from frontinus.testing.faults import Killed

from tests import openstack_lab
from tests.integration.drivers.network.conftest import Site
from tests.openstack_lab import Deadly, over

pytestmark = [
    pytest.mark.integration,
    pytest.mark.long,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
    pytest.mark.usefixtures("tidy"),
]

HTTP = AllowedTraffic(TrafficProtocol.TCP, 80)
FROM_OFFICE = AllowedTraffic(TrafficProtocol.UDP, 53, "198.51.100.0/24")
VRRP = AllowedTraffic(TrafficProtocol.VRRP, None, "10.20.0.9/32")


@pytest.fixture
async def driver(site: Site) -> AsyncIterator[NeutronNetwork]:
    made = site.driver()
    yield made
    await made.close()


@pytest.fixture
async def load_balancer_id(driver: NeutronNetwork) -> AsyncIterator[LoadBalancerId]:
    """Whatever it holds is given back afterwards."""
    made = LoadBalancerId(new_id())
    yield made
    await driver.release_owned(made)


def amphora_port(site: Site, load_balancer_id: LoadBalancerId, **words: Any) -> PortRequest:
    wish: dict[str, Any] = {
        "amphora_id": AmphoraId(new_id()),
        "load_balancer_id": load_balancer_id,
        "project_id": site.project_id,
        "purpose": PortPurpose.VIP,
        "network_id": site.network_id,
        "subnet_ids": site.subnet_ids[:1],
    }
    return PortRequest(**{**wish, **words})


def rules_of(site: Site, port: Any) -> set[tuple[str, str | None, int | None, str | None]]:
    return {
        (x.ether_type, x.protocol, x.port_range_min, x.remote_ip_prefix)
        for group in port.security_group_ids
        for x in site.look.network.security_group_rules(security_group_id=group, direction="ingress")
    }


async def test_a_vip_is_a_port_in_its_tenants_project(
    driver: NeutronNetwork, site: Site, load_balancer_id: LoadBalancerId
) -> None:
    request = VipRequest(subnet_id=site.subnet_ids[0], address="10.20.0.77")
    given = await driver.allocate_vip(load_balancer_id, site.project_id, request)
    port = site.look.network.get_port(given.vip.port_id)
    assert port.project_id == site.project_id
    assert port.fixed_ips == [{"subnet_id": site.subnet_ids[0], "ip_address": "10.20.0.77"}]
    assert (port.name, port.device_id) == (f"octavia-lb-{load_balancer_id}", f"lb-{load_balancer_id}")
    assert (port.device_owner, port.is_admin_state_up, port.security_group_ids) == ("Octavia", False, [])
    assert set(port.tags) == {f"frontinus-{site.installation}", f"lb-{load_balancer_id}"}


async def test_an_amphoras_port_lets_in_what_is_asked_and_sends_as_the_vip(
    driver: NeutronNetwork, site: Site, load_balancer_id: LoadBalancerId
) -> None:
    request = amphora_port(site, load_balancer_id, vips=("10.20.0.77",), allowed=(HTTP, FROM_OFFICE, VRRP))
    made = await driver.create_port(request)
    port = site.look.network.get_port(made.id)
    assert port.project_id == openstack_lab.connect(openstack_lab.OURS).session.get_project_id()
    assert port.is_port_security_enabled
    assert [x["ip_address"] for x in port.allowed_address_pairs] == ["10.20.0.77"]
    assert rules_of(site, port) == {
        ("IPv4", "icmp", None, None),
        ("IPv6", "ipv6-icmp", None, None),
        ("IPv4", "tcp", 80, None),
        ("IPv6", "tcp", 80, None),
        ("IPv4", "udp", 53, "198.51.100.0/24"),
        ("IPv4", "112", None, "10.20.0.9/32"),
    }
    assert made.addresses[0].routes[0].destination == "10.99.0.0/16"
    assert (await driver.list_ports(request.amphora_id)) == (made,)


async def test_a_users_groups_and_policy_come_to_the_port_and_go_again(
    driver: NeutronNetwork, site: Site, load_balancer_id: LoadBalancerId
) -> None:
    network = site.look.network
    group = network.create_security_group(name="of-the-user", project_id=site.project_id)
    policy = network.create_qos_policy(name="of-the-user", project_id=site.project_id)
    amphora_id = AmphoraId(new_id())
    try:
        wish = amphora_port(site, load_balancer_id, amphora_id=amphora_id, allowed=(HTTP,))
        plain = await driver.create_port(wish)
        asked = amphora_port(
            site,
            load_balancer_id,
            amphora_id=amphora_id,
            allowed=(VRRP,),
            security_group_ids=(group.id,),
            qos_policy_id=policy.id,
        )
        dressed = await driver.create_port(asked)
        port = network.get_port(plain.id)
        assert (dressed.security_group_ids, dressed.qos_policy_id) == ((group.id,), policy.id)
        assert port.qos_policy_id == policy.id
        assert group.id in port.security_group_ids
        # The user's group says what comes in; only the other amphora's VRRP is ours.
        assert {x for x in rules_of(site, port) if x[1] != "any"} == {("IPv4", "112", None, "10.20.0.9/32")}
        await driver.create_port(wish)
        port = network.get_port(plain.id)
        assert port.qos_policy_id is None
        assert group.id not in port.security_group_ids
    finally:
        await driver.release_owned(load_balancer_id)
        network.delete_qos_policy(policy.id)
        network.delete_security_group(group.id)


async def test_a_port_that_a_user_brings_is_his_before_and_after(
    driver: NeutronNetwork, site: Site, load_balancer_id: LoadBalancerId
) -> None:
    network, other = site.look.network, LoadBalancerId(new_id())
    own = network.create_port(network_id=site.network_id, project_id=site.project_id, name="mine")
    try:
        request = VipRequest(port_id=PortId(own.id), subnet_id=SubnetId(own.fixed_ips[0]["subnet_id"]))
        given = await driver.allocate_vip(load_balancer_id, site.project_id, request)
        assert (given.port_owned, given.vip.port_id) == (False, own.id)
        assert given == await driver.allocate_vip(load_balancer_id, site.project_id, request)
        with pytest.raises(Invalid, match="is in use"):
            await driver.allocate_vip(other, site.project_id, request)
        with pytest.raises(Invalid, match="does not exist in the load balancer's project"):
            await driver.allocate_vip(other, ProjectId("0" * 32), request)
        assert load_balancer_id in await driver.list_owned()
        await driver.release_vip(load_balancer_id, given.vip, port_owned=False)
        port = network.get_port(own.id)
        assert (port.name, port.device_id, port.device_owner, port.tags) == ("mine", "", "", [])
        assert load_balancer_id not in await driver.list_owned()
    finally:
        network.delete_port(own.id)


async def test_a_floating_ip_outlives_every_amphora(
    driver: NeutronNetwork, site: Site, load_balancer_id: LoadBalancerId
) -> None:
    network = site.look.network
    public = network.find_network("public", ignore_missing=True)
    assert public is not None
    given = await driver.allocate_vip(load_balancer_id, site.project_id, VipRequest(subnet_id=site.subnet_ids[0]))
    router = network.create_router(
        name="r", project_id=site.project_id, external_gateway_info={"network_id": public.id}
    )
    on_first = [{"subnet_id": site.subnet_ids[0]}]
    inside = network.create_port(network_id=site.network_id, project_id=site.project_id, fixed_ips=on_first)
    network.add_interface_to_router(router, port=inside.id)
    floating = network.create_ip(floating_network_id=public.id, project_id=site.project_id, port_id=given.vip.port_id)
    try:
        for _ in range(2):
            request = amphora_port(site, load_balancer_id, vips=(given.vip.address,))
            made = await driver.create_port(request)
            held = await driver.allocate_vip(
                load_balancer_id,
                site.project_id,
                VipRequest(subnet_id=given.vip.subnet_id, address=given.vip.address),
            )
            assert held == given
            await driver.delete_port(request.amphora_id, made.id)
        after = network.get_ip(floating.id)
        assert (after.port_id, after.fixed_ip_address) == (given.vip.port_id, given.vip.address)
    finally:
        network.delete_ip(floating.id)
        network.remove_interface_from_router(router, port=inside.id)
        network.delete_router(router.id)


async def test_the_group_of_a_port_that_somebody_removed_is_found_and_goes(
    driver: NeutronNetwork, site: Site, load_balancer_id: LoadBalancerId
) -> None:
    network = site.look.network

    def groups() -> set[str]:
        return {x.name for x in network.security_groups() if site.installation in (x.description or "")}

    made = [await driver.create_port(amphora_port(site, load_balancer_id, allowed=(HTTP,))) for _ in range(4)]
    kept, *lost = made
    for port in lost:
        network.delete_port(port.id)
    found = [x for x in await driver.list_belongings() if x.owner.kind is OwnerKind.NOBODY]
    assert {x.name.split()[1] for x in found} == {f"frontinus-{x.id}" for x in lost}
    (first,) = [x for x in found if x.name.endswith(lost[0].id)]
    await driver.discard(first)
    await driver.delete_port(lost[1].amphora_id, lost[1].id)
    assert groups() == {f"frontinus-{x.id}" for x in (kept, lost[2])}
    await driver.release_owned(load_balancer_id)
    assert groups() == set()


async def test_a_group_for_management_that_is_gone_is_not_the_tenants_fault(
    site: Site, load_balancer_id: LoadBalancerId
) -> None:
    groups = site.settings(management_security_groups=(new_id(),))
    wish = amphora_port(site, load_balancer_id, purpose=PortPurpose.MANAGEMENT, network_id=None, subnet_ids=())
    driver = NeutronNetwork(groups)
    with pytest.raises(Retry) as caught:
        await driver.create_port(wish)
    await driver.close()
    assert caught.value.code == "management-network"


@pytest.fixture
def strangers(site: Site) -> Iterator[dict[ReferenceKind, str]]:
    """Things of another project, one of each kind."""
    look = site.look
    project = look.create_project(f"other-{site.installation}", domain_id="default")
    network = look.network.create_network(name="other", project_id=project.id)
    subnet = look.network.create_subnet(network_id=network.id, project_id=project.id, cidr="10.40.0.0/24", ip_version=4)
    port = look.network.create_port(network_id=network.id, project_id=project.id)
    group = look.network.create_security_group(name="other", project_id=project.id)
    policy = look.network.create_qos_policy(name="other", project_id=project.id)
    yield {
        ReferenceKind.NETWORK: network.id,
        ReferenceKind.SUBNET: subnet.id,
        ReferenceKind.PORT: port.id,
        ReferenceKind.SECURITY_GROUP: group.id,
        ReferenceKind.QOS_POLICY: policy.id,
    }
    look.network.delete_port(port.id)
    look.network.delete_network(network.id)
    for each in list(look.network.security_groups(project_id=project.id)):
        look.network.delete_security_group(each.id)
    look.network.delete_qos_policy(policy.id)
    look.delete_project(project.id)


@pytest.mark.parametrize("by_token", [pytest.param(True, id="own token"), pytest.param(False, id="no token")])
async def test_a_tenant_may_use_what_is_his_and_nothing_of_anothers(
    by_token: bool, driver: NeutronNetwork, site: Site, strangers: dict[ReferenceKind, str]
) -> None:
    token = openstack_lab.connect(openstack_lab.TENANT).session.get_token()
    assert token is not None
    tenant = Tenant(project_id=site.project_id, token=Secret(token) if by_token else None)
    shared = site.look.network.find_network("tenant-net", ignore_missing=True)
    assert shared is not None
    his = [
        Reference(kind=ReferenceKind.NETWORK, id=site.network_id, field="a"),
        Reference(kind=ReferenceKind.SUBNET, id=site.subnet_ids[0], field="b"),
        Reference(kind=ReferenceKind.NETWORK, id=shared.id, field="c"),
        Reference(kind=ReferenceKind.SUBNET, id=shared.subnet_ids[0], field="d"),
    ]
    await driver.require_access(tenant, his)
    for kind, object_id in (*strangers.items(), (ReferenceKind.SUBNET, new_id())):
        with pytest.raises(Invalid, match="may not use it") as raised:
            await driver.require_access(tenant, [*his, Reference(kind=kind, id=object_id, field="the.field")])
        assert raised.value.field == "the.field"


async def test_a_port_that_is_brought_keeps_what_it_has_and_tells_its_policy(
    driver: NeutronNetwork, site: Site, load_balancer_id: LoadBalancerId
) -> None:
    network = site.look.network
    policy = network.create_qos_policy(name="of-the-user", project_id=site.project_id)
    own = network.create_port(
        network_id=site.network_id,
        project_id=site.project_id,
        name="of-the-user",
        fixed_ips=[{"subnet_id": site.subnet_ids[0]}],
        qos_policy_id=policy.id,
    )
    try:
        given = await driver.allocate_vip(load_balancer_id, site.project_id, VipRequest(port_id=PortId(own.id)))
        assert (given.port_owned, given.qos_policy_id) == (False, policy.id)
        again = await driver.allocate_vip(load_balancer_id, site.project_id, VipRequest(port_id=PortId(own.id)))
        assert again == given, "through failovers it is the same port, with whatever floating IP is on it"
        await driver.release_vip(load_balancer_id, given.vip, port_owned=given.port_owned)
        kept = network.get_port(own.id)
        was = own.name, own.mac_address, own.fixed_ips, own.qos_policy_id, sorted(own.security_group_ids)
        assert was == (kept.name, kept.mac_address, kept.fixed_ips, kept.qos_policy_id, sorted(kept.security_group_ids))
        assert (kept.device_id, kept.device_owner, kept.tags) == ("", "", [])
    finally:
        network.delete_port(own.id)
        network.delete_qos_policy(policy.id)


@dataclass
class Octavias:
    """An amphora as an Octavia hangs it on networks: a port that Nova made for management, and one for its VIPs, with the
    load balancer's group; and the VIP's."""

    adoptee: Adoptee
    vip: Vip
    group: str
    vrrp: str


@pytest.fixture
def octavias(site: Site, load_balancer_id: LoadBalancerId) -> Iterator[Octavias]:
    ours = openstack_lab.connect(openstack_lab.OURS)
    mine, network = ours.session.get_project_id(), site.look.network
    amphora_id, server = AmphoraId(new_id()), new_id()
    management = network.find_network("lb-mgmt-net", ignore_missing=False)
    group = network.create_security_group(name=f"lb-{load_balancer_id}", project_id=mine)
    common = {"project_id": mine, "device_id": server, "device_owner": "compute:nova"}
    by_nova = network.create_port(network_id=management.id, **common)
    vrrp = network.create_port(
        network_id=site.network_id,
        name=f"octavia-lb-vrrp-{amphora_id}",
        fixed_ips=[{"subnet_id": site.subnet_ids[0]}],
        security_group_ids=[group.id],
        **common,
    )
    base = network.create_port(
        network_id=site.network_id,
        name=f"octavia-lb-{load_balancer_id}",
        project_id=site.project_id,
        fixed_ips=[{"subnet_id": site.subnet_ids[0]}],
        device_id=f"lb-{load_balancer_id}",
        device_owner="Octavia",
        security_group_ids=[group.id],
    )
    vip = Vip(
        address=base.fixed_ips[0]["ip_address"],
        subnet_id=site.subnet_ids[0],
        network_id=site.network_id,
        port_id=PortId(base.id),
    )
    adoptee = Adoptee(
        amphora_id=amphora_id,
        compute_id=server,
        management_address=by_nova.fixed_ips[0]["ip_address"],
        vip_port_id=PortId(vrrp.id),
        subnets=((site.network_id, (site.subnet_ids[0],)),),
    )
    yield Octavias(adoptee, vip, group.id, vrrp.id)
    for port in (by_nova, vrrp, base):
        network.delete_port(port.id)
    network.delete_security_group(group.id)


async def test_the_ports_of_an_octavias_amphora_are_found_as_they_are(
    driver: NeutronNetwork, site: Site, octavias: Octavias
) -> None:
    management, vip = await driver.find_ports(octavias.adoptee)
    assert (management.purpose, vip.purpose, vip.id) == (PortPurpose.MANAGEMENT, PortPurpose.VIP, octavias.vrrp)
    assert management.addresses[0].address == octavias.adoptee.management_address
    assert await driver.list_port_owners() == (), "Octavia may still run: nothing of it is ours to sweep"
    for wrong, field in (
        ({"compute_id": new_id()}, "compute_id"),
        ({"management_address": "10.0.0.1"}, "management_address"),
        ({"vip_port_id": PortId(new_id())}, "port"),
        ({"subnets": ((site.network_id, site.subnet_ids[:2]),)}, "subnet_id"),
    ):
        with pytest.raises(Invalid) as refused:
            await driver.find_ports(replace(octavias.adoptee, **wrong))
        assert refused.value.field == field


async def test_the_first_change_takes_an_octavias_port_over_and_the_end_leaves_nothing(
    driver: NeutronNetwork, site: Site, load_balancer_id: LoadBalancerId, octavias: Octavias
) -> None:
    network, (_, found) = site.look.network, await driver.find_ports(octavias.adoptee)
    wish = amphora_port(
        site,
        load_balancer_id,
        amphora_id=octavias.adoptee.amphora_id,
        port_id=found.id,
        allowed=(HTTP,),
        vips=(octavias.vip.address,),
    )
    taken = await driver.create_port(wish)
    assert (taken.id, taken.mac, taken.addresses) == (found.id, found.mac, found.addresses)
    assert await driver.create_port(wish) == taken
    assert [x for x in await driver.list_ports(octavias.adoptee.amphora_id) if x.id == found.id] == [taken]
    assert octavias.adoptee.amphora_id in await driver.list_port_owners()
    port = network.get_port(found.id)
    assert octavias.group not in port.security_group_ids
    assert ("IPv4", "tcp", 80, None) in rules_of(site, port)
    await driver.delete_port(octavias.adoptee.amphora_id, found.id)
    await driver.release_vip(load_balancer_id, octavias.vip, port_owned=True)
    left = [x.id for x in network.ports(network_id=site.network_id) if not x.device_owner.startswith("network:")]
    assert left == []
    assert list(network.security_groups(name=f"lb-{load_balancer_id}")) == []


async def test_all_vips_of_an_octavias_load_balancer_stay_on_its_port(
    driver: NeutronNetwork, site: Site, load_balancer_id: LoadBalancerId
) -> None:
    network = site.look.network
    base = network.create_port(
        network_id=site.network_id,
        name=f"octavia-lb-{load_balancer_id}",
        project_id=site.project_id,
        fixed_ips=[{"subnet_id": x} for x in site.subnet_ids[:2]],
        device_id=f"lb-{load_balancer_id}",
        device_owner="Octavia",
    )
    address = {x["subnet_id"]: x["ip_address"] for x in base.fixed_ips}
    first, second = site.subnet_ids[:2]
    request = VipRequest(
        subnet_id=first,
        address=address[first],
        additional=(AdditionalVip(address=address[second], subnet_id=second),),
    )
    held = await driver.allocate_vip(load_balancer_id, site.project_id, request)
    assert (held.vip.port_id, held.additional[0].port_id) == (base.id, base.id)
    assert (held.vip.address, held.additional[0].address) == (address[first], address[second])
    assert [x.id for x in site.ports()] == [base.id]  # type: ignore[attr-defined]
    await driver.release_vip(load_balancer_id, held.vip, port_owned=True, additional=held.additional)
    assert site.ports() == []


async def test_an_octavias_port_that_was_never_changed_goes_with_its_amphora(
    driver: NeutronNetwork, site: Site, octavias: Octavias
) -> None:
    (listed,) = await driver.list_ports(octavias.adoptee.amphora_id)
    assert listed.id == octavias.vrrp
    await driver.delete_port(AmphoraId(new_id()), listed.id)
    assert site.look.network.find_port(octavias.vrrp) is not None, "that was another's"
    await driver.delete_port(octavias.adoptee.amphora_id, listed.id)
    assert site.look.network.find_port(octavias.vrrp) is None


async def test_a_token_that_is_not_valid_is_not_an_outage(driver: NeutronNetwork, site: Site) -> None:
    tenant = Tenant(project_id=site.project_id, token=Secret("stale"))
    with pytest.raises(Invalid, match="does not accept the token"):
        await driver.require_access(
            tenant, [Reference(kind=ReferenceKind.SUBNET, id=site.subnet_ids[0], field="vip_subnet_id")]
        )


class _Life:
    """What a load balancer asks of its network from its create to its end, with a user's port as a further VIP, and for a while
    a user's group and policy."""

    def __init__(self, site: Site, brought: PortId, group: str, policy: str) -> None:
        self.group, self.policy = group, policy
        self.site, self.id = site, LoadBalancerId(new_id())
        self.amphora_id = AmphoraId(f"{uuid4()}")
        further = AdditionalVip(address="", subnet_id=site.subnet_ids[1], port_id=brought)
        self.request = VipRequest(subnet_id=site.subnet_ids[0], additional=(further,))

    async def build(self, driver: NeutronNetwork) -> None:
        self.given = await driver.allocate_vip(self.id, self.site.project_id, self.request)
        mine = amphora_port(
            self.site, self.id, amphora_id=self.amphora_id, vips=(self.given.vip.address,), allowed=(HTTP,)
        )
        dressed = replace(mine, allowed=(VRRP,), security_group_ids=(self.group,), qos_policy_id=self.policy)
        for wish in (mine, dressed, replace(mine, allowed=(FROM_OFFICE,))):
            self.port = await driver.create_port(wish)

    async def end(self, driver: NeutronNetwork) -> None:
        for port in await driver.list_ports(self.amphora_id):
            await driver.delete_port(self.amphora_id, port.id)
        await driver.release_vip(
            self.id, self.given.vip, port_owned=self.given.port_owned, additional=self.given.additional
        )


@pytest.mark.timeout(1800)
async def test_death_between_any_two_calls_leaks_nothing_and_converges(site: Site) -> None:
    network = site.look.network
    own = network.create_port(
        network_id=site.network_id, project_id=site.project_id, fixed_ips=[{"subnet_id": site.subnet_ids[1]}]
    )
    group = network.create_security_group(name="of-the-user", project_id=site.project_id)
    policy = network.create_qos_policy(name="of-the-user", project_id=site.project_id)
    survivor = site.driver()
    try:
        counting = Deadly(0)
        first = NeutronNetwork(site.settings(), over(counting))
        whole = _Life(site, PortId(own.id), group.id, policy.id)
        await whole.build(first)
        await whole.end(first)
        await first.close()
        deaths = 0
        for fatal in range(1, counting.made + 1):
            life, deadly = _Life(site, PortId(own.id), group.id, policy.id), Deadly(fatal)
            victim = NeutronNetwork(site.settings(), over(deadly))
            try:
                await life.build(victim)
                await life.end(victim)
            except Killed:
                deaths += 1
            await victim.close()
            if fatal % 2:
                # Nobody recorded it: the sweeper finds all of it by what it is called.
                if await _is_left(site, life):
                    assert life.id in await survivor.list_owned(), f"after call {fatal} nobody would find it"
                await survivor.release_owned(life.id)
            else:
                await life.build(survivor)
                again = life.given, life.port
                await life.build(survivor)
                assert (life.given, life.port) == again, f"after call {fatal} it does not settle"
                await life.end(survivor)
            assert not await _is_left(site, life), f"after call {fatal} something is left"
        assert deaths == counting.made
    finally:
        await survivor.close()
        network.delete_port(own.id)
        network.delete_qos_policy(policy.id)
        network.delete_security_group(group.id)


async def _is_left(site: Site, life: _Life) -> list[str]:
    network = site.look.network
    found = [x for x in network.ports(network_id=site.network_id) if not x.device_owner.startswith("network:")]
    left = [x.name or x.id for x in found if life.id in f"{x.device_id} {x.description} {' '.join(x.tags)}"]
    return left + [x.name for x in network.security_groups() if life.id in (x.description or "")]


async def test_two_load_balancers_at_one_address_of_a_full_request(
    driver: NeutronNetwork, site: Site, load_balancer_id: LoadBalancerId
) -> None:
    """The further VIP cannot be had: the first is given back, and what was there before is kept."""
    asked = VipRequest(subnet_id=site.subnet_ids[0])
    given = await driver.allocate_vip(load_balancer_id, site.project_id, asked)
    other = site.look.network.create_port(
        network_id=site.network_id, fixed_ips=[{"subnet_id": site.subnet_ids[1], "ip_address": "10.21.0.50"}]
    )
    try:
        further = AdditionalVip(address="10.21.0.50", subnet_id=site.subnet_ids[1])
        with pytest.raises(Conflict, match=r"10\.21\.0\.50"):
            await driver.allocate_vip(
                load_balancer_id, site.project_id, VipRequest(subnet_id=asked.subnet_id, additional=(further,))
            )
        assert site.look.network.get_port(given.vip.port_id).id == given.vip.port_id
    finally:
        site.look.network.delete_port(other.id)
