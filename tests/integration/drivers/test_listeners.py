"""What a listener does to requests before any member sees them: headers, and who is let in."""

from __future__ import annotations

import asyncio

import pytest

from frontinus.model.enums import ListenerProtocol

from tests.integration.drivers.test_traffic import Site
from tests.integration.drivers.world import CLIENTS, VIP, World, ask, closed, exchange, free_port
from tests.unit.drivers.trees import a_listener, a_load_balancer, a_member, a_pool, a_tree


@pytest.fixture
async def site(world: World) -> Site:
    return Site(world, [await world.member("one")], free_port())


async def seen_by_member(site: Site, headers: str) -> list[str]:
    """The header lines that the member gets for a request with these, from a client whose address is 127.84.1.7."""
    reader, writer = await asyncio.open_connection(VIP, site.port, local_addr=(CLIENTS.format(7), 0))
    writer.write(f"GET / HTTP/1.1\r\nHost: here\r\n{headers}\r\n".encode())
    await reader.readuntil(b"\r\n\r\n")
    await closed(writer)
    lines = site.members[0].requests[-1].decode().lower().split("\r\n")
    return [line for line in lines[1:] if line.startswith("x-")]


@pytest.mark.parametrize(
    "name, sent, expected",
    [
        ("X-Forwarded-For", "", ["x-forwarded-for: 127.84.1.7"]),
        # The list grows at its end: what a client claims stays before what we know.
        ("X-Forwarded-For", "203.0.113.9", ["x-forwarded-for: 203.0.113.9", "x-forwarded-for: 127.84.1.7"]),
        ("X-Forwarded-Port", "666", ["x-forwarded-port: {port}"]),
        ("X-Forwarded-Proto", "https", ["x-forwarded-proto: http"]),
        ("X-Forwarded-IP", "203.0.113.9", ["x-forwarded-ip: 127.84.1.7"]),
        ("X-Client-IP", "203.0.113.9", ["x-client-ip: 127.84.1.7"]),
        ("X-Real-IP", "203.0.113.9", ["x-real-ip: 127.84.1.7"]),
    ],
)
async def test_headers_are_inserted(site: Site, name: str, sent: str, expected: list[str]) -> None:
    await site.shows(listener={"insert_headers": {name: "True"}})
    claimed = f"{name}: {sent}\r\n" * 2 if sent and name != "X-Forwarded-For" else f"{name}: {sent}\r\n" if sent else ""
    assert await seen_by_member(site, claimed) == [line.format(port=site.port) for line in expected]


async def test_headers_that_are_not_asked_for_pass_as_they_come(site: Site) -> None:
    await site.shows(listener={"insert_headers": {"X-Real-IP": "false"}})
    assert await seen_by_member(site, "X-Real-IP: 203.0.113.9\r\n") == ["x-real-ip: 203.0.113.9"]


@pytest.mark.parametrize("protocol", [ListenerProtocol.HTTP, ListenerProtocol.TCP])
async def test_only_allowed_networks_get_in(site: Site, protocol: ListenerProtocol) -> None:
    others = tuple(f"10.{i // 250}.{i % 250}.0/24" for i in range(600))
    await site.shows(listener={"protocol": protocol, "allowed_cidrs": (*others, "127.84.1.8/29")})
    for host, expected in [(8, "one"), (15, "one"), (7, "refused"), (16, "refused")]:
        try:
            answer = await ask(site.port, source=CLIENTS.format(host))
        except (ConnectionError, asyncio.IncompleteReadError):
            answer = "refused"
        assert (host, answer) == (host, expected)
    await site.shows(listener={"protocol": protocol})
    assert await ask(site.port, source=CLIENTS.format(7)) == "one"


async def test_an_ipv6_vip_serves_and_restricts(world: World) -> None:
    """Members may speak another version of IP than the VIP."""
    member, port = await world.member("one"), free_port()

    async def serves(*cidrs: str) -> str:
        await world.apply(
            a_tree(
                a_load_balancer("::1"),
                listeners=[a_listener(port=port, allowed_cidrs=cidrs, insert_headers={"X-Real-IP": "true"})],
                pools=[a_pool()],
                members=[a_member(address="127.84.0.2", port=member.port)],
            )
        )
        try:
            reader, writer = await asyncio.open_connection("::1", port)
            try:
                return await exchange(reader, writer)
            finally:
                await closed(writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            return "refused"

    assert await serves() == "one"
    assert await serves("::1/128") == "one"
    assert await serves("2001:db8::/32") == "refused"
    assert b"x-real-ip: ::1" in member.requests[-1].lower()


async def test_several_listeners_share_a_vip_and_a_pool(site: Site) -> None:
    second = free_port()
    tree = site.tree()
    await site.world.apply(
        a_tree(
            tree.load_balancer,
            listeners=[*tree.listeners, a_listener(11, ListenerProtocol.TCP, second)],
            pools=tree.pools,
            members=tree.members,
        )
    )
    assert [await ask(port) for port in (site.port, second)] == ["one", "one"]
