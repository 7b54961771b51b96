"""PostgreSQL over asyncpg, without SQLAlchemy's adapter: which costs as much again (docs/design/0012).

Writes run at READ COMMITTED: the row lock of a tree is what orders two edits, and what is read after it must be what the
other has committed. Wake-ups go over LISTEN and NOTIFY, on a connection of their own."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from typing import Any

import asyncpg
import structlog
from sqlalchemy.dialects.postgresql import asyncpg as dialects
from sqlalchemy.engine import URL
from sqlalchemy.util import await_only

from frontinus.store.engines.interface import UPGRADE_TIMEOUT_S, Session, Trouble
from frontinus.store.engines.pooled import (
    CONNECT_TIMEOUT_S,
    FAREWELL_TIMEOUT_S,
    IDLE_TIMEOUT_S,
    LOCK_TIMEOUT_S,
    PooledDatabase,
)
from frontinus.store.migrations import LOCK_WAIT_S
from frontinus.store.statement import Row, Value

log = structlog.get_logger()

CHANNEL = "frontinus"
_UPGRADE_LOCK = 0x46726F6E74696E75  # "Frontinu": an advisory lock has a number for a name

_SETTINGS = {
    "application_name": "frontinus",
    "default_transaction_isolation": "read committed",
    "idle_in_transaction_session_timeout": f"{IDLE_TIMEOUT_S}s",
    "jit": "off",  # it would compile statements that take less time than the compiling
    "lock_timeout": f"{LOCK_TIMEOUT_S}s",
    "search_path": "public",
}

# https://www.postgresql.org/docs/current/errcodes-appendix.html; a class is the first two characters.
_CONTENDED = frozenset({"40001", "40P01", "55P03"})
_RACED = frozenset({"23503", "23505"})
_AWAY_CLASSES = frozenset({"08", "53", "57", "58"})
_AWAY = frozenset({"25006", "25P03"})  # a standby since a fail-over; a transaction that was idle for too long

_LOCKED_PAUSE_S = 0.1
_LISTEN_AGAIN_S = 1.0
_ANNOUNCE_AFTER_S = 0.005
"""Announcements within this are one: a hundred commits need not wake a hundred controllers a hundred times."""


class _Session:
    __slots__ = ("_connection",)

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def query(self, text: str, values: tuple[Value, ...]) -> Sequence[Row]:
        for value in values:
            if type(value) is str and "\0" in value:
                # PostgreSQL has no NUL in texts and refuses one to compare with. Whatever is stored passed the one
                # validator, which lets no control character in: this one equals nothing either.
                values = tuple(x.replace("\0", "\1") if isinstance(x, str) else x for x in values)
                break
        found: Sequence[Row] = await_only(self._connection.fetch(text, *values))
        return found

    def execute(self, text: str, values: tuple[Value, ...]) -> int:
        status: str = await_only(self._connection.execute(text, *values))
        return int(status.rpartition(" ")[2])

    def execute_many(self, text: str, sets: list[tuple[Value, ...]]) -> None:
        if len(sets) == 1:
            self.execute(text, sets[0])
        else:
            await_only(self._connection.executemany(text, sets))


class PostgresqlDatabase(PooledDatabase[Any]):
    # The last one comes when the server says goodbye between two statements.
    errors = (*PooledDatabase.errors, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
    _begin = "BEGIN"
    _begin_snapshot = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
    _is_made = "SELECT 1 WHERE to_regclass('alembic_version') IS NOT NULL"
    _url = "postgresql+asyncpg://"

    def __init__(self, url: URL, size: int) -> None:
        super().__init__(size)
        # asyncpg reads the URL itself, and with it everything that libpq knows: several hosts, sslmode, passfile.
        self._dsn = url.set(drivername="postgresql").render_as_string(hide_password=False)
        self.dialect = dialects.dialect()  # type: ignore[no-untyped-call]
        self._heard: Callable[[], None] | None = None
        self._ear: asyncio.Task[None] | None = None
        self._hearing: Any = None  # the connection that listens
        self._mouth: Any = None  # one for announcements, where nobody listens (an API)
        self._announcing: asyncio.Task[None] | None = None

    # ---------------------------------------------------------------- connections

    async def _connect(self) -> Any:
        return await asyncpg.connect(
            self._dsn,
            timeout=CONNECT_TIMEOUT_S,
            server_settings=_SETTINGS,
            statement_cache_size=1024,
            max_cached_statement_lifetime=0,
            max_cacheable_statement_size=0,
        )

    def _is_open(self, connection: Any) -> bool:
        return not connection.is_closed()

    def _drop(self, connection: Any) -> None:
        connection.terminate()

    async def _farewell(self, connection: Any) -> None:
        try:
            await connection.close(timeout=FAREWELL_TIMEOUT_S)
        except self.errors:
            connection.terminate()

    async def _say(self, connection: Any, text: str) -> None:
        await connection.execute(text)

    def _session(self, connection: Any) -> Session:
        return _Session(connection)

    def judge(self, error: BaseException) -> Trouble:
        state = getattr(error, "sqlstate", None)
        if state in _CONTENDED:
            return Trouble.CONTENDED
        if state in _RACED:
            return Trouble.RACED
        if isinstance(error, asyncpg.DataError) and state is None:
            return Trouble.REFUSED  # a value that asyncpg cannot send
        if state is None or state[:2] in _AWAY_CLASSES or state in _AWAY:
            return Trouble.UNREACHABLE
        return Trouble.REFUSED

    def _refuses(self, error: BaseException) -> bool:
        state = getattr(error, "sqlstate", None)
        return isinstance(state, str) and state[:2] not in _AWAY_CLASSES

    async def _wait_until_alone(self, connection: Any) -> None:
        # The session's, since an upgrade is many transactions. Asked for again and again: a statement that waited would be
        # what an index that is made meanwhile waits for.
        gives_up_at = time.monotonic() + UPGRADE_TIMEOUT_S
        while not await connection.fetchval(f"SELECT pg_try_advisory_lock({_UPGRADE_LOCK})"):
            if time.monotonic() > gives_up_at:
                raise asyncpg.LockNotAvailableError("another process upgrades this database")
            await asyncio.sleep(_LOCKED_PAUSE_S)

    async def _connect_to_migrate(self) -> Any:
        connection = await self._connect()
        await self._say(connection, f"SET lock_timeout = '{LOCK_WAIT_S}s'")
        return connection

    # ---------------------------------------------------------------- wake-ups

    def listen(self, heard: Callable[[], None]) -> None:
        if self._ear is None or self._ear.done():
            self._heard = heard
            self._ear = asyncio.get_running_loop().create_task(self._listen(heard), name="store-listen")

    async def _listen(self, heard: Callable[[], None]) -> None:
        """Keep one connection that listens, and another when it is lost. Meanwhile the controllers' poll finds the work."""
        missed = False
        while True:
            try:
                connection = await self._connect()
            except self.errors as error:
                log.debug("wake-ups cannot be heard", reason=str(error))
                await asyncio.sleep(_LISTEN_AGAIN_S * random.uniform(0.5, 1.5))
                continue
            try:
                await self._hear(connection, heard, missed=missed)
            except self.errors as error:
                log.debug("wake-ups cannot be heard", reason=str(error))
            finally:
                self._hearing = None
                await self._farewell(connection)
            missed = True

    async def _hear(self, connection: Any, heard: Callable[[], None], *, missed: bool) -> None:
        gone = asyncio.Event()
        own = connection.get_server_pid()
        connection.add_termination_listener(lambda _: gone.set())
        await connection.add_listener(CHANNEL, lambda _c, pid, _ch, _p: heard() if pid != own else None)
        self._hearing = connection
        if missed:
            heard()  # whatever was said while nobody listened
        await gone.wait()

    def announce(self) -> None:
        if self._announcing is None or self._announcing.done():
            self._announcing = asyncio.get_running_loop().create_task(self._announce(), name="store-announce")

    async def _announce(self) -> None:
        """Outside of the transaction: its commit would wait for the lock under which PostgreSQL orders notifications."""
        await asyncio.sleep(_ANNOUNCE_AFTER_S)
        try:
            if self._hearing is None and (self._mouth is None or self._mouth.is_closed()):
                self._mouth = await self._connect()
            await (self._hearing or self._mouth).execute(f"NOTIFY {CHANNEL}")
        except self.errors as error:
            log.debug("nobody could be woken", reason=str(error))

    async def close(self) -> None:
        for task in (self._ear, self._announcing):
            if task is not None and task.get_loop() is asyncio.get_running_loop():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        mouth, self._mouth = self._mouth, None
        if mouth is not None:
            await self._farewell(mouth)
        await super().close()
