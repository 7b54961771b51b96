"""How an amphora of a pair gives its addresses up without cutting a connection, by what agents of any age can do.

A TCP connection cannot go to the other amphora: what is open when the addresses move is reset. So nothing may be open then.
First, while everybody is served, what keeps connections open between requests is ended with the next answer. Then nobody
new is let in, by the agent (feature `shut`) or, where that is older, by the network, for as long as one answer takes: who asks
meanwhile asks again, and is answered by the other. HAProxy's workers tell when nothing goes on: after a reload the one before
ends with its last connection. Where neither can, what has begun at the very moment is reset. Next: driver.py, which calls;
docs/design/0030."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from frontinus.drivers.amphora.agent.client import AgentClient, SentFile
from frontinus.drivers.amphora.agent.files import Live, digest
from frontinus.drivers.amphora.agent.settings import AgentDriverSettings
from frontinus.model.errors import FrontinusError, LeaseLost
from frontinus.model.tree import Amphora, LoadBalancerTree

GLANCE_S = 0.02
"""Between two looks at the workers."""

_log = structlog.get_logger(__name__)


class Leaver:
    """For one departure, or what comes before it. The caller keeps others from pushing meanwhile."""

    def __init__(
        self, client: AgentClient, settings: AgentDriverSettings, amphora: Amphora, tree: LoadBalancerTree
    ) -> None:
        self._client = client
        self._settings = settings
        self._amphora = amphora
        self._tree = tree
        self._clock = asyncio.get_running_loop().time

    async def leave(self, live: Live, closing: str | None, shut: Callable[[], Awaitable[bool]]) -> None:
        """`live` is what runs, `closing` its text so that no connection is kept open between requests; None: nobody may meet
        a worker that has just begun, since it would assign clients anew and teach the other amphora so. Raises Retry."""
        began = self._clock()
        left = 1
        if closing is not None:
            await self._run(live, closing)
            # The worker that does so keeps the new connections; what was before it ends or is left.
            left = await self._await_workers(1, self._settings.drain_timeout.total_seconds())
        drained = self._clock()
        is_shut = await shut()
        if is_shut:
            await self._client.reload(self._amphora, self._amphora.load_balancer_id)
            left = await self._await_workers(left, self._settings.drain_pause.total_seconds())
            if left > 1:
                # Closed in good order, while the addresses are still here to say so.
                await self._client.stop(self._amphora, self._amphora.load_balancer_id)
        _log.info(
            "amphora has let go of its connections",
            amphora_id=self._amphora.id,
            load_balancer_id=self._amphora.load_balancer_id,
            drained_in=round(drained - began, 3),
            nobody_new_for=round(self._clock() - drained, 3) if is_shut else None,
            cut=left > 1,
        )

    async def one_worker(self) -> None:
        """The worker before the last reload has taught the new one, and is gone; or the time in which nobody new may be let in
        is over. Raises Retry."""
        await self._await_workers(1, self._settings.drain_pause.total_seconds())

    async def _run(self, live: Live, text: str) -> None:
        """A reload in any case: the worker that goes closes what is kept open between requests."""
        if text == live.text:
            await self._client.reload(self._amphora, self._amphora.load_balancer_id)
            return
        await self._client.apply(
            self._amphora,
            self._amphora.load_balancer_id,
            text=text,
            digest=digest(text, live.files),
            base=None,
            commands=(),
            reload=True,
            files=[SentFile(x.name, x.sha256, x.private, None) for x in live.files],
            fence=self._tree.fence,
        )

    async def _await_workers(self, most: int, seconds: float) -> int:
        """Until no more than so many workers are there, or the time is over; how many are."""
        deadline = self._clock() + seconds
        while True:
            workers = (await self._client.state(self._amphora, self._amphora.load_balancer_id)).workers
            if workers <= most or self._clock() >= deadline:
                return workers
            await asyncio.sleep(GLANCE_S)


async def without_trouble(leaving: Awaitable[None], amphora: Amphora) -> None:
    """What goes wrong here must not keep an amphora from being replaced. Raises LeaseLost alone, as what shuts it may."""
    try:
        await leaving
    except LeaseLost:
        raise
    except FrontinusError as error:
        _log.warning("amphora does not let go of its connections", amphora_id=amphora.id, reason=str(error))
