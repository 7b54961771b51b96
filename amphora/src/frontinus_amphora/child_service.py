"""haproxy in master-worker mode, as a process in a session of its own (detached.py).

What haproxy prints tells the agent at once that a server changed state. It is found again also by a command line that
names our configuration file.

How a reload is known to have worked (haproxy 2.4 to 2.6; `reload` on the master's socket answers before it is done):
the master closes that connection, executes itself anew, and answers `show proc` again when it has either a new worker
or `[failed: n]`. From 2.7 on the answer itself says `Success=`.
"""

import select
import time
from collections.abc import Callable, Iterator

from frontinus_amphora import files, haproxy_cli, haproxy_text, memory, old_workers, processes
from frontinus_amphora.detached import Detached
from frontinus_amphora.errors import ServiceFailed
from frontinus_amphora.haproxy_cli import HaproxySilent, Processes
from frontinus_amphora.log import log
from frontinus_amphora.service import Places

GLANCE = 0.004  # seconds between two looks while waiting


class ChildService(Detached):
    """See service.Service, whose docstrings are the law."""

    program = "haproxy"

    def __init__(
        self,
        places: Places,
        argv: Callable[[], tuple[str, ...]],
        extra: Callable[[str], tuple[str, ...]],
        timeout: float,
        old_workers_mib: float,
    ) -> None:
        """`argv` is the program and its fixed words; `extra`, of the text, are words after the configuration file."""
        super().__init__(places.service_record, places.output)
        self._places = places
        self._argv = argv
        self._extra = extra
        self._timeout = timeout
        self._old_workers_mib = old_workers_mib

    def start(self) -> None:
        self._end_strays()
        files.remove(self._places.master_socket)
        files.remove(self._places.pid)
        pid = self._spawn(memory.within(memory.of(self._text()), self._command()))
        try:
            if not self._hold(pid):
                processes.reap(pid)
            self._await(lambda seen: bool(seen.workers))
        except ServiceFailed:
            self._end()
            raise
        if self._master is not None:
            log("haproxy started", pid=self._master[0])

    def reload(self) -> None:
        before = self._await_master()
        known = {*before.workers, *before.old_workers}
        self._limit_memory()
        self._forget_heard()
        try:
            answer = haproxy_cli.ask(self._places.master_socket, "reload", self._timeout, half_close=False)
        except HaproxySilent:
            answer = ""  # its connection is cut by the very reload; `show proc` tells the truth
        if "Success=0" in answer:
            raise ServiceFailed("haproxy did not reload", answer.partition("--\n")[2].strip() or self._tail())

        def renewed(seen: Processes) -> bool:
            if seen.reloads != before.reloads and seen.failed > 0:
                raise ServiceFailed("haproxy did not reload", self._tail())
            return any(worker not in known for worker in seen.workers)

        self._await(renewed)
        seen = self._processes()
        old_workers.bound(self.program, seen.old_workers if seen else (), self._old_workers_mib)

    def stop(self, *, at_once: bool = False) -> None:
        self._end(at_once=at_once)

    def _end(self, *, at_once: bool = False) -> None:
        super().stop(at_once=at_once)
        files.remove(self._places.pid)
        files.remove(self._places.master_socket)

    def workers(self) -> int:
        pid = self.pid()
        if pid is None:
            return 0
        found = processes.children(pid)
        if found is not None:
            return len(found)
        seen = self._processes()
        return len(seen.workers) + len(seen.old_workers) if seen else 0

    def _limit_memory(self) -> None:
        """The worker to come inherits it of the master. Raises ServiceFailed."""
        pid = self.pid()
        try:
            if pid is not None:
                memory.limit(pid, memory.of(self._text()))
        except OSError as error:
            raise ServiceFailed("the memory of haproxy cannot be limited", error.strerror) from error

    # Finding and holding

    def _command(self) -> list[str]:
        places = self._places
        return [
            *self._argv(),
            "-S",
            f"unix@{places.master_socket},mode,600",
            "-p",
            places.pid,
            "-f",
            places.config,
            *self._extra(self._text()),
        ]

    def _candidates(self) -> list[int]:
        found: list[int] = []
        recorded = self._recorded()
        if recorded is not None:
            found.append(recorded)
        written = files.read(self._places.pid)
        if written and written.strip().isdigit():
            found.append(int(written))
        if not found:  # the agent died between starting haproxy and writing it down
            found.extend(pid for pid in processes.naming(self._places.config) if processes.session(pid) == pid)
        return [pid for pid in found if processes.names(pid, self._places.config)]

    def _stray_pids(self) -> Iterator[int]:
        return processes.naming(self._places.config)

    # Waiting

    def _await(self, ready: Callable[[Processes], bool]) -> None:
        """Look until `ready` and the runtime socket is answered by a worker of now. Raises ServiceFailed."""
        deadline = time.monotonic() + self._timeout
        stats_socket = haproxy_text.stats_socket(self._text())
        while True:
            if self.pid() is None:
                raise ServiceFailed("haproxy ended", self._tail())
            seen = self._processes()
            if seen is not None and ready(seen) and _answers(stats_socket, seen):
                return
            if time.monotonic() > deadline:
                raise ServiceFailed("haproxy is not ready in time", self._tail())
            select.select([], [], [], GLANCE)

    def _await_master(self) -> Processes:
        """What the master says, once it answers: it may be amid a reload that an agent before us ordered."""
        deadline = time.monotonic() + self._timeout
        while self.pid() is not None and time.monotonic() < deadline:
            seen = self._processes()
            if seen is not None and seen.workers:
                return seen
            select.select([], [], [], GLANCE)
        raise ServiceFailed("haproxy did not reload", "its master process does not answer")

    def _processes(self) -> Processes | None:
        try:
            return haproxy_cli.parse_processes(
                haproxy_cli.ask(self._places.master_socket, "show proc", 2.0, half_close=True)
            )
        except HaproxySilent:
            return None

    def _text(self) -> str:
        return (files.read(self._places.config) or b"").decode("utf-8", "replace")


def _answers(stats_socket: str | None, seen: Processes) -> bool:
    """True when a worker of now answers at the runtime socket (if the configuration has one)."""
    if stats_socket is None:
        return True
    try:
        answer = haproxy_cli.ask(stats_socket, "show info", 2.0)
    except HaproxySilent:
        return False
    return any(f"\nPid: {worker}\n" in answer for worker in seen.workers)
