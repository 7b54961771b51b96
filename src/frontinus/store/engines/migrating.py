"""Upgrade a database behind a server while others work on it. Imported by whoever upgrades: it loads Alembic and more of
SQLAlchemy than all that the rest of a process needs."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

from sqlalchemy import NullPool, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from frontinus.store.engines.ddl import make_exact
from frontinus.store.migrations.run import upgrade_to_head

# A step that was broken off has left behind what it had made: always where tables know no transactions (MariaDB), and
# before an index that is made while others write (PostgreSQL). The next try makes the rest.
_UNLESS_THERE = (
    (re.compile(r"^\s*CREATE TABLE (?!IF )"), "CREATE TABLE IF NOT EXISTS "),
    (re.compile(r"^\s*(CREATE (?:UNIQUE )?INDEX (?:CONCURRENTLY )?)(?!CONCURRENTLY|IF )"), r"\1IF NOT EXISTS "),
    (re.compile(r"^\s*(ALTER TABLE \S+ ADD COLUMN )(?!IF )"), r"\1IF NOT EXISTS "),
)


async def upgrade(engine: AsyncEngine) -> None:
    """Run what is missing, as run.py says. Nobody else may be doing it; the errors are the driver's own. What has failed
    for a lock that was not to be had may be tried again."""
    try:
        async with engine.connect() as connection:
            await connection.run_sync(upgrade_to_head)
            await connection.commit()
    except DBAPIError as error:
        # The driver's own error, which `judge` knows, lies below SQLAlchemy's and its adapter's.
        raise _innermost(error) from error


def migration_engine(url: str, connect: Callable[[], Awaitable[Any]]) -> AsyncEngine:
    """SQLAlchemy's engine over the driver's connections. To be disposed of."""
    engine = create_async_engine(url, async_creator=connect, poolclass=NullPool, hide_parameters=True)
    make_exact(engine.dialect)

    @event.listens_for(engine.sync_engine, "before_cursor_execute", retval=True)
    def _unless_there(
        _connection: object, _cursor: object, text: str, values: object, _context: object, _many: bool
    ) -> tuple[str, object]:
        for pattern, replacement in _UNLESS_THERE:
            text = pattern.sub(replacement, text)
        return text, values

    return engine


def _innermost(error: DBAPIError) -> BaseException:
    found: BaseException = error
    while True:
        below = found.orig if isinstance(found, DBAPIError) else found.__cause__
        if below is None:
            return found
        found = below
