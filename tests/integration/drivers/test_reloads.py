"""What one HAProxy hands to the next: what it learnt of its members, and nothing that is the text's to say."""

from __future__ import annotations

import asyncio
import csv
import http.client
import os
import signal
from pathlib import Path

import pytest
from msgspec.structs import replace

from frontinus.drivers.amphora.haproxy.versions import ADD_HTTP2_SINCE, version_of
from frontinus.model.enums import HealthMonitorType
from frontinus.testing.certificates import TestAuthority

from tests.integration.drivers.test_traffic import Site
from tests.integration.drivers.tls_world import member_in_own_words
from tests.integration.drivers.world import MEMBERS, VIP, World, ask, free_port, haproxy_version, spread, until
from tests.unit.drivers.trees import a_listener, a_load_balancer, a_member, a_monitor, a_pool, a_tree, number

IS_NEW = version_of(haproxy_version()) >= ADD_HTTP2_SINCE


@pytest.fixture
async def site(world: World) -> Site:
    return Site(world, [await world.member(name) for name in ("one", "two")], free_port())


def statuses(world: World, backend: str = "") -> dict[str, str]:
    """Name of each server -> what HAProxy says of it."""
    rows = csv.DictReader(world.runtime("show stat").removeprefix("# ").splitlines())
    return {row["svname"]: row["status"] for row in rows if backend in row["pxname"] and row["svname"][0] == "0"}


async def reload(site: Site, **fields: object) -> None:
    assert await site.shows(listener={"timeout_client_data": 1_234}, **fields) == "reload"


async def kill_haproxy(world: World) -> None:
    """All of it, and the agent starts it again."""
    before = world.haproxy_pids()
    os.kill(before[0], signal.SIGKILL)
    await until(lambda: not set(before) & set(world.haproxy_pids()) and len(world.haproxy_pids()) > 1)


async def test_a_start_knows_nothing_of_an_earlier_reload(site: Site) -> None:
    """A member that was down when HAProxy was last reloaded, and is well since, serves at once after a crash."""
    monitor = a_monitor(type=HealthMonitorType.HTTP, url_path="/health", delay=0, max_retries=10, max_retries_down=1)
    one = site.world.members["one"]
    rows = site.rows()[:1]
    await site.shows(rows=rows, monitors=(monitor,))
    one.healthy = False
    await until(lambda: "DOWN" in statuses(site.world).values())
    await reload(site, rows=rows, monitors=(monitor,))
    one.healthy = True
    await until(lambda: "UP" in statuses(site.world).values())
    await kill_haproxy(site.world)

    async def serves() -> bool:
        try:
            return await ask(site.port) != ""
        except OSError:
            return False

    await until(serves)
    assert "DOWN" not in statuses(site.world).values()
    assert await spread(site.port, 3) == {"one": 3}


async def test_a_member_that_was_disabled_once_stays_down_over_a_reload(site: Site) -> None:
    monitor = a_monitor(type=HealthMonitorType.HTTP, url_path="/health", delay=1, max_retries=1, max_retries_down=1)
    site.world.members["two"].healthy = False
    await site.shows(rows=site.rows(two={"admin_state_up": False}), monitors=(monitor,))
    assert await site.shows(rows=site.rows(), monitors=(monitor,)) == "runtime"
    await until(lambda: statuses(site.world)[number(31)] == "DOWN")
    await reload(site, rows=site.rows(), monitors=(monitor,))
    assert statuses(site.world)[number(31)] == "DOWN"
    assert await spread(site.port, 4) == {"one": 4}


async def test_what_is_known_of_a_pool_is_known_to_each_of_its_listeners(site: Site) -> None:
    monitor = a_monitor(type=HealthMonitorType.HTTP, url_path="/health", delay=2, max_retries=1, max_retries_down=1)
    site.world.members["two"].healthy = False
    await site.shows(rows=site.rows(), monitors=(monitor,))
    await until(lambda: statuses(site.world)[number(31)] == "DOWN")
    other = free_port()
    assert await site.shows(rows=site.rows(), monitors=(monitor,), more=(a_listener(5, port=other),)) == "reload"
    assert await spread(other, 4) == {"one": 4}
    assert statuses(site.world, f"{number(20)}:{number(5)}")[number(31)] == "DOWN"


@pytest.mark.parametrize(
    "alpn, learns_of_it_by",
    [
        pytest.param(None, "runtime", id="in clear"),
        pytest.param(("http/1.1",), "runtime", id="in TLS"),
        pytest.param(("h2", "http/1.1"), "runtime" if IS_NEW else "reload", id="in TLS by HTTP 2"),
    ],
)
async def test_connections_to_members_that_come_later_are_kept(
    world: World, tmp_path: Path, alpn: tuple[str, ...] | None, learns_of_it_by: str
) -> None:
    """As those to members that were there."""
    tls = "" if alpn is None else f"ssl crt own.pem alpn {','.join(alpn)}"
    with member_in_own_words(tmp_path, TestAuthority("members").issue("any"), tls) as member_port:
        port = free_port()
        pool = a_pool() if alpn is None else a_pool(tls_enabled=True, alpn_protocols=alpn)
        tree = a_tree(a_load_balancer(VIP), listeners=[a_listener(port=port)], pools=[pool])

        def connections() -> int:
            """To the member, for ten requests of one client."""
            client = http.client.HTTPConnection(VIP, port, timeout=5)
            ports = set()
            for _ in range(10):
                client.request("GET", "/")
                ports.add(client.getresponse().read().partition(b"from=")[2].partition(b" ")[0])
            client.close()
            return len(ports)

        for member, how in ((30, "start"), (31, learns_of_it_by)):
            row = a_member(member, address=MEMBERS, port=member_port)
            assert (await world.apply(replace(tree, members=(row,)))).action == how
            assert await asyncio.to_thread(connections) == 1
