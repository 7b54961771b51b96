"""Lists: any filter, any order, page by page, in a fixed number of statements."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from frontinus.model.enums import OperatingStatus, ProvisioningStatus
from frontinus.model.errors import Invalid
from frontinus.model.ids import ListenerId, LoadBalancerId, ProjectId, new_id
from frontinus.model.tree import LoadBalancer, LoadBalancerTree
from frontinus.store import listing, trees
from frontinus.store.engine import Store, Transaction
from frontinus.store.listing import Query

from tests.integration.store.world import NOW, a_tree, behind, create, statements, stored

pytestmark = pytest.mark.integration

LISTS: dict[str, tuple[Callable[..., list[Any]], Callable[..., Any]]] = {
    "listeners": (listing.list_listeners, listing.get_listener),
    "pools": (listing.list_pools, listing.get_pool),
    "members": (listing.list_members, listing.get_member),
    "health_monitors": (listing.list_health_monitors, listing.get_health_monitor),
    "l7_policies": (listing.list_l7_policies, listing.get_l7_policy),
    "l7_rules": (listing.list_l7_rules, listing.get_l7_rule),
}


async def _names(store: Store, **wanted: Any) -> list[str]:
    """The names of the load balancers on a page."""
    found = await store.read(lambda tx: listing.list_load_balancers(tx, Query(**wanted)))
    return [x.value.name for x in found]


async def _create_named(store: Store, names: str, **attributes: Any) -> dict[str, LoadBalancer]:
    """One load balancer per letter, each younger than the one before."""
    made = {}
    for number, name in enumerate(names):
        tree = a_tree(members=0, name=name, at=NOW + timedelta(seconds=number))
        tree = replace(tree, load_balancer=replace(tree.load_balancer, **attributes))
        await create(store, tree)
        made[name] = tree.load_balancer
    return made


# --- what is in a list


@pytest.mark.parametrize("kind", LISTS)
async def test_every_kind_is_listed_and_shown_as_it_is_in_the_tree(store: Store, kind: str) -> None:
    tree, other = a_tree(listeners=2, pools=2, members=3), a_tree(at=NOW + timedelta(seconds=1))
    await create(store, tree, other)
    list_them, get_one = LISTS[kind]
    both = getattr(tree, kind) + getattr(other, kind)
    assert [x.value for x in await store.read(partial(list_them, query=Query()))] == list(both)
    of_one = Query(filters=(("load_balancer_id", tree.id),))
    found = await store.read(partial(list_them, query=of_one))
    assert [x.value for x in found] == list(getattr(tree, kind))
    for each in found:
        assert await store.read(lambda tx: get_one(tx, each.value.id)) == each  # noqa: B023 - awaited at once
    assert await store.read(lambda tx: get_one(tx, "unknown")) is None


async def test_a_load_balancer_refers_to_its_listeners_and_pools(store: Store) -> None:
    tree, other = a_tree(listeners=2, pools=2), a_tree(listeners=0, pools=0, members=0)
    await create(store, tree, other)
    shown = await store.read(lambda tx: listing.get_load_balancer(tx, tree.id))
    assert shown is not None
    assert shown.value == tree.load_balancer
    assert shown.references == {
        "listeners": tuple(x.id for x in tree.listeners),
        "pools": tuple(x.id for x in tree.pools),
    }
    bare = await store.read(lambda tx: listing.get_load_balancer(tx, other.id))
    assert bare is not None
    assert bare.references == {"listeners": (), "pools": ()}
    listed = await store.read(lambda tx: listing.list_load_balancers(tx, Query()))
    assert {x.value.id: x for x in listed} == {tree.id: shown, other.id: bare}


async def test_a_pools_listeners_are_those_attached_to_it(store: Store) -> None:
    """By default pool or by an enabled policy with a rule, as the tree itself says."""
    tree = a_tree(listeners=3, pools=3, members=4)
    (policy,) = tree.l7_policies
    variants = {
        "enabled, with a rule": tree,
        "disabled": replace(tree, l7_policies=(replace(policy, admin_state_up=False),)),
        "without a rule": replace(tree, l7_rules=()),
        "default and policy": replace(tree, l7_policies=(replace(policy, redirect_pool_id=tree.pools[0].id),)),
    }
    for desc, variant in variants.items():
        store_of_its_own = Store.open("sqlite://")
        store_of_its_own.upgrade()
        await create(store_of_its_own, variant)
        for found in await store_of_its_own.read(lambda tx: listing.list_pools(tx, Query())):
            pool = found.value
            monitor = variant.health_monitor_of(pool.id)
            assert found.references == {
                "listeners": tuple(x.id for x in variant.listeners_of(pool.id)),
                "members": tuple(x.id for x in variant.members_of(pool.id)),
                "health_monitor": () if monitor is None else (monitor.id,),
            }, desc
        await store_of_its_own.close()


async def test_policies_are_named_by_position_and_rules_and_pools_too(store: Store) -> None:
    tree = a_tree()
    (policy,), (rule,) = tree.l7_policies, tree.l7_rules
    first = replace(policy, id="00000000-0000-4000-8000-000000000001", position=2)
    await create(store, replace(tree, l7_policies=(first, policy)))
    listener = await store.read(lambda tx: listing.get_listener(tx, tree.listeners[0].id))
    assert listener is not None
    assert listener.references == {"l7_policies": (policy.id, first.id)}
    shown = await store.read(lambda tx: listing.get_l7_policy(tx, policy.id))
    assert shown is not None
    assert shown.references == {"l7_rules": (rule.id,)}
    monitor = await store.read(lambda tx: listing.get_health_monitor(tx, tree.health_monitors[0].id))
    assert monitor is not None
    assert monitor.references == {"pools": (tree.pools[0].id,)}


async def test_deleted_load_balancers_are_hidden(store: Store, database: Path) -> None:
    made = await _create_named(store, "ab")
    with behind(database) as sql:
        sql.execute("UPDATE load_balancer SET provisioning_status = 'DELETED' WHERE name = 'a'")
    assert await _names(store) == ["b"]
    assert await store.read(lambda tx: listing.get_load_balancer(tx, made["a"].id)) is None
    assert await _names(store, marker=made["a"].id) == ["b"]  # paging goes on after a row that was deleted meanwhile


@pytest.mark.parametrize("count", [1, 40])
@pytest.mark.parametrize("kind, most", [("load_balancers", 3), ("pools", 4), ("listeners", 2), ("members", 1)])
async def test_a_page_costs_a_fixed_number_of_statements(store: Store, kind: str, most: int, count: int) -> None:
    await create(store, *[a_tree(at=NOW + timedelta(seconds=x)) for x in range(count)])
    list_them: Callable[..., list[Any]] = getattr(listing, f"list_{kind}")
    with statements(store) as seen:
        found = await store.read(partial(list_them, query=Query(limit=100)))
    assert len(found) >= count
    assert len(seen) == most


# --- filters and tags


async def test_filters_are_exact_and_all_of_them_hold(store: Store) -> None:
    await _create_named(store, "ab", admin_state_up=True)
    await _create_named(store, "bB", admin_state_up=False, flavor_id="f")
    assert await _names(store, filters=(("name", "b"),)) == ["b", "b"]
    assert await _names(store, filters=(("name", "b"), ("admin_state_up", False))) == ["b"]
    assert await _names(store, filters=(("flavor_id", None),)) == ["a", "b"]
    assert await _names(store, filters=(("flavor_id", "f"),)) == ["b", "B"]
    assert await _names(store, filters=(("vip_address", "192.0.2.2"),)) == []
    assert await _names(store, filters=(("operating_status", OperatingStatus.OFFLINE), ("name", "a"))) == ["a"]
    assert await _names(store, filters=(("created_at", NOW), ("name", "a"))) == ["a"]
    assert await _names(store, filters=(("name", "%"),)) == []


async def test_a_project_sees_only_its_own(store: Store) -> None:
    mine, theirs = a_tree(project="mine", name="m"), a_tree(project="theirs", name="t")
    await create(store, mine, theirs)
    assert await _names(store, project_id=ProjectId("mine")) == ["m"]
    with pytest.raises(Invalid) as caught:
        await _names(store, project_id=ProjectId("mine"), marker=theirs.id)
    assert caught.value.field == "marker"


@pytest.mark.parametrize(
    "wanted, field",
    [
        pytest.param({"filters": (("colour", "red"),)}, "colour", id="unknown column"),
        pytest.param({"filters": (("due_at", 1),)}, "due_at", id="a column of the store alone"),
        pytest.param({"filters": (("tags", "x"),)}, "tags", id="a column that is not one value"),
        pytest.param({"filters": (("generation", "one"),)}, "generation", id="value of another type"),
        pytest.param({"filters": (("topology", "RING"),)}, "topology", id="value outside a closed set"),
        pytest.param({"filters": (("name", NOW),)}, "name", id="a time where none belongs"),
        pytest.param({"sort": (("colour", False),)}, "colour", id="sorted by an unknown column"),
        pytest.param({"sort": (("fault", False),)}, "fault", id="sorted by a nested value"),
        pytest.param({"marker": "unknown"}, "marker", id="unknown marker"),
    ],
)
async def test_what_cannot_be_asked_is_refused_by_name(store: Store, wanted: dict[str, Any], field: str) -> None:
    await _create_named(store, "a")
    with pytest.raises(Invalid) as caught:
        await _names(store, **wanted)
    assert caught.value.field == field


AWKWARD = ('"', ",", '","', "a b", "%", "_", "\\", "é", "A", "a", "[]", "null", "1")


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(st.lists(st.sampled_from(AWKWARD), max_size=4, unique=True), min_size=1, max_size=6),
    wanted=st.fixed_dictionaries(
        {x: st.lists(st.sampled_from(AWKWARD), max_size=2) for x in ("tags", "tags_any", "not_tags", "not_tags_any")}
    ),
)
def test_tags_select_as_sets_do(shared: Store, rows: list[list[str]], wanted: dict[str, list[str]]) -> None:
    def keeps(tags: list[str]) -> bool:
        has = set(tags)
        return (
            set(wanted["tags"]) <= has
            and (not wanted["tags_any"] or bool(set(wanted["tags_any"]) & has))
            and not (wanted["not_tags"] and set(wanted["not_tags"]) <= has)
            and not set(wanted["not_tags_any"]) & has
        )

    project = ProjectId(new_id())

    async def story() -> None:
        for number, tags in enumerate(rows):
            await _create_named(shared, str(number), tags=tuple(tags), project_id=project)
        expected = {str(number) for number, tags in enumerate(rows) if keeps(tags)}
        asked = {name: tuple(tags) for name, tags in wanted.items()}
        assert set(await _names(shared, project_id=project, **asked)) == expected

    asyncio.run(story())


@pytest.fixture(scope="module")
def shared() -> Iterator[Store]:
    """One store for all examples of a property: each looks at a project of its own."""
    store = Store.open("sqlite://")
    store.upgrade()
    yield store
    asyncio.run(store.close())


# --- order and pages

_COLUMNS = ("name", "flavor_id", "availability_zone", "admin_state_up", "created_at", "generation")


_PLAIN = a_tree().load_balancer
_FEW = st.none() | st.sampled_from(["a", "b", ""])
_UNORDERED = st.lists(
    st.builds(
        lambda **drawn: replace(_PLAIN, **drawn),
        id=st.integers(0, 99).map(lambda x: f"{x:02}"),
        name=st.sampled_from("xyz"),
        flavor_id=_FEW,
        availability_zone=_FEW,
        admin_state_up=st.booleans(),
        created_at=st.integers(0, 2).map(lambda x: NOW + timedelta(microseconds=x)),
        generation=st.integers(1, 2),
    ),
    min_size=1,
    max_size=9,
    unique_by=lambda x: x.id,
)


def _in_order(values: list[LoadBalancer], sort: list[tuple[str, bool]]) -> list[str]:
    """What the list shall be: unset values first, ties broken by age and id in the direction of the last key."""
    ordered = sorted(values, key=lambda x: (x.created_at, x.id), reverse=bool(sort) and sort[-1][1])
    for name, descending in reversed(sort):

        def key(x: LoadBalancer, name: str = name) -> tuple[bool, Any]:
            value = getattr(x, name)
            return value is not None, value if value is not None else ""

        ordered.sort(key=key, reverse=descending)
    return [x.id for x in ordered]


@settings(max_examples=40, deadline=None)
@given(
    made=_UNORDERED,
    sort=st.lists(st.tuples(st.sampled_from(_COLUMNS), st.booleans()), max_size=3, unique_by=lambda x: x[0]),
    limit=st.integers(1, 4),
)
def test_pages_joined_are_the_whole_list_in_order(
    shared: Store, made: list[LoadBalancer], sort: list[tuple[str, bool]], limit: int
) -> None:
    project = ProjectId(new_id())
    # Ids whose order is the example's, and which no other example has.
    made = [replace(x, id=LoadBalancerId(f"{x.id}-{project}"[:36]), project_id=project) for x in made]

    async def page(**wanted: Any) -> list[str]:
        query = Query(sort=tuple(sort), project_id=project, **wanted)
        return [x.value.id for x in await shared.read(lambda tx: listing.list_load_balancers(tx, query))]

    async def story() -> None:
        await create(shared, *[LoadBalancerTree(load_balancer=x) for x in made])
        expected = _in_order(made, sort)
        assert await page() == expected
        joined: list[str] = []
        while found := await page(limit=limit, marker=joined[-1] if joined else None):
            assert len(found) <= limit
            joined += found
        assert joined == expected
        for place, marker in enumerate(expected):
            before = expected[max(place - limit, 0) : place]
            assert await page(limit=limit, marker=marker, reverse=True) == before

    asyncio.run(story())


async def test_what_is_inserted_between_two_pages_moves_nothing(store: Store) -> None:
    trees_made = [a_tree(members=0, at=NOW + timedelta(seconds=x)) for x in range(6)]
    await create(store, *trees_made)

    async def page(marker: LoadBalancerId | None) -> list[LoadBalancerId]:
        found = await store.read(lambda tx: listing.list_load_balancers(tx, Query(limit=3, marker=marker)))
        return [x.value.id for x in found]

    first = await page(None)
    older, younger = a_tree(at=NOW - timedelta(days=1)), a_tree(at=NOW + timedelta(days=1))
    await create(store, older, younger)
    second = await page(first[-1])
    third = await page(second[-1])
    assert [*first, *second, *third] == [*(x.id for x in trees_made), younger.id]


async def test_a_limit_without_a_marker_read_backward_is_the_end_of_the_list(store: Store) -> None:
    await _create_named(store, "abcd")
    assert await _names(store, limit=2, reverse=True) == ["c", "d"]


async def test_the_default_order_is_answered_by_an_index(store: Store, database: Path) -> None:
    await _create_named(store, "ab")
    made = await store.read(lambda tx: listing.list_load_balancers(tx, Query()))
    with statements(store) as seen:
        await _names(store, limit=10, marker=made[0].value.id, project_id=ProjectId("p"))
        await _names(store, limit=10, marker=made[0].value.id)
        await store.read(lambda tx: listing.list_members(tx, Query(limit=10)))
    pages = [x for x in seen if "LIMIT" in x]
    assert len(pages) == 3
    with behind(database) as sql:
        for text in pages:
            plan = " / ".join(str(x[3]) for x in sql.execute(f"EXPLAIN QUERY PLAN {text}", text.values))
            assert "USING INDEX" in plan
            assert "B-TREE" not in plan  # nothing is sorted


async def test_a_show_reads_what_a_tree_holds(store: Store) -> None:
    tree = a_tree()
    await create(store, tree)

    def ask(tx: Transaction) -> None:
        before = trees.read_tree(tx, tree.id, for_update=True)
        assert before is not None
        changed = replace(before.listeners[0], provisioning_status=ProvisioningStatus.PENDING_DELETE)
        trees.write_tree(tx, before, replace(before, listeners=(changed,)))

    await store.transact(ask)
    shown = await store.read(lambda tx: listing.get_listener(tx, ListenerId(tree.listeners[0].id)))
    assert shown is not None
    assert (shown.value,) == (await stored(store, tree)).listeners
