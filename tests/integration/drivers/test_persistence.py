"""Who had a member gets it again: by address, by our cookie, by the application's; through every change of members."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from msgspec.structs import replace

from frontinus.drivers.amphora.haproxy.persistence import peer_name
from frontinus.model.enums import ListenerProtocol, SessionPersistenceType
from frontinus.model.ids import AmphoraId
from frontinus.model.tree import SessionPersistence
from frontinus_amphora import haproxy_text

from tests.integration.drivers.test_traffic import Site
from tests.integration.drivers.world import CLIENTS, VIP, World, ask, closed, crowd, free_port, until
from tests.unit.drivers.trees import AMPHORA, a_member, a_monitor, number

SOURCE_IP = {"session_persistence": SessionPersistence(type=SessionPersistenceType.SOURCE_IP)}
HTTP_COOKIE = {"session_persistence": SessionPersistence(type=SessionPersistenceType.HTTP_COOKIE)}
APP_COOKIE = {
    "session_persistence": SessionPersistence(type=SessionPersistenceType.APP_COOKIE, cookie_name="JSESSION'ID$")
}
NAME = "JSESSION'ID$"
BACKEND = f"{number(20)}:{number(10)}"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """Of an amphora that nobody else on this machine has: its name is that of a socket without a directory."""
    made = World(tmp_path)
    made.amphora = replace(made.amphora, id=AmphoraId(str(uuid4())))
    made.start_agent()
    try:
        yield await made.answering()
    finally:
        await made.close()


@pytest.fixture
async def site(world: World) -> Site:
    return Site(world, [await world.member(name) for name in ("one", "two", "three")], free_port())


def ids(site: Site) -> dict[str, str]:
    """Member id -> the name that it answers with."""
    return {row.id: member.name for row, member in zip(site.rows(), site.members, strict=True)}


async def get(site: Site, cookie: str = "") -> tuple[str, dict[str, list[str]]]:
    """Who answered, and the headers of the answer."""
    reader, writer = await asyncio.open_connection(VIP, site.port)
    line = f"Cookie: {cookie}\r\n" if cookie else ""
    writer.write(f"GET / HTTP/1.1\r\nHost: here\r\n{line}Connection: close\r\n\r\n".encode())
    head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
    await closed(writer)
    headers: dict[str, list[str]] = {}
    for name, _, value in (x.partition(":") for x in head.split("\r\n")[1:]):
        headers.setdefault(name.lower(), []).append(value.strip())
    return body, headers


def cookies_seen(site: Site, name: str) -> str | None:
    head = site.world.members[name].requests[-1].decode()
    return next((x.partition(": ")[2] for x in head.split("\r\n") if x.lower().startswith("cookie:")), None)


async def test_our_cookie_names_the_member_and_is_ours_alone(site: Site) -> None:
    await site.shows(pool=HTTP_COOKIE)
    name, headers = await get(site)
    [given] = headers["set-cookie"]
    member_id = given.removeprefix("SRV=").removesuffix("; path=/")
    assert ids(site)[member_id] == name
    assert headers["cache-control"] == ["private"]
    for sent, passed_on in [
        (f"SRV={member_id}", None),
        (f"a=b; SRV={member_id}", "a=b"),
        (f"SRV={member_id}; a=b", "a=b"),
        (f"a=b; SRV={member_id}; XSRV=d", "a=b; XSRV=d"),
    ]:
        again, headers = await get(site, sent)
        assert (again, cookies_seen(site, name)) == (name, passed_on)
        assert "set-cookie" not in headers
        assert "cache-control" not in headers


async def test_a_cookie_that_names_nobody_is_replaced(site: Site) -> None:
    await site.shows(pool=HTTP_COOKIE)
    name, headers = await get(site, "SRV=00000000-0000-0000-0000-00000000dead; a=b")
    assert (headers["set-cookie"], cookies_seen(site, name)) == (
        [f"SRV={next(k for k, v in ids(site).items() if v == name)}; path=/"],
        "a=b",
    )


async def stays(site: Site, kind: str) -> Any:
    """Make a client of one member; gives how it asks again."""
    if kind == "SOURCE_IP":
        source = CLIENTS.format(9)
        name = await ask(site.port, source=source)
        return name, lambda: ask(site.port, source=source)
    if kind == "HTTP_COOKIE":
        name, headers = await get(site)
        cookie = headers["set-cookie"][0].partition(";")[0]
    else:
        for member in site.members:
            member.cookie = f"{NAME}={'same-for-all.' * 8}{member.name}; path=/"
        name, headers = await get(site)
        cookie = headers["set-cookie"][0].partition(";")[0]

    async def again() -> str:
        return (await get(site, cookie))[0]

    return name, again


KINDS = {"SOURCE_IP": SOURCE_IP, "HTTP_COOKIE": HTTP_COOKIE, "APP_COOKIE": APP_COOKIE}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_client_stays_through_drain_changes_and_reloads(site: Site, kind: str) -> None:
    await site.shows(pool=KINDS[kind])
    name, again = await stays(site, kind)
    assert {await again() for _ in range(5)} == {name}

    others = [row for row in site.rows() if ids(site)[row.id] != name]
    drained = site.rows(**{name: {"weight": 0}})
    applied = await site.world.apply(site.tree(pool=KINDS[kind], rows=drained))
    assert applied.action == "runtime"
    assert {await again() for _ in range(5)} == {name}

    for timeout in (40_000, 41_000):  # a reload, and another
        tree = site.tree(pool=KINDS[kind], rows=drained, listener={"timeout_client_data": timeout})
        assert (await site.world.apply(tree)).action == "reload"
        assert {await again() for _ in range(3)} == {name}

    tree = site.tree(pool=KINDS[kind], rows=others, listener={"timeout_client_data": 41_000})
    assert (await site.world.apply(tree)).action == "runtime"
    assert await again() != name


@pytest.mark.alone
async def test_no_session_is_lost_over_reloads_under_load(site: Site) -> None:
    """Sessions begin all the while, before, between and during reloads; each is with its first member after the last."""
    await site.shows(pool=APP_COOKIE)
    began: dict[str, str] = {}
    going = True

    async def begin(crowd: int) -> None:
        number = 0
        while going:
            number += 1
            cookie = f"{NAME}={crowd}-{number}"
            reader, writer = await asyncio.open_connection(VIP, site.port)
            # The member sets whatever cookie the path names, as an application would.
            writer.write(f"GET /set?{cookie} HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n".encode())
            began[cookie] = (await reader.read()).decode().partition("\r\n\r\n")[2]
            await closed(writer)

    async with asyncio.TaskGroup() as group:
        for crowd in range(4):
            group.create_task(begin(crowd))
        for timeout in range(5):
            enough = len(began) + 50
            await until(lambda enough=enough: len(began) > enough)
            applied = await site.world.apply(
                site.tree(pool=APP_COOKIE, listener={"timeout_client_data": 40_000 + timeout})
            )
            assert applied.action == "reload"
        going = False
    assert len(began) > 250
    strays = [cookie for cookie, name in began.items() if (await get(site, cookie))[0] != name]
    assert strays == []


@pytest.mark.parametrize("kind", KINDS)
async def test_a_client_of_a_dead_member_is_sent_to_another(site: Site, kind: str) -> None:
    monitor = a_monitor(delay=1, max_retries_down=1, url_path="/health")
    await site.shows(pool=KINDS[kind], monitors=(monitor,))
    name, again = await stays(site, kind)
    await site.world.members[name].stop()
    assert await again() in {"one", "two", "three"} - {name}  # not yet known to be down: redispatched
    await until(lambda: ",DOWN," in site.world.runtime("show stat"))
    assert await again() in {"one", "two", "three"} - {name}


@pytest.mark.parametrize("kind", ["HTTP_COOKIE", "APP_COOKIE"])
async def test_members_come_and_go_at_run_time_under_load(site: Site, kind: str) -> None:
    await site.shows(pool=KINDS[kind])
    async with crowd(site.port) as tally:
        for turn in range(10):
            # All members but the first are replaced by others.
            rows = [
                site.rows()[0],
                *(replace(row, id=a_member(1000 * turn + i).id) for i, row in enumerate(site.rows())),
            ]
            assert (await site.world.apply(site.tree(pool=KINDS[kind], rows=rows))).action == "runtime"
    assert tally.failures == []
    assert set(tally.answers) == {"one", "two", "three"}


async def test_source_ip_holds_for_tcp(site: Site) -> None:
    await site.shows(pool=SOURCE_IP, listener={"protocol": ListenerProtocol.TCP})
    sources = [CLIENTS.format(host) for host in range(1, 8)]
    first = {source: await ask(site.port, source=source) for source in sources}
    assert first == {source: await ask(site.port, source=source) for source in sources}
    assert len(set(first.values())) == 3


def test_agent_and_driver_call_haproxy_by_the_same_name() -> None:
    for turn in range(300):
        assert peer_name(f"{AMPHORA}{turn}") == haproxy_text.peer_name(f"{AMPHORA}{turn}")
