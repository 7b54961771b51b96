"""What third-party provider drivers have been told of load balancers.

Revision ID: 0016
Revises: 0015"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0016"
down_revision: str | None = "0015"
branch_labels: None = None
depends_on: None = None


def upgrade() -> None:
    op.create_table(
        "provider_record",
        sa.Column("load_balancer_id", sa.String(length=36), primary_key=True),
        sa.Column("settled", sa.Text(), nullable=True),
        sa.Column("sent", sa.String(length=255), nullable=True),
        sa.Column("sent_then", sa.Text(), nullable=True),
        sa.Column("sent_by", sa.String(length=36), nullable=True),
        sa.Column("sent_at", sa.BigInteger(), nullable=True),
        sa.Column("reported", sa.String(length=32), nullable=True),
        sa.Column("reported_about", sa.String(length=255), nullable=True),
        sa.ForeignKeyConstraint(["load_balancer_id"], ["load_balancer.id"], ondelete="CASCADE"),
    )


def downgrade() -> None:
    op.drop_table("provider_record")
