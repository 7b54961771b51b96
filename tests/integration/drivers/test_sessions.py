"""Sessions outlive what dies on an amphora that stands alone: HAProxy, the agent, and the keeper of the stick tables."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest
from msgspec.structs import replace

from frontinus.model.ids import AmphoraId

from tests.integration.drivers.test_persistence import APP_COOKIE, KINDS, NAME, SOURCE_IP, get
from tests.integration.drivers.test_traffic import Site
from tests.integration.drivers.world import CLIENTS, World, ask, free_port, until
from tests.unit.drivers.trees import LOAD_BALANCER

CLIENT_NUMBERS = range(1, 31)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
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


async def answers(site: Site, kind: str, *, begins: bool = False) -> list[str]:
    """Who answers each client; with APP_COOKIE it logs in when it `begins`, and shows its cookie later."""
    if kind == "SOURCE_IP":
        return [await ask(site.port, source=CLIENTS.format(x)) for x in CLIENT_NUMBERS]
    if not begins:
        return [(await get(site, f"{NAME}=session-{x}"))[0] for x in CLIENT_NUMBERS]
    return [await ask(site.port, path=f"/set?{NAME}=session-{x}") for x in CLIENT_NUMBERS]


def kept(site: Site) -> int:
    """Processes that keep tables."""
    return len(site.world.keeper_pids())


async def learnt(site: Site) -> None:
    """HAProxy has told its keeper all that it knows."""

    def told() -> bool:
        (of_keeper,) = re.findall(r"id=keeper\(.*?(?=  0x\w+: id=|\Z)", site.world.runtime("show peers"), re.DOTALL)
        pushed = re.findall(r"last_pushed=(\d+) last_get=\d+ teaching_origin=\d+ update=(\d+)", of_keeper)
        return "last_status=ESTA" in of_keeper and bool(pushed) and all(told == known for told, known in pushed)

    await until(told)


def kill(pids: list[int]) -> None:
    assert pids
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


async def serves_anew(site: Site, before: list[int]) -> None:
    """Another HAProxy answers, and no client had to ask to find out."""

    def anew() -> bool:
        try:
            return f"\nPid: {before[-1]}\n" not in site.world.runtime("show info") and kept(site) == 1
        except OSError:
            return False

    await until(anew)


@pytest.mark.parametrize("kind", ["SOURCE_IP", "APP_COOKIE"])
async def test_a_killed_haproxy_costs_no_session(site: Site, kind: str) -> None:
    await site.shows(pool=KINDS[kind])
    first = await answers(site, kind, begins=True)
    assert set(first) == {"one", "two", "three"}
    for _ in range(3):
        await learnt(site)
        pids = site.world.haproxy_pids()
        kill(pids)
        await serves_anew(site, pids)
        assert await answers(site, kind) == first


async def test_a_killed_agent_and_haproxy_cost_no_session(site: Site) -> None:
    await site.shows(pool=SOURCE_IP)
    first = await answers(site, "SOURCE_IP")
    await learnt(site)
    site.world.kill_agent()
    pids = site.world.haproxy_pids()
    kill(pids)
    site.world.start_agent()
    await site.world.answering()
    await serves_anew(site, pids)
    assert await answers(site, "SOURCE_IP") == first


async def test_a_keeper_that_died_is_taught_again(site: Site) -> None:
    await site.shows(pool=SOURCE_IP)
    first = await answers(site, "SOURCE_IP")
    await learnt(site)
    (keeper,) = site.world.keeper_pids()
    kill([keeper])
    await until(lambda: site.world.keeper_pids() not in ([], [keeper]))
    await learnt(site)
    pids = site.world.haproxy_pids()
    kill(pids)
    await serves_anew(site, pids)
    assert await answers(site, "SOURCE_IP") == first


async def test_what_is_learnt_outlives_a_change_of_tables_and_then_a_death(site: Site) -> None:
    """A pool that remembers otherwise has another table, and its keeper is another."""
    await site.shows(pool=SOURCE_IP)
    await answers(site, "SOURCE_IP")
    await site.shows(pool=APP_COOKIE)
    first = await answers(site, "APP_COOKIE", begins=True)
    await site.shows(pool=APP_COOKIE, listener={"timeout_client_data": 40_000})  # a reload
    await learnt(site)
    pids = site.world.haproxy_pids()
    kill(pids)
    await serves_anew(site, pids)
    assert await answers(site, "APP_COOKIE") == first


async def test_there_is_a_keeper_only_while_something_is_kept(site: Site) -> None:
    await site.shows()
    assert kept(site) == 0
    await site.shows(pool=SOURCE_IP)
    assert kept(site) == 1
    await site.shows()
    assert kept(site) == 0
    await site.shows(pool=SOURCE_IP)
    await site.world.driver.retire(site.world.amphora, site.tree(pool=SOURCE_IP))
    assert kept(site) == 0
    assert list(site.world.place.glob(f"{LOAD_BALANCER}*")) == []
