"""How one controller comes by its work, whatever the work is."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest
from prometheus_client import CollectorRegistry

from frontinus.controller.claims import Claims
from frontinus.controller.metrics import ControllerMetrics
from frontinus.controller.reconcile import reconcile
from frontinus.model.enums import ProvisioningStatus
from frontinus.model.errors import Retry
from frontinus.model.ids import LoadBalancerId
from frontinus.model.tree import LoadBalancer
from frontinus.store import listing, schema
from frontinus.store.engine import Store, Transaction, Wakeups
from frontinus.store.leases import Lease
from frontinus.store.statement import Statement

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


@asynccontextmanager
async def working(world: World, work: Callable[[Lease], Awaitable[bool | None]]) -> AsyncIterator[None]:
    """A controller of the world that does this."""
    claims = Claims(
        store=world.store,
        owner=world.owner,
        cohort=world.hands.cohort,
        settings=replace(SETTINGS, backoff_base=timedelta(seconds=0.2), poll_interval=timedelta(seconds=0.05)),
        now=lambda: datetime.now(UTC),
        work=work,
        metrics=ControllerMetrics(CollectorRegistry()),
    )
    running = asyncio.create_task(claims.run())
    try:
        async with asyncio.timeout(20):
            yield
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await world.store.close()


def spoil(which: LoadBalancerId, protocol: str) -> Callable[[Transaction], int]:
    """As a newer version might write, or a person."""
    table = schema.listener
    statement = Statement(table.update().where(table.c.load_balancer_id == which).values(protocol=protocol))
    return lambda tx: tx.run(statement, {})


async def shown(world: World, which: LoadBalancerId) -> LoadBalancer:
    found = await world.store.read(lambda tx: listing.get_load_balancer(tx, which))
    assert found is not None
    return found.value


async def test_a_row_that_cannot_be_understood_stops_its_load_balancer_alone(tmp_path: Path) -> None:
    """It is told as a fault, tried again with pauses, and goes on when the row is put right."""
    world = World(tmp_path)
    await world.register()
    spoilt, other = [await world.create(80) for _ in range(2)]
    await world.store.transact(spoil(spoilt, "QUIC"))
    tries = []

    async def work(lease: Lease) -> bool:
        tries.append(lease.load_balancer_id)
        return await reconcile(lease, world.hands)

    async def is_active(which: LoadBalancerId) -> bool:
        return (await shown(world, which)).provisioning_status is ProvisioningStatus.ACTIVE

    async with working(world, work):
        while not (await is_active(other) and (await shown(world, spoilt)).fault):  # noqa: ASYNC110 - it is in the database
            await asyncio.sleep(0.01)
        fault = (await shown(world, spoilt)).fault
        assert fault is not None
        assert (fault.code, "protocol is 'QUIC'" in fault.message) == ("unreadable", True)
        while tries.count(spoilt) < 3:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        fault = (await shown(world, spoilt)).fault
        assert fault is not None
        assert fault.attempts >= 2
        await world.store.transact(spoil(spoilt, "HTTP"))
        while not await is_active(spoilt):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    "error", [KeyError("x"), Retry("Neutron does not answer", after=0.2)], ids=lambda x: type(x).__name__
)
async def test_what_the_work_has_no_answer_to_is_tried_again_after_a_pause(tmp_path: Path, error: Exception) -> None:
    world = World(tmp_path)
    await world.register()
    which = await world.create(80)
    table = schema.load_balancer
    broken = Statement(table.update().values(provisioning_status="PONDERING"))
    await world.store.transact(lambda tx: tx.run(broken, {}))  # no fault can be told of it either
    tried_at: list[float] = []

    async def work(lease: Lease) -> bool:
        tried_at.append(asyncio.get_running_loop().time())
        raise error

    async with working(world, work):
        while len(tried_at) < 3:  # noqa: ASYNC110 - it is for the other task to say
            await asyncio.sleep(0.01)
    assert await shown_word(tmp_path, which) == "PONDERING"
    first, second, third = tried_at[:3]
    assert second - first >= 0.15
    assert third - second >= 0.3  # doubled


async def shown_word(directory: Path, which: LoadBalancerId) -> str:
    store = Store.open(f"sqlite:///{directory / 'frontinus.sqlite'}")
    found = await store.read(lambda tx: listing.get_load_balancer(tx, which))
    await store.close()
    assert found is not None
    return str(found.value.provisioning_status)


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
