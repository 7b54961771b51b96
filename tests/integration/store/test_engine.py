"""SQLite: opening, upgrading, transactions, and what is left when a process is killed in the middle. What holds on every
engine is in test_engines.py."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from msgspec.structs import replace
from sqlalchemy import create_engine

from frontinus.model.errors import Bug, Invalid, Retry
from frontinus.store import engine, schema, trees
from frontinus.store.engine import Store, Transaction
from frontinus.store.engines.sqlite import SqliteDatabase
from frontinus.store.migrations.run import configuration

from tests.integration.store.world import LATER, a_tree, behind, create, edit, start_python, stored

pytestmark = pytest.mark.integration


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A file that is not made yet, in a directory that is not either."""
    return tmp_path / "state" / "frontinus.sqlite"


@pytest.fixture
async def store(database: Path) -> AsyncIterator[Store]:
    opened = Store.open(f"sqlite:///{database}")
    opened.upgrade()
    yield opened
    await opened.close()


# --- opening and upgrading


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("frontinus.sqlite", id="no URL"),
        pytest.param("oracle://localhost/frontinus", id="another engine"),
        pytest.param("postgresql+psycopg://localhost/frontinus", id="another driver of a server"),
        pytest.param("mariadb://localhost/frontinus?charset=latin1", id="an option that we set"),
        pytest.param("sqlite+aiosqlite:////tmp/x", id="another driver"),
        pytest.param("sqlite:////proc/nowhere/frontinus.sqlite", id="a directory that cannot be made"),
    ],
)
def test_what_cannot_be_opened_is_refused(url: str) -> None:
    with pytest.raises(Invalid) as caught:
        Store.open(url)
    assert caught.value.field == "database"


def test_the_directory_is_made_for_this_user_alone(database: Path) -> None:
    Store.open(f"sqlite:///{database}")
    assert stat.S_IMODE(database.parent.stat().st_mode) == 0o700


async def test_a_file_that_is_no_database_is_named_as_the_trouble(database: Path) -> None:
    store = Store.open(f"sqlite:///{database}")
    database.write_text("these are the accounts of the aqueducts of Rome " * 100)
    with pytest.raises(Retry, match="not a database"):
        store.upgrade()
    await store.close()


async def test_migrations_and_schema_agree(store: Store) -> None:
    assert isinstance(store._database, SqliteDatabase)
    with store._database.connection() as connection:
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, schema.metadata) == []


async def test_upgrading_again_keeps_everything(store: Store, database: Path) -> None:
    tree = a_tree()
    await create(store, tree)
    store.upgrade()
    assert await stored(store, tree) == tree
    reopened = Store.open(f"sqlite:///{database}")
    reopened.upgrade()
    assert await stored(reopened, tree) == tree
    await reopened.close()


async def test_a_newer_schema_is_not_touched(store: Store, database: Path) -> None:
    with behind(database) as sql:
        sql.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(Bug, match="9999"):
        store.upgrade()
    with behind(database) as sql:
        assert sql.execute("SELECT version_num FROM alembic_version").fetchall() == [("9999",)]


_UPGRADE = """
import sys
from frontinus.store.engine import Store
sys.stdin.readline()
Store.open(sys.argv[1]).upgrade()
"""


async def test_processes_that_upgrade_at_once_wait_for_each_other(database: Path) -> None:
    racers = [await start_python(_UPGRADE, f"sqlite:///{database}") for _ in range(4)]
    await asyncio.gather(*[racer.communicate(b"go\n") for racer in racers])
    assert [racer.returncode for racer in racers] == [0, 0, 0, 0]
    store = Store.open(f"sqlite:///{database}")
    tree = a_tree()
    await create(store, tree)
    assert await stored(store, tree) == tree
    await store.close()


# --- transactions


async def test_what_raises_leaves_nothing_and_wakes_nobody(store: Store) -> None:
    tree = a_tree()
    listener = store.wakeups()

    def work(tx: Transaction) -> None:
        trees.create_tree(tx, tree)
        raise KeyError("no")

    with pytest.raises(KeyError):
        await store.transact(work)
    assert await store.read(lambda tx: trees.read_tree(tx, tree.id)) is None
    assert not await listener.wait(0.01)


async def test_a_commit_wakes_every_listener_also_one_that_comes_late_to_wait(store: Store) -> None:
    early, late = store.wakeups(), store.wakeups()
    waiting = asyncio.create_task(early.wait(5))
    await asyncio.sleep(0)
    await create(store, a_tree())
    assert await waiting
    assert await late.wait(0.01)
    assert not await late.wait(0.01)


async def test_reading_cannot_write(store: Store) -> None:
    tree = a_tree()
    with pytest.raises(Bug):
        await store.read(lambda tx: trees.create_tree(tx, tree))
    assert await store.read(lambda tx: trees.read_tree(tx, tree.id)) is None


async def test_a_read_sees_one_moment(store: Store, database: Path) -> None:
    tree = a_tree()
    await create(store, tree)

    def work(tx: Transaction) -> tuple[str, str]:
        first = trees.read_tree(tx, tree.id)
        with behind(database) as sql:
            sql.execute("UPDATE load_balancer SET name = 'renamed'")
        second = trees.read_tree(tx, tree.id)
        assert first is not None
        assert second is not None
        return first.load_balancer.name, second.load_balancer.name

    assert await store.read(work) == ("web", "web")
    assert (await stored(store, tree)).load_balancer.name == "renamed"


async def test_a_write_waits_until_another_process_is_done_and_the_loop_runs_meanwhile(
    store: Store, database: Path
) -> None:
    other = sqlite3.connect(database, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    tree = a_tree()
    writing = asyncio.create_task(create(store, tree))
    for _ in range(3):  # the loop is free between two tries
        await asyncio.sleep(0.01)
    assert not writing.done()
    # Readers are never in the way of a writer, nor it in theirs.
    assert await store.read(lambda tx: trees.read_tree(tx, tree.id)) is None
    other.execute("COMMIT")
    other.close()
    await writing
    assert await stored(store, tree) == tree


async def test_a_database_that_is_held_for_ever_is_an_error_that_says_so(
    store: Store, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "CONTENDED_ATTEMPTS", 2)
    other = sqlite3.connect(database, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Retry) as caught:
        await create(store, a_tree())
    assert caught.value.code == "database-busy"
    other.close()
    await create(store, a_tree())


async def test_a_store_may_be_used_from_another_threads_loop(store: Store) -> None:
    tree = a_tree()
    listener = store.wakeups()
    waiting = asyncio.create_task(listener.wait(5))
    await asyncio.sleep(0)
    await asyncio.to_thread(lambda: asyncio.run(create(store, tree)))
    assert await waiting
    assert await stored(store, tree) == tree


async def test_a_tree_of_another_transaction_cannot_be_written_over(store: Store) -> None:
    tree = a_tree()
    await create(store, tree)
    stale = await stored(store, tree)
    await edit(store, tree, LATER)
    moved = replace(stale, load_balancer=replace(stale.load_balancer, generation=2))
    with pytest.raises(Bug):
        await store.transact(lambda tx: trees.write_tree(tx, stale, moved))


# --- killed in the middle

_ADD_MEMBERS_FOR_EVER = """
import asyncio, sys
from frontinus.model.ids import LoadBalancerId, MemberId, new_id
from frontinus.store.engine import Store
from msgspec.structs import replace
from tests.integration.store.world import LATER, edit, stored, a_tree

async def main(url, load_balancer_id):
    store = Store.open(url)
    tree = replace(a_tree(), load_balancer=replace(a_tree().load_balancer, id=LoadBalancerId(load_balancer_id)))
    tree = await stored(store, tree)
    while True:
        # Each edit adds three members and moves the generation by one, in one transaction.
        fresh = tuple(replace(tree.members[0], id=MemberId(new_id())) for _ in range(3))
        after = await edit(store, tree, LATER, members=fresh)
        print(after.load_balancer.generation, flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_a_process_killed_while_it_writes_leaves_whole_edits_only(store: Store, database: Path) -> None:
    tree = a_tree(members=1)
    await create(store, tree)
    promised = 1
    for acknowledged in (1, 3, 8, 20, 45):
        writer = await start_python(_ADD_MEMBERS_FOR_EVER, f"sqlite:///{database}", tree.id)
        assert writer.stdout is not None
        for _ in range(acknowledged):
            promised = int(await writer.stdout.readline())
        os.kill(writer.pid, signal.SIGKILL)  # wherever it is by now
        rest, _ = await writer.communicate()
        promised = max([promised, *(int(x) for x in rest.split())])
        after = await stored(store, tree)
        assert after.load_balancer.generation >= promised
        assert len(after.members) == 1 + 3 * (after.load_balancer.generation - 1)
        with behind(database) as sql:
            assert sql.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert sql.execute("PRAGMA foreign_key_check").fetchall() == []


async def test_load_balancers_made_before_there_was_protection_are_unprotected(tmp_path: Path) -> None:
    store = Store.open(f"sqlite:///{tmp_path / 'old.sqlite'}")
    store.upgrade()
    tree = a_tree()
    await create(store, tree)
    await store.close()
    older = create_engine(f"sqlite:///{tmp_path / 'old.sqlite'}")
    with older.begin() as connection:
        command.downgrade(configuration(connection), "0002")
    older.dispose()
    store.upgrade()
    found = await store.read(lambda tx: trees.read_tree(tx, tree.id))
    assert found == tree
    assert found is not None
    assert not found.load_balancer.deletion_protection
    await store.close()
