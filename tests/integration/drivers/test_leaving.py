"""An amphora lets its connections end before it goes: nothing is cut in its midst while there is time, and what goes on for too
long is closed in good order. The pair, whose addresses then move, is in tests/integration/netns/stories_upgrades.py."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from frontinus.model.tree import LoadBalancerTree

from tests.integration.drivers.world import MEMBERS, Member, World, ask, closed, exchange, free_port, until
from tests.unit.drivers.trees import a_listener, a_load_balancer, a_member, a_pool, a_tree

HERE = "127.0.0.1"
"""An address that an interface has, as that of a VIP must be: others of 127.0.0.0/8 are reached and not there."""

TIMEOUT, PAUSE = timedelta(seconds=3), timedelta(seconds=0.5)


class Site:
    def __init__(self, world: World, member: Member, vip: str) -> None:
        self.world, self.member = world, member
        self.port = free_port(HERE)
        self.shut: list[float] = []
        self.tree: LoadBalancerTree = a_tree(
            a_load_balancer(vip),
            listeners=[a_listener(port=self.port)],
            pools=[a_pool()],
            members=[a_member(30, address=MEMBERS, port=member.port)],
        )

    async def leave(self, *, can_shut: bool = True) -> float:
        """How long it took."""

        async def shut() -> bool:
            self.shut.append(time.monotonic())
            return can_shut

        began = time.monotonic()
        await self.world.driver.leave(self.world.amphora, self.tree, shut)
        return time.monotonic() - began


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path, drain_timeout=TIMEOUT, drain_pause=PAUSE)
    made.start_agent()
    try:
        yield await made.answering()
    finally:
        await made.close()
        await until(lambda: not made.haproxy_pids())


@pytest.fixture
async def site(world: World) -> Site:
    made = Site(world, await world.member("one"), HERE)
    await world.apply(made.tree)
    assert await ask(made.port, address=HERE) == "one"
    return made


async def test_whose_agent_is_of_another_extension_is_not_kept_from_going(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("frontinus.drivers.amphora.agent.client.EXTENSION", 2)
    site.world.driver._client.forget(site.world.amphora.id)
    assert await site.leave() < TIMEOUT.total_seconds()
    await site.world.driver.retire(site.world.amphora, site.tree)


async def test_what_is_kept_open_ends_with_an_answer_while_others_are_served(site: Site) -> None:
    kept = await asyncio.open_connection(HERE, site.port)
    assert await exchange(*kept) == "one"
    leaving = asyncio.create_task(site.leave())
    await until(lambda: len(site.world.haproxy_pids()) == 3)  # the master, and a worker before the other
    assert (leaving.done(), site.shut) == (False, []), "it waits, and nobody is turned away"
    assert await ask(site.port, address=HERE) == "one"
    while not kept[0].at_eof():  # as soon as its worker knows that it is to go
        assert await exchange(*kept) == "one"
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                assert await kept[0].read(1) == b"", "an orderly end"
    await closed(kept[1])
    assert await leaving < TIMEOUT.total_seconds()
    assert site.shut == [], "the agent did it by itself, and the network was not asked"


async def test_an_answer_that_takes_its_time_is_waited_for(site: Site) -> None:
    site.member.delay = 0.4
    asking = asyncio.create_task(ask(site.port, address=HERE))
    await until(lambda: len(site.member.requests) == 2)
    await site.leave()
    assert await asking == "one"
    assert site.world.haproxy_pids() != [], "nothing had to be closed"


async def test_what_goes_on_for_too_long_is_closed_in_good_order(site: Site) -> None:
    idle = await asyncio.open_connection(HERE, site.port)
    assert await exchange(*idle) == "one"
    assert await site.leave() > TIMEOUT.total_seconds()
    assert await idle[0].read() == b""
    await closed(idle[1])
    assert site.world.haproxy_pids() == []


async def test_where_nobody_can_shut_it_nobody_is_turned_away(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("frontinus.drivers.amphora.agent.driver.SHUT", "an agent of the past has no such feature")
    await site.leave(can_shut=False)
    assert len(site.shut) == 1
    assert await ask(site.port, address=HERE) == "one"


async def test_nobody_new_is_let_in_and_nobody_is_refused(site: Site) -> None:
    """By the agent, whatever the network can; who is in goes on, and a place among peers would stay open."""
    inside = await asyncio.open_connection(HERE, site.port)
    assert await site.world.driver._client.shut(site.world.amphora, site.tree.id)
    for _ in range(2):  # also after a reload, by another worker
        asking = asyncio.create_task(ask(site.port, address=HERE, within=30))
        _, waiting = await asyncio.wait({asking}, timeout=0.3)
        assert waiting, "it is met with silence, and asks again"
        asking.cancel()
        assert await exchange(*inside) == "one"
        await site.world.driver._client.reload(site.world.amphora, site.tree.id)
    await closed(inside[1])


async def test_a_standby_has_nothing_to_let_go_of(site: Site) -> None:
    site.tree = replace(site.tree, load_balancer=replace(site.tree.load_balancer, vip=a_load_balancer("192.0.2.7").vip))
    reloads = site.world.runtime("show info")
    await site.leave()
    assert site.shut == []
    assert site.world.runtime("show info").splitlines()[5] == reloads.splitlines()[5], "the same process"
