"""Listen, weigh, write, judge. Owns the pace of health; every decision is in liveness.py, accounts.py and model/.

What cannot be written now is kept and written later; a store that is away delays statuses and loses nothing that an
amphora will not say again."""

from __future__ import annotations

import asyncio
import math
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterable, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import structlog
from msgspec.structs import replace
from prometheus_client import Counter

from frontinus.drivers.amphora.interface import AmphoraDriver, Refused
from frontinus.health import memory
from frontinus.health.accounts import UNKNOWN_IN_A_CROWD, Accounts
from frontinus.health.liveness import Judgement, WakingClock, judge
from frontinus.health.memory import LONGEST_AGO
from frontinus.health.metrics import HealthMetrics
from frontinus.health.receiver import Receiver
from frontinus.health.settings import HealthSettings
from frontinus.model.enums import Kind, OperatingStatus
from frontinus.model.heartbeat import Heartbeat
from frontinus.model.ids import AmphoraId, LoadBalancerId, ReceiverId, new_id
from frontinus.model.maintenance import mark_on
from frontinus.model.operating_status import changed_checks, changed_statuses, observed_statuses
from frontinus.model.receivers import Receiver as ReceiverRow
from frontinus.model.tree import LastCheck, LoadBalancerTree
from frontinus.store import health, maintenance, receivers, trees
from frontinus.store.engine import Store, Transaction

log = structlog.get_logger()

LOOKS_MISSED = 2
"""A pause between two checks counts as this many check intervals at most; what is longer was no time to hear anything."""


ALONE_SHARES_EVERY_S = 2.0
"""How often a receiver without others says that it is there, and looks whether others came."""

WEIGHED_AT_ONCE = 32
COUNTERS_AT_ONCE = 2_048
"""Load balancers, and listeners' counters, that are read and written in one go: about 20 ms of SQLite, since the kernel may
have room for the datagrams of a tenth of a second only.

What nobody waits for is one go in a turn, however large the fleet is: counters, and statuses that are weighed anew although
nothing changed. So the database has no more statements to carry out for 10,000 amphorae than for 1,000, and of very many
it only hears later."""

REFRESH_TURN = timedelta(seconds=1)

NAMED_AT_MOST = 20
"""So many amphorae are named in one line of the log."""

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
        self._excused: frozenset[AmphoraId] = frozenset()
        self._has_peers = False
        self._shares = 0
        self._remembered_at = self._awake()
        self._amphorae_of: dict[LoadBalancerId, list[AmphoraId]] = defaultdict(list)
        self._fleet: Mapping[AmphoraId, health.FleetMember] = {}
        self._suspected: dict[AmphoraId, float] = {}
        self._judgement = Judgement(silent=frozenset(), braked=False)
        self._fleet_read_at = self._awake()
        self._peers: dict[ReceiverId, int] = {}  # the turn of each that was read last
        self._me = ReceiverRow(
            id=ReceiverId(new_id()), host=socket.gethostname(), port=0, started_at=now(), seen_at=now()
        )
        self._overflowed_at = -math.inf
        self._refusals: dict[str, int] = defaultdict(int)
        self._refused: dict[str, Counter] = {}
        self.receiver = Receiver(settings, self.take, driver.heartbeat_prefixes)

    async def run(self) -> None:
        """Work until cancelled."""
        settings = self._settings
        self._me = replace(self._me, port=self.receiver.port)
        while not await self._recalls():  # noqa: ASYNC110 - the store, not a task of ours, says when
            await asyncio.sleep(settings.check_interval.total_seconds())
        await self._every(timedelta(0), self._read_fleet, once=True)
        self.receiver.start()
        turns: list[tuple[timedelta, Callable[[], Coroutine[Any, Any, None]]]] = [
            (settings.fleet_interval, self._read_fleet),
            (settings.flush_interval, self._write_statuses),
            (REFRESH_TURN, self._refresh_statuses),
            (settings.flush_interval, self._ask_for_pushes),
            (settings.statistics_interval, self._write_statistics),
            (settings.seen_interval, self._write_seen),
            (settings.share_interval, self._share),
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

    def take(self, datagram: memoryview) -> None:
        """Take one datagram in: verify, decode, account. What is refused is counted by its reason."""
        content = bytes(datagram)
        if self.receiver.is_crowded:
            sender = self._driver.claimed_sender(content)
            if sender is not None and not self._accounts.knows(sender):
                self._refuse(UNKNOWN_IN_A_CROWD)
                return
        try:
            heartbeat = self._driver.decode(content, self._now())
        except Refused as refused:
            self._refuse(refused.reason)
            return
        refusal = self._accounts.hear(heartbeat, self._awake())
        if refusal is None:
            self._metrics.accepted.inc()
        else:
            self._refuse(refusal)

    def _refuse(self, reason: str) -> None:
        self._refusals[reason] += 1
        counter = self._refused.get(reason)
        if counter is None:  # finding it costs more than all the rest
            counter = self._refused[reason] = self._metrics.refused.labels(reason)
        counter.inc()

    async def _report_refusals(self) -> None:
        """One line per reason and turn, whatever the number of datagrams: garbage must not fill the log."""
        refusals, self._refusals = self._refusals, defaultdict(int)
        for reason, count in refusals.items():
            log.warning("heartbeats refused", reason=reason, count=count)

    async def _recalls(self) -> bool:
        """Whether what was heard before is known, so that a replay of it is refused: until then nothing is listened to."""
        try:
            for peer in await self._store.read(receivers.all_receivers):
                heard = await self._store.read(partial(receivers.heard_by, receiver_id=peer.id))
                # How long ago is told by clocks that may differ; what is a sign of life will be said again.
                self._accounts.hear_of((x._replace(ago=LONGEST_AGO) for x in memory.read(heard)), self._awake())
                self._peers[peer.id] = peer.turn
        except Exception:  # as every turn: it is tried again
            log.exception("what was heard before cannot be read; heartbeats wait")
            return False
        return True

    async def _share(self) -> None:
        """Say that this receiver is there, and how things stand with it; learn the same of the others, and what they heard.

        What was heard here is written when the last-seen times are, and at each turn while others are there."""
        ticks, seldom = (
            self._shares,
            max(1, round(ALONE_SHARES_EVERY_S / self._settings.share_interval.total_seconds())),
        )
        self._shares += 1
        if ticks % seldom and not self._has_peers and self._judgement.braked == self._me.braked:
            return
        now = self._now()
        self._me = replace(
            self._me,
            seen_at=now,
            watched=len(self._fleet),
            silent=self._judgement.counted,
            braked=self._judgement.braked,
            turn=self._me.turn + 1,
        )
        me, moment = self._me, self._awake()
        due = moment - self._remembered_at >= self._settings.seen_interval.total_seconds()
        heard = memory.write(self._accounts.tell(moment)) if due or self._has_peers else None
        if due:
            self._remembered_at = moment

        def exchange(tx: Transaction) -> list[ReceiverRow]:
            receivers.tell(tx, me)
            if heard is not None:
                receivers.remember(tx, me, heard)
            if due:
                receivers.forget_silent(tx, me.id, now)
            return receivers.all_receivers(tx)

        others = [x for x in await self._store.transact(exchange) if x.id != me.id]
        for peer in others:
            if self._peers.get(peer.id) != peer.turn:
                told = await self._store.read(partial(receivers.heard_by, receiver_id=peer.id))
                self._accounts.hear_of(memory.read(told), self._awake())
        self._peers = {x.id: x.turn for x in others}
        self._has_peers = any(x.is_alive(now) for x in others)

    async def _read_fleet(self) -> None:
        marks, members = await self._store.read(lambda tx: (maintenance.marks(tx), health.fleet(tx)))
        before, self._fleet = self._fleet, {x.amphora_id: x for x in members}
        self._amphorae_of = defaultdict(list)
        for member in members:
            self._amphorae_of[member.load_balancer_id].append(member.amphora_id)
        now = self._now()
        self._excused = (
            frozenset(
                x.amphora_id
                for x in members
                if mark_on(x.amphora_id, x.load_balancer_id, x.host, marks, now) is not None
            )
            if marks
            else frozenset()
        )
        moment = self._awake()
        self._accounts.watch(self._fleet, moment, (x.amphora_id for x in members if x.speaks_plain))
        if moment - self._fleet_read_at > self._settings.silence_deadline.total_seconds():
            # The store was away: what others heard, and who is meant to be heard, was not known meanwhile.
            self._accounts.begin_grace(moment)
        self._fleet_read_at = moment
        self._accounts.weigh_again(x.amphora_id for x in members if _is_edited(x, before.get(x.amphora_id)))
        self._suspected = {x: t for x, t in self._suspected.items() if x in self._fleet}
        self._metrics.watched.set(len(members))
        self._metrics.suspected.set(sum(x.suspected_at is not None for x in members))

    async def _write_statuses(self) -> None:
        await self._weigh_all(self._accounts.take_to_weigh(self._awake()))

    async def _refresh_statuses(self) -> None:
        refresh = self._settings.refresh_interval.total_seconds()
        await self._weigh_all(self._accounts.take_long_unweighed(self._awake(), refresh, WEIGHED_AT_ONCE))

    async def _weigh_all(self, heartbeats: list[Heartbeat]) -> None:
        of_load_balancer = {self._fleet[x].load_balancer_id: y for x, y in self._spokesmen(heartbeats).items()}
        unknown = [x.amphora_id for x in heartbeats if x.amphora_id not in self._fleet]
        self._accounts.weigh_again(unknown)
        left = list(of_load_balancer.items())
        try:
            while left:
                await self._weigh(dict(left[:WEIGHED_AT_ONCE]))
                del left[:WEIGHED_AT_ONCE]
                await asyncio.sleep(0)
        except Exception:  # whatever it was: what was taken is given back, and the turn fails as it would have
            self._accounts.weigh_again(x.amphora_id for _, x in left)
            raise

    async def _weigh(self, of_load_balancer: Mapping[LoadBalancerId, Heartbeat]) -> None:
        """Write which statuses differ from what these say."""
        found = await self._store.read(lambda tx: _readable(tx, of_load_balancer))
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

    def _spokesmen(self, heartbeats: Iterable[Heartbeat]) -> dict[AmphoraId, Heartbeat]:
        """Who is believed about the load balancers that these are of: whatever the standby says, the one that serves."""
        ids = {self._fleet[x.amphora_id].load_balancer_id for x in heartbeats if x.amphora_id in self._fleet}
        spoken = (self._accounts.spokesman(self._amphorae_of[x]) for x in ids)
        return {x.amphora_id: x for x in spoken if x is not None}

    async def _ask_for_pushes(self) -> None:
        """Amphorae that have lost files, or all they had (a machine that started anew), get their configuration anew. Asked
        for again while it goes on: the first time the secret store may have been out of reach."""
        heard = self._accounts.take_incomplete(self._awake(), PUSH_AGAIN_AFTER_S)
        if not heard:
            return
        members = [self._fleet[x.amphora_id] for x in heard if x.amphora_id in self._fleet]
        said = {x.amphora_id: x for x in heard}
        empty = {x.load_balancer_id for x in members if said[x.amphora_id].empty}
        bereft = await self._store.read(partial(_with_listeners, load_balancer_ids=empty)) if empty else empty
        lost = [
            x.amphora_id
            for x in members
            if x.load_balancer_id in bereft or x.load_balancer_id in said[x.amphora_id].incomplete
        ]
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
        rows = self._accounts.take_counters(COUNTERS_AT_ONCE)
        if not rows:
            return
        try:
            await self._store.transact(partial(health.write_statistics, told=rows))
        except Exception:  # as above
            self._accounts.restore_counters(rows)
            raise

    async def _write_seen(self) -> None:
        fresh = [x for x in self._accounts.take_fresh() if x in self._fleet]
        if fresh:
            now = self._now()
            await self._store.transact(lambda tx: health.write_seen(tx, fresh, now))

    async def _suspect_silent(self) -> None:
        moment = self._awake()
        again = self._settings.suspect_again_after.total_seconds()
        settings = self._settings
        last_heard = self._accounts.last_heard()
        for excused in self._excused:  # who is under maintenance may be silent, and tells nothing about our hearing
            last_heard.pop(excused, None)
        judgement = judge(
            last_heard,
            moment,
            settings,
            own_deadlines=self._accounts.deadlines(
                settings.paces_missed,
                settings.silence_deadline.total_seconds(),
                settings.longest_deadline.total_seconds(),
            ),
            lag=2 * settings.share_interval.total_seconds() if self._has_peers else 0.0,
            at_least=settings.longest_deadline.total_seconds() if self._is_flooded(moment) else 0.0,
        )
        before, self._judgement = self._judgement, judgement
        if judgement.braked != before.braked:
            self._metrics.braked.set(judgement.braked)
            log.warning(
                "too many amphorae are silent at once: nobody is suspected" if judgement.braked else "brake released",
                silent=judgement.counted,
                watched=len(self._fleet),
            )
            await self._share()
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
            log.warning("amphorae are silent", count=len(new), amphorae=new[:NAMED_AT_MOST])
            self._metrics.suspicions.inc(len(new))
            now = self._now()
            await self._store.transact(lambda tx: health.suspect(tx, new, now))
            self._suspected |= dict.fromkeys(new, moment)

    def _is_flooded(self, moment: float) -> bool:
        """Whether so much comes that the kernel drops datagrams unheard, or did so lately: then many heartbeats of an amphora
        may be missing that is well, but hardly all of a minute."""
        deadline = self._settings.silence_deadline.total_seconds()
        before = moment - self._overflowed_at <= deadline
        if self.receiver.has_overflowed():
            self._overflowed_at = moment
            if not before:
                log.warning("more datagrams come than can be taken: an amphora may be silent for longer")
        return moment - self._overflowed_at <= deadline

    async def _clear_heard(self) -> None:
        """Those that were heard again since they fell silent are cleared, unless the controller did already."""
        heard = [x for x, since in self._suspected.items() if self._accounts.heard_since(x, since)]
        if heard:
            await self._store.transact(lambda tx: health.clear_suspicion(tx, heard))
            for amphora_id in heard:
                self._suspected.pop(amphora_id, None)  # the fleet may have been read meanwhile


def _readable(tx: Transaction, load_balancer_ids: Iterable[LoadBalancerId]) -> dict[LoadBalancerId, LoadBalancerTree]:
    """Those that can be understood. Of the others the controllers tell; nothing that is heard of them can be told."""
    return trees.read_trees(tx, tuple(load_balancer_ids), unreadable={})


def _with_listeners(tx: Transaction, load_balancer_ids: Iterable[LoadBalancerId]) -> set[LoadBalancerId]:
    """Those of these of which something was to be configured in an amphora, and nothing is under way."""
    found = _readable(tx, load_balancer_ids)
    return {
        load_balancer_id
        for load_balancer_id, tree in found.items()
        if tree.load_balancer.admin_state_up
        and tree.load_balancer.applied_generation == tree.load_balancer.generation
        and any(x.admin_state_up for x in tree.listeners)
    }


def _is_edited(member: health.FleetMember, before: health.FleetMember | None) -> bool:
    """Whether its tree may be another than when this member was read before."""
    return before is not None and (member.generation, member.applied_generation) != (
        before.generation,
        before.applied_generation,
    )
