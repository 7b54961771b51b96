"""What many controllers cost, and what they carry: a hundred of them on one database server, with ten thousand load
balancers, and the same questions with a hundred thousand in the tables.

    bench/controllers.py [--controllers 100] [--load-balancers 10000] [--in-all 100000] [--database postgresql|mariadb]

The controllers are real, with a store, connections and a lease each; `--per-process` of them share a process (a hundred
processes of their own take 8 GB, and measure the machine's memory). They drive amphorae that do nothing (drivers `noop`),
so what is measured is database and controller. One task stands for the receivers of heartbeats: it says of every amphora
every few seconds that it was heard, as they do."""

from __future__ import annotations

import argparse
import asyncio
import logging
import multiprocessing
import statistics
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import structlog
import uvloop
from common import cpu_seconds, print_result, summary
from msgspec.structs import replace
from sqlalchemy import func, select

from frontinus.controller.hands import Hands
from frontinus.controller.loop import Controller
from frontinus.controller.settings import ControllerSettings
from frontinus.drivers.amphora.noop import NoopAmphoraDriver
from frontinus.drivers.compute.noop import NoopCompute
from frontinus.drivers.network.noop import NoopNetwork
from frontinus.drivers.secret.noop import NoopSecrets
from frontinus.health.settings import HealthSettings
from frontinus.model.cohorts import CohortName
from frontinus.model.enums import ProvisioningStatus
from frontinus.model.ids import AmphoraId, ControllerId, LoadBalancerId, new_id
from frontinus.model.tree import LoadBalancerTree
from frontinus.store import health, leases, listing, rows, trees
from frontinus.store.engine import Store, Transaction
from frontinus.store.listing import Query
from frontinus.store.schema import amphora, load_balancer
from frontinus.store.statement import Statement

from tests.acceptance.cpu import Cpu
from tests.integration.store.world import a_tree
from tests.servers import SERVERS, Mariadb, Postgresql, Server

COHORT = CohortName(NoopAmphoraDriver.name, NoopAmphoraDriver.version)
CONNECTIONS = 2
MOST_CONNECTIONS = 900
IDLE_S = 15.0
EDITS_S = 15.0
EDITORS = 32
WAKE_UPS = 100

_DUE = Statement(select(func.count()).select_from(load_balancer).where(load_balancer.c.due_at.is_not(None)))
_AMPHORAE = Statement(select(amphora.c.id))


def clock() -> datetime:
    return datetime.now(UTC)


# ---------------------------------------------------------------- the controllers


class Counted:
    """What the controllers of this process have executed, by who asked for it."""

    def __init__(self) -> None:
        self.statements: Counter[str] = Counter()
        for name in ("rows", "run", "run_many", "insert"):
            setattr(Transaction, name, self._counted(getattr(Transaction, name)))

    def _counted(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            asking = sys._getframe(1)  # noqa: SLF001 - whoever executes the statement
            if asking.f_code.co_name == "row" and asking.f_back is not None:
                asking = asking.f_back
            self.statements[asking.f_code.co_qualname] += 1
            return method(*arguments)

        return call


def control(url: str, many: int, pipe: Connection) -> None:
    """A process with so many controllers. Whatever it is sent is answered with what they have executed."""
    counted = Counted()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))

    async def run() -> None:
        loop = asyncio.get_running_loop()
        made = []
        for _ in range(many):
            hands = Hands(
                store=Store.open(url, connections=CONNECTIONS),
                amphora_driver=NoopAmphoraDriver(),
                compute=NoopCompute(),
                network=NoopNetwork(),
                secret=NoopSecrets(),
                settings=ControllerSettings(),
                now=clock,
            )
            controller = Controller(hands, ("amphora",))
            await controller.register()
            made.append(asyncio.create_task(controller.run()))
        pipe.send("ready")
        while await loop.run_in_executor(None, pipe.recv):
            pipe.send(counted.statements)
        for task in made:
            task.cancel()
        await asyncio.gather(*made, return_exceptions=True)

    uvloop.run(run())


class Controllers:
    """`count` of them in processes."""

    def __init__(self, url: str, many: int, per_process: int) -> None:
        self.count = many
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes: list[multiprocessing.process.BaseProcess] = []
        for first in range(0, many, per_process):
            here, there = context.Pipe()
            process = context.Process(target=control, args=(url, min(per_process, many - first), there), daemon=True)
            process.start()
            self._processes.append(process)
            self._pipes.append(here)
        for pipe in self._pipes:
            if not pipe.poll(180) or pipe.recv() != "ready":
                raise SystemExit("the controllers do not start")

    def statements(self) -> Counter[str]:
        for pipe in self._pipes:
            pipe.send(True)
        whole: Counter[str] = Counter()
        for pipe in self._pipes:
            whole += pipe.recv()
        return whole

    def cpu(self) -> float:
        return sum(cpu_seconds(process.pid or 0) for process in self._processes)

    def stop(self) -> None:
        for pipe in self._pipes:
            with suppress(OSError):
                pipe.send(False)
        for process in self._processes:
            process.join(30)
            if process.is_alive():
                process.kill()


# ---------------------------------------------------------------- measurements


async def idle(controllers: Controllers, server: Server) -> dict[str, object]:
    """Nothing is due."""
    await asyncio.sleep(3)  # what the question before has woken
    ask = asyncio.to_thread
    before, cpu, began = await ask(controllers.statements), controllers.cpu(), time.monotonic()
    servers = server_cpu(server)
    await asyncio.sleep(IDLE_S)
    statements, passed = await ask(controllers.statements), time.monotonic() - began
    statements -= before
    each = 1 / passed / controllers.count
    return {
        "statements_per_s_each": round(statements.total() * each, 2),
        "of_these": {name: round(number * each, 3) for name, number in statements.most_common(6)},
        "cpu_ms_per_s_each": round((controllers.cpu() - cpu) * each * 1000, 2),
        "database_cpu_ms_per_s": round((server_cpu(server) - servers) / passed * 1000, 1),
    }


def server_cpu(server: Server) -> float:
    """Of the server's processes, those that have ended included."""
    assert server.process is not None
    everybody = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                everybody[int(entry.name)] = (int(fields[1]), sum(int(x) for x in fields[11:13]) / 100)
    own = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
    ended = sum(int(x) for x in own[13:15]) / 100
    return ended + sum(cpu for pid, (parent, cpu) in everybody.items() if server.process.pid in (pid, parent))


def edited(tx: Transaction, load_balancer_id: LoadBalancerId) -> None:
    """A tenant's edit: another weight."""
    before = trees.read_tree(tx, load_balancer_id, for_update=True)
    if before is None:
        raise RuntimeError(f"{load_balancer_id} is gone")
    generation = before.load_balancer.generation + 1
    pending = ProvisioningStatus.PENDING_UPDATE
    load_balancer = replace(
        before.load_balancer, generation=generation, provisioning_status=pending, updated_at=clock()
    )
    member = replace(
        before.members[0],
        weight=(before.members[0].weight or 0) % 200 + 1,
        changed_generation=generation,
        provisioning_status=pending,
    )
    trees.write_tree(tx, before, replace(before, load_balancer=load_balancer, members=(member, *before.members[1:])))
    tx.wake()


async def settled(store: Store, timeout: float = 600.0) -> None:
    """Until nothing is due."""
    deadline = time.monotonic() + timeout
    while (await store.read(lambda tx: tx.row(_DUE, {}))) != (0,):
        if time.monotonic() > deadline:
            raise RuntimeError("it does not settle")
        await asyncio.sleep(0.02)


async def wake_ups(store: Store, many: Sequence[LoadBalancerTree]) -> dict[str, float]:
    """From the commit of an edit until it is applied, one at a time."""
    taken = []
    for tree in many[:WAKE_UPS]:
        await asyncio.sleep(0.05)
        await store.transact(partial(edited, load_balancer_id=tree.id))
        began = time.perf_counter()
        while await store.read(partial(_is_due, load_balancer_id=tree.id)):  # noqa: ASYNC110 - others do it
            await asyncio.sleep(0.001)
        taken.append(time.perf_counter() - began)
    return summary(taken)


def _is_due(tx: Transaction, load_balancer_id: LoadBalancerId) -> bool:
    found = trees.read_tree(tx, load_balancer_id)
    return found is not None and found.load_balancer.applied_generation < found.load_balancer.generation


async def carried_out(ask: Callable[[], Awaitable[int]], store: Store, controllers: Controllers) -> dict[str, object]:
    """Whatever is asked for, and says how much it was, until nothing is due any more: how fast, and what each costs."""
    before, began = await asyncio.to_thread(controllers.statements), time.monotonic()
    with Cpu({}) as cpu:
        asked = await ask()
        accepted = time.monotonic() - began
        await settled(store)
        passed = time.monotonic() - began
        shares = cpu.shares()
    statements = await asyncio.to_thread(controllers.statements)
    statements -= before
    return {
        "asked": asked,
        "accepted_per_s": round(asked / accepted, 1),
        "settled_per_s": round(asked / passed, 1),
        "last_settled_after_s": round(passed - accepted, 2),
        "statements_each": round(statements.total() / asked, 1),
        "of_these": {name: round(number / asked, 2) for name, number in statements.most_common(8)},
        "processors": str(shares),
    }


async def edits(store: Store, many: Sequence[LoadBalancerTree], controllers: Controllers) -> dict[str, object]:
    """As many edits as tenants can make, of all load balancers in turn; and how long the last take to settle."""
    made, deadline = 0, time.monotonic() + EDITS_S
    turns = count()

    async def editor() -> None:
        nonlocal made
        while time.monotonic() < deadline:
            tree = many[next(turns) % len(many)]
            await store.transact(partial(edited, load_balancer_id=tree.id))
            made += 1

    async def edit() -> int:
        await asyncio.gather(*(editor() for _ in range(EDITORS)))
        return made

    return await carried_out(edit, store, controllers)


async def questions(store: Store) -> dict[str, float]:
    """Milliseconds for what is asked again and again, as one client waits for it."""
    page = Query(limit=100)
    # Of a time before anything was due: it looks as all do, and takes nothing.
    now, nobody = clock() - timedelta(days=1), ControllerId(new_id())
    asked: dict[str, Callable[[], Awaitable[object]]] = {
        "claim_when_idle": lambda: store.transact(
            lambda tx: leases.claim_due(tx, nobody, COHORT, now, timedelta(seconds=5), 16)
        ),
        "list_of_100": lambda: store.read(partial(listing.list_load_balancers, query=page)),
        "create": lambda: create(store, a_tree(listeners=1, pools=1, members=2)),
    }
    found = {}
    for name, ask in asked.items():
        taken = []
        for _ in range(30):
            began = time.perf_counter()
            await ask()
            taken.append((time.perf_counter() - began) * 1000)
        found[f"{name}_ms"] = round(statistics.median(taken), 2)
    return found


class RoomyPostgresql(Postgresql):
    """With room for a hundred controllers."""

    def command(self) -> list[str]:
        return [*super().command(), "-c", f"max_connections={MOST_CONNECTIONS}"]


class RoomyMariadb(Mariadb):
    """With room for a hundred controllers."""

    def command(self) -> list[str]:
        return [*super().command(), f"--max-connections={MOST_CONNECTIONS}"]


ROOMY: dict[str, type[Server]] = {"postgresql": RoomyPostgresql, "mariadb": RoomyMariadb}


async def create(store: Store, *many: LoadBalancerTree) -> None:
    def work(tx: Transaction) -> None:
        for tree in many:
            trees.create_tree(tx, tree, COHORT)

    await store.transact(work)


async def seed(store: Store, many: Sequence[LoadBalancerTree], like: LoadBalancerId) -> None:
    """Load balancers, with children and an amphora each, as they are when controllers have made and settled them: which takes
    these longer than everything that is measured here."""
    template = await store.read(partial(trees.read_tree, load_balancer_id=like))
    assert template is not None
    (made,) = template.amphorae
    live = made.receipt
    assert live is not None
    active = ProvisioningStatus.ACTIVE
    driver = NoopAmphoraDriver()
    insert = trees.inserts(rows.AMPHORA, rows.AMPHORA.columns)

    def settled_one(tree: LoadBalancerTree) -> LoadBalancerTree:
        served = replace(
            tree,
            load_balancer=replace(tree.load_balancer, provisioning_status=active, applied_generation=1),
            listeners=tuple(replace(x, provisioning_status=active) for x in tree.listeners),
            pools=tuple(replace(x, provisioning_status=active) for x in tree.pools),
            members=tuple(replace(x, provisioning_status=active) for x in tree.members),
        )
        bare = replace(made, id=AmphoraId(new_id()), load_balancer_id=tree.id, project_id=tree.load_balancer.project_id)
        receipt = replace(live, digest=driver.render(served, bare).digest)
        return replace(served, amphorae=(replace(bare, receipt=receipt),))

    def write(tx: Transaction, part: Sequence[LoadBalancerTree]) -> None:
        for tree in map(settled_one, part):
            trees.insert_tree(tx, tree, COHORT, due_at=None)
            tx.insert(insert, rows.AMPHORA.columns, [rows.AMPHORA.encode(x) for x in tree.amphorae])

    for first in range(0, len(many), 50):
        await store.transact(partial(write, part=many[first : first + 50]))


async def hear(store: Store) -> None:
    """Every amphora is heard, for ever."""

    def write(tx: Transaction) -> None:
        health.write_seen(tx, [row[0] for row in tx.rows(_AMPHORAE, {})], clock())

    while True:
        await store.transact(write)
        await asyncio.sleep(HealthSettings().seen_interval.total_seconds())


def fill(server: Server, many: int) -> None:
    """Copies of load balancers that are settled, with neither children nor amphorae, straight into the table."""
    names = [x.name for x in load_balancer.columns]
    is_postgresql = server.name == "postgresql"
    fresh = "gen_random_uuid()::text" if is_postgresql else "uuid()"
    values = [fresh if x == "id" else x for x in names]
    copies = "generate_series(1, 1000) AS n" if is_postgresql else "seq_1_to_1000"
    for _ in range(many // 1000):
        server.query(
            f"INSERT INTO load_balancer ({', '.join(names)}) SELECT {', '.join(values)} FROM "
            f"(SELECT * FROM load_balancer WHERE due_at IS NULL LIMIT 1) AS one, {copies}",
            "controllers",
        )
    server.query("ANALYZE load_balancer" if is_postgresql else "ANALYZE TABLE load_balancer", "controllers")


async def measure(given: argparse.Namespace, server: Server) -> dict[str, object]:
    url = server.make_database("controllers")
    store = Store.open(url, connections=20)
    await asyncio.to_thread(store.upgrade)
    figures: dict[str, object] = {}

    def note(name: str, figure: object) -> None:
        figures[name] = figure
        print(f"{name}: {figure}", file=sys.stderr, flush=True)

    controllers = await asyncio.to_thread(Controllers, url, given.controllers, given.per_process)
    hearing = asyncio.create_task(hear(store))
    count_, in_all = given.load_balancers, given.in_all
    try:
        note("idle_with_none", await idle(controllers, server))
        many = [a_tree(listeners=1, pools=1, members=2, at=clock()) for _ in range(count_)]

        made = many[: given.creates]

        async def create_some() -> int:
            for first in range(0, len(made), 50):
                await create(store, *made[first : first + 50])
            return len(made)

        note("creating", await carried_out(create_some, store, controllers))
        await seed(store, many[len(made) :], made[0].id)
        note(f"idle_with_{count_}", await idle(controllers, server))
        note("edit_to_applied", await wake_ups(store, many))
        note("edits", await edits(store, many, controllers))
        note(f"questions_with_{count_}", await questions(store))
        await settled(store)
        if in_all > count_:
            await asyncio.to_thread(fill, server, in_all - count_)
            note(f"questions_with_{in_all}", await questions(store))
            await settled(store)
            note(f"idle_with_{in_all}", await idle(controllers, server))
            note(f"edit_to_applied_with_{in_all}", await wake_ups(store, many))
            note(f"edits_with_{in_all}", await edits(store, many, controllers))
    finally:
        hearing.cancel()
        await asyncio.gather(hearing, return_exceptions=True)
        await asyncio.to_thread(controllers.stop)
        await store.close()
    return figures


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--controllers", type=int, default=100)
    parser.add_argument("--per-process", type=int, default=25)
    parser.add_argument("--load-balancers", type=int, default=10_000)
    parser.add_argument("--creates", type=int, default=500, help="of these, made by the controllers")
    parser.add_argument("--in-all", type=int, default=100_000)
    parser.add_argument("--database", choices=sorted(SERVERS), default="postgresql")
    given = parser.parse_args()
    server = ROOMY[given.database]()
    try:
        server.prepare()
        server.start()
        print_result("controllers", **vars(given), **asyncio.run(measure(given, server)))
    finally:
        server.remove()


if __name__ == "__main__":
    main()
