"""Keep in memory what the amphorae said last, and say what of it must be written. No I/O and no clock of its own.

One owner: the health loop. Replayed and unknown heartbeats stop here. Next: loop.py, which writes."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

import msgspec

from frontinus.health.memory import LONGEST_AGO, Heard
from frontinus.model.heartbeat import Counters, Heartbeat, ListenerReport, ListenerTraffic, join
from frontinus.model.ids import AmphoraId, ListenerId


class Accounts:
    """What was heard of each amphora. Times are seconds of a monotonic clock, passed in."""

    def __init__(self) -> None:
        self._latest: dict[AmphoraId, Heartbeat] = {}
        self._parts: dict[AmphoraId, dict[int, Heartbeat]] = {}  # of one message each, not whole yet
        self._heard: dict[AmphoraId, float] = {}
        self._watched_since: dict[AmphoraId, float] = {}
        self._weighed: dict[AmphoraId, float] = {}  # in the order of their times
        self._to_weigh: set[AmphoraId] = set()
        self._counters: dict[tuple[ListenerId, AmphoraId], ListenerTraffic] = {}
        self._fresh: set[AmphoraId] = set()
        self._told_incomplete: dict[AmphoraId, float] = {}  # when `take_incomplete` last gave it
        self._orders: dict[AmphoraId, tuple[int, int]] = {}  # of the last whole message, here or elsewhere
        self._paces: dict[AmphoraId, float] = {}
        self._plain: frozenset[AmphoraId] = frozenset()

    def hear(self, heartbeat: Heartbeat, now: float) -> str | None:
        """Take a verified heartbeat in. Why it is refused, and changes nothing; None for one that is taken.

        Octavia's plain format has neither boot nor sequence and cannot be told from a replay: it is taken only from
        amphorae that are marked as knowing no other."""
        amphora_id = heartbeat.amphora_id
        before = self._latest.get(amphora_id)
        boot, sequence = heartbeat.boot, heartbeat.sequence
        last = self._orders.get(amphora_id)
        beats = 1  # since the one before; 0: that tells no pace
        if boot is None or sequence is None:
            if amphora_id not in self._plain:
                return NOT_PLAIN
        elif last is not None:
            if (boot, sequence) <= last:
                return REPLAYED
            beats = sequence - last[1] if boot == last[0] else 0
        if heartbeat.parts > 1 and not self._is_new_part(heartbeat):
            return REPLAYED
        heard_before = self._heard.get(amphora_id)
        if beats and heard_before is not None and now - heard_before < FORGET_AFTER_S:
            pace, known = (now - heard_before) / beats, self._paces.get(amphora_id, 0.0) * PACE_KEPT
            self._paces[amphora_id] = max(known, pace)
        self._heard[amphora_id] = now
        self._fresh.add(amphora_id)
        if heartbeat.parts > 1:
            # Each part is a sign of life, but only all of them together say how things stand.
            parts = self._parts[amphora_id]
            parts[heartbeat.part] = heartbeat
            if len(parts) < heartbeat.parts:
                return None
            heartbeat = join(self._parts.pop(amphora_id).values())
        if boot is not None and sequence is not None:
            self._orders[amphora_id] = (boot, sequence)
        self._latest[amphora_id] = heartbeat
        if before is None or _says_something_else(heartbeat, before):
            self._to_weigh.add(amphora_id)
        for listener_id, report in heartbeat.listeners.items():
            self._count(ListenerId(listener_id), report, heartbeat, before)
        return None

    def knows(self, amphora_id: AmphoraId) -> bool:
        """Whether it is watched, or was heard lately."""
        return amphora_id in self._watched_since or amphora_id in self._heard

    def hear_of(self, heard: Iterable[Heard], now: float) -> None:
        """Take in what another receiver heard: a sign of life, what is a replay from now on, and the pace of whom nobody has
        heard twice here."""
        for amphora_id, boot, sequence, ago, pace in heard:
            if pace:
                self._paces.setdefault(amphora_id, pace)
            if ago < LONGEST_AGO:
                self._heard[amphora_id] = max(now - ago, self._heard.get(amphora_id, now - ago))
            if boot and (boot, sequence) > self._orders.get(amphora_id, NEVER):
                self._orders[amphora_id] = (boot, sequence)

    def tell(self, now: float) -> list[Heard]:
        """What was heard of the watched amphorae, here or elsewhere."""
        return [
            Heard(
                x,
                *self._orders.get(x, NEVER),
                ago=now - self._heard[x] if x in self._heard else LONGEST_AGO,
                pace=self._paces.get(x, 0.0),
            )
            for x in self._watched_since
            if x in self._heard or x in self._orders
        ]

    def begin_grace(self, now: float) -> None:
        """Silence before this moment does not count."""
        self._watched_since = dict.fromkeys(self._watched_since, now)

    def deadlines(self, paces: float, least: float, most: float) -> dict[AmphoraId, float]:
        """For each watched amphora whose own pace asks for more than `least`: so many paces, `most` at most. Agents of
        Octavia beat every ten seconds or as somebody has set them to: until two beats have told, `most`."""
        slow = least / paces
        own = {
            x: min(paces * pace, most) for x, pace in self._paces.items() if pace > slow and x in self._watched_since
        }
        return own | {x: most for x in self._plain if x not in self._paces and x in self._watched_since}

    def watch(self, amphorae: Iterable[AmphoraId], now: float, plain: Iterable[AmphoraId] = ()) -> None:
        """Replace the list of amphorae to watch; forget what is not on it. Of those that are `plain` Octavia's datagrams
        are taken."""
        wanted = frozenset(amphorae)
        self._plain = frozenset(plain)
        self._watched_since = {x: self._watched_since.get(x, now) for x in wanted}
        for memory in (self._latest, self._parts, self._weighed, self._orders, self._paces, self._heard):
            for amphora_id in [x for x in memory if x not in wanted and now - self._heard.get(x, 0.0) > FORGET_AFTER_S]:
                memory.pop(amphora_id)

    def last_heard(self) -> dict[AmphoraId, float]:
        """For each watched amphora when it was last heard, or since when it is watched if that is later."""
        return {x: max(since, self._heard.get(x, since)) for x, since in self._watched_since.items()}

    def spokesman(self, amphorae: Iterable[AmphoraId]) -> Heartbeat | None:
        """What is said by the one of these amphorae that serves: of a pair, who has the VIP; of several, who was heard last."""
        latest = [x for amphora_id in amphorae if (x := self._latest.get(amphora_id)) is not None]
        return max(latest, key=lambda x: (x.active is not False, self._heard.get(x.amphora_id, 0.0)), default=None)

    def heard_since(self, amphora_id: AmphoraId, moment: float) -> bool:
        return self._heard.get(amphora_id, -1.0) >= moment

    def take_to_weigh(self, now: float) -> list[Heartbeat]:
        """The heartbeats whose statuses must be compared with the tree, because they or it changed."""
        due = [x for x in self._to_weigh if x in self._latest]
        self._to_weigh.clear()
        return self._weigh(due, now)

    def take_long_unweighed(self, now: float, refresh: float, most: int) -> list[Heartbeat]:
        """So many at most of those whose statuses have not been compared for `refresh` seconds, the longest first."""
        due: list[AmphoraId] = []
        for amphora_id, weighed in self._weighed.items():
            if len(due) >= most or now - weighed < refresh:
                break
            if amphora_id in self._watched_since and amphora_id in self._latest:
                due.append(amphora_id)
        return self._weigh(due, now)

    def _weigh(self, amphorae: list[AmphoraId], now: float) -> list[Heartbeat]:
        for amphora_id in amphorae:
            self._weighed.pop(amphora_id, None)
            self._weighed[amphora_id] = now
        return [self._latest[x] for x in amphorae]

    def weigh_again(self, amphorae: Iterable[AmphoraId]) -> None:
        """What was taken could not be written; have it taken again."""
        self._to_weigh |= set(amphorae)

    def take_counters(self, most: int) -> list[ListenerTraffic]:
        """So many at most of the counters that changed since they were taken, those first that changed first."""
        keys = list(islice(self._counters, most))
        return [self._counters.pop(key) for key in keys]

    def restore_counters(self, rows: Iterable[ListenerTraffic]) -> None:
        """What was taken could not be written; keep it, unless something newer came (increments are added up)."""
        for row in rows:
            key = (row.listener_id, row.amphora_id)
            newer = self._counters.get(key)
            if newer is None:
                self._counters[key] = row
            elif row.incremental:
                self._counters[key] = _added(row, newer)

    def take_fresh(self) -> frozenset[AmphoraId]:
        """Who was heard since the last call."""
        fresh = frozenset(self._fresh)
        self._fresh.clear()
        return fresh

    def take_incomplete(self, now: float, again: float) -> list[Heartbeat]:
        """The heartbeats of watched amphorae that miss files, or everything, each at most once in `again` seconds while that
        lasts. Who has just begun to serve had nothing a moment ago, and may have said so."""
        missing = {
            x: y
            for x, y in self._latest.items()
            if x in self._watched_since
            and (y.incomplete or (y.empty and self._heard[x] - self._watched_since[x] >= EMPTY_BEFORE_S))
        }
        self._told_incomplete = {x: told for x, told in self._told_incomplete.items() if x in missing}
        due = [x for x in missing if now - self._told_incomplete.get(x, now - again) >= again]
        self._told_incomplete |= dict.fromkeys(due, now)
        return [missing[x] for x in due]

    def take_incomplete_again(self, amphorae: Iterable[AmphoraId]) -> None:
        """What was taken could not be written; have it taken again."""
        for amphora_id in amphorae:
            self._told_incomplete.pop(amphora_id, None)

    def _is_new_part(self, heartbeat: Heartbeat) -> bool:
        """Whether this part belongs to the message that is being joined, or begins a later one, which then replaces it."""
        waiting = self._parts.get(heartbeat.amphora_id)
        if waiting:
            one = next(iter(waiting.values()))
            if _order(heartbeat) == _order(one):
                return heartbeat.parts == one.parts and heartbeat.part not in waiting
            if _is_overtaken(heartbeat, one):
                return False
        self._parts[heartbeat.amphora_id] = {}
        return True

    def _count(
        self, listener_id: ListenerId, report: ListenerReport, heartbeat: Heartbeat, before: Heartbeat | None
    ) -> None:
        row = ListenerTraffic(
            listener_id=listener_id,
            amphora_id=heartbeat.amphora_id,
            counters=report.counters,
            incremental=heartbeat.incremental,
            since=report.since,
        )
        key = (listener_id, heartbeat.amphora_id)
        if heartbeat.incremental:
            waiting = self._counters.get(key)
            self._counters[key] = row if waiting is None else _added(waiting, row)
            return
        last = None if before is None else before.listeners.get(listener_id)
        if last is None or (last.counters, last.since) != (report.counters, report.since):
            self._counters[key] = row


REPLAYED = "replayed or overtaken"
UNKNOWN_IN_A_CROWD = "of no known amphora, while more come than can be verified"
NOT_PLAIN = "plain, of an amphora that is not marked as speaking it"
"""Why a heartbeat is refused that is signed well, or not looked at."""

NEVER = (0, 0)
PACE_KEPT = 0.9
"""What is left of the longest pace with each beat that comes sooner."""

EMPTY_BEFORE_S = 1.0
"""What is heard so long after an amphora came onto the list was said after its first push."""

FORGET_AFTER_S = 60.0
"""How long an amphora that is not watched is remembered: it beats before its row says ALLOCATED, and its replay
window must outlive a moment's absence from the list."""


def _is_overtaken(heartbeat: Heartbeat, before: Heartbeat) -> bool:
    order, order_before = _order(heartbeat), _order(before)
    return order is not None and order_before is not None and order <= order_before


def _order(heartbeat: Heartbeat) -> tuple[int, int] | None:
    if heartbeat.boot is None or heartbeat.sequence is None:
        return None
    return heartbeat.boot, heartbeat.sequence


def _says_something_else(heartbeat: Heartbeat, before: Heartbeat) -> bool:
    return (heartbeat.pools, heartbeat.active) != (before.pools, before.active) or {
        k: v.status for k, v in heartbeat.listeners.items()
    } != {k: v.status for k, v in before.listeners.items()}


def _added(one: ListenerTraffic, later: ListenerTraffic) -> ListenerTraffic:
    return msgspec.structs.replace(
        later,
        counters=Counters(
            bytes_in=one.counters.bytes_in + later.counters.bytes_in,
            bytes_out=one.counters.bytes_out + later.counters.bytes_out,
            active_connections=later.counters.active_connections,
            total_connections=one.counters.total_connections + later.counters.total_connections,
            request_errors=one.counters.request_errors + later.counters.request_errors,
        ),
    )
