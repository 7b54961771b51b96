"""What travels between driver and amphora, and how each proves who it is. Pure, and the standard library only.

Every amphora has a key of its own, made from the installation's master key and the amphora's id: who takes one amphora
apart can speak for no other. A command is answered to a challenge, so that none can be sent twice; heartbeats carry the
boot and a number that grows, by which Frontinus refuses old ones."""

from __future__ import annotations

import hmac
import json
import struct
import uuid
from typing import Any, NamedTuple

MAGIC = b"TRK1"
LARGEST_LINE = 4 * 1024 * 1024
_HEADER = struct.Struct(">4s16sQQ")
_SIGNATURE = 32


class Forged(Exception):
    """The signature does not fit, or what came is not of this protocol."""


def key_of(master: bytes, amphora_id: str) -> bytes:
    """The key of one amphora."""
    return hmac.digest(master, amphora_id.encode(), "sha256")


# Commands: the amphora says a nonce, the driver asks, the amphora answers. One exchange per connection.


def sealed(key: bytes, nonce: str, direction: str, message: dict[str, Any]) -> bytes:
    """One line: the signature, then the message. `direction` keeps an answer from being taken for a question."""
    text = json.dumps(message, separators=(",", ":"), sort_keys=True)
    return f"{_signature(key, nonce, direction, text)} {text}\n".encode()


def opened(key: bytes, nonce: str, direction: str, line: bytes) -> dict[str, Any]:
    """The message of a line. Raises Forged."""
    signature, _, text = line.decode(errors="replace").rstrip("\n").partition(" ")
    if not hmac.compare_digest(signature.encode(), _signature(key, nonce, direction, text).encode()):
        raise Forged("the signature does not fit")
    message: dict[str, Any] = json.loads(text)
    return message


def _signature(key: bytes, nonce: str, direction: str, text: str) -> str:
    return hmac.digest(key, f"{direction} {nonce} {text}".encode(), "sha256").hex()


# Heartbeats: one datagram each


class Beat(NamedTuple):
    amphora_id: str
    boot: int
    sequence: int
    body: bytes


def beat(key: bytes, amphora_id: str, boot: int, sequence: int, body: bytes) -> bytes:
    """The datagram of a heartbeat."""
    signed = _HEADER.pack(MAGIC, uuid.UUID(amphora_id).bytes, boot, sequence) + body
    return signed + hmac.digest(key, signed, "sha256")


def opened_beat(master: bytes, datagram: bytes) -> Beat:
    """Verify with the key of whom the header names; the body is not parsed. Raises Forged."""
    if len(datagram) < _HEADER.size + _SIGNATURE or not datagram.startswith(MAGIC):
        raise Forged("not a heartbeat")
    signed, signature = datagram[:-_SIGNATURE], datagram[-_SIGNATURE:]
    _, raw_id, boot, sequence = _HEADER.unpack_from(signed)
    amphora_id = str(uuid.UUID(bytes=raw_id))
    if not hmac.compare_digest(hmac.digest(key_of(master, amphora_id), signed, "sha256"), signature):
        raise Forged("signature does not match")
    return Beat(amphora_id, boot, sequence, signed[_HEADER.size :])
