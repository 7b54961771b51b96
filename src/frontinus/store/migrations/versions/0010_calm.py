"""What keeps replacements calm: maintenance marks, receivers and what they heard, turns at replacing.

Revision ID: 0010
Revises: 0009"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision: str = "0010"
down_revision: str | None = "0009"
branch_labels: None = None
depends_on: None = None

_DOCUMENT = sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")


def upgrade() -> None:
    op.add_column("amphora", sa.Column("host", sa.String(255), nullable=True))
    op.add_column("amphora", sa.Column("speaks_plain", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.create_table(
        "maintenance",
        sa.Column("scope", sa.String(32), nullable=False),
        sa.Column("target", sa.String(255), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("scope", "target", name="pk_maintenance"),
    )
    op.create_table(
        "receiver",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("port", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("seen_at", sa.BigInteger(), nullable=False),
        sa.Column("watched", sa.Integer(), nullable=False),
        sa.Column("silent", sa.Integer(), nullable=False),
        sa.Column("braked", sa.Boolean(), nullable=False),
        sa.Column("turn", sa.BigInteger(), nullable=False),
        sa.Column("heard", _DOCUMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_receiver"),
    )
    op.create_table(
        "replacement_turn",
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("load_balancer_id", sa.String(36), nullable=False),
        sa.Column("taken_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_replacement_turn"),
    )


def downgrade() -> None:
    op.drop_table("replacement_turn")
    op.drop_table("receiver")
    op.drop_table("maintenance")
    op.drop_column("amphora", "speaks_plain")
    op.drop_column("amphora", "host")
