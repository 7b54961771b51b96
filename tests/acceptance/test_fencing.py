"""A controller that was stopped for longer than its lease, and goes on: it writes nothing and does no harm outside."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from frontinus.model.ids import AmphoraId
from frontinus.testing.simulated.agent import Order
from frontinus.testing.simulated.fleet import SimulatedFleet

from tests.acceptance import watcher
from tests.acceptance.fleet import Fleet
from tests.acceptance.support import Backend, until
from tests.servers import Mariadb, Postgresql, Server

PUSH_S = 3.0
"""So long an amphora lets a controller wait for the answer to a push."""


@pytest.fixture(
    params=[pytest.param(Postgresql, id="postgresql"), pytest.param(Mariadb, id="mariadb", marks=pytest.mark.long)]
)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    made: Server = request.param()
    try:
        made.prepare()
        made.start()
        yield made
    finally:
        made.remove()


@pytest.mark.beside
def test_a_controller_that_wakes_writes_nothing(server: Server, tmp_path: Path) -> None:
    url = server.make_database("fencing")
    with SimulatedFleet() as simulated:
        fleet = Fleet(tmp_path, url, "[log]\njson = true\n" + simulated.settings(), 1, simulated.environment())
        try:
            assert fleet.run("db", "upgrade").returncode == 0
            fleet.start(controllers=2)
            _story(fleet, simulated, url)
        finally:
            fleet.remove()


def _story(fleet: Fleet, simulated: SimulatedFleet, url: str) -> None:
    (api,) = fleet.apis()
    made = api.web_load_balancer([Backend("nobody", 9, lambda: None)], 8080)
    load_balancer_id = made["id"]
    api.settled(load_balancer_id)
    (amphora_id,) = api.amphorae(load_balancer_id)
    watching = watcher.Watcher(url, lambda: {x.process.pid for x in fleet.of("controller")})
    watching.start()
    simulated.order(Order(delay=PUSH_S))
    pool = made["pools"][0]["id"]
    member = api.show(f"pools/{pool}/members", "members")[0]["id"]
    api.update(f"pools/{pool}/members/{member}", "member", weight=7)
    until(lambda: simulated.report()[AmphoraId(amphora_id)].pushes == 2, 10, "nobody pushes")
    holder = until(lambda: held_by(watching, load_balancer_id), 5, "nobody holds it")
    stopped = watching.owners[holder]
    os.kill(stopped, signal.SIGSTOP)
    try:
        simulated.order(Order())
        api.update(f"pools/{pool}/members/{member}", "member", weight=9)
        assert api.settled(load_balancer_id)["provisioning_status"] == "ACTIVE"
        before = _everything(url, simulated)
    finally:
        os.kill(stopped, signal.SIGCONT)
    until(lambda: '"lease lost"' in fleet.log(), 10, "it does not notice")
    api.update(f"pools/{pool}", "pool", description="by whoever serves")  # and the woken one works on with others
    assert api.settled(load_balancer_id)["provisioning_status"] == "ACTIVE"
    watching.stop()
    after = _everything(url, simulated)
    assert _same(before) == _same(after)


def held_by(watching: watcher.Watcher, load_balancer_id: str) -> str:
    """The controller, if it is known which process that is."""
    row = watching.rows.get(load_balancer_id)
    owner = "" if row is None or row.owner is None else row.owner
    return owner if owner in watching.owners else ""


def _everything(url: str, simulated: SimulatedFleet) -> tuple[list[watcher.Settled], list[str], list[str]]:
    settled, recorded = watcher.state(url)
    digests = [digest for x in simulated.report().values() for digest in x.digests]
    return settled, [x.id for x in recorded], digests


def _same(seen: tuple[list[watcher.Settled], list[str], list[str]]) -> tuple[list[str], list[str], list[str]]:
    """Pool descriptions are not rendered: no further push, and nothing else that has moved."""
    settled, amphorae, digests = seen
    return [f"{x.status} {x.is_due} {x.fault}" for x in settled], amphorae, digests
