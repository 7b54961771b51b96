"""What a receiver has heard, as one text for the store: of each amphora the last boot and sequence, how long ago, and its pace.
Pure.

Other receivers read it, so that silence here is no silence when it was heard there; and the one that starts after this one,
so that what was accepted once is refused as a replay for good, and who beats slowly is not taken for dead. Next: accounts.py,
which makes and takes it."""

from __future__ import annotations

import base64
import math
import struct
import uuid
import zlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from frontinus.model.ids import AmphoraId

_VERSION = "1:"
_ROW = struct.Struct(">16sQQH")
_PACE = struct.Struct(">H")
LONGEST_AGO = 6_553.0
"""Seconds. Longer ago is told as this; it is no sign of life any more."""


class Heard(NamedTuple):
    """`boot` and `sequence` are 0 where the amphora tells neither; `ago` is in seconds before this was written; `pace` are the
    seconds between two beats, 0 where that is not known."""

    amphora_id: AmphoraId
    boot: int
    sequence: int
    ago: float
    pace: float = 0.0


def write(rows: Iterable[Heard]) -> str:
    """The text. Ids that are no UUIDs are left out: no amphora of ours has one."""
    packed, paces = bytearray(), bytearray()
    for amphora_id, boot, sequence, ago, pace in rows:
        try:
            name = bytes.fromhex(amphora_id.replace("-", ""))
        except ValueError:
            continue
        packed += _ROW.pack(name, boot, sequence, int(min(ago, LONGEST_AGO) * 10))
        paces += _PACE.pack(math.ceil(min(pace, LONGEST_AGO) * 10))
    # Paces came later, and stand behind all the rest: a receiver of before reads the rows and passes over what follows.
    return _VERSION + base64.b64encode(zlib.compress(bytes(packed), 1) + zlib.compress(bytes(paces), 1)).decode()


def read(text: str) -> Iterator[Heard]:
    """The rows of a text; nothing of one that is damaged, or of a version that is not known."""
    if not text.startswith(_VERSION):
        return
    try:
        told = base64.b64decode(text[len(_VERSION) :], validate=True)
        rows = zlib.decompressobj()
        packed = rows.decompress(told)
        paces = zlib.decompress(rows.unused_data) if rows.unused_data else b""
    except (ValueError, zlib.error):
        return
    if not rows.eof or len(packed) % _ROW.size:
        return
    if len(paces) // _PACE.size != len(packed) // _ROW.size:  # of a receiver that tells none
        paces = bytes(len(packed) // _ROW.size * _PACE.size)
    for (name, boot, sequence, tenths), (pace,) in zip(_ROW.iter_unpack(packed), _PACE.iter_unpack(paces), strict=True):
        yield Heard(AmphoraId(str(uuid.UUID(bytes=name))), boot, sequence, tenths / 10, pace / 10)
