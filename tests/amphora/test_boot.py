"""What an amphora makes of its config drive."""

import base64
import json
import os
import subprocess
import sys
import time

import pytest

from frontinus_amphora.boot import (
    BadDrive,
    Interface,
    commands,
    laid_down,
    own_address,
    parse_network_data,
    parse_user_data,
)

from tests.amphora.lab import ip
from tests.amphora.world import wait_for

ADVERTISE = """
import socket, struct
out = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
out.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
router = struct.pack(">BBHBBHII", 134, 0, 0, 64, 0x80, 1800, 0, 0)  # addresses come by DHCP
on_link = struct.pack(">BBBBIII16s", 3, 4, 64, 0x80, 1800, 1800, 0, socket.inet_pton(socket.AF_INET6, "fd00:1::"))
out.sendto(router + on_link, ("ff02::1", 0, 0, socket.if_nametoindex("eth1")))
"""
"""What a router says of a network whose machines have their addresses by DHCPv6 (RFC 4861, 4.2 and 4.6.2)."""


def user_data(files: dict[str, str], form: str = "frontinus-boot-files") -> bytes:
    return json.dumps({"format": form, "files": files}).encode()


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def network_data(*networks: dict[str, object]) -> bytes:
    link = {"id": "m", "type": "phy", "ethernet_mac_address": "FA:16:3E:00:00:01", "mtu": 1450}
    return json.dumps({"links": [link], "networks": networks}).encode()


def test_boot_files_know_where_they_are() -> None:
    found = parse_user_data(user_data({"agent.conf": encoded("{place} {memory}"), "server.pem": encoded("{place}")}))
    assert {name: laid_down(name, content) for name, content in found.items()} == {
        "agent.conf": b"/var/lib/frontinus /run/frontinus",
        "server.pem": b"{place}",
    }


@pytest.mark.parametrize(
    "content, complaint",
    [
        pytest.param(b"#cloud-config\n", "cannot be read", id="somebody else's user data"),
        pytest.param(b"[]", "cannot be read", id="not an object"),
        pytest.param(user_data({}, "x"), "format 'x'", id="another format"),
        pytest.param(user_data({"agent.conf": "?"}), "cannot be read", id="not base64"),
        pytest.param(user_data({"server.pem": ""}), "no agent.conf", id="nothing to start with"),
        pytest.param(user_data({"agent.conf": "", "/etc/x": ""}), "does not lie inside", id="absolute"),
        pytest.param(user_data({"agent.conf": "", "a/../../x": ""}), "does not lie inside", id="out of the place"),
    ],
)
def test_user_data_that_is_none_is_told(content: bytes, complaint: str) -> None:
    with pytest.raises(BadDrive, match=complaint):
        parse_user_data(content)


@pytest.mark.parametrize(
    "content, expected",
    [
        pytest.param(None, (), id="no file"),
        pytest.param(
            network_data({"link": "m", "type": "ipv4_dhcp"}),
            (Interface("fa:16:3e:00:00:01", 1450, (), (), dhcp=True),),
            id="DHCP",
        ),
        pytest.param(network_data(), (Interface("fa:16:3e:00:00:01", 1450, (), (), dhcp=True),), id="nothing is said"),
        *(
            pytest.param(
                network_data({"link": "m", "type": kind}),
                (Interface("fa:16:3e:00:00:01", 1450, ("fd00::7/128",), ()),),
                id=kind,
            )
            for kind in ("ipv6_dhcp", "ipv6_slaac", "ipv6_dhcpv6-stateless", "ipv6_dhcpv6-stateful")
        ),
        pytest.param(
            network_data({"link": "m", "type": "ipv6_slaac", "ip_address": "fd00::7", "netmask": "ffff:ffff::"}),
            (Interface("fa:16:3e:00:00:01", 1450, ("fd00::7/32",), ()),),
            id="SLAAC with its address",
        ),
        pytest.param(
            network_data({"link": "m", "type": "ipv4_dhcp"}, {"link": "m", "type": "ipv6_slaac"}),
            (Interface("fa:16:3e:00:00:01", 1450, ("fd00::7/128",), (), dhcp=True),),
            id="DHCP and SLAAC",
        ),
        pytest.param(
            network_data(
                {
                    "link": "m",
                    "type": "ipv4",
                    "ip_address": "10.0.0.5",
                    "netmask": "255.255.255.0",
                    "routes": [{"network": "0.0.0.0", "netmask": "0.0.0.0", "gateway": "10.0.0.1"}],
                },
                {"link": "m", "type": "ipv6", "ip_address": "fd00::5", "netmask": "ffff:ffff:ffff:ffff::"},
                {"link": "other", "type": "ipv4", "ip_address": "192.0.2.1", "netmask": "255.255.255.0"},
            ),
            (Interface("fa:16:3e:00:00:01", 1450, ("10.0.0.5/24", "fd00::5/64"), (("0.0.0.0/0", "10.0.0.1"),)),),
            id="both families",
        ),
    ],
)
def test_network_data_says_what_interfaces_are(content: bytes | None, expected: tuple[Interface, ...]) -> None:
    assert expected == parse_network_data(content, "fd00::7")


def test_an_address_of_ipv4_is_none_of_ipv6() -> None:
    said = network_data({"link": "m", "type": "ipv4_dhcp"}, {"link": "m", "type": "ipv6_slaac"})
    assert parse_network_data(said, "10.0.0.5") == (Interface("fa:16:3e:00:00:01", 1450, (), (), dhcp=True),)


@pytest.mark.parametrize(
    "text, expected",
    [
        pytest.param(b"[haproxy_amphora]\nbind_host = fd00::7\nbind_port = 9443\n", "fd00::7", id="said"),
        pytest.param(b"[haproxy_amphora]\nbind_port = 9443\n", "", id="not said"),
    ],
)
def test_where_the_agent_listens_is_known_before_it_starts(text: bytes, expected: str) -> None:
    assert own_address({"agent.conf": text}) == expected


@pytest.mark.integration
def test_a_machine_on_a_network_of_ipv6_alone_is_reached() -> None:
    """By its address, before a router has said what is on the link; beyond the link, when it has."""
    made = f"fb{os.getpid()}{time.monotonic_ns() % 1_000_000:06d}"
    guest, router = f"{made}g", f"{made}r"
    for name in (guest, router):
        ip("netns", "add", name)
    try:
        ip("-n", guest, "link", "add", "eth0", "type", "veth", "peer", "name", "eth1", "netns", router)
        ip("-n", router, "link", "set", "lo", "up")
        ip("-n", router, "link", "set", "eth1", "up")
        ip("-n", router, "address", "add", "fd00:1::1/64", "dev", "eth1", "nodad")
        ip("-n", router, "address", "add", "fd00:2::1/128", "dev", "lo")  # where the controllers are
        (interface,) = parse_network_data(network_data({"link": "m", "type": "ipv6_dhcpv6-stateful"}), "fd00:1::7")
        for words in commands("eth0", interface):
            subprocess.run(["ip", "netns", "exec", guest, *words], check=True, timeout=10)

        def answers() -> bool:
            subprocess.run(["ip", "netns", "exec", router, sys.executable, "-c", ADVERTISE], check=False, timeout=10)
            words = ["ip", "netns", "exec", router, "ping", "-6", "-c", "1", "-W", "1", "-I", "fd00:2::1", "fd00:1::7"]
            return subprocess.run(words, check=False, capture_output=True, timeout=10).returncode == 0

        wait_for(answers, 20)
    finally:
        for name in (guest, router):
            ip("netns", "delete", name)


def test_network_data_that_is_damaged_is_told() -> None:
    with pytest.raises(BadDrive, match=r"network_data\.json cannot be read"):
        parse_network_data(b'{"links": [{}]}')


def test_an_interface_of_dhcp_asks_for_its_address() -> None:
    found = commands("eth0", Interface("02:00:00:00:00:01", None, (), (), dhcp=True))
    assert [found[0], found[1][0]] == [["ip", "link", "set", "dev", "eth0", "up"], "udhcpc"]


def test_an_interface_is_up_before_it_gets_addresses_and_routes() -> None:
    given = Interface("02:00:00:00:00:01", 1450, ("10.0.0.5/24", "fd00::5/64"), (("0.0.0.0/0", "10.0.0.1"),))
    assert [" ".join(words) for words in commands("eth0", given)] == [
        "ip link set dev eth0 mtu 1450 up",
        "ip address replace 10.0.0.5/24 dev eth0",
        "ip address replace fd00::5/64 dev eth0 nodad",
        "ip route replace 0.0.0.0/0 via 10.0.0.1 dev eth0",
    ]
