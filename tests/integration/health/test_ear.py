"""The ear as it runs: a real socket, a real store, time that passes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest

from frontinus.health.loop import Health
from frontinus.health.settings import HealthSettings
from frontinus.model.ids import LoadBalancerId
from frontinus.store import health

from tests.integration.controller.world import World

SETTINGS = HealthSettings(
    bind_port=0,
    silence_deadline=timedelta(milliseconds=200),
    suspect_again_after=timedelta(milliseconds=300),
    check_interval=timedelta(milliseconds=20),
    fleet_interval=timedelta(milliseconds=20),
)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    await made.register()
    ear = Health(made.store, made.hands.amphora_driver, SETTINGS, lambda: made.now)
    listening = asyncio.create_task(ear.run())
    yield made
    listening.cancel()
    with suppress(asyncio.CancelledError):
        await listening
    await made.store.close()


async def until(fact: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while not await fact():  # noqa: ASYNC110 - the fact is in the database
            await asyncio.sleep(0.01)


async def test_silence_that_goes_on_is_suspected_again(world: World) -> None:
    """The controller found it alive, because its agent answers; its datagrams are lost all the same. Should it die
    later, nobody else would notice."""
    load_balancer_id: LoadBalancerId = await world.create(80)
    await world.converge()

    async def is_suspected() -> bool:
        tree = await world.tree(load_balancer_id)
        assert tree is not None
        return tree.amphorae[0].suspected_at is not None

    for _ in range(3):
        await until(is_suspected)
        tree = await world.tree(load_balancer_id)
        assert tree is not None
        ids = [x.id for x in tree.amphorae]
        await world.store.transact(lambda tx, ids=ids: health.clear_suspicion(tx, ids))  # type: ignore[misc]
