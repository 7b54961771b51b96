"""What may be sent by a port: real frames from a namespace on a bridge, and which of them another host there sees.
Run by test_sandbox.py."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest

from frontinus.drivers import iproute
from frontinus.drivers.network.bridge.administration import Administration, SubnetWish
from frontinus.drivers.network.bridge.driver import BridgeNetwork, BridgeSettings
from frontinus.model.ids import AmphoraId, LoadBalancerId, ProjectId, new_id
from frontinus.model.ports import Port, PortPurpose, PortRequest

from tests.integration.netns.hosts import Host, ip, ip_json

VIPS = ("10.20.0.10", "fd20::10")
OTHERS = ("10.20.0.2", "fd20::2")
OTHER_MAC = bytes.fromhex("0200000000aa")
EVERYBODY = b"\xff" * 6
ETH_P_ALL = 0x0003
ARP, IPV4, IPV6, VLAN, EXPERIMENT = 0x0806, 0x0800, 0x86DD, 0x8100, 0x88B5
VRRP, UDP, ICMPV6, HOP_BY_HOP = 112, 17, 58, 0
ROUTER_ADVERT, SOLICIT, ADVERT, REDIRECT, REPORT = 134, 135, 136, 137, 143


def packed(address: str) -> bytes:
    return ip_address(address).packed


def frame(source: bytes, kind: int, content: bytes) -> bytes:
    return EVERYBODY + source + struct.pack(">H", kind) + content


def arp(mac: bytes, sender: str, target: str, *, claimed: bytes | None = None) -> bytes:
    content = struct.pack(">HHBBH", 1, IPV4, 6, 4, 1) + (claimed or mac) + packed(sender) + bytes(6) + packed(target)
    return frame(mac, ARP, content)


def ipv4(mac: bytes, sender: str, protocol: int = UDP, text: bytes = b"") -> bytes:
    content = struct.pack(">HHHH", 4000, 4001, 8 + len(text), 0) + text
    addresses = packed(sender) + packed("10.20.0.255")
    start = struct.pack(">BBHHHBB", 0x45, 0, 20 + len(content), 0, 0, 64, protocol)
    # Some kernels look at what bridges forward, and drop what has another sum (br_netfilter).
    total = sum(struct.unpack(">9H", start + addresses))
    total = (total & 0xFFFF) + (total >> 16)
    return frame(
        mac, IPV4, start + struct.pack(">H", ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF) + addresses + content
    )


def ipv6(mac: bytes, sender: str, following: int, content: bytes) -> bytes:
    header = struct.pack(">IHBB", 0x60000000, len(content), following, 255)
    return frame(mac, IPV6, header + packed(sender) + packed("ff02::1") + content)


def neighbour(mac: bytes, sender: str, kind: int, target: str) -> bytes:
    """A solicitation or an advertisement (RFC 4861, 4.3 and 4.4) with the link-layer address."""
    option = struct.pack(">BB", 1 if kind == SOLICIT else 2, 1) + mac
    return ipv6(mac, sender, ICMPV6, struct.pack(">BBHI", kind, 0, 0, 0x20000000) + packed(target) + option)


def hidden(mac: bytes, sender: str, target: str) -> bytes:
    """The advertisement behind an extension header."""
    plain = neighbour(mac, sender, ADVERT, target)
    content = plain[14 + 40 :]
    return ipv6(mac, sender, HOP_BY_HOP, struct.pack(">BB", ICMPV6, 0) + b"\x01\x04\0\0\0\0" + content)


def link_local(mac: bytes) -> str:
    return str(ip_address(b"\xfe\x80" + bytes(6) + bytes([mac[0] ^ 2]) + mac[1:3] + b"\xff\xfe" + mac[3:]))


def allowed(mac: bytes, own: tuple[str, str]) -> dict[str, bytes]:
    four, six = own
    return {
        "ARP for its own address": arp(mac, four, OTHERS[0]),
        "ARP that probes": arp(mac, "0.0.0.0", four),
        "gratuitous ARP for the VIP": arp(mac, VIPS[0], VIPS[0]),
        "IPv4": ipv4(mac, four),
        "IPv4 from the VIP": ipv4(mac, VIPS[0]),
        "VRRP": ipv4(mac, four, VRRP),
        "IPv6": ipv6(mac, six, UDP, bytes(8)),
        "IPv6 from the VIP": ipv6(mac, VIPS[1], UDP, bytes(8)),
        "IPv6 from its link-local address": ipv6(mac, link_local(mac), UDP, bytes(8)),
        "VRRP of IPv6": ipv6(mac, six, VRRP, bytes(8)),
        "solicits a neighbour": neighbour(mac, six, SOLICIT, OTHERS[1]),
        "advertises itself": neighbour(mac, six, ADVERT, six),
        "advertises the VIP": neighbour(mac, VIPS[1], ADVERT, VIPS[1]),
        "looks for a double of its own": neighbour(mac, "::", SOLICIT, six),
        "looks for a double of the VIP": neighbour(mac, "::", SOLICIT, VIPS[1]),
        "reports its groups": ipv6(mac, "::", ICMPV6, struct.pack(">BBHI", REPORT, 0, 0, 0)),
    }


def forbidden(mac: bytes, own: tuple[str, str]) -> dict[str, bytes]:
    four, six = own
    tag = struct.pack(">HH", 5, ARP)
    claim = arp(mac, OTHERS[0], OTHERS[0])
    return {
        "ARP for another's address": claim,
        "ARP in another's name": arp(mac, four, four, claimed=OTHER_MAC),
        "ARP from another's MAC": arp(OTHER_MAC, four, four),
        "ARP in a VLAN": frame(mac, VLAN, tag + claim[14:]),
        "IPv4 from another's address": ipv4(mac, OTHERS[0]),
        "IPv4 from nowhere": ipv4(mac, "10.99.0.1"),
        "IPv4 from another's MAC": ipv4(OTHER_MAC, four),
        "VRRP from another's address": ipv4(mac, OTHERS[0], VRRP),
        "IPv6 from another's address": ipv6(mac, OTHERS[1], UDP, bytes(8)),
        "IPv6 from another's MAC": ipv6(OTHER_MAC, six, UDP, bytes(8)),
        "IPv6 from another's link-local address": ipv6(mac, link_local(OTHER_MAC), UDP, bytes(8)),
        "advertises another's address": neighbour(mac, six, ADVERT, OTHERS[1]),
        "advertises another's address behind a header": hidden(mac, six, OTHERS[1]),
        "says that another's address has a double": neighbour(mac, "::", SOLICIT, OTHERS[1]),
        "says that it is a router": ipv6(mac, link_local(mac), ICMPV6, struct.pack(">BBHI", ROUTER_ADVERT, 0, 0, 0)),
        "redirects": ipv6(mac, link_local(mac), ICMPV6, struct.pack(">BBHI", REDIRECT, 0, 0, 0) + packed(six) * 2),
        "spanning tree": EVERYBODY + mac + struct.pack(">H", 38) + b"\x42\x42\x03" + bytes(35),
        "another protocol": frame(mac, EXPERIMENT, bytes(30)),
    }


@contextmanager
def seen_by(host: Host) -> Iterator[list[bytes]]:
    """The frames that come to a host, in order; the list is filled at the end, whose mark is a frame of "the end"."""

    def listen() -> socket.socket:
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        made.bind(("eth0", ETH_P_ALL))
        made.settimeout(5)
        return made

    listening, seen = host.within(listen), list[bytes]()
    with listening:
        yield seen
        while True:
            got, where = listening.recvfrom(2048)
            if where[2] == socket.PACKET_OUTGOING:
                continue
            seen.append(got)
            if b"the end" in got:
                return


def await_forwarding(*links: str) -> None:
    """A bridge forwards what comes by a link a moment after that is up."""
    deadline = time.monotonic() + 5
    while any(
        row["linkinfo"]["info_slave_data"]["state"] != "forwarding"
        for link in links
        for row in ip_json("-d", "link", "show", "dev", link)
    ):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def send(host: Host, frames: list[bytes]) -> None:
    def work() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
            sender.bind(("eth0", 0))
            for each in frames:
                sender.send(each)

    host.within(work)


class Plugged(Host):
    """An amphora's namespace, on the bridge by its port."""

    def __init__(self, name: str, port: Port) -> None:
        self.name = name
        ip("netns", "add", name)
        ip("link", "add", port.link, "type", "veth", "peer", "name", "eth0", "address", port.mac, "netns", name)
        ip("link", "set", port.link, "master", port.attachment, "up")
        ip("-n", name, "link", "set", "eth0", "up")
        await_forwarding(port.link)


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[BridgeNetwork]:
    made = BridgeNetwork(BridgeSettings(state_dir=tmp_path))
    yield made
    asyncio.run(made.dismantle())
    asyncio.run(made.close())


def vip_request(driver: BridgeNetwork, *, vips: tuple[str, ...] = VIPS) -> PortRequest:
    administration = Administration(driver.records)
    networks, state = administration.networks()
    if not networks:
        network = administration.create_network("front")
        for cidr in ("10.20.0.0/24", "fd20::/64"):
            administration.create_subnet("front", SubnetWish(cidr=cidr))
        networks, state = administration.networks()
    (network,) = networks
    return PortRequest(
        amphora_id=AmphoraId(new_id()),
        load_balancer_id=LoadBalancerId(new_id()),
        project_id=ProjectId("p"),
        purpose=PortPurpose.VIP,
        network_id=network.id,
        subnet_ids=tuple(x.id for x in state.subnets_of(network.id)),
        vips=vips,
    )


def own_of(port: Port) -> tuple[str, str]:
    four = next(x.address for x in port.addresses if "." in x.address)
    return four, next(x.address for x in port.addresses if ":" in x.address)


def test_a_port_sends_as_itself_and_its_vips_only(driver: BridgeNetwork) -> None:
    request = vip_request(driver)
    port = asyncio.run(driver.create_port(request))
    client = Host("client", port.attachment, f"{OTHERS[0]}/24", f"{OTHERS[1]}/64")
    await_forwarding("to-client")
    amphora = Plugged("amphora", port)
    mac, own = bytes.fromhex(port.mac.replace(":", "")), own_of(port)
    may, may_not = allowed(mac, own), forbidden(mac, own)
    the_end = ipv6(mac, own[1], UDP, bytes(8) + b"the end")
    with seen_by(client) as seen:
        send(amphora, [*may.values(), *may_not.values(), the_end])
    assert [name for name, each in may.items() if each not in seen] == []
    assert [name for name, each in may_not.items() if each in seen] == []

    # The VIPs move to another load balancer: what may be sent follows, and the link is the same.
    asyncio.run(driver.create_port(vip_request_of(request, ())))
    with seen_by(client) as seen:
        send(amphora, [*may.values(), the_end])
    gone = {name for name, each in may.items() if each not in seen}
    assert gone == {name for name in may if "the VIP" in name}

    # A port that is gone leaves no rule: whatever comes to have its name is another's.
    asyncio.run(driver.delete_port(port.amphora_id, port.id))
    with seen_by(client) as seen:
        send(amphora, [*may_not.values(), the_end])
    # Linux shows a frame of a VLAN without its tag, so that one looks like the claim in it; above, too.
    assert [name for name, each in may_not.items() if each not in seen] == ["ARP in a VLAN"]
    assert iproute.link_exists(port.link)


@pytest.mark.parametrize("family", [4, 6])
def test_an_answer_in_fragments_arrives(family: int, driver: BridgeNetwork) -> None:
    """Only the first of them says from which port it is."""
    port = asyncio.run(driver.create_port(vip_request(driver)))
    member = Host("member", port.attachment, f"{OTHERS[0]}/24", f"{OTHERS[1]}/64")
    await_forwarding("to-member")
    amphora = Plugged("fragments", port)
    own, their = (x[0 if family == 4 else 1] for x in (own_of(port), OTHERS))
    length = ["/24", "dev", "eth0"] if family == 4 else ["/64", "dev", "eth0", "nodad"]
    ip("-n", amphora.name, "address", "add", f"{own}{length[0]}", *length[1:])
    asking, answering = (host.within(lambda: datagrams(family)) for host in (amphora, member))
    with asking, answering:
        answering.bind((their, 53))
        asking.sendto(b"what?", (their, 53))
        answering.sendto(4_000 * b"x", answering.recvfrom(100)[1])
        assert len(asking.recv(5_000)) == 4_000
    asyncio.run(driver.delete_port(port.amphora_id, port.id))
    for host in (member, amphora):
        ip("netns", "delete", host.name)


def datagrams(family: int) -> socket.socket:
    made = socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
    made.settimeout(5)
    return made


def test_a_port_of_management_is_itself_too(driver: BridgeNetwork) -> None:
    request = PortRequest(
        amphora_id=AmphoraId(new_id()),
        load_balancer_id=LoadBalancerId(new_id()),
        project_id=ProjectId("p"),
        purpose=PortPurpose.MANAGEMENT,
    )
    port = asyncio.run(driver.create_port(request))
    (own,) = [x.address for x in port.addresses]
    amphora = Plugged("managed", port)
    watcher = Host("watcher", port.attachment)
    await_forwarding("to-watcher")
    mac = bytes.fromhex(port.mac.replace(":", ""))
    controller = BridgeNetwork.controller_address(BridgeSettings(state_dir=Path("/")))
    honest, claim, sends = arp(mac, own, controller), arp(mac, controller, controller), ipv4(mac, controller)
    the_end = ipv4(mac, own, text=b"the end")
    with seen_by(watcher) as seen:
        send(amphora, [honest, claim, sends, the_end])
    assert [honest in seen, claim in seen, sends in seen] == [True, False, False]
    asyncio.run(driver.delete_port(port.amphora_id, port.id))


def vip_request_of(request: PortRequest, vips: tuple[str, ...]) -> PortRequest:
    return PortRequest(
        amphora_id=request.amphora_id,
        load_balancer_id=request.load_balancer_id,
        project_id=request.project_id,
        purpose=request.purpose,
        network_id=request.network_id,
        subnet_ids=request.subnet_ids,
        vips=vips,
    )
