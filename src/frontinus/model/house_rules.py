"""What an installation allows less, or fills in otherwise, than the contract: the operator's choices, as values.

Pure. Judged beside validation.py on what an edit brings in, never on what stays as it was: a rule that becomes stricter
must not freeze the load balancers that are older than it. Source of every rule: behaviours.yaml configuration.api_settings
and networking, resources.yaml matrices.tls."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TypeVar

import msgspec

from frontinus.model.compatibility import (
    ALPN_PROTOCOLS,
    RESERVED_MEMBER_ADDRESSES,
    TLS_CIPHERS_DEFAULT,
    TLS_VERSIONS,
    TLS_VERSIONS_DEFAULT,
    UDP_CONNECT_MIN_DELAY_S,
)
from frontinus.model.enums import HealthMonitorType, ListenerProtocol
from frontinus.model.errors import Invalid
from frontinus.model.tree import Child, HealthMonitor, Listener, LoadBalancerTree, Member, Pool

_C = TypeVar("_C", bound=Child)


class TlsDefaults(msgspec.Struct, frozen=True, kw_only=True):
    """What is offered inside TLS where nothing was said."""

    versions: tuple[str, ...] = TLS_VERSIONS_DEFAULT
    ciphers: str = TLS_CIPHERS_DEFAULT
    alpn_protocols: tuple[str, ...] = ALPN_PROTOCOLS


class Defaults(msgspec.Struct, frozen=True, kw_only=True):
    """What new objects get where nothing was said, and where a change says null."""

    listener_tls: TlsDefaults = TlsDefaults()
    pool_tls: TlsDefaults = TlsDefaults()


class HouseRules(msgspec.Struct, frozen=True, kw_only=True):
    """As the settings of the API, where each is explained."""

    allow_tls_terminated_listeners: bool = True
    allow_prometheus_listeners: bool = True
    allow_ping_health_monitors: bool = True
    udp_connect_min_delay: int = UDP_CONNECT_MIN_DELAY_S
    prohibited_ciphers: frozenset[str] = frozenset()
    minimum_tls_version: str | None = None
    reserved_addresses: frozenset[str] = frozenset(RESERVED_MEMBER_ADDRESSES)
    """In their canonical form."""


def check_house_rules(before: LoadBalancerTree | None, after: LoadBalancerTree, rules: HouseRules) -> None:
    """Raise Invalid for the first thing that an edit brings in (before: None for a new load balancer) and the rules do not
    allow."""
    for old_listener, listener in _brought(() if before is None else before.listeners, after.listeners):
        _check_listener(old_listener, listener, rules)
    for old_pool, pool in _brought(() if before is None else before.pools, after.pools):
        if old_pool is None or (old_pool.tls_ciphers, old_pool.tls_versions) != (pool.tls_ciphers, pool.tls_versions):
            _check_tls("pool", pool, rules)
    for old_monitor, monitor in _brought(() if before is None else before.health_monitors, after.health_monitors):
        _check_health_monitor(old_monitor, monitor, rules)
    # A member's address never changes, and new ones stand last (edits.py): a batch may leave a thousand as they are.
    for member in after.members[0 if before is None else len(before.members) :]:
        _check_member(member, rules)


def _brought(before: Sequence[_C], after: Sequence[_C]) -> Iterator[tuple[_C | None, _C]]:
    """What is new or another than before, with what it was. What an edit did not touch is the same value, not an equal one."""
    known = {x.id: x for x in before}  # type: ignore[attr-defined]  # every child has one, each of a type of its own
    for child in after:
        old = known.get(child.id)  # type: ignore[attr-defined]
        if old is not child and not child.delete_requested:
            yield old, child


def _check_listener(old: Listener | None, listener: Listener, rules: HouseRules) -> None:
    if old is None:
        switches = {
            ListenerProtocol.TERMINATED_HTTPS: rules.allow_tls_terminated_listeners,
            ListenerProtocol.PROMETHEUS: rules.allow_prometheus_listeners,
        }
        if not switches.get(listener.protocol, True):
            raise Invalid("listener.protocol", f"{listener.protocol} listeners are switched off in this installation")
    if old is None or (old.tls_ciphers, old.tls_versions) != (listener.tls_ciphers, listener.tls_versions):
        _check_tls("listener", listener, rules)


def _check_tls(kind: str, value: Listener | Pool, rules: HouseRules) -> None:
    for cipher in (value.tls_ciphers or "").split(":"):
        if cipher in rules.prohibited_ciphers:
            raise Invalid(f"{kind}.tls_ciphers", f"{cipher} is prohibited in this installation")
    if rules.minimum_tls_version is not None:
        lowest = TLS_VERSIONS.index(rules.minimum_tls_version)
        for version in value.tls_versions or ():
            if version in TLS_VERSIONS and TLS_VERSIONS.index(version) < lowest:
                reason = f"{version} is below {rules.minimum_tls_version}, the lowest that this installation allows"
                raise Invalid(f"{kind}.tls_versions", reason)


def _check_health_monitor(old: HealthMonitor | None, monitor: HealthMonitor, rules: HouseRules) -> None:
    if old is None and monitor.type is HealthMonitorType.PING and not rules.allow_ping_health_monitors:
        raise Invalid("health_monitor.type", "PING health monitors are switched off in this installation")
    is_new = old is None or old.delay != monitor.delay
    if is_new and monitor.type is HealthMonitorType.UDP_CONNECT and monitor.delay < rules.udp_connect_min_delay:
        raise Invalid("health_monitor.delay", f"must be at least {rules.udp_connect_min_delay} seconds for UDP-CONNECT")


def _check_member(member: Member, rules: HouseRules) -> None:
    if rules.reserved_addresses and canonical_address(member.address) in rules.reserved_addresses:
        raise Invalid("member.address", f"{member.address} is reserved")


@lru_cache(maxsize=4096)
def canonical_address(text: str) -> str:
    """An address in its one form; other texts as they are."""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return text
