"""Heartbeat keys of amphorae, kept as long as they are of use; and envelopes decoded with them.

Only keys that have verified something are kept: whoever sends envelopes in names that he makes up fills no memory, and
displaces nobody. While the authority changes, keys of both sides are good. Next: heartbeat.py, authority.py."""

from __future__ import annotations

from datetime import datetime, timedelta

from frontinus.drivers.amphora.agent.authority import Authority, heartbeat_key
from frontinus.drivers.amphora.agent.heartbeat import decode_envelope
from frontinus.model.heartbeat import Heartbeat
from frontinus.model.ids import AmphoraId

LOOK_EVERY = timedelta(seconds=1)
"""How soon a change of the authority is seen here: looking is half a dozen system calls, too many for each datagram."""


class HeartbeatKeys:
    """One owner: whoever receives."""

    def __init__(self, authority: Authority) -> None:
        self._authority = authority
        self._masters = authority.heartbeat_masters
        self._good: dict[AmphoraId, tuple[bytes, ...]] = {}
        self._looked_at: datetime | None = None

    def decode(self, datagram: bytes, now: datetime) -> Heartbeat:
        """An envelope of ours. Raises Refused."""
        if self._looked_at is None or not -LOOK_EVERY < now - self._looked_at < LOOK_EVERY:
            self._look(now)
        heard = decode_envelope(datagram, self._keys_of)
        if heard.amphora_id not in self._good:
            self._good[heard.amphora_id] = self._derive(heard.amphora_id)
        return heard

    def _keys_of(self, amphora_id: AmphoraId) -> tuple[bytes, ...]:
        return self._good.get(amphora_id) or self._derive(amphora_id)

    def _derive(self, amphora_id: AmphoraId) -> tuple[bytes, ...]:
        return tuple(heartbeat_key(master, amphora_id).encode() for master in self._masters)

    def _look(self, now: datetime) -> None:
        self._looked_at = now
        masters = self._authority.heartbeat_masters
        if masters != self._masters or len(self._good) > MOST_KEPT:
            self._masters, self._good = masters, {}


MOST_KEPT = 100_000
"""Amphorae that once were and are no more are forgotten with all the others when there are so many."""
