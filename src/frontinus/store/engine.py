"""The database: opening it, bringing its schema up to date, and transactions.

The work inside a transaction is a plain synchronous function: on SQLite it runs in the event loop's thread on one
connection, which costs less than handing each statement to another thread, and keeps two transactions of one process from ever
interleaving. Work must therefore be short and do nothing but read and write the database. Nobody outside store/ looks
into a Transaction. Next: schema.py, trees.py."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakSet

from sqlalchemy import NullPool, create_engine, event
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.exc import ArgumentError, DBAPIError

from frontinus.model.errors import Bug, Invalid, Retry
from frontinus.store.migrations import upgrade_to_head
from frontinus.store.statement import Row, Statement, Value

T = TypeVar("T")

BUSY_TIMEOUT_MS = 50
"""How long one try waits for another process's transaction. Short, because the event loop stands still meanwhile."""

LOCK_ATTEMPTS = 100
"""How often a transaction is tried while another process holds the database: about ten seconds in all."""

UPGRADE_TIMEOUT_MS = 60_000
"""How long an upgrade waits for another process that upgrades the same database."""

CACHE_KIB = 16_384


class Wakeups:
    """Hints that work may be due. One per waiting loop; a hint given while nobody waits is kept for the next wait."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def wait(self, timeout: float) -> bool:
        """True as soon as there was a hint since the last wait, False after `timeout` seconds without."""
        self._loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout):
                await self._event.wait()
        except TimeoutError:
            return False
        self._event.clear()
        return True

    def wake(self) -> None:
        """Give the hint, from any thread."""
        if self._loop is None or self._loop.is_closed():
            self._event.set()
        else:
            self._loop.call_soon_threadsafe(self._event.set)


class Transaction:
    """One transaction under way. Opaque outside store/, except `wake`."""

    __slots__ = ("_cursor", "_dialect", "_writable", "woken")

    def __init__(self, connection: Connection, *, writable: bool) -> None:
        # The driver's own cursor: texts are compiled already (statement.py) and rows are mapped by position (rows.py),
        # so what SQLAlchemy does around each execution would be more than half of the cost of a read.
        self._cursor: DBAPICursor = connection.connection.cursor()
        self._dialect = connection.dialect
        self._writable = writable
        self.woken = False

    def wake(self) -> None:
        """After the commit, wake the controllers. Nothing happens if the transaction fails."""
        self.woken = True

    def rows(self, statement: Statement, parameters: Mapping[str, Value]) -> list[Row]:
        """All rows of a select, as plain tuples."""
        self._cursor.execute(*statement.bind(self._dialect, parameters))
        return self._cursor.fetchall()  # type: ignore[return-value]  # drivers give tuples

    def row(self, statement: Statement, parameters: Mapping[str, Value]) -> Row | None:
        """The first row of a select, if there is one."""
        found = self.rows(statement, parameters)
        return found[0] if found else None

    def run(self, statement: Statement, parameters: Mapping[str, Value]) -> int:
        """Execute a write; how many rows it matched."""
        self._require_writable()
        self._cursor.execute(*statement.bind(self._dialect, parameters))
        return self._cursor.rowcount

    def run_many(self, statement: Statement, parameters: Iterable[Mapping[str, Value]]) -> None:
        """Execute a write once per set of parameters. Nothing is executed for none."""
        self._require_writable()
        batch = [statement.bind(self._dialect, each) for each in parameters]
        if batch:
            self._cursor.executemany(batch[0][0], [values for _, values in batch])

    def insert(self, statement: Statement, columns: tuple[str, ...], rows: list[tuple[Value, ...]]) -> None:
        """Insert rows whose values stand in the order of `columns`. Nothing is executed for none."""
        if not rows:
            return
        self._require_writable()
        text, order = statement.order(self._dialect)
        if order != columns:
            raise Bug(f"the insert takes {order}, not {columns}")
        self._cursor.executemany(text, rows)

    def close(self) -> None:
        """No statement after this one."""
        self._cursor.close()

    def _require_writable(self) -> None:
        if not self._writable:
            raise Bug("a write inside Store.read: use Store.transact")


class Store:
    """One database. Open it once per process, `upgrade` it, and close it at the end. Methods may be called from several
    threads, each with its own event loop; they take turns."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._kept: Connection | None = None
        self._listeners: WeakSet[Wakeups] = WeakSet()

    @classmethod
    def open(cls, url: str) -> Store:
        """The store behind `sqlite:////absolute/path`; makes the directory, readable by this user only.

        Nothing is read or made in it yet. Raises Invalid("database", ...) for what cannot be opened."""
        try:
            parsed = make_url(url)
        except ArgumentError as error:
            raise Invalid("database", "not a database URL; write sqlite:////absolute/path") from error
        if parsed.get_backend_name() != "sqlite" or parsed.get_driver_name() != "pysqlite":
            raise Invalid("database", f"{parsed.drivername} is not supported; write sqlite:////absolute/path")
        if _is_in_memory(parsed):
            return cls(_sqlite_engine(parsed))
        path = Path(str(parsed.database))
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise Invalid("database", f"cannot make {path.parent}: {error.strerror}") from error
        return cls(_sqlite_engine(parsed))

    def upgrade(self) -> None:
        """Bring the schema to what this version needs. Safe to repeat; of two processes one waits for the other.

        Raises Retry if another process holds the database for a minute, Bug if the schema is newer than this code."""
        with self._lock:
            connection = self._connection()
            connection.exec_driver_sql(f"PRAGMA busy_timeout={UPGRADE_TIMEOUT_MS}")
            connection.rollback()
            try:
                with _begin(connection, immediate=True):
                    upgrade_to_head(connection)
            except DBAPIError as error:
                raise _translated(error) from error
            finally:
                if not connection.closed:
                    connection.exec_driver_sql(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
                    connection.rollback()

    async def transact(self, work: Callable[[Transaction], T]) -> T:
        """Run `work` in one write transaction and commit; whatever it raises rolls everything back.

        `work` may run more than once (when another process holds the database), so it must do nothing but use the
        transaction. Raises Retry when the database cannot be written, Bug when it refuses what was written."""
        return await self._attempt(work, writable=True)

    async def read(self, work: Callable[[Transaction], T]) -> T:
        """Run `work` on one consistent snapshot. A write inside it is a Bug. Otherwise as `transact`."""
        return await self._attempt(work, writable=False)

    def wakeups(self) -> Wakeups:
        """A new listener for the hints of this process's transactions; it lives as long as it is referred to."""
        listener = Wakeups()
        self._listeners.add(listener)
        return listener

    async def close(self) -> None:
        """Let go of the database. May be repeated."""
        with self._lock:
            if self._kept is not None:
                self._kept.close()
                self._kept = None
            self._engine.dispose()

    async def _attempt(self, work: Callable[[Transaction], T], *, writable: bool) -> T:
        attempts = 1
        while True:
            try:
                return self._once(work, writable=writable)
            except (DBAPIError, sqlite3.Error) as error:
                if not _is_contention(error) or attempts >= LOCK_ATTEMPTS:
                    raise _translated(error) from error
            attempts += 1
            # Jitter, so that two processes do not knock in step; the loop is free meanwhile.
            await asyncio.sleep(random.uniform(0.01, 0.09))

    def _once(self, work: Callable[[Transaction], T], *, writable: bool) -> T:
        with self._lock:
            connection = self._connection()
            with _begin(connection, immediate=writable):
                transaction = Transaction(connection, writable=writable)
                try:
                    result = work(transaction)
                finally:
                    transaction.close()
        if transaction.woken:
            for listener in tuple(self._listeners):
                listener.wake()
        return result

    def _connection(self) -> Connection:
        # One connection for the store's life: its page cache stays warm, and there is no pool to pay for.
        if self._kept is None or self._kept.closed or self._kept.invalidated:
            try:
                self._kept = self._engine.connect()
            except DBAPIError as error:
                raise _translated(error) from error
        return self._kept


def _sqlite_engine(url: URL) -> Engine:
    engine = create_engine(
        url,
        poolclass=NullPool,
        hide_parameters=True,  # tenants' data stay out of error messages
        connect_args={"check_same_thread": False, "timeout": UPGRADE_TIMEOUT_MS / 1000},
    )

    # We say BEGIN ourselves: the driver would begin late, and never IMMEDIATE.
    @event.listens_for(engine, "connect")
    def _prepare(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
        connection.execute("PRAGMA journal_size_limit=67108864")
        connection.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")

    @event.listens_for(engine, "begin")
    def _say_begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.info.get("immediate") else "BEGIN")

    return engine


def _begin(connection: Connection, *, immediate: bool) -> Any:
    connection.info["immediate"] = immediate
    return connection.begin()


def _is_in_memory(url: URL) -> bool:
    return url.database in (None, "", ":memory:")


def _is_contention(error: DBAPIError | sqlite3.Error) -> bool:
    """Whether another process was merely in the way."""
    code = getattr(_cause(error), "sqlite_errorcode", None)
    # The low byte is the primary result code: https://sqlite.org/rescode.html
    return isinstance(code, int) and code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _cause(error: DBAPIError | sqlite3.Error) -> BaseException | None:
    """What the driver raised, without SQLAlchemy's wrapping."""
    return error.orig if isinstance(error, DBAPIError) else error


def _translated(error: DBAPIError | sqlite3.Error) -> Retry | Bug:
    cause = _cause(error)
    if _is_contention(error):
        return Retry("another process holds the database; look for a long-running one", after=1.0, code="database-busy")
    # A damaged or foreign file is a bare DatabaseError; its other children mean that we wrote something wrong.
    if isinstance(cause, sqlite3.OperationalError) or type(cause) is sqlite3.DatabaseError:
        return Retry(
            f"the database cannot be used ({cause}); look at its file, its directory and the free space",
            after=5.0,
            code="database-unavailable",
        )
    return Bug(f"the database refused what was written: {cause}")
