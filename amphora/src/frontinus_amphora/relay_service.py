"""nginx for datagrams: a change starts a second one beside the first, and no answer that is owed is lost.

nginx closes its listening sockets as soon as it is to reload, and a session of datagrams answers over them. So nothing is
ever reloaded: the agent makes new sockets at the same places (datagram_sockets.py), and hands them over to a new nginx in
the variable NGINX, as nginx itself does when its program is replaced. They are quiet until it is ready; then they are
opened, and those of the one that served are quietened. That one ends when its sessions are over.

After the agent's own death the kernel tells which is which: the youngest nginx with an open socket serves, older ones
finish, younger ones were never needed. An agent that may not share the sockets of the one that serves
(`datagram_sockets.held_by`) has it quit at the next change, as nginx itself would.
"""

import contextlib
import itertools
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from frontinus_amphora import datagram_sockets, files, old_workers, open_sockets, processes
from frontinus_amphora.errors import ServiceFailed
from frontinus_amphora.haproxy_text import Bind
from frontinus_amphora.log import log
from frontinus_amphora.nginx_service import GLANCE, NginxService
from frontinus_amphora.open_sockets import Spot

MOST_OLD = 6  # that finish at once; each takes some 4 MiB, and a change every second is a rare thing
LONGEST_END = 300.0  # seconds; sessions that never rest are cut then
MANY = 100  # descriptors
LOOK = 1.1  # seconds between looks whether sessions are over: nginx writes the last line of its log within one


class Wanted(NamedTuple):
    """Where the next nginx shall listen, with how many sockets each: one for each worker."""

    spots: tuple[Spot, ...]
    workers: int


class Old:
    """An nginx that finishes what it began."""

    def __init__(self, pid: int, started: int, pidfd: int, spots: frozenset[Spot]) -> None:
        self.pid = pid
        self.started = started
        self.pidfd = pidfd
        self.spots = spots
        self.since = time.monotonic()
        self.idle = False  # had no session at the last look


class RelayService(NginxService):
    """See service.Service, whose docstrings are the law; workers() are those of the one that serves."""

    def __init__(
        self,
        command: Callable[[str], list[str]],
        wanted: Callable[[], Wanted],
        record: str,
        output: str,
        pid_files: str,
        timeout: float,
        old_workers_mib: float,
    ) -> None:
        """`command` is of the name for the file of the process id, which begins with `pid_files`, a path; `wanted` is
        asked at each start and reload."""
        super().__init__(lambda: command(f"{os.path.basename(pid_files)}.{time.time_ns()}"), record, output, timeout, 0)
        self._wanted = wanted
        self._pid_files = pid_files
        self._most_old_mib = old_workers_mib
        self._sockets: list[socket.socket] = []  # of the one that serves, shared with it; kept when it dies
        self._spots: frozenset[Spot] = frozenset()  # of those, also when they cannot be shared
        self._old: list[Old] = []
        self._look_at = 0.0

    def adopt(self) -> int | None:
        if self._master is None and not self._old:
            self._sort_out()
        return super().adopt()

    def start(self) -> None:
        self._end_strays()
        kept = {datagram_sockets.spot_of(each) for each in self._sockets}
        wanted = self._wanted()
        if kept != set(wanted.spots) or len(self._sockets) != len(wanted.spots) * wanted.workers:
            self._drop_sockets()
            self._sockets, self._spots = self._make(wanted, quiet=False), frozenset(wanted.spots)
        # Else those of one that died: what came meanwhile waits in them.
        self._run(self._sockets)

    def reload(self) -> None:
        self._forget_ended()
        if self._master is None or self.pid() is None:
            raise ServiceFailed("nginx was not replaced", "it does not run")
        sockets = self._make(self._wanted(), quiet=True)
        try:
            new = self._start_beside(sockets)
        except ServiceFailed:
            datagram_sockets.close_all(sockets)
            raise
        old = Old(*self._master, self._spots)
        self._master = new
        hushed = self._swap(sockets)
        if not hushed:
            processes.send_signal(old.pidfd, signal.SIGQUIT)
        self._old.append(old)
        self._write_record()
        log("nginx replaced", pid=new[0], old=old.pid, quietly=hushed)
        self._bound()

    def stop(self, *, at_once: bool = False) -> None:
        self.adopt()
        for old in self._old:
            processes.send_signal(old.pidfd, signal.SIGTERM)
        super().stop(at_once=at_once)
        ended, self._old = self._old, []
        self._end_strays()  # the old ones, whose end was asked for before, are strays now
        for old in ended:
            processes.reap(old.pid)
            os.close(old.pidfd)
        self._drop_sockets()
        self._remove_pid_files()

    def retire(self) -> None:
        """Let nothing come any more; what is owed is still sent. Nothing runs for whom it matters when this returns."""
        self.adopt()
        if self._master is None or self.pid() is None or not self._sockets:
            self.stop()
            return
        old = Old(*self._master, self._spots)
        self._master = None
        if not self._swap([]):
            processes.send_signal(old.pidfd, signal.SIGQUIT)
        self._old.append(old)
        files.remove(self._record)
        log("nginx retired", pid=old.pid)

    def has_died(self) -> bool:
        self._forget_ended()
        return super().has_died()

    def descriptors(self) -> dict[int, str]:
        return {**super().descriptors(), **{old.pidfd: "death" for old in self._old}}

    def close(self) -> None:
        super().close()
        for old in self._old:
            os.close(old.pidfd)
        self._old = []
        self._drop_sockets()

    def tend(self) -> float | None:
        if not self._old:
            return None
        now = time.monotonic()
        if now < self._look_at:
            return self._look_at
        for old in self._old:
            is_idle = self._is_idle(old)
            if (is_idle and old.idle) or now - old.since > LONGEST_END:
                processes.send_signal(old.pidfd, signal.SIGTERM)
            old.idle = is_idle
        self._look_at = now + LOOK
        return self._look_at

    def spots(self) -> frozenset[Spot]:
        """Where sockets of ours are."""
        return self._spots.union(*(old.spots for old in self._old))

    def session_peers(self) -> Mapping[Spot, int]:
        masters = [self.pid(), *(old.pid for old in self._old)]
        workers = [worker for master in masters if master for worker in processes.children(master) or ()]
        return open_sockets.peers("udp", {inode for worker in workers for inode in open_sockets.inodes(worker)})

    def waiting(self, binds: Iterable[Bind]) -> dict[Hashable, int]:
        found: dict[Hashable, int] = {}
        for number, each in enumerate(self._sockets):
            with contextlib.suppress(OSError):  # closed by another thread this very moment
                found[number] = datagram_sockets.waiting(each)
        return found

    # The change, step by step

    def _make(self, wanted: Wanted, *, quiet: bool) -> list[socket.socket]:
        held = self.spots()
        made: list[socket.socket] = []
        for spot, number in itertools.product(wanted.spots, range(wanted.workers)):
            try:
                made.append(datagram_sockets.make(spot, ours=spot in held or number > 0, quiet=quiet))
            except OSError as error:
                datagram_sockets.close_all(made)
                which = f"{spot.address}:{spot.port}"
                raise ServiceFailed("an address cannot be bound", f"{which} {error.strerror}") from error
        return made

    def _start_beside(self, sockets: Sequence[socket.socket]) -> tuple[int, int, int]:
        pid = self._spawn(self._words(), handed=sockets)
        new = processes.take(pid)
        if new is None:
            processes.reap(pid)
            raise ServiceFailed("nginx ended", self._tail())
        try:
            self._await_worker(*new)
        except ServiceFailed:
            _end(new)
            raise
        return new

    def _await_worker(self, pid: int, _started: int, pidfd: int) -> None:
        deadline = time.monotonic() + self._timeout
        while not processes.has_ended(pidfd):
            workers = processes.children(pid)
            if workers is None:  # this kernel does not tell
                workers = [each for each in super()._stray_pids() if each != pid and processes.session(each) == pid]
            if workers:
                return
            said = self._tail()
            if "[emerg]" in said:
                raise ServiceFailed("nginx did not take the configuration", said)
            if time.monotonic() > deadline:
                raise ServiceFailed("nginx is not ready in time", said)
            select.select([], [], [], GLANCE)
        raise ServiceFailed("nginx ended", self._tail())

    def _swap(self, sockets: list[socket.socket]) -> bool:
        """Give what comes to the new sockets; True when the old ones get nothing any more."""
        for each in sockets:
            datagram_sockets.open_up(each)
        before, self._sockets = self._sockets, sockets
        self._spots = frozenset(map(datagram_sockets.spot_of, sockets))
        hushed = [datagram_sockets.quieten(each) for each in before]
        datagram_sockets.close_all(before)
        return bool(before) and all(hushed)

    # Old ones

    def _bound(self) -> None:
        """No more of them, and no more memory for them, than there may be."""
        for old in self._old[:-MOST_OLD]:
            log("old nginx ended, there are too many", pid=old.pid)
            processes.send_signal(old.pidfd, signal.SIGTERM)
        by_worker = {worker: old for old in self._old for worker in processes.children(old.pid) or ()}
        for worker in old_workers.too_large(by_worker, self._most_old_mib):
            log("old nginx worker ended for its memory", pid=worker)
            processes.send_signal(by_worker[worker].pidfd, signal.SIGTERM)

    def _forget_ended(self) -> None:
        left: list[Old] = []
        for old in self._old:
            if processes.has_ended(old.pidfd):
                processes.reap(old.pid)
                os.close(old.pidfd)
                self._remove_pid_files()
            else:
                left.append(old)
        self._old = left

    def _is_idle(self, old: Old) -> bool:
        """No session is left. nginx opens a socket for each; all others of a worker its master has too."""
        of_master = open_sockets.inodes(old.pid)
        for worker in processes.children(old.pid) or ():
            if open_sockets.held(worker) > 2 * len(of_master) + MANY:
                return False  # quickly told, without reading what each of them is
            if open_sockets.inodes(worker) - of_master:
                return False
        return True

    # After the agent's death

    def _sort_out(self) -> None:
        """Find out who serves and who finishes. What an earlier agent left half done goes on, or is undone."""
        masters = sorted(
            (taken for pid in self._masters() if (taken := processes.take(pid)) is not None), key=lambda one: one[1]
        )
        shared = [datagram_sockets.held_by(pid, pidfd) for pid, _started, pidfd in masters]
        places = [
            datagram_sockets.places(pid) if sockets is None else datagram_sockets.places_of(sockets)
            for (pid, _started, _pidfd), sockets in zip(masters, shared, strict=True)
        ]
        # With nobody serving all of them finish: one that was replaced must not come back with what it was told then.
        serving = max((at for at, each in enumerate(places) if any(each.values())), default=len(masters))
        for at, (master, sockets) in enumerate(zip(masters, shared, strict=True)):
            if at > serving:
                _end(master)
                log("nginx that was never needed ended", pid=master[0])
            elif at == serving:
                self._master, self._sockets, self._spots = master, sockets or [], frozenset(places[at])
                for each in self._sockets:
                    datagram_sockets.open_up(each)
                self._write_record()
                continue
            else:
                hushed = [datagram_sockets.quieten(each) for each in sockets or ()]
                if not hushed or not all(hushed):
                    processes.send_signal(master[2], signal.SIGQUIT)
                self._old.append(Old(*master, frozenset(places[at])))
            datagram_sockets.close_all(sockets or ())
        if masters:
            self._remove_pid_files()

    def _masters(self) -> list[int]:
        return [pid for pid in super()._stray_pids() if processes.session(pid) == pid]

    def _candidates(self) -> list[int]:
        return []  # _sort_out found whom there is

    def _stray_pids(self) -> Iterator[int]:
        spared = {old.pid for old in self._old}
        return (pid for pid in super()._stray_pids() if processes.session(pid) not in spared)

    # Smaller things

    def _drop_sockets(self) -> None:
        datagram_sockets.close_all(self._sockets)
        self._sockets, self._spots = [], frozenset()

    def _remove_pid_files(self) -> None:
        """nginx removes its own unless it is killed."""
        living = {old.pid for old in self._old} | {self._master[0] if self._master else 0}
        directory, prefix = os.path.split(self._pid_files)
        with contextlib.suppress(OSError):
            for name in os.listdir(directory):
                path = f"{directory}/{name}"
                if name.startswith(f"{prefix}.") and (files.read(path) or b"").strip().decode() not in map(str, living):
                    files.remove(path)


def _end(master: tuple[int, int, int]) -> None:
    """End a master with its workers, who never got anything."""
    pid, started, pidfd = master
    workers = processes.children(pid) or []
    times = [processes.start_time(worker) for worker in workers]
    known = [(worker, when) for worker, when in zip(workers, times, strict=True) if when is not None]
    processes.kill_all([pid, *(worker for worker, _ in known)], [started, *(when for _, when in known)])
    os.close(pidfd)
