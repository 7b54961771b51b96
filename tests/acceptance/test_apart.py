"""The parts of an installation in processes of their own, on a real database server; each of them killed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.acceptance.fleet import Fleet
from tests.acceptance.support import Api, Backend, Load, free_port, processes, serving, until
from tests.servers import Mariadb, Postgresql, Server


@pytest.fixture(
    params=[
        pytest.param(Postgresql, id="postgresql"),
        pytest.param(Mariadb, id="mariadb", marks=pytest.mark.long),
    ]
)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    made: Server = request.param()
    try:
        made.prepare()
        made.start()
        yield made
    finally:
        made.remove()


@pytest.fixture
def fleet(server: Server, tmp_path: Path) -> Iterator[Fleet]:
    made = Fleet(tmp_path, server.make_database("apart"), "[controller]\nrenewal_interval = 0.3\n")
    try:
        yield made
    finally:
        made.remove()


@pytest.mark.beside
def test_parts_share_the_work_and_survive_each_other(fleet: Fleet, backends: list[Backend]) -> None:
    refused = fleet.run("api", "--port", "0")
    assert (refused.returncode, "frontinus db upgrade" in refused.stderr) == (2, True), refused.stderr
    missing = fleet.run("db", "upgrade", "--check")
    assert (missing.returncode, missing.stdout.startswith("0001")) == (1, True), missing
    assert fleet.run("db", "upgrade").returncode == 0
    assert fleet.run("db", "upgrade", "--check").returncode == 0

    fleet.start(apis=2, controllers=2)
    first, second = fleet.apis()
    port = free_port()
    load_balancer = first.web_load_balancer(backends, port)
    assert second.settled(load_balancer["id"])["provisioning_status"] == "ACTIVE"
    serving(load_balancer["vip_address"], port)
    until(lambda: second.load_balancer(load_balancer["id"])["operating_status"] == "ONLINE", 20, "nobody hears it")

    for name in ("api", "controller", "health"):
        fleet.kill(fleet.of(name)[0])
    before = second.amphorae(load_balancer["id"])
    other_port = free_port()
    second.create(
        "listeners", "listener", loadbalancer_id=load_balancer["id"], protocol="HTTP", protocol_port=other_port
    )
    assert second.settled(load_balancer["id"])["provisioning_status"] == "ACTIVE"
    other = second.web_load_balancer(backends, port)
    assert second.settled(other["id"])["provisioning_status"] == "ACTIVE"
    serving(other["vip_address"], port)
    until(lambda: second.load_balancer(other["id"])["operating_status"] == "ONLINE", 20, "one receiver is not enough")
    after = second.amphorae(load_balancer["id"])
    assert after == before, "a receiver's death is no amphora's"

    rotated = fleet.run("ca", "rotate", "--timeout", "30")
    assert rotated.returncode == 0, rotated.stderr
    assert "2 of 2 amphorae" in fleet.run("ca", "show").stdout

    second.delete(f"loadbalancers/{load_balancer['id']}?cascade=true")
    second.gone(f"loadbalancers/{load_balancer['id']}")


def is_online(api: Api, load_balancer_id: str) -> bool:
    return bool(api.load_balancer(load_balancer_id)["operating_status"] == "ONLINE")


def ears(fleet: Fleet) -> set[str]:
    """What is told of each receiver: where it listens, and since when."""
    return {x.partition(": ")[0] for x in fleet.run("status").stdout.splitlines() if x.startswith("receiver ")}


def has_come(fleet: Fleet, told: set[str]) -> bool:
    """Whether there is one that was not there before."""
    return bool(ears(fleet) - told)


SILENCE_S = 3.0
"""health.silence_deadline, as it is unless somebody sets it."""


@pytest.mark.beside
def test_a_receiver_that_is_killed_fails_nobody_over(fleet: Fleet, backends: list[Backend]) -> None:
    """Half of all heartbeats go to where nobody listens, for longer than an amphora may be silent; with each of two receivers."""
    assert fleet.run("db", "upgrade").returncode == 0
    fleet.start(controllers=1)
    (api,) = fleet.apis()
    port = free_port()
    made = [api.web_load_balancer(backends, port) for _ in range(3)]
    for each in made:
        assert api.settled(each["id"])["provisioning_status"] == "ACTIVE"
        until(partial(is_online, api, each["id"]), 20, "nobody hears it")
    before = {x["id"]: api.amphorae(x["id"]) for x in made}
    running = sorted(x.pid for x in processes(FRONTINUS_STATE_DIR=str(fleet.state_dir)))
    with Load(made[0]["vip_address"], port, pause=0.02) as load:
        for receiver in fleet.of("health"):
            told = ears(fleet)
            fleet.kill(receiver)
            killed = time.monotonic()
            while time.monotonic() - killed < 2.5 * SILENCE_S:
                assert {x["id"]: api.amphorae(x["id"]) for x in made} == before
                load.more(10)
            assert sorted(x.pid for x in processes(FRONTINUS_STATE_DIR=str(fleet.state_dir))) == running
            fleet.start_again(receiver)
            until(partial(has_come, fleet, told), 20, "the receiver does not come back")
    assert not load.errors
    # And it is not that nobody looks: with one receiver only, an amphora that is dead is replaced.
    fleet.kill(fleet.of("health")[0])
    (dead,) = before[made[2]["id"]]
    for process in processes(FRONTINUS_AMPHORA_ID=dead):
        os.kill(process.pid, signal.SIGKILL)
    until(lambda: dead not in api.amphorae(made[2]["id"]), 30, "the dead one is not replaced")
    serving(made[2]["vip_address"], port)
    assert {x["id"]: api.amphorae(x["id"]) for x in made[:2]} == {x["id"]: before[x["id"]] for x in made[:2]}


def test_the_embedded_database_is_one_process_own(tmp_path: Path) -> None:
    made = Fleet(tmp_path, "")
    refused = made.run("controller")
    assert refused.returncode == 2
    assert "frontinus up" in refused.stderr
