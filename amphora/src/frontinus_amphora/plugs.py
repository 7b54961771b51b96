"""What an amphora was told of one interface, as a value: parsed from the plain protocol's bodies, and what follows of it.

Pure: which addresses, routes and rules the interface shall have. The bodies: contract amphora-agent.yaml, plug_vip and
plug_network. Next: interfaces.py, which brings the kernel there.
"""

import ipaddress
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from frontinus_amphora.errors import Invalid

VIP_TABLE = "1"
"""Octavia's: what is sent from a VIP leaves by the VIP's interface, whatever the main table says."""

RULE_PRIORITY = "100"
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_MTU = range(576, 65_536)

Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface


class Held(NamedTuple):
    """An address on a subnet, with the ways from there."""

    address: str
    prefix_length: int
    gateway: str | None
    routes: tuple[tuple[str, str], ...]  # destination, next hop

    @property
    def subnet(self) -> str:
        return str(ipaddress.ip_interface(f"{self.address}/{self.prefix_length}").network)


class Plug(NamedTuple):
    """`vips` are held unless somebody else (keepalived) holds them; then they are only made usable. `own` are the
    addresses of the amphora itself on the VIPs' subnets, `fixed` further ones."""

    mac: str
    mtu: int | None
    vips: tuple[Held, ...]
    own: tuple[Held, ...]
    fixed: tuple[Held, ...]
    holds_vips: bool

    @property
    def is_vip(self) -> bool:
        return bool(self.vips)


class Route(NamedTuple):
    family: int
    table: str
    destination: str
    via: str | None


def parse_vip(vip: str, body: dict[str, Any]) -> Plug:
    """Raises Invalid naming what is wrong. `fixed` is empty."""
    primary = _held("VIP", vip, body)
    own = () if body.get("vrrp_ip") is None else (_held("VRRP", body["vrrp_ip"], body),)
    further = body.get("additional_vips") or []
    if not isinstance(further, list) or not all(isinstance(x, dict) for x in further):
        raise Invalid("Invalid VIP", "additional_vips must be a list of objects")
    return Plug(
        mac=parse_mac(body),
        mtu=_mtu(body),
        vips=(primary, *(_held("VIP", x.get("ip_address"), x) for x in further)),
        own=own,
        fixed=(),
        # Not Octavia's: its agent reads the topology in its own configuration file, which ours may share.
        holds_vips=body.get("hold_vips", True) is not False,
    )


def parse_network(body: dict[str, Any]) -> Plug:
    """Raises Invalid. With vip_net_info it is the VIPs' interface, with further addresses."""
    fixed_ips = body.get("fixed_ips") or []
    if not isinstance(fixed_ips, list) or not all(isinstance(x, dict) for x in fixed_ips):
        raise Invalid("Invalid network port", "fixed_ips must be a list of objects")
    fixed = tuple(_held("network port", x.get("ip_address"), x) for x in fixed_ips)
    info = body.get("vip_net_info")
    if info is not None:
        if not isinstance(info, dict):
            raise Invalid("Invalid network port", "vip_net_info must be an object")
        plug = parse_vip(str(info.get("vip")), info)
        return plug._replace(mac=parse_mac(body), fixed=fixed)
    return Plug(mac=parse_mac(body), mtu=_mtu(body), vips=(), own=(), fixed=fixed, holds_vips=True)


def parse_mac(body: dict[str, Any]) -> str:
    mac = str(body.get("mac_address")).lower()
    if not _MAC.fullmatch(mac):
        raise Invalid("Invalid port information", "mac_address must be a MAC address")
    return mac


def wanted_addresses(plug: Plug) -> set[str]:
    """As `address/prefix`. A VIP is alone in its subnet, so that nothing is sent from it unless it is bound to."""
    own = {f"{x.address}/{x.prefix_length}" for x in (*plug.own, *plug.fixed)}
    return own | (vip_addresses(plug) if plug.holds_vips else set())


def vip_addresses(plug: Plug) -> set[str]:
    return {f"{x.address}/{_whole(x)}" for x in plug.vips}


def wanted_routes(plug: Plug) -> Iterator[Route]:
    """The subnet's own route comes with an own address; without one (and in the VIP's table) it is made here."""
    own_subnets = {x.subnet for x in (*plug.own, *plug.fixed)}
    seen: set[tuple[str, str]] = set()
    for table, each in [*((VIP_TABLE, x) for x in plug.vips), *(("main", x) for x in _main(plug))]:
        family = _family(each)
        ways: list[tuple[str, str | None]] = []
        if table != "main" or each.subnet not in own_subnets:
            ways.append((each.subnet, None))
        # Out into the world goes what no other interface is for: by the VIP's.
        if each.gateway is not None and (table != "main" or plug.is_vip):
            ways.append(("default", each.gateway))
        ways += each.routes
        for destination, via in ways:
            if (table, f"{family} {destination}") not in seen:
                seen.add((table, f"{family} {destination}"))
                yield Route(family, table, destination, via)


def rule_sources(plug: Plug) -> set[tuple[int, str]]:
    """(family, address) of whatever is sent from the VIPs or the own addresses beside them."""
    return {(_family(x), x.address) for x in (*plug.vips, *plug.own)}


def to_json(plug: Plug) -> dict[str, Any]:
    return plug._asdict()


def from_json(value: dict[str, Any]) -> Plug:
    """Raises KeyError, TypeError or ValueError for what `to_json` did not write."""

    def held(rows: Any) -> tuple[Held, ...]:
        return tuple(Held(a, p, g, tuple((d, n) for d, n in routes)) for a, p, g, routes in rows)

    return Plug(
        mac=value["mac"],
        mtu=value["mtu"],
        vips=held(value["vips"]),
        own=held(value["own"]),
        fixed=held(value["fixed"]),
        holds_vips=value["holds_vips"],
    )


def _main(plug: Plug) -> tuple[Held, ...]:
    return (*plug.own, *plug.fixed) or plug.vips


def _held(what: str, address: object, body: dict[str, Any]) -> Held:
    try:
        parsed = ipaddress.ip_address(str(address))
        subnet = ipaddress.ip_network(str(body["subnet_cidr"]), strict=False)
        gateway = body.get("gateway")
        routes = tuple(
            (str(ipaddress.ip_network(x["destination"], strict=False)), str(ipaddress.ip_address(x["nexthop"])))
            for x in body.get("host_routes") or ()
        )
        if gateway is not None:
            gateway = str(ipaddress.ip_address(str(gateway)))
    except (KeyError, TypeError, ValueError) as error:
        raise Invalid(f"Invalid {what}", str(error)) from error
    if parsed.version != subnet.version:
        raise Invalid(f"Invalid {what}", f"{parsed} is not in {subnet}")
    return Held(str(parsed), subnet.prefixlen, gateway, routes)


def _mtu(body: dict[str, Any]) -> int | None:
    mtu = body.get("mtu")
    if mtu is None:
        return None
    if not isinstance(mtu, int) or mtu not in _MTU:
        raise Invalid("Invalid port information", f"mtu must be from {_MTU.start} to {_MTU.stop - 1}")
    return mtu


def _family(held: Held) -> int:
    return ipaddress.ip_address(held.address).version


def _whole(held: Held) -> int:
    return ipaddress.ip_address(held.address).max_prefixlen
