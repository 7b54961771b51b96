"""What a load balancer gets by its flavor and zone, and where its VIPs may be (behaviours.yaml vip_resolution)."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from frontinus.api.settings import ApiSettings
from frontinus.model.capabilities import NETWORK_FEATURES, Capabilities, with_compute, with_network
from frontinus.model.enums import Topology, VnicType
from frontinus.model.ids import NetworkId, PortId, SubnetId
from frontinus.model.network import Subnet
from frontinus.model.placement import MANAGEMENT_NETWORK, Placement
from frontinus.model.tree import Vip
from frontinus.testing.fake_network import FAKE_SUBNET, FAKE_SUBNET_V6

from tests.integration.api.world import EVERYTHING, SUBNET_ID, UNKNOWN, Answer, World

V6 = FAKE_SUBNET_V6.id
NETWORK = FAKE_SUBNET.network_id
POLICY = "5b0c7b5e-0000-4000-8000-0000000000fe"
OTHER = Subnet(
    id=SubnetId("5b0c7b5e-0000-4000-8000-000000000009"),
    network_id=NetworkId("5b0c7b5e-0000-4000-8000-00000000000a"),
    name="other",
    cidr="203.0.113.0/24",
)


async def create(world: World, **values: object) -> Answer:
    asked = {"vip_subnet_id": SUBNET_ID, **values}
    return await world.call(
        "POST", "loadbalancers", {"loadbalancer": {k: v for k, v in asked.items() if v is not None}}
    )


async def make(world: World, **values: object) -> Any:
    return (await create(world, **values)).one("loadbalancer")


def refused(answer: Answer, status: int, named: str) -> None:
    assert (answer.status, named in answer.fault) == (status, True), answer.body


# ---------------------------------------------------------------- flavors and zones


async def test_a_flavor_gives_the_size(world: World) -> None:
    flavor = await world.flavor(threads=4, max_connections=200_000, max_memory=1024)
    large = (await world.tree((await make(world, flavor_id=flavor))["id"])).load_balancer
    assert (large.threads, large.max_connections, large.max_memory) == (4, 200_000, 1024)
    plain = (await world.tree((await make(world))["id"])).load_balancer
    assert (plain.threads, plain.max_connections, plain.max_memory) == (None, None, None)


async def test_a_flavor_gives_memory_for_its_threads(world: World) -> None:
    """Refused where it is written, and where it is asked for when the driver came to need more."""
    enough = await world.flavor("enough", threads=8, max_memory=95)
    await world.register(replace(EVERYTHING, least_memory_mib=(32, 9)))
    body = {"name": "p", "provider_name": "amphora", "flavor_data": '{"threads": 8, "max_memory": 94}'}
    answer = await world.call("POST", "flavorprofiles", {"flavorprofile": body})
    refused(answer, 501, "94 MiB of max_memory are too few for 8 threads; this provider needs 95")
    assert (await make(world, flavor_id=enough))["flavor_id"] == enough
    await world.register(replace(EVERYTHING, least_memory_mib=(40, 9)))
    refused(await create(world, flavor_id=enough), 501, "flavor_id")


async def test_a_flavor_gives_topology_and_port_and_is_then_in_use(world: World) -> None:
    flavor = await world.flavor(loadbalancer_topology="ACTIVE_STANDBY", sriov_vip=True)
    made = await make(world, flavor_id=flavor)
    assert (made["flavor_id"], made["vip_vnic_type"], made["provider"]) == (flavor, "direct", "amphora")
    assert (await world.tree(made["id"])).load_balancer.topology is Topology.ACTIVE_STANDBY
    assert (await make(world))["vip_vnic_type"] == "normal"
    listed = (await world.call("GET", f"loadbalancers?vip_vnic_type=direct&flavor_id={flavor}")).json["loadbalancers"]
    assert [x["id"] for x in listed] == [made["id"]]
    assert (await world.call("DELETE", f"flavors/{flavor}")).status == 409


async def test_a_zone_is_named_and_is_then_in_use(world: World) -> None:
    await world.availability_zone("east", compute_zone="a")
    assert (await make(world, availability_zone="east"))["availability_zone"] == "east"
    assert (await world.call("DELETE", "availabilityzones/east")).status == 409


async def test_flavor_and_zone_say_how_amphorae_are_made(world: World) -> None:
    flavor = await world.flavor(compute_flavor="lb.huge", amp_image_tag="tested")
    await world.availability_zone("east", compute_zone="a", management_network=OTHER.network_id)
    both = await make(world, flavor_id=flavor, availability_zone="east")
    made = (await world.tree(both["id"])).load_balancer.placement
    assert made == Placement(
        compute_flavor="lb.huge", amp_image_tag="tested", compute_zone="a", management_network=OTHER.network_id
    )
    assert (await world.tree((await make(world))["id"])).load_balancer.placement is None
    only_size = await world.flavor("size", threads=2)
    assert (await world.tree((await make(world, flavor_id=only_size))["id"])).load_balancer.placement is None


@pytest.mark.parametrize(
    "path,data,able",
    [
        pytest.param("flavorprofiles", "flavor_data", {"compute_flavor", "amp_image_tag"}, id="flavor"),
        pytest.param(
            "availabilityzoneprofiles",
            "availability_zone_data",
            {"compute_zone", "volume_zone", "management_network"},
            id="zone",
        ),
    ],
)
async def test_only_what_the_drivers_honour_is_taken_and_listed(
    world: World, path: str, data: str, able: set[str]
) -> None:
    """What a compute and a network driver lack is refused by name; a profile with it is not even written."""
    amphora = replace(EVERYTHING, flavor_keys=frozenset(), availability_zone_keys=frozenset())
    listing = "flavor_capabilities" if "flavor" in path else "availability_zone_capabilities"
    for word in sorted(able):
        others = able - {word}
        network_features = NETWORK_FEATURES | (others & {MANAGEMENT_NETWORK})
        await world.register(with_compute(with_network(amphora, network_features), frozenset(others)))
        listed = (await world.call("GET", f"providers/amphora/{listing}")).json[listing]
        assert {x["name"] for x in listed} == others
        for name in sorted(able):
            body = {"name": "p", "provider_name": "amphora", data: json.dumps({name: "x"})}
            answer = await world.call("POST", path, {path[:-1].replace("availabilityzone", "availability_zone_"): body})
            if name == word:
                refused(answer, 501, name)
            else:
                assert answer.status == 201, answer.body


@pytest.mark.parametrize("field, path", [("flavor_id", "flavors"), ("availability_zone", "availabilityzones")])
async def test_unknown_and_disabled_choices_are_refused(world: World, field: str, path: str) -> None:
    key = await (world.flavor() if field == "flavor_id" else world.availability_zone())
    refused(await create(world, **{field: UNKNOWN}), 400, field)
    one = "flavor" if field == "flavor_id" else "availability_zone"
    assert (await world.call("PUT", f"{path}/{key}", {one: {"enabled": False}})).status == 200
    refused(await create(world, **{field: key}), 400, "disabled")
    assert world.network.vips == {}


async def test_the_provider_is_that_of_the_flavor_unless_it_contradicts(world: World) -> None:
    await world.register(EVERYTHING, provider="acme")
    acme, amphora = await world.flavor("a", "acme"), await world.flavor("b", "amphora")
    await world.availability_zone("acme-zone", "acme")
    assert (await make(world, flavor_id=acme))["provider"] == "acme"
    assert (await make(world, flavor_id=acme, provider="acme"))["provider"] == "acme"
    assert (await make(world, flavor_id=amphora, provider="octavia"))["provider"] == "octavia", "another name of it"
    refused(await create(world, flavor_id=acme, provider="amphora"), 400, "provider")
    refused(await create(world, flavor_id=amphora, availability_zone="acme-zone"), 400, "provider")
    refused(await create(world, availability_zone="acme-zone"), 400, "provider")
    assert (await make(world, flavor_id=acme, availability_zone="acme-zone"))["provider"] == "acme"


async def test_data_are_judged_again_when_they_are_asked_for(world: World) -> None:
    """The profile was written when the driver could do more."""
    pair = await world.flavor("pair", loadbalancer_topology="ACTIVE_STANDBY")
    big = await world.flavor("big", compute_flavor="m1.huge")
    zone = await world.availability_zone("east", compute_zone="a")
    await world.register(replace(EVERYTHING, topologies=frozenset({Topology.SINGLE})))
    refused(await create(world, flavor_id=pair), 501, "ACTIVE_STANDBY")
    await world.register(replace(EVERYTHING, flavor_keys=frozenset(), availability_zone_keys=frozenset()))
    refused(await create(world, flavor_id=big), 501, "compute_flavor")
    refused(await create(world, availability_zone=zone), 501, "compute_zone")
    assert world.network.vips == {}


async def test_members_get_direct_ports_where_the_flavor_allows_it(world: World) -> None:
    flavor = await world.flavor(allow_member_sriov=True)
    member = {"address": "192.0.2.1", "protocol_port": 80, "request_sriov": True}
    pools = [{"name": "p", "protocol": "HTTP", "lb_algorithm": "ROUND_ROBIN", "members": [member]}]
    refused(await create(world, pools=pools), 400, "request_sriov")
    whole = await make(world, flavor_id=flavor, pools=pools)
    assert whole["pools"][0]["members"][0]["vnic_type"] == "direct"
    pool = whole["pools"][0]["id"]
    made = await world.make("member", pool=pool, address="192.0.2.2", protocol_port=80, request_sriov=True)
    assert made["vnic_type"] == "direct"
    plain = await world.make("member", pool=pool, address="192.0.2.3", protocol_port=80, request_sriov=False)
    assert plain["vnic_type"] == "normal"

    async def batch(*hosts: int) -> Answer:
        members = [{"address": f"192.0.2.{n}", "protocol_port": 80, "request_sriov": True} for n in hosts]
        return await world.call("PUT", f"pools/{pool}/members", {"members": members})

    assert (await batch(1, 2, 4)).status == 202
    tree = await world.tree(whole["id"])
    assert {x.vnic_type for x in tree.members if x.address != "192.0.2.3"} == {VnicType.DIRECT}

    other = await world.pool(await world.load_balancer())
    answer = await world.call("POST", f"pools/{other}/members", {"member": member})
    refused(answer, 400, "request_sriov")
    refused(await world.call("PUT", f"pools/{other}/members", {"members": [member]}), 400, "request_sriov")


async def test_a_batch_cannot_change_what_a_members_port_is(world: World) -> None:
    flavor = await world.flavor(allow_member_sriov=True)
    pool = await world.pool(await world.load_balancer(flavor_id=flavor))
    await world.member(pool, address="192.0.2.1", protocol_port=80)
    members = [{"address": "192.0.2.1", "protocol_port": 80, "request_sriov": True}]
    refused(await world.call("PUT", f"pools/{pool}/members", {"members": members}), 400, "request_sriov")


async def test_a_direct_port_has_no_security_groups(world: World) -> None:
    flavor = await world.flavor(sriov_vip=True)
    refused(await create(world, flavor_id=flavor, vip_sg_ids=[UNKNOWN]), 400, "vip_sg_ids")


# ---------------------------------------------------------------- networks


async def with_settings(database: Path, **values: Any) -> World:
    world = await World.open(database, settings=dataclasses.replace(ApiSettings(), **values))
    world.network.subnets = (FAKE_SUBNET, FAKE_SUBNET_V6, OTHER)
    return world


@pytest.fixture
async def picky(database: Path) -> AsyncIterator[World]:
    """Where VIPs may be on the fake network only."""
    world = await with_settings(database, valid_vip_networks=(NETWORK,))
    yield world
    await world.close()


async def test_vips_are_on_valid_networks_only(picky: World) -> None:
    port = PortId("5b0c7b5e-0000-4000-8000-0000000000ff")
    vip = Vip(address="203.0.113.7", subnet_id=OTHER.id, network_id=OTHER.network_id, port_id=port)
    picky.network.brought_ports = {port: vip}
    for asked in ({"vip_subnet_id": OTHER.id}, {"vip_network_id": OTHER.network_id, "vip_subnet_id": None}):
        refused(await create(picky, **asked), 400, OTHER.network_id)
    refused(await create(picky, vip_subnet_id=None, vip_port_id=port), 400, OTHER.network_id)
    assert picky.network.vips == {}
    assert (await create(picky)).status == 201
    await picky.availability_zone("far", valid_vip_networks=[OTHER.network_id])
    assert (await create(picky, vip_subnet_id=OTHER.id, availability_zone="far")).status == 201
    refused(await create(picky, availability_zone="far"), 400, NETWORK)
    await picky.availability_zone("nowhere", valid_vip_networks=[])
    refused(await create(picky, availability_zone="nowhere"), 400, NETWORK)


async def test_vips_are_not_on_denied_networks(database: Path) -> None:
    world = await with_settings(database, denylist_vip_networks=(OTHER.network_id,))
    refused(await create(world, vip_subnet_id=OTHER.id), 400, OTHER.network_id)
    assert (await create(world)).status == 201
    await world.close()


@pytest.mark.parametrize("field", ["vip_port_id", "vip_network_id", "vip_subnet_id"])
async def test_ways_to_name_a_vip_can_be_switched_off(database: Path, field: str) -> None:
    world = await with_settings(database, **{f"allow_{field}": False})
    value = {"vip_port_id": UNKNOWN, "vip_network_id": NETWORK, "vip_subnet_id": SUBNET_ID}[field]
    refused(await create(world, **{field: value}), 400, field)
    other = {"vip_subnet_id": None, "vip_network_id": NETWORK} if field != "vip_network_id" else {}
    assert (await create(world, **other)).status == 201
    more = [{"subnet_id": V6, "port_id": UNKNOWN}]
    if field == "vip_port_id":
        refused(await create(world, additional_vips=more), 400, "additional_vips.port_id")
    await world.close()


@pytest.mark.parametrize(
    "policy,asked",
    [
        pytest.param(POLICY, {}, id="what the port has, where nothing is said"),
        pytest.param(UNKNOWN, {"vip_qos_policy_id": UNKNOWN}, id="what is asked for"),
        pytest.param(None, {"vip_qos_policy_id": None}, id="none, where none is asked for"),
    ],
)
async def test_a_port_that_is_brought_brings_its_qos_policy(
    world: World, policy: str | None, asked: dict[str, object]
) -> None:
    port = PortId("5b0c7b5e-0000-4000-8000-0000000000ff")
    brought = Vip(address="192.0.2.77", subnet_id=FAKE_SUBNET.id, network_id=NETWORK, port_id=port)
    world.network.brought_ports, world.network.policies = {port: brought}, {port: POLICY}
    body = {"loadbalancer": {"vip_port_id": port, **asked}}
    made = (await world.call("POST", "loadbalancers", body)).one("loadbalancer")
    assert policy == made["vip_qos_policy_id"]
    assert policy == (await world.tree(made["id"])).load_balancer.vip_qos_policy_id


# ---------------------------------------------------------------- additional VIPs


async def test_additional_vips_are_allocated_shown_and_given_back(world: World) -> None:
    made = await make(world, additional_vips=[{"subnet_id": V6}])
    (further,) = made["additional_vips"]
    assert further["subnet_id"] == V6
    assert further["port_id"] != made["vip_port_id"]
    assert world.network.vips == {made["vip_address"]: made["id"], further["ip_address"]: made["id"]}
    assert (await world.call("GET", f"loadbalancers/{made['id']}")).one("loadbalancer")["additional_vips"] == [further]
    chosen = await make(world, additional_vips=[{"subnet_id": V6, "ip_address": "2001:db8::77"}])
    assert chosen["additional_vips"][0]["ip_address"] == "2001:db8::77"
    held = dict(world.network.vips)
    taken = await create(world, additional_vips=[{"subnet_id": V6, "ip_address": "2001:db8::77"}])
    assert taken.status == 409
    assert world.network.vips == held


@pytest.mark.parametrize(
    "vips, named",
    [
        pytest.param([{"subnet_id": V6}, {"subnet_id": V6}], "subnet", id="a subnet twice"),
        pytest.param([{"subnet_id": SUBNET_ID}], "subnet", id="the subnet of the first"),
        pytest.param([{"subnet_id": OTHER.id}], NETWORK, id="another network"),
        pytest.param([{"subnet_id": UNKNOWN}], UNKNOWN, id="unknown subnet"),
        pytest.param([{"subnet_id": V6, "ip_address": "192.0.2.1"}], "192.0.2.1", id="address outside"),
        pytest.param([{"subnet_id": V6, "port_id": UNKNOWN}], UNKNOWN, id="unknown port"),
    ],
)
async def test_additional_vips_that_cannot_be(world: World, vips: list[dict[str, Any]], named: str) -> None:
    world.network.subnets = (*world.network.subnets, OTHER)
    refused(await create(world, additional_vips=vips), 400, named)
    network_only = await create(world, vip_subnet_id=None, vip_network_id=NETWORK, additional_vips=vips)
    refused(network_only, 400, named)
    assert world.network.vips == {}


async def test_a_cidr_may_be_of_the_family_of_any_vip(world: World) -> None:
    made = await make(world, additional_vips=[{"subnet_id": V6}])
    await world.listener(made["id"], allowed_cidrs=["2001:db8::/32"])
    plain = await make(world)
    asked = {
        "loadbalancer_id": plain["id"],
        "protocol": "HTTP",
        "protocol_port": 80,
        "allowed_cidrs": ["2001:db8::/32"],
    }
    assert (await world.call("POST", "listeners", {"listener": asked})).status == 400


@pytest.mark.parametrize(
    "feature, value",
    [("additional_vips", [{"subnet_id": V6}]), ("vip_qos_policy_id", UNKNOWN), ("vip_sg_ids", [UNKNOWN])],
)
async def test_what_the_network_lacks_is_refused_by_name(world: World, feature: str, value: object) -> None:
    await world.register(with_network(EVERYTHING, NETWORK_FEATURES - {feature}))
    refused(await create(world, **{feature: value}), 501, feature)
    plain = await world.load_balancer()
    if feature != "additional_vips":
        answer = await world.call("PUT", f"loadbalancers/{plain}", {"loadbalancer": {feature: value}})
        refused(answer, 501, feature)


def test_published_capabilities_are_those_of_amphora_and_network_together() -> None:
    amphora = Capabilities(features=frozenset({"backup", "additional_vips", "vip_sg_ids"}))
    assert with_network(amphora, frozenset()).features == {"backup"}
    assert with_network(amphora, NETWORK_FEATURES).features == {"backup", *NETWORK_FEATURES}
    assert with_network(Capabilities(), frozenset({"additional_vips", "vip_sg_ids"})).features == {"vip_sg_ids"}
