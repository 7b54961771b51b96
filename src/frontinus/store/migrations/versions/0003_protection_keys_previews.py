"""Deletion protection; idempotency keys; questions about what a change would do.

Revision ID: 0003
Revises: 0002"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: None = None
depends_on: None = None

_DOCUMENT = sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")


def upgrade() -> None:
    # Not as a batch: SQLite would make the table anew, and children hang on the old one.
    op.add_column(
        "load_balancer", sa.Column("deletion_protection", sa.Boolean(), nullable=False, server_default=sa.false())
    )
    op.create_table(
        "idempotency_key",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("owner", sa.String(length=36), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("etag", sa.Text(), nullable=True),
        sa.Column("body", _DOCUMENT, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_idempotency_key")),
    )
    op.create_index(op.f("ix_idempotency_key_expires_at"), "idempotency_key", ["expires_at"], unique=False)
    op.create_table(
        "preview",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("provider", sa.String(length=64), nullable=False),
        sa.Column("load_balancer_id", sa.String(length=36), nullable=False),
        sa.Column("question", _DOCUMENT, nullable=False),
        sa.Column("claimed_by", sa.String(length=36), nullable=True),
        sa.Column("answer", _DOCUMENT, nullable=True),
        sa.Column("asked_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_preview")),
    )
    op.create_index(op.f("ix_preview_claimed_by_asked_at"), "preview", ["claimed_by", "asked_at"], unique=False)


def downgrade() -> None:
    op.drop_table("preview")
    op.drop_table("idempotency_key")
    op.drop_column("load_balancer", "deletion_protection")
