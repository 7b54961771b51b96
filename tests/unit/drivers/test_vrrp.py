"""What keepalived is told on each amphora of a pair, and what the two haproxies tell each other."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from frontinus.drivers.amphora.agent.vrrp import keepalived_file, sync_group
from frontinus.drivers.amphora.haproxy.persistence import peer_name, peers_section
from frontinus.drivers.amphora.haproxy.render import CAPABILITIES
from frontinus.drivers.amphora.haproxy.settings import HaproxySettings
from frontinus.model.capabilities import NETWORK_FEATURES, with_network
from frontinus.model.enums import AmphoraRole, AmphoraStatus, ListenerProtocol, Topology
from frontinus.model.errors import Invalid
from frontinus.model.ids import AmphoraId, LoadBalancerId, NetworkId, PortId, SubnetId
from frontinus.model.ports import PORTS, Port, PortAddress, PortPurpose
from frontinus.model.tree import AdditionalVip, Amphora, LoadBalancerTree

from tests.unit.drivers.trees import LOAD_BALANCER, NOW, PROJECT, a_listener, a_load_balancer, a_tree, number

SETTINGS = HaproxySettings(state_dir=Path("/nowhere"))


def an_amphora(which: int, role: AmphoraRole, *addresses: str, **fields: Any) -> Amphora:
    """Plugged on the VIP's network; the first of its addresses is on the VIP's subnet."""
    port = Port(
        id=PortId(number(which + 100)),
        amphora_id=AmphoraId(number(which)),
        purpose=PortPurpose.VIP,
        network_id=NetworkId("n"),
        mac="02:00:00:00:00:01",
        mtu=1500,
        addresses=tuple(
            PortAddress(address=each, prefix_length=24, subnet_id=SubnetId("s" if each is addresses[0] else "s2"))
            for each in reversed(addresses)
        ),
        attachment="br",
        interface="eth1",
    )
    return Amphora(
        id=AmphoraId(number(which)),
        load_balancer_id=LOAD_BALANCER,
        project_id=PROJECT,
        role=role,
        ports=(port,) if addresses else (),
        vrrp_interface="eth1" if addresses else None,
        created_at=NOW,
        **fields,
    )


MASTER = an_amphora(3, AmphoraRole.MASTER, "192.0.2.3", "2001:db8::3")
BACKUP = an_amphora(4, AmphoraRole.BACKUP, "192.0.2.4", "2001:db8::4")


def pair(*amphorae: Amphora, **fields: Any) -> LoadBalancerTree:
    load_balancer = a_load_balancer("192.0.2.100", topology=Topology.ACTIVE_STANDBY, **fields)
    return replace(a_tree(load_balancer=load_balancer), amphorae=amphorae or (MASTER, BACKUP))


def text(tree: LoadBalancerTree, amphora: Amphora, settings: HaproxySettings = SETTINGS) -> str:
    file = keepalived_file(tree, amphora, settings)
    assert file is not None
    assert not file.private
    return file.content.decode()


def test_the_whole_text() -> None:
    vips = (AdditionalVip(address="2001:db8::100", subnet_id=SubnetId("s2"), port_id=PortId("p2")),)
    assert (
        text(pair(additional_vips=vips), BACKUP)
        == """global_defs {
    vrrp_version 3
    vrrp_skip_check_adv_addr
    dynamic_interfaces
}
vrrp_instance 00000000000000000000000000000001 {
    state BACKUP
    nopreempt
    accept
    interface eth1
    virtual_router_id 1
    priority 253
    advert_int 0.1
    check_unicast_src
    unicast_src_ip 192.0.2.4
    unicast_peer {
        192.0.2.3 min_ttl 255
    }
    garp_master_delay 1
    garp_master_repeat 3
    garp_master_refresh 5
    garp_master_refresh_repeat 2
    virtual_ipaddress {
        192.0.2.100/32 dev eth1
    }
    virtual_ipaddress_excluded {
        2001:db8::100/128 dev eth1
    }
    track_file {
        balancers
    }
}
"""
    )


def test_the_master_differs_in_priority_and_addresses() -> None:
    told = text(pair(), MASTER, HaproxySettings(state_dir=Path("/"), vrrp_advert_interval=timedelta(seconds=1)))
    for line in ("priority 254", "unicast_src_ip 192.0.2.3", "192.0.2.4 min_ttl 255", "advert_int 1", "state BACKUP"):
        assert f"    {line}\n" in told


@pytest.mark.parametrize("status", [AmphoraStatus.PENDING_DELETE, AmphoraStatus.ERROR])
def test_nobody_speaks_to_a_peer_that_goes(status: AmphoraStatus) -> None:
    assert "192.0.2.4" not in text(pair(MASTER, replace(BACKUP, status=status)), MASTER)


@pytest.mark.parametrize(
    "tree,amphora",
    [
        pytest.param(pair(), an_amphora(3, AmphoraRole.MASTER), id="not plugged yet"),
        pytest.param(pair(), an_amphora(3, AmphoraRole.STANDALONE, "192.0.2.3"), id="alone"),
        pytest.param(pair(admin_state_up=False), MASTER, id="disabled"),
        pytest.param(pair(delete_requested=True), MASTER, id="to be deleted"),
    ],
)
def test_no_keepalived_where_no_address_moves(tree: LoadBalancerTree, amphora: Amphora) -> None:
    assert keepalived_file(tree, amphora, SETTINGS) is None


@pytest.mark.parametrize(
    "protocol,lvs,expected",
    [
        pytest.param(ListenerProtocol.UDP, True, True, id="datagrams by LVS"),
        pytest.param(ListenerProtocol.SCTP, True, True, id="SCTP"),
        pytest.param(ListenerProtocol.UDP, False, False, id="datagrams by nginx"),
        pytest.param(ListenerProtocol.HTTP, True, False, id="no datagrams"),
    ],
)
def test_sessions_of_datagrams_are_told_to_the_peer(protocol: ListenerProtocol, lvs: bool, expected: bool) -> None:
    tree = replace(pair(), listeners=(a_listener(11, protocol, 5300),))
    files = [keepalived_file(tree, x, SETTINGS, lvs=lvs) for x in (MASTER, BACKUP)]
    line = f"    lvs_sync_daemon eth1 {LOAD_BALANCER.replace('-', '')} id 1 port 8848 group 239.192.0.1\n"
    assert [x is not None and line in x.content.decode() for x in files] == [expected, expected]


@pytest.mark.parametrize(
    "last,family,expected",
    [
        pytest.param("0000-000000000000", 4, "239.192.0.0", id="IPv4"),
        pytest.param("0000-ffffffffffff", 4, "239.195.255.255", id="the last one of IPv4"),
        pytest.param("0000-ffffffffffff", 6, "ff15::ffff:ffff", id="IPv6"),
    ],
)
def test_the_group_of_a_pair(last: str, family: int, expected: str) -> None:
    assert expected == str(sync_group(LoadBalancerId(f"00000000-0000-0000-{last}"), family))


def test_stick_tables_are_told_to_the_peer() -> None:
    table = ("table", "a", "type", "ipv6", "size", "100")
    section = peers_section(pair(), MASTER.id, SETTINGS, [table])
    assert section.lines == (
        ("bind", "192.0.2.3:1025"),
        ("server", peer_name(MASTER.id)),
        ("server", peer_name(BACKUP.id), "192.0.2.4:1025"),
        table,
    )


def test_a_pair_needs_ports() -> None:
    assert with_network(CAPABILITIES, NETWORK_FEATURES).topologies == {Topology.SINGLE}
    assert with_network(CAPABILITIES, NETWORK_FEATURES | {PORTS}).topologies == set(Topology)


@pytest.mark.parametrize("interval", [timedelta(0), timedelta(milliseconds=5), timedelta(minutes=1)])
def test_an_advert_interval_that_vrrp_cannot_have(interval: timedelta) -> None:
    with pytest.raises(Invalid, match="vrrp_advert_interval"):
        HaproxySettings(state_dir=Path("/"), vrrp_advert_interval=interval).check()


def test_a_pair_of_octavias_is_left_as_octavia_told_it() -> None:
    plain = tuple(replace(x, speaks_plain=True) for x in (MASTER, BACKUP))
    assert [keepalived_file(pair(*plain), x, SETTINGS) for x in plain] == [None, None]


def test_an_amphora_of_octavias_speaks_as_its_new_peer_does() -> None:
    old = replace(MASTER, speaks_plain=True)
    told = keepalived_file(pair(old, BACKUP), old, SETTINGS)
    ours = keepalived_file(pair(old, BACKUP), BACKUP, SETTINGS)
    assert told is not None
    assert ours is not None
    text, other = told.content.decode(), ours.content.decode()
    assert "vrrp_version 3" in text
    assert "script /var/lib/octavia/vrrp/check_script.sh" in text
    assert "track_file" not in text
    assert "track_file" in other
    advert = next(x for x in other.splitlines() if "advert_int" in x)
    assert advert in text.splitlines()
