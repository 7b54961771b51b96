"""CPU of the store per operation on SQLite, in milliseconds: its part of the goals for the API (DESIGN section 10).

A load balancer here has 2 listeners, 2 pools, 20 members, a health monitor, a policy and a rule; 300 of them exist."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from pathlib import Path

from common import print_result
from msgspec.structs import replace

from frontinus.model.tree import LoadBalancerTree
from frontinus.store import convergence, health, leases, listing, trees
from frontinus.store.engine import Store, Transaction
from frontinus.store.listing import Query

from tests.integration.store.world import COHORT, LATER, LEASE, OURS, a_tree, an_amphora, create, register

COUNT = 300
HOUR = timedelta(hours=1)


async def cpu_ms(operation: Callable[[int], Awaitable[object]], times: int = COUNT, rounds: int = 3) -> float:
    """Mean over `times` calls, best of the rounds: other load on the machine only ever adds."""
    found = []
    for _ in range(rounds):
        before = time.process_time()
        for number in range(times):
            await operation(number)
        found.append((time.process_time() - before) / times * 1000)
    return round(min(found), 3)


def change_weight(tx: Transaction, tree: LoadBalancerTree) -> None:
    before = trees.read_tree(tx, tree.id, for_update=True)
    assert before is not None
    load_balancer = replace(before.load_balancer, generation=before.load_balancer.generation + 1, updated_at=LATER)
    member = replace(before.members[0], weight=(before.members[0].weight or 0) + 1)
    trees.write_tree(tx, before, replace(before, load_balancer=load_balancer, members=(member, *before.members[1:])))


def change_every_weight(tx: Transaction, tree: LoadBalancerTree) -> None:
    before = trees.read_tree(tx, tree.id, for_update=True)
    assert before is not None
    load_balancer = replace(before.load_balancer, generation=before.load_balancer.generation + 1, updated_at=LATER)
    members = tuple(replace(x, weight=(x.weight or 0) + 1) for x in before.members)
    trees.write_tree(tx, before, replace(before, load_balancer=load_balancer, members=members))


async def measure(store: Store) -> dict[str, float]:
    fresh = iter([a_tree(listeners=2, pools=2, members=20) for _ in range(3 * 100)])
    many = [a_tree(listeners=2, pools=2, members=20) for _ in range(COUNT)]
    wide = a_tree(members=100)
    await create(store, wide, *many)
    await register(store)
    figures = {
        "create_tree": await cpu_ms(lambda _: create(store, next(fresh)), 100),
        "read_tree": await cpu_ms(lambda n: store.read(partial(trees.read_tree, load_balancer_id=many[n].id))),
        "show_load_balancer": await cpu_ms(
            lambda n: store.read(partial(listing.get_load_balancer, load_balancer_id=many[n].id))
        ),
        "show_member": await cpu_ms(lambda n: store.read(partial(listing.get_member, member_id=many[n].members[0].id))),
        "member_update": await cpu_ms(lambda n: store.transact(partial(change_weight, tree=many[n]))),
        "batch_of_100_members": await cpu_ms(lambda _: store.transact(partial(change_every_weight, tree=wide)), 20),
    }
    page = Query(limit=100)
    for name in ("load_balancers", "listeners", "pools", "members"):
        figures[f"list_100_{name}"] = await cpu_ms(
            lambda _, name=name: store.read(partial(getattr(listing, f"list_{name}"), query=page)), 30
        )
    leased = await store.transact(lambda tx: leases.claim_due(tx, OURS, COHORT, LATER + HOUR, HOUR, 10_000))
    lease_of = {x.load_balancer_id: x for x in leased}
    generation = 1 + 3
    figures["record_settled"] = await cpu_ms(
        lambda n: store.transact(
            partial(convergence.record_settled, lease=lease_of[many[n].id], generation=generation, now=LATER + HOUR)
        ),
        rounds=1,  # the second time nothing is left to settle
    )
    amphorae = [an_amphora(x) for x in many]
    for amphora in amphorae:
        lease = lease_of[amphora.load_balancer_id]
        await store.transact(partial(convergence.add_amphora, lease=lease, amphora=amphora))
    moments = iter(range(1000))
    figures["write_seen_300"] = await cpu_ms(
        lambda _: store.transact(
            partial(health.write_seen, amphora_ids=[x.id for x in amphorae], moment=LATER + LEASE * next(moments))
        ),
        10,
    )
    figures["idle_claim"] = await cpu_ms(
        lambda _: store.transact(lambda tx: leases.claim_due(tx, OURS, COHORT, LATER, LEASE, 10))
    )
    return figures


async def main() -> None:
    with tempfile.TemporaryDirectory(prefix="frontinus-bench-") as directory:
        store = Store.open(f"sqlite:///{Path(directory) / 'frontinus.sqlite'}")
        store.upgrade()
        figures = await measure(store)
        await store.close()
    print_result("store_cpu", unit="ms of CPU per operation", **figures)


if __name__ == "__main__":
    asyncio.run(main())
