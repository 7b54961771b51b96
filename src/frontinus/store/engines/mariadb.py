"""MariaDB, alone or as a Galera cluster, over asyncmy with prepared statements, without SQLAlchemy's adapter.

Writes run at READ COMMITTED, as on PostgreSQL and for the same reason: at InnoDB's own default, whatever was read before
the row lock would fix what is seen after it. A conflict that Galera finds at the commit comes as a deadlock."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Sequence
from typing import Any

import asyncmy
from asyncmy import errors as driver
from asyncmy.constants.CLIENT import FOUND_ROWS
from sqlalchemy.dialects.mysql import asyncmy as dialects
from sqlalchemy.engine import URL
from sqlalchemy.util import await_only

from frontinus.model.errors import Invalid
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

# The driver logs what the server remarks, such as that a primary key needs no name. What fails is raised.
logging.getLogger("asyncmy").setLevel(logging.ERROR)

OLDEST = (10, 6)
"""FOR UPDATE SKIP LOCKED exists since then."""

# https://mariadb.com/kb/en/mariadb-error-code-reference/
_CONTENDED = frozenset({1020, 1205, 1213, 1180, 1637})
_RACED = frozenset({1062, 1451, 1452})
_REFUSED_ANYWAY = frozenset({1048, 1054, 1064, 1146, 1264, 1265, 1364, 1366, 1406})

_SETTINGS = (
    "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED; "
    # Backslashes escape, and what does not fit is an error.
    "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION,ERROR_FOR_DIVISION_BY_ZERO', "
    f"SESSION innodb_lock_wait_timeout = {LOCK_TIMEOUT_S}, "
    f"SESSION idle_transaction_timeout = {IDLE_TIMEOUT_S}"
)


class _Session:
    __slots__ = ("_cursor",)

    def __init__(self, connection: Any) -> None:
        self._cursor = connection.cursor()

    def query(self, text: str, values: tuple[Value, ...]) -> Sequence[Row]:
        rows: Sequence[Row] = await_only(self._query(text, values))
        return rows

    def execute(self, text: str, values: tuple[Value, ...]) -> int:
        await_only(self._cursor.execute(text, values))
        return int(self._cursor.rowcount)

    def execute_many(self, text: str, sets: list[tuple[Value, ...]]) -> None:
        await_only(self._cursor.executemany(text, sets))

    async def _query(self, text: str, values: tuple[Value, ...]) -> Sequence[Row]:
        await self._cursor.execute(text, values)
        rows: Sequence[Row] = await self._cursor.fetchall()
        return rows


class MariadbDatabase(PooledDatabase[Any]):
    errors = (*PooledDatabase.errors, driver.MySQLError)
    _begin = "BEGIN"
    # One packet, two statements: the isolation is for the transaction that comes next.
    _begin_snapshot = (
        "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; START TRANSACTION READ ONLY, WITH CONSISTENT SNAPSHOT"
    )
    _is_made = (
        "SELECT 1 FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = 'alembic_version'"
    )
    _url = "mariadb+asyncmy://"

    def __init__(self, url: URL, size: int) -> None:
        super().__init__(size)
        self.dialect = dialects.dialect()
        self._arguments = _arguments(url)

    async def _connect(self) -> Any:
        connection = await asyncmy.connect(**self._arguments)
        version = _version(connection.get_server_info())
        if version < OLDEST:
            connection.close()
            raise Invalid(
                "database",
                f"the server is {connection.get_server_info()}; MariaDB {'.'.join(map(str, OLDEST))} or later is needed",
            )
        await self._say(connection, _SETTINGS)
        return connection

    def _is_open(self, connection: Any) -> bool:
        return bool(connection.connected) and not connection._stream_broken  # noqa: SLF001 - there is no other way to ask

    def _drop(self, connection: Any) -> None:
        connection.close()

    async def _farewell(self, connection: Any) -> None:
        try:
            async with asyncio.timeout(FAREWELL_TIMEOUT_S):
                await connection.ensure_closed()
        except self.errors:
            connection.close()

    async def _say(self, connection: Any, text: str) -> None:
        cursor = connection.cursor()
        await cursor.execute(text)
        while await cursor.nextset():
            pass

    def _session(self, connection: Any) -> Session:
        return _Session(connection)

    def judge(self, error: BaseException) -> Trouble:
        code = _code(error)
        if code in _CONTENDED:
            return Trouble.CONTENDED
        if code in _RACED:
            return Trouble.RACED
        if isinstance(
            error, driver.ProgrammingError | driver.DataError | driver.IntegrityError | driver.NotSupportedError
        ):
            return Trouble.REFUSED
        return Trouble.REFUSED if code in _REFUSED_ANYWAY else Trouble.UNREACHABLE

    def _refuses(self, error: BaseException) -> bool:
        return self.judge(error) is not Trouble.UNREACHABLE

    async def _wait_until_alone(self, connection: Any) -> None:
        # DDL commits by itself, so the lock is the session's and not the transaction's.
        cursor = connection.cursor()
        await cursor.execute(f"SELECT GET_LOCK('frontinus-upgrade', {UPGRADE_TIMEOUT_S})")
        if await cursor.fetchone() != (1,):
            raise driver.OperationalError(1205, "another process upgrades this database")

    async def _connect_to_migrate(self) -> Any:
        connection = await self._connect()
        await self._say(connection, f"SET SESSION lock_wait_timeout = {LOCK_WAIT_S}")
        return connection

    def listen(self, heard: Callable[[], None]) -> None:
        pass  # the controllers' poll finds the work

    def announce(self) -> None:
        pass


def _arguments(url: URL) -> dict[str, Any]:
    """What asyncmy is told. Raises Invalid for an option that is not known."""
    made: dict[str, Any] = {
        "user": url.username,
        "password": url.password or "",
        "host": url.host or "127.0.0.1",
        "port": url.port or 3306,
        "db": url.database,
        "charset": "utf8mb4",
        "client_flag": FOUND_ROWS,  # an update tells how many rows it matched, changed or not
        "autocommit": None,
        "connect_timeout": CONNECT_TIMEOUT_S,
        "stmt_cache_size": 512,
    }
    options = dict(url.query)
    if "unix_socket" in options:
        made["unix_socket"] = options.pop("unix_socket")
    authority = options.pop("ssl_ca", None)
    if authority is not None:
        try:
            made["ssl"] = ssl.create_default_context(cafile=str(authority))
        except OSError as error:
            raise Invalid("database", f"ssl_ca: {authority} cannot be read: {error}") from error
    if options:
        raise Invalid("database", f"unknown option {', '.join(sorted(options))}; known: ssl_ca, unix_socket")
    return made


def _code(error: BaseException) -> int | None:
    code = error.args[0] if error.args else None
    return code if isinstance(code, int) and isinstance(error, driver.MySQLError) else None


def _version(text: str) -> tuple[int, ...]:
    """`5.5.5-10.11.6-MariaDB-log` is 10.11: the first part is for clients that know no MariaDB."""
    numbers = text.removeprefix("5.5.5-").split("-")[0].split(".")
    return tuple(int(x) for x in numbers[:2]) if "mariadb" in text.lower() else (0,)
