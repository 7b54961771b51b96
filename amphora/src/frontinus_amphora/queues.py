"""Does nginx hang? It can be asked nothing, but what comes for it waits in the kernel's queues, and a living worker empties
them, always: at its limits too it takes what comes, and throws it away.

So it hangs when something waits that does not become less, look after look. Nothing waiting says nothing: one that hangs
with no client is found when the first one comes. Pure, but for the clock that callers pass. Next: nginx.py.
"""

from collections.abc import Hashable, Mapping

PAUSE = 0.5  # seconds between looks
FEWEST_LOOKS = 3  # an agent that was stopped itself finds much time gone and one look


class QueueWatch:
    """`due` is when to look next, None while there is no doubt."""

    def __init__(self, patience: float) -> None:
        """`patience`: seconds without movement, from the first look, after which it counts as hung."""
        self._patience = patience
        self._waited: dict[Hashable, int] = {}  # by queue, what has waited since the doubt began
        self._looks = 0
        self._since = 0.0
        self.due: float | None = None

    def trust(self) -> None:
        """It is another process now, or there is none."""
        self._waited = {}
        self._looks = 0
        self.due = None

    def look(self, waiting: Mapping[Hashable, int], now: float) -> bool:
        """What waits now, by queue; True when it hangs beyond doubt."""
        stuck = {
            queue: amount
            for queue, amount in waiting.items()
            if amount and (self._looks == 0 or 0 < self._waited.get(queue, 0) <= amount)
        }
        if not stuck:
            self.trust()
            return False
        if self._looks == 0:
            self._since = now
        self._waited = stuck
        self._looks += 1
        self.due = now + PAUSE
        return self._looks >= FEWEST_LOOKS and now - self._since >= self._patience
