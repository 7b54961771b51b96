"""What an amphora says of itself, decoded: the values that a driver's codec makes and health/ accounts.

Field meaning: contract/heartbeat.yaml, message."""

from __future__ import annotations

import msgspec

from frontinus.model.ids import AmphoraId


class Counters(msgspec.Struct, frozen=True, kw_only=True):
    """Traffic of one listener: bytes, connections, errors. active_connections is a gauge, the rest only grow."""

    bytes_in: int = 0
    bytes_out: int = 0
    active_connections: int = 0
    total_connections: int = 0
    request_errors: int = 0


class ListenerReport(msgspec.Struct, frozen=True, kw_only=True):
    """status is OPEN or FULL, or a word that we do not know."""

    status: str
    counters: Counters


class PoolReport(msgspec.Struct, frozen=True, kw_only=True):
    """status is UP or DOWN; members maps member id to HAProxy's word, as UP, DOWN 1/2, DRAIN, MAINT, no check."""

    status: str
    members: dict[str, str]


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True):
    """One verified datagram. `boot` and `sequence` are None in Octavia's plain format, which has no replay protection.

    `incremental` says that the counters (not active_connections) are increments since the message before; otherwise
    they are absolute. Keys of `pools` are pool ids."""

    amphora_id: AmphoraId
    boot: int | None
    sequence: int | None
    incremental: bool
    listeners: dict[str, ListenerReport]
    pools: dict[str, PoolReport]
