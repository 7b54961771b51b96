"""What PostgreSQL and MariaDB have in common: a server, asynchronous drivers, a pool, and work that waits.

The work inside a transaction is a synchronous function; it runs in a greenlet and hands each wait for the server to the
event loop (SQLAlchemy's bridge), while other transactions go on over other connections. Connections belong to one event
loop. One that failed, or whose task was cancelled, is thrown away and never used again."""

from __future__ import annotations

import asyncio
import random
import time
from abc import abstractmethod
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

import structlog
from sqlalchemy.util import greenlet_spawn

from frontinus.store.engines.interface import UPGRADE_TIMEOUT_S, Database, OutcomeUnknown, Session, Trouble
from frontinus.store.migrations import missing_after

log = structlog.get_logger()

T = TypeVar("T")
C = TypeVar("C")

CONNECT_TIMEOUT_S = 5
"""How long one try to connect may take."""

BEGIN_TIMEOUT_S = 5
"""A server that does not begin a transaction in so long hangs, or the way to it is gone: nothing is waited for at a beginning."""

TRANSACTION_TIMEOUT_S = 20
"""A transaction that takes longer is broken off: the server, or the way to it, is gone without a word."""

FAREWELL_TIMEOUT_S = 2
"""How long closing may take."""

LOCK_TIMEOUT_S = 8
"""How long a statement waits for a row that another transaction holds."""

IDLE_TIMEOUT_S = 15
"""The server ends a transaction whose process sends nothing for so long (stopped, or its host is gone), and frees its rows.

Longer than any lease: whoever wakes after it finds its lease lost as well."""

PATIENCE_S = 6.0
"""A server that restarts is back sooner than this; a tenant is told after it that nothing can be done now."""


class Pool(Generic[C]):
    """Connections that nobody uses at the moment, the one used last on top, and how many there may be in all."""

    def __init__(self, size: int) -> None:
        self.places = asyncio.Semaphore(size)
        self.idle: list[C] = []


class PooledDatabase(Database, Generic[C]):
    """A database behind a server, with at most `size` connections for each event loop that uses it."""

    patience = PATIENCE_S
    longest_pause = 0.8  # those who locked each other out must not meet again
    errors: tuple[type[Exception], ...] = (OSError, EOFError, TimeoutError)

    def __init__(self, size: int) -> None:
        self._size = size
        self._pools: WeakKeyDictionary[asyncio.AbstractEventLoop, Pool[C]] = WeakKeyDictionary()

    # ---------------------------------------------------------------- what each engine says

    @abstractmethod
    async def _connect(self) -> C:
        """A connection, ready for transactions."""

    @abstractmethod
    def _is_open(self, connection: C) -> bool:
        """False if it is known to be of no use."""

    @abstractmethod
    def _drop(self, connection: C) -> None:
        """Close it at once, without a word to the server and without waiting."""

    @abstractmethod
    async def _farewell(self, connection: C) -> None:
        """Close it with a word to the server, where it still hears one."""

    @abstractmethod
    async def _say(self, connection: C, text: str) -> None:
        """Execute one of the texts below."""

    @abstractmethod
    def _session(self, connection: C) -> Session: ...

    @abstractmethod
    def _refuses(self, error: BaseException) -> bool:
        """Whether the server itself answered with this error, so that a commit that met it did not happen."""

    @abstractmethod
    async def _wait_until_alone(self, connection: C) -> None:
        """Wait until no other process upgrades this database, and keep others from it while the connection lives."""

    @abstractmethod
    async def _connect_to_migrate(self) -> C:
        """A connection whose statements wait for a table only as long as others can wait behind them."""

    _begin: str
    _begin_snapshot: str
    _is_made: str
    """Has a row if a migration was ever run here."""
    _url: str

    # ---------------------------------------------------------------- transactions

    async def run(self, body: Callable[[Session], T], *, writable: bool) -> T:
        pool = self._pool()
        committing = False
        try:
            async with asyncio.timeout(TRANSACTION_TIMEOUT_S), pool.places:
                connection = await self._take(pool)
                whole = False
                try:
                    async with asyncio.timeout(BEGIN_TIMEOUT_S):
                        await self._say(connection, self._begin if writable else self._begin_snapshot)
                    try:
                        result = await greenlet_spawn(body, self._session(connection))
                    except Exception:
                        whole = await self._rolled_back(connection)
                        raise
                    committing = writable
                    await self._say(connection, "COMMIT")
                    whole = True
                finally:
                    if whole:
                        pool.idle.append(connection)
                    else:
                        self._drop(connection)
                return result
        except self.errors as error:
            if self.judge(error) is Trouble.UNREACHABLE:
                self._forget(pool)  # what ended this connection has ended the others too
            if committing and not self._refuses(error):
                raise OutcomeUnknown(str(error)) from error
            raise

    async def _take(self, pool: Pool[C]) -> C:
        while pool.idle:
            connection = pool.idle.pop()
            if self._is_open(connection):
                return connection
            self._drop(connection)
        return await self._connect()

    async def _rolled_back(self, connection: C) -> bool:
        if not self._is_open(connection):
            return False
        try:
            await self._say(connection, "ROLLBACK")
        except self.errors:
            return False
        return True

    def _pool(self) -> Pool[C]:
        loop = asyncio.get_running_loop()
        pool = self._pools.get(loop)
        if pool is None:
            pool = self._pools[loop] = Pool(self._size)
        return pool

    def _forget(self, pool: Pool[C]) -> None:
        while pool.idle:
            self._drop(pool.idle.pop())

    async def close(self) -> None:
        pool = self._pool()
        while pool.idle:
            await self._farewell(pool.idle.pop())

    # ---------------------------------------------------------------- the schema

    def upgrade(self) -> None:
        if self.missing_steps() == ():
            return
        # In a thread with a loop of its own, so that it can be called with and without a running one.
        _run_apart(self._upgrade())

    def missing_steps(self) -> tuple[str, ...] | None:
        return missing_after(_run_apart(self._reached()))

    async def _upgrade(self) -> None:
        # Imported by who upgrades: every start asks whether it must, and should be quick after a death.
        from frontinus.store.engines import migrating

        engine = migrating.migration_engine(self._url, self._connect_to_migrate)
        alone = await self._connect()
        gives_up_at = time.monotonic() + UPGRADE_TIMEOUT_S
        try:
            await self._wait_until_alone(alone)
            while True:
                try:
                    await migrating.upgrade(engine)
                    return
                except self.errors as error:
                    # Whoever waits for a table keeps off all who come after; so each wait is short, and there are many.
                    if self.judge(error) is not Trouble.CONTENDED or time.monotonic() > gives_up_at:
                        raise
                    log.info("an upgrade waits for a table that is in use", reason=str(error))
                await asyncio.sleep(random.uniform(0.2, 1.0))
        finally:
            await self._farewell(alone)
            await engine.dispose()

    async def _reached(self) -> str | None:
        """The last step that was taken; None where there was none."""
        connection = await self._connect()
        try:
            return await greenlet_spawn(self._read_version, self._session(connection))
        finally:
            await self._farewell(connection)

    def _read_version(self, session: Session) -> str | None:
        if not session.query(self._is_made, ()):
            return None
        found = session.query("SELECT version_num FROM alembic_version", ())
        return str(found[0][0]) if found else None


def _run_apart(work: Coroutine[Any, Any, T]) -> T:
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="frontinus-schema") as thread:
        return thread.submit(asyncio.run, work).result()
