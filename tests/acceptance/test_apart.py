"""The parts of an installation in processes of their own, on a real database server; each of them killed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.fleet import Fleet
from tests.acceptance.support import Backend, free_port, serving, until
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


def test_the_embedded_database_is_one_process_own(tmp_path: Path) -> None:
    made = Fleet(tmp_path, "")
    refused = made.run("controller")
    assert refused.returncode == 2
    assert "frontinus up" in refused.stderr
