"""`frontinus db upgrade` of this version while the version before goes on to serve: tenants notice nothing.

The version before is the last one with fewer migrations than cohorts needed, out of this repository's history: between it and
this one lie steps that alter the largest tables and index them. The tables are large enough for that to take a while."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.churn import Churn
from tests.acceptance.fleet import Fleet
from tests.acceptance.support import COMMAND, Installation, backend, report, until
from tests.servers import Mariadb, Postgresql, Server

PREVIOUS = "e2548fbc95bf"
"""Its last migration is 0014."""

ROWS = 40_000
"""Load balancers in the table, besides those that tenants change."""

LOAD_BALANCERS = 12
CHURN_S = 4.0
LONGEST_REQUEST_S = 5.0

REPOSITORY = Path(__file__).parent.parent.parent

pytestmark = [pytest.mark.long, pytest.mark.alone, pytest.mark.timeout(300)]


@pytest.fixture
def previous(tmp_path: Path) -> dict[str, str]:
    """What makes a process of the version before out of one of this one: the environment that it is started with."""
    done = subprocess.run(
        ["git", "archive", PREVIOUS, "src", "amphora/src"], cwd=REPOSITORY, capture_output=True, check=False
    )
    assert done.returncode == 0, f"{PREVIOUS} is not in this clone's history: git fetch --unshallow"
    directory = tmp_path / "previous"
    directory.mkdir()
    subprocess.run(["tar", "-x", "-C", directory], input=done.stdout, check=True)
    return {"PYTHONPATH": f"{directory / 'src'}:{directory / 'amphora/src'}"}


@pytest.fixture(params=[pytest.param(Postgresql, id="postgresql"), pytest.param(Mariadb, id="mariadb")])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    made: Server = request.param()
    try:
        made.prepare()
        made.start()
        yield made
    finally:
        made.remove()


def test_the_version_before_serves_on(server: Server, tmp_path: Path, previous: dict[str, str]) -> None:
    url = server.make_database("online")
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    old = Fleet(tmp_path / "old", url, receivers=1, environment=previous)
    new = Fleet(tmp_path / "new", url, receivers=1)
    new.state_dir = old.state_dir
    try:
        assert old.run("db", "upgrade").returncode == 0
        assert [row[0] for row in server.query("SELECT version_num FROM alembic_version", "online")] == ["0014"]
        old.start(apis=2, controllers=2)
        with backend("web") as web:
            churn = Churn([x.port for x in old.parts if x.is_api], LOAD_BALANCERS, web.port)
            churn.start()
            until(lambda: server.query(SETTLED, "online"), 30, "nothing settles")
            _fill(server)
            time.sleep(CHURN_S)
            began = time.monotonic()
            upgraded = new.run("db", "upgrade")
            took = time.monotonic() - began
            assert upgraded.returncode == 0, upgraded.stderr
            time.sleep(CHURN_S)
            churn.stop()
        report(f"{server.name}: upgraded in {took:.1f} s; {dict(churn.seen)}, longest {churn.longest_s:.2f} s")
        assert churn.complaints == []
        assert not {x for x in churn.seen if x not in ("200", "201", "204", "409", "404")}
        assert churn.longest_s < LONGEST_REQUEST_S
        assert [x.command for x in old.parts if x.process.poll() is not None] == []
        _settled(server, churn)
        assert new.run("db", "upgrade", "--check").returncode == 0
        _hand_over(old, new, server, churn)
    finally:
        for part in new.parts:
            part.process.terminate()
            part.process.wait(30)
        old.remove()


def _hand_over(old: Fleet, new: Fleet, server: Server, churn: Churn) -> None:
    """This version takes the others' load balancers over when they have gone, and serves them."""
    new.start(apis=1, controllers=1)
    for part in old.parts:
        part.process.terminate()
        part.process.wait(30)
    (api,) = new.apis()
    for load_balancer_id in list(churn.wanted)[:3]:
        api.update(f"loadbalancers/{load_balancer_id}", "loadbalancer", name="by the next version")
        assert api.settled(load_balancer_id)["provisioning_status"] == "ACTIVE"
    _settled(server, churn)


SETTLED = "SELECT id FROM load_balancer WHERE provisioning_status = 'ACTIVE' AND due_at IS NULL LIMIT 1"


def _settled(server: Server, churn: Churn) -> None:
    unsettled = (
        "SELECT id, provisioning_status FROM load_balancer WHERE provisioning_status NOT IN ('ACTIVE', 'DELETED')"
    )
    until(lambda: not server.query(unsettled, "online"), 30, "not everything settles")
    there = {
        row[0]
        for row in server.query(
            "SELECT id FROM load_balancer WHERE name <> 'filling' AND provisioning_status = 'ACTIVE'", "online"
        )
    }
    assert set(churn.wanted) <= there


def _fill(server: Server) -> None:
    """Copies of one that is settled, with neither children nor amphorae."""
    where = "table_name = 'load_balancer' AND table_schema NOT IN ('information_schema')"
    names = [
        row[0] for row in server.query(f"SELECT column_name FROM information_schema.columns WHERE {where}", "online")
    ]
    is_postgresql = server.name == "postgresql"
    told = {"id": "gen_random_uuid()::text" if is_postgresql else "uuid()", "name": "'filling'"}
    copies = f"generate_series(1, {ROWS}) AS n" if is_postgresql else f"seq_1_to_{ROWS}"
    server.query(
        f"INSERT INTO load_balancer ({', '.join(names)}) SELECT {', '.join(told.get(x, x) for x in names)} FROM "
        f"(SELECT * FROM load_balancer WHERE provisioning_status = 'ACTIVE' AND due_at IS NULL LIMIT 1) AS one, {copies}",
        "online",
    )


def test_sqlite(tmp_path: Path, previous: dict[str, str]) -> None:
    """One file has one writer at a time: what comes while it is upgraded waits, and nothing fails."""
    old = Installation(tmp_path / "state", wrapper=("env", *(f"{key}={value}" for key, value in previous.items())))
    old.start()
    try:
        with backend("web") as web:
            churn = Churn([old.api_port], LOAD_BALANCERS, web.port)
            churn.start()
            time.sleep(CHURN_S)
            words = ["db", "upgrade", "--state-dir", str(old.state_dir)]
            upgraded = subprocess.run([*COMMAND, *words], capture_output=True, text=True, check=False, timeout=60)
            assert upgraded.returncode == 0, upgraded.stderr
            time.sleep(CHURN_S)
            churn.stop()
        report(f"sqlite: {dict(churn.seen)}, longest {churn.longest_s:.2f} s")
        assert churn.complaints == []
        assert not {x for x in churn.seen if x not in ("200", "201", "204", "409", "404")}
        for load_balancer_id in churn.wanted:
            assert old.api().settled(load_balancer_id)["provisioning_status"] == "ACTIVE"
        assert old.stop() == 0
    finally:
        old.remove()
