"""VIPs out of 127.0.0.0/8: on record, never shared, and whatever dies half-way is put right."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from frontinus.drivers.network.loopback.driver import (
    BUILT_IN_SUBNET,
    BUILT_IN_SUBNET_V6,
    LoopbackNetwork,
    LoopbackSettings,
)
from frontinus.model.errors import Bug, Conflict, Invalid, Retry
from frontinus.model.ids import LoadBalancerId, NetworkId, PortId, ProjectId, SubnetId, new_id
from frontinus.model.network import VipRequest
from frontinus.model.tree import AdditionalVip
from frontinus.testing.exam import Check
from frontinus.testing.network_conformance import CHECKS, NetworkBench

PROJECT = ProjectId("p")
SUBNET = SubnetId(BUILT_IN_SUBNET.id)
SUBNET_V6 = SubnetId(BUILT_IN_SUBNET_V6.id)
SMALL = replace(BUILT_IN_SUBNET, pool="127.64.7.0/24")


def fresh() -> LoadBalancerId:
    return LoadBalancerId(new_id())


def also(subnet_id: SubnetId, address: str = "") -> VipRequest:
    """A request for a VIP of IPv4 and one more."""
    return VipRequest(subnet_id=SUBNET, additional=(AdditionalVip(address=address, subnet_id=subnet_id),))


def a_network(state_dir: Path) -> LoopbackNetwork:
    return LoopbackNetwork(LoopbackSettings(state_dir=state_dir))


async def allocate(network: LoopbackNetwork, load_balancer_id: LoadBalancerId, address: str | None = None) -> str:
    request = VipRequest(subnet_id=SUBNET, address=address)
    return (await network.allocate_vip(load_balancer_id, PROJECT, request)).vip.address


def records(state_dir: Path) -> dict[str, str]:
    """Every record, by its path below network/."""
    base = state_dir / "network"
    return {str(path.relative_to(base)): str(path.readlink()) for path in base.rglob("*") if path.is_symlink()}


@pytest.mark.parametrize("check", CHECKS, ids=str)
async def test_it_sits_the_exam(check: Check[NetworkBench], tmp_path: Path) -> None:
    # A second subnet with room for several, since there is but one ::1.
    second = replace(SMALL, id=new_id(), cidr="127.9.0.0/16", pool="127.9.4.0/24")
    settings = LoopbackSettings(state_dir=tmp_path, subnets=(BUILT_IN_SUBNET, second))
    await check.run(NetworkBench(factory=lambda: LoopbackNetwork(settings)))


async def test_addresses_come_from_the_pool_and_follow_the_id(tmp_path: Path) -> None:
    network, elsewhere = a_network(tmp_path / "a"), a_network(tmp_path / "b")
    for _ in range(20):
        load_balancer_id = fresh()
        address = await allocate(network, load_balancer_id)
        assert ip_address(address) in ip_network("127.64.0.0/10")
        assert address.rpartition(".")[2] not in ("0", "255")
        assert await allocate(elsewhere, load_balancer_id) == address


async def test_an_allocation_is_on_record_under_both_names(tmp_path: Path) -> None:
    load_balancer_id = fresh()
    address = await allocate(a_network(tmp_path), load_balancer_id)
    assert records(tmp_path) == {f"owners/{load_balancer_id}": address, f"vips/{address}": load_balancer_id}


async def test_an_allocation_that_died_after_its_first_record_is_completed(tmp_path: Path) -> None:
    network, load_balancer_id = a_network(tmp_path), fresh()
    address = await allocate(network, load_balancer_id)
    (tmp_path / "network" / "vips" / address).unlink()
    assert await network.list_owned() == (load_balancer_id,)
    assert await allocate(a_network(tmp_path), load_balancer_id) == address
    assert records(tmp_path)[f"vips/{address}"] == load_balancer_id


async def test_an_address_lost_to_another_meanwhile_is_replaced(tmp_path: Path) -> None:
    network, late, quick = a_network(tmp_path), fresh(), fresh()
    address = await allocate(network, late)
    (tmp_path / "network" / "vips" / address).unlink()
    assert await allocate(network, quick, address) == address
    other = await allocate(network, late)
    assert other != address
    assert records(tmp_path) == {
        f"owners/{quick}": address,
        f"vips/{address}": quick,
        f"owners/{late}": other,
        f"vips/{other}": late,
    }


async def test_a_release_that_died_after_its_first_step_is_completed(tmp_path: Path) -> None:
    network, load_balancer_id = a_network(tmp_path), fresh()
    address = await allocate(network, load_balancer_id)
    (tmp_path / "network" / "vips" / address).unlink()
    await a_network(tmp_path).release_owned(load_balancer_id)
    assert records(tmp_path) == {}


async def test_additional_vips_are_on_record_by_subnet(tmp_path: Path) -> None:
    network, load_balancer_id = a_network(tmp_path), fresh()
    given = await network.allocate_vip(load_balancer_id, PROJECT, also(SUBNET_V6))
    assert [x.address for x in given.additional] == ["::1"]
    assert records(tmp_path) == {
        f"owners/{load_balancer_id}": given.vip.address,
        f"vips/{given.vip.address}": load_balancer_id,
        f"owners/{load_balancer_id}+{SUBNET_V6}": "::1",
        "vips/::1": load_balancer_id,
    }
    with pytest.raises(Retry, match="no free address"):
        await network.allocate_vip(fresh(), PROJECT, also(SUBNET_V6))
    assert await network.list_owned() == (load_balancer_id,)
    await network.release_vip(load_balancer_id, given.vip, port_owned=True, additional=given.additional)
    assert records(tmp_path) == {}


async def test_a_release_that_died_before_the_additional_vip_is_completed(tmp_path: Path) -> None:
    network, load_balancer_id = a_network(tmp_path), fresh()
    given = await network.allocate_vip(load_balancer_id, PROJECT, also(SUBNET_V6))
    await network.release_vip(load_balancer_id, given.vip, port_owned=True)
    assert await network.list_owned() == (load_balancer_id,)
    await a_network(tmp_path).release_owned(load_balancer_id)
    assert records(tmp_path) == {}


async def test_a_load_balancer_has_one_address(tmp_path: Path) -> None:
    network, load_balancer_id = a_network(tmp_path), fresh()
    address = await allocate(network, load_balancer_id, "127.9.9.9")
    with pytest.raises(Conflict, match=r"127\.9\.9\.9"):
        await allocate(network, load_balancer_id, "127.9.9.10")
    assert await allocate(network, load_balancer_id) == address


async def test_a_full_pool_says_so_and_heals_when_one_is_given_back(tmp_path: Path) -> None:
    network = LoopbackNetwork(LoopbackSettings(state_dir=tmp_path, subnets=(SMALL,)))
    holders = [fresh() for _ in range(254)]
    addresses = {await allocate(network, holder) for holder in holders}
    assert addresses == {f"127.64.7.{number}" for number in range(1, 255)}
    late = fresh()
    with pytest.raises(Retry, match="no free address"):
        await allocate(network, late)
    assert late not in await network.list_owned()
    await network.release_owned(holders[17])
    assert await allocate(network, late) in addresses


@pytest.mark.parametrize(
    "request_, field, says",
    [
        pytest.param(VipRequest(subnet_id=SUBNET, address="::1"), "vip_address", "not in subnet", id="IPv6"),
        pytest.param(VipRequest(subnet_id=SUBNET_V6, address="::2"), "vip_address", "not in subnet", id="not ::1"),
        pytest.param(also(SUBNET), "load_balancer.additional_vips[0].subnet_id", "of its own", id="same subnet"),
        pytest.param(
            also(SubnetId(new_id())),
            "load_balancer.additional_vips[0].subnet_id",
            "does not exist",
            id="no such subnet",
        ),
        pytest.param(
            also(SUBNET_V6, "::2"),
            "load_balancer.additional_vips[0].ip_address",
            "not in subnet",
            id="additional outside",
        ),
        pytest.param(VipRequest(subnet_id=SUBNET, address="127.0.0.0"), "vip_address", "inside", id="network address"),
        pytest.param(VipRequest(subnet_id=SUBNET, address="127.255.255.255"), "vip_address", "inside", id="broadcast"),
        pytest.param(VipRequest(subnet_id=SUBNET, address="10.0.0.1"), "vip_address", "not in subnet", id="outside"),
        pytest.param(VipRequest(subnet_id=SUBNET, address="127.1"), "vip_address", "not an IP", id="short form"),
        pytest.param(VipRequest(port_id=PortId(new_id())), "vip_port_id", "no ports", id="port"),
        pytest.param(VipRequest(network_id=NetworkId(new_id())), "vip_network_id", BUILT_IN_SUBNET.id, id="network"),
        pytest.param(VipRequest(subnet_id=SubnetId(new_id())), "vip_subnet_id", BUILT_IN_SUBNET.id, id="subnet"),
    ],
)
async def test_bad_requests_name_field_and_reason(request_: VipRequest, field: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=says) as raised:
        await a_network(tmp_path).allocate_vip(fresh(), PROJECT, request_)
    assert raised.value.field == field
    assert records(tmp_path) == {}


@pytest.mark.parametrize("address", ["..", "../owners", "/etc/passwd", "", "x"])
async def test_releasing_what_is_no_address_touches_nothing(address: str, tmp_path: Path) -> None:
    network, load_balancer_id = a_network(tmp_path), fresh()
    held = (await network.allocate_vip(load_balancer_id, PROJECT, VipRequest(subnet_id=SUBNET))).vip
    before = records(tmp_path)
    vip = type(held)(address=address, subnet_id=held.subnet_id, network_id=held.network_id, port_id=held.port_id)
    await network.release_vip(load_balancer_id, vip, port_owned=True)
    assert records(tmp_path) == before


async def test_only_an_id_becomes_a_path(tmp_path: Path) -> None:
    with pytest.raises(Bug):
        await allocate(a_network(tmp_path), LoadBalancerId("../../x"))


async def test_a_state_directory_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "network").write_text("in the way")
    with pytest.raises(Retry, match=str(tmp_path)):
        await allocate(a_network(tmp_path), fresh())


async def test_a_network_with_several_subnets_gives_the_one_that_fits(tmp_path: Path) -> None:
    blue = replace(BUILT_IN_SUBNET, name="blue", id=new_id(), cidr="127.1.0.0/16", pool="127.1.4.0/24")
    green = replace(BUILT_IN_SUBNET, name="green", id=new_id(), cidr="127.2.0.0/16", pool="127.2.4.0/24")
    network = LoopbackNetwork(LoopbackSettings(state_dir=tmp_path, subnets=(blue, green)))
    on_network = NetworkId(BUILT_IN_SUBNET.network_id)
    for request, subnet in (
        (VipRequest(network_id=on_network), blue),
        (VipRequest(network_id=on_network, address="127.2.9.9"), green),
        (VipRequest(network_id=on_network, subnet_id=SubnetId(green.id)), green),
    ):
        vip = (await network.allocate_vip(fresh(), PROJECT, request)).vip
        assert vip.subnet_id == subnet.id
        assert ip_address(vip.address) in ip_network(subnet.cidr)
    with pytest.raises(Invalid, match="not in subnet"):
        await network.allocate_vip(fresh(), PROJECT, VipRequest(network_id=on_network, address="127.3.0.1"))


async def test_a_network_alone_means_its_ipv4_subnet(tmp_path: Path) -> None:
    network = LoopbackNetwork(LoopbackSettings(state_dir=tmp_path, subnets=(BUILT_IN_SUBNET_V6, BUILT_IN_SUBNET)))
    request = VipRequest(network_id=NetworkId(BUILT_IN_SUBNET.network_id))
    assert (await network.allocate_vip(fresh(), PROJECT, request)).vip.subnet_id == SUBNET


@pytest.mark.parametrize(
    "field, subnet",
    [
        ("subnets[0].cidr", replace(BUILT_IN_SUBNET, cidr="10.0.0.0/8")),
        ("subnets[0].cidr", replace(BUILT_IN_SUBNET, cidr="water")),
        ("subnets[0].cidr", replace(BUILT_IN_SUBNET_V6, cidr="2001:db8::/64")),
        ("subnets[0].pool", replace(BUILT_IN_SUBNET_V6, pool="127.64.0.0/24")),
        ("subnets[0].pool", replace(BUILT_IN_SUBNET, pool="127.64.0.0/28")),
        ("subnets[0].pool", replace(BUILT_IN_SUBNET, cidr="127.1.0.0/16")),
        ("subnets[0].id", replace(BUILT_IN_SUBNET, id="loopback")),
        ("subnets[0].network_id", replace(BUILT_IN_SUBNET, network_id="loopback")),
    ],
)
def test_subnets_that_cannot_be_are_refused_by_name(field: str, subnet: object, tmp_path: Path) -> None:
    with pytest.raises(Invalid) as raised:
        LoopbackNetwork(LoopbackSettings(state_dir=tmp_path, subnets=(subnet,)))  # type: ignore[arg-type]
    assert raised.value.field == field


def test_there_must_be_subnets_with_different_ids(tmp_path: Path) -> None:
    for subnets in ((), (BUILT_IN_SUBNET, SMALL)):
        with pytest.raises(Invalid) as raised:
            LoopbackNetwork(LoopbackSettings(state_dir=tmp_path, subnets=subnets))
        assert raised.value.field == "subnets"
