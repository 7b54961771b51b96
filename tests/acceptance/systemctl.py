"""A `systemctl` for a test that follows a document: starts and stops what units in $UNITS say, and waits until they say that they
run, as systemd does with Type=notify. Understands what the document uses of it, and refuses the rest.

    systemctl.py daemon-reload | enable --now UNIT… | disable --now UNIT… | start UNIT… | stop UNIT… | restart UNIT…"""

from __future__ import annotations

import fnmatch
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

UNITS = Path(os.environ.get("UNITS", "/nonexistent"))
PATIENCE_S = 90


def words_of(unit: str) -> tuple[list[str], dict[str, str]]:
    """The command of a unit and its environment."""
    name, _, rest = unit.partition("@")
    instance = rest.removesuffix(".service")
    file = UNITS / (f"{name}@.service" if rest else f"{name.removesuffix('.service')}.service")
    text = file.read_text().replace("%i", instance)
    environment = dict(line.split("=", 1) for line in re.findall(r"^Environment=(.*)$", text, re.MULTILINE))
    command = re.search(r"^ExecStart=(.*)$", text, re.MULTILINE)
    assert command is not None, file
    return shlex.split(re.sub(r"\$\w+", "", command[1])), environment


def start(unit: str) -> None:
    if runs(unit):
        return
    command, environment = words_of(unit)
    address = f"frontinus-{os.getpid()}-{unit}"  # of the abstract namespace: paths of tests are too long for a socket
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told, (UNITS / f"{unit}.log").open("ab") as log:
        told.bind(f"\0{address}")
        told.settimeout(PATIENCE_S)
        process = subprocess.Popen(
            command,
            env={**os.environ, **environment, "NOTIFY_SOCKET": f"@{address}"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        (UNITS / f"{unit}.pid").write_text(str(process.pid))
        assert told.recv(64) == b"READY=1", unit


def stop(unit: str) -> None:
    file = UNITS / f"{unit}.pid"
    deadline = time.monotonic() + PATIENCE_S
    while runs(unit):
        os.kill(int(file.read_text()), signal.SIGTERM)
        assert time.monotonic() < deadline, f"{unit} does not stop"
        time.sleep(0.2)
    file.unlink(missing_ok=True)


def runs(unit: str) -> bool:
    file = UNITS / f"{unit}.pid"
    return file.exists() and Path("/proc", file.read_text(), "stat").exists() and not _is_zombie(file.read_text())


def _is_zombie(pid: str) -> bool:
    return Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0] == "Z"


def main(words: list[str]) -> None:
    action, *rest = words
    if action in ("enable", "disable"):
        assert rest[0] == "--now", words
        rest = rest[1:]
    known = [x.name.removesuffix(".pid") for x in UNITS.glob("*.pid")]
    units = [unit for word in rest for unit in (fnmatch.filter(known, word) if "*" in word else [word])]
    if action in ("disable", "stop", "restart"):
        for unit in units:
            stop(unit)
    if action in ("enable", "start", "restart"):
        for unit in units:
            start(unit)
    assert action in ("daemon-reload", "enable", "disable", "start", "stop", "restart"), words


if __name__ == "__main__":
    main(sys.argv[1:])
