"""What haproxy and nginx have counted, made monotone over their reloads, its deaths and the agent's own restarts.

A listener's total is a base plus what each living worker last said of it. A worker that is gone is folded into the
base with its last words, so a total never goes back. Old workers are asked too while they finish their connections.
The totals are kept in `stats_counters.json` (contract heartbeat.yaml), with the time since when each listener is counted.
Wiping it begins a new count: a receiver sees that by the time, and adds it to what it has.
"""

import json
import threading
import time
from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

from frontinus_amphora import files, haproxy_cli, processes
from frontinus_amphora.encoding import Counters, PoolRow, Statistics, parse_statistics
from frontinus_amphora.haproxy_cli import HaproxySilent
from frontinus_amphora.log import log
from frontinus_amphora.tally import LONGEST, empty_log, read_tally

EVERYTHING = "show stat -1 7 -1"  # frontends, backends, servers; not the sockets behind a frontend
FRONTENDS = "show stat -1 1 -1"
MOST_ABSENT = 1_000
ANSWER_TIMEOUT = 1.5  # the beat waits for it, and whoever hears no beat for three seconds suspects the amphora


class Worker(NamedTuple):
    """A haproxy worker by proof: a pid alone comes back."""

    pid: int
    started: int


class Totals:
    """Pure accounts: who counted what. No I/O; the caller serialises calls."""

    def __init__(self) -> None:
        self.base: dict[str, Counters] = {}
        self.workers: dict[Worker, dict[str, Counters]] = {}
        self.reported: dict[str, Counters] = {}  # what the last plain heartbeat had added up to
        self.since: dict[str, int] = {}  # when counting began, in nanoseconds; 0: before this was written down
        self.log_position = 0  # up to where nginx's log is in the base

    def saw(self, worker: Worker, counted: dict[str, Counters], now: int) -> bool:
        """A living worker said this; its counters never go back while it lives. True when a listener is new: that its
        counting began `now` must be on disk before it is told, or an agent that is killed would begin it twice."""
        before = self.workers.setdefault(worker, {})
        for listener_id, counters in counted.items():
            before[listener_id] = counters.at_least(before.get(listener_id, Counters()))
        return self.began(counted, now)

    def began(self, listener_ids: Iterable[str], now: int) -> bool:
        """These are counted, since now unless it is known better; True when one of them is new."""
        new = [name for name in listener_ids if name not in self.since]
        self.since.update(dict.fromkeys(new, now))
        return bool(new)

    def lost(self, worker: Worker) -> None:
        """The worker is gone: what it last said is all that it did."""
        for listener_id, counters in self.workers.pop(worker, {}).items():
            self.base[listener_id] = self.base.get(listener_id, Counters()).plus(counters)

    def added(self, increments: dict[str, Counters]) -> None:
        """Somebody who only adds counted this."""
        for listener_id, counters in increments.items():
            self.base[listener_id] = self.base.get(listener_id, Counters()).plus(counters)

    def total(self, listener_id: str) -> Counters:
        total = self.base.get(listener_id, Counters())
        for counted in self.workers.values():
            total = total.plus(counted.get(listener_id, Counters()))
        return total

    def take_increments(self, listener_id: str) -> Counters:
        """What was added since this was last asked."""
        total = self.total(listener_id)
        increments = total.since(self.reported.get(listener_id, Counters()))
        self.reported[listener_id] = total
        return increments

    def prune(self, present: Iterable[str]) -> None:
        """Forget those that came first of the listeners which are absent, when they are very many. The others are kept:
        a listener that was disabled comes back, and meanwhile old workers finish its connections."""
        absent = [name for name in self.since if name not in set(present)]
        tables: tuple[dict[str, Any], ...] = (self.base, self.reported, self.since, *self.workers.values())
        for gone in absent[: max(0, len(absent) - MOST_ABSENT)]:
            for table in tables:
                table.pop(gone, None)

    def to_json(self) -> dict[str, object]:
        return {
            "base": self.base,
            "workers": {f"{worker.pid}:{worker.started}": counted for worker, counted in self.workers.items()},
            "reported": self.reported,
            "since": self.since,
            "log_position": self.log_position,
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Totals":
        """Raises ValueError, TypeError or AttributeError when the content is not ours."""
        totals = cls()
        position: object = content.get("log_position", 0)
        totals.log_position = position if isinstance(position, int) else 0
        totals.base = {name: Counters(*values) for name, values in content.get("base", {}).items()}
        totals.reported = {name: Counters(*values) for name, values in content.get("reported", {}).items()}
        for key, table in content.get("workers", {}).items():
            pid, _, started = key.partition(":")
            totals.workers[Worker(int(pid), int(started))] = {name: Counters(*values) for name, values in table.items()}
        known = {name for table in (totals.base, *totals.workers.values()) for name in table}
        totals.since = {**dict.fromkeys(known, 0), **{str(k): int(v) for k, v in content.get("since", {}).items()}}
        return totals


class Bookkeeper:
    """Reads haproxy and keeps the totals of all load balancers of this amphora. Any thread."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.Lock()  # guards the totals and the file
        self._totals: dict[str, Totals] = {}
        self._boot = 0
        self._load()

    def boot(self, now: int) -> int:
        """A number for this start of the agent, greater than every earlier one even if the clock went back."""
        with self._lock:
            self._boot = max(now, self._boot + 1)
            self._save()
            return self._boot

    def read(
        self, load_balancer_id: str, stats_socket: str, master_socket: str, removing: frozenset[str] = frozenset()
    ) -> Statistics:
        """Ask the current worker for everything and old workers for their counters. Raises HaproxySilent."""
        answer = haproxy_cli.ask(stats_socket, f"show info;{EVERYTHING}", ANSWER_TIMEOUT)
        info, separator, table = answer.partition("\n\n")
        pid = next((int(line[5:]) for line in info.splitlines() if line.startswith("Pid: ")), 0)
        started = processes.start_time(pid)
        seen = parse_statistics(table, removing)
        if not separator or started is None:
            raise HaproxySilent("haproxy does not tell its statistics")
        current = Worker(pid, started)
        with self._lock:
            totals = self._totals.setdefault(load_balancer_id, Totals())
            counted = {name: row.counters for name, row in seen.listeners.items()}
            must_save = current not in totals.workers
            must_save |= totals.saw(current, counted, time.time_ns())
            for worker in [other for other in totals.workers if other != current]:
                self._ask_old_worker(totals, worker, master_socket)
            if must_save:
                self._save()
        return seen

    def read_log(
        self, load_balancer_id: str, path: str, listener_ids: Collection[str], elsewhere: dict[str, Counters]
    ) -> None:
        """Add what nginx counted since this was last called, for listeners that there are, and what was `elsewhere`."""
        with self._lock:
            totals = self._totals.setdefault(load_balancer_id, Totals())
            tally = read_tally(path, totals.log_position)
            must_save = totals.began(listener_ids, time.time_ns())
            for each in (tally.added, elsewhere):
                totals.added({name: counted for name, counted in each.items() if name in totals.since})
            totals.log_position = tally.position
            if must_save or tally.position > LONGEST:
                self._save()  # or else an agent that is killed now would count again what stands there next
                if tally.position > LONGEST and empty_log(path, tally.position):
                    totals.log_position = 0
                    self._save()

    def totals(self, load_balancer_id: str, listener_ids: Iterable[str]) -> dict[str, tuple[Counters, int]]:
        """Absolute counters, which never go back, and since when they count."""
        with self._lock:
            totals = self._totals.setdefault(load_balancer_id, Totals())
            return {name: (totals.total(name), totals.since.get(name, 0)) for name in listener_ids}

    def increments(self, load_balancer_id: str, listener_ids: Iterable[str]) -> dict[str, tuple[Counters, int]]:
        """What was added since this was last called for them."""
        with self._lock:
            totals = self._totals.setdefault(load_balancer_id, Totals())
            return {name: (totals.take_increments(name), 0) for name in listener_ids}

    def prune(self, load_balancer_id: str, present: Iterable[str]) -> None:
        with self._lock:
            if load_balancer_id in self._totals:
                self._totals[load_balancer_id].prune(present)

    def forget(self, load_balancer_id: str) -> None:
        with self._lock:
            self._totals.pop(load_balancer_id, None)
            self._save()

    def save(self) -> None:
        with self._lock:
            self._save()

    def _ask_old_worker(self, totals: Totals, worker: Worker, master_socket: str) -> None:
        if processes.start_time(worker.pid) != worker.started:
            totals.lost(worker)
            return
        try:
            answer = haproxy_cli.ask(master_socket, f"@!{worker.pid} {FRONTENDS}", 1.0, half_close=True)
        except HaproxySilent:
            return  # it may be ending; the next reading tells
        counted = {name: row.counters for name, row in parse_statistics(answer).listeners.items()}
        if counted:
            totals.saw(worker, {name: each for name, each in counted.items() if name in totals.since}, 0)

    def _load(self) -> None:
        try:
            content = json.loads(files.read(self._path) or b"{}")
            self._boot = int(content.get("boot", 0))
            self._totals = {key: Totals.from_json(value) for key, value in content.get("totals", {}).items()}
        except (ValueError, TypeError, AttributeError):
            log("counters unreadable, counting from zero", path=self._path)

    def _save(self) -> None:
        content = {"boot": self._boot, "totals": {key: totals.to_json() for key, totals in self._totals.items()}}
        try:
            files.write_atomically(self._path, json.dumps(content).encode())
        except OSError as error:
            log("counters not saved", path=self._path, error=error.strerror)


__all__ = ["Bookkeeper", "Counters", "PoolRow", "Statistics", "Totals", "Worker"]
