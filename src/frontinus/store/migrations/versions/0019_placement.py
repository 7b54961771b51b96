"""Of what and where amphorae are made, by flavor and availability zone: what was asked for, and what compute made.

Revision ID: 0019
Revises: 0018"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0019"
down_revision: str | None = "0018"
branch_labels: None = None
depends_on: None = None

_OF_AMPHORAE = {"compute_flavor": 255, "image_id": 36, "compute_zone": 255}


def upgrade() -> None:
    # Not as a batch: SQLite would make the tables anew, and children hang on the old ones.
    op.add_column("load_balancer", sa.Column("placement", sa.Text(), nullable=True))
    for name, length in _OF_AMPHORAE.items():
        op.add_column("amphora", sa.Column(name, sa.String(length=length), nullable=True))


def downgrade() -> None:
    for name in reversed(_OF_AMPHORAE):
        op.drop_column("amphora", name)
    op.drop_column("load_balancer", "placement")
