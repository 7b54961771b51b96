"""nginx with its workers, as a process in a session of its own (detached.py).

nginx writes its title over its command line, so it is known by what it holds: its error output is our FIFO.
A reload is asked for with SIGHUP. It worked when there is a worker that was not there before; it did not when nginx
prints `[emerg]`, and then what ran before still runs. For a tenth of a second both workers take what comes; it is over
when the old one says in its title that it is shutting down.
"""

import os
import re
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence

from frontinus_amphora import hang, old_workers, open_sockets, processes
from frontinus_amphora.detached import Detached
from frontinus_amphora.errors import ServiceFailed
from frontinus_amphora.haproxy_text import Bind
from frontinus_amphora.log import log
from frontinus_amphora.open_sockets import Spot

GLANCE = 0.002  # seconds between two looks while waiting


class Program:
    """The nginx program: its version and how to run it, asked when first needed, until there is one."""

    def __init__(self, command: str, user: str = "") -> None:
        """`user` is whom its workers become, when the agent is root."""
        self.command = command
        self._lock = threading.Lock()  # guards the rest
        self._version = ""
        self._directives = f"user {user}; " if user else ""

    def version(self) -> str:
        """Like 1.22.1; empty when the program does not run or cannot balance datagrams. Any thread."""
        with self._lock:
            if not self._version:  # it may have been installed meanwhile
                self._ask()
            return self._version

    def _ask(self) -> None:
        code, output = processes.run((self.command, "-V"), 10.0)
        match = re.search(r"nginx version: [^/\n]*/(\d[\w.]*)", output) if code == 0 else None
        stream = re.search(r"--with-stream(=dynamic)?(?= |$)", output)
        if match and stream:
            self._version = match[1]
            if stream[1]:
                modules = re.search(r"--modules-path=(\S+)", output)
                self._directives += f"load_module {modules[1] if modules else 'modules'}/ngx_stream_module.so; "

    def arguments(self, directory: str, config: str, pid_file: str = "nginx.pid") -> list[str]:
        """The command line for a configuration. What belongs to this machine is said here, not in the text: how to
        come by the module, and where the process id goes."""
        self.version()
        return [self.command, "-p", f"{directory}/", "-c", config, "-g", f"{self._directives}pid {pid_file};"]


class NginxService(Detached):
    """See service.Service, whose docstrings are the law."""

    program = "nginx"

    def __init__(
        self, command: Callable[[], list[str]], record: str, output: str, timeout: float, old_workers_mib: float
    ) -> None:
        super().__init__(record, output)
        self._command = command
        self._timeout = timeout
        self._old_workers_mib = old_workers_mib

    def start(self) -> None:
        self._end_strays()
        self._run(())

    def _run(self, handed: Sequence[socket.socket]) -> None:
        """Start it with these sockets of ours, and wait until it serves. Raises ServiceFailed, and then nothing runs."""
        pid = self._spawn(self._words(), handed=handed)
        try:
            if not self._hold(pid):
                processes.reap(pid)
            self._await(frozenset())
        except ServiceFailed:
            self.stop()
            raise
        log("nginx started", pid=pid)

    def _words(self) -> list[str]:
        *words, directives = self._command()
        return [*words, f"{directives} daemon off;"]

    def reload(self) -> None:
        known = frozenset(self._workers())
        master = self._master
        if master is None or self.pid() is None:
            raise ServiceFailed("nginx did not reload", "it does not run")
        self._forget_heard()
        processes.send_signal(master[2], signal.SIGHUP)
        self._await(known)
        # Members that come up and go down make reloads by themselves, any number of them.
        old = [worker for worker in self._workers() if not _serves(worker)]
        old_workers.bound(self.program, old, self._old_workers_mib)

    def tend(self) -> float | None:
        """Do what is due; the time (monotonic) when something will be due, None when nothing will."""
        return None

    def waiting(self, binds: Iterable[Bind]) -> dict[Hashable, int]:
        """What waits in the kernel for a worker to take it, by queue: here connections, by place. *Any thread.*"""
        return {(bind.address, bind.port): count for bind in binds if (count := hang.waiting(bind)) is not None}

    def open_connections(self, binds: Iterable[Bind]) -> dict[Spot, int]:
        """Connections from clients that its workers have, by place. *Any thread.*"""
        places = {Spot(bind.address, bind.port) for bind in binds}
        inodes = {inode for worker in self._workers() for inode in open_sockets.inodes(worker)}
        if len(inodes) <= len(places):
            return {}
        return {place: count for place, count in open_sockets.own_ends("tcp", inodes).items() if place in places}

    def session_peers(self) -> Mapping[Spot, int]:
        """How many sessions of datagrams there are with each member, those of replaced ones included. *Any thread.*"""
        return {}

    def kill(self) -> None:
        """It hangs: end it at once, with its workers. That it died is then noticed like any other death."""
        pid = self.pid()
        if pid is None or self._master is None:
            return
        for worker in processes.children(pid) or ():
            taken = processes.take(worker)
            if taken is not None:
                processes.send_signal(taken[2], signal.SIGKILL)
                os.close(taken[2])
        processes.send_signal(self._master[2], signal.SIGKILL)

    def retire(self) -> None:
        """Like stop, but what is owed may still be sent."""
        self.stop()

    def spots(self) -> frozenset[Spot]:
        """Places for datagrams that are held by what replaced ones still finish, too."""
        return frozenset()

    def workers(self) -> int:
        return len(self._workers())

    def _await(self, known: frozenset[int]) -> None:
        """Look until a worker serves that is not among the known, and no other does. Raises ServiceFailed."""
        deadline = time.monotonic() + self._timeout
        while True:
            if self.pid() is None:
                raise ServiceFailed("nginx ended", self._tail())
            workers = self._workers()
            old_ones_serve = any(_serves(worker) for worker in known.intersection(workers))
            if not old_ones_serve and any(worker not in known for worker in workers):
                return
            said = self._tail()
            if "[emerg]" in said:
                raise ServiceFailed("nginx did not take the configuration", said)
            if time.monotonic() > deadline:
                raise ServiceFailed("nginx is not ready in time", said)
            select.select([], [], [], GLANCE)

    def _workers(self) -> list[int]:
        pid = self.pid()
        if pid is None:
            return []
        found = processes.children(pid)
        return [child for child in self._stray_pids() if child != pid] if found is None else found

    def _candidates(self) -> list[int]:
        recorded = self._recorded()
        held = set(self._stray_pids()) if recorded is None else {recorded}
        return [pid for pid in held if processes.session(pid) == pid and processes.prints_to(pid, self._output)]

    def _stray_pids(self) -> Iterator[int]:
        return processes.printing_to(self._output)


def _serves(worker: int) -> bool:
    """False for one that only finishes what it has, or is gone."""
    title = processes.title(worker)
    return bool(title) and "shutting down" not in title
