"""Cohorts: which driver in which version serves a load balancer.

Revision ID: 0015
Revises: 0014"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from frontinus.store.migrations import online

revision: str = "0015"
down_revision: str | None = "0014"
branch_labels: None = None
depends_on: None = None


def upgrade() -> None:
    op.create_table(
        "cohort",
        sa.Column("driver", sa.String(length=64), nullable=False),
        sa.Column("driver_version", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=32), nullable=False),
        sa.Column("providers", sa.Text(), nullable=False),
        sa.Column("capabilities", sa.Text(), nullable=False),
        sa.Column("config_digest", sa.String(length=64), nullable=True),
        sa.Column("first_seen_at", sa.BigInteger(), nullable=False),
        sa.Column("changed_at", sa.BigInteger(), nullable=False),
        sa.Column("registered_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("driver", "driver_version", name="pk_cohort"),
    )
    # NULL where a version that knows no cohorts writes rows; controllers of this one take them (store/cohorts.py).
    for name in ("driver", "driver_version"):
        op.add_column("load_balancer", sa.Column(name, sa.String(length=64), nullable=True))
        op.add_column("preview", sa.Column(name, sa.String(length=64), nullable=True))
    op.add_column("controller", sa.Column("config_digest", sa.String(length=64), nullable=True))
    op.add_column("controller", sa.Column("configuration", sa.Text(), nullable=True))
    online.create_index(
        "ix_load_balancer_driver_driver_version_due_at", "load_balancer", ("driver", "driver_version", "due_at")
    )


def downgrade() -> None:
    for name in ("configuration", "config_digest"):
        op.drop_column("controller", name)
    op.drop_index("ix_load_balancer_driver_driver_version_due_at", "load_balancer")
    for name in ("driver_version", "driver"):
        op.drop_column("preview", name)
        op.drop_column("load_balancer", name)
    op.drop_table("cohort")
