"""How large the amphorae of a load balancer are, by its flavor.

Revision ID: 0006
Revises: 0005"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels: None = None
depends_on: None = None


def upgrade() -> None:
    # Not as a batch: SQLite would make the table anew, and children hang on the old one.
    for name in ("threads", "max_connections"):
        op.add_column("load_balancer", sa.Column(name, sa.BigInteger(), nullable=True))


def downgrade() -> None:
    for name in ("max_connections", "threads"):
        op.drop_column("load_balancer", name)
