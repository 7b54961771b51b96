"""The driver with HAProxy of other versions than this machine's: every test that has a HAProxy run, once more on each."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from frontinus.drivers.amphora.haproxy.versions import parse_version

REPOSITORY = Path(__file__).parents[3]
SUITES = {"trixie": (3, 0), "sid": (3, 2)}
"""Suite of Debian -> the oldest version that it may have."""

DRIVER = [
    *(
        "accepts",
        "behaviour_equals_start",
        "changes",
        "l7",
        "last_check",
        "listeners",
        "logs",
        "monitors",
        "patterns",
        "persistence",
    ),
    *(
        "reloads",
        "runtime_equals_start",
        "sessions",
        "tls_changes",
        "tls_of_listeners",
        "tls_of_pools",
        "traffic",
        "agent_protocol",
    ),
]
EXAMINED = {
    "driver": [f"tests/integration/drivers/test_{'haproxy_' if x == 'accepts' else ''}{x}.py" for x in DRIVER],
    "behaviour": ["tests/integration/drivers/test_behaviour_equals_start.py"],
    "traffic": ["tests/acceptance/traffic"],
    "agent": [f"tests/amphora/test_{x}.py" for x in ("apply", "life", "restarts", "texts", "stick_tables")],
}


@pytest.fixture(scope="module", params=SUITES)
def program(request: pytest.FixtureRequest) -> Path:
    """A HAProxy of another version, fetched where it was not yet."""
    fetched = subprocess.run(
        [REPOSITORY / "scripts/haproxy-versions", request.param], capture_output=True, text=True, check=False
    )
    assert fetched.returncode == 0, fetched.stderr
    _, version, path = fetched.stdout.split()
    assert (parse_version(version) or (0, 0)) >= SUITES[request.param]
    return Path(path)


@pytest.mark.long
@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("examined", EXAMINED)
def test_what_holds_here_holds_there(program: Path, examined: str) -> None:
    environment = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"}
    marked = [] if examined == "behaviour" else ["-m", "not long"]  # all of the one that compares versions' ways
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *marked, *EXAMINED[examined]],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8_000:]
