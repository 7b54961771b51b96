"""An amphora that owns its interfaces: what it is told becomes so in the kernel, stays so, and is forgotten when it goes.

Every story runs in a process and a network namespace of its own, on veth pairs that end with it."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import socket
import subprocess
import time
import traceback
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

import pytest

from frontinus_amphora import announce, iproute
from frontinus_amphora.errors import Invalid, Missing
from frontinus_amphora.interfaces import Interfaces
from frontinus_amphora.plugs import parse_network, parse_vip

CLONE_NEWNET = 0x40000000
VIP_MAC, MEMBER_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"
V6 = {"subnet_cidr": "fd00::/64", "gateway": "fd00::1", "host_routes": []}
VIP_BODY = {
    "subnet_cidr": "10.0.0.0/24",
    "gateway": "10.0.0.1",
    "mac_address": VIP_MAC,
    "mtu": 1400,
    "vrrp_ip": "10.0.0.7",
    "host_routes": [{"destination": "10.77.0.0/16", "nexthop": "10.0.0.9"}],
    "additional_vips": [{**V6, "ip_address": "fd00::5"}],
}
VIP = parse_vip("10.0.0.5", VIP_BODY)
WITH_V6 = parse_network({"mac_address": VIP_MAC, "fixed_ips": [{**V6, "ip_address": "fd00::7"}]})
MEMBERS = parse_network(
    {
        "mac_address": MEMBER_MAC,
        "fixed_ips": [{"ip_address": "10.1.0.7", "subnet_cidr": "10.1.0.0/24", "gateway": "10.1.0.1"}],
    }
)


def in_a_namespace(story: Callable[[], None]) -> None:
    """Run it in a child, as root of an empty network namespace with two links; what fails there fails here."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.unshare(CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "unshare")
            for number, mac in enumerate((VIP_MAC, MEMBER_MAC)):
                link = ["ip", "link", "add", f"made{number}", "address", mac, "type", "veth", "peer", "name"]
                subprocess.run([*link, f"far{number}"], check=True)
                subprocess.run(["ip", "link", "set", f"far{number}", "up"], check=True)
            story()
        except BaseException:  # noqa: BLE001 - told to the parent
            os.write(writing, traceback.format_exc().encode()[-60_000:])
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        trouble = pipe.read()
    os.waitpid(child, 0)
    assert not trouble, trouble


def ask(*words: str) -> list[dict[str, Any]]:
    done = subprocess.run(["ip", "-json", *words], check=True, capture_output=True, text=True)
    return [x for x in json.loads(done.stdout or "[]") if x]


def held(name: str) -> set[str]:
    return iproute.addresses(name)


def ways(family: int, table: str) -> dict[str, str | None]:
    """Destination -> gateway, of what is routed by the VIPs' interface."""
    rows = ask(f"-{family}", "route", "show", "table", table, "dev", "eth1")
    return {x["dst"]: x.get("gateway") for x in rows if not x["dst"].startswith(("fe80", "ff00", "fd00::5"))}


def sources(family: int) -> set[str]:
    return {x["src"] for x in ask(f"-{family}", "rule", "show") if x["table"] == "1"}


def assert_whole() -> None:
    assert held("eth1") == {"10.0.0.5/32", "10.0.0.7/24", "fd00::5/128", "fd00::7/64"}
    assert held("eth2") == {"10.1.0.7/24"}
    assert ways(4, "1") == {"default": "10.0.0.1", "10.0.0.0/24": None, "10.77.0.0/16": "10.0.0.9"}
    assert ways(6, "1") == {"default": "fd00::1", "fd00::/64": None}
    assert ways(4, "main") == {"default": "10.0.0.1", "10.0.0.0/24": None, "10.77.0.0/16": "10.0.0.9"}
    assert (sources(4), sources(6)) == ({"10.0.0.5", "10.0.0.7"}, {"fd00::5"})
    (link,) = ask("link", "show", "dev", "eth1")
    assert (link["mtu"], link["address"]) == (1400, VIP_MAC)
    for family in ("ipv4", "ipv6"):
        assert Path(f"/proc/sys/net/{family}/ip_nonlocal_bind").read_text().strip() == "1"
    assert Path("/proc/sys/net/ipv4/tcp_tw_reuse").read_text().strip() == "1"


def test_told_becomes_so_and_stays_so(tmp_path: Path) -> None:
    def story() -> None:
        interfaces = Interfaces(str(tmp_path / "interfaces.json"))
        assert interfaces.plug_vip(VIP) == "eth1"
        assert interfaces.plug_network(WITH_V6) == "eth1"
        assert interfaces.plug_network(MEMBERS) == "eth2"
        assert_whole()
        interfaces.plug_vip(VIP)
        assert_whole()
        subprocess.run(["ip", "address", "flush", "dev", "eth1"], check=True)
        subprocess.run(["ip", "rule", "delete", "priority", "100"], check=True)
        Interfaces(str(tmp_path / "interfaces.json")).restore()
        assert_whole()
        (tmp_path / "interfaces.json").write_text("{")
        fresh = Interfaces(str(tmp_path / "interfaces.json"))
        fresh.restore()
        for plug in (VIP, WITH_V6):
            fresh.plug_vip(plug) if plug is VIP else fresh.plug_network(plug)
        assert_whole()

    in_a_namespace(story)


def test_an_address_that_is_not_told_any_more_goes_alone(tmp_path: Path) -> None:
    def story() -> None:
        interfaces = Interfaces(str(tmp_path / "interfaces.json"))
        interfaces.plug_vip(VIP)
        interfaces.plug_network(WITH_V6)
        interfaces.plug_network(parse_network({"mac_address": VIP_MAC, "fixed_ips": []}))
        assert held("eth1") == {"10.0.0.5/32", "10.0.0.7/24", "fd00::5/128"}

    in_a_namespace(story)


def test_one_of_a_pair_does_not_hold_the_vips_and_can_listen_on_them(tmp_path: Path) -> None:
    def story() -> None:
        interfaces = Interfaces(str(tmp_path / "interfaces.json"))
        interfaces.plug_vip(parse_vip("10.0.0.5", {**VIP_BODY, "hold_vips": False}))
        assert held("eth1") == {"10.0.0.7/24"}
        for address, family in (("10.0.0.5", socket.AF_INET), ("fd00::5", socket.AF_INET6)):
            with socket.create_server((address, 8080), family=family):
                pass
        # Who holds it now is keepalived's matter: plugging again takes nothing from it.
        subprocess.run(["ip", "address", "add", "10.0.0.5/32", "dev", "eth1"], check=True)
        interfaces.plug_vip(parse_vip("10.0.0.5", {**VIP_BODY, "hold_vips": False}))
        assert held("eth1") == {"10.0.0.5/32", "10.0.0.7/24"}

    in_a_namespace(story)


def test_a_new_vip_is_announced(tmp_path: Path) -> None:
    def story() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as wire:
            wire.bind(("far0", 0))
            wire.settimeout(5)
            Interfaces(str(tmp_path / "interfaces.json")).plug_vip(VIP)
            hardware = bytes.fromhex(VIP_MAC.replace(":", ""))
            wanted = {
                announce.gratuitous_arp(IPv4Address("10.0.0.5"), hardware),
                announce.unsolicited_advertisement(IPv6Address("fd00::5"), hardware),
            }
            while wanted:
                frame = wire.recv(2048)
                wanted -= {x for x in wanted if frame.startswith(x)}

    in_a_namespace(story)


@pytest.mark.parametrize("far, own", [("10.0.0.4", "10.0.0.7"), ("fd00::4", "fd00::7")])
def test_members_beside_the_vip_are_asked_from_the_own_address(far: str, own: str, tmp_path: Path) -> None:
    """However like theirs the VIP is."""

    def story() -> None:
        interfaces = Interfaces(str(tmp_path / "interfaces.json"))
        interfaces.plug_vip(VIP)
        interfaces.plug_network(WITH_V6)
        with socket.socket(socket.AF_INET6 if ":" in far else socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.connect((far, 53))
            assert asking.getsockname()[0] == own

    in_a_namespace(story)


def test_ports_towards_a_member_are_not_used_up_by_connections_that_ended(tmp_path: Path) -> None:
    def story() -> None:
        Interfaces(str(tmp_path / "interfaces.json")).plug_vip(VIP)
        Path("/proc/sys/net/ipv4/ip_local_port_range").write_text("40000 40099")
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        with socket.create_server(("10.0.0.7", 8080)) as member:

            def connect() -> None:
                """And end it on this side first, as HAProxy does when its client has."""
                with socket.create_connection(("10.0.0.7", 8080)) as asking:
                    answering, _ = member.accept()
                    asking.shutdown(socket.SHUT_WR)
                    assert answering.recv(1) == b""
                    answering.close()
                    assert asking.recv(1) == b""

            deadline, done = time.monotonic() + 10, 0
            while done < 200:
                assert time.monotonic() < deadline, f"no port after {done} connections"
                with contextlib.suppress(OSError):
                    connect()
                    done += 1

    in_a_namespace(story)


def test_a_link_that_is_not_there_yet_is_said_to_be_missing(tmp_path: Path) -> None:
    def story() -> None:
        interfaces = Interfaces(str(tmp_path / "interfaces.json"))
        with pytest.raises(Missing, match="No suitable network interface found"):
            interfaces.plug_vip(VIP._replace(mac="02:00:00:00:00:99"))
        interfaces.plug_vip(VIP)
        subprocess.run(["ip", "link", "delete", "eth1"], check=True)
        interfaces.plug_network(MEMBERS)
        assert [x["mac"] for x in json.loads((tmp_path / "interfaces.json").read_text())] == [MEMBER_MAC]

    in_a_namespace(story)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"subnet_cidr": "10.0.0.0/33"}, id="no network"),
        pytest.param({"subnet_cidr": "fd00::/64"}, id="of another family"),
        pytest.param({"gateway": "up"}, id="gateway"),
        pytest.param({"mac_address": "02:00;reboot"}, id="MAC"),
        pytest.param({"mtu": 12}, id="too small"),
        pytest.param({"mtu": "1500"}, id="no number"),
        pytest.param({"vrrp_ip": "10.0.0.7 dev lo"}, id="own address"),
        pytest.param({"host_routes": [{"destination": "10.0.0.0/8"}]}, id="route without a next hop"),
        pytest.param({"host_routes": "x"}, id="routes"),
        pytest.param({"additional_vips": [7]}, id="additional VIPs"),
    ],
)
def test_what_makes_no_sense_is_invalid(changes: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        parse_vip("10.0.0.5", {**VIP_BODY, **changes})
