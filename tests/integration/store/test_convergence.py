"""What a controller records: only under its lease, only for what it carried, and never so that a wish is forgotten."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from msgspec.structs import replace

from frontinus.model.enums import AmphoraStatus, Kind, OperatingStatus, ProvisioningStatus
from frontinus.model.errors import Bug, LeaseLost
from frontinus.model.ids import ControllerId
from frontinus.model.tree import Fault, LoadBalancerTree
from frontinus.store import convergence, health, inventory, leases, trees
from frontinus.store.engine import Store, Transaction
from frontinus.store.leases import Lease

from tests.integration.store.world import (
    LATER,
    LEASE,
    THEIRS,
    a_fault,
    a_tree,
    an_amphora,
    behind,
    claim,
    claim_one,
    create,
    edit,
    status_of,
    stored,
)

pytestmark = pytest.mark.integration

_P = ProvisioningStatus
SOON = LATER + timedelta(seconds=1)
RETRY = LATER + timedelta(minutes=1)


async def _is_due(store: Store) -> bool:
    return await store.read(leases.next_due) is not None


async def _settle(store: Store, lease: Lease, generation: int) -> None:
    await store.transact(lambda tx: convergence.record_settled(tx, lease, generation, SOON))


# --- fencing


Write = Callable[[Transaction, Lease, LoadBalancerTree], object]

WRITES: list[tuple[str, Write]] = [
    ("add_amphora", lambda tx, lease, tree: convergence.add_amphora(tx, lease, an_amphora(tree))),
    (
        "update_amphora",
        lambda tx, lease, tree: convergence.update_amphora(
            tx, lease, replace(tree.amphorae[0], status=AmphoraStatus.BOOTING)
        ),
    ),
    ("record_settled", lambda tx, lease, tree: convergence.record_settled(tx, lease, 1, SOON)),
    ("finish", lambda tx, lease, tree: convergence.finish(tx, lease, 1, SOON)),
    (
        "finish with an amphora",
        lambda tx, lease, tree: convergence.finish(
            tx, lease, 1, SOON, amphora=replace(tree.amphorae[0], status=AmphoraStatus.BOOTING)
        ),
    ),
    (
        "record_fault",
        lambda tx, lease, tree: convergence.record_fault(
            tx, lease, a_fault(about=tree.members[0]), SOON, report_error=True
        ),
    ),
    ("postpone", lambda tx, lease, tree: convergence.postpone(tx, lease, RETRY, SOON)),
    ("record_deleted", lambda tx, lease, tree: convergence.record_deleted(tx, lease, SOON)),
    ("begin_replacement", lambda tx, lease, tree: convergence.begin_replacement(tx, lease, SOON)),
]


def _dump(database: Path) -> list[str]:
    with behind(database) as sql:
        return list(sql.iterdump())


@pytest.mark.parametrize("write", [pytest.param(write, id=name) for name, write in WRITES])
@pytest.mark.parametrize("how", ["taken over", "taken anew", "released", "of another owner"])
async def test_without_the_lease_nothing_is_written(store: Store, database: Path, write: Write, how: str) -> None:
    tree = a_tree()
    await create(store, tree)
    lease = await claim_one(store)
    await store.transact(lambda tx: convergence.add_amphora(tx, lease, an_amphora(tree)))
    if how == "taken over":
        await claim_one(store, LATER + LEASE, owner=THEIRS)
    elif how == "taken anew":  # by the same controller, which may have an older task still running
        await claim_one(store, LATER + LEASE)
    elif how == "released":
        await store.transact(lambda tx: leases.release(tx, lease))
    else:
        lease = replace(lease, owner=ControllerId(THEIRS))
    tree = await stored(store, tree)
    before = _dump(database)
    with pytest.raises(LeaseLost):
        await store.transact(lambda tx: write(tx, lease, tree))
    assert _dump(database) == before


@pytest.mark.parametrize("write", [pytest.param(write, id=name) for name, write in WRITES])
async def test_with_the_lease_each_of_them_writes(store: Store, database: Path, write: Write) -> None:
    """So that the test above can fail."""
    tree = a_tree()
    await create(store, tree)
    lease = await claim_one(store)
    await store.transact(lambda tx: convergence.add_amphora(tx, lease, an_amphora(tree)))
    tree = await stored(store, tree)
    if write is dict(WRITES)["record_deleted"]:
        await edit(store, tree, SOON)
        with behind(database) as sql:
            sql.execute("UPDATE load_balancer SET provisioning_status = 'PENDING_DELETE', delete_requested = 1")
    before = _dump(database)
    await store.transact(lambda tx: write(tx, lease, tree))
    assert _dump(database) != before


@pytest.mark.parametrize(
    "news, at, ends",
    [
        pytest.param("", SOON, True, id="nothing"),
        pytest.param("edit", SOON, False, id="an edit"),
        pytest.param("nudge", SOON, False, id="a suspicion of another amphora"),
        pytest.param("", LATER + LEASE, False, id="the lease ran out"),
    ],
)
async def test_the_last_push_settles_only_if_nothing_came_meanwhile(
    store: Store, news: str, at: datetime, ends: bool
) -> None:
    tree = a_tree()
    await create(store, tree)
    lease = await claim_one(store)
    pushed, other = an_amphora(tree), an_amphora(tree)
    for each in (pushed, replace(other, status=AmphoraStatus.ALLOCATED)):
        assert await store.transact(partial(convergence.add_amphora, lease=lease, amphora=each)) == each
    if news == "edit":
        await edit(store, tree, SOON)
    elif news == "nudge":
        await store.transact(lambda tx: health.suspect(tx, [other.id], SOON))
    booting = replace(pushed, status=AmphoraStatus.BOOTING)
    assert await store.transact(lambda tx: convergence.finish(tx, lease, 1, at, amphora=booting)) is ends
    found = await stored(store, tree)
    # What was carried is written in any case.
    assert AmphoraStatus.BOOTING in {x.status for x in found.amphorae}
    assert found.load_balancer.applied_generation == (1 if ends else 0)
    assert await _is_due(store) is not ends
    holds = partial(convergence.require_lease, lease=lease)
    if ends:
        with pytest.raises(LeaseLost):
            await store.transact(holds)
    else:
        await store.transact(holds)


async def test_an_amphora_is_told_back_as_it_lies_unless_there_is_news(store: Store) -> None:
    tree = a_tree()
    await create(store, tree)
    lease = await claim_one(store)
    amphora = an_amphora(tree)
    await store.transact(lambda tx: convergence.add_amphora(tx, lease, amphora))
    await store.transact(lambda tx: health.write_seen(tx, [amphora.id], SOON))
    booting = replace(amphora, status=AmphoraStatus.BOOTING)
    written = await store.transact(lambda tx: convergence.update_amphora(tx, lease, booting))
    assert written == (await stored(store, tree)).amphorae[0]
    assert written == replace(booting, seen_at=SOON)
    await edit(store, tree, SOON)
    ready = replace(booting, status=AmphoraStatus.READY)
    assert await store.transact(lambda tx: convergence.update_amphora(tx, lease, ready)) is None


async def test_a_lease_whose_time_is_over_records_nothing(store: Store, database: Path) -> None:
    tree = a_tree()
    await create(store, tree)
    lease = await claim_one(store)
    before = _dump(database)
    for work in (
        lambda tx: convergence.record_settled(tx, lease, 1, LATER + LEASE),
        lambda tx: convergence.record_fault(tx, lease, a_fault(), LATER + LEASE, report_error=True),
        lambda tx: convergence.postpone(tx, lease, RETRY, LATER + LEASE),
        lambda tx: convergence.record_deleted(tx, lease, LATER + LEASE),
        lambda tx: convergence.begin_replacement(tx, lease, LATER + LEASE),
    ):
        with pytest.raises(LeaseLost):
            await store.transact(work)
    assert _dump(database) == before


# --- settling


async def test_settling_makes_everything_active_and_ends_the_work(store: Store) -> None:
    tree = a_tree()
    await create(store, tree)
    lease = await claim_one(store)
    told = await store.transact(lambda tx: convergence.record_settled(tx, lease, 1, SOON))
    after = await stored(store, tree)
    assert told == after.load_balancer
    assert after.load_balancer.applied_generation == 1
    assert after.load_balancer.provisioning_status is _P.ACTIVE
    assert {x.provisioning_status for x in after.children()} == {_P.ACTIVE}
    assert not await _is_due(store)


async def test_settling_gives_monitors_policies_and_rules_the_status_that_was_asked(store: Store) -> None:
    tree = a_tree()
    off = tuple(replace(x, admin_state_up=False) for x in tree.l7_rules)
    await create(store, replace(tree, l7_rules=off))
    await _settle(store, await claim_one(store), 1)
    after = await stored(store, tree)
    assert {x.operating_status for x in after.health_monitors} == {OperatingStatus.ONLINE}
    assert {x.operating_status for x in after.l7_policies} == {OperatingStatus.ONLINE}
    assert {x.operating_status for x in after.l7_rules} == {OperatingStatus.OFFLINE}
    # Heartbeats speak for the others.
    assert {x.operating_status for x in (*after.listeners, *after.pools, *after.members)} == {OperatingStatus.OFFLINE}


async def test_an_edit_that_came_meanwhile_stays_pending_and_due(store: Store) -> None:
    tree = a_tree(members=2)
    await create(store, tree)
    lease = await claim_one(store)
    await edit(store, tree, SOON, members=(replace(tree.members[0], weight=9),))
    await _settle(store, lease, 1)
    after = await stored(store, tree)
    assert [x.provisioning_status for x in after.members] == [_P.PENDING_UPDATE, _P.ACTIVE]
    assert after.load_balancer.provisioning_status is _P.PENDING_UPDATE
    assert (after.load_balancer.generation, after.load_balancer.applied_generation) == (2, 1)
    await store.transact(lambda tx: leases.release(tx, lease))
    await _settle(store, await claim_one(store, SOON), 2)
    after = await stored(store, tree)
    assert status_of(after, Kind.MEMBER) == {_P.ACTIVE}
    assert after.load_balancer.provisioning_status is _P.ACTIVE
    assert not await _is_due(store)


async def test_a_deletion_is_carried_out_with_what_hangs_on_it(store: Store) -> None:
    tree = a_tree(pools=2, members=4)
    await create(store, tree)
    await _settle(store, await claim_one(store), 1)

    def delete_pool(tx: Transaction) -> None:
        before = trees.read_tree(tx, tree.id, for_update=True)
        assert before is not None
        pool = replace(before.pools[0], delete_requested=True, changed_generation=2)
        load_balancer = replace(before.load_balancer, generation=2, provisioning_status=_P.PENDING_UPDATE)
        trees.write_tree(tx, before, replace(before, load_balancer=load_balancer, pools=(pool, *before.pools[1:])))

    await store.transact(delete_pool)
    lease = await claim_one(store, LATER + LEASE)
    await store.transact(lambda tx: convergence.record_settled(tx, lease, 2, LATER + LEASE))
    after = await stored(store, tree)
    assert after.pools == (replace(tree.pools[1], provisioning_status=_P.ACTIVE),)
    assert {x.pool_id for x in after.members} == {tree.pools[1].id}
    assert len(after.members) == 2
    assert after.health_monitors == ()
    assert [x.default_pool_id for x in after.listeners] == [None]


async def test_a_deletion_asked_for_meanwhile_is_not_carried_out_yet(store: Store) -> None:
    tree = a_tree(members=2)
    await create(store, tree)
    lease = await claim_one(store)
    await edit(store, tree, SOON, members=(tree.members[0],), delete_requested=True)
    await _settle(store, lease, 1)
    after = await stored(store, tree)
    assert [(x.provisioning_status, x.delete_requested) for x in after.members] == [
        (_P.PENDING_DELETE, True),
        (_P.ACTIVE, False),
    ]


async def test_an_error_heals_when_its_cause_is_gone(store: Store) -> None:
    tree = a_tree()
    await create(store, tree)
    lease = await claim_one(store)
    fault = a_fault(retry_at=RETRY, about=tree.listeners[0])
    await store.transact(lambda tx: convergence.record_fault(tx, lease, fault, SOON, report_error=True))
    failed = await stored(store, tree)
    assert failed.load_balancer.provisioning_status is _P.ERROR
    assert failed.load_balancer.fault == fault
    assert failed.listeners[0].fault == fault
    assert {x.provisioning_status for x in failed.children()} == {_P.ERROR}
    await _settle(store, lease, 1)
    healed = await stored(store, tree)
    assert healed.load_balancer.provisioning_status is _P.ACTIVE
    assert healed.load_balancer.fault is None
    assert {(x.provisioning_status, x.fault) for x in healed.children()} == {(_P.ACTIVE, None)}


async def test_what_could_not_be_carried_is_in_error_and_the_rest_is_active(store: Store) -> None:
    tree = a_tree(listeners=3)
    await create(store, tree)
    lease = await claim_one(store)
    first = a_fault(retry_at=RETRY + timedelta(minutes=5), about=tree.listeners[1], code="port_in_use")
    second = a_fault(retry_at=RETRY, code="port_refused")  # which kind it is of is found out
    excluding: dict[str, Fault] = {tree.listeners[1].id: first, tree.listeners[2].id: second}
    told = await store.transact(lambda tx: convergence.record_settled(tx, lease, 1, SOON, excluding=excluding))
    after = await stored(store, tree)
    assert told == after.load_balancer
    assert (told.provisioning_status, told.applied_generation, told.fault) == (_P.ACTIVE, 1, first)
    assert [(x.provisioning_status, x.fault) for x in after.listeners] == [
        (_P.ACTIVE, None),
        (_P.ERROR, first),
        (_P.ERROR, second),
    ]
    await store.transact(lambda tx: leases.release(tx, lease))
    assert await store.read(leases.next_due) == RETRY


async def test_permanent_exclusions_wait_for_the_user(store: Store) -> None:
    tree = a_tree()
    await create(store, tree)
    lease = await claim_one(store)
    excluding: dict[str, Fault] = {tree.listeners[0].id: a_fault(permanent=True, about=tree.listeners[0])}
    await store.transact(lambda tx: convergence.record_settled(tx, lease, 1, SOON, excluding=excluding))
    assert not await _is_due(store)


async def test_an_excluded_child_that_was_edited_meanwhile_gets_its_chance(store: Store) -> None:
    tree = a_tree(members=1)
    await create(store, tree)
    lease = await claim_one(store)
    await edit(store, tree, SOON, members=(replace(tree.members[0], weight=9),))
    excluding: dict[str, Fault] = {tree.members[0].id: a_fault(permanent=True, about=tree.members[0])}
    await store.transact(lambda tx: convergence.record_settled(tx, lease, 1, SOON, excluding=excluding))
    (member,) = (await stored(store, tree)).members
    assert (member.provisioning_status, member.fault) == (_P.PENDING_UPDATE, None)
    assert await _is_due(store)


async def test_a_generation_that_was_never_asked_for_is_refused(store: Store) -> None:
    await create(store, a_tree())
    lease = await claim_one(store)
    with pytest.raises(Bug):
        await _settle(store, lease, 2)


# --- faults


@pytest.mark.parametrize(
    "permanent, due", [pytest.param(False, True, id="transient"), pytest.param(True, False, id="permanent")]
)
async def test_a_fault_says_when_it_is_tried_again(store: Store, permanent: bool, due: bool) -> None:
    tree = a_tree()
    await create(store, tree)
    lease = await claim_one(store)
    fault = a_fault(retry_at=None if permanent else RETRY, permanent=permanent)
    await store.transact(lambda tx: convergence.record_fault(tx, lease, fault, SOON, report_error=False))
    await store.transact(lambda tx: leases.release(tx, lease))
    assert await store.read(leases.next_due) == (RETRY if due else None)
    after = await stored(store, tree)
    assert (after.load_balancer.fault, after.load_balancer.provisioning_status) == (fault, _P.PENDING_CREATE)
    assert {x.provisioning_status for x in after.children()} == {_P.PENDING_CREATE}


async def test_the_edit_that_mends_a_permanent_fault_is_not_lost_to_its_recording(store: Store) -> None:
    """The user mends it while the controller still fails on what was there before."""
    tree = a_tree(members=2)
    await create(store, tree)
    lease = await claim_one(store)
    await edit(store, tree, SOON, members=(replace(tree.members[0], address="203.0.113.1"),))
    await store.transact(
        lambda tx: convergence.record_fault(tx, lease, a_fault(permanent=True), SOON, report_error=True)
    )
    await store.transact(lambda tx: leases.release(tx, lease))
    assert len(await claim(store, SOON)) == 1
    after = await stored(store, tree)
    assert after.load_balancer.provisioning_status is _P.PENDING_UPDATE
    assert [x.provisioning_status for x in after.members] == [_P.PENDING_UPDATE, _P.ERROR]


async def test_a_deletion_that_failed_stays_asked_for(store: Store) -> None:
    tree = a_tree(members=2)
    await create(store, tree)
    await edit(store, tree, SOON, members=(tree.members[0],), delete_requested=True)
    lease = await claim_one(store, SOON)
    await store.transact(
        lambda tx: convergence.record_fault(tx, lease, a_fault(retry_at=RETRY), SOON, report_error=True)
    )
    (member, _) = (await stored(store, tree)).members
    assert (member.provisioning_status, member.delete_requested) == (_P.ERROR, True)
    await _settle(store, lease, 2)
    assert [x.id for x in (await stored(store, tree)).members] == [tree.members[1].id]


# --- amphorae, replacement, deletion


async def test_an_amphora_is_updated_by_its_value(store: Store) -> None:
    tree = a_tree()
    await create(store, tree)
    lease = await claim_one(store)
    amphora = an_amphora(tree)
    await store.transact(lambda tx: convergence.add_amphora(tx, lease, amphora))
    booting = replace(amphora, status=AmphoraStatus.BOOTING, management_address="127.0.0.5:9443", updated_at=SOON)
    await store.transact(lambda tx: convergence.update_amphora(tx, lease, booting))
    assert (await stored(store, tree)).amphorae == (booting,)
    wrong = replace(booting, status=AmphoraStatus.DELETED)
    with pytest.raises(Bug):
        await store.transact(lambda tx: convergence.update_amphora(tx, lease, wrong))
    with pytest.raises(Bug):
        await store.transact(lambda tx: convergence.update_amphora(tx, lease, an_amphora(tree)))
    with pytest.raises(Bug):
        await store.transact(lambda tx: convergence.add_amphora(tx, lease, an_amphora(a_tree())))


async def test_updating_an_amphora_undoes_nothing_that_was_heard_meanwhile(store: Store) -> None:
    tree = a_tree()
    await create(store, tree)
    lease = await claim_one(store)
    amphora = an_amphora(tree, AmphoraStatus.ALLOCATED)
    await store.transact(lambda tx: convergence.add_amphora(tx, lease, amphora))
    await store.transact(lambda tx: health.write_seen(tx, [amphora.id], SOON))
    await store.transact(lambda tx: health.suspect(tx, [amphora.id], SOON))
    stale = replace(amphora, compute_id="c1")
    await store.transact(lambda tx: convergence.update_amphora(tx, lease, stale))
    (after,) = (await stored(store, tree)).amphorae
    assert (after.compute_id, after.seen_at, after.suspected_at) == ("c1", SOON, SOON)


async def test_a_suspicion_that_was_looked_into_is_cleared(store: Store) -> None:
    tree = a_tree()
    await create(store, tree)
    lease = await claim_one(store)
    amphora = an_amphora(tree, AmphoraStatus.ALLOCATED)
    await store.transact(lambda tx: convergence.add_amphora(tx, lease, amphora))
    await store.transact(lambda tx: health.suspect(tx, [amphora.id], SOON))
    await store.transact(lambda tx: leases.release(tx, lease))
    lease = await claim_one(store, SOON)
    (suspected,) = (await stored(store, tree)).amphorae
    cleared = replace(suspected, suspected_at=None)
    await store.transact(lambda tx: convergence.update_amphora(tx, lease, cleared))
    assert (await stored(store, tree)).amphorae == (cleared,)


async def test_a_suspicion_that_arises_during_the_work_keeps_it_due(store: Store) -> None:
    tree = a_tree()
    await create(store, tree)
    lease = await claim_one(store)
    amphora = an_amphora(tree, AmphoraStatus.ALLOCATED)
    await store.transact(lambda tx: convergence.add_amphora(tx, lease, amphora))
    await store.transact(lambda tx: health.suspect(tx, [amphora.id], SOON))
    await _settle(store, lease, 1)
    await store.transact(lambda tx: leases.release(tx, lease))
    again = await claim_one(store, SOON)
    # Heard of again, but it is the same suspicion, which this work has seen.
    await store.transact(lambda tx: health.suspect(tx, [amphora.id], SOON))
    await store.transact(lambda tx: convergence.record_settled(tx, again, 1, SOON))
    assert not await _is_due(store)


async def test_a_replacement_moves_the_generation_and_is_settled_by_its_maker(store: Store) -> None:
    tree = a_tree()
    await create(store, tree)
    lease = await claim_one(store)
    await _settle(store, lease, 1)
    assert await store.transact(lambda tx: convergence.begin_replacement(tx, lease, SOON)) == 2
    moved = (await stored(store, tree)).load_balancer
    assert (moved.generation, moved.provisioning_status) == (2, _P.PENDING_UPDATE)
    assert await _is_due(store)
    await _settle(store, lease, 2)
    assert (await stored(store, tree)).load_balancer.provisioning_status is _P.ACTIVE
    assert not await _is_due(store)


async def test_a_replacement_that_fails_for_good_is_not_tried_for_ever(store: Store) -> None:
    tree = a_tree()
    await create(store, tree)
    lease = await claim_one(store)
    await store.transact(lambda tx: convergence.begin_replacement(tx, lease, SOON))
    await store.transact(
        lambda tx: convergence.record_fault(tx, lease, a_fault(permanent=True), SOON, report_error=True)
    )
    assert (await stored(store, tree)).load_balancer.provisioning_status is _P.ERROR
    assert not await _is_due(store)


async def test_a_deleted_load_balancer_is_hidden_then_purged(store: Store, database: Path) -> None:
    tree, other = a_tree(), a_tree(at=SOON)
    await create(store, tree, other)
    lease = await claim_one(store, LATER)
    await store.transact(lambda tx: convergence.add_amphora(tx, lease, an_amphora(tree)))

    def ask(tx: Transaction) -> None:
        before = trees.read_tree(tx, tree.id, for_update=True)
        assert before is not None
        wish = replace(before.load_balancer, generation=2, delete_requested=True, provisioning_status=_P.PENDING_DELETE)
        trees.write_tree(tx, before, replace(before, load_balancer=wish))

    await store.transact(ask)
    with pytest.raises(Bug):
        await _settle(store, lease, 2)
    await store.transact(lambda tx: convergence.record_deleted(tx, lease, SOON))
    await store.transact(lambda tx: leases.release(tx, lease))
    assert await store.read(lambda tx: trees.read_tree(tx, tree.id)) is None
    assert (await store.read(inventory.known)).load_balancers == {other.id}
    assert len((await stored(store, other)).members) == 2
    with behind(database) as sql:
        assert sql.execute(
            "SELECT provisioning_status, due_at FROM load_balancer WHERE id = ?", [tree.id]
        ).fetchall() == [("DELETED", None)]
        assert sql.execute("SELECT status FROM amphora").fetchall() == [("DELETED",)]
        assert sql.execute("SELECT count(*) FROM member WHERE load_balancer_id = ?", [tree.id]).fetchone() == (0,)
    assert await store.transact(lambda tx: convergence.purge_deleted(tx, SOON)) == 0
    assert await store.transact(lambda tx: convergence.purge_deleted(tx, SOON + timedelta(microseconds=1))) == 2
    with behind(database) as sql:
        assert sql.execute("SELECT id FROM load_balancer").fetchall() == [(other.id,)]
