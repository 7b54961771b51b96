"""Listen, weigh, write, judge. Owns the pace of health; every decision is in liveness.py, accounts.py and model/.

What cannot be written now is kept and written later; a store that is away delays statuses and loses nothing that an
amphora will not say again."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

import structlog

from frontinus.drivers.amphora.interface import AmphoraDriver, Refused
from frontinus.health.accounts import Accounts
from frontinus.health.liveness import WakingClock, judge
from frontinus.health.metrics import HealthMetrics
from frontinus.health.receiver import Receiver
from frontinus.health.settings import HealthSettings
from frontinus.model.enums import Kind, OperatingStatus
from frontinus.model.heartbeat import Heartbeat
from frontinus.model.ids import AmphoraId, LoadBalancerId
from frontinus.model.operating_status import changed_checks, changed_statuses, observed_statuses
from frontinus.model.tree import LastCheck
from frontinus.store import health, trees
from frontinus.store.engine import Store, Transaction

log = structlog.get_logger()

LOOKS_MISSED = 2
"""A pause between two checks counts as this many check intervals at most; what is longer was no time to hear anything."""


PUSH_AGAIN_AFTER_S = 30.0
"""An amphora that goes on to miss files has a push asked for so often; a push that failed is tried again anyway."""


class Health:
    """One health receiver. `run` until cancelled.

    Immutable: store, driver, settings, clock. One owner (the event loop): everything else."""

    def __init__(
        self,
        store: Store,
        driver: AmphoraDriver,
        settings: HealthSettings,
        now: Callable[[], datetime],
        metrics: HealthMetrics | None = None,
    ) -> None:
        """Binds the socket. Raises OSError when the port is taken."""
        self._metrics = HealthMetrics() if metrics is None else metrics
        self._store = store
        self._driver = driver
        self._settings = settings
        self._now = now
        self._accounts = Accounts()
        self._awake = WakingClock(time.monotonic, LOOKS_MISSED * settings.check_interval.total_seconds())
        self._fleet: Mapping[AmphoraId, health.FleetMember] = {}
        self._suspected: dict[AmphoraId, float] = {}
        self._braked = False
        self._refusals: dict[str, int] = defaultdict(int)
        self.receiver = Receiver(settings, self._take)

    async def run(self) -> None:
        """Work until cancelled."""
        settings = self._settings
        await self._every(timedelta(0), self._read_fleet, once=True)
        self.receiver.start()
        turns: list[tuple[timedelta, Callable[[], Coroutine[Any, Any, None]]]] = [
            (settings.fleet_interval, self._read_fleet),
            (settings.flush_interval, self._write_statuses),
            (settings.flush_interval, self._ask_for_pushes),
            (settings.statistics_interval, self._write_statistics),
            (settings.seen_interval, self._write_seen),
            (settings.check_interval, self._suspect_silent),
            (timedelta(seconds=10), self._report_refusals),
        ]
        tasks = [asyncio.create_task(self._every(interval, turn)) for interval, turn in turns]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self.receiver.close()

    async def _every(
        self, interval: timedelta, turn: Callable[[], Coroutine[Any, Any, None]], *, once: bool = False
    ) -> None:
        while True:
            try:
                await turn()
            except Exception:  # the loop protects its next turn; nothing is lost that is not said again
                log.exception("health turn failed", turn=turn.__name__)
                self._metrics.failed_turns.labels(turn.__name__.strip("_").replace("_", "-")).inc()
            if once:
                return
            await asyncio.sleep(interval.total_seconds())

    def _take(self, datagram: memoryview) -> None:
        try:
            heartbeat = self._driver.decode(bytes(datagram), self._now())
        except Refused as refused:
            self._refuse(refused.reason)
            return
        if self._accounts.hear(heartbeat, self._awake()):
            self._metrics.accepted.inc()
        else:
            self._refuse("replayed or overtaken")

    def _refuse(self, reason: str) -> None:
        self._refusals[reason] += 1
        self._metrics.refused.labels(reason).inc()

    async def _report_refusals(self) -> None:
        """One line per reason and turn, whatever the number of datagrams: garbage must not fill the log."""
        refusals, self._refusals = self._refusals, defaultdict(int)
        for reason, count in refusals.items():
            log.warning("heartbeats refused", reason=reason, count=count)

    async def _read_fleet(self) -> None:
        members = await self._store.read(health.fleet)
        self._fleet = {x.amphora_id: x for x in members}
        self._accounts.watch(self._fleet, self._awake())
        self._suspected = {x: t for x, t in self._suspected.items() if x in self._fleet}
        self._metrics.watched.set(len(members))
        self._metrics.suspected.set(sum(x.suspected_at is not None for x in members))

    async def _write_statuses(self) -> None:
        heartbeats = self._accounts.take_to_weigh(self._awake(), self._settings.refresh_interval.total_seconds())
        of_load_balancer = {self._fleet[x].load_balancer_id: y for x, y in self._spokesmen(heartbeats).items()}
        unknown = [x.amphora_id for x in heartbeats if x.amphora_id not in self._fleet]
        self._accounts.weigh_again(unknown)
        if not of_load_balancer:
            return
        try:
            found = await self._store.read(lambda tx: trees.read_trees(tx, tuple(of_load_balancer)))
            changes: dict[Kind, dict[str, OperatingStatus]] = defaultdict(dict)
            checks: dict[str, LastCheck | None] = {}
            now = self._now()
            for load_balancer_id, tree in found.items():
                observed = observed_statuses(tree, of_load_balancer[load_balancer_id])
                for object_id, (kind, status) in changed_statuses(tree, observed).items():
                    changes[Kind(kind)][object_id] = status
                checks |= changed_checks(tree, of_load_balancer[load_balancer_id], now)
            if changes or checks:

                def write(tx: Transaction) -> None:
                    health.write_operating_statuses(tx, changes)
                    health.write_last_checks(tx, checks)

                await self._store.transact(write)
        except Exception:  # whatever it was: what was taken is given back, and the turn fails as it would have
            self._accounts.weigh_again(x.amphora_id for x in of_load_balancer.values())
            raise

    def _spokesmen(self, heartbeats: Iterable[Heartbeat]) -> dict[AmphoraId, Heartbeat]:
        """Who is believed about the load balancers that these are of: whatever the standby says, the one that serves."""
        ids = {self._fleet[x.amphora_id].load_balancer_id for x in heartbeats if x.amphora_id in self._fleet}
        pairs: dict[LoadBalancerId, list[AmphoraId]] = defaultdict(list)
        for member in self._fleet.values():
            if member.load_balancer_id in ids:
                pairs[member.load_balancer_id].append(member.amphora_id)
        spoken = (self._accounts.spokesman(amphorae) for amphorae in pairs.values())
        return {x.amphora_id: x for x in spoken if x is not None}

    async def _ask_for_pushes(self) -> None:
        """Amphorae that have lost files get their configuration anew. Asked for again while it goes on: the first time
        the secret store may have been out of reach."""
        heard = self._accounts.take_incomplete(self._awake(), PUSH_AGAIN_AFTER_S)
        if not heard:
            return
        members = [self._fleet[x.amphora_id] for x in heard if x.amphora_id in self._fleet]
        of_whom = {x.amphora_id: x.incomplete for x in heard}
        lost = [x.amphora_id for x in members if x.load_balancer_id in of_whom[x.amphora_id]]
        if not lost:
            return
        log.warning("amphorae have lost files: their configurations are pushed again", amphorae=lost)
        now = self._now()
        try:
            await self._store.transact(lambda tx: health.request_pushes(tx, lost, now))
        except Exception:  # as above
            self._accounts.take_incomplete_again(lost)
            raise

    async def _write_statistics(self) -> None:
        # Also of amphorae that the fleet does not show: one carries traffic a moment before its row says that it serves,
        # and until after its row says that it is to go. Whose listeners are gone is not written.
        rows = self._accounts.take_counters()
        if not rows:
            return
        try:
            await self._store.transact(lambda tx: health.write_statistics(tx, rows))
        except Exception:  # as above
            self._accounts.restore_counters(rows)
            raise

    async def _write_seen(self) -> None:
        fresh = [x for x in self._accounts.take_fresh() if x in self._fleet]
        if fresh:
            now = self._now()
            await self._store.transact(lambda tx: health.write_seen(tx, dict.fromkeys(fresh, now)))

    async def _suspect_silent(self) -> None:
        moment = self._awake()
        again = self._settings.suspect_again_after.total_seconds()
        judgement = judge(self._accounts.last_heard(), moment, self._settings)
        if judgement.braked != self._braked:
            self._braked = judgement.braked
            self._metrics.braked.set(self._braked)
            log.warning(
                "too many amphorae are silent at once: nobody is suspected" if judgement.braked else "brake released",
                watched=len(self._fleet),
            )
        await self._clear_heard()
        new = [
            x
            for x in judgement.silent
            # While it is suspected the controller looks, and looks again, by itself. If it found the amphora alive and the
            # silence goes on, it is asked to look anew after a while: the next time it may be dead.
            if x in self._fleet
            and self._fleet[x].suspected_at is None
            and moment - self._suspected.get(x, -again) >= again
        ]
        if new:
            log.warning("amphorae are silent", amphorae=new)
            self._metrics.suspicions.inc(len(new))
            now = self._now()
            await self._store.transact(lambda tx: health.suspect(tx, new, now))
            self._suspected |= dict.fromkeys(new, moment)

    async def _clear_heard(self) -> None:
        """Those that were heard again since they fell silent are cleared, unless the controller did already."""
        heard = [x for x, since in self._suspected.items() if self._accounts.heard_since(x, since)]
        if heard:
            await self._store.transact(lambda tx: health.clear_suspicion(tx, heard))
            for amphora_id in heard:
                self._suspected.pop(amphora_id, None)  # the fleet may have been read meanwhile
