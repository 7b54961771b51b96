"""What ports an amphora of a load balancer needs, and what they let in; what of it is lacking, and what is spare."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from frontinus.controller.plugging import Plugging, plugging_of, port_requests, wanted_traffic
from frontinus.model.enums import AmphoraRole, ListenerProtocol
from frontinus.model.ids import ListenerId, LoadBalancerId, MemberId, NetworkId, PoolId, PortId, ProjectId, SubnetId
from frontinus.model.ports import AllowedTraffic, Port, PortAddress, PortPurpose, TrafficProtocol
from frontinus.model.tree import Listener, LoadBalancerTree, Member

from tests.unit.controller.trees import NOW, OLD, OTHER, amphora, load_balancer

pytestmark = pytest.mark.unit


def port(purpose: PortPurpose, subnet: str, **changes: object) -> Port:
    plain = Port(
        id=PortId(f"port on {subnet}"),
        amphora_id=OLD,
        purpose=purpose,
        network_id=NetworkId("n" if purpose is PortPurpose.VIP else f"network of {subnet}"),
        mac="02:00:00:00:00:01",
        mtu=1500,
        addresses=(PortAddress(address="10.0.0.9", prefix_length=24, subnet_id=SubnetId(subnet)),),
        attachment="bridge",
        interface="eth1",
    )
    return replace(plain, **changes)


def listener(**changes: object) -> Listener:
    plain = Listener(
        id=ListenerId("listener"),
        load_balancer_id=LoadBalancerId("lb"),
        project_id=ProjectId("project"),
        protocol=ListenerProtocol.HTTP,
        protocol_port=80,
        created_at=NOW,
    )
    return replace(plain, **changes)


def member(subnet: str | None) -> Member:
    return Member(
        id=MemberId(f"member on {subnet}"),
        load_balancer_id=LoadBalancerId("lb"),
        project_id=ProjectId("project"),
        pool_id=PoolId("pool"),
        address="10.1.0.1",
        protocol_port=80,
        subnet_id=None if subnet is None else SubnetId(subnet),
        created_at=NOW,
    )


HTTP = AllowedTraffic(TrafficProtocol.TCP, 80)


@pytest.mark.parametrize(
    "listeners,members,ports,expected",
    [
        pytest.param((), (), (), Plugging(lacks=True), id="no port yet"),
        pytest.param((), (), (port(PortPurpose.VIP, "s"),), Plugging(), id="the VIP's port is enough"),
        pytest.param(
            (), (), (port(PortPurpose.VIP, "s", interface=None),), Plugging(lacks=True), id="its agent was not told yet"
        ),
        pytest.param((listener(),), (), (port(PortPurpose.VIP, "s"),), Plugging(lacks=True), id="a port to open"),
        pytest.param((), (), (port(PortPurpose.VIP, "s", allowed=(HTTP,)),), Plugging(spare=True), id="one to shut"),
        pytest.param(
            (listener(admin_state_up=False),),
            (),
            (port(PortPurpose.VIP, "s", allowed=(HTTP,)),),
            Plugging(spare=True),
            id="nobody listens for a listener that is down",
        ),
        pytest.param(
            (), (member("m"),), (port(PortPurpose.VIP, "s"),), Plugging(lacks=True), id="a member on another subnet"
        ),
        pytest.param(
            (),
            (member(None), member("s")),
            (port(PortPurpose.VIP, "s"),),
            Plugging(),
            id="members by the VIP's network",
        ),
        pytest.param(
            (),
            (),
            (port(PortPurpose.VIP, "s"), port(PortPurpose.MEMBER, "m")),
            Plugging(spare=True),
            id="the last member of a subnet has gone",
        ),
    ],
)
def test_what_ports_lack(
    listeners: tuple[Listener, ...], members: tuple[Member, ...], ports: tuple[Port, ...], expected: Plugging
) -> None:
    one = amphora(ports=ports)
    tree = LoadBalancerTree(load_balancer=load_balancer(), listeners=listeners, members=members, amphorae=(one,))
    assert plugging_of(tree, one) == expected


def test_ports_are_asked_for_by_network() -> None:
    one = amphora(ports=(port(PortPurpose.MEMBER, "gone"),))
    members = (member("m"), member("s6"), member(None))
    tree = LoadBalancerTree(load_balancer=load_balancer(), members=members, amphorae=(one,))
    network_of = {SubnetId("m"): NetworkId("other"), SubnetId("s6"): NetworkId("n")}
    exact = port_requests(tree, one, network_of, exact=True)
    assert [(x.purpose, x.network_id, x.subnet_ids) for x in exact] == [
        (PortPurpose.VIP, "n", ("s", "s6")),
        (PortPurpose.MEMBER, "other", ("m",)),
    ]
    wide = port_requests(tree, one, network_of, exact=False)
    assert [x.network_id for x in wide] == ["n", "other", "network of gone"]


def test_the_address_on_the_vips_own_subnet_comes_first() -> None:
    one, members = amphora(), (member("a6"),)
    tree = LoadBalancerTree(load_balancer=load_balancer(), members=members, amphorae=(one,))
    (request,) = port_requests(tree, one, {SubnetId("a6"): NetworkId("n")}, exact=True)
    assert request.subnet_ids == ("s", "a6")


def test_a_pair_lets_each_other_in() -> None:
    other_port = port(PortPurpose.VIP, "s", amphora_id=OTHER)
    one, other = amphora(role=AmphoraRole.MASTER), amphora(id=OTHER, role=AmphoraRole.BACKUP, ports=(other_port,))
    udp = listener(protocol=ListenerProtocol.UDP, protocol_port=53, allowed_cidrs=("10.0.0.0/8", "192.0.2.0/24"))
    tree = LoadBalancerTree(load_balancer=load_balancer(), listeners=(udp,), amphorae=(one, other))
    assert wanted_traffic(tree, one) == (
        AllowedTraffic(TrafficProtocol.TCP, 1025, "10.0.0.9/32"),
        AllowedTraffic(TrafficProtocol.UDP, 53, "10.0.0.0/8"),
        AllowedTraffic(TrafficProtocol.UDP, 53, "192.0.2.0/24"),
        AllowedTraffic(TrafficProtocol.UDP, 8848, "10.0.0.9/32"),
        AllowedTraffic(TrafficProtocol.VRRP, None, "10.0.0.9/32"),
    )
