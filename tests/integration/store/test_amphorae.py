"""Wishes about amphorae stay until they are obeyed, whatever a controller writes meanwhile."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import partial

import pytest
from msgspec.structs import replace

from frontinus.model.enums import AmphoraRole, AmphoraStatus
from frontinus.model.heartbeat import Counters, ListenerTraffic
from frontinus.model.tree import Amphora, LoadBalancerTree
from frontinus.store import amphorae, convergence, health, inventory, leases, listing
from frontinus.store.engine import Store
from frontinus.store.leases import Lease
from frontinus.store.listing import Query

from tests.integration.store.world import LATER, LEASE, NOW, a_tree, an_amphora, claim, claim_one, create, stored

pytestmark = pytest.mark.integration


async def made(store: Store, tree: LoadBalancerTree, *many: Amphora) -> Lease:
    await create(store, tree)
    lease = await claim_one(store)
    for each in many:
        await store.transact(partial(convergence.add_amphora, lease=lease, amphora=each))
    return lease


async def test_a_wish_survives_what_a_controller_writes_of_what_it_read_before(store: Store) -> None:
    tree = a_tree()
    amphora = an_amphora(tree, AmphoraStatus.ALLOCATED)
    lease = await made(store, tree, amphora)
    await store.transact(lambda tx: amphorae.request_replacement(tx, amphora.id, NOW))
    await store.transact(lambda tx: amphorae.request_push(tx, amphora.id, tree.id, LATER))
    await store.transact(lambda tx: convergence.update_amphora(tx, lease, replace(amphora, compute_id="7")))
    (now,) = (await stored(store, tree)).amphorae
    assert (now.compute_id, now.replacement_requested_at, now.push_requested_at) == ("7", NOW, LATER)


async def test_all_that_are_there_are_to_be_replaced(store: Store) -> None:
    tree, other = a_tree(), a_tree()
    going = an_amphora(tree, AmphoraStatus.PENDING_DELETE)
    here = [an_amphora(tree, x) for x in (AmphoraStatus.ALLOCATED, AmphoraStatus.BOOTING)]
    await made(store, tree, going, *here)
    elsewhere = an_amphora(other, AmphoraStatus.ALLOCATED)
    await made(store, other, elsewhere)
    await store.transact(lambda tx: amphorae.request_replacement_of_all(tx, tree.id, NOW))
    marks = {x.id: x.replacement_requested_at for x in (await stored(store, tree)).amphorae}
    assert marks == {going.id: None} | {x.id: NOW for x in here}
    assert (await stored(store, other)).amphorae[0].replacement_requested_at is None


async def test_a_push_makes_the_load_balancer_due(store: Store) -> None:
    tree = a_tree()
    amphora = an_amphora(tree, AmphoraStatus.ALLOCATED)
    lease = await made(store, tree, amphora)
    await store.transact(lambda tx: convergence.record_settled(tx, lease, 1, LATER))
    await store.transact(lambda tx: leases.release(tx, lease))
    assert await claim(store) == []
    await store.transact(lambda tx: amphorae.request_push(tx, amphora.id, tree.id, LATER))
    assert len(await claim(store, LATER + timedelta(seconds=1))) == 1


@pytest.mark.parametrize(
    "expected,now",
    [
        pytest.param(True, LATER, id="as long as the lease holds"),
        pytest.param(False, LATER + LEASE, id="not when it is over"),
        pytest.param(False, LATER - timedelta(hours=1), id="nor by a clock that was ahead"),
    ],
)
async def test_ports_may_change_while_somebody_works_there(store: Store, expected: bool, now: datetime) -> None:
    tree, other = a_tree(), a_tree()
    serving, going = an_amphora(tree, AmphoraStatus.ALLOCATED), an_amphora(tree, AmphoraStatus.PENDING_DELETE)
    await made(store, tree, serving, going)
    at_rest, silent = an_amphora(other, AmphoraStatus.ALLOCATED), an_amphora(other, AmphoraStatus.ALLOCATED)
    lease = await made(store, other, at_rest, silent)
    await store.transact(lambda tx: leases.release(tx, lease))
    await store.transact(lambda tx: health.suspect(tx, [silent.id], LATER))
    found = await store.read(lambda tx: inventory.hanging(tx, [x.id for x in (serving, going, at_rest, silent)], now))
    assert {x: y.is_changing for x, y in found.items()} == {serving.id: expected, at_rest.id: False}


async def test_only_an_amphora_in_error_is_removed(store: Store) -> None:
    tree = a_tree()
    broken, serving = an_amphora(tree, AmphoraStatus.ERROR), an_amphora(tree, AmphoraStatus.ALLOCATED)
    await made(store, tree, broken, serving)
    assert await store.transact(lambda tx: amphorae.request_removal(tx, broken.id, tree.id, LATER))
    assert not await store.transact(lambda tx: amphorae.request_removal(tx, serving.id, tree.id, LATER))
    statuses = {x.id: x.status for x in (await stored(store, tree)).amphorae}
    assert statuses == {broken.id: AmphoraStatus.PENDING_DELETE, serving.id: AmphoraStatus.ALLOCATED}


async def test_traffic_is_told_by_listener(store: Store) -> None:
    tree = a_tree(listeners=2)
    one, two = an_amphora(tree, AmphoraStatus.ALLOCATED), an_amphora(tree, AmphoraStatus.ALLOCATED)
    await made(store, tree, one, two)
    counters = Counters(bytes_in=1, bytes_out=2, active_connections=3, total_connections=4, request_errors=5)
    rows = [ListenerTraffic(listener_id=x.id, amphora_id=one.id, counters=counters) for x in tree.listeners]
    await store.transact(lambda tx: health.write_statistics(tx, rows))
    told = await store.read(lambda tx: amphorae.traffic_of(tx, one.id))
    assert {x.listener_id for x in told} == {x.id for x in tree.listeners}
    assert {(x.load_balancer_id, x.counters) for x in told} == {(tree.id, counters)}
    assert await store.read(lambda tx: amphorae.traffic_of(tx, two.id)) == []


async def test_amphorae_are_listed_with_the_address_that_they_serve(store: Store) -> None:
    tree = a_tree()
    master = replace(an_amphora(tree, AmphoraStatus.ALLOCATED), role=AmphoraRole.MASTER)
    backup = replace(an_amphora(tree, AmphoraStatus.ALLOCATED), role=AmphoraRole.BACKUP, created_at=LATER)
    gone = an_amphora(tree, AmphoraStatus.DELETED)
    await made(store, tree, master, backup, gone)
    other = a_tree()
    await made(store, other, an_amphora(other))
    vip = tree.load_balancer.vip

    async def ids(**wanted: object) -> list[str]:
        found = await store.read(lambda tx: listing.list_amphorae(tx, Query(filters=tuple(wanted.items()))))
        return [x.value.id for x in found]

    assert await ids(load_balancer_id=tree.id) == [master.id, backup.id]
    assert await ids(ha_port_id=vip.port_id) == [master.id, backup.id]
    assert await ids(vrrp_priority=100) == [master.id]
    assert len(await ids(vrrp_priority=None, load_balancer_id=other.id)) == 1
    shown = await store.read(lambda tx: listing.get_amphora(tx, master.id))
    assert shown is not None
    assert shown.references == {"ha_ip": (vip.address,), "ha_port_id": (vip.port_id,)}
    assert await store.read(lambda tx: listing.get_amphora(tx, gone.id)) is None


@pytest.mark.parametrize("column", ["ha_ip", "ha_port_id", "vrrp_priority", "status", "created_at"])
@pytest.mark.parametrize("descending", [False, True])
async def test_amphorae_are_paged_in_any_order(store: Store, column: str, descending: bool) -> None:
    ids = set()
    for number in range(3):
        tree = a_tree(at=NOW + timedelta(seconds=number))
        both = [
            replace(an_amphora(tree), role=x, created_at=tree.load_balancer.created_at)
            for x in (AmphoraRole.STANDALONE, AmphoraRole.BACKUP)
        ]
        await made(store, tree, *both)
        ids |= {x.id for x in both}
    seen: list[str] = []
    while True:
        query = Query(sort=((column, descending),), limit=4, marker=seen[-1] if seen else None)
        page = await store.read(partial(listing.list_amphorae, query=query))
        if not page:
            break
        seen += [x.value.id for x in page]
    assert len(seen) == 6
    assert set(seen) == ids
