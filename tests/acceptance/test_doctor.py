"""`frontinus doctor` says what is the matter with an installation, and what to do; and changes nothing."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from pathlib import Path
from typing import Any

from tests.acceptance.support import COMMAND, Backend, Installation, free_port, until


def doctor(state_dir: Path, config: str, **environment: str) -> tuple[int, list[dict[str, Any]]]:
    file = state_dir.parent / "doctor.toml"
    file.write_text(config)
    command = [*COMMAND, "doctor", "--json", "--config", str(file), "--state-dir", str(state_dir)]
    done = subprocess.run(
        command, text=True, capture_output=True, timeout=60, check=False, env={**os.environ, **environment}
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def graded(findings: list[dict[str, Any]], grade: str) -> set[str]:
    return {x["subject"] for x in findings if x["grade"] == grade}


def test_before_the_first_start_nothing_is_made(tmp_path: Path) -> None:
    state_dir = tmp_path / "state"
    status, findings = doctor(state_dir, f"[api]\nbind_port = {free_port()}\n")
    assert (status, graded(findings, "warning")) == (0, {"state", "database", "api"})
    assert {"settings", "agent", "haproxy"} <= graded(findings, "ok")
    assert not state_dir.exists()


def test_beside_a_running_installation_all_is_well_until_something_is_not(
    installation: Installation, backends: list[Backend]
) -> None:
    api = installation.api()
    api.settled(api.web_load_balancer(backends, free_port())["id"])
    config = f"[api]\nbind_port = {installation.api_port}\n"

    def is_well() -> bool:
        status, findings = doctor(installation.state_dir, config)
        return status == 0 and {x["grade"] for x in findings} == {"ok"}

    until(is_well, 20, f"something is found: {doctor(installation.state_dir, config)}")
    installation.state_dir.chmod(0o755)
    status, findings = doctor(installation.state_dir, config)
    assert (status, graded(findings, "trouble")) == (1, {"state"})
    assert all(x["advice"] for x in findings if x["grade"] != "ok")
    installation.state_dir.chmod(0o700)
    installation.kill()
    status, findings = doctor(installation.state_dir, config)
    assert "receivers" in graded(findings, "trouble"), findings
    assert "api" in graded(findings, "warning"), findings


def test_what_is_missing_or_taken_is_told(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        other.settimeout(5)
        config = (
            f'database = "postgresql://nobody@127.0.0.1:{free_port()}/nothing"\n'
            f"[api]\nbind_port = {other.getsockname()[1]}\n"
            '[driver_options.process]\nbalancer = "no-such-haproxy"\n'
        )
        status, findings = doctor(tmp_path / "state", config)
    assert status == 1
    assert {"database", "api", "agent"} == graded(findings, "trouble"), findings


def test_settings_that_cannot_be_end_it(tmp_path: Path) -> None:
    status, findings = doctor(tmp_path / "state", "[driver_options.haproxy]\nthreads = 0\n")
    assert (status, graded(findings, "trouble")) == (1, {"settings"})
