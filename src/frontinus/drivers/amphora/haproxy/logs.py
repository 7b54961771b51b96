"""What HAProxy says and to whom: tenants' flow logs and the operator's messages, by syslog. Pure.

Octavia's options under Octavia's names (its guide "Amphora Log Offloading"). HAProxy speaks to the receivers itself, over UDP or,
by way of a ring that holds what waits, over TCP. Without a target nothing is rendered, and nothing is lost. Next: render.py."""

from __future__ import annotations

import re

from frontinus.drivers.amphora.haproxy.log_options import TOKENS, address_of
from frontinus.drivers.amphora.haproxy.settings import HaproxySettings
from frontinus.drivers.amphora.haproxy.text import Section, log_format
from frontinus.model.tree import LoadBalancer

LONGEST_MESSAGE = 4096
"""Bytes; HAProxy's own default of 1024 cuts long URLs."""

RING_SIZE = 1_048_576
"""Bytes that wait for a receiver over TCP that is away; then the oldest are lost."""

_HTTP_ONLY = frozenset(
    {"r", "ST", "HM", "HP", "HPO", "HQ", "HU", "HV", "hr", "hrl", "hs", "hsl", "CC", "CS", "tr", "trg", "trl"}
)
"""Variables of a log-format that HAProxy has in HTTP mode alone (configuration manual 8.2.6)."""

_VARIABLE = re.compile(r"%(\{[^}]*\})?([A-Za-z]+)")


def global_lines(settings: HaproxySettings, amphora_id: str) -> list[tuple[str, ...]]:
    """The operator's messages: servers that go up and down, and what HAProxy says of itself."""
    lines = [
        ("log", *words, f"local{settings.administrative_log_facility}", "notice")
        for words in _targets(settings, "admin_log_targets")
    ]
    if lines or settings.tenant_log_targets:
        lines.append(("log-send-hostname", f"amphora-{amphora_id}"))
    return lines


def frontend_lines(settings: HaproxySettings, load_balancer: LoadBalancer, mode: str) -> list[tuple[str, ...]]:
    """A tenant's flow log: one line for each connection, or each request of an HTTP listener."""
    if not settings.tenant_log_targets or not settings.connection_logging:
        return []
    lines: list[tuple[str, ...]] = [
        ("log", *words, f"local{settings.user_log_facility}") for words in _targets(settings, "tenant_log_targets")
    ]
    return [*lines, ("log-format", _format(settings.user_log_format, load_balancer, mode))]


def backend_lines(settings: HaproxySettings) -> list[tuple[str, ...]]:
    return [("log", "global")] if settings.admin_log_targets else []


def ring_sections(settings: HaproxySettings) -> list[Section]:
    """Over TCP each target has a ring: a receiver that is away holds up no other, nor any traffic."""
    if settings.log_protocol != "TCP":
        return []
    return [
        Section(
            "ring",
            _ring(name, number),
            (
                ("format", "rfc3164"),
                ("maxlen", str(LONGEST_MESSAGE)),
                ("size", str(RING_SIZE)),
                ("timeout", "connect", "5s"),
                ("timeout", "server", "10s"),
                ("server", "receiver", address_of(target)),
            ),
        )
        for name in ("tenant_log_targets", "admin_log_targets")
        for number, target in enumerate(getattr(settings, name))
    ]


def _targets(settings: HaproxySettings, name: str) -> list[tuple[str, ...]]:
    length = ("len", str(LONGEST_MESSAGE))
    if settings.log_protocol == "TCP":
        return [(f"ring@{_ring(name, number)}", *length) for number, _ in enumerate(getattr(settings, name))]
    return [(address_of(target), *length, "format", "rfc3164") for target in getattr(settings, name)]


def _ring(name: str, number: int) -> str:
    return f"{name.partition('_')[0]}-log-{number}"


def _format(text: str, load_balancer: LoadBalancer, mode: str) -> str:
    values = {"project_id": load_balancer.project_id, "lb_id": load_balancer.id}
    if mode != "http":
        text = _VARIABLE.sub(lambda found: "-" if found[2] in _HTTP_ONLY else found[0], text)
    # What a tenant chose must not be read as a variable.
    return TOKENS.sub(lambda found: log_format(values[found[1]]), text)
