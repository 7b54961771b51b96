"""Health monitors as lines of a backend. Pure. Next: render.py puts them in their place; server.py says when each
member is checked.

Sources: HAProxy configuration manual 4.2 (option httpchk, http-check, external-check), 3.1 (insecure-fork-wanted),
3.2 (max-spread-checks)."""

from __future__ import annotations

from frontinus.drivers.amphora.haproxy.server import address_of, bracket
from frontinus.drivers.amphora.haproxy.text import checked, log_format
from frontinus.model.enums import HealthMonitorType
from frontinus.model.errors import Rejected
from frontinus.model.tree import HealthMonitor, LoadBalancerTree

LONGEST_TIMER_S = 2_147_483
"""HAProxy's timers are milliseconds in 31 bits, 24.8 days; longer ones that the API takes are as good as that."""

_HTTP_MONITORS = frozenset({HealthMonitorType.HTTP, HealthMonitorType.HTTPS})

PING_WRAPPER = "ping-wrapper.sh"
"""The program that agents keep in their directory, ours as Octavia's: it pings HAPROXY_SERVER_ADDR once."""

PING_DIRECTORIES = ".:/var/lib/frontinus-amphora"
"""Where our agent keeps it: in its own directory, where HAProxy runs; or, where the agent is root and HAProxy is not
(which then cannot look into that directory), in the one for all agents of the host."""

EXTERNAL_CHECK = ("option", "external-check")
"""What a backend has whose members are pinged. What such a check hands to its program HAProxy prepares at its start, for the
servers that it has then. It takes `add server ... check` too, but each check of that server fails (PROCERR) for as long as
this HAProxy runs: tried with 2.6, 3.0 and 3.2."""

PROCESSES_WANTED: tuple[tuple[str, ...], ...] = (
    ("external-check",),
    ("insecure-fork-wanted",),
    # Without it the right of `ping` to send ICMP, a capability of its file, would not count.
    ("insecure-setuid-wanted",),
)


FIRST_CHECK_WITHIN = "1s"
"""Left to itself HAProxy spreads the first checks of a start, and so of each reload, over a whole delay, and first looks at a
member that comes at run time after one: a minute, say, in which one that is ill has its share of the requests; and reloads
that come faster than that leave members unexamined."""


def examines(tree: LoadBalancerTree) -> bool:
    """Whether any member is checked."""
    return any(x.admin_state_up for x in tree.health_monitors)


def needs_processes(tree: LoadBalancerTree) -> bool:
    """Whether HAProxy must be allowed to start programs, which it is not unless a member is pinged."""
    return any(x.type is HealthMonitorType.PING and x.admin_state_up for x in tree.health_monitors)


def is_of_http(monitor: HealthMonitor) -> bool:
    """Whether a check is a request of HTTP."""
    return monitor.type in _HTTP_MONITORS


def monitor_lines(tree: LoadBalancerTree, monitor: HealthMonitor, base: str) -> list[tuple[str, ...]]:
    """How the members of a pool are checked. `base` is what stands before a path of the agent's."""
    lines: list[tuple[str, ...]] = [("timeout", "check", f"{min(monitor.timeout, LONGEST_TIMER_S)}s")]
    if monitor.type is HealthMonitorType.PING:
        path = [] if base else [("external-check", "path", PING_DIRECTORIES)]
        return [*lines, EXTERNAL_CHECK, *path, ("external-check", "command", f"{base}{PING_WRAPPER}")]
    if not is_of_http(monitor):
        return lines
    version = "HTTP/1.1" if monitor.http_version == 1.1 else "HTTP/1.0"
    request = ["http-check", "send", "meth", (monitor.http_method or "GET"), "uri"]
    request += [checked(monitor.url_path or "/", "url_path"), "ver", version]
    host = monitor.domain_name
    if host is None and version == "HTTP/1.1":
        # HTTP/1.1 requires a Host (RFC 9112 3.2): the one that a client who knows only the address would send.
        host = bracket(address_of(tree.load_balancer.vip.address, "vip_address"))
    if host is not None:
        request += ["hdr", "Host", log_format(checked(host, "domain_name"))]
    return [
        *lines,
        ("option", "httpchk"),
        tuple(request),
        ("http-check", "expect", "status", _expected_codes(monitor.expected_codes or "200")),
    ]


def _expected_codes(text: str) -> str:
    """`200`, `200,204` or `200-204` as HAProxy's list: no spaces."""
    codes = "".join(text.split())
    first, dash, last = codes.partition("-")
    if dash and not (first.isdecimal() and last.isdecimal() and int(first) <= int(last)):
        raise Rejected("expected_codes", f"{text!r} is a range whose end is below its start")
    return checked(codes, "expected_codes")
