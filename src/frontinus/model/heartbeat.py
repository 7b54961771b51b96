"""What an amphora says of itself, decoded: the values that a driver's codec makes and health/ accounts.

Field meaning: contract/heartbeat.yaml, message."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from msgspec.structs import replace

from frontinus.model.ids import AmphoraId, ListenerId


class Counters(msgspec.Struct, frozen=True, kw_only=True):
    """Traffic of one listener: bytes, connections, errors. active_connections is a gauge, the rest only grow."""

    bytes_in: int = 0
    bytes_out: int = 0
    active_connections: int = 0
    total_connections: int = 0
    request_errors: int = 0


class ListenerReport(msgspec.Struct, frozen=True, kw_only=True):
    """status is OPEN or FULL, or a word that we do not know. `since` tells one count from another: the counters only grow
    as long as it is the same, and a later one (nanoseconds) means that counting began anew. 0 when it is not told."""

    status: str
    counters: Counters
    since: int = 0


class ListenerTraffic(msgspec.Struct, frozen=True, kw_only=True):
    """What one amphora says that it has carried for one listener: increments, or absolute counters since some time."""

    listener_id: ListenerId
    amphora_id: AmphoraId
    counters: Counters
    incremental: bool = False
    since: int = 0


class CheckReport(msgspec.Struct, frozen=True, kw_only=True):
    """Why a member is down: HAProxy's word for what its last check found (L4CON, L7STS, ...; management guide 9.1,
    check_status), the code that was answered where there was one, and the same for people."""

    status: str
    code: int | None = None
    text: str = ""


class PoolReport(msgspec.Struct, frozen=True, kw_only=True):
    """status is UP or DOWN; members maps member id to HAProxy's word, as UP, DOWN 1/2, DRAIN, MAINT, no check. `checks`
    is of members that are down, and only our own agents tell."""

    status: str
    members: dict[str, str]
    checks: dict[str, CheckReport] = {}


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True):
    """One verified datagram. `boot` and `sequence` are None in Octavia's plain format, which has no replay protection.

    A message that one datagram does not hold comes as `parts` datagrams with one boot and sequence, numbered by `part`;
    `join` makes one of them.

    `incremental` says that the counters (not active_connections) are increments since the message before; otherwise
    they are absolute. Keys of `pools` are pool ids. `incomplete` are load balancers whose configuration has lost files
    there, as private ones are with the machine's memory; only a push brings them back. `active` says, of one of a pair,
    whether the VIP is there now. `empty` says that no load balancer is configured there at all."""

    amphora_id: AmphoraId
    boot: int | None
    sequence: int | None
    incremental: bool
    listeners: dict[str, ListenerReport]
    pools: dict[str, PoolReport]
    part: int = 0
    parts: int = 1
    incomplete: frozenset[str] = frozenset()
    active: bool | None = None
    empty: bool = False


def join(parts: Iterable[Heartbeat]) -> Heartbeat:
    """The whole message of all its parts. A listener stands in one of them, a pool may have members in several."""
    ordered = sorted(parts, key=lambda each: each.part)
    listeners: dict[str, ListenerReport] = {}
    statuses: dict[str, str] = {}
    members: dict[str, dict[str, str]] = {}
    checks: dict[str, dict[str, CheckReport]] = {}
    for each in ordered:
        listeners.update(each.listeners)
        for pool_id, report in each.pools.items():
            statuses[pool_id] = report.status
            members.setdefault(pool_id, {}).update(report.members)
            checks.setdefault(pool_id, {}).update(report.checks)
    pools = {
        pool_id: PoolReport(status=status, members=members[pool_id], checks=checks[pool_id])
        for pool_id, status in statuses.items()
    }
    return replace(ordered[0], listeners=listeners, pools=pools, part=0, parts=1)
