"""Cases of listeners without TLS: protocols, who is let in, limits, timeouts, what is told to members."""

from __future__ import annotations

import asyncio
import socket
import time

from tests.acceptance.traffic.case import Group
from tests.acceptance.traffic.stage import Stage, headers_of
from tests.integration.drivers.world import CLIENTS, MEMBERS, closed, exchange

LISTENERS = Group("listeners")
case = LISTENERS.case

TCP = {"protocol": "TCP"}


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while part := await reader.read(65536):
        writer.write(part)


async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"220 I speak first\r\n")
    await reader.read()


@case(
    "listener.protocol[HTTP]",
    "listener.protocol_port",
    "listener.default_pool",
    "listener.admin_state_up[true]",
    "loadbalancer.listeners",
    "pool.members",
    "pool.protocol[HTTP]",
    members=2,
)
async def requests_of_one_connection_are_spread(stage: Stage) -> None:
    client = stage.client()
    request = b"GET /a?b HTTP/1.1\r\nHost: www.example.org\r\n\r\n"
    answers = [await asyncio.to_thread(client.ask, request) for _ in range(4)]
    client.close()
    assert [status for status, _, _ in answers] == [200] * 4
    assert sorted(body for _, _, body in answers) == [b"one", b"one", b"two", b"two"]
    assert stage.servers[0].requests[0].startswith(b"GET /a?b HTTP/1.1\r\n")


@case("listener.protocol[TCP]", "pool.protocol[TCP]", listener=TCP, pool=TCP, servers=[echo], name="TCP")
@case(
    "listener.protocol[HTTPS]",
    "pool.protocol[HTTPS]",
    listener={"protocol": "HTTPS"},
    pool={"protocol": "HTTPS"},
    servers=[echo],
    name="HTTPS",
)
async def bytes_pass_untouched(stage: Stage) -> None:
    reader, writer = await asyncio.open_connection(stage.address, stage.port)
    sent = bytes(range(256)) * 400
    writer.write(sent)
    assert await reader.readexactly(len(sent)) == sent
    await closed(writer)


@case("listener.protocol[PROMETHEUS]", listener={"protocol": "PROMETHEUS"}, members=0)
async def metrics_are_told(stage: Stage) -> None:
    answer = await stage.request(path="/metrics")
    assert answer.status == 200
    assert f'haproxy_frontend_http_requests_total{{proxy="{stage.listener["id"]}"}}' in answer.body
    assert (await stage.request(path="/other")).status == 404


@case("listener.admin_state_up[false]", listener={"admin_state_up": False})
async def a_disabled_listener_does_not_listen(stage: Stage) -> None:
    assert await stage.ask() == "refused"
    await stage.change_listener(admin_state_up=True)
    await stage.becomes("one")
    await stage.change_listener(admin_state_up=False)
    assert await stage.ask() == "refused"


@case("listener.connection_limit", listener={**TCP, "connection_limit": 2}, pool=TCP)
async def one_connection_more_waits(stage: Stage) -> None:
    held = [await asyncio.open_connection(stage.address, stage.port) for _ in range(2)]
    for connection in held:
        await exchange(*connection)
    third = asyncio.create_task(stage.ask(within=20))
    assert not (await asyncio.wait({third}, timeout=0.3))[0]
    await closed(held[0][1])
    assert await third == "one"
    await closed(held[1][1])
    await stage.change_listener(connection_limit=0)
    assert await stage.ask() == "refused"
    await stage.change_listener(connection_limit=-1)
    assert await stage.ask() == "one"


@case("listener.timeout_client_data", listener={**TCP, "timeout_client_data": 300}, pool=TCP)
async def an_idle_client_is_left(stage: Stage) -> None:
    reader, writer = await asyncio.open_connection(stage.address, stage.port)
    await exchange(reader, writer)
    began = time.monotonic()
    assert await asyncio.wait_for(reader.read(), 5) == b""
    assert 0.25 < time.monotonic() - began < 3
    await closed(writer)


@case("listener.timeout_member_data", listener={"timeout_member_data": 300})
async def an_answer_that_does_not_come_is_504(stage: Stage) -> None:
    stage.servers[0].delay = 2
    began = time.monotonic()
    assert await stage.ask() == "504"
    assert 0.25 < time.monotonic() - began < 3


@case("listener.timeout_member_connect", bare=True, members=0)
async def a_member_that_does_not_shake_hands_is_503(stage: Stage) -> None:
    with socket.socket() as deaf:
        # A listener whose queue is full: the kernel drops further handshakes, as a member behind a firewall would.
        deaf.bind((MEMBERS, 0))
        deaf.listen(0)
        fillers = [socket.socket() for _ in range(2)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(deaf.getsockname())
        pool = await stage.create(
            "pools", "pool", loadbalancer_id=stage.load_balancer_id, protocol="HTTP", lb_algorithm="ROUND_ROBIN"
        )
        address, port = deaf.getsockname()
        await stage.create(f"pools/{pool['id']}/members", "member", address=address, protocol_port=port)
        await stage.create(
            "listeners",
            "listener",
            loadbalancer_id=stage.load_balancer_id,
            protocol="HTTP",
            protocol_port=stage.port,
            default_pool_id=pool["id"],
            timeout_member_connect=100,
        )
        began = time.monotonic()
        assert await stage.ask(within=15) == "503"
        assert time.monotonic() - began < 5  # four tries of 100 ms, and up to a second between two at one member
        for filler in fillers:
            filler.close()


@case("listener.timeout_tcp_inspect", listener={**TCP, "timeout_tcp_inspect": 5000}, pool=TCP, servers=[greet])
async def nothing_waits_that_is_not_inspected(stage: Stage) -> None:
    began = time.monotonic()
    reader, writer = await asyncio.open_connection(stage.address, stage.port)
    assert await reader.readline() == b"220 I speak first\r\n"
    assert time.monotonic() - began < 3
    await closed(writer)


@case("listener.allowed_cidrs", listener={"allowed_cidrs": ["127.84.1.8/29"]}, name="HTTP")
@case("listener.allowed_cidrs", listener={**TCP, "allowed_cidrs": ["127.84.1.8/29"]}, pool=TCP, name="TCP")
async def only_allowed_networks_get_in(stage: Stage) -> None:
    seen = {host: await stage.ask_from(host) for host in (7, 8, 15, 16)}
    assert seen == {7: "refused", 8: "one", 15: "one", 16: "refused"}
    await stage.change_listener(allowed_cidrs=None)
    assert await stage.ask_from(7) == "one"


_INSERTED = {
    "X-Forwarded-For": ("203.0.113.9", ["203.0.113.9", CLIENTS.format(7)]),
    "X-Forwarded-Port": ("666", ["{port}"]),
    "X-Forwarded-Proto": ("https", ["http"]),
    "X-Forwarded-IP": ("203.0.113.9", [CLIENTS.format(7)]),
    "X-Client-IP": ("203.0.113.9", [CLIENTS.format(7)]),
    "X-Real-IP": ("203.0.113.9", [CLIENTS.format(7)]),
}
"""What a client claims, and what the member gets: a list grows at its end, anything else is replaced."""


async def the_member_is_told(stage: Stage) -> None:
    name, claimed, expected = stage.expect
    await stage.request(f"{name}: {claimed}", source=7)
    seen = headers_of(stage.servers[0].requests[-1], name)
    assert seen == [value.format(port=stage.port) for value in expected]


for _name, (_claimed, _expected) in _INSERTED.items():
    case(
        f"listener.insert_headers[HTTP {_name}]",
        listener={"insert_headers": {_name: "true"}},
        name=_name,
        expect=(_name, _claimed, _expected),
    )(the_member_is_told)


@case("listener.loadbalancer_id", "listener.default_pool_id", "pool.loadbalancer_id", bare=True, members=2)
async def a_listener_made_by_itself_serves_the_pool_that_it_names(stage: Stage) -> None:
    pools = [
        await stage.create(
            "pools", "pool", loadbalancer_id=stage.load_balancer_id, protocol="HTTP", lb_algorithm="ROUND_ROBIN"
        )
        for _ in range(2)
    ]
    for pool, member in zip(pools, stage.members, strict=True):
        await stage.create(f"pools/{pool['id']}/members", "member", **member)
    stage.listener = await stage.create(
        "listeners",
        "listener",
        loadbalancer_id=stage.load_balancer_id,
        protocol="HTTP",
        protocol_port=stage.port,
        default_pool_id=pools[0]["id"],
    )
    await stage.becomes("one")
    await stage.change_listener(default_pool_id=pools[1]["id"])
    assert await stage.spread(3) == {"two": 3}
    await stage.change_listener(default_pool_id=None)
    assert await stage.ask() == "503"


@case("pool.listener_id", bare=True)
async def a_pool_made_for_a_listener_is_its_default(stage: Stage) -> None:
    listener = await stage.create(
        "listeners", "listener", loadbalancer_id=stage.load_balancer_id, protocol="HTTP", protocol_port=stage.port
    )
    assert await stage.ask() == "503"
    pool = await stage.create("pools", "pool", listener_id=listener["id"], protocol="HTTP", lb_algorithm="ROUND_ROBIN")
    await stage.create(f"pools/{pool['id']}/members", "member", **stage.members[0])
    assert await stage.ask() == "one"
