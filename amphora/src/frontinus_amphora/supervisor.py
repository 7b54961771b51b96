"""The thread that sees at once when a balancer or keepalived dies or speaks, and does what falls due.

It sleeps in poll() on descriptors that the services give it; it decides nothing itself. Next: load_balancer.py.
"""

import contextlib
import os
import select
import threading
import time
from collections.abc import Callable, Iterable
from typing import Protocol

from frontinus_amphora.log import log

EVENTS = select.POLLIN | select.POLLERR | select.POLLHUP


class Watched(Protocol):
    """What runs processes: a load balancer, or keepalived."""

    def descriptors(self) -> dict[int, str]: ...

    def heard(self) -> str: ...

    def notice_death(self) -> None: ...

    def attend(self) -> float | None: ...


class Supervisor:
    """`wake` may be called from any thread; all else belongs to the supervisor's own."""

    def __init__(self, watched: Callable[[], Iterable[Watched]], heard: Callable[[], None]) -> None:
        """`heard` is told when a haproxy printed something: a server may have changed state."""
        self._watched = watched
        self._heard = heard
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping = True
        self.wake()
        self._thread.join(2.0)

    def wake(self) -> None:
        """Look again: something to watch appeared or fell due."""
        with contextlib.suppress(BlockingIOError):  # then it will wake already
            os.write(self._writer, b"x")

    def _run(self) -> None:
        due: float | None = 0.0  # something may have fallen due before this thread was
        while not self._stopping:
            try:
                due = self._turn(due)
            except Exception as error:  # noqa: BLE001 - watching must go on; the next turn sees the world afresh
                log("supervisor failed", error=repr(error))
                due = time.monotonic() + 1.0

    def _turn(self, due: float | None) -> float | None:
        poll = select.poll()
        poll.register(self._reader, EVENTS)
        owners: dict[int, tuple[Watched, str]] = {}
        for each in self._watched():
            for descriptor, meaning in each.descriptors().items():
                poll.register(descriptor, EVENTS)
                owners[descriptor] = (each, meaning)
        timeout = None if due is None else max(0.0, due - time.monotonic()) * 1000
        for descriptor, _event in poll.poll(timeout):
            if descriptor == self._reader:
                os.read(self._reader, 4096)
                continue
            owner, meaning = owners[descriptor]
            if meaning == "death":
                owner.notice_death()
            elif owner.heard():
                self._heard()
        dues = [_attended(each) for each in self._watched()]
        return min((moment for moment in dues if moment is not None), default=None)


def _attended(each: Watched) -> float | None:
    """When it falls due again. One that fails, as on a full disk, holds up no other."""
    try:
        return each.attend()
    except Exception as error:  # noqa: BLE001 - it is attended again; the others must be
        log("not attended to", error=repr(error))
        return time.monotonic() + 1.0
