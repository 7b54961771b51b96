"""An Octavia's database as it is at one moment: rows by table, as mappings. The only module here that reads it.

One transaction, read only, so that all rows are of one moment. What the rows mean: octavia.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec
from sqlalchemy import URL, make_url, text
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from frontinus.model.errors import Invalid

Row = Mapping[str, Any]

TABLES = (
    *("load_balancer", "vip", "additional_vip", "vip_security_group", "amphora"),
    *(
        "listener",
        "listener_cidr",
        "sni",
        "pool",
        "session_persistence",
        "member",
        "health_monitor",
        "l7policy",
        "l7rule",
    ),
    *("tags", "flavor", "flavor_profile", "availability_zone", "availability_zone_profile", "quotas"),
)
"""Every table that is read whole. Octavia removes the rows of what was deleted, but for load balancers and amphorae."""

DRIVERS = {"mysql": "mysql+asyncmy", "mariadb": "mysql+asyncmy"}

NEWEST_HEARTBEAT = text(
    "SELECT TIMESTAMPDIFF(SECOND, MAX(last_update), UTC_TIMESTAMP()) FROM amphora_health WHERE amphora_id IN "
    "(SELECT id FROM amphora WHERE status = 'ALLOCATED')"
)


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """`heard_s` is how many seconds ago Octavia's health manager last noted a heartbeat; None: never."""

    tables: Mapping[str, Sequence[Row]]
    heard_s: int | None = None

    def rows(self, table: str) -> Sequence[Row]:
        return self.tables.get(table, ())

    def by(self, table: str, column: str) -> dict[Any, list[Row]]:
        """The rows of a table in groups."""
        found: dict[Any, list[Row]] = {}
        for row in self.rows(table):
            found.setdefault(row[column], []).append(row)
        return found


async def read(url: str) -> Snapshot:
    """Raises Invalid for a URL or a database that is not Octavia's, OSError when it cannot be read."""
    engine = create_async_engine(_url(url), isolation_level="REPEATABLE READ")
    try:
        async with engine.connect() as connection:
            await connection.execute(text("SET TRANSACTION READ ONLY"))
            tables = {name: await _rows(connection, name) for name in TABLES}
            heard = (await connection.execute(NEWEST_HEARTBEAT)).scalar()
            await connection.rollback()
    except SQLAlchemyError as error:
        cause = getattr(error, "orig", None) or error
        if "doesn't exist" in str(cause):
            raise Invalid("db", f"this is no database of an Octavia 19.0: {cause}") from error
        raise ConnectionError(f"Octavia's database cannot be read: {cause}") from error
    finally:
        with suppress(SQLAlchemyError, OSError):
            await engine.dispose()
    return Snapshot(tables=tables, heard_s=None if heard is None else int(heard))


async def _rows(connection: AsyncConnection, table: str) -> list[Row]:
    return [dict(x) for x in (await connection.execute(text(f"SELECT * FROM {table}"))).mappings()]  # noqa: S608 - ours


def _url(written: str) -> URL:
    """Octavia's own [database] connection is taken as it stands there."""
    try:
        url = make_url(written)
    except ArgumentError as error:
        raise Invalid("db", "must be a URL, as mysql://user:password@host/octavia") from error
    driver = DRIVERS.get(url.get_backend_name())
    if driver is None:
        raise Invalid("db", f"must be of MariaDB or MySQL (mysql://…), not {url.get_backend_name()}")
    # Of the options there, only the socket's path is one that every client knows.
    return url.set(drivername=driver, query={k: v for k, v in url.query.items() if k == "unix_socket"})
