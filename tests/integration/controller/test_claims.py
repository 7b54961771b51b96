"""How one controller comes by its work, whatever the work is."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar, cast

from prometheus_client import CollectorRegistry

from frontinus.controller.claims import Claims
from frontinus.controller.metrics import ControllerMetrics
from frontinus.controller.reconcile import reconcile
from frontinus.model.ids import LoadBalancerId
from frontinus.store.engine import Store, Transaction, Wakeups
from frontinus.store.leases import Lease

from tests.integration.controller.world import SETTINGS, World

_T = TypeVar("_T")


class FarStore:
    """A database that takes a while to answer, and never says that there is work."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def transact(self, work: Callable[[Transaction], _T]) -> _T:
        done = await self._store.transact(work)
        await asyncio.sleep(0.03)
        return done

    def wakeups(self) -> Wakeups:
        return cast(Wakeups, self)

    async def wait(self, timeout: float) -> bool:
        await asyncio.sleep(timeout)
        return False


async def test_what_was_due_before_is_worked_off_without_a_wakeup(tmp_path: Path) -> None:
    """Places become free while it is looked for work for others: nobody will say that there is more."""
    world = World(tmp_path)
    await world.register()
    ids = [await world.create(80) for _ in range(12)]
    turns = itertools.count()

    async def work(lease: Lease) -> bool | None:
        await asyncio.sleep(0.005 if next(turns) % 2 else 0.02)
        return await reconcile(lease, world.hands)

    async def is_due(load_balancer_id: LoadBalancerId) -> bool:
        tree = await world.tree(load_balancer_id)
        return tree is None or tree.load_balancer.applied_generation < 1

    claims = Claims(
        store=cast(Any, FarStore(world.store)),
        owner=world.owner,
        cohort=world.hands.cohort,
        settings=replace(SETTINGS, concurrency=2, poll_interval=timedelta(hours=1)),
        now=lambda: world.now,
        work=work,
        metrics=ControllerMetrics(CollectorRegistry()),
    )
    running = asyncio.create_task(claims.run())
    try:
        async with asyncio.timeout(20):
            while any(await asyncio.gather(*(is_due(x) for x in ids))):  # noqa: ASYNC110 - the fact is in the database
                await asyncio.sleep(0.01)
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await world.store.close()
