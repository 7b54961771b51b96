"""What the ear writes: in bulk, only what differs, and nothing that was heard is lost."""

from __future__ import annotations

from datetime import timedelta
from functools import partial

import pytest
from msgspec.structs import replace

from frontinus.model.enums import AmphoraStatus, Kind, OperatingStatus
from frontinus.model.heartbeat import Counters, ListenerTraffic
from frontinus.model.ids import AmphoraId, ListenerId, LoadBalancerId
from frontinus.model.tree import Amphora, LoadBalancerTree
from frontinus.store import convergence, health, leases, statistics
from frontinus.store.engine import Store

from tests.integration.store.world import (
    COHORT,
    LATER,
    THEIRS,
    a_tree,
    an_amphora,
    claim_one,
    create,
    edit,
    statements,
    stored,
)

pytestmark = pytest.mark.integration

SOON = LATER + timedelta(seconds=1)


async def _serving(store: Store, tree: LoadBalancerTree, *, amphorae: int = 1) -> list[Amphora]:
    """A created load balancer with amphorae that serve; nothing is due."""
    await create(store, tree)
    lease = await claim_one(store)
    made = [an_amphora(tree, AmphoraStatus.ALLOCATED) for _ in range(amphorae)]
    for amphora in made:
        await store.transact(partial(convergence.add_amphora, lease=lease, amphora=amphora))
    await store.transact(lambda tx: convergence.record_settled(tx, lease, 1, LATER))
    await store.transact(lambda tx: leases.release(tx, lease))
    return made


async def test_operating_statuses_are_written_by_id(store: Store) -> None:
    tree, untouched = a_tree(members=4), a_tree()
    await create(store, tree, untouched)
    changes: dict[Kind, dict[str, OperatingStatus]] = {
        Kind.LOAD_BALANCER: {tree.id: OperatingStatus.DEGRADED},
        Kind.MEMBER: {
            **{x.id: OperatingStatus.ONLINE for x in tree.members[:2]},
            tree.members[2].id: OperatingStatus.ERROR,
            "unknown": OperatingStatus.ERROR,
        },
        Kind.POOL: {},
    }
    await store.transact(lambda tx: health.write_operating_statuses(tx, changes))
    after = await stored(store, tree)
    assert after.load_balancer.operating_status is OperatingStatus.DEGRADED
    assert [x.operating_status.value for x in after.members] == ["ONLINE", "ONLINE", "ERROR", "OFFLINE"]
    assert await stored(store, untouched) == untouched


async def test_a_thousand_statuses_are_few_statements(store: Store) -> None:
    tree = a_tree(members=1000)
    await create(store, tree)
    changes: dict[Kind, dict[str, OperatingStatus]] = {
        Kind.MEMBER: {x.id: OperatingStatus.ONLINE for x in tree.members}
    }
    with statements(store) as seen:
        await store.transact(lambda tx: health.write_operating_statuses(tx, changes))
    assert len(seen) == 1
    assert {x.operating_status for x in (await stored(store, tree)).members} == {OperatingStatus.ONLINE}


async def test_last_seen_only_moves_forward(store: Store) -> None:
    (amphora,) = await _serving(store, a_tree())
    for moment in (SOON, LATER):
        await store.transact(partial(health.write_seen, amphora_ids=(amphora.id, AmphoraId("unknown")), moment=moment))
    (member,) = await store.read(health.fleet)
    assert member.seen_at == SOON


async def test_the_fleet_is_what_is_meant_to_be_heard(store: Store) -> None:
    tree = a_tree()
    (serving,) = await _serving(store, tree)
    await edit(store, tree, SOON)
    lease = await claim_one(store, SOON)
    booting = an_amphora(tree, AmphoraStatus.BOOTING)
    stopped = an_amphora(tree, AmphoraStatus.FAILOVER_STOPPED)
    for amphora in (booting, stopped):
        await store.transact(partial(convergence.add_amphora, lease=lease, amphora=amphora))
    found = await store.read(health.fleet)
    assert {(x.amphora_id, x.status) for x in found} == {
        (serving.id, AmphoraStatus.ALLOCATED),
        (stopped.id, AmphoraStatus.FAILOVER_STOPPED),
    }
    assert {x.load_balancer_id for x in found} == {tree.id}


async def test_a_suspicion_makes_the_load_balancer_due_and_wakes_controllers(store: Store) -> None:
    tree = a_tree()
    (amphora,) = await _serving(store, tree)
    assert await store.read(leases.next_due) is None
    listener = store.wakeups()
    await store.transact(lambda tx: health.suspect(tx, [amphora.id], SOON))
    assert await listener.wait(5)
    assert await store.read(leases.next_due) == SOON
    later = SOON + timedelta(seconds=5)
    await store.transact(lambda tx: health.suspect(tx, [amphora.id], later))
    (member,) = await store.read(health.fleet)
    assert member.suspected_at == SOON
    assert await store.read(leases.next_due) == SOON
    await store.transact(lambda tx: health.clear_suspicion(tx, [amphora.id]))
    (member,) = await store.read(health.fleet)
    assert member.suspected_at is None


async def test_suspecting_nothing_does_nothing(store: Store) -> None:
    listener = store.wakeups()
    await store.transact(lambda tx: health.suspect(tx, [], SOON))
    await store.transact(lambda tx: health.suspect(tx, [AmphoraId("unknown")], SOON))
    await store.transact(lambda tx: health.mark_due(tx, [], SOON))
    assert not await listener.wait(0.01)


async def test_marking_due_never_puts_work_off(store: Store) -> None:
    idle, busy = a_tree(), a_tree(at=SOON)
    await _serving(store, idle)
    await create(store, busy)
    later = SOON + timedelta(minutes=1)
    await store.transact(lambda tx: health.mark_due(tx, [idle.id, busy.id, LoadBalancerId("unknown")], later))
    assert await store.read(leases.next_due) == SOON
    assert len(await store.transact(lambda tx: leases.claim_due(tx, THEIRS, COHORT, later, timedelta(1), 9))) == 2


def _counters(number: int) -> Counters:
    return Counters(
        bytes_in=number,
        bytes_out=10 * number,
        active_connections=100 * number,
        total_connections=1000 * number,
        request_errors=10_000 * number,
    )


def _told(
    listener_id: ListenerId, amphora_id: AmphoraId, number: int, *, incremental: bool = False, since: int = 0
) -> ListenerTraffic:
    return ListenerTraffic(
        listener_id=listener_id,
        amphora_id=amphora_id,
        counters=_counters(number),
        incremental=incremental,
        since=since,
    )


async def test_increments_add_up_and_absolute_counters_raise(store: Store) -> None:
    tree = a_tree()
    (amphora,) = await _serving(store, tree)
    listener_id = tree.listeners[0].id

    async def tell(*told: tuple[int, bool]) -> Counters:
        rows = [_told(listener_id, amphora.id, number, incremental=incremental) for number, incremental in told]
        await store.transact(lambda tx: health.write_statistics(tx, rows))
        return await store.read(lambda tx: statistics.listener_statistics(tx, listener_id))

    def expected(grown: int, active: int) -> Counters:
        return Counters(
            bytes_in=grown,
            bytes_out=10 * grown,
            active_connections=100 * active,
            total_connections=1000 * grown,
            request_errors=10_000 * grown,
        )

    assert await tell((2, True)) == expected(2, 2)
    assert await tell((3, True)) == expected(5, 3)
    assert await tell((4, False)) == expected(5, 4)
    assert await tell((1, True), (2, True)) == expected(8, 2)
    assert await tell((1, True), (20, False), (3, True)) == expected(23, 3)


async def test_a_count_that_begins_anew_comes_on_top_and_nothing_ever_goes_back(store: Store) -> None:
    tree = a_tree()
    (amphora,) = await _serving(store, tree)
    listener_id = tree.listeners[0].id

    async def tell(number: int, since: int) -> int:
        told = [_told(listener_id, amphora.id, number, since=since)]
        await store.transact(lambda tx: health.write_statistics(tx, told))
        return (await store.read(lambda tx: statistics.listener_statistics(tx, listener_id))).bytes_in

    assert await tell(100, 7) == 100
    assert await tell(90, 7) == 100  # heard late, by way of another receiver
    assert await tell(3, 8) == 103  # its counters were wiped
    assert await tell(5, 8) == 105
    assert await tell(4, 8) == 105
    assert await tell(100, 7) == 105  # old news
    assert await tell(2, 9) == 107
    assert await tell(50, 9) == 155


async def test_statistics_are_summed_over_listeners_and_amphorae_gone_ones_too(store: Store) -> None:
    tree = a_tree(listeners=2)
    staying, leaving = await _serving(store, tree, amphorae=2)
    one, two = (x.id for x in tree.listeners)
    rows = [
        _told(one, staying.id, 1),
        _told(one, leaving.id, 2),
        _told(two, staying.id, 4),
        _told(ListenerId("unknown"), staying.id, 8),
    ]
    await store.transact(lambda tx: health.write_statistics(tx, rows))
    both = await store.read(lambda tx: statistics.load_balancer_statistics(tx, tree.id))
    assert (both.bytes_in, both.active_connections) == (7, 700)
    await edit(store, tree, SOON)
    lease = await claim_one(store, SOON)
    for status in (AmphoraStatus.PENDING_DELETE, AmphoraStatus.DELETED):
        gone = replace(leaving, status=status, updated_at=SOON)
        await store.transact(partial(convergence.update_amphora, lease=lease, amphora=gone))
    first = await store.read(lambda tx: statistics.listener_statistics(tx, one))
    assert (first.bytes_in, first.active_connections) == (3, 100)
    assert await store.transact(lambda tx: convergence.purge_deleted(tx, SOON + timedelta(1))) == 1
    assert await store.read(lambda tx: statistics.listener_statistics(tx, one)) == first
    assert await store.read(lambda tx: statistics.listener_statistics(tx, ListenerId("unknown"))) == Counters()


async def test_accounting_many_amphorae_selects_once(store: Store) -> None:
    tree = a_tree(listeners=30)
    (amphora,) = await _serving(store, tree)
    rows = [_told(x.id, amphora.id, 1, incremental=True) for x in tree.listeners]
    await store.transact(lambda tx: health.write_statistics(tx, rows))
    with statements(store) as seen:
        await store.transact(lambda tx: health.write_statistics(tx, rows))
    assert len([x for x in seen if x.lstrip().startswith("SELECT")]) == 2  # whose listeners, whose amphorae


async def test_an_amphora_cannot_account_for_another_load_balancer(store: Store) -> None:
    ours, theirs = a_tree(), a_tree()
    (amphora,) = await _serving(store, ours)
    await create(store, theirs)
    rows = [_told(x.listeners[0].id, amphora.id, 1) for x in (ours, theirs)]
    await store.transact(lambda tx: health.write_statistics(tx, rows))
    counted = [
        await store.read(partial(statistics.load_balancer_statistics, load_balancer_id=x.id)) for x in (ours, theirs)
    ]
    assert [x.bytes_in for x in counted] == [1, 0]


async def test_an_amphora_without_a_row_counts_nothing(store: Store) -> None:
    tree = a_tree()
    await create(store, tree)
    rows = [_told(tree.listeners[0].id, AmphoraId("unknown"), 1)]
    await store.transact(lambda tx: health.write_statistics(tx, rows))
    assert await store.read(lambda tx: statistics.load_balancer_statistics(tx, tree.id)) == Counters()
