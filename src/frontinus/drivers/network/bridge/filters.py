"""What may reach a port, as a script of nftables for the bridge that the port's link is on. Pure.

Without connection tracking, on purpose: in bridges it is a module of its own that many kernels lack, and a table that a
flood fills. TCP needs none, since what opens a connection can be told from what answers. Datagrams cannot be told apart, so
answers are known by going to an ephemeral port, where an amphora has nothing but its own questions.

One chain for each port; a map leads from the link to it, so that a thousand ports cost a packet no more than one."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network

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
)
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


def forget(table: str, link: str) -> str:
    """A script after which nothing is known of the link, whether something was before or not."""
    chain = _chain(link)
    lines = [
        *_frame(table),
        f"add chain bridge {table} {chain}",
        f'add element bridge {table} links {{ "{link}" : jump {chain} }}',
        f'delete element bridge {table} links {{ "{link}" }}',
        f"flush chain bridge {table} {chain}",
        f"delete chain bridge {table} {chain}",
    ]
    return "\n".join(lines) + "\n"


def remove(table: str) -> str:
    return f"add table bridge {table}\ndelete table bridge {table}\n"


def _frame(table: str) -> Iterator[str]:
    """The table, and that what goes out by a link, from wherever, is led through its chain."""
    yield f"add table bridge {table}"
    yield f"add map bridge {table} links {{ type ifname : verdict; }}"
    for hook in ("forward", "output"):
        yield f"add chain bridge {table} {hook} {{ type filter hook {hook} priority 0; policy accept; }}"
        yield f"flush chain bridge {table} {hook}"
        yield f"add rule bridge {table} {hook} oifname vmap @links"


def _chain(link: str) -> str:
    return f"to_{link.replace('-', '_')}"


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
