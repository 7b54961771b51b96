"""Rollouts in the store: one for each driver, moved by one controller at a time, and what it looks at."""

from __future__ import annotations

from datetime import timedelta
from functools import partial

import pytest
from msgspec.structs import replace

from frontinus.model.capabilities import Capabilities
from frontinus.model.cohorts import CohortName
from frontinus.model.enums import AmphoraStatus
from frontinus.model.errors import Conflict, LeaseLost, NotFound
from frontinus.model.heartbeat import Counters, ListenerTraffic
from frontinus.model.ids import LoadBalancerId, ProjectId, new_id
from frontinus.model.rollouts import (
    Before,
    Gates,
    MoveState,
    Rollout,
    RolloutId,
    RolloutKind,
    RolloutState,
    Selection,
    Waves,
)
from frontinus.model.tree import LoadBalancerTree, Receipt
from frontinus.store import cohorts, convergence, health, leases, rollouts
from frontinus.store.engine import Store, Transaction

from tests.integration.store.world import DRIVER, LATER, LEASE, NOW, OURS, THEIRS, a_fault, a_tree, an_amphora, create

pytestmark = [pytest.mark.integration, pytest.mark.engines]

OLD, NEW = CohortName(DRIVER, "1"), CohortName(DRIVER, "2")


def a_rollout(driver: str = DRIVER, *, kind: RolloutKind = RolloutKind.DRIVER) -> Rollout:
    return Rollout(
        id=RolloutId(new_id()),
        kind=kind,
        driver=driver,
        target=NEW.driver_version,
        selection=Selection(),
        waves=Waves(),
        gates=Gates(),
        state=RolloutState.RUNNING,
        in_canary=True,
        wave_since=NOW,
        created_at=NOW,
        active_driver=driver,
    )


async def served(store: Store, *many: LoadBalancerTree) -> None:
    """Load balancers that the old cohort serves and that are settled, each with an amphora that has its configuration."""
    await create(store, *many)

    def work(tx: Transaction) -> None:
        for name in (OLD, NEW):
            cohorts.join(tx, name, "amphora", Capabilities(), None, NOW)
        cohorts.move(tx, [x.id for x in many], OLD, NOW)
        for lease in leases.claim_due(tx, OURS, OLD, LATER, LEASE, 100):
            tree = next(x for x in many if x.id == lease.load_balancer_id)
            receipt = Receipt(generation=1, digest="old", driver_version="1", applied_at=NOW)
            amphora = replace(an_amphora(tree, AmphoraStatus.ALLOCATED), receipt=receipt)
            convergence.add_amphora(tx, lease, amphora)
            convergence.record_settled(tx, lease, 1, LATER)
            leases.release(tx, lease)

    await store.transact(work)


async def started(store: Store, *many: LoadBalancerTree, rollout: Rollout | None = None) -> Rollout:
    made = rollout or a_rollout()
    await served(store, *many)
    await store.transact(lambda tx: rollouts.add(tx, made, [x.id for x in many]))
    return made


async def due(store: Store, cohort: CohortName) -> set[LoadBalancerId]:
    """Whom a controller of this cohort would work on now; it lets go of them again."""

    def work(tx: Transaction) -> set[LoadBalancerId]:
        claimed = leases.claim_due(tx, OURS, cohort, LATER, LEASE, 100)
        for lease in claimed:
            leases.release(tx, lease)
        return {x.load_balancer_id for x in claimed}

    return await store.transact(work)


async def test_what_is_written_is_read(store: Store) -> None:
    tree = a_tree()
    rollout = await started(store, tree)
    assert await store.read(partial(rollouts.get, rollout_id=rollout.id)) == rollout
    assert await store.read(partial(rollouts.latest, most=10)) == [rollout]
    (move,) = await store.read(partial(rollouts.moves, rollout_id=rollout.id))
    assert (move.load_balancer_id, move.state, move.position) == (tree.id, MoveState.WAITING, 0)
    with pytest.raises(NotFound):
        await store.read(partial(rollouts.get, rollout_id=RolloutId(new_id())))


async def test_a_driver_has_one_rollout_at_a_time(store: Store) -> None:
    rollout = await started(store, a_tree())
    with pytest.raises(Conflict, match=f"{rollout.id} of driver haproxy is running"):
        await store.transact(lambda tx: rollouts.add(tx, a_rollout(), []))
    await store.transact(lambda tx: rollouts.add(tx, a_rollout("nginx"), []))
    await store.transact(lambda tx: rollouts.change_state(tx, rollout, RolloutState.ABORTED, "", LATER))
    second = a_rollout()
    await store.transact(lambda tx: rollouts.add(tx, second, []))
    ended = await store.read(partial(rollouts.get, rollout_id=rollout.id))
    assert (ended.state, ended.ended_at, ended.active_driver) == (RolloutState.ABORTED, LATER, None)
    with pytest.raises(Conflict, match="end it first"):
        await store.transact(lambda tx: rollouts.change_state(tx, ended, RolloutState.ROLLING_BACK, "", LATER))


async def test_a_state_that_somebody_changed_meanwhile_is_not_overwritten(store: Store) -> None:
    rollout = await started(store, a_tree())
    await store.transact(lambda tx: rollouts.change_state(tx, rollout, RolloutState.PAUSED, "", NOW))
    with pytest.raises(Conflict, match="changed meanwhile"):
        await store.transact(lambda tx: rollouts.change_state(tx, rollout, RolloutState.FINISHED, "", NOW))


async def test_one_controller_moves_it_until_its_lease_is_over(store: Store) -> None:
    rollout = await started(store, a_tree())
    take = partial(rollouts.take, rollout_id=rollout.id, duration=LEASE)
    first = await store.transact(partial(take, owner=OURS, now=NOW))
    assert first is not None
    assert await store.transact(partial(take, owner=THEIRS, now=NOW + LEASE / 2)) is None
    held = partial(rollouts.held, duration=LEASE)
    assert (await store.transact(partial(held, hold=first, now=NOW + LEASE / 2))).id == rollout.id
    assert await store.transact(partial(take, owner=THEIRS, now=NOW + LEASE)) is None, "it was prolonged"
    second = await store.transact(partial(take, owner=THEIRS, now=NOW + 2 * LEASE))
    assert second is not None
    assert second.epoch > first.epoch
    with pytest.raises(LeaseLost):
        await store.transact(partial(held, hold=first, now=NOW + 2 * LEASE))


async def test_a_move_gives_it_to_the_new_cohort_and_a_rollback_gives_it_back(store: Store) -> None:
    one, other = a_tree(), a_tree()
    rollout = await started(store, one, other)
    before = Before(driver_version="1", operating_status=one.load_balancer.operating_status)
    await store.transact(lambda tx: rollouts.move(tx, rollout, {one.id: before}, LATER))
    assert await due(store, OLD) == set()
    assert await due(store, NEW) == {one.id}
    assert await store.read(partial(rollouts.counts, rollout_id=rollout.id)) == {
        MoveState.MOVED: 1,
        MoveState.WAITING: 1,
    }
    assert await store.read(partial(rollouts.versions_before, rollout_id=rollout.id)) == {"1"}
    (moved,) = await store.read(partial(rollouts.in_state, rollout_id=rollout.id, state=MoveState.MOVED, most=9))
    assert (moved.before, moved.moved_at) == (before, LATER)
    await store.transact(lambda tx: rollouts.give_back(tx, rollout, [moved], LATER))
    assert await due(store, NEW) == set()
    assert await due(store, OLD) == {one.id}


async def test_news_is_of_whom_no_controller_has_to_look_at_or_who_has_a_fault_or_waits_too_long(store: Store) -> None:
    trees = [a_tree() for _ in range(4)]
    quiet, settled, faulty, gone = (x.id for x in trees)
    rollout = await started(store, *trees)
    await store.transact(lambda tx: rollouts.move(tx, rollout, {x.id: Before() for x in trees}, LATER))

    def work(tx: Transaction) -> None:
        for lease in leases.claim_due(tx, OURS, NEW, LATER, LEASE, 100):
            if lease.load_balancer_id == settled:
                convergence.record_settled(tx, lease, 1, LATER)
            elif lease.load_balancer_id == faulty:
                fault = a_fault(retry_at=LATER + timedelta(seconds=9))
                convergence.record_fault(tx, lease, fault, LATER, report_error=False)
            elif lease.load_balancer_id == gone:
                convergence.record_settled(tx, lease, 1, LATER)

    await store.transact(work)
    ask = partial(rollouts.with_news, rollout_id=rollout.id, state=MoveState.MOVED, most=9)
    early = await store.read(partial(ask, overdue=LATER - timedelta(seconds=60)))
    assert {x.load_balancer_id for x in early} == {settled, faulty, gone}
    late = await store.read(partial(ask, overdue=LATER + timedelta(seconds=1)))
    assert {x.load_balancer_id for x in late} == {quiet, settled, faulty, gone}
    facts = await store.read(partial(rollouts.facts, load_balancer_ids=[settled, faulty]))
    assert facts[settled].is_settled
    assert facts[faulty].fault == "c: it did not work"
    assert not facts[faulty].is_settled


async def test_facts_tell_of_amphorae_and_traffic(store: Store) -> None:
    tree = a_tree()
    await served(store, tree)
    (amphora_id,) = [
        y.id
        for x in (await store.read(partial(rollouts.facts, load_balancer_ids=[tree.id]))).values()
        for y in x.amphorae
    ]
    traffic = ListenerTraffic(
        listener_id=tree.listeners[0].id,
        amphora_id=amphora_id,
        counters=Counters(bytes_in=1, bytes_out=2, active_connections=3, total_connections=400, request_errors=5),
        since=1,
    )

    def work(tx: Transaction) -> None:
        health.write_statistics(tx, [traffic])
        health.write_seen(tx, [amphora_id], LATER)
        health.suspect(tx, [amphora_id], LATER)

    await store.transact(work)
    unknown = LoadBalancerId(new_id())
    found = await store.read(partial(rollouts.facts, load_balancer_ids=[tree.id, unknown]))
    assert set(found) == {tree.id}
    facts = found[tree.id]
    assert (facts.driver_version, facts.connections, facts.errors) == ("1", 400, 5)
    (amphora,) = facts.amphorae
    assert (amphora.digest, amphora.seen_at, amphora.suspected) == ("old", LATER, True)


async def test_a_selection_covers_who_has_all_of_it(store: Store) -> None:
    mine, tagged, both = a_tree(project="mine"), a_tree(project="other"), a_tree(project="mine")
    tagged, both = (replace(x, load_balancer=replace(x.load_balancer, tags=("early",))) for x in (tagged, both))
    await served(store, mine, tagged, both)

    async def covered(selection: Selection) -> set[LoadBalancerId]:
        found = await store.read(lambda tx: rollouts.candidates(tx, DRIVER, selection))
        assert {x.driver_version for x in found} <= {"1"}
        return {x.load_balancer_id for x in found}

    assert await covered(Selection()) == {mine.id, tagged.id, both.id}
    assert await covered(Selection(project_id=ProjectId("mine"))) == {mine.id, both.id}
    assert await covered(Selection(tag="early")) == {tagged.id, both.id}
    assert await covered(Selection(project_id=ProjectId("mine"), tag="early")) == {both.id}
    assert await store.read(lambda tx: rollouts.candidates(tx, "nginx", Selection())) == []


@pytest.mark.parametrize("kind", [RolloutKind.IMAGE, RolloutKind.CERTIFICATES])
async def test_other_kinds_ask_of_the_amphorae(store: Store, kind: RolloutKind) -> None:
    tree = a_tree()
    rollout = await started(store, tree, rollout=a_rollout(kind=kind))
    await store.transact(lambda tx: rollouts.move(tx, rollout, {tree.id: Before(driver_version="1")}, LATER))
    (amphora,) = (await store.read(partial(rollouts.facts, load_balancer_ids=[tree.id])))[tree.id].amphorae
    assert (amphora.unwanted, amphora.renew_at) == ((True, None) if kind is RolloutKind.IMAGE else (False, LATER))
    assert await due(store, OLD) == ({tree.id} if kind is RolloutKind.IMAGE else set())
