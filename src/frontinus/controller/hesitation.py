"""How long to wait between a wake-up and the look for work that it causes. Pure but for the dice.

Every controller hears every wake-up and one of them gets the work: with a hundred controllers, each edit would cost a
hundred looks. So whoever looks in vain hesitates longer the next time, and whoever finds something does not: a few serve
what is little, and the more there is, the more join. Whoever hesitates does so for a random time, so of many that wait one
is soon there; and work that nobody took for long is found by the poll. Next: claims.py, previewer.py."""

from __future__ import annotations

import random
from datetime import timedelta

EACH = timedelta(milliseconds=10)
"""A pause is at most so long for each other controller: of many that wait for a random time one is there within this. One
that is alone never hesitates."""


class Hesitation:
    """Of one loop, which is its owner."""

    def __init__(self, first: timedelta, longest: timedelta) -> None:
        """`first` is the longest pause after the first look in vain; it doubles with each further one, up to `longest`."""
        self._first = first.total_seconds()
        self._longest = longest.total_seconds()
        self._now = 0.0
        self._others = 0

    def among(self, controllers: int) -> None:
        """So many hear the same wake-ups, this one included."""
        self._others = max(controllers - 1, 0)

    def found(self, *, anything: bool) -> None:
        """What came of a look that a wake-up caused."""
        self._now = 0.0 if anything else min(max(2 * self._now, self._first), self._longest)

    def pause(self) -> float:
        """Seconds to wait before the next one."""
        return random.uniform(0.0, min(self._now, self._others * EACH.total_seconds()))
