"""Tell the neighbours that an address is here now: gratuitous ARP (RFC 5227) and unsolicited neighbour advertisements
(RFC 4861, 7.2.6), so that a replaced amphora's address is found at once and not when their caches expire.
"""

import ipaddress
import socket
import struct

from frontinus_amphora.log import log

_ETH_ARP, _ETH_IPV6 = 0x0806, 0x86DD
_BROADCAST = b"\xff" * 6
_ALL_NODES = ipaddress.IPv6Address("ff02::1")
_ADVERTISEMENT, _OVERRIDE, _TARGET_LINK_LAYER = 136, 0x2000_0000, 2


def announce(interface: str, mac: str, addresses: list[str]) -> None:
    """Say it once for each address. What cannot be said is logged: the address works without it, later."""
    hardware = bytes.fromhex(mac.replace(":", ""))
    try:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
            wire.bind((interface, 0))
            for text in addresses:
                address = ipaddress.ip_address(text)
                frame = (
                    gratuitous_arp(address, hardware)
                    if isinstance(address, ipaddress.IPv4Address)
                    else unsolicited_advertisement(address, hardware)
                )
                wire.send(frame)
    except OSError as error:
        log("addresses not announced", interface=interface, error=str(error))


def gratuitous_arp(address: ipaddress.IPv4Address, hardware: bytes) -> bytes:
    """An Ethernet frame: a request for the address itself, from whoever has it."""
    head = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1)
    body = head + hardware + address.packed + bytes(6) + address.packed
    return _BROADCAST + hardware + struct.pack("!H", _ETH_ARP) + body


def unsolicited_advertisement(address: ipaddress.IPv6Address, hardware: bytes) -> bytes:
    """An Ethernet frame to all nodes, with the override flag."""
    option = struct.pack("!BB", _TARGET_LINK_LAYER, 1) + hardware
    bare = struct.pack("!BBHI", _ADVERTISEMENT, 0, 0, _OVERRIDE) + address.packed + option
    pseudo = address.packed + _ALL_NODES.packed + struct.pack("!II", len(bare), socket.IPPROTO_ICMPV6)
    message = bare[:2] + struct.pack("!H", checksum(pseudo + bare)) + bare[4:]
    head = struct.pack("!IHBB", 6 << 28, len(message), socket.IPPROTO_ICMPV6, 255) + address.packed + _ALL_NODES.packed
    return b"\x33\x33\x00\x00\x00\x01" + hardware + struct.pack("!H", _ETH_IPV6) + head + message


def checksum(content: bytes) -> int:
    """The Internet checksum (RFC 1071) of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(content) // 2}H", content))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
