"""Limits hold by counting rows, whoever else counts at the same time."""

from __future__ import annotations

import asyncio
import json

import pytest

from frontinus.model.enums import Kind
from frontinus.model.errors import OverQuota
from frontinus.model.ids import ProjectId
from frontinus.model.quotas import Limits
from frontinus.store import convergence, listing, quotas
from frontinus.store.engine import Store
from frontinus.store.listing import Query

from tests.integration.store.world import LATER, NOW, a_tree, claim_one, create, edit, start_python, stored

pytestmark = pytest.mark.integration

OURS = ProjectId("p")
NO_LIMITS = Limits()


async def test_a_project_without_limits_gets_no_record(store: Store) -> None:
    await store.transact(lambda tx: quotas.require_room(tx, OURS, {Kind.MEMBER: 10_000}, NO_LIMITS, NOW))
    assert await store.read(lambda tx: listing.get_quota(tx, OURS)) is None


async def test_what_there_is_counts_and_what_would_come(store: Store) -> None:
    await create(store, a_tree(members=3), a_tree(members=2, project="other"))
    await store.transact(lambda tx: quotas.change(tx, OURS, {Kind.MEMBER: 5}, NOW))
    await store.transact(lambda tx: quotas.require_room(tx, OURS, {Kind.MEMBER: 2}, NO_LIMITS, NOW))
    with pytest.raises(OverQuota) as caught:
        await store.transact(lambda tx: quotas.require_room(tx, OURS, {Kind.MEMBER: 3}, NO_LIMITS, NOW))
    assert (caught.value.field, "has 3" in caught.value.reason) == ("member", True)


async def test_a_default_holds_until_the_project_has_its_own_limit(store: Store) -> None:
    await create(store, a_tree())
    none = Limits(load_balancer=1)
    with pytest.raises(OverQuota):
        await store.transact(lambda tx: quotas.require_room(tx, OURS, {Kind.LOAD_BALANCER: 1}, none, NOW))
    await store.transact(lambda tx: quotas.change(tx, OURS, {Kind.LOAD_BALANCER: 2}, NOW))
    await store.transact(lambda tx: quotas.require_room(tx, OURS, {Kind.LOAD_BALANCER: 1}, none, NOW))
    assert await store.transact(lambda tx: quotas.reset(tx, OURS))
    with pytest.raises(OverQuota):
        await store.transact(lambda tx: quotas.require_room(tx, OURS, {Kind.LOAD_BALANCER: 1}, none, NOW))


async def test_what_is_being_deleted_counts_until_it_is_gone(store: Store) -> None:
    tree = a_tree(members=2)
    await create(store, tree)
    lease = await claim_one(store)
    await edit(store, tree, LATER, members=tree.members[:1], delete_requested=True)
    await store.transact(lambda tx: quotas.change(tx, OURS, {Kind.MEMBER: 2}, NOW))
    with pytest.raises(OverQuota):
        await store.transact(lambda tx: quotas.require_room(tx, OURS, {Kind.MEMBER: 1}, NO_LIMITS, NOW))

    await store.transact(lambda tx: convergence.record_settled(tx, lease, 2, LATER))
    assert len((await stored(store, tree)).members) == 1
    await store.transact(lambda tx: quotas.require_room(tx, OURS, {Kind.MEMBER: 1}, NO_LIMITS, NOW))


async def test_resetting_a_project_without_record_says_so(store: Store) -> None:
    assert not await store.transact(lambda tx: quotas.reset(tx, OURS))


async def test_records_are_listed_unset_limits_as_unset(store: Store) -> None:
    await store.transact(lambda tx: quotas.change(tx, OURS, {Kind.POOL: 7}, NOW))
    await store.transact(lambda tx: quotas.change(tx, ProjectId("other"), {}, NOW))
    found = await store.read(lambda tx: listing.list_quotas(tx, Query(sort=(("pool", True),))))
    assert [(x.value.project_id, x.value.pool, x.value.member) for x in found] == [
        ("p", 7, None),
        ("other", None, None),
    ]
    page = await store.read(lambda tx: listing.list_quotas(tx, Query(marker="other")))
    assert [x.value.project_id for x in page] == ["p"], "records are known by their project"
    only = await store.read(lambda tx: listing.list_quotas(tx, Query(project_id=OURS)))
    assert [x.value.project_id for x in only] == ["p"]


RACER = """
import asyncio, json, sys
from frontinus.model.enums import Kind
from frontinus.model.errors import OverQuota
from frontinus.model.ids import ProjectId
from frontinus.model.quotas import Limits
from frontinus.store import quotas, trees
from frontinus.store.engine import Store
from tests.integration.store.world import NOW, a_tree

async def race(store):
    made = 0
    for _ in range(10):
        tree = a_tree(listeners=0, pools=0, members=0)
        def work(tx):
            quotas.require_room(tx, ProjectId("p"), {Kind.LOAD_BALANCER: 1}, Limits(load_balancer=7), NOW)
            trees.create_tree(tx, tree)
        try:
            await store.transact(work)
            made += 1
        except OverQuota:
            pass
    return made

store = Store.open(sys.argv[1])
print(json.dumps(asyncio.run(race(store))))
"""


@pytest.mark.engines
async def test_processes_that_race_get_exactly_the_limit(store: Store, database_url: str) -> None:
    racers = [await start_python(RACER, database_url) for _ in range(5)]
    answers = await asyncio.gather(*(x.communicate() for x in racers))
    assert sum(json.loads(output) for output, _ in answers) == 7
    count = await store.read(lambda tx: len(listing.list_load_balancers(tx, Query())))
    assert count == 7
