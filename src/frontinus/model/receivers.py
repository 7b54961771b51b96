"""A receiver of heartbeats, as the others and the controllers know it."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from frontinus.model.ids import ReceiverId

ALIVE_FOR = timedelta(seconds=10)
"""A receiver that has not written for longer is not there."""


class Receiver(msgspec.Struct, frozen=True, kw_only=True):
    """One receiver. `silent` of those that it watches are past their deadline; `braked`: it believes none of them.
    `turn` tells one `heard` from the next."""

    id: ReceiverId
    host: str
    port: int
    started_at: datetime
    seen_at: datetime
    watched: int = 0
    silent: int = 0
    braked: bool = False
    turn: int = 0

    def is_alive(self, now: datetime) -> bool:
        return abs(now - self.seen_at) < ALIVE_FOR
