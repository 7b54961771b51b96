"""What an amphora makes of its config drive."""

import base64
import json

import pytest

from frontinus_amphora.boot import (
    BadDrive,
    Interface,
    commands,
    laid_down,
    parse_network_data,
    parse_user_data,
)


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
            (Interface("fa:16:3e:00:00:01", 1450, (), ()),),
            id="DHCP",
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
    assert expected == parse_network_data(content)


def test_network_data_that_is_damaged_is_told() -> None:
    with pytest.raises(BadDrive, match=r"network_data\.json cannot be read"):
        parse_network_data(b'{"links": [{}]}')


def test_an_interface_without_addresses_asks_for_one() -> None:
    found = commands("eth0", Interface("02:00:00:00:00:01", None, (), ()))
    assert [found[0], found[1][0]] == [["ip", "link", "set", "dev", "eth0", "up"], "udhcpc"]


def test_an_interface_is_up_before_it_gets_addresses_and_routes() -> None:
    given = Interface("02:00:00:00:00:01", 1450, ("10.0.0.5/24", "fd00::5/64"), (("0.0.0.0/0", "10.0.0.1"),))
    assert [" ".join(words) for words in commands("eth0", given)] == [
        "ip link set dev eth0 mtu 1450 up",
        "ip address replace 10.0.0.5/24 dev eth0",
        "ip address replace fd00::5/64 dev eth0 nodad",
        "ip route replace 0.0.0.0/0 via 10.0.0.1 dev eth0",
    ]
