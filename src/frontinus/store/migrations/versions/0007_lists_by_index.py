"""Indexes for lists of very many load balancers: by name, VIP address, status and tag.

Revision ID: 0007
Revises: 0006"""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

from frontinus.store.migrations import online

revision: str = "0007"
down_revision: str | None = "0006"
branch_labels: None = None
depends_on: None = None

_INDEXES = (
    ("project_id", "name", "created_at", "id"),
    ("name", "created_at", "id"),
    ("vip_address", "created_at", "id"),
    ("provisioning_status", "created_at", "id"),
)


def _name(columns: tuple[str, ...]) -> str:
    return f"ix_load_balancer_{'_'.join(columns)}"


def upgrade() -> None:
    op.create_table(
        "load_balancer_tag",
        sa.Column("tag", sa.String(length=255), nullable=False),
        sa.Column("load_balancer_id", sa.String(length=36), nullable=False),
        sa.ForeignKeyConstraint(
            ["load_balancer_id"],
            ["load_balancer.id"],
            name=op.f("fk_load_balancer_tag_load_balancer_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("tag", "load_balancer_id", name=op.f("pk_load_balancer_tag")),
    )
    op.create_index(op.f("ix_load_balancer_tag_load_balancer_id"), "load_balancer_tag", ["load_balancer_id"])
    op.execute(sa.text("DELETE FROM load_balancer_tag"))  # of a try that was broken off at the indexes
    tagged = op.get_bind().execute(sa.text("SELECT id, tags FROM load_balancer WHERE tags <> '[]'"))
    rows = [{"tag": tag, "load_balancer_id": key} for key, tags in tagged.all() for tag in set(json.loads(tags))]
    if rows:
        table = sa.table("load_balancer_tag", sa.column("tag", sa.String), sa.column("load_balancer_id", sa.String))
        op.bulk_insert(table, rows)
    for columns in _INDEXES:
        online.create_index(_name(columns), "load_balancer", columns)


def downgrade() -> None:
    for columns in _INDEXES:
        op.drop_index(op.f(_name(columns)), "load_balancer")
    op.drop_table("load_balancer_tag")
