"""What the benches of heartbeats share: a fleet in a database (2 listeners, 2 pools of 20 members each), the simulated
amphorae that speak for it, and a store that counts its statements.

A statement is what goes to the engine as one: a select, a write, and a write with many sets of values (executemany) too,
which the drivers send in one go, whatever the number of its rows. Beginning and ending a transaction are not counted."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from functools import partial

from common import print_result  # noqa: F401 - it lets tests/ be imported

from frontinus.drivers.amphora.agent.authority import Authority
from frontinus.model.enums import AmphoraStatus
from frontinus.model.ids import AmphoraId, LoadBalancerId
from frontinus.model.tree import Amphora, LoadBalancerTree
from frontinus.store import convergence, leases, trees
from frontinus.store.engine import Store, Transaction
from frontinus.store.leases import Lease
from frontinus.testing.simulated_amphorae import SimulatedAmphora

from tests.integration.store.world import COHORT, OURS, a_tree, an_amphora

LISTENERS, POOLS, MEMBERS = 2, 2, 20
AT_ONCE = 100
"""Load balancers that are made in one transaction, which has its limit of time also on a busy machine."""


def simulated(amphora_id: AmphoraId, tree: LoadBalancerTree, authority: Authority) -> SimulatedAmphora:
    members = {pool.id: [x.id for x in tree.members if x.pool_id == pool.id] for pool in tree.pools}
    key = authority.heartbeat_key(amphora_id).encode()
    return SimulatedAmphora(amphora_id, key, [x.id for x in tree.listeners], list(members.items()))


async def fill(store: Store, count: int) -> list[tuple[AmphoraId, LoadBalancerTree]]:
    """So many load balancers, each with an amphora that serves."""
    made = [a_tree(listeners=LISTENERS, pools=POOLS, members=MEMBERS * POOLS) for _ in range(count)]
    amphorae: list[Amphora] = []
    for start in range(0, count, AT_ONCE):
        part = made[start : start + AT_ONCE]

        def create(tx: Transaction, part: list[LoadBalancerTree] = part) -> None:
            for tree in part:
                trees.create_tree(tx, tree, COHORT)

        await store.transact(create)
        now = datetime.now(UTC)
        claimed = await store.transact(
            lambda tx, now=now: leases.claim_due(tx, OURS, COHORT, now, timedelta(minutes=4), AT_ONCE)
        )
        lease_of = {x.load_balancer_id: x for x in claimed}

        await store.transact(partial(settle, trees_of=part, lease_of=lease_of, amphorae=amphorae))
    return [(x.id, tree) for x, tree in zip(amphorae, made, strict=True)]


def settle(
    tx: Transaction,
    trees_of: list[LoadBalancerTree],
    lease_of: dict[LoadBalancerId, Lease],
    amphorae: list[Amphora],
) -> None:
    for tree in trees_of:
        amphora, lease = an_amphora(tree, AmphoraStatus.ALLOCATED), lease_of[tree.id]
        amphorae.append(amphora)
        convergence.add_amphora(tx, lease, amphora)
        convergence.record_settled(tx, lease, 1, datetime.now(UTC))
        leases.release(tx, lease)


class Counting:
    """The store, with its transactions and statements counted, and what the statements begin with."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.transactions = 0
        self.statements = 0
        self.texts: Counter[str] = Counter()

    async def transact(self, work):  # type: ignore[no-untyped-def]
        return await self._store.transact(self._counted(work))

    async def read(self, work):  # type: ignore[no-untyped-def]
        return await self._store.read(self._counted(work))

    def _counted(self, work):  # type: ignore[no-untyped-def]
        def counted(tx: Transaction):  # type: ignore[no-untyped-def]
            self.transactions += 1
            session = tx._session  # noqa: SLF001 - a bench may look
            tx._session = _CountingSession(session, self)  # type: ignore[assignment]  # noqa: SLF001
            return work(tx)

        return counted


class _CountingSession:
    def __init__(self, session: object, counts: Counting) -> None:
        self._session, self._counts = session, counts

    def __getattr__(self, name: str):  # type: ignore[no-untyped-def]
        method = getattr(self._session, name)

        def counted(text: str, values: object) -> object:
            self._counts.statements += 1
            self._counts.texts[_first_words(text)] += 1
            return method(text, values)

        return counted


def _first_words(text: str) -> str:
    """What it does to which table."""
    words = text.replace("\n", " ").split()
    return f"select {words[words.index('FROM') + 1]}" if words[0] == "SELECT" else " ".join(words[:3]).lower()
