"""Health monitors by ping, and the PROMETHEUS listener."""

from __future__ import annotations

import asyncio
import csv

import pytest

from frontinus.model.enums import HealthMonitorType, ListenerProtocol

from tests.integration.drivers.test_traffic import Site
from tests.integration.drivers.world import MEMBERS, VIP, World, closed, free_port, spread, until
from tests.unit.drivers.trees import a_listener, a_load_balancer, a_member, a_monitor, a_pool, a_tree

UP_AND_DOWN = {
    HealthMonitorType.HTTP: ("L7OK", "L4CON"),
    HealthMonitorType.TCP: ("L4OK", "L4CON"),
    HealthMonitorType.PING: ("PROCOK", "PROCERR"),
}
"""HAProxy's words for what a check found (management guide 9.1, check_status)."""


@pytest.fixture
async def site(world: World) -> Site:
    return Site(world, [await world.member(name) for name in ("one", "two")], free_port())


async def test_ping_finds_who_does_not_answer(site: Site) -> None:
    """ping itself refuses to look at 255.255.255.255, and nothing is sent."""
    monitor = a_monitor(type=HealthMonitorType.PING, delay=1, timeout=1, max_retries=1, max_retries_down=1)
    await site.shows(rows=[site.rows()[0], a_member(32, address="255.255.255.255", port=9)], monitors=(monitor,))
    await until(lambda: ",DOWN," in site.world.runtime("show stat"))
    await until(lambda: "L7OK" in site.world.runtime("show stat") or "PROCOK" in site.world.runtime("show stat"))
    assert await spread(site.port, 4) == {"one": 4}


@pytest.mark.parametrize("kind", [HealthMonitorType.HTTP, HealthMonitorType.TCP, HealthMonitorType.PING])
async def test_members_that_come_later_are_examined(site: Site, kind: HealthMonitorType) -> None:
    """One that is well, and one that is not, whether HAProxy learns of them by a command or by a reload. (Those that speak
    TLS: test_tls_of_pools.py.)"""
    monitor = a_monitor(type=kind, delay=1, timeout=1, max_retries=1, max_retries_down=1, url_path="/health")
    first, well = site.rows()
    nobody = "255.255.255.255" if kind is HealthMonitorType.PING else MEMBERS
    await site.shows(rows=[first], monitors=(monitor,))
    await site.shows(rows=[first, well, a_member(32, address=nobody, port=free_port(MEMBERS))], monitors=(monitor,))

    def found() -> list[str]:
        """What the last checks of the three say."""
        rows = csv.DictReader(site.world.runtime("show stat").removeprefix("# ").splitlines())
        servers = sorted((row["svname"], row["status"], row["check_status"]) for row in rows if row["check_status"])
        return [f"{status} {check}" for _, status, check in servers]

    up, down = UP_AND_DOWN[kind]
    await until(lambda: found() == [f"UP {up}", f"UP {up}", f"DOWN {down}"])
    assert await spread(site.port, 4) == {"one": 2, "two": 2}


async def test_members_are_first_examined_long_before_a_delay_is_over(site: Site) -> None:
    """At a start, and when they come while HAProxy runs, and when reloads follow each other."""
    monitor = a_monitor(type=HealthMonitorType.HTTP, url_path="/health", delay=60, max_retries=1, max_retries_down=1)
    one, two = site.world.members.values()
    await site.shows(rows=site.rows()[:1], monitors=(monitor,))
    await until(lambda: len(one.checks) == 1, within=5)
    two.healthy = False
    assert await site.shows(rows=site.rows(), monitors=(monitor,)) == "runtime"
    await until(lambda: ",DOWN," in site.world.runtime("show stat"), within=5)
    assert (len(one.checks), len(two.checks)) == (1, 1)
    await site.shows(rows=site.rows(), monitors=(monitor,), listener={"timeout_client_data": 1_234})
    await until(lambda: (len(one.checks), len(two.checks)) == (2, 2), within=5)


async def test_prometheus_listener_tells_of_the_others(site: Site) -> None:
    metrics = free_port()
    tree = a_tree(
        a_load_balancer(VIP),
        listeners=[a_listener(port=site.port), a_listener(11, ListenerProtocol.PROMETHEUS, metrics, None)],
        pools=[a_pool()],
        members=[a_member(30, address="127.84.0.2", port=site.members[0].port)],
    )
    await site.world.apply(tree)
    await spread(site.port, 3)

    async def get(path: str) -> tuple[bytes, bytes]:
        reader, writer = await asyncio.open_connection(VIP, metrics)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n".encode())
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        await closed(writer)
        return head.split(b" ")[1], body

    status, body = await get("/metrics")
    counted = f'haproxy_frontend_http_requests_total{{proxy="{tree.listeners[0].id}"}} 3'
    assert (status, counted in body.decode()) == (b"200", True)
    assert (await get("/other"))[0] == b"404"
