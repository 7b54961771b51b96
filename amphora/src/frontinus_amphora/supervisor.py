"""The thread that sees at once when haproxy dies or speaks, and does what falls due.

It sleeps in poll() on descriptors that the services give it; it decides nothing itself. Next: load_balancer.py.
"""

import contextlib
import os
import select
import threading
import time
from collections.abc import Callable, Iterable

from frontinus_amphora.load_balancer import LoadBalancer
from frontinus_amphora.log import log

EVENTS = select.POLLIN | select.POLLERR | select.POLLHUP


class Supervisor:
    """`wake` may be called from any thread; all else belongs to the supervisor's own."""

    def __init__(self, load_balancers: Callable[[], Iterable[LoadBalancer]], heard: Callable[[], None]) -> None:
        """`heard` is told when a haproxy printed something: a server may have changed state."""
        self._load_balancers = load_balancers
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
        owners: dict[int, tuple[LoadBalancer, str]] = {}
        for load_balancer in self._load_balancers():
            for descriptor, meaning in load_balancer.descriptors().items():
                poll.register(descriptor, EVENTS)
                owners[descriptor] = (load_balancer, meaning)
        timeout = None if due is None else max(0.0, due - time.monotonic()) * 1000
        for descriptor, _event in poll.poll(timeout):
            if descriptor == self._reader:
                os.read(self._reader, 4096)
                continue
            load_balancer, meaning = owners[descriptor]
            if meaning == "death":
                load_balancer.notice_death()
            elif load_balancer.heard():
                self._heard()
        dues = [load_balancer.attend() for load_balancer in self._load_balancers()]
        return min((each for each in dues if each is not None), default=None)
