"""How the same table is made so that it means the same on every engine.

SQLite compares text byte by byte and knows no longest one. So text gets the collation that does the same elsewhere: "C"
on PostgreSQL, utf8mb4_nopad_bin on MariaDB (utf8mb4_bin would find 'a ' equal to 'a'); and MariaDB's TEXT, which ends at
64 KiB, is a MEDIUMTEXT, its FLOAT, of 1.1 not quite, a DOUBLE. Migrations need not know."""

from __future__ import annotations

from typing import Any

from sqlalchemy import String
from sqlalchemy.dialects.mysql.base import MySQLDDLCompiler, MySQLTypeCompiler
from sqlalchemy.dialects.postgresql.base import PGDDLCompiler
from sqlalchemy.engine import Dialect


class _PostgresqlTables(PGDDLCompiler):
    def get_column_specification(self, column: Any, **options: Any) -> str:
        text: str = super().get_column_specification(column, **options)  # type: ignore[no-untyped-call]
        return f'{text} COLLATE "C"' if isinstance(column.type, String) else text


class _MariadbTables(MySQLDDLCompiler):
    def post_create_table(self, table: Any) -> str:
        made = super().post_create_table(table)
        return f"{made} ENGINE=InnoDB ROW_FORMAT=DYNAMIC CHARSET=utf8mb4 COLLATE=utf8mb4_nopad_bin"


class _MariadbTypes(MySQLTypeCompiler):
    def visit_text(self, type_: Any, **options: Any) -> str:
        return "MEDIUMTEXT"

    def visit_FLOAT(self, type_: Any, **options: Any) -> str:  # noqa: N802 - SQLAlchemy's name for it
        return "DOUBLE"


def make_exact(dialect: Dialect) -> None:
    """Have this dialect, which is used for migrations, make tables so."""
    if dialect.name == "postgresql":
        dialect.ddl_compiler = _PostgresqlTables
    else:
        dialect.ddl_compiler = _MariadbTables
        dialect.type_compiler_instance = _MariadbTypes(dialect)
