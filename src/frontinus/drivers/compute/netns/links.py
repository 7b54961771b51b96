"""A port as a veth pair: the outer end, named after the port (Port.link), hangs on the bridge that the network driver
names; the inner one is in the amphora's namespace. Blocks for some milliseconds. Raises Retry when the machine refuses."""

from __future__ import annotations

import fcntl
import socket
import struct
from contextlib import suppress

from frontinus.drivers import iproute
from frontinus.model.ports import Port, PortPurpose

_SIOCGIFFLAGS, _IFF_RUNNING = 0x8913, 0x40
_REQUEST = "16sH22x"
"""struct ifreq with a name and flags."""


def plug(namespace: str, port: Port) -> None:
    """The pair is there, both ends up, the inner one with the port's MAC; of a management port also its addresses."""
    inside = {row.get("address"): row["ifname"] for row in iproute.links(namespace=namespace)}
    if port.mac in inside and iproute.link_exists(port.link):
        inner = str(inside[port.mac])
    else:
        # One end without the other is of a namespace that is on its way out.
        delete(port.link)
        # The agent gives the others names of its own.
        inner, mtu = "eth0" if port.purpose is PortPurpose.MANAGEMENT else port.link, str(port.mtu)
        peer = ["peer", "name", inner, "address", port.mac, "mtu", mtu, "netns", namespace]
        iproute.change([["link", "add", "name", port.link, "mtu", mtu, "type", "veth", *peer]])
    iproute.change([["link", "set", "dev", port.link, "master", port.attachment, "up"]])
    iproute.change([["link", "set", "dev", inner, "up"]], namespace=namespace)
    if port.purpose is PortPurpose.MANAGEMENT:
        for address in port.addresses:
            is_v6 = ":" in address.address
            place = [f"{address.address}/{address.prefix_length}", "dev", inner, *(["nodad"] if is_v6 else [])]
            iproute.change([["address", "replace", *place]], namespace=namespace, family=6 if is_v6 else 4)


def delete(name: str) -> None:
    """There is no such link any more, nor its other end."""
    if iproute.link_exists(name):
        with suppress(iproute.Refused):  # it went by itself
            iproute.change([["link", "delete", "dev", name]])


def is_up(name: str) -> bool:
    """Whether there is such a link and its other end is up too. One system call: the loop's thread may ask."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
        try:
            answer = fcntl.ioctl(probe.fileno(), _SIOCGIFFLAGS, struct.pack(_REQUEST, name.encode(), 0))
        except OSError:
            return False
    flags: int = struct.unpack(_REQUEST, answer)[1]
    return bool(flags & _IFF_RUNNING)
