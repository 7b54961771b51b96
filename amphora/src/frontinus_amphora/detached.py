"""A balancer's process, started in a session of its own so that it outlives the agent, and found again by proof.

Nothing that the agent holds (pipe, terminal, process group) is needed by it. A restarted agent finds it by what was
recorded, pid and start time. What it prints goes to a FIFO that never blocks it. What is special to haproxy stands in
child_service.py, what is special to nginx in nginx_service.py.
"""

import json
import os
import signal
import socket
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

from frontinus_amphora import files, processes
from frontinus_amphora.errors import ServiceFailed
from frontinus_amphora.log import log

OUTPUT_KEPT = 16384
STOP_GRACE = 5.0
NOT_INHERITED = frozenset({"NGINX", "NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "WATCHDOG_USEC"})


class Detached(ABC):
    """One master process with its workers. The public methods are those of service.Service, whose docstrings are the
    law; what is left to subclasses is how to find, start and reload one."""

    program = ""  # its name in logs

    def __init__(self, record: str, output: str) -> None:
        """`record` is the file that remembers the process, `output` the FIFO of what it prints."""
        self._record = record
        self._output = output
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

    def stop(self, *, at_once: bool = False) -> None:
        if self.adopt() is not None and self._master is not None:
            pid, _started, pidfd = self._master
            if not at_once:
                processes.send_signal(pidfd, signal.SIGTERM)
                processes.has_ended(pidfd, STOP_GRACE)
            if not processes.has_ended(pidfd):
                processes.send_signal(pidfd, signal.SIGKILL)
                processes.has_ended(pidfd, STOP_GRACE)
            self._drop_master()
            log(f"{self.program} stopped", pid=pid)
        self._end_strays()
        files.remove(self._record)

    def pid(self) -> int | None:
        master = self._master
        if master is None:
            return None
        try:
            return None if processes.has_ended(master[2]) else master[0]
        except OSError:  # closed by another thread this very moment
            return None

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

    # For subclasses

    @abstractmethod
    def _candidates(self) -> Iterable[int]:
        """Pids that are our master, likeliest first."""

    @abstractmethod
    def _stray_pids(self) -> Iterable[int]:
        """Pids of whatever of ours may run without a master that we know."""

    def _recorded(self) -> int | None:
        """The pid of the recorded process while it lives."""
        record = _json(files.read(self._record))
        pid = record.get("pid")
        return pid if isinstance(pid, int) and record.get("started") == processes.start_time(pid) else None

    def _spawn(self, command: list[str], handed: Sequence[socket.socket] = ()) -> int:
        """Start it, with its output to our FIFO; the pid. Sockets are handed over as nginx hands them to its successor
        (its documentation, "Upgrading Executable on the Fly"). Raises ServiceFailed."""
        writer = self._open_fifo()
        self._forget_heard()
        try:
            numbers = [each.fileno() for each in handed]
            more = {"NGINX": "".join(f"{number};" for number in numbers)} if numbers else None
            return processes.spawn_detached(command, writer, NOT_INHERITED, more, numbers)
        except OSError as error:
            raise ServiceFailed(f"{self.program} cannot be executed", error.strerror) from error
        finally:
            os.close(writer)

    def _hold(self, pid: int) -> bool:
        taken = processes.take(pid)
        if taken is None:
            return False
        self._master = taken
        self._write_record()
        return True

    def _write_record(self) -> None:
        if self._master is None:
            return
        pid, started, _pidfd = self._master
        try:
            files.write_atomically(self._record, json.dumps({"pid": pid, "started": started}).encode())
        except OSError as error:  # a full disk: it can be found without
            log(f"{self.program} not recorded", pid=pid, error=error.strerror)

    def _drop_master(self) -> None:
        if self._master is not None:
            pid, _started, pidfd = self._master
            self._master = None
            processes.reap(pid)
            os.close(pidfd)

    def _end_strays(self) -> None:
        """Workers of a dead master (and a master that nobody recorded) hold our addresses: end them."""
        strays = [(pid, processes.start_time(pid)) for pid in self._stray_pids()]
        alive = [(pid, started) for pid, started in strays if started is not None]
        if alive:
            processes.kill_all([pid for pid, _ in alive], [started for _, started in alive])
            log(f"{self.program} strays ended", pids=",".join(str(pid) for pid, _ in alive))

    def _open_fifo(self) -> int:
        """Hold the FIFO for reading; return a descriptor to write to, which never blocks its holder.

        Adopting calls it for its first half: a fresh reader makes the old writers' words arrive again."""
        if self._fifo is None:
            if not os.path.exists(self._output):
                os.mkfifo(self._output, files.PRIVATE_FILE)
            # Read and write, so that the last writer's end is not an end of file that polls as readable for ever.
            self._fifo = os.open(self._output, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        return os.open(self._output, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)

    def _forget_heard(self) -> None:
        self.drain_output()
        with self._lock:
            self._heard.clear()

    def _tail(self) -> str:
        self.drain_output()
        with self._lock:
            return self._heard.decode("utf-8", "replace").strip()[-4096:]


def _json(content: bytes | None) -> dict[str, int]:
    """A record; a torn or foreign one counts as absent."""
    try:
        value = json.loads(content or b"{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
