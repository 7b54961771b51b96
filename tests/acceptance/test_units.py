"""The units for systemd: systemd itself finds nothing wrong with them, they call commands that there are, and what they count on,
that a process says when it runs, is so."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from frontinus.cli.main import main

from tests.acceptance.support import COMMAND, free_port
from tests.servers import Postgresql

UNITS = Path(__file__).parents[2] / "packaging" / "systemd"
NAMES = ("frontinus-api.service", "frontinus-controller@0.1.0.service", "frontinus-health.service")
MOST_EXPOSED = 2.0
"""Of `systemd-analyze security`, from 0 to 10; below 2 is what a web server could hardly better."""


def text_of(name: str) -> str:
    return (UNITS / re.sub(r"@.*\.", "@.", name)).read_text()


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As on a host with Frontinus in /opt, which here is elsewhere."""
    made = tmp_path_factory.mktemp("units")
    for version in ("current", "0.1.0"):
        program = made / "opt" / version / "bin" / "frontinus"
        program.parent.mkdir(parents=True)
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
    for name in NAMES:
        (made / name).write_text(text_of(name).replace("/opt/frontinus", str(made / "opt")))
    return made


def test_every_unit_is_examined() -> None:
    assert {re.sub(r"@.*\.", "@.", x) for x in NAMES} == {x.name for x in UNITS.glob("*.service")}


@pytest.mark.parametrize("name", NAMES)
def test_systemd_finds_nothing_wrong(directory: Path, name: str) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.fail("this test needs systemd-analyze, of the package systemd")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(directory / name)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    judged = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", str(directory / name)],
        capture_output=True,
        text=True,
        check=True,
    )
    exposed = re.search(r"exposure level for .*: ([0-9.]+)", judged.stdout)
    assert exposed is not None, judged.stdout[-500:]
    assert float(exposed[1]) <= MOST_EXPOSED


@pytest.mark.parametrize("name", NAMES)
def test_a_unit_calls_a_command_that_there_is(name: str) -> None:
    found = re.search(r"^ExecStart=\S+/bin/frontinus (.*)$", text_of(name), re.MULTILINE)
    assert found is not None
    command, *options = found[1].replace("$FRONTINUS_CONTROLLER_OPTIONS", "").split()
    known = main.commands[command]
    assert isinstance(known, click.Command)
    known.make_context(command, options)  # raises for what it does not know


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    server = Postgresql()
    try:
        server.prepare()
        server.start()
        yield server.make_database("units")
    finally:
        server.remove()


@pytest.mark.parametrize(
    "part, is_abstract",
    [
        pytest.param("api", False, id="api"),
        pytest.param("controller", True, id="controller, to an abstract socket"),
        pytest.param("health", False, id="health"),
    ],
)
def test_a_part_says_when_it_runs_and_when_it_stops(
    tmp_path: Path, database: str, part: str, is_abstract: bool
) -> None:
    """What Type=notify waits for."""
    config = tmp_path / "frontinus.toml"
    config.write_text(
        f"""
        state_dir = "{tmp_path}/state"
        database = "{database}"
        [drivers]
        amphora = "noop"
        compute = "noop"
        network = "noop"
        [api]
        bind_port = {free_port()}
        [health]
        bind_port = {free_port()}
        """
    )
    subprocess.run([*COMMAND, "db", "upgrade", "--config", str(config)], check=True, capture_output=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        address = f"{tmp_path}/notify"
        supervisor.bind(f"\0{address}" if is_abstract else address)
        supervisor.settimeout(30)
        process = subprocess.Popen(
            [*COMMAND, part, "--config", str(config)],
            env={**os.environ, "NOTIFY_SOCKET": f"@{address}" if is_abstract else address},
            stdout=subprocess.DEVNULL,
        )
        try:
            assert supervisor.recv(64) == b"READY=1"
            process.send_signal(signal.SIGTERM)
            assert supervisor.recv(64) == b"STOPPING=1"
            assert process.wait(30) == 0
        finally:
            process.kill()
            process.wait()
