"""How amphorae hang on networks.

Revision ID: 0009
Revises: 0008"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0009"
down_revision: str | None = "0008"
branch_labels: None = None
depends_on: None = None


def upgrade() -> None:
    op.add_column("amphora", sa.Column("ports", sa.Text(), nullable=False, server_default="[]"))
    op.add_column("amphora", sa.Column("vrrp_address", sa.String(length=64), nullable=True))
    op.add_column("amphora", sa.Column("vrrp_port_id", sa.String(length=36), nullable=True))
    op.add_column("amphora", sa.Column("vrrp_interface", sa.String(length=32), nullable=True))


def downgrade() -> None:
    for name in ("vrrp_interface", "vrrp_port_id", "vrrp_address", "ports"):
        op.drop_column("amphora", name)
