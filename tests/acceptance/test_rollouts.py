"""Rollouts with real processes: what a bad release costs, what a good one costs, and what a kill in the middle costs."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.support import Backend, Load, ask, free_port, report, serving, until
from tests.acceptance.versions import Versions
from tests.servers import Postgresql

pytestmark = pytest.mark.alone


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Versions]:
    server = Postgresql()
    try:
        server.prepare()
        server.start()
        made = Versions(tmp_path, server.make_database("rollouts"), "[controller]\nrollout_interval = 0.5\n")
        try:
            yield made
        finally:
            made.remove()
    finally:
        server.remove()


def rollout(fleet: Versions, *words: str, expect: int = 0) -> str:
    done = fleet.run("rollout", *words)
    assert done.returncode == expect, f"{words}: {done.stdout}{done.stderr}{fleet.log()}"
    return done.stdout + done.stderr


def three(fleet: Versions, backends: list[Backend]) -> tuple[list[Any], int]:
    """Load balancers that serve, and their port."""
    assert fleet.run("db", "upgrade").returncode == 0
    fleet.start(apis=1, controllers=1)
    (api,) = fleet.apis()
    port = free_port()
    made = [api.web_load_balancer(backends, port, name=f"web{n}", monitor=True) for n in range(3)]
    for each in made:
        api.settled(each["id"])
        until(lambda each=each: api.load_balancer(each["id"])["operating_status"] == "ONLINE", 20, "it is not heard")  # type: ignore[misc]
    return made, port


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_bad_release_halts_at_its_canary_and_is_taken_back(fleet: Versions, backends: list[Backend]) -> None:
    made, port = three(fleet, backends)

    # A release whose template has a slip: no member can be reached.
    assert "no controller of haproxy 2.0.0 runs; start one first" in rollout(fleet, "plan", "--to", "2.0.0", expect=2)
    fleet.start_version("2.0.0", "bad")
    until(lambda: fleet.run("rollout", "plan", "--to", "2.0.0").returncode == 0, 30, "it does not register")
    plan = rollout(fleet, "plan", "--to", "2.0.0")
    assert re.search(r"3  (runtime|reload) +minor: a push", plan), plan
    assert re.search(r"^\+ +server \S+ 127\.0\.0\.1:9 ", plan, re.MULTILINE), plan
    halted = rollout(
        fleet, "start", "--to", "2.0.0", "--canary-soak", "20", "--soak", "2", "--patience", "15", "--watch", expect=1
    )
    assert re.search("its operating status became (DEGRADED|ERROR), after ONLINE", halted), halted
    until(lambda: sorted(ask(x["vip_address"], port)[0] for x in made) == [200, 200, 503], 10, "only the canary has it")
    began = time.monotonic()
    assert "rolled-back" in rollout(fleet, "rollback", "--watch")
    for each in made:
        serving(each["vip_address"], port)
    report(f"rolled back, and served again, after {time.monotonic() - began:.1f} s")


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_good_release_costs_no_request_whoever_is_killed(fleet: Versions, backends: list[Backend]) -> None:
    made, port = three(fleet, backends)
    # A release that is good; whoever moves it and whoever carries it out are killed.
    good = fleet.start_version("3.0.0", "tuned")
    until(lambda: "3  reload" in fleet.run("rollout", "plan", "--to", "3.0.0").stdout, 30, "it does not register")
    with Load(made[0]["vip_address"], port) as load:
        load.more(50)
        rollout(fleet, "start", "--to", "3.0.0", "--canary-soak", "2", "--soak", "1")
        until(lambda: "1 of 3 passed" in fleet.run("rollout", "show").stdout, 40, "the canary does not pass")
        for part in (good, *fleet.of("controller")):
            fleet.kill(part)
        for part in (good, *fleet.of("controller")):
            fleet.start_again(part)
        watched = rollout(fleet, "watch")
        load.more(50)
    assert "3 of 3 passed" in watched, watched
    assert load.errors == []
    assert "serves all 3 that are meant already" in rollout(fleet, "plan", "--to", "3.0.0")
    listed = rollout(fleet, "list")
    titles, row = listed.splitlines()
    assert titles.split() == ["ROLLOUT", "STARTED", "STATE", "WHAT"]
    assert row.split()[3] == "finished"  # when it started is two words


@pytest.mark.long
def test_no_push_is_repeated_and_none_is_lost() -> None:
    """bench/rollout.py, small: a controller is killed in the middle, and the amphorae count what comes to them."""
    bench = Path(__file__).parents[2] / "bench" / "rollout.py"
    done = subprocess.run(
        [sys.executable, str(bench), "--amphorae", "60", "--at-once", "10"], text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for name in ("all_out", "back", "killed_in_the_middle", "with_canary"):
        found = re.search(rf'"{name}": {{(.*?)}}', done.stdout, re.DOTALL)
        assert found is not None, done.stdout
        assert '"pushes": 60' in found[1], done.stdout
        assert '"repeated": 0' in found[1], done.stdout
