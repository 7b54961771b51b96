"""The commands as an operator types them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from tests.acceptance.support import COMMAND, Api, Installation, free_port, processes, until


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
        env={**os.environ, **environment},
    )


def test_demo_shows_the_spread_and_leaves_nothing_behind(tmp_path: Path) -> None:
    result = run("demo", "--once", "--requests", "120", TMPDIR=str(tmp_path))
    assert result.returncode == 0, result.stdout + result.stderr
    for name in ("backend-1", "backend-2", "backend-3"):
        assert name in result.stdout
    assert "33%" in result.stdout
    assert "Failed requests: 0" in result.stdout
    assert list(tmp_path.iterdir()) == []
    assert [x for x in processes(TMPDIR=str(tmp_path)) if x.pid != os.getpid()] == []


@pytest.mark.beside
def test_interrupted_demo_leaves_nothing_behind(tmp_path: Path) -> None:
    """Ctrl-C, also for a demo that a shell started in the background, where it is ignored unless asked for."""
    shown = tmp_path / "shown"
    with shown.open("wb") as output:
        demo = subprocess.Popen(
            ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *COMMAND, "demo", "--requests", "30"],
            stdout=output,
            env={**os.environ, "TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"},
        )
    until(lambda: "Ctrl-C" in shown.read_text(), 60, "the demo does not come to its end")
    demo.send_signal(signal.SIGINT)
    assert demo.wait(30) == 0
    assert list(tmp_path.iterdir()) == [shown]
    assert [x for x in processes(TMPDIR=str(tmp_path)) if x.pid != os.getpid()] == []


def test_second_up_on_one_state_directory_is_refused(installation: Installation) -> None:
    result = run("up", "--state-dir", str(installation.state_dir), "--port", "0")
    assert result.returncode == 1
    assert "another `frontinus up` runs" in result.stderr


def test_port_in_use_is_said_at_start(tmp_path: Path) -> None:
    with socket.socket() as thief:
        thief.bind(("127.0.0.1", 0))
        thief.listen()
        port = thief.getsockname()[1]
        result = run("up", "--state-dir", str(tmp_path / "state"), "--port", str(port), "--health-port", "0")
    assert result.returncode == 1
    assert f"port {port}" in result.stderr
    assert "Traceback" not in result.stderr


def test_listening_without_authentication_elsewhere_is_refused(tmp_path: Path) -> None:
    result = run("up", "--state-dir", str(tmp_path / "state"), "--host", "0.0.0.0", "--port", "0")
    assert result.returncode != 0
    assert "bind_host" in result.stderr
    assert "insecure_bind" in result.stderr
    assert "Traceback" not in result.stderr


def test_wrong_settings_are_named(tmp_path: Path) -> None:
    file = tmp_path / "frontinus.toml"
    file.write_text("[api]\nbind_prot = 1\n")
    result = run("up", "--config", str(file), "--state-dir", str(tmp_path / "state"))
    assert result.returncode == 2
    assert "api.bind_prot" in result.stderr


def test_config_check_prints_what_is_in_force(tmp_path: Path) -> None:
    file = tmp_path / "frontinus.toml"
    file.write_text("[controller]\nlease_duration = 7\n")
    result = run("config", "check", "--config", str(file))
    assert result.returncode == 0
    assert "controller.lease_duration = 7 s" in result.stdout


def test_config_check_refuses_what_up_would_refuse(tmp_path: Path) -> None:
    file = tmp_path / "frontinus.toml"
    file.write_text("[driver_options.haproxy]\nthreds = 1\n")
    result = run("config", "check", "--config", str(file))
    assert result.returncode == 2
    assert "driver_options.haproxy.threds" in result.stderr


def test_a_state_directory_that_cannot_be_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = run("up", "--state-dir", str(tmp_path / "file" / "state"), "--port", "0", "--health-port", "0")
    assert result.returncode == 1
    assert "--state-dir" in result.stderr
    assert "Traceback" not in result.stderr


def test_heartbeat_port_in_use_is_said_at_start(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as thief:
        thief.bind(("127.0.0.1", 0))
        port = thief.getsockname()[1]
        result = run("up", "--state-dir", str(tmp_path / "state"), "--port", "0", "--health-port", str(port))
    assert result.returncode == 1
    assert f"UDP port {port}" in result.stderr
    assert "health.bind_port" in result.stderr
    assert "Errno" not in result.stderr


def test_down_of_nothing_is_done_already(tmp_path: Path) -> None:
    assert run("down", "--state-dir", str(tmp_path / "absent")).returncode == 0


def test_down_touches_nothing_in_a_directory_that_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("three years of work")
    result = run("down", "--purge", "--state-dir", str(tmp_path))
    assert result.returncode == 1
    assert "not a state directory" in result.stderr
    assert [x.name for x in tmp_path.iterdir()] == ["thesis.txt"]


def test_down_ends_nobody_who_merely_has_the_number_of_a_dead_up(tmp_path: Path) -> None:
    """`up` was killed and its number is another process's by now; two `down` at once must not take that for the holder."""
    innocent = subprocess.Popen(["sleep", "60"])
    try:
        (tmp_path / "up.lock").write_text(str(innocent.pid))
        downs = [
            subprocess.Popen([*COMMAND, "down", "--state-dir", str(tmp_path)], stdout=subprocess.DEVNULL)
            for _ in range(3)
        ]
        assert [x.wait(60) for x in downs] == [0, 0, 0]
        assert innocent.poll() is None
    finally:
        innocent.kill()
        innocent.wait()


def test_damaged_heartbeat_port_is_said_at_start(tmp_path: Path) -> None:
    (tmp_path / "heartbeat-port").write_text("\0\0")
    result = run("up", "--state-dir", str(tmp_path), "--port", "0", "--health-port", "0")
    assert result.returncode == 2
    assert "heartbeat-port" in result.stderr
    assert "Traceback" not in result.stderr


def test_log_that_cannot_be_written_ends_nothing(tmp_path: Path) -> None:
    """As when the disk is full. /dev/full says so to every write."""
    port = free_port()
    state = ["--state-dir", str(tmp_path / "state")]
    with Path("/dev/full").open("w") as full:
        process = subprocess.Popen(
            [*COMMAND, "up", *state, "--port", str(port), "--health-port", "0"], stdout=subprocess.DEVNULL, stderr=full
        )
    try:
        api = Api("127.0.0.1", port)

        def answers() -> bool:
            with suppress(OSError):
                return api.get("/")[0] == 200
            return False

        until(answers, 30, "up does not start")
        load_balancer = api.create("loadbalancers", "loadbalancer", vip_subnet_id=api.subnet_id())
        assert api.settled(load_balancer["id"])["provisioning_status"] == "ACTIVE"
        # Its death is to be logged by the very loop that notices it.
        dead = {x.pid for x in processes(FRONTINUS_STATE_DIR=str(tmp_path / "state"))}
        for pid in dead:
            os.kill(pid, signal.SIGKILL)
        until(
            lambda: {x.pid for x in processes(FRONTINUS_STATE_DIR=str(tmp_path / "state"))} - dead,
            15,
            "the amphora is not replaced",
        )
        assert process.poll() is None
        assert api.get("/")[0] == 200
    finally:
        assert run("down", "--purge", *state).returncode == 0
        process.wait(20)
