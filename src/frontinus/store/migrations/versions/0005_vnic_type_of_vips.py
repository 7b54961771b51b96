"""What the VIP's port is on its host.

Revision ID: 0005
Revises: 0004"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: None = None
depends_on: None = None


def upgrade() -> None:
    # Not as a batch: SQLite would make the table anew, and children hang on the old one.
    op.add_column(
        "load_balancer", sa.Column("vip_vnic_type", sa.String(length=32), nullable=False, server_default="normal")
    )


def downgrade() -> None:
    op.drop_column("load_balancer", "vip_vnic_type")
