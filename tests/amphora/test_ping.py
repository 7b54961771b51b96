"""The program by which members are pinged: where the agent puts it, and what it says."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from frontinus_amphora import ping


def test_it_is_put_in_place_once_and_repaired(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ping, "SHARED_DIRECTORY", str(tmp_path / "shared"))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    ping.install(str(tmp_path))
    program = tmp_path / ping.NAME
    assert program.stat().st_mode & 0o777 == 0o700
    first = program.stat().st_mtime_ns
    ping.install(str(tmp_path))
    assert program.stat().st_mtime_ns == first
    program.write_bytes(b"something else")
    ping.install(str(tmp_path))
    assert program.read_bytes() == ping.SCRIPT


def test_an_agent_of_root_puts_it_where_everybody_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ping, "SHARED_DIRECTORY", str(tmp_path / "shared"))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    ping.install(str(tmp_path / "place"))
    assert (tmp_path / "shared").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "shared" / ping.NAME).stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("address, expected", [("127.0.0.1", True), ("::1", True), ("255.255.255.255", False)])
def test_it_tells_who_answers(tmp_path: Path, address: str, expected: bool) -> None:
    program = tmp_path / ping.NAME
    program.write_bytes(ping.SCRIPT)
    done = subprocess.run(["sh", str(program)], env={"HAPROXY_SERVER_ADDR": address}, timeout=10, check=False)
    assert (done.returncode == 0) is expected
