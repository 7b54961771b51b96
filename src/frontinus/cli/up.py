"""`frontinus up`: one installation in this process, until a signal."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
from pathlib import Path

import uvloop

from frontinus.cli.output import complain, in_words, say, settings_or_exit, start_logging
from frontinus.main import Installation
from frontinus.model.errors import FrontinusError, Invalid, WorldError

LOCK_FILE = "up.lock"
ENDPOINT_FILE = "endpoint"


def run(file: Path | None, overrides: dict[str, object]) -> int:
    """Exit status: 0 after a signal, 1 when it could not start or broke, 2 for wrong settings."""
    settings = settings_or_exit(file, overrides)
    start_logging(settings.log)
    try:
        settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock_file = (settings.state_dir / LOCK_FILE).open("a+")
    except OSError as error:
        complain(f"the state directory cannot be used: {in_words(error)}; give another with --state-dir")
        return 1
    # Held until the process ends, however it ends; `frontinus down` reads the process id from it.
    with lock_file as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            complain(f"another `frontinus up` runs on {settings.state_dir}; stop it, or give another --state-dir")
            return 1
        try:
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            installation = Installation(settings)
        except (FrontinusError, OSError) as error:
            complain(in_words(error))
            return 2 if isinstance(error, Invalid) else 1
        try:
            return uvloop.run(_serve(installation))
        except (WorldError, OSError) as error:  # a database that another process holds, a full disk: no bug of ours
            complain(in_words(error))
            return 1


async def _serve(installation: Installation) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    endpoint_file = installation.settings.state_dir / ENDPOINT_FILE
    endpoint_file.write_text(installation.endpoint)
    say(f"Frontinus is up: {installation.endpoint} (state in {installation.settings.state_dir})")
    say(f"  openstack --os-auth-type none --os-endpoint {installation.endpoint} loadbalancer list")
    try:
        await installation.run(stop)
    finally:
        endpoint_file.unlink(missing_ok=True)
    say("Frontinus has stopped; its amphorae go on.")
    return 0
