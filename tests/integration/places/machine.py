"""Agents small enough to start by the dozen, and a look at the processes of this machine."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from frontinus.drivers.compute.process.driver import ProcessSettings
from frontinus.model.boot import BootFiles
from frontinus.model.ids import LoadBalancerId, new_id

LOAD_BALANCER = LoadBalancerId(new_id())
NO_FILES = BootFiles(files={})

SLEEPER = "import time; time.sleep(600)"
"""An agent that does nothing at all."""

WITH_BALANCER = """
import subprocess, sys, time
subprocess.Popen(["sleep", "600"], start_new_session=True)
time.sleep(600)
"""
"""An agent whose balancer is `sleep`."""

DEAF = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
while True:
    time.sleep(600)
"""
"""An agent that takes no hint."""

PHOENIX = """
import os, signal, time
def rise(number, frame):
    if os.fork() == 0:
        os.setsid()
        return
    os._exit(0)
signal.signal(signal.SIGTERM, rise)
print("risen", flush=True)
while True:
    time.sleep(600)
"""
"""An agent that leaves a successor in another session whenever it is asked to end."""


def settings(state_dir: Path, script: str = SLEEPER, balancer: str = "sleep") -> ProcessSettings:
    return ProcessSettings(state_dir=state_dir, agent_command=(sys.executable, "-S", "-c", script), balancer=balancer)


def is_running(pid: int) -> bool:
    """Whether there is such a process, other than a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def naming(word: str) -> set[int]:
    """Pids of the living processes whose environment has this word."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                if word.encode() in (entry / "environ").read_bytes():
                    found.add(int(entry.name))
            except OSError:
                continue
    return found


async def until(fact: Callable[[], object], within: float = 10.0) -> None:
    """Wait for a fact; fail when it does not come."""
    deadline = time.monotonic() + within
    while not fact():
        assert time.monotonic() < deadline, f"not so within {within} s"
        await asyncio.sleep(0.01)
