"""Each load balancer has one cohort; what a cohort leaves behind is taken over, whoever dies."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import partial

import pytest
from msgspec.structs import replace

from frontinus.model.capabilities import Capabilities
from frontinus.model.cohorts import SILENT_AFTER, Cohort, CohortName, CohortState
from frontinus.model.enums import LbAlgorithm
from frontinus.model.errors import NotFound
from frontinus.model.ids import ControllerId, LoadBalancerId, new_id
from frontinus.model.tree import LoadBalancerTree
from frontinus.store import cohorts, controllers, convergence, leases, trees
from frontinus.store.controllers import Controller
from frontinus.store.engine import Store, Transaction

from tests.integration.store.world import LATER, LEASE, NOW, OURS, THEIRS, a_fault, a_tree

pytestmark = [pytest.mark.integration, pytest.mark.engines]

OLD, NEW, NGINX = CohortName("haproxy", "0.9"), CohortName("haproxy", "0.10"), CohortName("nginx", "5")
SECOND = timedelta(seconds=1)


async def start(
    store: Store, name: CohortName, at: datetime = NOW, can: Capabilities | None = None, provider: str = "amphora"
) -> ControllerId:
    arrived = Controller(
        id=ControllerId(new_id()),
        driver=name.driver,
        driver_version=name.driver_version,
        host="here",
        pid=1,
        capabilities=can or Capabilities(),
        provider=provider,
        started_at=at,
        seen_at=at,
    )
    await store.transact(lambda tx: controllers.register(tx, arrived))
    return arrived.id


async def stop(store: Store, *ids: ControllerId) -> None:
    for each in ids:
        await store.transact(partial(controllers.unregister, controller_id=each))


async def make(store: Store, cohort: CohortName | None, count: int = 1) -> list[LoadBalancerTree]:
    made = [a_tree(members=0) for _ in range(count)]

    def work(tx: Transaction) -> None:
        for tree in made:
            trees.create_tree(tx, tree, cohort)

    await store.transact(work)
    return made


async def cohort_of(store: Store, load_balancer_id: LoadBalancerId) -> CohortName | None:
    return await store.read(lambda tx: cohorts.of(tx, load_balancer_id))


async def take(store: Store, mine: CohortName, now: datetime) -> int:
    known = await store.read(cohorts.all_cohorts)
    standing = await store.read(lambda tx: cohorts.standing(tx, mine, now, known))
    taken = await store.transact(lambda tx: cohorts.take_over(tx, mine, now, known))
    assert standing is not None
    assert standing.left_behind == (taken > 0)
    return taken


async def known(store: Store) -> dict[CohortName, Cohort]:
    return {x.name: x for x in await store.read(cohorts.all_cohorts)}


async def test_who_registers_makes_a_cohort(store: Store) -> None:
    rich = Capabilities(lb_algorithms=frozenset(LbAlgorithm))
    first = await start(store, OLD)
    await start(store, OLD, NOW + SECOND, rich, provider="octavia")
    await start(store, NEW, NOW + 2 * SECOND)
    found = await known(store)
    assert set(found) == {OLD, NEW}
    old = found[OLD]
    assert (old.state, old.providers, old.capabilities) == (CohortState.ACTIVE, ("amphora", "octavia"), rich)
    assert (old.first_seen_at, old.seen_at, old.alive_at) == (NOW, NOW + SECOND, NOW + SECOND)
    await stop(store, first)
    assert (await known(store))[OLD].alive_at == NOW + SECOND


async def test_the_last_goodbye_is_noticed(store: Store) -> None:
    await stop(store, await start(store, OLD))
    old = (await known(store))[OLD]
    assert (old.seen_at, old.alive_at) == (NOW, None)


@pytest.mark.parametrize(
    "taker, gone, after, taken",
    [
        pytest.param(NEW, "stopped", SECOND, 1, id="an upgrade is not noticed"),
        pytest.param(NEW, "silent", SECOND, 0, id="a killed one may be back"),
        pytest.param(NEW, "silent", SILENT_AFTER, 1, id="a dead one is not waited for"),
        pytest.param(OLD, "stopped", SECOND, 0, id="a newer one may only be restarted"),
        pytest.param(OLD, "stopped", SILENT_AFTER, 1, id="a downgrade"),
        pytest.param(OLD, "silent", SILENT_AFTER, 1, id="a newer one is dead"),
        pytest.param(NGINX, "silent", SILENT_AFTER, 0, id="an amphora is of one driver"),
    ],
)
async def test_what_nobody_serves_is_taken_over(
    store: Store, taker: CohortName, gone: str, after: timedelta, taken: int
) -> None:
    giver = NEW if taker == OLD else OLD
    leaving = await start(store, giver)
    (tree,) = await make(store, giver)
    if gone == "stopped":
        await stop(store, leaving)
    now = NOW + after
    await start(store, taker, now)
    assert await take(store, taker, now) == taken
    assert await cohort_of(store, tree.id) == (taker if taken else giver)


async def test_the_newest_active_cohort_is_the_heir(store: Store) -> None:
    newest = CohortName("haproxy", "0.11")
    now = NOW + SILENT_AFTER
    (tree,) = await make(store, OLD)
    await start(store, OLD)
    for name in (NEW, newest):
        await start(store, name, now)
    await store.transact(lambda tx: cohorts.set_state(tx, newest, CohortState.DRAINING, now))
    assert await take(store, newest, now) == 0
    assert await take(store, NEW, now) == 1
    assert await cohort_of(store, tree.id) == NEW


async def test_a_draining_cohort_takes_over_rather_than_that_something_is_stuck(store: Store) -> None:
    now = NOW + SILENT_AFTER
    await make(store, OLD)
    await start(store, OLD)
    await start(store, NEW, now)
    await store.transact(lambda tx: cohorts.set_state(tx, NEW, CohortState.DRAINING, now))
    assert await take(store, NEW, now) == 1


async def test_what_is_taken_over_is_as_it_was(store: Store) -> None:
    """Neither what is due nor a lease is touched, and what is settled is not looked at."""
    await start(store, OLD)
    settled, due, faulty = await make(store, OLD, 3)
    held = await store.transact(lambda tx: leases.claim_due(tx, OURS, OLD, LATER, LEASE, 3))
    for lease in held:
        if lease.load_balancer_id == settled.id:
            await store.transact(partial(convergence.record_settled, lease=lease, generation=1, now=LATER))
        if lease.load_balancer_id == faulty.id:
            fault = replace(a_fault(), permanent=True, retry_at=None)
            await store.transact(
                partial(convergence.record_fault, lease=lease, fault=fault, now=LATER, report_error=True)
            )
        if lease.load_balancer_id != due.id:
            await store.transact(partial(leases.release, lease=lease))
    now = LATER + SECOND
    await start(store, NEW, now)
    assert await take(store, NEW, now) == 3
    claimed = await store.transact(lambda tx: leases.claim_due(tx, THEIRS, NEW, now, LEASE, 3))
    # What one version could not carry the other may: a fault that waits for the user is judged anew.
    assert {x.load_balancer_id for x in claimed} == {faulty.id}
    claimed = await store.transact(lambda tx: leases.claim_due(tx, THEIRS, NEW, LATER + LEASE, LEASE, 3))
    assert {x.load_balancer_id for x in claimed} == {due.id}


async def test_rows_of_a_version_without_cohorts_are_taken(store: Store) -> None:
    (tree,) = await make(store, None)
    assert await cohort_of(store, tree.id) is None
    for name, provider in ((NGINX, "another"), (OLD, "amphora"), (NEW, "amphora")):
        await start(store, name, provider=provider)
    assert [await take(store, x, NOW) for x in (NGINX, OLD, NEW)] == [0, 0, 1]
    assert await cohort_of(store, tree.id) == NEW


async def test_many_are_taken_in_parts(store: Store) -> None:
    made = await make(store, OLD, cohorts.MOST_AT_ONCE + 1)
    await stop(store, await start(store, OLD))
    await start(store, NEW)
    assert [await take(store, NEW, NOW) for _ in range(3)] == [cohorts.MOST_AT_ONCE, 1, 0]
    assert await store.read(cohorts.count_load_balancers) == {NEW: len(made)}


async def test_who_is_alone_takes_everything(store: Store) -> None:
    """Whatever driver it was of, and although it was seen a moment ago: the process is known to be dead."""
    await start(store, NGINX)
    await make(store, NGINX, cohorts.MOST_AT_ONCE + 1)
    await make(store, None)
    await start(store, OLD)
    await store.transact(lambda tx: cohorts.take_all(tx, OLD, NOW))
    assert await store.read(cohorts.count_load_balancers) == {OLD: cohorts.MOST_AT_ONCE + 2}


async def test_a_move_has_the_new_cohort_look(store: Store) -> None:
    """Also while the old one works on it: that goes on under its lease, and then the new one's turn is due."""
    for name in (OLD, NEW):
        await start(store, name)
    (tree,) = await make(store, OLD)
    (lease,) = await store.transact(lambda tx: leases.claim_due(tx, OURS, OLD, LATER, LEASE, 1))
    await store.transact(lambda tx: cohorts.move(tx, [tree.id], NEW, LATER))
    await store.transact(lambda tx: convergence.record_settled(tx, lease, 1, LATER))
    await store.transact(lambda tx: leases.release(tx, lease))
    assert await store.transact(lambda tx: leases.claim_due(tx, OURS, OLD, LATER, LEASE, 1)) == []
    assert len(await store.transact(lambda tx: leases.claim_due(tx, THEIRS, NEW, LATER, LEASE, 1))) == 1
    with pytest.raises(NotFound):
        await store.transact(lambda tx: cohorts.move(tx, [tree.id], CohortName("haproxy", "7"), LATER))


async def test_a_cohort_knows_how_many_live(store: Store) -> None:
    """Each registers under every provider name it has, and counts once; who is silent or of another cohort does not."""

    async def living(now: datetime) -> int:
        standing = await store.read(lambda tx: cohorts.standing(tx, OLD, now, cohorts.all_cohorts(tx)))
        assert standing is not None
        return standing.controllers

    await start(store, OLD)
    await start(store, OLD)
    await start(store, NEW)
    assert await living(NOW) == 2
    assert await living(NOW + SILENT_AFTER) == 0


async def test_a_draining_cohort_is_done_when_nothing_is_left(store: Store) -> None:
    for name in (OLD, NEW):
        await start(store, name)
    (tree,) = await make(store, OLD)

    async def done() -> bool:
        standing = await store.read(lambda tx: cohorts.standing(tx, OLD, NOW, cohorts.all_cohorts(tx)))
        assert standing is not None
        return standing.is_done

    assert not await done()
    assert await store.transact(lambda tx: cohorts.set_state(tx, OLD, CohortState.DRAINING, NOW))
    assert not await store.transact(lambda tx: cohorts.set_state(tx, OLD, CohortState.DRAINING, NOW))
    assert not await done()
    await start(store, OLD, NOW + SECOND)
    assert (await known(store))[OLD].state is CohortState.DRAINING  # a restart is no resume
    await store.transact(lambda tx: cohorts.move(tx, [tree.id], NEW, NOW))
    assert await done()
    await store.transact(lambda tx: cohorts.set_state(tx, OLD, CohortState.ACTIVE, NOW))
    assert not await done()


async def test_what_a_load_balancer_may_have_is_what_its_own_cohort_can(store: Store) -> None:
    rich = Capabilities(lb_algorithms=frozenset(LbAlgorithm))
    await start(store, OLD)
    await start(store, NEW, can=rich)
    (old,), (new,), (without,) = [await make(store, x) for x in (OLD, NEW, None)]
    found = [await store.read(partial(cohorts.capabilities_of, load_balancer_id=x.id)) for x in (old, new, without)]
    assert found == [Capabilities(), rich, None]


async def test_a_cohort_that_nobody_needs_is_forgotten_in_time(store: Store) -> None:
    gone, serving = CohortName("haproxy", "0.1"), CohortName("haproxy", "0.2")
    for name in (gone, serving):
        await stop(store, await start(store, name))
    await make(store, serving)
    await start(store, NEW, NOW + timedelta(days=8))
    assert set(await known(store)) == {serving, NEW}
