"""The first schema.

Revision ID: 0001
Revises: nothing"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0001"
down_revision: str | None = None
branch_labels: None = None
depends_on: None = None


def upgrade() -> None:
    op.create_table(
        "controller",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("driver", sa.String(length=64), nullable=False),
        sa.Column("driver_version", sa.String(length=64), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("capabilities", sa.Text(), nullable=False),
        sa.Column("provider", sa.String(length=64), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("seen_at", sa.BigInteger(), nullable=False),
        sa.Column("stopped_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_controller")),
    )
    op.create_index(op.f("ix_controller_driver"), "controller", ["driver"], unique=False)
    op.create_index(op.f("ix_controller_provider_started_at"), "controller", ["provider", "started_at"], unique=False)
    op.create_table(
        "load_balancer",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("project_id", sa.String(length=255), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("admin_state_up", sa.Boolean(), nullable=False),
        sa.Column("vip_address", sa.String(length=64), nullable=False),
        sa.Column("vip_subnet_id", sa.String(length=36), nullable=False),
        sa.Column("vip_network_id", sa.String(length=36), nullable=False),
        sa.Column("vip_port_id", sa.String(length=36), nullable=False),
        sa.Column("additional_vips", sa.Text(), nullable=False),
        sa.Column("vip_qos_policy_id", sa.String(length=36), nullable=True),
        sa.Column("vip_sg_ids", sa.Text(), nullable=False),
        sa.Column("vip_port_owned", sa.Boolean(), nullable=False),
        sa.Column("flavor_id", sa.String(length=36), nullable=True),
        sa.Column("availability_zone", sa.String(length=255), nullable=True),
        sa.Column("provider", sa.String(length=64), nullable=False),
        sa.Column("topology", sa.String(length=32), nullable=False),
        sa.Column("tags", sa.Text(), nullable=False),
        sa.Column("provisioning_status", sa.String(length=32), nullable=False),
        sa.Column("operating_status", sa.String(length=32), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("applied_generation", sa.BigInteger(), nullable=False),
        sa.Column("delete_requested", sa.Boolean(), nullable=False),
        sa.Column("fault", sa.Text(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=True),
        sa.Column("due_at", sa.BigInteger(), nullable=True),
        sa.Column("lease_owner", sa.String(length=36), nullable=True),
        sa.Column("lease_epoch", sa.BigInteger(), nullable=False),
        sa.Column("lease_expires_at", sa.BigInteger(), nullable=True),
        sa.Column("nudges", sa.BigInteger(), nullable=False),
        sa.Column("claimed_nudges", sa.BigInteger(), nullable=False),
        sa.Column("claimed_generation", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_load_balancer")),
    )
    op.create_index(op.f("ix_load_balancer_created_at_id"), "load_balancer", ["created_at", "id"], unique=False)
    op.create_index(op.f("ix_load_balancer_due_at"), "load_balancer", ["due_at"], unique=False)
    op.create_index(
        op.f("ix_load_balancer_project_id_created_at_id"),
        "load_balancer",
        ["project_id", "created_at", "id"],
        unique=False,
    )
    op.create_table(
        "amphora",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("load_balancer_id", sa.String(length=36), nullable=False),
        sa.Column("project_id", sa.String(length=255), nullable=False),
        sa.Column("status", sa.String(length=32), nullable=False),
        sa.Column("role", sa.String(length=32), nullable=False),
        sa.Column("compute_id", sa.String(length=255), nullable=True),
        sa.Column("management_address", sa.String(length=64), nullable=True),
        sa.Column("receipt", sa.Text(), nullable=True),
        sa.Column("suspected_at", sa.BigInteger(), nullable=True),
        sa.Column("revived_at", sa.BigInteger(), nullable=True),
        sa.Column("seen_at", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["load_balancer_id"], ["load_balancer.id"], name=op.f("fk_amphora_load_balancer_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_amphora")),
    )
    op.create_index(
        op.f("ix_amphora_load_balancer_id_created_at_id"),
        "amphora",
        ["load_balancer_id", "created_at", "id"],
        unique=False,
    )
    op.create_index(op.f("ix_amphora_status"), "amphora", ["status"], unique=False)
    op.create_table(
        "pool",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("load_balancer_id", sa.String(length=36), nullable=False),
        sa.Column("project_id", sa.String(length=255), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("admin_state_up", sa.Boolean(), nullable=False),
        sa.Column("tags", sa.Text(), nullable=False),
        sa.Column("provisioning_status", sa.String(length=32), nullable=False),
        sa.Column("operating_status", sa.String(length=32), nullable=False),
        sa.Column("changed_generation", sa.BigInteger(), nullable=False),
        sa.Column("delete_requested", sa.Boolean(), nullable=False),
        sa.Column("fault", sa.Text(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=True),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("protocol", sa.String(length=32), nullable=False),
        sa.Column("lb_algorithm", sa.String(length=32), nullable=False),
        sa.Column("session_persistence", sa.Text(), nullable=True),
        sa.Column("tls_enabled", sa.Boolean(), nullable=False),
        sa.Column("tls_container_ref", sa.Text(), nullable=True),
        sa.Column("ca_tls_container_ref", sa.Text(), nullable=True),
        sa.Column("crl_container_ref", sa.Text(), nullable=True),
        sa.Column("tls_ciphers", sa.Text(), nullable=True),
        sa.Column("tls_versions", sa.Text(), nullable=True),
        sa.Column("alpn_protocols", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["load_balancer_id"], ["load_balancer.id"], name=op.f("fk_pool_load_balancer_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_pool")),
    )
    op.create_index(op.f("ix_pool_created_at_id"), "pool", ["created_at", "id"], unique=False)
    op.create_index(
        op.f("ix_pool_load_balancer_id_created_at_id"), "pool", ["load_balancer_id", "created_at", "id"], unique=False
    )
    op.create_index(op.f("ix_pool_project_id_created_at_id"), "pool", ["project_id", "created_at", "id"], unique=False)
    op.create_table(
        "health_monitor",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("load_balancer_id", sa.String(length=36), nullable=False),
        sa.Column("project_id", sa.String(length=255), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("admin_state_up", sa.Boolean(), nullable=False),
        sa.Column("tags", sa.Text(), nullable=False),
        sa.Column("provisioning_status", sa.String(length=32), nullable=False),
        sa.Column("operating_status", sa.String(length=32), nullable=False),
        sa.Column("changed_generation", sa.BigInteger(), nullable=False),
        sa.Column("delete_requested", sa.Boolean(), nullable=False),
        sa.Column("fault", sa.Text(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=True),
        sa.Column("pool_id", sa.String(length=36), nullable=False),
        sa.Column("type", sa.String(length=32), nullable=False),
        sa.Column("delay", sa.Integer(), nullable=False),
        sa.Column("timeout", sa.Integer(), nullable=False),
        sa.Column("max_retries", sa.Integer(), nullable=False),
        sa.Column("max_retries_down", sa.Integer(), nullable=False),
        sa.Column("http_method", sa.String(length=32), nullable=True),
        sa.Column("url_path", sa.Text(), nullable=True),
        sa.Column("expected_codes", sa.Text(), nullable=True),
        sa.Column("http_version", sa.Float(), nullable=True),
        sa.Column("domain_name", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["load_balancer_id"],
            ["load_balancer.id"],
            name=op.f("fk_health_monitor_load_balancer_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["pool_id"], ["pool.id"], name=op.f("fk_health_monitor_pool_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_health_monitor")),
    )
    op.create_index(op.f("ix_health_monitor_created_at_id"), "health_monitor", ["created_at", "id"], unique=False)
    op.create_index(
        op.f("ix_health_monitor_load_balancer_id_created_at_id"),
        "health_monitor",
        ["load_balancer_id", "created_at", "id"],
        unique=False,
    )
    op.create_index(op.f("ix_health_monitor_pool_id"), "health_monitor", ["pool_id"], unique=False)
    op.create_index(
        op.f("ix_health_monitor_project_id_created_at_id"),
        "health_monitor",
        ["project_id", "created_at", "id"],
        unique=False,
    )
    op.create_table(
        "listener",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("load_balancer_id", sa.String(length=36), nullable=False),
        sa.Column("project_id", sa.String(length=255), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("admin_state_up", sa.Boolean(), nullable=False),
        sa.Column("tags", sa.Text(), nullable=False),
        sa.Column("provisioning_status", sa.String(length=32), nullable=False),
        sa.Column("operating_status", sa.String(length=32), nullable=False),
        sa.Column("changed_generation", sa.BigInteger(), nullable=False),
        sa.Column("delete_requested", sa.Boolean(), nullable=False),
        sa.Column("fault", sa.Text(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=True),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("protocol", sa.String(length=32), nullable=False),
        sa.Column("protocol_port", sa.Integer(), nullable=False),
        sa.Column("default_pool_id", sa.String(length=36), nullable=True),
        sa.Column("connection_limit", sa.Integer(), nullable=True),
        sa.Column("timeout_client_data", sa.Integer(), nullable=False),
        sa.Column("timeout_member_connect", sa.Integer(), nullable=False),
        sa.Column("timeout_member_data", sa.Integer(), nullable=False),
        sa.Column("timeout_tcp_inspect", sa.Integer(), nullable=False),
        sa.Column("insert_headers", sa.Text(), nullable=False),
        sa.Column("allowed_cidrs", sa.Text(), nullable=False),
        sa.Column("default_tls_container_ref", sa.Text(), nullable=True),
        sa.Column("sni_container_refs", sa.Text(), nullable=False),
        sa.Column("client_ca_tls_container_ref", sa.Text(), nullable=True),
        sa.Column("client_authentication", sa.String(length=32), nullable=False),
        sa.Column("client_crl_container_ref", sa.Text(), nullable=True),
        sa.Column("tls_ciphers", sa.Text(), nullable=True),
        sa.Column("tls_versions", sa.Text(), nullable=True),
        sa.Column("alpn_protocols", sa.Text(), nullable=True),
        sa.Column("hsts_max_age", sa.BigInteger(), nullable=True),
        sa.Column("hsts_include_subdomains", sa.Boolean(), nullable=True),
        sa.Column("hsts_preload", sa.Boolean(), nullable=True),
        sa.ForeignKeyConstraint(
            ["default_pool_id"], ["pool.id"], name=op.f("fk_listener_default_pool_id"), ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(
            ["load_balancer_id"], ["load_balancer.id"], name=op.f("fk_listener_load_balancer_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_listener")),
    )
    op.create_index(op.f("ix_listener_created_at_id"), "listener", ["created_at", "id"], unique=False)
    op.create_index(op.f("ix_listener_default_pool_id"), "listener", ["default_pool_id"], unique=False)
    op.create_index(
        op.f("ix_listener_load_balancer_id_created_at_id"),
        "listener",
        ["load_balancer_id", "created_at", "id"],
        unique=False,
    )
    op.create_index(
        op.f("ix_listener_project_id_created_at_id"), "listener", ["project_id", "created_at", "id"], unique=False
    )
    op.create_table(
        "member",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("load_balancer_id", sa.String(length=36), nullable=False),
        sa.Column("project_id", sa.String(length=255), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("admin_state_up", sa.Boolean(), nullable=False),
        sa.Column("tags", sa.Text(), nullable=False),
        sa.Column("provisioning_status", sa.String(length=32), nullable=False),
        sa.Column("operating_status", sa.String(length=32), nullable=False),
        sa.Column("changed_generation", sa.BigInteger(), nullable=False),
        sa.Column("delete_requested", sa.Boolean(), nullable=False),
        sa.Column("fault", sa.Text(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=True),
        sa.Column("pool_id", sa.String(length=36), nullable=False),
        sa.Column("address", sa.String(length=64), nullable=False),
        sa.Column("protocol_port", sa.Integer(), nullable=False),
        sa.Column("weight", sa.Integer(), nullable=True),
        sa.Column("backup", sa.Boolean(), nullable=False),
        sa.Column("subnet_id", sa.String(length=36), nullable=True),
        sa.Column("monitor_address", sa.String(length=64), nullable=True),
        sa.Column("monitor_port", sa.Integer(), nullable=True),
        sa.Column("vnic_type", sa.String(length=32), nullable=False),
        sa.ForeignKeyConstraint(
            ["load_balancer_id"], ["load_balancer.id"], name=op.f("fk_member_load_balancer_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["pool_id"], ["pool.id"], name=op.f("fk_member_pool_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_member")),
    )
    op.create_index(op.f("ix_member_created_at_id"), "member", ["created_at", "id"], unique=False)
    op.create_index(
        op.f("ix_member_load_balancer_id_created_at_id"),
        "member",
        ["load_balancer_id", "created_at", "id"],
        unique=False,
    )
    op.create_index(op.f("ix_member_pool_id_created_at_id"), "member", ["pool_id", "created_at", "id"], unique=False)
    op.create_index(
        op.f("ix_member_project_id_created_at_id"), "member", ["project_id", "created_at", "id"], unique=False
    )
    op.create_table(
        "l7_policy",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("load_balancer_id", sa.String(length=36), nullable=False),
        sa.Column("project_id", sa.String(length=255), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("admin_state_up", sa.Boolean(), nullable=False),
        sa.Column("tags", sa.Text(), nullable=False),
        sa.Column("provisioning_status", sa.String(length=32), nullable=False),
        sa.Column("operating_status", sa.String(length=32), nullable=False),
        sa.Column("changed_generation", sa.BigInteger(), nullable=False),
        sa.Column("delete_requested", sa.Boolean(), nullable=False),
        sa.Column("fault", sa.Text(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=True),
        sa.Column("listener_id", sa.String(length=36), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("action", sa.String(length=32), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("redirect_pool_id", sa.String(length=36), nullable=True),
        sa.Column("redirect_url", sa.Text(), nullable=True),
        sa.Column("redirect_prefix", sa.Text(), nullable=True),
        sa.Column("redirect_http_code", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(
            ["listener_id"], ["listener.id"], name=op.f("fk_l7_policy_listener_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["load_balancer_id"], ["load_balancer.id"], name=op.f("fk_l7_policy_load_balancer_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["redirect_pool_id"], ["pool.id"], name=op.f("fk_l7_policy_redirect_pool_id"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_l7_policy")),
    )
    op.create_index(op.f("ix_l7_policy_created_at_id"), "l7_policy", ["created_at", "id"], unique=False)
    op.create_index(op.f("ix_l7_policy_listener_id_position"), "l7_policy", ["listener_id", "position"], unique=False)
    op.create_index(
        op.f("ix_l7_policy_load_balancer_id_created_at_id"),
        "l7_policy",
        ["load_balancer_id", "created_at", "id"],
        unique=False,
    )
    op.create_index(
        op.f("ix_l7_policy_project_id_created_at_id"), "l7_policy", ["project_id", "created_at", "id"], unique=False
    )
    op.create_index(op.f("ix_l7_policy_redirect_pool_id"), "l7_policy", ["redirect_pool_id"], unique=False)
    op.create_table(
        "listener_statistics",
        sa.Column("listener_id", sa.String(length=36), nullable=False),
        sa.Column("amphora_id", sa.String(length=36), nullable=False),
        sa.Column("bytes_in", sa.BigInteger(), nullable=False),
        sa.Column("bytes_out", sa.BigInteger(), nullable=False),
        sa.Column("active_connections", sa.BigInteger(), nullable=False),
        sa.Column("total_connections", sa.BigInteger(), nullable=False),
        sa.Column("request_errors", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["listener_id"], ["listener.id"], name=op.f("fk_listener_statistics_listener_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("listener_id", "amphora_id", name=op.f("pk_listener_statistics")),
    )
    op.create_table(
        "l7_rule",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("load_balancer_id", sa.String(length=36), nullable=False),
        sa.Column("project_id", sa.String(length=255), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("admin_state_up", sa.Boolean(), nullable=False),
        sa.Column("tags", sa.Text(), nullable=False),
        sa.Column("provisioning_status", sa.String(length=32), nullable=False),
        sa.Column("operating_status", sa.String(length=32), nullable=False),
        sa.Column("changed_generation", sa.BigInteger(), nullable=False),
        sa.Column("delete_requested", sa.Boolean(), nullable=False),
        sa.Column("fault", sa.Text(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=True),
        sa.Column("l7_policy_id", sa.String(length=36), nullable=False),
        sa.Column("type", sa.String(length=32), nullable=False),
        sa.Column("compare_type", sa.String(length=32), nullable=False),
        sa.Column("key", sa.Text(), nullable=True),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("invert", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["l7_policy_id"], ["l7_policy.id"], name=op.f("fk_l7_rule_l7_policy_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["load_balancer_id"], ["load_balancer.id"], name=op.f("fk_l7_rule_load_balancer_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_l7_rule")),
    )
    op.create_index(op.f("ix_l7_rule_created_at_id"), "l7_rule", ["created_at", "id"], unique=False)
    op.create_index(op.f("ix_l7_rule_l7_policy_id"), "l7_rule", ["l7_policy_id"], unique=False)
    op.create_index(
        op.f("ix_l7_rule_load_balancer_id_created_at_id"),
        "l7_rule",
        ["load_balancer_id", "created_at", "id"],
        unique=False,
    )
    op.create_index(
        op.f("ix_l7_rule_project_id_created_at_id"), "l7_rule", ["project_id", "created_at", "id"], unique=False
    )


def downgrade() -> None:
    op.drop_table("listener_statistics")
    op.drop_table("l7_rule")
    op.drop_table("l7_policy")
    op.drop_table("health_monitor")
    op.drop_table("member")
    op.drop_table("listener")
    op.drop_table("pool")
    op.drop_table("amphora")
    op.drop_table("load_balancer")
    op.drop_table("controller")
