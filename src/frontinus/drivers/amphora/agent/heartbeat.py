"""Heartbeats: from datagrams to values. Pure: no clock, no state, no I/O.

Two formats: Octavia's (contract/heartbeat.yaml; no replay protection) and our envelope (docs/reference/
agent-extension.md), which finds the key by the amphora's id and may be one part of a message. The signature is checked, in constant time, before
anything is inflated or parsed, and inflating is bounded. Whether a boot and sequence were seen before is for the
caller to know, and parts are for it to join: health/ remembers."""

from __future__ import annotations

import hmac
import struct
import zlib
from collections.abc import Callable
from typing import Annotated

import msgspec
from msgspec.structs import replace

from frontinus.drivers.amphora.interface import Refused
from frontinus.model.heartbeat import CheckReport, Counters, Heartbeat, ListenerReport, PoolReport
from frontinus.model.ids import AmphoraId

MAGIC = b"FRH1"
PART_MAGIC = b"FRH2"
MOST_PARTS = 256
"""Parts of one message. The agent makes no more; the caller has to hold them all."""

LARGEST_MESSAGE = 1024 * 1024
"""Bytes of JSON. A thousand members are 60 kB; a datagram of 64 kB could otherwise inflate to 64 MB."""

_HEADER = struct.Struct(">4s16sQQ")
_PART = struct.Struct(">HH")
_RAW = 32
_HEXADECIMAL = 64

_Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
"""Eight petabytes, or as many connections. Bounded, because a database's integers are: one amphora's nonsense must not
keep the others' figures from being written."""


class _Statistics(msgspec.Struct):
    tx: _Count = 0
    rx: _Count = 0
    conns: _Count = 0
    totconns: _Count = 0
    ereq: _Count = 0
    since: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] = 0


class _Check(msgspec.Struct):
    status: Annotated[str, msgspec.Meta(max_length=32)]
    code: Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)] | None = None
    """From 2**31 up it is none: so older agents tell of a check that ended without one."""

    text: Annotated[str, msgspec.Meta(max_length=1_000)] = ""


class _Pool(msgspec.Struct):
    status: str
    members: dict[str, str] = {}
    checks: dict[str, _Check] = {}


class _Listener(msgspec.Struct):
    status: str
    stats: _Statistics = msgspec.field(default_factory=_Statistics)
    pools: dict[str, _Pool] = {}


class _Message(msgspec.Struct):
    id: str
    listeners: dict[str, _Listener]
    ver: int = 0
    pools: dict[str, _Pool] = {}
    incomplete: list[str] = []
    active: bool | None = None
    empty: bool = False


_DECODER = msgspec.json.Decoder(_Message)


def is_envelope(datagram: bytes) -> bool:
    """Which of the two formats. Octavia's begins with a zlib header, which the magic is not."""
    return datagram.startswith((MAGIC, PART_MAGIC))


def claimed_sender(datagram: bytes) -> AmphoraId | None:
    """Whom an envelope names, before anything is verified; None for anything else."""
    if len(datagram) < _HEADER.size + _RAW or not is_envelope(datagram):
        return None
    return _amphora_id(datagram[4:20])


def decode_envelope(datagram: bytes, keys_of: Callable[[AmphoraId], bytes | tuple[bytes, ...]]) -> Heartbeat:
    """Verify with the key of the amphora that the envelope names, or one of several, then parse. Raises Refused."""
    is_part = datagram.startswith(PART_MAGIC)
    start = _HEADER.size + (_PART.size if is_part else 0)
    if len(datagram) < start + _RAW or not is_envelope(datagram):
        raise Refused("not an envelope")
    _, amphora, boot, sequence = _HEADER.unpack_from(datagram)
    amphora_id = _amphora_id(amphora)
    signed, signature = datagram[:-_RAW], datagram[-_RAW:]
    keys = keys_of(amphora_id)
    for key in (keys,) if isinstance(keys, bytes) else keys:
        if hmac.compare_digest(hmac.digest(key, signed, "sha256"), signature):
            break
    else:
        raise Refused("signature does not match")
    part, parts = _PART.unpack_from(datagram, _HEADER.size) if is_part else (0, 1)
    if not part < parts <= MOST_PARTS:
        raise Refused("part of no message")
    message = _parse(signed[start:])
    if message.id != amphora_id:
        raise Refused("message and envelope name different amphorae")
    heard = _value(message, boot, sequence)
    return replace(heard, part=part, parts=parts) if is_part else heard


def _amphora_id(raw: bytes) -> AmphoraId:
    name = raw.hex()  # as uuid.UUID writes it, in a third of the time
    return AmphoraId(f"{name[:8]}-{name[8:12]}-{name[12:16]}-{name[16:20]}-{name[20:]}")


def decode_plain(datagram: bytes, key: bytes) -> Heartbeat:
    """Octavia's datagram: hexadecimal signature first, then the raw one of old senders. Raises Refused."""
    payload, signature = datagram[:-_HEXADECIMAL], datagram[-_HEXADECIMAL:]
    if payload and hmac.compare_digest(hmac.digest(key, payload, "sha256").hex().encode(), signature):
        return _value(_parse(payload), None, None)
    payload, signature = datagram[:-_RAW], datagram[-_RAW:]
    if payload and hmac.compare_digest(hmac.digest(key, payload, "sha256"), signature):
        return _value(_parse(payload), None, None)
    raise Refused("signature does not match")


def _parse(compressed: bytes) -> _Message:
    inflate = zlib.decompressobj()
    try:
        text = inflate.decompress(compressed, LARGEST_MESSAGE)
    except zlib.error as error:
        raise Refused("message does not inflate") from error
    if not inflate.eof:
        raise Refused("message is cut off or too large")
    if inflate.unused_data:
        raise Refused("something follows the message")
    try:
        return _DECODER.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refused("message makes no sense", str(error)) from error


def _value(message: _Message, boot: int | None, sequence: int | None) -> Heartbeat:
    pools = dict(message.pools)
    if message.ver < 2:
        for listener in message.listeners.values():
            pools.update(listener.pools)
    return Heartbeat(
        amphora_id=AmphoraId(message.id),
        boot=boot,
        sequence=sequence,
        incremental=message.ver >= 3,
        incomplete=frozenset(message.incomplete),
        active=message.active,
        empty=message.empty,
        listeners={
            listener_id: ListenerReport(
                status=listener.status,
                counters=Counters(
                    bytes_in=listener.stats.rx,
                    bytes_out=listener.stats.tx,
                    active_connections=listener.stats.conns,
                    total_connections=listener.stats.totconns,
                    request_errors=listener.stats.ereq,
                ),
                since=listener.stats.since,
            )
            for listener_id, listener in message.listeners.items()
        },
        # `<pool>:<listener>` or `<pool>`; a pool under several listeners is reported by the last one.
        pools={
            name.partition(":")[0]: PoolReport(
                status=pool.status,
                members=pool.members,
                checks={
                    x: CheckReport(status=_shown(y.status), code=_code(y.code), text=_shown(y.text))
                    for x, y in pool.checks.items()
                },
            )
            for name, pool in pools.items()
        },
    )


def _code(said: int | None) -> int | None:
    return said if said is not None and said < 2**31 else None


def _shown(text: str) -> str:
    """A member has a hand in it: what no database keeps and no terminal should get is told by a mark."""
    return text if text.isprintable() else "".join(x if x.isprintable() else "\ufffd" for x in text)
