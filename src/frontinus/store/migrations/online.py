"""What a migration uses on tables that are being written to meanwhile, by the version before it."""

from __future__ import annotations

from collections.abc import Sequence

from alembic import op

from frontinus.store.migrations import LOCK_WAIT_S

PATIENCE_S = 60
"""For so long an index waits for transactions that began before it."""


def create_index(name: str, table: str, columns: Sequence[str]) -> None:
    """An index that is made while others write to the table. To be the last thing that a step does: on PostgreSQL what the
    step did before is committed by it, so the step may come here again after it was broken off."""
    if op.get_bind().dialect.name != "postgresql":
        # MariaDB makes one without keeping writers off (https://mariadb.com/kb/en/innodb-online-ddl-overview/); on SQLite
        # the whole upgrade is one transaction, and writers wait for it.
        op.create_index(name, table, list(columns), unique=False)
        return
    with op.get_context().autocommit_block():
        # Nobody waits for it, so it may itself wait for transactions that began before, unlike other steps.
        op.execute(f"SET lock_timeout = '{PATIENCE_S}s'")
        # One that was broken off is left behind, and is not valid: "Building Indexes Concurrently",
        # https://www.postgresql.org/docs/current/sql-createindex.html
        op.drop_index(name, table, postgresql_concurrently=True, if_exists=True)
        op.create_index(name, table, list(columns), unique=False, postgresql_concurrently=True)
        op.execute(f"SET lock_timeout = '{LOCK_WAIT_S}s'")
