"""The operator's hand on replacements: marks, what they hold, and what is told of it. And a controller that is killed amid one."""

from __future__ import annotations

import subprocess
import time

import pytest

from tests.acceptance.support import COMMAND, Api, Backend, Installation, ask, free_port, report, serving, until


def run(installation: Installation, *arguments: str) -> tuple[int, str]:
    where = ["--state-dir", str(installation.state_dir)]
    done = subprocess.run([*COMMAND, *arguments, *where], text=True, capture_output=True, timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr


def test_a_mark_holds_a_replacement_and_tells_so(installation: Installation, api: Api, backends: list[Backend]) -> None:
    port = free_port()
    load_balancer = api.web_load_balancer(backends, port)
    load_balancer_id, vip = load_balancer["id"], load_balancer["vip_address"]
    serving(vip, port)
    api.settled(load_balancer_id)
    before = installation.amphora_ids()
    status, told = run(installation, "maintenance", "on", "--installation", "--reason", "new memory", "--for", "1h")
    assert (status, "1 amphorae are not replaced" in told) == (0, True), told
    installation.kill_amphorae()

    def fault() -> dict[str, str]:
        return api.load_balancer(load_balancer_id)["fault"] or {}

    until(lambda: fault().get("code") == "held-by-maintenance", 15, "it is not told what is waited for")
    assert "new memory" in fault()["message"]
    assert api.load_balancer(load_balancer_id)["provisioning_status"] == "ACTIVE"
    assert installation.places() == before
    assert ask(vip, port)[0] == 0
    status, told = run(installation, "status")
    assert status == 0, told
    assert all(x in told for x in ("receiver  ", f"suspect   amphora {next(iter(before))}", "mark      installation"))
    assert "new memory" in run(installation, "maintenance", "list")[1]
    assert run(installation, "maintenance", "off", "--installation")[0] == 0
    took = serving(vip, port)
    report(f"mark taken off: serving again after {took:.2f} s")
    api.settled(load_balancer_id)
    assert not api.load_balancer(load_balancer_id)["fault"]
    assert installation.amphora_ids().isdisjoint(before)


@pytest.mark.parametrize(
    "arguments, status, told",
    [
        pytest.param(["off", "--host", "nowhere"], 1, "there is no mark on host nowhere", id="no mark"),
        pytest.param(["on", "--reason", "x"], 2, "name one of --amphora", id="of nothing"),
        pytest.param(["on", "--host", "a", "--installation", "--reason", "x"], 2, "name one of", id="of two things"),
        pytest.param(["on", "--installation", "--reason", "x", "--for", "soon"], 2, "no duration", id="no duration"),
        pytest.param(["on", "--amphora", "no-such", "--reason", "x"], 1, "has no amphora here", id="unknown amphora"),
        pytest.param(["list"], 0, "Nothing is under maintenance", id="nothing"),
    ],
)
def test_what_cannot_be_is_told(
    module_installation: Installation, arguments: list[str], status: int, told: str
) -> None:
    done, text = run(module_installation, "maintenance", *arguments)
    assert (done, told in text) == (status, True), text


@pytest.fixture(scope="module")
def module_installation(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """A database, and nobody who runs: the commands need no more."""
    made = Installation(tmp_path_factory.mktemp("quiet") / "state")
    assert run(made, "db", "upgrade")[0] == 0
    return made


@pytest.mark.long
@pytest.mark.parametrize("delay", [0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1.2])
def test_a_replacement_is_finished_by_the_next_controller(
    installation: Installation, api: Api, backends: list[Backend], delay: float
) -> None:
    """Killed so long after the first sign that an amphora is being replaced; started again, it goes on by itself."""
    port = free_port()
    load_balancer = api.web_load_balancer(backends, port)
    load_balancer_id, vip = load_balancer["id"], load_balancer["vip_address"]
    serving(vip, port)
    api.settled(load_balancer_id)
    before = installation.amphora_ids()
    installation.kill_amphorae()
    until(lambda: api.load_balancer(load_balancer_id)["provisioning_status"] != "ACTIVE", 15, "nobody noticed")
    time.sleep(delay)  # the moment of the murder is the parameter of this test
    installation.kill()
    installation.start()
    took = serving(vip, port)
    assert api.settled(load_balancer_id)["provisioning_status"] == "ACTIVE"
    until(lambda: installation.amphora_ids() == installation.places(), 10, "something is left")
    assert installation.amphora_ids().isdisjoint(before)
    report(f"killed {delay} s into a replacement: serving {took:.2f} s after the restart")
