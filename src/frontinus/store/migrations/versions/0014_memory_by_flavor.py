"""How much memory the balancer of a load balancer may take, by its flavor.

Revision ID: 0014
Revises: 0013"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0014"
down_revision: str | None = "0013"
branch_labels: None = None
depends_on: None = None


def upgrade() -> None:
    op.add_column("load_balancer", sa.Column("max_memory", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    op.drop_column("load_balancer", "max_memory")
