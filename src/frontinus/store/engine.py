"""The database: opening it, bringing its schema up to date, and transactions.

The work inside a transaction is a plain synchronous function, on every engine (engines/): on SQLite it runs in the event
loop's thread, on the others in a greenlet that waits for the server. Work must do nothing but read and write the
database, and may be run again. Nobody outside store/ looks into a Transaction. Next: schema.py, trees.py."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import CoroutineType
from typing import TypeVar
from weakref import WeakSet

from sqlalchemy.engine import URL, Dialect, make_url
from sqlalchemy.exc import ArgumentError

from frontinus.model.errors import Bug, Invalid, Retry, Unconfirmed
from frontinus.store.engines.interface import Database, OutcomeUnknown, Session, Trouble
from frontinus.store.engines.sqlite import SqliteDatabase
from frontinus.store.statement import Row, Statement, Value

T = TypeVar("T")

CONTENDED_ATTEMPTS = 100
"""How often a transaction is tried while others are in the way: about ten seconds in all where one try waits for nothing."""

CONTENDED_S = 15.0
"""And for how long, where each try itself waits for locks."""

SHORTEST_PAUSE_S = 0.09
"""The pause before the second try, at most; before the third it may be twice that, and so on."""

RACED_ATTEMPTS = 4
"""How often, when a key exists or a reference is missing: after a race the next try sees what the other did."""

CONNECTIONS = 10
"""Most connections of one process to a server, unless the settings say otherwise."""

URL_FORMS = "write sqlite:////absolute/path, postgresql://user:password@host/name or mariadb://user:password@host/name"


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

    __slots__ = ("_dialect", "_session", "_writable", "woken")

    def __init__(self, session: Session, dialect: Dialect, *, writable: bool) -> None:
        self._session = session
        self._dialect = dialect
        self._writable = writable
        self.woken = False

    def wake(self) -> None:
        """After the commit, wake the controllers. Nothing happens if the transaction fails."""
        self.woken = True

    def rows(self, statement: Statement, parameters: Mapping[str, Value]) -> Sequence[Row]:
        """All rows of a select, by position."""
        return self._session.query(*statement.bind(self._dialect, parameters))

    def row(self, statement: Statement, parameters: Mapping[str, Value]) -> Row | None:
        """The first row of a select, if there is one."""
        found = self.rows(statement, parameters)
        return found[0] if found else None

    def run(self, statement: Statement, parameters: Mapping[str, Value]) -> int:
        """Execute a write; how many rows it matched."""
        self._require_writable()
        return self._session.execute(*statement.bind(self._dialect, parameters))

    def run_many(self, statement: Statement, parameters: Iterable[Mapping[str, Value]]) -> None:
        """Execute a write once per set of parameters. Nothing is executed for none."""
        self._require_writable()
        batch = [statement.bind(self._dialect, each) for each in parameters]
        if batch:
            self._session.execute_many(batch[0][0], [values for _, values in batch])

    def insert(self, statement: Statement, columns: tuple[str, ...], rows: list[tuple[Value, ...]]) -> None:
        """Insert rows whose values stand in the order of `columns`. Nothing is executed for none."""
        if not rows:
            return
        self._require_writable()
        text, order = statement.order(self._dialect)
        if order != columns:
            raise Bug(f"the insert takes {order}, not {columns}")
        self._session.execute_many(text, rows)

    def _require_writable(self) -> None:
        if not self._writable:
            raise Bug("a write inside Store.read: use Store.transact")


class Store:
    """One database. Open it once per process, `upgrade` it, and close it at the end."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._listeners: WeakSet[Wakeups] = WeakSet()

    @classmethod
    def open(cls, url: str, *, connections: int = CONNECTIONS) -> Store:
        """The store behind a URL (see URL_FORMS); with at most so many connections, where there is a server.

        Nothing is read or made in it yet, but the directory of an SQLite file. Raises Invalid("database", ...) for what
        cannot be opened."""
        try:
            parsed = make_url(url)
        except (ArgumentError, ValueError) as error:
            raise Invalid("database", f"not a database URL; {URL_FORMS}") from error
        if parsed.drivername == "sqlite":
            return cls(SqliteDatabase(parsed))
        return cls(_server(parsed, connections))

    def upgrade(self) -> None:
        """Bring the schema to what this version needs. Safe to repeat; of two processes one waits for the other.

        Raises Retry if another process upgrades for a minute, Bug if the schema is newer than this code."""
        try:
            self._database.upgrade()
        except self._database.errors as error:
            raise self._translated(error) from error

    def missing_steps(self) -> tuple[str, ...] | None:
        """The migrations that `upgrade` would run, by name; None when a newer version of Frontinus has upgraded this
        database, which the one before goes on to serve. Raises Retry when the database cannot be asked."""
        try:
            return self._database.missing_steps()
        except self._database.errors as error:
            raise self._translated(error) from error

    async def transact(self, work: Callable[[Transaction], T]) -> T:
        """Run `work` in one write transaction and commit; whatever it raises rolls everything back.

        `work` may run more than once (when others are in the way, or the server went away), so it must do nothing but use
        the transaction. Raises Retry when the database cannot be written (Unconfirmed when that is not known), Bug when it
        refuses what was written."""
        return await self._attempt(work, writable=True)

    async def read(self, work: Callable[[Transaction], T]) -> T:
        """Run `work` on one consistent snapshot. A write inside it is a Bug. Otherwise as `transact`."""
        return await self._attempt(work, writable=False)

    def wakeups(self) -> Wakeups:
        """A new listener for the hints of this process's transactions, and, where the engine carries them, of all others.
        It lives as long as it is referred to. To be called from the event loop that will wait."""
        listener = Wakeups()
        self._listeners.add(listener)
        self._database.listen(self._wake)
        return listener

    async def close(self) -> None:
        """Let go of the database. May be repeated."""
        await self._database.close()

    async def _attempt(self, work: Callable[[Transaction], T], *, writable: bool) -> T:
        attempts = 1
        called = time.monotonic()
        started = 0.0
        while True:
            try:
                return await self._once(work, writable=writable)
            except OutcomeUnknown as error:
                # Done again it might be done twice; whoever asked looks whether it was.
                raise Unconfirmed(
                    "the connection to the database was lost while it was being written: look whether it was",
                    after=5.0,
                    code="database-unavailable",
                ) from error
            except self._database.errors as error:
                # A server that hangs took its time already, where one that refuses says so at once.
                started = called if isinstance(error, TimeoutError) else started or time.monotonic()
                if not self._worth_another(error, attempts, time.monotonic() - started):
                    raise self._translated(error) from error
            # Jitter, so that two processes do not knock in step; the loop is free meanwhile.
            await asyncio.sleep(random.uniform(0.01, min(SHORTEST_PAUSE_S * attempts, self._database.longest_pause)))
            attempts += 1

    def _worth_another(self, error: Exception, attempts: int, passed: float) -> bool:
        trouble = self._database.judge(error)
        if trouble is Trouble.CONTENDED:
            return attempts < CONTENDED_ATTEMPTS and passed < CONTENDED_S
        if trouble is Trouble.RACED:
            return attempts < RACED_ATTEMPTS
        return trouble is Trouble.UNREACHABLE and passed < self._database.patience

    async def _once(self, work: Callable[[Transaction], T], *, writable: bool) -> T:
        transaction: Transaction | None = None

        def body(session: Session) -> T:
            nonlocal transaction
            transaction = Transaction(session, self._database.dialect, writable=writable)
            return _done(work(transaction))

        result = await self._database.run(body, writable=writable)
        if transaction is not None and transaction.woken:
            self._wake()
            self._database.announce()
        return result

    def _wake(self) -> None:
        for listener in tuple(self._listeners):
            listener.wake()

    def _translated(self, error: Exception) -> Retry | Bug:
        trouble = self._database.judge(error)
        if trouble is Trouble.CONTENDED:
            return Retry(
                "another process holds the database; look for a long-running one", after=1.0, code="database-busy"
            )
        if trouble is Trouble.UNREACHABLE:
            return _unreachable(str(getattr(error, "orig", error)) or type(error).__name__)
        return Bug(f"the database refused what was written: {getattr(error, 'orig', error)}")


def _done(result: T) -> T:
    """What is awaited after a transaction was not done in it, and what is awaited in one keeps it open: neither may be."""
    if isinstance(result, CoroutineType):
        result.close()
        raise Bug("the work of a transaction is a coroutine; it must be a plain function")
    return result


def _unreachable(reason: str) -> Retry:
    return Retry(
        f"the database cannot be used ({reason}); look at its server or file, and the free space",
        after=5.0,
        code="database-unavailable",
    )


def _server(url: URL, connections: int) -> Database:
    """Each driver is imported when it is used: SQLite needs neither."""
    if url.drivername in ("postgresql", "postgres", "postgresql+asyncpg"):
        from frontinus.store.engines.postgresql import PostgresqlDatabase

        return PostgresqlDatabase(url, connections)
    if url.drivername in ("mariadb", "mysql", "mariadb+asyncmy", "mysql+asyncmy"):
        from frontinus.store.engines.mariadb import MariadbDatabase

        return MariadbDatabase(url, connections)
    raise Invalid("database", f"{url.drivername} is not supported; {URL_FORMS}")
