"""Failovers of load balancers of third-party providers: when one was asked for, and when the last was done; and room for
the trees of large ones.

Revision ID: 0020
Revises: 0019"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision: str = "0020"
down_revision: str | None = "0019"
branch_labels: None = None
depends_on: None = None


def upgrade() -> None:
    op.create_table(
        "provider_failover",
        sa.Column("load_balancer_id", sa.String(length=36), nullable=False),
        sa.Column("requested_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["load_balancer_id"],
            ["load_balancer.id"],
            name=op.f("fk_provider_failover_load_balancer_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("load_balancer_id", name=op.f("pk_provider_failover")),
    )
    if op.get_context().dialect.name in ("mysql", "mariadb"):
        # Its TEXT ends at 64 KiB.
        for name in ("settled", "sent_then"):
            op.alter_column(
                "provider_record", name, type_=mysql.MEDIUMTEXT(), existing_type=sa.Text(), existing_nullable=True
            )
    op.add_column("provider_record", sa.Column("failed_over_at", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    op.drop_column("provider_record", "failed_over_at")
    op.drop_table("provider_failover")
