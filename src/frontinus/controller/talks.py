"""What this controller says to amphorae right now, so that a talk with one that died is broken off.

A machine that goes while it is spoken to says nothing any more, not even that it is gone: the talk would last until the driver
stops waiting (connect_timeout, and more), and the replacement would wait with it. Compute that sees deaths by itself
(ComputeDriver.watch) knows sooner. Next: act.py, which talks; witness.py, which breaks off."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

from frontinus.model.errors import Retry
from frontinus.model.ids import AmphoraId

_T = TypeVar("_T")

AFTER_S = 0.0
"""Compute's word is on record when a talk is broken off: there is nothing to wait for."""


class Talks:
    """One per controller. Used in its event loop only."""

    def __init__(self) -> None:
        self._under_way: defaultdict[AmphoraId, set[asyncio.Task[Any]]] = defaultdict(set)
        self._broken_off: set[asyncio.Task[Any]] = set()

    async def hold(self, amphora_id: AmphoraId, talk: Coroutine[Any, Any, _T]) -> _T:
        """What the talk gives. Raises what it raises, and Retry when it was broken off; who cancels this ends the talk too."""
        task = asyncio.create_task(talk, name=f"talk-{amphora_id}")
        self._under_way[amphora_id].add(task)
        us = asyncio.current_task()
        try:
            return await task  # who cancels us has the talk cancelled first, and it has ended when we hear of it
        except asyncio.CancelledError:
            if task in self._broken_off and not (us is not None and us.cancelling()):
                raise Retry(
                    f"amphora {amphora_id} ended while it was spoken to; it is started again or replaced",
                    after=AFTER_S,
                    code="amphora-ended",
                ) from None
            raise
        finally:
            self._broken_off.discard(task)
            self._under_way[amphora_id].discard(task)
            if not self._under_way[amphora_id]:
                del self._under_way[amphora_id]

    def break_off(self, amphora_ids: Iterable[AmphoraId]) -> None:
        """End every talk with these, which are known not to run."""
        for amphora_id in amphora_ids:
            for task in self._under_way.get(amphora_id, ()):
                if not task.done():
                    self._broken_off.add(task)
                    task.cancel()
