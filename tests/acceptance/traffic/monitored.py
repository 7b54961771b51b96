"""Cases of health monitors: what is asked of members, and what comes of their answers."""

from __future__ import annotations

import asyncio
import time

from tests.acceptance.traffic.case import Group, TlsServer
from tests.acceptance.traffic.stage import Stage, headers_of
from tests.integration.drivers.world import closed, read_request, until

MONITORS = Group("monitors")
case = MONITORS.case

HTTP = {"type": "HTTP", "url_path": "/health"}
METHODS = ("CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE")


@case("healthmonitor.type[HTTP]", "healthmonitor.admin_state_up[true]", "pool.healthmonitor", members=2, monitor=HTTP)
async def an_answer_decides(stage: Stage) -> None:
    await stage.statuses_become(one="ONLINE", two="ONLINE")
    stage.servers[0].healthy = False
    await stage.becomes("two")
    await stage.statuses_become(one="ERROR", two="ONLINE")
    stage.servers[0].healthy = True
    await stage.becomes("one", "two")
    await stage.statuses_become(one="ONLINE", two="ONLINE")


@case("healthmonitor.type[TCP]", members=2, monitor={"type": "TCP"})
async def a_connection_decides(stage: Stage) -> None:
    one = stage.servers[0]
    one.healthy = False  # nobody asks
    await stage.statuses_become(one="ONLINE", two="ONLINE")
    await one.stop()
    await stage.statuses_become(one="ERROR", two="ONLINE")
    assert await stage.spread(3) == {"two": 3}
    await one.start()
    await stage.becomes("one", "two")


@case(
    "healthmonitor.type[PING]",
    members=[{}, {"address": "255.255.255.255", "protocol_port": 9}],
    servers=["http"] * 2,
    monitor={"type": "PING", "delay": 1},
)
async def an_echo_decides(stage: Stage) -> None:
    """ping refuses to look at the broadcast address, and nothing is sent."""
    await stage.statuses_become(one="ONLINE", two="ERROR")
    assert await stage.spread(4) == {"one": 4}


_TLS_POOL = {"tls_enabled": True}


@case(
    "healthmonitor.type[HTTPS]",
    members=2,
    servers=[TlsServer("ssl-min-ver TLSv1.3"), "http"],
    pool=_TLS_POOL,
    monitor={"type": "HTTPS", "url_path": "/"},
    name="HTTPS",
)
@case(
    "healthmonitor.type[TLS-HELLO]",
    members=2,
    servers=[TlsServer("ssl-min-ver TLSv1.3"), "http"],
    pool=_TLS_POOL,
    monitor={"type": "TLS-HELLO"},
    name="TLS-HELLO",
)
async def a_handshake_decides(stage: Stage) -> None:
    await stage.statuses_become(one="ONLINE", two="ERROR")
    assert "version=TLSv1.3" in (await stage.request()).body


async def it_is_asked_with_this_method(stage: Stage) -> None:
    (one,) = stage.servers
    await until(lambda: bool(one.checks))
    assert one.checks[0].startswith(f"{stage.expect} /health HTTP/1.0\r\n".encode())


for _method in METHODS:
    case(
        f"healthmonitor.http_method[{_method}]", monitor={**HTTP, "http_method": _method}, expect=_method, name=_method
    )(it_is_asked_with_this_method)


@case("healthmonitor.url_path", monitor={**HTTP, "url_path": "/health?a='b'&c=\"d\"%20$HOME"})
async def it_is_asked_for_this_path(stage: Stage) -> None:
    (one,) = stage.servers
    await until(lambda: bool(one.checks))
    assert one.checks[0].startswith(b"GET /health?a='b'&c=\"d\"%20$HOME HTTP/1.0\r\n")


@case("healthmonitor.http_version[1.0]", monitor={**HTTP, "http_version": 1.0}, expect=("1.0", []), name="1.0")
@case(
    "healthmonitor.http_version[1.1]",
    "healthmonitor.domain_name",
    monitor={**HTTP, "http_version": 1.1, "domain_name": "health.example.org"},
    expect=("1.1", ["health.example.org"]),
    name="1.1",
)
async def it_is_asked_in_this_version(stage: Stage) -> None:
    (one,) = stage.servers
    version, hosts = stage.expect
    await until(lambda: bool(one.checks))
    assert one.checks[0].startswith(f"GET /health HTTP/{version}\r\n".encode())
    assert headers_of(one.checks[0], "Host") == hosts


@case(
    "healthmonitor.expected_codes", members=2, monitor={**HTTP, "expected_codes": "204"}, expect=(204, 200), name="one"
)
@case(
    "healthmonitor.expected_codes",
    members=2,
    monitor={**HTTP, "expected_codes": "200, 204"},
    expect=(204, 202),
    name="list",
)
@case(
    "healthmonitor.expected_codes",
    members=2,
    monitor={**HTTP, "expected_codes": "200-204"},
    expect=(203, 205),
    name="range",
)
async def these_codes_are_good(stage: Stage) -> None:
    one, two = stage.servers
    one.health_code, two.health_code = stage.expect
    await stage.becomes("one")
    two.health_code, one.health_code = stage.expect
    await stage.becomes("two")


@case("healthmonitor.admin_state_up[false]", monitor={**HTTP, "admin_state_up": False})
async def a_disabled_monitor_asks_nothing(stage: Stage) -> None:
    (one,) = stage.servers
    one.healthy = False
    await stage.statuses_become(one="NO_MONITOR")
    assert one.checks == []
    assert await stage.ask() == "one"
    await stage.change_monitor(admin_state_up=True)
    await stage.statuses_become(one="ERROR")


@case("healthmonitor.delay", monitor={**HTTP, "delay": 1})
async def it_is_asked_as_often_as_said(stage: Stage) -> None:
    (one,) = stage.servers

    async def gap() -> float:
        seen = len(one.checks)
        await until(lambda: len(one.checks) > seen)
        began = time.monotonic()
        await until(lambda: len(one.checks) > seen + 1)
        return time.monotonic() - began

    assert 0.7 < await gap() < 2
    await stage.change_monitor(delay=0)
    await until(lambda: len(one.checks) > 5)
    assert await gap() < 0.6


async def slow_to_say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A member that takes a second and a half before it says how it is."""
    try:
        _, head = await read_request(reader)
    except (asyncio.IncompleteReadError, ConnectionError):
        return
    if head.startswith(b"GET /health"):
        await asyncio.sleep(1.5)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nslow")
    await closed(writer)


@case("healthmonitor.timeout", servers=[slow_to_say], monitor={**HTTP, "timeout": 1, "delay": 1})
async def an_answer_in_time_counts(stage: Stage) -> None:
    await stage.statuses_become(one="ERROR")
    assert await stage.ask() == "503"
    await stage.change_monitor(timeout=4, delay=4)
    await stage.statuses_become(one="ONLINE")
    assert await stage.ask() == "slow"


@case(
    "healthmonitor.max_retries_down", members=2, monitor={**HTTP, "max_retries_down": 6, "max_retries": 1}, name="down"
)
@case("healthmonitor.max_retries", members=2, monitor={**HTTP, "max_retries": 6, "max_retries_down": 1}, name="up")
async def so_many_answers_turn_it(stage: Stage) -> None:
    """Six the one way, one the other: counted by the member between the change of its mind and that of its traffic."""
    one, _ = stage.servers
    for healthy in (False, True):
        await stage.becomes(*(("two",) if healthy else ("one", "two")))
        one.healthy, before = healthy, len(one.checks)
        await stage.becomes(*(("one", "two") if healthy else ("two",)))
        needed = len(one.checks) - before
        is_slow = healthy is stage.case.name.endswith("up")
        assert (needed >= 6) is is_slow, (healthy, needed)


@case("healthmonitor.pool_id", members=2)
async def a_monitor_made_later_asks_too(stage: Stage) -> None:
    one, two = stage.servers
    one.healthy = False
    assert await stage.spread(2) == {"one": 1, "two": 1}
    await stage.create("healthmonitors", "healthmonitor", **stage.monitor_fields({**HTTP, "pool_id": stage.pool["id"]}))
    await stage.becomes("two")
    await until(lambda: bool(two.checks))
