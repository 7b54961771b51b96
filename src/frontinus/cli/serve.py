"""`frontinus api`, `frontinus controller` and `frontinus health`: one part of an installation in this process, until a
signal. Any number of each, on any hosts, on one database server.

What is common to them and `frontinus up` is here too."""

from __future__ import annotations

import asyncio
import fcntl
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Protocol, TextIO, TypeVar

import uvloop

from frontinus.cli import supervisor
from frontinus.cli.output import complain, in_words, say, settings_or_exit, start_logging
from frontinus.main import Installation, Part
from frontinus.model.errors import Conflict, FrontinusError, Invalid, WorldError
from frontinus.settings import Settings


class Runs(Protocol):
    """What serves until it is told to stop."""

    async def run(self, stop: asyncio.Event, ready: Callable[[], None]) -> None: ...


_R = TypeVar("_R", bound=Runs)

LOCK_FILE = "up.lock"

WHAT_RUNS = {Part.API: "The API", Part.CONTROLLER: "A controller", Part.HEALTH: "A health receiver"}


def run(part_name: str, file: Path | None, overrides: dict[str, object]) -> int:
    """Exit status: 0 after a signal, or of a controller when its cohort is drained; 1 when it could not start or broke, 2 for wrong settings."""
    part = Part(part_name)
    settings = settings_or_exit(file, overrides)
    start_logging(settings.log)
    with state_lock(settings.state_dir, alone=False) as lock:
        if lock is None:
            return 1
        return serve(lambda: Installation(settings, (part,)), lambda made: _announced(part, made, settings))


def run_provider(provider: str, file: Path | None, overrides: dict[str, object]) -> int:
    """A controller of a third-party provider. Exit status as of `run`."""
    from frontinus.provider_main import ProviderInstallation

    settings = settings_or_exit(file, overrides)
    start_logging(settings.log)
    with state_lock(settings.state_dir, alone=False) as lock:
        if lock is None:
            return 1
        return serve(lambda: ProviderInstallation(settings, provider), lambda _made: _announced_provider(provider))


@contextmanager
def state_lock(state_dir: Path, *, alone: bool) -> Iterator[TextIO | None]:
    """Hold the state directory, making it if it is missing: `alone`, as `frontinus up` must, or beside other parts. None
    when that cannot be, which has been said. Held until the process ends, however it ends."""
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = (state_dir / LOCK_FILE).open("a+")
    except OSError as error:
        complain(f"the state directory cannot be used: {in_words(error)}; give another with --state-dir")
        yield None
        return
    with file:
        try:
            fcntl.flock(file, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            who = "another `frontinus up` runs" if file.read().strip() else "parts of an installation run"
            complain(f"{who} on {state_dir}; stop what runs, or give another --state-dir")
            yield None
            return
        if not alone:
            file.truncate(0)  # of an `up` that was killed
        yield file


def serve(build: Callable[[], _R], announced: Callable[[_R], AbstractContextManager[object]]) -> int:
    """Build it, announce it, run it until SIGINT or SIGTERM. Exit status as of `run`; what is wrong is said."""
    try:
        installation = build()
    except (FrontinusError, OSError) as error:
        complain(in_words(error))
        return 2 if isinstance(error, Invalid) else 1
    try:
        return uvloop.run(_serve(installation, announced))
    except (Conflict, Invalid) as error:  # the others of the cohort have other settings; what can be judged only now
        complain(in_words(error))
        return 2
    except (WorldError, OSError) as error:  # a database that another process holds, a full disk: no bug of ours
        complain(in_words(error))
        return 1


async def _serve(installation: _R, announced: Callable[[_R], AbstractContextManager[object]]) -> int:
    stop = asyncio.Event()

    def told_to_stop() -> None:
        supervisor.tell(supervisor.STOPPING)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, told_to_stop)
    with announced(installation):
        await installation.run(stop, lambda: supervisor.tell(supervisor.READY))
    return 0


def _announced(part: Part, made: Installation, settings: Settings) -> AbstractContextManager[object]:
    driver = "" if part is Part.API else f", driver {settings.drivers.amphora}"
    say(f"{WHAT_RUNS[part]} runs{driver}{'' if made.endpoint is None else f': {made.endpoint}'}")
    return nullcontext()


def _announced_provider(provider: str) -> AbstractContextManager[object]:
    say(f"A controller of provider {provider} runs")
    return nullcontext()
