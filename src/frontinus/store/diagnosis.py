"""What can be asked of the database itself, for whoever looks for what is wrong."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Float, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import ColumnElement
from sqlalchemy.sql.compiler import SQLCompiler

from frontinus.store.engine import Transaction
from frontinus.store.statement import Statement


class _Now(ColumnElement[float]):
    """The server's clock, in seconds since the epoch. SQLite has this machine's."""

    inherit_cache = True
    type = Float()


@compiles(_Now)
def _of_sqlite(element: _Now, compiler: SQLCompiler, **options: Any) -> str:
    return "(julianday('now') - 2440587.5) * 86400.0"


@compiles(_Now, "postgresql")
def _of_postgresql(element: _Now, compiler: SQLCompiler, **options: Any) -> str:
    return "extract(epoch from clock_timestamp())"


@compiles(_Now, "mysql", "mariadb")
def _of_mariadb(element: _Now, compiler: SQLCompiler, **options: Any) -> str:
    return "unix_timestamp(sysdate(6))"


_NOW = Statement(select(_Now().label("now")))


def clock(tx: Transaction) -> datetime:
    """What time it is where the database is."""
    return datetime.fromtimestamp(float(tx.rows(_NOW, {})[0][0]), UTC)
