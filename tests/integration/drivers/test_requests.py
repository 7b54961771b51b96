"""Requests that are not as they should be, and those that would become something else."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.integration.drivers.test_traffic import Site, site  # noqa: F401 - a fixture
from tests.integration.drivers.world import MEMBERS, VIP, closed, exchange, read_request, serving
from tests.unit.drivers.trees import a_member

IDLE_MS = 1_000


async def test_half_a_request_does_not_hold_a_connection(site: Site) -> None:  # noqa: F811
    """However often another byte of it comes (slow loris)."""
    await site.shows(listener={"timeout_client_data": IDLE_MS})
    reader, writer = await asyncio.open_connection(VIP, site.port)
    began = time.monotonic()
    writer.write(b"GET / HTTP/1.1\r\nHost: ")
    ended = asyncio.create_task(reader.read())
    while not ended.done() and time.monotonic() - began < 10:
        writer.write(b"x")
        await asyncio.wait({ended}, timeout=IDLE_MS / 4000)
    assert ended.done(), "it is open still, after six times as long as a client may be silent"
    assert (await ended)[:12] in (b"HTTP/1.1 408", b"")
    await closed(writer)


async def test_a_connection_is_kept_between_requests_for_as_long_as_a_client_may_be_silent(site: Site) -> None:  # noqa: F811
    await site.shows(listener={"timeout_client_data": 2_000})
    reader, writer = await asyncio.open_connection(VIP, site.port)
    for _ in range(3):
        assert await exchange(reader, writer) in {"one", "two", "three"}
        await asyncio.sleep(1.2)
    await closed(writer)


async def test_a_client_that_may_be_silent_for_ever_is_waited_for(site: Site) -> None:  # noqa: F811
    await site.shows(listener={"timeout_client_data": 0})
    reader, writer = await asyncio.open_connection(VIP, site.port)
    for _ in range(2):
        assert await exchange(reader, writer) in {"one", "two", "three"}
        await asyncio.sleep(1)
    await closed(writer)


@pytest.mark.parametrize(
    "upgrade, passes",
    [
        ("websocket", True),
        ("SPDY/3.1", True),
        ("h2c", False),
        ("H2C", False),
        ("websocket, h2c", False),
    ],
)
async def test_nobody_gets_past_policies_by_another_http(site: Site, upgrade: str, passes: bool) -> None:  # noqa: F811
    """A member that would go on in HTTP/2 is not asked to: what came then nobody would look at."""
    heads: list[bytes] = []

    async def obliging(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, head = await read_request(reader)
        heads.append(head.lower())
        if b"\r\nupgrade:" in heads[-1]:
            writer.write(b"HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: %s\r\n" % upgrade.encode())
            writer.write(b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")  # RFC 6455 1.3, of that key
            writer.write(b"<" + await reader.readexactly(4) + b">")
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    async with serving(obliging) as port:
        await site.shows(rows=[a_member(30, address=MEMBERS, port=port)])
        reader, writer = await asyncio.open_connection(VIP, site.port)
        try:
            writer.write(
                b"GET / HTTP/1.1\r\nHost: here\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABk\r\n"
                b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
                b"Upgrade: %s\r\n\r\n" % upgrade.encode()
            )
            head = await reader.readuntil(b"\r\n\r\n")
            assert int(head.split(b" ")[1]) == (101 if passes else 200)
            if passes:
                writer.write(b"more")
                assert await reader.readexactly(6) == b"<more>"
            assert b"http2-settings:" not in heads[-1]
        finally:
            await closed(writer)
