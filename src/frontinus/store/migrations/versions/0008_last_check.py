"""Why members are down: what the last health check found.

Revision ID: 0008
Revises: 0007"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0008"
down_revision: str | None = "0007"
branch_labels: None = None
depends_on: None = None


def upgrade() -> None:
    op.add_column("member", sa.Column("last_check", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("member", "last_check")
