"""Two versions of a driver: new load balancers go to the newer one, the older one winds down and ends by itself.

The newer version is a driver of another distribution that lies in a directory of the test's own; which version agents are of
is a file, read by each when it starts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.fleet import Fleet
from tests.acceptance.support import COMMAND, Api, Backend, Load, free_port, report, serving, until
from tests.servers import Postgresql

pytestmark = pytest.mark.long

OLD, NEW = "0.1.0", "0.2.0"
NEWER_DRIVER = """\
from frontinus.drivers.amphora.haproxy.driver import HaproxyDriver

class NewerDriver(HaproxyDriver):
    version = "0.2.0"
    interface = 1
    amphora_versions = ">=0.2,<1"
"""
ENTRY_POINT = "[frontinus.amphora_drivers]\nhaproxy-newer = frontinus_newer:NewerDriver\n"
AGENT = """\
import pathlib, runpy
import frontinus_amphora
frontinus_amphora.__version__ = pathlib.Path(__file__).with_name("agent-version").read_text()
runpy.run_module("frontinus_amphora", run_name="__main__", alter_sys=True)
"""
SETTINGS = """\
[drivers]
allow_experimental = ["haproxy-newer"]
[controller]
keep_alive_interval = 0.5
[driver_options.process]
agent_command = [{python}, "-P", {agent}]
"""


@pytest.fixture
def url() -> Iterator[str]:
    server = Postgresql()
    try:
        server.prepare()
        server.start()
        yield server.make_database("versions")
    finally:
        server.remove()


@pytest.fixture
def fleet(url: str, tmp_path: Path) -> Iterator[Fleet]:
    newer = tmp_path / "newer"
    about = newer / "frontinus_newer-0.2.0.dist-info"
    about.mkdir(parents=True)
    (newer / "frontinus_newer.py").write_text(NEWER_DRIVER)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: frontinus-newer\nVersion: 0.2.0\n")
    (about / "entry_points.txt").write_text(ENTRY_POINT)
    agent = tmp_path / "agent.py"
    agent.write_text(AGENT)
    settings = SETTINGS.format(python=json.dumps(sys.executable), agent=json.dumps(str(agent)))
    made = Fleet(
        tmp_path, url, settings, environment={"PYTHONPATH": paths(newer)}, drivers=("haproxy", "haproxy-newer")
    )
    image(made, OLD)
    try:
        yield made
    finally:
        made.remove()


def paths(newer: Path) -> str:
    return os.pathsep.join([str(newer), *filter(None, [os.environ.get("PYTHONPATH")])])


def image(fleet: Fleet, version: str) -> None:
    """Amphorae that are made from now on have an agent of this version."""
    (fleet.directory / "agent-version").write_text(version)


def told(fleet: Fleet, *command: str) -> Any:
    done = fleet.run(*command, "--json")
    assert done.returncode in (0, 3), done.stderr  # 3: something else is live than what is wanted
    return json.loads(done.stdout)


def cohorts(fleet: Fleet) -> dict[str, tuple[str, bool, int]]:
    return {x["version"]: (x["state"], x["served"], x["load_balancers"]) for x in told(fleet, "controller", "list")}


def tell(fleet: Fleet, moment: str) -> None:
    of = (f"{version} {state}, {number} load balancers" for version, (state, _, number) in cohorts(fleet).items())
    report(f"{moment}: {'; '.join(of)}")


def live(fleet: Fleet, load_balancer_id: str) -> tuple[str, str, bool]:
    (receipt,) = told(fleet, "receipt", load_balancer_id)["receipts"]
    return receipt["driver_version"], receipt["amphora_version"], receipt["as_wanted"]


def made(api: Api, backends: list[Backend]) -> tuple[str, str, int]:
    port = free_port()
    load_balancer = api.web_load_balancer(backends, port)
    assert api.settled(load_balancer["id"])["provisioning_status"] == "ACTIVE"
    serving(load_balancer["vip_address"], port)
    return load_balancer["id"], load_balancer["vip_address"], port


@pytest.mark.timeout(400)
def test_an_old_version_winds_down(fleet: Fleet, backends: list[Backend]) -> None:
    assert fleet.run("db", "upgrade").returncode == 0
    fleet.start(apis=1, controllers=2)
    (api,) = fleet.apis()
    old_controllers = fleet.of("controller")
    first, moving = made(api, backends), made(api, backends)
    assert live(fleet, first[0]) == (OLD, OLD, True)

    image(fleet, NEW)
    fleet.add_controller("haproxy-newer")
    until(lambda: NEW in cohorts(fleet), 30, "the newer version does not register")
    newer = made(api, backends)
    assert live(fleet, newer[0]) == (NEW, NEW, True)
    assert cohorts(fleet) == {OLD: ("active", True, 2), NEW: ("active", True, 1)}
    tell(fleet, "two versions")

    # Other settings within one cohort.
    other = fleet.directory / "other.toml"
    other.write_text(
        (fleet.directory / "fleet.toml").read_text().replace("haproxy-newer]", "haproxy-newer]\nmax_connections = 4000")
    )
    refused = subprocess.run(
        [
            *COMMAND,
            "controller",
            "--driver",
            "haproxy-newer",
            "--config",
            str(other),
            "--state-dir",
            str(fleet.state_dir),
        ],
        text=True,
        capture_output=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": paths(fleet.directory / "newer")},
    )
    assert (refused.returncode, "driver_options.haproxy-newer.max_connections" in refused.stderr) == (2, True), refused

    # Attrition: what the old one has it serves.
    assert fleet.run("controller", "drain", "haproxy", OLD).returncode == 0
    another_port = free_port()
    api.create("listeners", "listener", loadbalancer_id=first[0], protocol="HTTP", protocol_port=another_port)
    assert api.settled(first[0])["provisioning_status"] == "ACTIVE"
    assert live(fleet, first[0]) == (OLD, OLD, True)
    assert live(fleet, made(api, backends)[0]) == (NEW, NEW, True)
    api.delete(f"loadbalancers/{first[0]}?cascade=true")
    api.gone(f"loadbalancers/{first[0]}")
    assert [x.process.poll() for x in old_controllers] == [None, None], "one is left to serve"
    tell(fleet, "drained, one of its two deleted, and one more created")

    # The last one is moved, and the old controllers end. It renders the same, so that nothing is pushed.
    before = api.amphorae(moving[0])
    with Load(*moving[1:], kept=1, fresh=1, pause=0.005) as load:
        load.more(20)
        began = time.monotonic()
        done = fleet.run("controller", "drain", "haproxy", OLD, "--move")
        assert (done.returncode, "1 load balancers are moved" in done.stdout) == (0, True), done
        statuses = [part.process.wait(30) for part in old_controllers]
        took = time.monotonic() - began
        load.more(20)
    assert statuses == [0, 0]
    report(f"the old controllers ended by themselves {took:.1f} s after the last one was moved, with status {statuses}")
    report(f"meanwhile {load.total} requests, {len(load.errors)} failed, {load.reopened} connections opened again")
    assert (load.errors, load.reopened) == ([], 0)
    assert cohorts(fleet) == {OLD: ("draining", False, 0), NEW: ("active", True, 3)}
    tell(fleet, "moved")

    assert api.settled(moving[0])["provisioning_status"] == "ACTIVE"
    assert set(before) == set(api.amphorae(moving[0]))

    # At its next push its agent is too old for the newer driver, and is replaced.
    api.create("listeners", "listener", loadbalancer_id=moving[0], protocol="HTTP", protocol_port=free_port())
    assert api.settled(moving[0], 60)["provisioning_status"] == "ACTIVE"
    assert live(fleet, moving[0]) == (NEW, NEW, True)
    serving(*moving[1:])
    report(
        f"at its next change the amphora of the one that was moved, with agent {OLD}, was replaced by one with {NEW}"
    )
    assert not set(before) & set(api.amphorae(moving[0]))

    # With the only cohort draining nothing new is taken, and what is there can be changed.
    assert fleet.run("controller", "drain", "haproxy", NEW).returncode == 0
    status, answer = api.call("POST", "/v2/lbaas/loadbalancers", {"loadbalancer": {"vip_subnet_id": api.subnet_id()}})
    assert (status, "draining" in json.dumps(answer) or "drained" in json.dumps(answer)) == (503, True), answer
    api.update(f"loadbalancers/{newer[0]}", "loadbalancer", name="renamed")
    assert api.settled(newer[0])["provisioning_status"] == "ACTIVE"
    assert fleet.run("controller", "resume", "haproxy", NEW).returncode == 0
    made(api, backends)


@pytest.mark.timeout(300)
def test_what_a_killed_version_served_goes_on_with_the_next(fleet: Fleet, backends: list[Backend]) -> None:
    assert fleet.run("db", "upgrade").returncode == 0
    fleet.start(apis=1, controllers=1)
    (api,) = fleet.apis()
    load_balancer = made(api, backends)
    (old,) = fleet.of("controller")
    fleet.kill(old)
    image(fleet, NEW)
    fleet.add_controller("haproxy-newer")
    until(lambda: cohorts(fleet).get(NEW) == ("active", True, 1), 60, "nobody takes it over")
    assert live(fleet, load_balancer[0]) == (OLD, OLD, True), "nothing is pushed because of it"
    port = free_port()
    api.create("listeners", "listener", loadbalancer_id=load_balancer[0], protocol="HTTP", protocol_port=port)
    assert api.settled(load_balancer[0], 60)["provisioning_status"] == "ACTIVE"
    assert live(fleet, load_balancer[0]) == (NEW, NEW, True)
