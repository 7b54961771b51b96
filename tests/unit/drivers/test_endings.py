"""What the kernel says of links is read right; processes that end are told of, and only those."""

from __future__ import annotations

import asyncio
import os
import struct
import subprocess
import time

import pytest

from frontinus.drivers.compute.endings import Endings, lost_links
from frontinus.model.ids import AmphoraId

NEW, DELETED, UP, RUNNING = 16, 17, 0x1, 0x40
AMPHORA = AmphoraId("8a4c1a52-0000-4000-8000-000000000001")


def said(kind: int, flags: int, name: str) -> bytes:
    """As rtnetlink(7) has it: a header, a link, its MTU and its name."""
    text = name.encode() + b"\0"
    attributes = struct.pack("=HHI", 8, 4, 1500) + struct.pack("=HH", 4 + len(text), 3) + text
    attributes += b"\0" * (-len(attributes) % 4)
    body = struct.pack("=BxHiII", 0, 1, 7, flags, 0) + attributes
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body


def sleeping() -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "60"])


@pytest.mark.parametrize(
    "messages,lost",
    [
        (said(NEW, UP | RUNNING, "fr1"), set()),
        (said(NEW, UP, "fr1"), {"fr1"}),
        (said(DELETED, UP | RUNNING, "fr12345"), {"fr12345"}),
        (said(DELETED, 0, "fr1") + said(NEW, UP | RUNNING, "fr22") + said(NEW, 0, "fr333"), {"fr1", "fr333"}),
        (b"", set()),
        (said(DELETED, 0, "fr1")[:20], set()),
        (bytes(64), set()),
    ],
    ids=["runs", "runs no more", "gone", "several", "nothing", "cut", "zeros"],
)
def test_lost_links(messages: bytes, lost: set[str]) -> None:
    assert lost_links(messages) == lost


async def test_an_end_is_told_once_and_nothing_else() -> None:
    told: list[AmphoraId] = []
    with sleeping() as lives, sleeping() as dies:
        with Endings(told.append) as endings:
            other = AmphoraId("8a4c1a52-0000-4000-8000-000000000002")
            endings.follow(AMPHORA, dies.pid, lambda: True)
            endings.follow(other, lives.pid, lambda: False)  # the pid has come to mean another's process
            assert AMPHORA in endings
            assert other not in endings
            lives.kill()
            dies.kill()
            deadline = time.monotonic() + 5
            while not told:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.01)
            assert AMPHORA not in endings
        assert told == [AMPHORA]


async def test_nothing_stays_open() -> None:
    before = set(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names are all that is needed
    with sleeping() as one:
        with Endings(lambda _: None) as endings:
            endings.follow(AMPHORA, one.pid, lambda: True)
        one.kill()
    assert set(os.listdir("/proc/self/fd")) == before  # noqa: PTH208 - likewise
