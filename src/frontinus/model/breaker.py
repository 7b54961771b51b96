"""Leave a service alone that has failed several times in a row, and try it again after a while. Pure: callers pass the
time, and the lock where threads share it.

Closed, it lets every call through. After `threshold` failures in a row it is open for `pause` seconds, and calls are
refused at once instead of each waiting for a time-out. Then one is let through: it closes the breaker, or opens it again.
It never asks the service itself, and does not know what a failure is: whoever asks tells it (drivers/openstack/cloud.py,
api/identity/keystone.py)."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any


class Breaker:
    """The lock guards all of its state; who has one thread needs none."""

    def __init__(self, threshold: int, pause: float, lock: AbstractContextManager[Any] | None = None) -> None:
        """`threshold` 0: never open."""
        self._threshold, self._pause = threshold, pause
        self._lock = nullcontext() if lock is None else lock
        self._failures = 0
        self._open_until: float | None = None

    def refusal(self, now: float) -> float | None:
        """None when a call may be made, else after how many seconds to ask again. Whoever is let through tells of it by
        `succeeded` or `failed`."""
        with self._lock:
            if self._open_until is None:
                return None
            if now < self._open_until:
                return self._open_until - now
            # This caller tries; should it never come back, the next one may after another pause.
            self._open_until = now + self._pause
            return None

    def succeeded(self) -> None:
        with self._lock:
            self._failures, self._open_until = 0, None

    def failed(self, now: float) -> None:
        with self._lock:
            self._failures += 1
            if self._threshold and self._failures >= self._threshold:
                self._open_until = now + self._pause
