"""Trees come back as they went in, and an edit writes nothing but what it changed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import partial
from pathlib import Path
from types import UnionType
from typing import Any, NewType, get_args, get_origin

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import fields, replace

from frontinus.model.enums import AmphoraStatus, Kind, OperatingStatus, ProvisioningStatus
from frontinus.model.errors import Bug
from frontinus.model.ids import LoadBalancerId
from frontinus.model.tree import LoadBalancerTree
from frontinus.store import convergence, health, trees
from frontinus.store.engine import Store, Transaction

from tests.integration.store.world import (
    LATER,
    NOW,
    a_tree,
    an_amphora,
    behind,
    claim_one,
    create,
    edit,
    statements,
    stored,
)

pytestmark = pytest.mark.integration

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
_BRANCHES = ("listeners", "pools", "members", "health_monitors", "l7_policies", "l7_rules")
_STRUCTURE = {"id", "load_balancer_id", "pool_id", "listener_id", "l7_policy_id", "default_pool_id", "redirect_pool_id"}


def _any(annotation: Any) -> st.SearchStrategy[Any]:
    """Any value of a field, whether or not it makes sense to a load balancer."""
    while isinstance(annotation, NewType):
        annotation = annotation.__supertype__
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is UnionType or type(None) in arguments:
        return st.none() | st.one_of(*[_any(x) for x in arguments if x is not type(None)])
    if origin is tuple:
        return st.lists(_any(arguments[0]), max_size=3).map(tuple)
    if origin is dict:
        return st.dictionaries(_any(arguments[0]), _any(arguments[1]), max_size=3)
    if annotation is datetime:
        return st.datetimes(timezones=st.just(UTC))
    if annotation is bool:
        return st.booleans()
    if annotation is int:
        return st.integers(-(2**63), 2**63 - 1)
    if annotation is float:
        return st.floats(allow_nan=False)
    if annotation is str:
        return _TEXT
    if issubclass(annotation, StrEnum):
        return st.sampled_from(annotation)
    assert issubclass(annotation, msgspec.Struct), annotation
    return st.builds(annotation, **{x.name: _any(x.type) for x in fields(annotation)})


@st.composite
def _filled(draw: st.DrawFn) -> LoadBalancerTree:
    """A tree of ordinary shape, every other field of which holds anything; children in the order of their age."""
    tree = a_tree(listeners=2, pools=2, members=3)

    def anything(value: Any) -> Any:
        free = [x for x in fields(value) if x.name not in _STRUCTURE]
        return replace(value, **{x.name: draw(_any(x.type)) for x in free})

    load_balancer = anything(tree.load_balancer)
    if load_balancer.provisioning_status is ProvisioningStatus.DELETED:
        load_balancer = replace(load_balancer, provisioning_status=ProvisioningStatus.ERROR)
    branches: dict[str, Any] = {
        name: tuple(sorted((anything(x) for x in getattr(tree, name)), key=lambda x: (x.created_at, x.id)))
        for name in _BRANCHES
    }
    return LoadBalancerTree(load_balancer=load_balancer, **branches)


@pytest.fixture(scope="module")
def shared() -> Iterator[Store]:
    """One store for all examples: their ids differ."""
    store = Store.open("sqlite://")
    store.upgrade()
    yield store
    asyncio.run(store.close())


@settings(max_examples=25, deadline=None)
@given(tree=_filled(), edited=_filled())
def test_any_tree_comes_back_as_it_was_written(shared: Store, tree: LoadBalancerTree, edited: LoadBalancerTree) -> None:
    # The same objects with every field changed at once.
    branches: dict[str, Any] = {
        name: tuple(
            _with_values_of(mine, other) for mine, other in zip(getattr(tree, name), getattr(edited, name), strict=True)
        )
        for name in _BRANCHES
    }
    after = LoadBalancerTree(load_balancer=_with_values_of(tree.load_balancer, edited.load_balancer), **branches)

    def write(tx: Transaction) -> None:
        before = trees.read_tree(tx, tree.id, for_update=True)
        assert before is not None
        trees.write_tree(tx, before, after)

    async def story() -> None:
        await create(shared, tree)
        assert await stored(shared, tree) == tree
        await shared.transact(write)
        assert _by_id(await stored(shared, tree)) == _by_id(after)

    asyncio.run(story())


def _with_values_of(mine: Any, other: Any) -> Any:
    return replace(mine, **{x.name: getattr(other, x.name) for x in fields(mine) if x.name not in _STRUCTURE})


def _by_id(tree: LoadBalancerTree) -> dict[str, object]:
    return {x.id: x for x in (tree.load_balancer, *tree.children())}


async def test_an_unknown_load_balancer_is_none(store: Store) -> None:
    assert await store.read(lambda tx: trees.read_tree(tx, LoadBalancerId("none"))) is None


async def test_an_edit_leaves_alone_what_it_does_not_change(store: Store, database: Path) -> None:
    tree = a_tree(members=3)
    await create(store, tree)

    def work(tx: Transaction) -> None:
        before = trees.read_tree(tx, tree.id, for_update=True)
        assert before is not None
        # What health sees between the reading and the writing of an edit must survive it.
        ids: dict[str, OperatingStatus] = {x.id: OperatingStatus.ERROR for x in before.members}
        health.write_operating_statuses(tx, {Kind.MEMBER: ids, Kind.LOAD_BALANCER: {tree.id: OperatingStatus.DEGRADED}})
        first = replace(before.members[0], weight=7, name="edited")
        load_balancer = replace(before.load_balancer, generation=2, updated_at=LATER)
        trees.write_tree(tx, before, replace(before, load_balancer=load_balancer, members=(first, *before.members[1:])))

    await store.transact(work)
    after = await stored(store, tree)
    assert [x.weight for x in after.members] == [7, 1, 1]
    assert {x.operating_status for x in after.members} == {OperatingStatus.ERROR}
    assert after.load_balancer.operating_status is OperatingStatus.DEGRADED
    with behind(database) as sql:
        (due,) = sql.execute("SELECT due_at FROM load_balancer").fetchone()
    # It waited already, and keeps its place.
    assert due == (NOW - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


async def test_an_edit_that_changes_nothing_writes_nothing(store: Store) -> None:
    tree = a_tree()
    await create(store, tree)
    before = await stored(store, tree)
    same = replace(before, members=tuple(replace(x) for x in before.members))
    with statements(store) as seen:
        await store.transact(lambda tx: trees.write_tree(tx, before, same))
    assert seen == []


async def test_a_tree_that_was_changed_since_it_was_read_is_not_overwritten(store: Store) -> None:
    tree = a_tree()
    await create(store, tree)
    stale = await stored(store, tree)
    await edit(store, tree, LATER)
    mine = replace(stale, load_balancer=replace(stale.load_balancer, generation=2, name="mine"))
    with pytest.raises(Bug):
        await store.transact(lambda tx: trees.write_tree(tx, stale, mine))
    assert (await stored(store, tree)).load_balancer.name == "web"


async def test_an_absent_object_is_refused_because_deletion_is_a_flag(store: Store) -> None:
    tree = a_tree(members=2)
    await create(store, tree)
    before = await stored(store, tree)
    with pytest.raises(Bug):
        await store.transact(lambda tx: trees.write_tree(tx, before, replace(before, members=before.members[:1])))
    assert len((await stored(store, tree)).members) == 2


async def test_a_failed_creation_leaves_nothing(store: Store) -> None:
    tree = a_tree()
    orphan = replace(tree, pools=())  # members whose pool does not exist
    with pytest.raises(Bug):
        await create(store, orphan)
    assert await store.read(lambda tx: trees.read_tree(tx, tree.id)) is None


@pytest.mark.parametrize("size", [0, 1, 40])
async def test_a_tree_is_read_in_eight_selects(store: Store, size: int) -> None:
    tree = a_tree(listeners=size, pools=size, members=size * 3)
    await create(store, tree)
    with statements(store) as seen:
        assert len((await stored(store, tree)).members) == size * 3
    assert len(seen) == 8


async def test_a_tree_is_read_again_in_two_selects_while_nothing_is_asked(store: Store) -> None:
    tree = a_tree()
    await create(store, tree)
    lease = await claim_one(store)
    before = await stored(store, tree)
    amphora = an_amphora(tree)
    await store.transact(partial(convergence.add_amphora, lease=lease, amphora=amphora))
    with statements(store) as seen:
        again = await store.read(lambda tx: trees.read_again(tx, before))
    assert len(seen) == 2
    assert again == replace(before, amphorae=(amphora,))


async def test_what_was_asked_meanwhile_is_read_again(store: Store) -> None:
    tree = a_tree()
    await create(store, tree)
    before = await stored(store, tree)
    await edit(store, tree, LATER, members=(replace(tree.members[0], weight=77),))
    again = await store.read(lambda tx: trees.read_again(tx, before))
    assert again is not None
    assert (again.load_balancer.generation, again.members[0].weight) == (2, 77)


async def test_what_was_settled_meanwhile_is_read_again(store: Store) -> None:
    tree = a_tree()
    await create(store, tree)
    lease = await claim_one(store)
    before = await stored(store, tree)
    with statements(store) as seen:
        await store.transact(lambda tx: convergence.record_settled(tx, lease, 1, LATER, tree=before))
    # The lease, a statement for each kind of object that the tree has, and the load balancer.
    assert len(seen) == 2 + len({x.kind for x in tree.children()})
    again = await store.read(lambda tx: trees.read_again(tx, before))
    assert again == await stored(store, tree)
    assert {x.provisioning_status for x in again.children()} == {ProvisioningStatus.ACTIVE}


@pytest.mark.parametrize("count", [1, 7, 60])
async def test_many_trees_are_read_in_the_same_eight_selects(store: Store, count: int) -> None:
    many = [a_tree(members=2) for _ in range(count)]
    await create(store, *many)
    wanted = [x.id for x in many]
    with statements(store) as seen:
        found = await store.read(lambda tx: trees.read_trees(tx, [*wanted, LoadBalancerId("unknown"), wanted[0]]))
    assert len(seen) == 8
    assert found == {x.id: await stored(store, x) for x in many}


async def test_amphorae_come_with_the_tree_until_they_are_deleted(store: Store) -> None:
    tree = a_tree()
    await create(store, tree)
    lease = await claim_one(store)
    kept, gone = an_amphora(tree), an_amphora(tree, AmphoraStatus.PENDING_DELETE)
    for amphora in (kept, gone):
        await store.transact(partial(convergence.add_amphora, lease=lease, amphora=amphora))
    deleted = replace(gone, status=AmphoraStatus.DELETED)
    await store.transact(lambda tx: convergence.update_amphora(tx, lease, deleted))
    assert (await stored(store, tree)).amphorae == (kept,)


async def test_objects_know_their_load_balancer(store: Store) -> None:
    tree, other = a_tree(), a_tree()
    await create(store, tree, other)
    objects: list[Any] = [tree.load_balancer, *tree.children()]
    assert {x.kind for x in objects} == set(trees.SHAPE_OF)
    for each in objects:
        assert await store.read(partial(trees.load_balancer_of, kind=each.kind, object_id=each.id)) == tree.id
        assert await store.read(partial(trees.load_balancer_of, kind=each.kind, object_id="unknown")) is None
