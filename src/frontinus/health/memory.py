"""What a receiver has heard, as one text for the store: of each amphora the last boot and sequence, and how long ago. Pure.

Other receivers read it, so that silence here is no silence when it was heard there; and the one that starts after this one,
so that what was accepted once is refused as a replay for good. Next: accounts.py, which makes and takes it."""

from __future__ import annotations

import base64
import struct
import uuid
import zlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from frontinus.model.ids import AmphoraId

_VERSION = "1:"
_ROW = struct.Struct(">16sQQH")
LONGEST_AGO = 6_553.0
"""Seconds. Longer ago is told as this; it is no sign of life any more."""


class Heard(NamedTuple):
    """`boot` and `sequence` are 0 where the amphora tells neither; `ago` is in seconds before this was written."""

    amphora_id: AmphoraId
    boot: int
    sequence: int
    ago: float


def write(rows: Iterable[Heard]) -> str:
    """The text. Ids that are no UUIDs are left out: no amphora of ours has one."""
    packed = bytearray()
    for amphora_id, boot, sequence, ago in rows:
        try:
            name = bytes.fromhex(amphora_id.replace("-", ""))
        except ValueError:
            continue
        packed += _ROW.pack(name, boot, sequence, int(min(ago, LONGEST_AGO) * 10))
    return _VERSION + base64.b64encode(zlib.compress(bytes(packed), 1)).decode()


def read(text: str) -> Iterator[Heard]:
    """The rows of a text; nothing of one that is damaged, or of a version that is not known."""
    if not text.startswith(_VERSION):
        return
    try:
        packed = zlib.decompress(base64.b64decode(text[len(_VERSION) :], validate=True))
    except (ValueError, zlib.error):
        return
    if len(packed) % _ROW.size:
        return
    for name, boot, sequence, tenths in _ROW.iter_unpack(packed):
        yield Heard(AmphoraId(str(uuid.UUID(bytes=name))), boot, sequence, tenths / 10)
