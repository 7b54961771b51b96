"""Which HAProxy an amphora has.

Revision ID: 0011
Revises: 0010"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0011"
down_revision: str | None = "0010"
branch_labels: None = None
depends_on: None = None


def upgrade() -> None:
    op.add_column("amphora", sa.Column("balancer_version", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("amphora", "balancer_version")
