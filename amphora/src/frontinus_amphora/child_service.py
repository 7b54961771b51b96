"""haproxy in master-worker mode, as a process in a session of its own.

It outlives the agent: nothing that the agent holds (pipe, terminal, process group) is needed by it. A restarted agent
finds it by what was recorded (pid and start time) or by a command line that names our configuration file. What
haproxy prints goes to a FIFO that never blocks it, and tells the agent at once that a server changed state.

How a reload is known to have worked (haproxy 2.4 to 2.6; `reload` on the master's socket answers before it is done):
the master closes that connection, executes itself anew, and answers `show proc` again when it has either a new worker
or `[failed: n]`. From 2.7 on the answer itself says `Success=`.
"""

import json
import os
import select
import signal
import threading
import time
from collections.abc import Callable

from frontinus_amphora import files, haproxy_cli, haproxy_text, processes
from frontinus_amphora.errors import ServiceFailed
from frontinus_amphora.haproxy_cli import HaproxySilent, Processes
from frontinus_amphora.log import log
from frontinus_amphora.service import Places

GLANCE = 0.004  # seconds between two looks while waiting
OUTPUT_KEPT = 16384
STOP_GRACE = 5.0
NOT_INHERITED = frozenset({"NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "WATCHDOG_USEC"})


class ChildService:
    """See service.Service, whose docstrings are the law."""

    def __init__(
        self,
        places: Places,
        argv: Callable[[], tuple[str, ...]],
        extra: Callable[[str], tuple[str, ...]],
        timeout: float,
    ) -> None:
        """`argv` is the program and its fixed words; `extra`, of the text, are words after the configuration file."""
        self._places = places
        self._argv = argv
        self._extra = extra
        self._timeout = timeout
        self._master: tuple[int, int, int] | None = None  # pid, start time, pidfd
        self._fifo: int | None = None
        self._lock = threading.Lock()  # guards _heard
        self._heard = bytearray()  # tail of what was printed during the operation under way

    def adopt(self) -> int | None:
        if self._master is None:
            for pid in self._candidates():
                if self._hold(pid):
                    break
        if self._master is None:
            return None
        os.close(self._open_fifo())
        return self._master[0]

    def start(self) -> None:
        self._end_strays()
        writer = self._open_fifo()
        self._forget_heard()
        files.remove(self._places.master_socket)
        files.remove(self._places.pid)
        try:
            pid = processes.spawn_detached(self._command(), writer, NOT_INHERITED)
        except OSError as error:
            raise ServiceFailed("haproxy cannot be executed", error.strerror) from error
        finally:
            os.close(writer)
        try:
            if not self._hold(pid):
                processes.reap(pid)
            self._await(lambda seen: bool(seen.workers))
        except ServiceFailed:
            self.stop()
            raise
        if self._master is not None:
            log("haproxy started", pid=self._master[0])

    def reload(self) -> None:
        before = self._await_master()
        known = {*before.workers, *before.old_workers}
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

    def stop(self) -> None:
        if self.adopt() is not None and self._master is not None:
            pid, _started, pidfd = self._master
            processes.send_signal(pidfd, signal.SIGTERM)
            processes.has_ended(pidfd, STOP_GRACE)
            if not processes.has_ended(pidfd):
                processes.send_signal(pidfd, signal.SIGKILL)
                processes.has_ended(pidfd, STOP_GRACE)
            self._drop_master()
            log("haproxy stopped", pid=pid)
        self._end_strays()
        files.remove(self._places.service_record)
        files.remove(self._places.pid)
        files.remove(self._places.master_socket)

    def pid(self) -> int | None:
        master = self._master
        if master is None:
            return None
        try:
            return None if processes.has_ended(master[2]) else master[0]
        except OSError:  # closed by another thread this very moment
            return None

    def workers(self) -> int:
        pid = self.pid()
        if pid is None:
            return 0
        found = processes.children(pid)
        if found is not None:
            return len(found)
        seen = self._processes()
        return len(seen.workers) + len(seen.old_workers) if seen else 0

    def has_died(self) -> bool:
        if self._master is None or self.pid() is not None:
            return False
        self._drop_master()
        return True

    def descriptors(self) -> dict[int, str]:
        found = {}
        if self._fifo is not None:
            found[self._fifo] = "output"
        if self._master is not None:
            found[self._master[2]] = "death"
        return found

    def drain_output(self) -> str:
        taken = bytearray()
        with self._lock:
            while self._fifo is not None and len(taken) < 1 << 20:
                try:
                    part = os.read(self._fifo, 65536)
                except OSError:  # nothing more
                    break
                taken += part
            self._heard = (self._heard + taken)[-OUTPUT_KEPT:]
        return taken.decode("utf-8", "replace")

    def close(self) -> None:
        if self._master is not None:
            os.close(self._master[2])
            self._master = None
        with self._lock:
            if self._fifo is not None:
                os.close(self._fifo)
                self._fifo = None

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
        """Pids that may be our master, likeliest first."""
        found: list[int] = []
        record = _json(files.read(self._places.service_record))
        if isinstance(record.get("pid"), int) and record.get("started") == processes.start_time(record["pid"]):
            found.append(record["pid"])
        written = files.read(self._places.pid)
        if written and written.strip().isdigit():
            found.append(int(written))
        if not found:  # the agent died between starting haproxy and writing it down
            found.extend(pid for pid in processes.naming(self._places.config) if processes.session(pid) == pid)
        return [pid for pid in found if processes.names(pid, self._places.config)]

    def _hold(self, pid: int) -> bool:
        started = processes.start_time(pid)
        pidfd = None if started is None else processes.open_pidfd(pid, started)
        if started is None or pidfd is None:
            return False
        self._master = (pid, started, pidfd)
        try:
            files.write_atomically(self._places.service_record, json.dumps({"pid": pid, "started": started}).encode())
        except OSError as error:  # a full disk: haproxy's pid file or command line will do instead
            log("haproxy not recorded", pid=pid, error=error.strerror)
        return True

    def _drop_master(self) -> None:
        if self._master is not None:
            pid, _started, pidfd = self._master
            self._master = None
            processes.reap(pid)
            os.close(pidfd)

    def _end_strays(self) -> None:
        """Workers of a dead master (and a master that nobody recorded) hold our addresses: end them."""
        strays = [(pid, processes.start_time(pid)) for pid in processes.naming(self._places.config)]
        alive = [(pid, started) for pid, started in strays if started is not None]
        if alive:
            processes.kill_all([pid for pid, _ in alive], [started for _, started in alive])
            log("haproxy strays ended", pids=",".join(str(pid) for pid, _ in alive))

    def _open_fifo(self) -> int:
        """Hold the FIFO for reading; return a descriptor for haproxy to write to, which never blocks it.

        Adopting calls it for its first half: a fresh reader makes the old writers' words arrive again."""
        if self._fifo is None:
            if not os.path.exists(self._places.output):
                os.mkfifo(self._places.output, files.PRIVATE_FILE)
            # Read and write, so that the last writer's end is not an end of file that polls as readable for ever.
            self._fifo = os.open(self._places.output, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        return os.open(self._places.output, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)

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

    def _forget_heard(self) -> None:
        self.drain_output()
        with self._lock:
            self._heard.clear()

    def _tail(self) -> str:
        self.drain_output()
        with self._lock:
            return self._heard.decode("utf-8", "replace").strip()[-4096:]


def _answers(stats_socket: str | None, seen: Processes) -> bool:
    """True when a worker of now answers at the runtime socket (if the configuration has one)."""
    if stats_socket is None:
        return True
    try:
        answer = haproxy_cli.ask(stats_socket, "show info", 2.0)
    except HaproxySilent:
        return False
    return any(f"\nPid: {worker}\n" in answer for worker in seen.workers)


def _json(content: bytes | None) -> dict[str, int]:
    """A record; a torn or foreign one counts as absent."""
    try:
        value = json.loads(content or b"{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
