"""Faults on order for the fakes: let the n-th call fail before it does anything, after it did it, or never answer.

    faults = Faults()
    faults.fail("build", 2, when=When.AFTER)          # the place is there, the reply is lost
    faults.fail(None, 5, error=Killed())              # whoever makes the 5th call of all dies there

Counts are of this object alone, so hand one Faults to several fakes to count their calls together."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum

from frontinus.model.errors import Retry


class When(StrEnum):
    BEFORE = "before"
    """Nothing was done."""
    AFTER = "after"
    """It was done, and the caller hears an error: the reply was lost."""
    HANG = "hang"
    """It was done, and no reply ever comes: the call waits until it is cancelled."""


class Killed(BaseException):
    """Stands for SIGKILL of the caller at this moment. Not an Exception, so that no loop survives it by protecting
    its next turn."""


@dataclass(frozen=True)
class _Order:
    method: str | None
    number: int
    when: When
    error: BaseException


class Faults:
    """Orders and counts. `calls` maps a method's name to how many times it was entered; `total` is of all methods."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self._orders: list[_Order] = []

    @property
    def total(self) -> int:
        return self.calls.total()

    def fail(
        self,
        method: str | None,
        number: int = 1,
        *,
        when: When = When.BEFORE,
        error: BaseException | None = None,
    ) -> None:
        """Let the `number`-th call from now on (1 is the next) of `method`, or of any method if None, go wrong once.
        `error` is Retry after 0 s unless given; Killed() stands for the death of the caller."""
        if number < 1:
            raise ValueError(f"number: calls are counted from 1, not {number}")
        made = self.total if method is None else self.calls[method]
        chosen = Retry(f"a fault was ordered for {method or 'any call'}", after=0.0) if error is None else error
        self._orders.append(_Order(method, made + number, when, chosen))

    def fail_always(self, method: str, error: BaseException | None = None) -> None:
        """Let every call of `method` fail before it does anything, until `clear`."""
        chosen = Retry(f"a fault was ordered for {method}", after=0.0) if error is None else error
        self._orders.append(_Order(method, 0, When.BEFORE, chosen))

    def clear(self) -> None:
        """Forget all orders. Counts stay."""
        self._orders.clear()

    @asynccontextmanager
    async def around(self, method: str) -> AsyncIterator[None]:
        """The fakes do their work inside this."""
        # A turn of the loop on each side, as a real driver takes: races between tasks stay possible with fakes.
        await asyncio.sleep(0)
        self.calls[method] += 1
        order = self._take(method)
        if order is not None and order.when is When.BEFORE:
            raise order.error
        yield
        if order is not None and order.when is When.AFTER:
            raise order.error
        if order is not None and order.when is When.HANG:
            await asyncio.Event().wait()
        await asyncio.sleep(0)

    def _take(self, method: str) -> _Order | None:
        for order in self._orders:
            if order.method not in (None, method):
                continue
            if order.number == 0:
                return order
            if order.number == (self.total if order.method is None else self.calls[method]):
                self._orders.remove(order)
                return order
        return None
