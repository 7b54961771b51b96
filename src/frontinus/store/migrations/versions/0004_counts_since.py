"""Traffic counters that never go back: since when an amphora counts, and what was counted before that.

Revision ID: 0004
Revises: 0003"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: None = None
depends_on: None = None

_COLUMNS = (
    "base_bytes_in",
    "base_bytes_out",
    "base_total_connections",
    "base_request_errors",
    "counted_since",
)


def upgrade() -> None:
    with op.batch_alter_table("listener_statistics") as batch:
        for name in _COLUMNS:
            batch.add_column(sa.Column(name, sa.BigInteger(), nullable=False, server_default="0"))
    with op.batch_alter_table("listener_statistics") as batch:
        for name in _COLUMNS:
            batch.alter_column(name, existing_type=sa.BigInteger(), existing_nullable=False, server_default=None)


def downgrade() -> None:
    with op.batch_alter_table("listener_statistics") as batch:
        for name in reversed(_COLUMNS):
            batch.drop_column(name)
