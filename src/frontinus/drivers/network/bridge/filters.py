"""What may reach a port, and what may be sent by it, as scripts of nftables for the bridge that the port's link is on. Pure.

Without connection tracking, on purpose: in bridges it is a module of its own that many kernels lack, and a table that a
flood fills. TCP needs none, since what opens a connection can be told from what answers. Datagrams cannot be told apart, so
answers are known by going to an ephemeral port, where an amphora has nothing but its own questions.

Who sends is told at once when a frame enters the bridge: by the port's MAC, as one of its addresses or VIPs, in ARP and in
neighbour discovery too. So no amphora can take the place of another, of a client, or of this machine.

One chain for each port and direction; a map leads from the link to it, so that a thousand ports cost a packet no more than one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv6Address, ip_address, ip_network

from frontinus.drivers.network.bridge.records import Address
from frontinus.model.ports import AllowedTraffic, TrafficProtocol

_EPHEMERAL = "32768-60999"
"""net.ipv4.ip_local_port_range, as Linux has it unless somebody changes it in the amphora, where only we do."""

_VRRP = 112
_ALWAYS = (
    "ether type arp accept",
    "ip protocol icmp accept",
    "meta l4proto ipv6-icmp accept",
    # Later fragments have no ports; without the first, which has, they come to nothing.
    "ip frag-off & 0x1fff != 0 accept",
    "frag frag-off != 0 accept",
)
_ONLY_ROUTERS_SAY = ("nd-router-advert", "nd-redirect")
_GROUP_REPORTS = ("mld-listener-report", "mld-listener-done", "mld2-listener-report")
_TARGET = "@th,64,128"
"""The target of a neighbour solicitation or advertisement (RFC 4861, 4.3): nftables has a word for it since 1.0.8 only."""

_ANSWERS = (
    "tcp flags & (syn | ack) != syn accept",
    f"udp dport {_EPHEMERAL} accept",
    f"sctp dport {_EPHEMERAL} accept",
)


def guard(table: str, link: str, allowed: tuple[AllowedTraffic, ...]) -> str:
    """A script that lets only this reach the link, whatever was let in before; all at once."""
    chain = _chain(link)
    lines = [
        *_frame(table),
        f"add chain bridge {table} {chain}",
        f"flush chain bridge {table} {chain}",
        *(f"add rule bridge {table} {chain} {rule}" for rule in (*_ALWAYS, *_ANSWERS)),
        *(f"add rule bridge {table} {chain} {rule}" for x in allowed for rule in _rules(x)),
        f"add rule bridge {table} {chain} drop",
        f'add element bridge {table} links {{ "{link}" : jump {chain} }}',
    ]
    return "\n".join(lines) + "\n"


def only_as(table: str, link: str, mac: str, addresses: Iterable[str]) -> str:
    """A script that lets only these addresses send by the link, whatever was let before; all at once."""
    chain = _sender_chain(link)
    lines = [
        *_frame(table),
        f"add chain bridge {table} {chain}",
        f"flush chain bridge {table} {chain}",
        *(f"add rule bridge {table} {chain} {rule}" for rule in _sender_rules(mac, tuple(map(ip_address, addresses)))),
        f'add element bridge {table} senders {{ "{link}" : jump {chain} }}',
    ]
    return "\n".join(lines) + "\n"


def forget(table: str, link: str) -> str:
    """A script after which nothing is known of the link, whether something was before or not."""
    lines = list(_frame(table))
    for lead, chain in (("links", _chain(link)), ("senders", _sender_chain(link))):
        lines += [
            f"add chain bridge {table} {chain}",
            f'add element bridge {table} {lead} {{ "{link}" : jump {chain} }}',
            f'delete element bridge {table} {lead} {{ "{link}" }}',
            f"flush chain bridge {table} {chain}",
            f"delete chain bridge {table} {chain}",
        ]
    return "\n".join(lines) + "\n"


def remove(table: str) -> str:
    return f"add table bridge {table}\ndelete table bridge {table}\n"


def _frame(table: str) -> Iterator[str]:
    """The table, and that what goes out by a link, from wherever, and what comes in by it are led through its chains."""
    yield f"add table bridge {table}"
    yield f"add map bridge {table} senders {{ type ifname : verdict; }}"
    yield f"add chain bridge {table} prerouting {{ type filter hook prerouting priority 0; policy accept; }}"
    yield f"flush chain bridge {table} prerouting"
    yield f"add rule bridge {table} prerouting iifname vmap @senders"
    yield f"add map bridge {table} links {{ type ifname : verdict; }}"
    for hook in ("forward", "output"):
        yield f"add chain bridge {table} {hook} {{ type filter hook {hook} priority 0; policy accept; }}"
        yield f"flush chain bridge {table} {hook}"
        yield f"add rule bridge {table} {hook} oifname vmap @links"


def _chain(link: str) -> str:
    return f"to_{link.replace('-', '_')}"


def _sender_chain(link: str) -> str:
    return f"from_{link.replace('-', '_')}"


def _sender_rules(mac: str, addresses: tuple[Address, ...]) -> Iterator[str]:
    """What is not accepted by one of them is dropped: other protocols than ARP and IP, and frames of VLANs, too."""
    v4 = [str(x) for x in addresses if x.version == 4]
    v6 = [x for x in addresses if x.version == 6]
    yield f"ether saddr != {mac} drop"
    yield f"arp saddr ether != {mac} drop"
    if v4:
        # Who asks whether an address is free says 0.0.0.0 (RFC 5227, 2.1.1).
        yield f"arp saddr ip {{ {', '.join(('0.0.0.0', *v4))} }} accept"
        yield f"ip saddr {{ {', '.join(v4)} }} accept"
    local = _link_local(mac)
    targets = ", ".join(f"0x{int(x):032x}" for x in (*v6, local))
    yield f"icmpv6 type {{ {', '.join(_ONLY_ROUTERS_SAY)} }} drop"
    yield f"icmpv6 type nd-neighbor-advert {_TARGET} != {{ {targets} }} drop"
    # Who asks whether an address is free has none (RFC 4862, 5.4.2); who has one hears it as a claim to it.
    yield f"ip6 saddr :: icmpv6 type nd-neighbor-solicit {_TARGET} {{ {targets} }} accept"
    yield f"ip6 saddr :: icmpv6 type {{ {', '.join(_GROUP_REPORTS)} }} accept"
    yield f"ip6 saddr {{ {', '.join(str(x) for x in (*v6, local))} }} accept"
    yield "drop"


def _link_local(mac: str) -> IPv6Address:
    """As Linux makes it from the MAC (RFC 4291, appendix A)."""
    first, *rest = (int(x, 16) for x in mac.split(":"))
    identifier = bytes((first ^ 2, *rest[:2], 0xFF, 0xFE, *rest[2:]))
    return IPv6Address(b"\xfe\x80" + bytes(6) + identifier)


def _rules(allowed: AllowedTraffic) -> Iterator[str]:
    source = ""
    if allowed.source is not None:
        network = ip_network(allowed.source, strict=False)
        source = f"{'ip' if network.version == 4 else 'ip6'} saddr {network} "
    if allowed.protocol is TrafficProtocol.VRRP:
        yield f"{source}meta l4proto {_VRRP} accept"
    elif allowed.port is None:
        yield f"{source}meta l4proto {allowed.protocol} accept"
    else:
        yield f"{source}{allowed.protocol} dport {int(allowed.port)} accept"
