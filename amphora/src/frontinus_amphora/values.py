"""What load_balancer.py is given, what it answers, and what it must remember when the agent ends. Values only."""

import json
import threading
from collections.abc import Callable
from typing import NamedTuple

from frontinus_amphora import files
from frontinus_amphora.companions import Companion
from frontinus_amphora.errors import Fenced
from frontinus_amphora.log import log

RUNNING, STOPPED = "running", "stopped"
ACTIONS = ("unchanged", "runtime", "reload", "stop", "start")  # of haproxy and nginx, the later one is told


class Change(NamedTuple):
    """A batch apply (docs/reference/agent-extension.md)."""

    config: str
    digest: str
    base: str | None
    commands: tuple[str, ...]  # each one ready to send
    reload: bool
    companions: tuple[Companion, ...] = ()
    fence: int = 0


class Fence:
    """The greatest number that anybody named who asked for a change of a load balancer. Guarded by the load balancer's
    lock, since a request that was let through must not be overtaken by one with a greater number."""

    def __init__(self, highest: int, keep: Callable[[int], None]) -> None:
        self._highest = highest
        self._keep = keep

    def let_through(self, number: int) -> None:
        """0 is of somebody who knows no numbers. Raises Fenced."""
        if 0 < number < self._highest:
            raise Fenced(self._highest)
        if number > self._highest:
            self._highest = number
            self._keep(number)


class Fences:
    """One for each load balancer that ever was here. They outlive what they guard, since also who deletes late is late; and
    the agent, which may be started again while somebody is late. Guarded by its lock. Any thread may call."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._highest = _load_fences(path)
        self._fences: dict[str, Fence] = {}

    def of(self, load_balancer_id: str) -> Fence:
        with self._lock:
            highest = self._highest.get(load_balancer_id, 0)
            made = Fence(highest, lambda number: self._keep(load_balancer_id, number))
            return self._fences.setdefault(load_balancer_id, made)

    def _keep(self, load_balancer_id: str, number: int) -> None:
        """A full disk keeps nobody from changing what runs."""
        with self._lock:
            self._highest[load_balancer_id] = number
            try:
                files.write_atomically(self._path, json.dumps(self._highest).encode())
            except OSError as error:
                log("fence not saved", path=self._path, error=error.strerror)


class Applied(NamedTuple):
    digest: str
    action: str  # of ACTIONS
    fallback: str | None
    took_ms: float


class State(NamedTuple):
    digest: str | None
    running: bool
    pid: int | None
    workers: int
    removing: tuple[str, ...]
    companions: tuple[Companion, ...]


class Record(NamedTuple):
    """What survives the agent."""

    wanted: str = STOPPED  # running | stopped (on purpose)
    # "" | commands (sent; the file does not say yet what they did) | upload (not yet asked to reload)
    # | apply (swapped in, reload not yet proven)
    unloaded: str = ""
    removing: tuple[str, ...] = ()  # backend/server that could not be deleted yet


class Checker(NamedTuple):
    """How a text is checked: the program, and what comes after the file."""

    command: tuple[str, ...]
    extra: Callable[[str], tuple[str, ...]]  # of the text


def load_record(path: str) -> Record:
    """A torn or foreign record counts as one of a running load balancer: serving is the safer mistake."""
    content = files.read(path)
    if content is None:
        return Record()
    try:
        value = json.loads(content)
        return Record(str(value["wanted"]), str(value["unloaded"]), tuple(str(name) for name in value["removing"]))
    except (ValueError, KeyError, TypeError):
        return Record(wanted=RUNNING, unloaded="upload")


def _load_fences(path: str) -> dict[str, int]:
    try:
        return {str(name): int(number) for name, number in json.loads(files.read(path) or b"{}").items()}
    except (ValueError, TypeError, AttributeError):
        log("fences unreadable, letting everybody through", path=path)
        return {}
