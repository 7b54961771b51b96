"""`frontinus down`: stop what a state directory owns. Works with or without a running `frontinus up`, and repeatedly."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import signal
import time
from pathlib import Path

from frontinus.cli.output import complain, in_words, say, settings_or_exit
from frontinus.cli.serve import LOCK_FILE
from frontinus.main import Drivers
from frontinus.model.errors import FrontinusError
from frontinus.model.ports import PORTS
from frontinus.settings import Settings

STOP_TIMEOUT_S = 10.0

MARKS = (LOCK_FILE, "frontinus.sqlite")
"""`frontinus up` makes these before anything else: a directory with neither is none of ours."""


def run(file: Path | None, overrides: dict[str, object], *, purge: bool) -> int:
    """Exit status: 0 when nothing of it runs any more, 1 when something could not be stopped."""
    settings = settings_or_exit(file, overrides)
    if not settings.state_dir.is_dir():
        say(f"{settings.state_dir} does not exist: nothing runs there.")
        return 0
    if not any((settings.state_dir / mark).exists() for mark in MARKS):
        # A slip in --state-dir must not cost somebody his home directory.
        complain(f"{settings.state_dir} is not a state directory of Frontinus: nothing in it is touched")
        return 1
    try:
        with _control_plane_stopped(settings):
            count = asyncio.run(_destroy_amphorae(settings, purge=purge))
            if purge:
                shutil.rmtree(settings.state_dir)
    except (FrontinusError, OSError, TimeoutError) as error:
        complain(in_words(error))
        return 1
    say(f"Stopped: {count} amphorae.{' Everything is forgotten.' if purge else ''}")
    return 0


class _control_plane_stopped:  # noqa: N801 - used as a statement
    """Stop a running `up` and hold its lock, so that no other starts while the amphorae are being stopped."""

    def __init__(self, settings: Settings) -> None:
        self._file = (settings.state_dir / LOCK_FILE).open("a+")

    def __enter__(self) -> None:
        deadline = time.monotonic() + STOP_TIMEOUT_S
        sign = signal.SIGTERM
        before = ""
        while not self._locked():
            self._file.seek(0)
            text = self._file.read().strip()
            # Who holds the lock wrote its id there, or, another `down`, is about to empty the file: an id that stands
            # for a while is of the holder, and not of a process that is long dead and whose number somebody else has.
            before, is_holders = text, text == before
            if is_holders and text.isdigit():
                try:
                    os.kill(int(text), sign)
                except ProcessLookupError:
                    pass
            if time.monotonic() > deadline:
                if not text:
                    raise TimeoutError(
                        "parts of an installation run here: stop `frontinus api`, `controller` and `health`"
                    )
                if sign is signal.SIGKILL:
                    raise TimeoutError("`frontinus up` does not end; see its log")
                sign, deadline = signal.SIGKILL, time.monotonic() + STOP_TIMEOUT_S
            time.sleep(0.05)
        self._file.truncate(0)

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _locked(self) -> bool:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


async def _destroy_amphorae(settings: Settings, *, purge: bool) -> int:
    drivers = Drivers(settings, settings.health.bind_port)
    try:
        owned = await drivers.compute.list_owned()
        for amphora_id in owned:
            await drivers.compute.destroy(amphora_id)
        if PORTS in drivers.network.features:
            for amphora_id in await drivers.network.list_port_owners():
                for port in await drivers.network.list_ports(amphora_id):
                    await drivers.network.delete_port(amphora_id, port.id)
        if purge:
            await drivers.network.dismantle()
        return len(owned)
    finally:
        await drivers.close()
