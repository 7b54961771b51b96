"""The time of a machine that is the amphora's own, as its controllers tell it with each request.

Nothing else keeps it: a machine that was suspended, or whose host was, goes on with the time of then, and judges certificates of
tenants and members by it. What a controller says was true when it began to ask, so it is never ahead of the time: whoever is
behind it is late, and whoever is ahead of it by less than a request may take perhaps is not. Header: agent-extension.md.
"""

import threading
import time
from collections.abc import Callable

from frontinus_amphora.log import log

BEHIND = 2.0  # seconds; two controllers may differ by less
AHEAD = 60.0  # more than any request of a controller may take until it is read
SANE = (1.7e9, 4e9)  # from 2023 to 2096


def step(told: str, now: float) -> float | None:
    """The time to set the clock to that shows `now`; None: it is well, or nothing sensible was told. Pure."""
    try:
        then = float(told)
    except ValueError:
        return None
    if not SANE[0] < then < SANE[1]:
        return None
    return then if then - now > BEHIND or now - then > AHEAD else None


class Clock:
    """Any thread may call. `changed` is called after each step, by whoever told the time."""

    def __init__(
        self,
        changed: Callable[[], None],
        read: Callable[[], float] = time.time,
        write: Callable[[float], None] = lambda to: time.clock_settime(time.CLOCK_REALTIME, to),
    ) -> None:
        self._changed = changed
        self._read = read
        self._write = write
        self._lock = threading.Lock()

    def heed(self, told: str) -> None:
        with self._lock:
            now = self._read()
            to = step(told, now)
            if to is None:
                return
            try:
                self._write(to)
            except OSError as error:
                log("clock not set", off=round(to - now, 3), error=error.strerror)
                return
            log("clock set", off=round(to - now, 3))
        self._changed()
