"""A look into the database of a fleet while it works: who holds what, and how long work waits for another after a kill.

The one place of these tests that looks inside: leases are not in the API."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from sqlalchemy import select

from frontinus.controller.settings import ControllerSettings
from frontinus.model.enums import ProvisioningStatus
from frontinus.model.errors import WorldError
from frontinus.store.engine import Store, Transaction
from frontinus.store.schema import amphora, controller, load_balancer
from frontinus.store.statement import Statement

PAUSE_S = 0.05

_lb, _am, _co = load_balancer.c, amphora.c, controller.c
_WORK = Statement(
    select(_lb.id, _lb.lease_owner, _lb.lease_epoch, _lb.lease_expires_at, _lb.due_at).where(
        _lb.provisioning_status != ProvisioningStatus.DELETED.value
    )
)
_CONTROLLERS = Statement(select(_co.id, _co.pid))
_STATE = Statement(
    select(_lb.id, _lb.provisioning_status, _lb.generation, _lb.applied_generation, _lb.due_at, _lb.fault)
)
_AMPHORAE = Statement(select(_am.id, _am.load_balancer_id, _am.status, _am.receipt))


@dataclass(frozen=True)
class Row:
    owner: str | None
    epoch: int
    expires_at: int | None
    due_at: int | None

    def is_waiting(self, now: float) -> bool:
        """Due, and nobody's."""
        is_due = self.due_at is not None and self.due_at <= now * 1_000_000
        return is_due and (self.owner is None or (self.expires_at or 0) <= now * 1_000_000)


@dataclass(frozen=True)
class Settled:
    """A load balancer at the end."""

    id: str
    status: str
    generation: int
    applied_generation: int
    is_due: bool
    fault: str | None


@dataclass(frozen=True)
class Recorded:
    """An amphora at the end. `digest` is the one of its receipt."""

    id: str
    load_balancer_id: str
    status: str
    receipt: str | None


@dataclass
class Orphaned:
    """A load balancer whose holder was killed at `since`."""

    owner: str
    epoch: int
    since: float
    """By the clock of the wall, as `due_at`."""
    due_at: float = 0.0
    expires_at: float = 0.0
    """When the lease of whoever was killed runs out."""
    waited: float = 0.0
    leased: float = 0.0
    """Of that, while the lease of the dead still held."""
    crowded: float = 0.0
    """Of the rest, while every controller that lived was at work on as many as it may."""


@dataclass(frozen=True)
class Resumption:
    """How long one load balancer waited, and for what, in seconds."""

    waited: float
    leased: float
    crowded: float

    @property
    def idle(self) -> float:
        """While somebody had a place free and did not take it: on the way there, or kept from the processor."""
        return self.waited - self.leased - self.crowded


@dataclass
class Watcher:
    """In a thread of its own, on its own connection. `resumptions` are seconds from a kill until another holds the load
    balancer, or nothing was left to be done; work that was put off counts from its time on. Time counts while there is
    another: `living` are the processes that could be one, and those that have registered are."""

    url: str
    living: Callable[[], set[int]]
    places: int = ControllerSettings.concurrency
    """On how many a controller works at once."""
    resumptions: list[Resumption] = field(default_factory=list)
    longest: str = ""
    """What is known of the one that took longest."""
    rows: dict[str, Row] = field(default_factory=dict)
    owners: dict[str, int] = field(default_factory=dict)
    """Controller to its process id."""
    longest_wait_s: float = 0.0
    """The longest that anything was due and nobody's, whoever was killed."""
    _waiting_since: dict[str, float] = field(default_factory=dict)
    _orphaned: dict[str, Orphaned] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=lambda: asyncio.run(self._watch()), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(30)

    def killed(self, pid: int) -> int:
        """The controller of this process was killed just now; how many load balancers it held."""
        now = time.time()
        with self._lock:
            owner = next((x for x, of in self.owners.items() if of == pid and x in self._holders()), None)
            held = {x: row for x, row in self.rows.items() if owner is not None and row.owner == owner}
            for load_balancer_id, row in held.items():
                self._orphaned.setdefault(load_balancer_id, Orphaned(row.owner or "", row.epoch, now))
        return len(held)

    @property
    def waiting(self) -> int:
        with self._lock:
            return len(self._orphaned)

    def _holders(self) -> set[str]:
        return {row.owner for row in self.rows.values() if row.owner is not None}

    async def _watch(self) -> None:
        store = Store.open(self.url, connections=1)
        before = time.time()
        while not self._stop.is_set():
            try:
                rows, owners = await store.read(_read)
            except WorldError:
                continue  # the database is away; whatever waits for it is waiting still
            with self._lock:
                self.rows, self.owners = rows, {**self.owners, **owners}
                now = time.time()
                living = self.living()
                there = {x for x, pid in self.owners.items() if pid in living}
                load = Counter(row.owner for row in rows.values() if row.owner in there)
                is_crowded = all(load[x] >= self.places for x in there)
                self._note(now, now - before if there else 0.0, is_crowded)
                self._note_waiting(now)
                before = now
            await asyncio.sleep(PAUSE_S)
        await store.close()

    def _note_waiting(self, now: float) -> None:
        since = {x: self._waiting_since.get(x, now) for x, row in self.rows.items() if row.is_waiting(now)}
        self.longest_wait_s = max(self.longest_wait_s, *(now - x for x in since.values()), 0.0)
        self._waiting_since = since

    def _note(self, now: float, passed: float, is_crowded: bool) -> None:
        for load_balancer_id, orphaned in tuple(self._orphaned.items()):
            row = self.rows.get(load_balancer_id)
            if row is not None and row.epoch == orphaned.epoch:
                orphaned.due_at = orphaned.due_at if row.due_at is None else row.due_at / 1_000_000
                orphaned.expires_at = max(orphaned.expires_at, (row.expires_at or 0) / 1_000_000)
            waited = min(passed, max(0.0, now - max(orphaned.since, orphaned.due_at)))
            after_lease = min(waited, max(0.0, now - orphaned.expires_at))
            orphaned.waited += waited
            orphaned.leased += waited - after_lease
            orphaned.crowded += after_lease if is_crowded else 0.0
            # One that is due no more was settled by whoever was killed; only its lease had not been given back.
            if row is None or row.epoch > orphaned.epoch or row.due_at is None:
                if orphaned.waited > max((x.waited for x in self.resumptions), default=0.0):
                    self.longest = f"{load_balancer_id}, {now - orphaned.since:.1f} s in all: {orphaned}, then {row}"
                self.resumptions.append(Resumption(orphaned.waited, orphaned.leased, orphaned.crowded))
                del self._orphaned[load_balancer_id]


def _read(tx: Transaction) -> tuple[dict[str, Row], dict[str, int]]:
    rows = {x[0]: Row(*x[1:]) for x in tx.rows(_WORK, {})}
    return rows, {x[0]: x[1] for x in tx.rows(_CONTROLLERS, {})}


def state(url: str) -> tuple[list[Settled], list[Recorded]]:
    """Every load balancer and amphora on record that was not deleted."""

    def work(tx: Transaction) -> tuple[list[Settled], list[Recorded]]:
        settled = [
            Settled(x[0], x[1], x[2], x[3], x[4] is not None, x[5]) for x in tx.rows(_STATE, {}) if x[1] != "DELETED"
        ]
        recorded = [Recorded(*x) for x in tx.rows(_AMPHORAE, {}) if x[2] != "DELETED"]
        return settled, recorded

    async def read() -> tuple[list[Settled], list[Recorded]]:
        store = Store.open(url, connections=1)
        try:
            return await store.read(work)
        finally:
            await store.close()

    return asyncio.run(read())
