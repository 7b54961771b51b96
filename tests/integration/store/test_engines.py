"""What holds on every engine alike: one schema, exact values, retried conflicts, a server that goes away and comes back."""

from __future__ import annotations

import asyncio
import signal
import unicodedata
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from itertools import count

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from msgspec.structs import replace
from sqlalchemy import Float, Text, column, table, update
from sqlalchemy.dialects.mysql import DOUBLE, MEDIUMTEXT
from sqlalchemy.engine import Connection
from sqlalchemy.util import await_only

from frontinus.model.errors import Bug, Retry, Unconfirmed
from frontinus.model.ids import MemberId, new_id
from frontinus.model.tree import LoadBalancerTree
from frontinus.store import leases, listing, schema, trees
from frontinus.store.engine import Store, Transaction
from frontinus.store.engines import pooled
from frontinus.store.engines.migrating import migration_engine
from frontinus.store.engines.pooled import PooledDatabase
from frontinus.store.listing import Query
from frontinus.store.statement import Statement

from tests.integration.store.world import (
    COHORT,
    LATER,
    LEASE,
    NOW,
    OURS,
    THEIRS,
    a_tree,
    create,
    edit,
    register,
    start_python,
    stored,
)
from tests.servers import SERVERS, Server, serving

pytestmark = [pytest.mark.integration, pytest.mark.engines]

_numbers = count()


@pytest.fixture
def fresh_url(request: pytest.FixtureRequest, engine: str, server_of: Callable[[str], Server]) -> str:
    """A database in which nothing was ever made."""
    if engine == "sqlite":
        return f"sqlite:///{request.getfixturevalue('tmp_path')}/fresh.sqlite"
    return server_of(engine).make_database(f"fresh_{next(_numbers)}")


# --- the schema


async def test_migrations_and_schema_agree(fresh_url: str, engine: str) -> None:
    store = Store.open(fresh_url)
    store.upgrade()

    def differences(connection: Connection) -> list[object]:
        # Texts and floats are made wider on MariaDB (engines/ddl.py); everything else is compared.
        def differs(
            _context: object, _inspected: object, _column: object, found: object, wanted: object
        ) -> bool | None:
            wider = ((MEDIUMTEXT, Text), (DOUBLE, Float))
            return False if any(isinstance(found, x) and isinstance(wanted, y) for x, y in wider) else None

        compared = MigrationContext.configure(connection, opts={"compare_type": differs})
        return list(compare_metadata(compared, schema.metadata))

    database = store._database
    if isinstance(database, PooledDatabase):
        migrating = migration_engine(database._url, database._connect)
        async with migrating.connect() as connection:
            assert await connection.run_sync(differences) == []
        await migrating.dispose()
    else:
        with database.connection() as connection_of_sqlite:  # type: ignore[attr-defined]
            assert differences(connection_of_sqlite) == []
    await store.close()


_UPGRADE = """
import sys
from frontinus.store.engine import Store
sys.stdin.readline()
Store.open(sys.argv[1]).upgrade()
"""


async def test_processes_that_upgrade_at_once_wait_for_each_other(fresh_url: str) -> None:
    racers = [await start_python(_UPGRADE, fresh_url) for _ in range(3)]
    await asyncio.gather(*[racer.communicate(b"go\n") for racer in racers])
    assert [racer.returncode for racer in racers] == [0, 0, 0]
    store = Store.open(fresh_url)
    store.upgrade()
    tree = a_tree()
    await create(store, tree)
    assert await stored(store, tree) == tree
    await store.close()


async def test_steps_that_were_broken_off_are_taken_up(fresh_url: str, engine: str) -> None:
    """As after a death behind what a step made, and before that was noted. SQLite undoes what was not finished."""
    if engine == "sqlite":
        return
    store = Store.open(fresh_url)
    store.upgrade()
    tree = a_tree()
    await create(store, tree)
    reached = Statement(update(table("alembic_version", column("version_num"))).values(version_num="0001"))
    await store.transact(lambda tx: tx.run(reached, {}))
    assert len(store.missing_steps() or ()) > 10
    store.upgrade()
    assert store.missing_steps() == ()
    assert await stored(store, tree) == tree
    await store.close()


# --- values

NAMES = [
    pytest.param("web", id="plain"),
    pytest.param("Web", id="another case"),
    pytest.param("web ", id="a space behind"),
    pytest.param(" web", id="a space before"),
    pytest.param("wéb", id="an accent"),
    pytest.param(unicodedata.normalize("NFD", "wéb"), id="an accent in two parts"),
    pytest.param("web\N{ROCKET}\N{MUSICAL SYMBOL G CLEF}", id="four bytes"),
    pytest.param("we%b_\\'\"`;--", id="what SQL knows"),
    pytest.param("\N{LATIN SMALL LETTER SHARP S}", id="sharp s"),
    pytest.param("x" * 255, id="the longest"),
    pytest.param("\N{ROCKET}" * 255, id="the longest of four bytes"),
    pytest.param("", id="nothing"),
]


async def test_names_compare_and_sort_as_their_bytes_do(store: Store) -> None:
    names = [str(param.values[0]) for param in NAMES]
    await create(store, *(a_tree(name=name, members=0) for name in names))
    for name in names:
        found = await _listed(store, Query(filters=(("name", name),)))
        assert found == [name]
    assert await _listed(store, Query(sort=(("name", False),))) == sorted(names, key=str.encode)


async def test_what_no_name_can_hold_is_found_nowhere(store: Store) -> None:
    await create(store, a_tree(name="web"))
    for text in ("web\0", "\0", "\1"):
        assert await _listed(store, Query(filters=(("name", text),))) == []
        assert await _listed(store, Query(tags=(text,))) == []
        assert len(await _listed(store, Query(not_tags=(text,)))) == 1
        gone = await store.transact(lambda tx, text=text: listing.get_load_balancer(tx, text))  # type: ignore[misc]
        assert gone is None


@pytest.mark.parametrize("tag", ["a", "A", "a ", 'quo"te', "back\\slash", "\N{ROCKET}", "1", "null", "a,b", "%"])
async def test_tags_are_found_by_exactly_themselves(store: Store, tag: str) -> None:
    tree = a_tree(members=0)
    other = a_tree(members=0, name="other", at=LATER)
    await create(
        store,
        replace(tree, load_balancer=replace(tree.load_balancer, tags=(tag, "more"))),
        replace(other, load_balancer=replace(other.load_balancer, tags=("b", "more"))),
    )
    assert await _listed(store, Query(tags=(tag, "more"))) == ["web"]
    assert await _listed(store, Query(tags_any=(tag, "b"))) == ["web", "other"]
    assert await _listed(store, Query(not_tags=(tag,))) == ["other"]
    assert await _listed(store, Query(not_tags_any=(tag, "none"))) == ["other"]


async def test_extremes_come_back_as_they_were(store: Store) -> None:
    tree = a_tree(members=1)
    large = "\N{ROCKET}" * 60_000  # 240,000 bytes
    tree = replace(
        tree,
        load_balancer=replace(tree.load_balancer, description=large, generation=2**62),
        listeners=(
            replace(
                tree.listeners[0],
                connection_limit=2**31 - 1,
                timeout_client_data=2**31 - 1,
                timeout_tcp_inspect=0,
                insert_headers={"X-Forwarded-For": "true"},
                hsts_max_age=2**40,
                hsts_preload=True,
            ),
        ),
        health_monitors=(replace(tree.health_monitors[0], http_version=1.1, expected_codes="200-204"),),
    )
    await create(store, tree)
    assert await stored(store, tree) == tree


@pytest.mark.parametrize("number", [2**31, -(2**31) - 1, 2**63, 2**100])
async def test_a_number_that_no_column_can_hold_is_found_nowhere(store: Store, number: int) -> None:
    await create(store, a_tree())
    found = await store.read(lambda tx: listing.list_listeners(tx, Query(filters=(("protocol_port", number),))))
    assert found == []


async def _listed(store: Store, query: Query) -> list[str]:
    found = await store.read(lambda tx: listing.list_load_balancers(tx, query))
    return [x.value.name for x in found]


# --- transactions


async def test_a_read_sees_one_moment(store: Store, database_url: str) -> None:
    tree = a_tree()
    await create(store, tree)
    other = Store.open(database_url)
    looked, written = asyncio.Event(), asyncio.Event()
    if isinstance(store._database, PooledDatabase):

        async def writes() -> None:
            await looked.wait()
            await edit(other, tree, LATER)
            written.set()

        def work(tx: Transaction) -> tuple[int, int]:
            first = trees.read_tree(tx, tree.id)
            looked.set()
            _wait_within(written)
            second = trees.read_tree(tx, tree.id)
            assert first is not None
            assert second is not None
            return first.load_balancer.generation, second.load_balancer.generation

        writing = asyncio.create_task(writes())
        assert await store.read(work) == (1, 1)
        await writing
        assert (await stored(store, tree)).load_balancer.generation == 2
    await other.close()


def _wait_within(event: asyncio.Event) -> None:
    """Let the loop run until then, from within a transaction's work."""
    await_only(event.wait())


async def test_what_raises_leaves_nothing(store: Store) -> None:
    tree = a_tree()

    def work(tx: Transaction) -> None:
        trees.create_tree(tx, tree)
        raise KeyError("no")

    with pytest.raises(KeyError):
        await store.transact(work)
    assert await store.read(lambda tx: trees.read_tree(tx, tree.id)) is None


async def test_what_is_there_twice_is_a_bug(store: Store) -> None:
    tree = a_tree()
    await create(store, tree)
    with pytest.raises(Bug):
        await create(store, tree)
    await create(store, a_tree())


async def test_edits_at_once_follow_each_other(store: Store, database_url: str) -> None:
    tree = a_tree(members=1)
    await create(store, tree)
    other = Store.open(database_url)
    fresh = [replace(tree.members[0], id=MemberId(new_id())) for _ in range(20)]
    await asyncio.gather(*(edit((store, other)[n % 2], tree, LATER, members=(x,)) for n, x in enumerate(fresh)))
    after = await stored(store, tree)
    assert after.load_balancer.generation == 21
    assert {x.id for x in after.members} == {tree.members[0].id, *(x.id for x in fresh)}
    await other.close()


async def test_a_deadlock_costs_time_and_nothing_else(store: Store) -> None:
    one, two = a_tree(members=0), a_tree(members=0)
    await create(store, one, two)
    tries = 0

    def both(first: LoadBalancerTree, second: LoadBalancerTree) -> Callable[[Transaction], None]:
        def work(tx: Transaction) -> None:
            nonlocal tries
            tries += 1
            for tree in (first, second):
                found = trees.read_tree(tx, tree.id, for_update=True)
                assert found is not None
                moved = replace(found.load_balancer, generation=found.load_balancer.generation + 1)
                trees.write_tree(tx, found, replace(found, load_balancer=moved))

        return work

    rounds = 3
    await asyncio.gather(*(store.transact(both(*pair)) for _ in range(rounds) for pair in ((one, two), (two, one))))
    assert {(await stored(store, x)).load_balancer.generation for x in (one, two)} == {1 + 2 * rounds}
    assert tries >= 2 * rounds


async def test_a_task_that_is_cancelled_leaves_no_lock(store: Store) -> None:
    tree = a_tree()
    await create(store, tree)
    if not isinstance(store._database, PooledDatabase):
        return
    locked = asyncio.Event()

    def work(tx: Transaction) -> None:
        trees.read_tree(tx, tree.id, for_update=True)
        locked.set()
        _wait_within(asyncio.Event())

    task = asyncio.create_task(store.transact(work))
    await locked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await edit(store, tree, LATER)).load_balancer.generation == 2


async def test_two_stores_never_hold_one_load_balancer_at_once(store: Store, database_url: str) -> None:
    many = [a_tree(members=0) for _ in range(40)]
    await create(store, *many)
    other = Store.open(database_url)
    for owner in (OURS, THEIRS):
        await register(store, owner)

    async def claim_all(by: Store, owner: str) -> list[str]:
        got: list[str] = []
        while True:
            new = await by.transact(lambda tx: leases.claim_due(tx, owner, COHORT, LATER, LEASE, 3))  # type: ignore[arg-type]
            if not new:
                return got
            got += [x.load_balancer_id for x in new]

    ours, theirs = await asyncio.gather(claim_all(store, OURS), claim_all(other, THEIRS))
    assert sorted(ours + theirs) == sorted(x.id for x in many)
    await other.close()


async def test_a_commit_of_another_process_is_heard(store: Store, database_url: str, engine: str) -> None:
    if engine != "postgresql":
        return  # the poll finds the work: tests/integration/controller
    listener = store.wakeups()
    other = Store.open(database_url)
    heard = asyncio.create_task(listener.wait(10))
    while not heard.done():
        await create(other, a_tree(members=0))  # again, since it may have been before we listened
        await asyncio.wait([heard], timeout=0.05)
    assert heard.result()
    await other.close()


# --- a server that goes away


@pytest.fixture(params=list(SERVERS))
def own_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """One that may be killed."""
    with serving(request.param) as server:
        yield server


@pytest.fixture
async def on_own_server(own_server: Server) -> AsyncIterator[Store]:
    store = Store.open(own_server.make_database("frontinus"))
    store.upgrade()
    yield store
    await store.close()


async def test_a_server_killed_under_load_loses_and_doubles_nothing(own_server: Server, on_own_server: Store) -> None:
    store = on_own_server
    many = [a_tree(members=1) for _ in range(4)]
    await create(store, *many)
    stop = asyncio.Event()
    progress: Counter[str] = Counter()

    async def edits(tree: LoadBalancerTree) -> tuple[int, int]:
        """How many edits were acknowledged, and of how many it is not known."""
        acknowledged = unknown = 0
        while not stop.is_set():
            fresh = tuple(replace(tree.members[0], id=MemberId(new_id())) for _ in range(3))
            try:
                await edit(store, tree, LATER, members=fresh)
                acknowledged += 1
                progress["edits"] += 1
            except Unconfirmed:
                unknown += 1
        return acknowledged, unknown

    async def further() -> None:
        """Edits go on."""
        aim = progress.total() + 20
        async with asyncio.timeout(30):
            while progress.total() < aim:  # noqa: ASYNC110 - a count that several tasks move
                await asyncio.sleep(0.01)

    tasks = [asyncio.create_task(edits(tree)) for tree in many]
    for _ in range(2):
        await further()
        own_server.kill()
        await asyncio.sleep(0.2)  # it is away for so long
        await asyncio.to_thread(own_server.start)
    await further()
    stop.set()
    for tree, (acknowledged, unknown) in zip(many, await asyncio.gather(*tasks), strict=True):
        after = await stored(store, tree)
        done = after.load_balancer.generation - 1
        assert acknowledged <= done <= acknowledged + unknown
        assert len(after.members) == 1 + 3 * done
        assert unknown <= 2  # at most one for each kill: who was not committing is retried


async def test_a_server_that_hangs_is_told_in_time(
    own_server: Server, on_own_server: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes what is said and answers nothing, as on a disk that is stuck. Whoever asks has a time-out of his own."""
    monkeypatch.setattr(on_own_server._database, "patience", 0.2)
    monkeypatch.setattr(pooled, "BEGIN_TIMEOUT_S", 0.3)
    tree = a_tree()
    await create(on_own_server, tree)
    own_server.tell(signal.SIGSTOP)
    try:
        async with asyncio.timeout(pooled.TRANSACTION_TIMEOUT_S / 4):
            with pytest.raises(Retry) as caught:
                await edit(on_own_server, tree, LATER)
    finally:
        own_server.tell(signal.SIGCONT)
    assert caught.value.code == "database-unavailable"
    assert (await edit(on_own_server, tree, NOW + timedelta(hours=2))).load_balancer.generation == 2


async def test_a_server_that_stays_away_is_told_in_time(
    own_server: Server, on_own_server: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_own_server._database, "patience", 0.3)
    tree = a_tree()
    await create(on_own_server, tree)
    own_server.kill()
    with pytest.raises(Retry) as caught:
        await edit(on_own_server, tree, LATER)
    assert caught.value.code == "database-unavailable"
    assert "secret" not in str(caught.value)
    own_server.start()
    assert (await edit(on_own_server, tree, NOW + timedelta(hours=2))).load_balancer.generation == 2
