"""keepalived as a process in a session of its own (detached.py): a parent and its child, which speaks VRRP, or tells
the kernel of virtual servers (LVS).

Children are not respawned by their parent: when either dies by force, both are gone and the addresses stay. Who starts
it again, and when, is vrrp.py's to say. It has taken a configuration when it says so.
"""

import re
import select
import signal
import threading
import time
from collections.abc import Iterator
from typing import NamedTuple

from frontinus_amphora import files, processes
from frontinus_amphora.detached import Detached
from frontinus_amphora.errors import ServiceFailed
from frontinus_amphora.log import log

GLANCE = 0.002  # seconds between two looks while waiting
FOREGROUND_WITHOUT_RESPAWN = ("-n", "-l", "-R")


class Task(NamedTuple):
    """What the child does: the word that asks for nothing else, and the one that says where its pid goes."""

    word: str
    pid: str


VRRP, LVS = Task("-P", "-r"), Task("-C", "-c")


class KeepalivedProgram:
    """The keepalived program and its version, asked when first needed, until there is one."""

    def __init__(self, command: str) -> None:
        self.command = command
        self._lock = threading.Lock()  # guards the rest
        self._version = ""

    def version(self) -> str:
        """Like 2.2.7; empty when the program does not run. Any thread."""
        with self._lock:
            if not self._version:  # it may have been installed meanwhile
                code, output = processes.run((self.command, "--version"), 10.0)
                match = re.search(r"Keepalived v(\d[\w.]*)", output) if code == 0 else None
                self._version = match[1] if match else ""
            return self._version


class KeepalivedService(Detached):
    """See service.Service, whose docstrings are the law."""

    program = "keepalived"

    def __init__(self, command: str, config: str, directory: str, timeout: float, task: Task = VRRP) -> None:
        """`directory` is absolute, and holds what the process leaves behind."""
        super().__init__(f"{directory}/service.json", f"{directory}/output")
        self._command = command
        self._config = config
        self._pid_files = (f"{directory}/octavia-keepalived.pid", f"{directory}/vrrp.pid")
        self._timeout = timeout
        self._task = task

    def start(self) -> None:
        self._end_strays()
        for file in self._pid_files:  # of one that was killed; it takes whoever has that number now for itself
            files.remove(file)
        pid = self._spawn(self._arguments())
        try:
            if not self._hold(pid):
                processes.reap(pid)
            self._await("Startup complete")
        except ServiceFailed:
            self.stop()
            raise
        log("keepalived started", pid=pid)

    def reload(self) -> None:
        master = self._master
        if master is None or self.pid() is None:
            raise ServiceFailed("keepalived did not reload", "it does not run")
        self._forget_heard()
        processes.send_signal(master[2], signal.SIGHUP)
        self._await("Reload complete")

    def workers(self) -> int:
        return sum(1 for pid in self._stray_pids() if pid != self.pid())

    def _arguments(self) -> list[str]:
        parent, child = self._pid_files
        pids = ("-p", parent, self._task.pid, child)
        return [self._command, *FOREGROUND_WITHOUT_RESPAWN, self._task.word, "-f", self._config, *pids]

    def _await(self, word: str) -> None:
        """Look until it prints this. Raises ServiceFailed."""
        deadline = time.monotonic() + self._timeout
        while True:
            said = self._tail()
            if self.pid() is None:
                raise ServiceFailed("keepalived ended", said)
            if word in said:
                return
            if time.monotonic() > deadline:
                raise ServiceFailed("keepalived is not ready in time", said)
            select.select([], [], [], GLANCE)

    def _candidates(self) -> list[int]:
        recorded = self._recorded()
        found = [recorded] if recorded is not None else list(self._stray_pids())
        # Its child, which has the same command line, leads no session.
        return [pid for pid in found if processes.session(pid) == pid and processes.names(pid, self._config)]

    def _stray_pids(self) -> Iterator[int]:
        return processes.naming(self._config)
