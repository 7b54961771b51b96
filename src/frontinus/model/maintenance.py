"""Maintenance marks: under one, nothing is replaced, whatever falls silent. Configurations are pushed all the same."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum

import msgspec

from frontinus.model.ids import AmphoraId, LoadBalancerId


class MarkScope(StrEnum):
    """What a mark is put on."""

    AMPHORA = "amphora"
    LOAD_BALANCER = "load_balancer"
    HOST = "host"
    """Every amphora on this machine, as compute names it (`amphora.host`)."""
    INSTALLATION = "installation"


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """`target` is an id or a host's name, empty for the installation. It holds until `until`, or until it is taken off."""

    scope: MarkScope
    target: str
    reason: str
    created_at: datetime
    until: datetime | None = None

    def holds(self, now: datetime) -> bool:
        return self.until is None or now < self.until

    def in_words(self) -> str:
        """As in `host compute-7 (new memory), until 2026-11-27T03:00:00+00:00`."""
        on = self.scope.replace("_", " ") if not self.target else f"{self.scope.replace('_', ' ')} {self.target}"
        end = "" if self.until is None else f", until {self.until.isoformat(timespec='seconds')}"
        return f"{on} ({self.reason}){end}"


def mark_on(
    amphora_id: AmphoraId, load_balancer_id: LoadBalancerId, host: str | None, marks: Iterable[Mark], now: datetime
) -> Mark | None:
    """The first mark that holds now and covers this amphora, which is of this load balancer and on this host."""
    names = {
        MarkScope.AMPHORA: amphora_id,
        MarkScope.LOAD_BALANCER: load_balancer_id,
        MarkScope.HOST: host,
        MarkScope.INSTALLATION: "",
    }
    return next((x for x in marks if x.holds(now) and names[x.scope] == x.target), None)
