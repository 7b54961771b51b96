"""Why a member is down, from a real HAProxy's check through the agent's datagram to the driver's value."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from frontinus.model.heartbeat import CheckReport

from tests.integration.drivers.test_traffic import Site
from tests.integration.drivers.world import World, free_port, until
from tests.unit.drivers.trees import a_monitor


@pytest.fixture
async def site(world: World) -> Site:
    return Site(world, [await world.member(name) for name in ("one", "two", "three")], free_port())


def told(world: World, before: dict[str, CheckReport]) -> dict[str, CheckReport]:
    """The checks of the latest heartbeat; as before when none came."""
    latest = before
    while True:
        try:
            datagram = world.heartbeats.recv(65_536)
        except BlockingIOError:
            return latest
        latest = {}
        for pool in world.driver.decode(datagram, datetime.now(UTC)).pools.values():
            latest |= pool.checks


async def test_the_reason_is_told_while_it_lasts(site: Site) -> None:
    monitor = a_monitor(delay=1, timeout=1, max_retries=1, max_retries_down=1, url_path="/health")
    await site.shows(monitors=(monitor,))
    one, two, three = (row.id for row in site.rows())
    await site.members[1].stop()
    site.members[2].healthy = False
    seen: dict[str, CheckReport] = {}

    def reasons() -> dict[str, tuple[str, int | None]]:
        nonlocal seen
        seen = told(site.world, seen)
        return {member: (check.status, check.code) for member, check in seen.items()}

    await until(lambda: reasons() == {two: ("L4CON", None), three: ("L7STS", 500)})
    assert seen[two].text == "Layer4 connection problem: Connection refused"
    assert seen[three].text.startswith("Layer7 wrong status")
    assert one not in seen
    site.members[2].healthy = True
    await site.members[1].start()
    await until(lambda: reasons() == {})
