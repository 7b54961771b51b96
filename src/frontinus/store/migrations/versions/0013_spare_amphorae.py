"""Amphorae that wait for a load balancer.

Revision ID: 0013
Revises: 0012"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0013"
down_revision: str | None = "0012"
branch_labels: None = None
depends_on: None = None


def upgrade() -> None:
    op.create_table(
        "spare",
        sa.Column("pool", sa.String(length=255), primary_key=True),
        sa.Column("slot", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("amphora_id", sa.String(length=36), nullable=False),
        sa.Column("status", sa.String(length=32), nullable=False),
        sa.Column("amphora", sa.Text(), nullable=False),
        sa.Column("touched_at", sa.BigInteger(), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("spare")
