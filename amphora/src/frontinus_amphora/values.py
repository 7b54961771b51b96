"""What load_balancer.py is given, what it answers, and what it must remember when the agent ends. Values only."""

import json
from collections.abc import Callable
from typing import NamedTuple

from frontinus_amphora import files
from frontinus_amphora.companions import Companion
from frontinus_amphora.errors import Fenced

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

    def __init__(self) -> None:
        self._highest = 0

    def let_through(self, number: int) -> None:
        """0 is of somebody who knows no numbers. Raises Fenced."""
        if 0 < number < self._highest:
            raise Fenced(self._highest)
        self._highest = max(self._highest, number)


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
