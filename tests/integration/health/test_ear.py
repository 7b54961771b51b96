"""The ear as it runs: a real socket, a real store, time that passes."""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from frontinus.health.loop import Health
from frontinus.health.metrics import HealthMetrics
from frontinus.health.settings import HealthSettings
from frontinus.model.enums import AmphoraStatus
from frontinus.model.heartbeat import CheckReport, Counters, Heartbeat, ListenerReport, PoolReport
from frontinus.model.ids import AmphoraId, LoadBalancerId
from frontinus.model.tree import LastCheck
from frontinus.store import health, schema, statistics
from frontinus.store.statement import Statement
from frontinus.testing.fake_amphora import FakeAmphoraDriver

from tests.integration.controller.world import World

SETTINGS = HealthSettings(
    bind_port=0,
    silence_deadline=timedelta(milliseconds=200),
    suspect_again_after=timedelta(milliseconds=300),
    check_interval=timedelta(milliseconds=20),
    fleet_interval=timedelta(milliseconds=20),
    statistics_interval=timedelta(milliseconds=20),
)


class ListenedTo(World):
    """A world with an ear; amphorae send to `ear_port`."""

    ear_port: int
    metrics: CollectorRegistry

    def counted(self, name: str, **labels: str) -> float:
        return self.metrics.get_sample_value(f"frontinus_health_{name}", labels) or 0.0

    def beat(self, heartbeat: Heartbeat) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(FakeAmphoraDriver.heartbeat(heartbeat), (SETTINGS.bind_host, self.ear_port))


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[ListenedTo]:
    made = ListenedTo(tmp_path)
    await made.register()
    made.metrics = CollectorRegistry()
    ear = Health(made.store, made.hands.amphora_driver, SETTINGS, lambda: made.now, HealthMetrics(made.metrics))
    made.ear_port = ear.receiver.port
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


async def test_silence_that_goes_on_is_suspected_again(world: ListenedTo) -> None:
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


async def test_traffic_of_an_amphora_that_the_fleet_does_not_show_counts(world: ListenedTo) -> None:
    """Its first requests come before its row says that it serves, its last ones after the row says that it is to go."""
    load_balancer_id = await world.create(80)
    await world.converge()
    tree = await world.tree(load_balancer_id)
    assert tree is not None
    listener_id = tree.listeners[0].id
    amphora_id = tree.amphorae[0].id
    booting = schema.amphora.update().values(status=AmphoraStatus.BOOTING.value)
    await world.store.transact(lambda tx: tx.run(Statement(booting), {}))
    for number in range(3):
        report = ListenerReport(status="OPEN", counters=Counters(total_connections=7))
        world.beat(
            Heartbeat(
                amphora_id=amphora_id,
                boot=1,
                sequence=number,
                incremental=True,
                listeners={listener_id: report},
                pools={},
            )
        )

    async def all_is_counted() -> bool:
        counted = await world.store.read(lambda tx: statistics.listener_statistics(tx, listener_id))
        return counted.total_connections == 21

    await until(all_is_counted)


async def test_the_reason_of_a_failure_is_kept_while_it_lasts(world: ListenedTo) -> None:
    load_balancer_id = await world.create(80)
    await world.converge()
    tree = await world.tree(load_balancer_id)
    assert tree is not None
    listener, pool, member = tree.listeners[0], tree.pools[0], tree.members[0]
    sequence = 0

    async def becomes(word: str, check: CheckReport | None = None) -> LastCheck | None:
        """What is kept once this was heard."""
        nonlocal sequence
        sequence += 1
        world.beat(
            Heartbeat(
                amphora_id=tree.amphorae[0].id,
                boot=1,
                sequence=sequence,
                incremental=False,
                listeners={listener.id: ListenerReport(status="OPEN", counters=Counters())},
                pools={
                    pool.id: PoolReport(
                        status="UP", members={member.id: word}, checks={} if check is None else {member.id: check}
                    )
                },
            )
        )
        wanted = None if check is None else (check.status, check.code, check.text)
        kept: LastCheck | None = None

        async def is_kept() -> bool:
            nonlocal kept
            now = await world.tree(load_balancer_id)
            assert now is not None
            kept = now.members[0].last_check
            return (None if kept is None else (kept.status, kept.code, kept.text)) == wanted

        await until(is_kept)
        return kept

    first = await becomes("DOWN", CheckReport(status="L4CON", text="refused"))
    other = await becomes("DOWN", CheckReport(status="L7STS", code=500, text="wrong"))
    assert first is not None
    assert other is not None
    assert other.since >= first.since
    assert await becomes("UP") is None


async def test_an_amphora_that_lost_files_is_pushed_to(world: ListenedTo) -> None:
    """Once while it says so, and not because of what it says of another load balancer."""
    load_balancer_id, other_id = await world.create(80), await world.create(81)
    await world.converge()
    tree, other = await world.tree(load_balancer_id), await world.tree(other_id)
    assert tree is not None
    assert other is not None
    world.now += timedelta(seconds=1)

    def lost(amphora_id: AmphoraId, sequence: int) -> Heartbeat:
        return Heartbeat(
            amphora_id=amphora_id,
            boot=1,
            sequence=sequence,
            incremental=False,
            listeners={},
            pools={},
            incomplete=frozenset({load_balancer_id}),
        )

    world.beat(lost(other.amphorae[0].id, 0))
    world.beat(lost(tree.amphorae[0].id, 0))

    async def is_wanted() -> bool:
        now = await world.tree(load_balancer_id)
        return now is not None and now.amphorae[0].push_requested_at == world.now

    await until(is_wanted)
    await world.converge()
    after, untouched = await world.tree(load_balancer_id), await world.tree(other_id)
    assert after is not None
    assert untouched is not None
    before, receipt = tree.amphorae[0].receipt, after.amphorae[0].receipt
    assert before is not None
    assert receipt is not None
    assert receipt.applied_at > before.applied_at
    assert untouched.amphorae[0].push_requested_at is None


async def test_an_amphora_that_came_back_empty_is_pushed_to(world: ListenedTo) -> None:
    load_balancer_id = await world.create(80)
    await world.converge()
    tree = await world.tree(load_balancer_id)
    assert tree is not None
    world.now += timedelta(seconds=1)
    sequence = itertools.count()

    async def is_wanted() -> bool:
        world.beat(
            Heartbeat(
                amphora_id=tree.amphorae[0].id,
                boot=1,
                sequence=next(sequence),
                incremental=False,
                listeners={},
                pools={},
                empty=True,
            )
        )
        now = await world.tree(load_balancer_id)
        return now is not None and now.amphorae[0].push_requested_at == world.now

    await until(is_wanted)
    await world.converge()
    after = await world.tree(load_balancer_id)
    assert after is not None
    assert after.amphorae[0].receipt is not None
    assert after.amphorae[0].receipt.applied_at >= world.now


async def test_what_is_heard_and_refused_is_counted_by_reason(world: ListenedTo) -> None:
    load_balancer_id = await world.create(80)
    await world.converge()
    tree = await world.tree(load_balancer_id)
    assert tree is not None
    beat = Heartbeat(amphora_id=tree.amphorae[0].id, boot=1, sequence=0, incremental=False, listeners={}, pools={})
    world.beat(beat)
    world.beat(beat)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.sendto(b"noise" * 10, (SETTINGS.bind_host, world.ear_port))

    async def all_is_counted() -> bool:
        return (
            world.counted("datagrams_accepted_total") == 1
            and world.counted("datagrams_refused_total", reason="replayed or overtaken") == 1
            and world.counted("datagrams_refused_total", reason="wrong digest") == 1
            and world.counted("amphorae_watched") == 1
        )

    await until(all_is_counted)

    async def is_suspected() -> bool:
        return world.counted("suspicions_total") == 1 and world.counted("amphorae_suspected") == 1

    await until(is_suspected)
