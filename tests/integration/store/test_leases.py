"""One load balancer has one worker, and a worker that lost its lease finds out."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from frontinus.model.cohorts import CohortName
from frontinus.model.errors import LeaseLost
from frontinus.store import convergence, leases
from frontinus.store.engine import Store

from tests.integration.store.world import (
    COHORT,
    DRIVER,
    LATER,
    LEASE,
    NOW,
    OURS,
    THEIRS,
    a_fault,
    a_tree,
    behind,
    claim,
    claim_one,
    create,
    edit,
    register,
    start_python,
    statements,
)

pytestmark = pytest.mark.integration


async def test_a_new_load_balancer_can_be_claimed_once(store: Store) -> None:
    tree = a_tree()
    await create(store, tree)
    lease = await claim_one(store)
    assert (lease.load_balancer_id, lease.owner) == (tree.id, OURS)
    assert lease.expires_at == LATER + LEASE
    assert await claim(store, owner=THEIRS) == []
    assert await claim(store, owner=OURS) == []


async def test_epochs_grow_also_over_the_restoration_of_a_backup(store: Store) -> None:
    """Amphorae have heard of those that were given after the backup, and refuse lower ones."""
    await create(store, a_tree(), a_tree())
    (before,) = await claim(store, limit=1)
    # The row of the other one knows nothing of it, as a restored one does not.
    (restored,) = await claim(store, LATER + timedelta(seconds=1), owner=THEIRS, limit=1)
    assert restored.load_balancer_id != before.load_balancer_id
    assert restored.epoch > before.epoch


async def test_the_longest_due_come_first_and_no_more_than_asked(store: Store) -> None:
    old, older, oldest = (a_tree(at=NOW + timedelta(minutes=x)) for x in (3, 2, 1))
    await create(store, old, oldest, older)
    assert [x.load_balancer_id for x in await claim(store, limit=2)] == [oldest.id, older.id]
    assert [x.load_balancer_id for x in await claim(store, limit=2)] == [old.id]


async def test_one_that_waits_keeps_its_place_however_often_it_is_edited(store: Store) -> None:
    """Else those whose tenants are busy would wait until everybody else is served, and longest after a death."""
    old, older = (a_tree(at=NOW + timedelta(minutes=x)) for x in (2, 1))
    await create(store, old, older)
    await edit(store, older, NOW + timedelta(minutes=3))
    assert [x.load_balancer_id for x in await claim(store)] == [older.id, old.id]


async def test_what_cannot_be_worked_on_is_put_off_unless_something_was_asked(store: Store) -> None:
    tree = a_tree()
    await create(store, tree)
    lease = await claim_one(store)
    until = LATER + timedelta(seconds=20)
    await store.transact(lambda tx: leases.put_off(tx, lease, until))
    assert await claim(store, until - timedelta(seconds=1), owner=THEIRS) == []
    (again,) = await claim(store, until, owner=THEIRS)
    await store.transact(lambda tx: leases.put_off(tx, lease, until + timedelta(hours=1)))  # of one that was lost
    await edit(store, tree, until)
    await store.transact(lambda tx: leases.put_off(tx, again, until + timedelta(seconds=20)))
    assert [x.load_balancer_id for x in await claim(store, until)] == [tree.id]


async def test_an_edit_does_not_wait_for_the_next_try_of_a_fault(store: Store) -> None:
    tree = a_tree()
    await create(store, tree)
    lease = await claim_one(store)
    fault = a_fault(retry_at=LATER + timedelta(minutes=1))
    await store.transact(lambda tx: convergence.record_fault(tx, lease, fault, LATER, report_error=False))
    await store.transact(lambda tx: leases.release(tx, lease))
    assert await claim(store, LATER) == []
    await edit(store, tree, LATER)
    assert len(await claim(store, LATER)) == 1


async def test_work_of_the_future_is_not_claimed(store: Store) -> None:
    await create(store, a_tree(at=LATER + timedelta(microseconds=1)))
    assert await claim(store, LATER) == []
    assert len(await claim(store, LATER + timedelta(microseconds=1))) == 1


async def test_a_clock_that_was_set_back_does_not_put_work_off(store: Store) -> None:
    """due_at and the lease of a killed controller were written a day ahead of what the clock says now."""
    await create(store, a_tree(at=LATER + timedelta(days=1)))
    ours = await claim_one(store, LATER + timedelta(days=1))
    theirs = await claim_one(store, LATER, owner=THEIRS)
    assert theirs.epoch > ours.epoch
    assert await claim(store, LATER) == [], "a lease of the right time holds"


async def test_an_expired_lease_is_taken_over_with_a_greater_epoch(store: Store) -> None:
    await create(store, a_tree())
    ours = await claim_one(store, LATER)
    assert await claim(store, LATER + LEASE - timedelta(microseconds=1), owner=THEIRS) == []
    theirs = await claim_one(store, LATER + LEASE, owner=THEIRS)
    assert theirs.epoch > ours.epoch
    with pytest.raises(LeaseLost):
        await store.transact(lambda tx: leases.renew(tx, ours, LATER, LEASE))


async def test_a_renewed_lease_holds_longer(store: Store) -> None:
    await create(store, a_tree())
    lease = await claim_one(store, LATER)
    soon = LATER + LEASE / 2
    renewed = await store.transact(lambda tx: leases.renew(tx, lease, soon, LEASE))
    assert renewed.expires_at == soon + LEASE
    assert await claim(store, LATER + LEASE, owner=THEIRS) == []
    assert len(await claim(store, soon + LEASE, owner=THEIRS)) == 1


async def test_a_lease_that_ran_out_cannot_be_renewed(store: Store) -> None:
    await create(store, a_tree())
    lease = await claim_one(store, LATER)
    with pytest.raises(LeaseLost):
        await store.transact(lambda tx: leases.renew(tx, lease, LATER + LEASE, LEASE))


async def test_a_released_lease_lets_others_in_at_once(store: Store) -> None:
    await create(store, a_tree())
    ours = await claim_one(store)
    await store.transact(lambda tx: leases.release(tx, ours))
    theirs = await claim_one(store, owner=THEIRS)
    assert theirs.epoch > ours.epoch
    # Releasing what was lost harms nobody.
    await store.transact(lambda tx: leases.release(tx, ours))
    await store.transact(lambda tx: leases.renew(tx, theirs, LATER, LEASE))


async def test_releasing_wakes_others_only_if_work_is_left(store: Store) -> None:
    tree = a_tree()
    await create(store, tree)
    lease = await claim_one(store)
    listener = store.wakeups()
    await store.transact(lambda tx: convergence.record_settled(tx, lease, 1, LATER))
    await store.transact(lambda tx: leases.release(tx, lease))
    assert not await listener.wait(0.01)
    await edit(store, tree, LATER)
    assert await listener.wait(5)
    lease = await claim_one(store)
    await store.transact(lambda tx: leases.release(tx, lease))
    assert await listener.wait(5)


async def test_a_claim_is_one_query_that_looks_only_at_what_is_due(store: Store, database: Path) -> None:
    with statements(store) as seen:
        await store.transact(lambda tx: leases.claim_due(tx, OURS, COHORT, LATER, LEASE, 10))
    (text,) = seen
    with behind(database) as sql:
        plan = [str(row[3]) for row in sql.execute(f"EXPLAIN QUERY PLAN {text}", text.values)]
    searched = [x.partition("(")[2] for x in plan if x.startswith("SEARCH")]
    by_cohort = "driver=? AND driver_version=? AND "
    assert searched == [f"{by_cohort}due_at<?)", f"{by_cohort}due_at>?)"], plan
    assert not any(x.startswith("SCAN") for x in plan), plan


@pytest.mark.engines
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(CohortName(DRIVER, "1.1"), id="another version"),
        pytest.param(CohortName("nginx", "1.0"), id="another driver"),
    ],
)
async def test_a_cohort_claims_only_its_own(store: Store, name: CohortName) -> None:
    await create(store, a_tree())
    assert await store.transact(lambda tx: leases.claim_due(tx, THEIRS, name, LATER, LEASE, 10)) == []
    assert await store.read(lambda tx: leases.count_due(tx, cohort=name, now=LATER)) == 0
    assert await store.read(lambda tx: leases.next_due(tx, cohort=name)) is None
    assert await store.read(lambda tx: leases.next_due(tx, cohort=COHORT)) == NOW
    assert len(await claim(store, owner=OURS)) == 1


async def test_next_due_says_how_long_to_sleep(store: Store) -> None:
    async def next_due() -> object:
        return await store.read(leases.next_due)

    assert await next_due() is None
    await create(store, a_tree(at=NOW), a_tree(at=NOW + timedelta(minutes=1)))
    assert await next_due() == NOW
    first, second = await claim(store, LATER)
    assert await next_due() == LATER + LEASE
    await store.transact(lambda tx: convergence.record_settled(tx, first, 1, LATER))
    retry_at = LATER + timedelta(seconds=5)
    fault = a_fault(retry_at=retry_at)
    await store.transact(lambda tx: convergence.record_fault(tx, second, fault, LATER, report_error=False))
    assert await next_due() == LATER + LEASE  # the lease still stands
    await store.transact(lambda tx: leases.release(tx, second))
    assert await next_due() == retry_at


_CLAIM_EVERYTHING = """
import asyncio, sys
from datetime import timedelta
from frontinus.model.ids import ControllerId
from frontinus.store import leases
from frontinus.store.engine import Store
from tests.integration.store.world import COHORT, LATER, LEASE

async def main(url, owner):
    store = Store.open(url)
    while True:
        got = await store.transact(lambda tx: leases.claim_due(tx, ControllerId(owner), COHORT, LATER, LEASE, 3))
        if not got:
            return
        for lease in got:
            print(lease.load_balancer_id)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.engines
async def test_two_processes_never_claim_the_same(store: Store, database_url: str) -> None:
    many = [a_tree(members=0) for _ in range(60)]
    await create(store, *many)
    await register(store)
    workers = [await start_python(_CLAIM_EVERYTHING, database_url, owner) for owner in (OURS, THEIRS)]
    claimed = [(await worker.communicate())[0].decode().splitlines() for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0]
    assert sorted(claimed[0] + claimed[1]) == sorted(x.id for x in many)
