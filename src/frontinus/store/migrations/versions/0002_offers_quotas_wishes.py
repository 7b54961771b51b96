"""Quotas; flavors, availability zones and their profiles; what can be asked of an amphora.

Revision ID: 0002
Revises: 0001"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from frontinus.store.migrations import online

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: None = None
depends_on: None = None


def upgrade() -> None:
    op.create_table(
        "availability_zone_profile",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("provider_name", sa.String(length=255), nullable=False),
        sa.Column("availability_zone_data", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_availability_zone_profile")),
    )
    op.create_index(
        op.f("ix_availability_zone_profile_created_at_id"),
        "availability_zone_profile",
        ["created_at", "id"],
        unique=False,
    )
    op.create_table(
        "flavor_profile",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("provider_name", sa.String(length=255), nullable=False),
        sa.Column("flavor_data", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_flavor_profile")),
    )
    op.create_index(op.f("ix_flavor_profile_created_at_id"), "flavor_profile", ["created_at", "id"], unique=False)
    op.create_table(
        "quota",
        sa.Column("project_id", sa.String(length=255), nullable=False),
        sa.Column("load_balancer", sa.Integer(), nullable=True),
        sa.Column("listener", sa.Integer(), nullable=True),
        sa.Column("pool", sa.Integer(), nullable=True),
        sa.Column("member", sa.Integer(), nullable=True),
        sa.Column("health_monitor", sa.Integer(), nullable=True),
        sa.Column("l7_policy", sa.Integer(), nullable=True),
        sa.Column("l7_rule", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("project_id", name=op.f("pk_quota")),
    )
    op.create_index(op.f("ix_quota_created_at_project_id"), "quota", ["created_at", "project_id"], unique=False)
    op.create_table(
        "availability_zone",
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("availability_zone_profile_id", sa.String(length=36), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["availability_zone_profile_id"],
            ["availability_zone_profile.id"],
            name=op.f("fk_availability_zone_availability_zone_profile_id"),
        ),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_availability_zone")),
    )
    op.create_index(
        op.f("ix_availability_zone_availability_zone_profile_id"),
        "availability_zone",
        ["availability_zone_profile_id"],
        unique=False,
    )
    op.create_index(
        op.f("ix_availability_zone_created_at_name"), "availability_zone", ["created_at", "name"], unique=False
    )
    op.create_table(
        "flavor",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("flavor_profile_id", sa.String(length=36), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["flavor_profile_id"], ["flavor_profile.id"], name=op.f("fk_flavor_flavor_profile_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_flavor")),
    )
    op.create_index(op.f("ix_flavor_created_at_id"), "flavor", ["created_at", "id"], unique=False)
    op.create_index(op.f("ix_flavor_flavor_profile_id"), "flavor", ["flavor_profile_id"], unique=False)
    op.create_index(op.f("ix_flavor_name"), "flavor", ["name"], unique=True)
    with op.batch_alter_table("amphora") as batch:
        batch.add_column(sa.Column("replacement_requested_at", sa.BigInteger(), nullable=True))
        batch.add_column(sa.Column("push_requested_at", sa.BigInteger(), nullable=True))
    online.create_index("ix_amphora_created_at_id", "amphora", ("created_at", "id"))
    online.create_index("ix_load_balancer_availability_zone", "load_balancer", ("availability_zone",))
    online.create_index("ix_load_balancer_flavor_id", "load_balancer", ("flavor_id",))


def downgrade() -> None:
    op.drop_index(op.f("ix_load_balancer_flavor_id"), "load_balancer")
    op.drop_index(op.f("ix_load_balancer_availability_zone"), "load_balancer")
    op.drop_index(op.f("ix_amphora_created_at_id"), "amphora")
    with op.batch_alter_table("amphora") as batch:
        batch.drop_column("push_requested_at")
        batch.drop_column("replacement_requested_at")
    op.drop_table("flavor")
    op.drop_table("availability_zone")
    op.drop_table("quota")
    op.drop_table("flavor_profile")
    op.drop_table("availability_zone_profile")
