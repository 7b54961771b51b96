"""What is let in by a port, as rules of a security group, and back. Pure.

Neutron lets answers in by itself, so only what opens a connection is written. A group comes with two rules of its own,
by which everything may leave; these stay. Nothing is asked or written here: amphora_ports.py does that."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_network

import msgspec

from frontinus.drivers.network.neutron.facts import RuleFacts
from frontinus.model.ports import AllowedTraffic, TrafficProtocol

_IPV4, _IPV6, _INGRESS = "IPv4", "IPv6", "ingress"
_NUMBER = {TrafficProtocol.VRRP: "112", TrafficProtocol.SCTP: "132"}
"""Protocols that older Neutrons do not know by name."""

_PROTOCOL = {x.value: x for x in TrafficProtocol} | {number: x for x, number in _NUMBER.items()}
_PING = {_IPV4: "icmp", _IPV6: "ipv6-icmp"}
_PINGS = {*_PING.values(), "icmpv6", "1", "58"}


class Rule(msgspec.Struct, frozen=True, order=True):
    """One rule of what comes in."""

    ethertype: str
    protocol: str
    port: int | None = None
    source: str | None = None

    def as_body(self, security_group_id: str) -> dict[str, object]:
        return {
            "security_group_id": security_group_id,
            "direction": _INGRESS,
            "ethertype": self.ethertype,
            "protocol": self.protocol,
            "port_range_min": self.port,
            "port_range_max": self.port,
            "remote_ip_prefix": self.source,
        }


def wanted(allowed: Iterable[AllowedTraffic], *, ping: bool) -> frozenset[Rule]:
    """`ping`: whether ICMP comes in as well."""
    found = {Rule(family, protocol) for family, protocol in _PING.items() if ping}
    for traffic in allowed:
        protocol = _NUMBER.get(traffic.protocol, traffic.protocol.value)
        if traffic.source is None:
            found |= {Rule(family, protocol, traffic.port) for family in (_IPV4, _IPV6)}
        else:
            network = ip_network(traffic.source, strict=False)
            found.add(Rule(_IPV4 if network.version == 4 else _IPV6, protocol, traffic.port, str(network)))
    return frozenset(found)


def read(rules: Iterable[RuleFacts]) -> dict[Rule, str]:
    """The ids of rules of what comes in, in the form in which we want them. One of another form (somebody's own) is there
    too, and equals none that we want."""
    return {
        Rule(
            x.ethertype,
            _spelling(x.protocol),
            x.port_range_min if x.port_range_min == x.port_range_max else -1,
            _source(x.remote_ip_prefix),
        ): x.id
        for x in rules
        if x.direction == _INGRESS
    }


def allowed(rules: Iterable[Rule]) -> tuple[AllowedTraffic, ...]:
    """What the rules let in beside ICMP."""
    found = {AllowedTraffic(_PROTOCOL[x.protocol], x.port, x.source) for x in rules if x.protocol in _PROTOCOL}
    return tuple(sorted(found, key=lambda x: (x.protocol.value, x.port or 0, x.source or "")))


def _spelling(protocol: str | None) -> str:
    if protocol is None:
        return ""
    if protocol in _PINGS:
        return _PING[_IPV6] if protocol in {"icmpv6", "ipv6-icmp", "58"} else _PING[_IPV4]
    known = _PROTOCOL.get(protocol)
    return protocol if known is None else _NUMBER.get(known, known.value)


def _source(prefix: str | None) -> str | None:
    return None if prefix is None else str(ip_network(prefix, strict=False))
