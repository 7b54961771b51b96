"""What an nginx configuration means, told to the agent beside it: docs/reference/agent-extension.md, Outline.

Pure. Next: stream.py, which fills it."""

from __future__ import annotations

import ipaddress

import msgspec

from frontinus.model.enums import HealthMonitorType
from frontinus.model.tree import HealthMonitor, LoadBalancerTree, Member


class Check(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """How the agent examines a member that nginx cannot examine. Times in seconds."""

    kind: str
    address: str
    port: int
    interval: float
    timeout: float
    rise: int
    fall: int
    request: str = ""
    codes: tuple[tuple[int, int], ...] = ()


class MemberOutline(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    status: str = "no check"
    backup: bool = False
    check: Check | None = None


class ListenerOutline(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    binds: tuple[tuple[str, int], ...]
    datagrams: bool
    pool: str | None = None
    """For datagrams: whose members its sessions are with."""


class Outline(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    listeners: dict[str, ListenerOutline]
    pools: dict[str, dict[str, MemberOutline]]
    workers: int = 1

    def encode(self) -> bytes:
        """Same value, same bytes."""
        return msgspec.json.format(msgspec.json.encode(self, order="deterministic"), indent=1) + b"\n"


SHORTEST_INTERVAL_S = 0.1
"""For a delay of 0, checks one after another: as often as is sane, as with HAProxy."""


def member_outline(member: Member, monitor: HealthMonitor | None, tree: LoadBalancerTree) -> MemberOutline:
    """What is said of a member, and how it is examined. A disabled or draining one is not."""
    if not member.admin_state_up:
        return MemberOutline(status="MAINT", backup=member.backup)
    if member.weight == 0:
        return MemberOutline(status="DRAIN", backup=member.backup)
    check = None if monitor is None else _check(member, monitor, tree)
    return MemberOutline(backup=member.backup, check=check)


def _check(member: Member, monitor: HealthMonitor, tree: LoadBalancerTree) -> Check:
    address = str(ipaddress.ip_address(member.monitor_address or member.address))
    is_http = monitor.type is HealthMonitorType.HTTP
    return Check(
        kind=monitor.type.value,
        address=address,
        port=member.monitor_port or member.protocol_port,
        interval=max(SHORTEST_INTERVAL_S, float(monitor.delay)),
        timeout=float(monitor.timeout) or SHORTEST_INTERVAL_S,
        rise=monitor.max_retries,
        fall=monitor.max_retries_down,
        request=_request(monitor, tree) if is_http else "",
        codes=_codes(monitor.expected_codes or "200") if is_http else (),
    )


def _request(monitor: HealthMonitor, tree: LoadBalancerTree) -> str:
    """As it goes over the wire. HTTP/1.1 requires a Host (RFC 9112 3.2): where none is given, the one that a client who
    knows only the VIP's address would send."""
    version = "1.1" if monitor.http_version == 1.1 else "1.0"
    host = monitor.domain_name
    if host is None and version == "1.1":
        vip = tree.load_balancer.vip.address
        host = f"[{vip}]" if ":" in vip else vip
    lines = [f"{monitor.http_method or 'GET'} {monitor.url_path or '/'} HTTP/{version}"]
    if host is not None:
        lines.append(f"Host: {host}")
    return "\r\n".join([*lines, "Connection: close", "", ""])


def _codes(text: str) -> tuple[tuple[int, int], ...]:
    """`200`, `200,204` or `200-204` as ranges."""
    found = []
    for part in "".join(text.split()).split(","):
        low, dash, high = part.partition("-")
        found.append((int(low), int(high if dash else low)))
    return tuple(found)
