"""The tables. Plain portable types: text, integers, booleans, one float; nothing that an engine must interpret.

Times are microseconds since the Unix epoch (exact, sortable, the same on every engine); enums are their text; tuples,
mappings and nested values are JSON text. migrations/ makes these tables; a test proves that both agree. rows.py says
how a row becomes a value.

Ownership is a foreign key that cascades: what hangs on a removed row goes with it. A mere reference (a listener's
default pool) is a foreign key that is nulled. That two members of a pool never share an address and port, and the
like, is not a unique index here: rows whose deletion was requested stay until it has been carried out and must not
count, and MariaDB has no partial indexes. Every edit reads the tree with its row locked, validates, and writes in the
same transaction, so the row lock of the tree keeps these rules on every engine."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    false,
)
from sqlalchemy.dialects import mysql

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

ID_LENGTH = 36
NAME_LENGTH = 255
STATUS_LENGTH = 32


def _id(name: str, *, nullable: bool = False) -> Column[str]:
    return Column(name, String(ID_LENGTH), nullable=nullable)


def _name(name: str, *, nullable: bool = False) -> Column[str]:
    return Column(name, String(NAME_LENGTH), nullable=nullable)


def _word(name: str, *, nullable: bool = False) -> Column[str]:
    """A value of a closed set."""
    return Column(name, String(STATUS_LENGTH), nullable=nullable)


def _text(name: str, *, nullable: bool = False) -> Column[str]:
    return Column(name, Text, nullable=nullable)


def _document(name: str, *, nullable: bool = False) -> Column[str]:
    """Text of any length: MariaDB's TEXT ends at 64 KiB."""
    return Column(name, Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb"), nullable=nullable)


def _flag(name: str, *, nullable: bool = False) -> Column[bool]:
    return Column(name, Boolean, nullable=nullable)


def _number(name: str, *, nullable: bool = False) -> Column[int]:
    return Column(name, Integer, nullable=nullable)


def _counter(name: str, *, nullable: bool = False) -> Column[int]:
    return Column(name, BigInteger, nullable=nullable)


def _time(name: str, *, nullable: bool = False) -> Column[int]:
    return Column(name, BigInteger, nullable=nullable)


def _owner(name: str, table: str) -> Column[str]:
    return Column(name, String(ID_LENGTH), ForeignKey(f"{table}.id", ondelete="CASCADE"), nullable=False)


def _reference(name: str, table: str) -> Column[str]:
    return Column(name, String(ID_LENGTH), ForeignKey(f"{table}.id", ondelete="SET NULL"), nullable=True)


def _own_id() -> Column[str]:
    return Column("id", String(ID_LENGTH), primary_key=True)


def _child(name: str, *columns: Column[str] | Column[int] | Column[bool] | Column[float]) -> Table:
    """A table below load_balancer: what model.tree.Child has, then its own columns, then the indexes of its lists."""
    return Table(
        name,
        metadata,
        _own_id(),
        _owner("load_balancer_id", "load_balancer"),
        _name("project_id"),
        _name("name"),
        _flag("admin_state_up"),
        _text("tags"),
        _word("provisioning_status"),
        _word("operating_status"),
        _counter("changed_generation"),
        _flag("delete_requested"),
        _text("fault", nullable=True),
        _time("created_at"),
        _time("updated_at", nullable=True),
        *columns,
        Index(None, "load_balancer_id", "created_at", "id"),
        Index(None, "created_at", "id"),
        Index(None, "project_id", "created_at", "id"),
    )


load_balancer = Table(
    "load_balancer",
    metadata,
    _own_id(),
    _name("project_id"),
    _name("name"),
    _text("description"),
    _flag("admin_state_up"),
    Column("vip_address", String(64), nullable=False),
    _id("vip_subnet_id"),
    _id("vip_network_id"),
    _id("vip_port_id"),
    _text("additional_vips"),
    _id("vip_qos_policy_id", nullable=True),
    _text("vip_sg_ids"),
    Column("vip_vnic_type", String(32), nullable=False, server_default="normal"),
    _counter("threads", nullable=True),
    _counter("max_connections", nullable=True),
    _counter("max_memory", nullable=True),
    _text("placement", nullable=True),
    _flag("vip_port_owned"),
    _id("flavor_id", nullable=True),
    _name("availability_zone", nullable=True),
    Column("provider", String(64), nullable=False),
    _word("topology"),
    # With a default in the database, for load balancers that were made before there was protection.
    Column("deletion_protection", Boolean, nullable=False, server_default=false()),
    _text("tags"),
    _word("provisioning_status"),
    _word("operating_status"),
    _counter("generation"),
    _counter("applied_generation"),
    _flag("delete_requested"),
    _text("fault", nullable=True),
    _time("created_at"),
    _time("updated_at", nullable=True),
    # The cohort that serves it (table cohort). NULL: made by a version that knew none; the next heir takes it.
    Column("driver", String(64), nullable=True),
    Column("driver_version", String(64), nullable=True),
    # Work: due_at is when a controller shall look at it next, NULL when there is nothing to do.
    _time("due_at", nullable=True),
    _id("lease_owner", nullable=True),
    _counter("lease_epoch"),
    _time("lease_expires_at", nullable=True),
    # What was asked for when the lease was taken: a wish or a nudge that comes after it keeps the row due.
    _counter("nudges"),
    _counter("claimed_nudges"),
    _counter("claimed_generation"),
    Index(None, "created_at", "id"),
    Index(None, "project_id", "created_at", "id"),
    # What lists of a hundred thousand are sorted and filtered by; tags have a table of their own below.
    Index(None, "project_id", "name", "created_at", "id"),
    Index(None, "name", "created_at", "id"),
    Index(None, "vip_address", "created_at", "id"),
    Index(None, "provisioning_status", "created_at", "id"),
    # Of versions that claim without cohorts; the next index serves the claims of this one.
    Index(None, "due_at"),
    Index(None, "driver", "driver_version", "due_at"),
    Index(None, "flavor_id"),
    Index(None, "availability_zone"),
)

# The tags of load balancers once more, to find load balancers by; `tags` above is what is shown.
load_balancer_tag = Table(
    "load_balancer_tag",
    metadata,
    Column("tag", String(NAME_LENGTH), primary_key=True),
    Column("load_balancer_id", String(ID_LENGTH), ForeignKey("load_balancer.id", ondelete="CASCADE"), primary_key=True),
    Index(None, "load_balancer_id"),
)

pool = _child(
    "pool",
    _text("description"),
    _word("protocol"),
    _word("lb_algorithm"),
    _text("session_persistence", nullable=True),
    _flag("tls_enabled"),
    _text("tls_container_ref", nullable=True),
    _text("ca_tls_container_ref", nullable=True),
    _text("crl_container_ref", nullable=True),
    _text("tls_ciphers", nullable=True),
    _text("tls_versions", nullable=True),
    _text("alpn_protocols", nullable=True),
)

listener = _child(
    "listener",
    _text("description"),
    _word("protocol"),
    _number("protocol_port"),
    _reference("default_pool_id", "pool"),
    _number("connection_limit", nullable=True),
    _number("timeout_client_data"),
    _number("timeout_member_connect"),
    _number("timeout_member_data"),
    _number("timeout_tcp_inspect"),
    _text("insert_headers"),
    _text("allowed_cidrs"),
    _text("default_tls_container_ref", nullable=True),
    _text("sni_container_refs"),
    _text("client_ca_tls_container_ref", nullable=True),
    _word("client_authentication"),
    _text("client_crl_container_ref", nullable=True),
    _text("tls_ciphers", nullable=True),
    _text("tls_versions", nullable=True),
    _text("alpn_protocols", nullable=True),
    _counter("hsts_max_age", nullable=True),
    _flag("hsts_include_subdomains", nullable=True),
    _flag("hsts_preload", nullable=True),
)
Index(None, listener.c.default_pool_id)

member = _child(
    "member",
    _owner("pool_id", "pool"),
    Column("address", String(64), nullable=False),
    _number("protocol_port"),
    _number("weight", nullable=True),
    _flag("backup"),
    _id("subnet_id", nullable=True),
    Column("monitor_address", String(64), nullable=True),
    _number("monitor_port", nullable=True),
    _word("vnic_type"),
    _text("last_check", nullable=True),
)
Index(None, member.c.pool_id, member.c.created_at, member.c.id)

health_monitor = _child(
    "health_monitor",
    _owner("pool_id", "pool"),
    _word("type"),
    _number("delay"),
    _number("timeout"),
    _number("max_retries"),
    _number("max_retries_down"),
    _word("http_method", nullable=True),
    _text("url_path", nullable=True),
    _text("expected_codes", nullable=True),
    Column("http_version", Float, nullable=True),
    _text("domain_name", nullable=True),
)
Index(None, health_monitor.c.pool_id)

l7_policy = _child(
    "l7_policy",
    _owner("listener_id", "listener"),
    _text("description"),
    _word("action"),
    _number("position"),
    _reference("redirect_pool_id", "pool"),
    _text("redirect_url", nullable=True),
    _text("redirect_prefix", nullable=True),
    _number("redirect_http_code", nullable=True),
)
Index(None, l7_policy.c.listener_id, l7_policy.c.position)
Index(None, l7_policy.c.redirect_pool_id)

l7_rule = _child(
    "l7_rule",
    _owner("l7_policy_id", "l7_policy"),
    _word("type"),
    _word("compare_type"),
    _text("key", nullable=True),
    _text("value"),
    _flag("invert"),
)
Index(None, l7_rule.c.l7_policy_id)

amphora = Table(
    "amphora",
    metadata,
    _own_id(),
    _owner("load_balancer_id", "load_balancer"),
    _name("project_id"),
    _word("status"),
    _word("role"),
    _name("compute_id", nullable=True),
    Column("management_address", String(64), nullable=True),
    _text("balancer_version", nullable=True),
    # In the row and not in a table of their own: they are read and written with it, and cost no tree one more select.
    Column("ports", Text, nullable=False, server_default="[]"),
    Column("vrrp_address", String(64), nullable=True),
    _id("vrrp_port_id", nullable=True),
    _word("vrrp_interface", nullable=True),
    _name("host", nullable=True),
    _name("compute_flavor", nullable=True),
    _id("image_id", nullable=True),
    _name("compute_zone", nullable=True),
    # It sends Octavia's plain datagrams, and only of such they are accepted.
    Column("speaks_plain", Boolean, nullable=False, server_default=false()),
    _text("receipt", nullable=True),
    Column("identity_digest", String(64), nullable=True),
    _time("certificate_expires_at", nullable=True),
    _time("certificate_renew_at", nullable=True),
    Column("birth_fingerprint", String(64), nullable=True),
    _time("suspected_at", nullable=True),
    _time("revived_at", nullable=True),
    # Wishes: set by the API, obeyed by the controller, cleared by nobody.
    _time("replacement_requested_at", nullable=True),
    _time("push_requested_at", nullable=True),
    _time("seen_at", nullable=True),
    _time("created_at"),
    _time("updated_at", nullable=True),
    Index(None, "certificate_renew_at"),
    Index(None, "identity_digest"),
    Index(None, "load_balancer_id", "created_at", "id"),
    Index(None, "created_at", "id"),
    Index(None, "status"),
)

listener_statistics = Table(
    "listener_statistics",
    metadata,
    Column(
        "listener_id",
        String(ID_LENGTH),
        ForeignKey("listener.id", ondelete="CASCADE"),
        primary_key=True,
    ),
    # No foreign key: what an amphora carried still counts when its row has been purged.
    Column("amphora_id", String(ID_LENGTH), primary_key=True),
    _counter("bytes_in"),
    _counter("bytes_out"),
    _counter("active_connections"),
    _counter("total_connections"),
    _counter("request_errors"),
    # The amphora tells absolute counters since `counted_since` (nanoseconds); what was counted before that is the base.
    _counter("base_bytes_in"),
    _counter("base_bytes_out"),
    _counter("base_total_connections"),
    _counter("base_request_errors"),
    _counter("counted_since"),
)

controller = Table(
    "controller",
    metadata,
    _own_id(),
    Column("driver", String(64), nullable=False),
    Column("driver_version", String(64), nullable=False),
    _name("host"),
    _number("pid"),
    _text("capabilities"),
    Column("provider", String(64), nullable=False),
    _time("started_at"),
    _time("seen_at"),
    _time("stopped_at", nullable=True),
    # Digests of the settings that all controllers of a cohort must share: as a whole, and of each by its key.
    Column("config_digest", String(64), nullable=True),
    _text("configuration", nullable=True),
    Index(None, "provider", "started_at"),
    Index(None, "driver"),
)

# All controllers of one driver in one version. Rows stay while a load balancer belongs to them.
cohort = Table(
    "cohort",
    metadata,
    Column("driver", String(64), primary_key=True),
    Column("driver_version", String(64), primary_key=True),
    _word("state"),
    _text("providers"),
    _text("capabilities"),
    Column("config_digest", String(64), nullable=True),
    _time("first_seen_at"),
    _time("changed_at"),
    _time("registered_at"),
)

# What projects may have. A project without a record has the operator's defaults; unset is the default too.
quota = Table(
    "quota",
    metadata,
    Column("project_id", String(NAME_LENGTH), primary_key=True),
    _number("load_balancer", nullable=True),
    _number("listener", nullable=True),
    _number("pool", nullable=True),
    _number("member", nullable=True),
    _number("health_monitor", nullable=True),
    _number("l7_policy", nullable=True),
    _number("l7_rule", nullable=True),
    _time("created_at"),
    Index(None, "created_at", "project_id"),
)


def _profile(name: str, data: str) -> Table:
    return Table(
        name,
        metadata,
        _own_id(),
        _name("name"),
        _name("provider_name"),
        _text(data),
        _time("created_at"),
        Index(None, "created_at", "id"),
    )


flavor_profile = _profile("flavor_profile", "flavor_data")
availability_zone_profile = _profile("availability_zone_profile", "availability_zone_data")

flavor = Table(
    "flavor",
    metadata,
    _own_id(),
    _name("name"),
    _text("description"),
    _flag("enabled"),
    Column("flavor_profile_id", String(ID_LENGTH), ForeignKey("flavor_profile.id"), nullable=False),
    _time("created_at"),
    Index(None, "name", unique=True),
    Index(None, "flavor_profile_id"),
    Index(None, "created_at", "id"),
)

availability_zone = Table(
    "availability_zone",
    metadata,
    Column("name", String(NAME_LENGTH), primary_key=True),
    _text("description"),
    _flag("enabled"),
    Column(
        "availability_zone_profile_id",
        String(ID_LENGTH),
        ForeignKey("availability_zone_profile.id"),
        nullable=False,
    ),
    _time("created_at"),
    Index(None, "availability_zone_profile_id"),
    Index(None, "created_at", "name"),
)

# Creates that were sent with an Idempotency-Key. `id` is a digest of project, operation and key. Without a status the
# row is a reservation: its owner works on the request until expires_at. With one it is the answer, kept until then.
idempotency_key = Table(
    "idempotency_key",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("fingerprint", String(64), nullable=False),
    _id("owner"),
    _time("expires_at"),
    _number("status", nullable=True),
    _text("etag", nullable=True),
    _document("body", nullable=True),
    Index(None, "expires_at"),
)

# Questions of the API to the controllers: what would this change in what amphorae run? Rows live for seconds.
preview = Table(
    "preview",
    metadata,
    _own_id(),
    Column("provider", String(64), nullable=False),
    # Whose question it is; NULL: of any cohort that serves the provider.
    Column("driver", String(64), nullable=True),
    Column("driver_version", String(64), nullable=True),
    _id("load_balancer_id"),
    _document("question"),
    _id("claimed_by", nullable=True),
    _document("answer", nullable=True),
    _time("asked_at"),
    Index(None, "claimed_by", "asked_at"),
)

# Under such a mark nothing is replaced: an amphora, a load balancer, a host, or (target empty) the installation.
maintenance = Table(
    "maintenance",
    metadata,
    Column("scope", String(STATUS_LENGTH), primary_key=True),
    Column("target", String(NAME_LENGTH), primary_key=True),
    _text("reason"),
    _time("created_at"),
    _time("until", nullable=True),
)

# Receivers of heartbeats. `heard` is what each knows of every amphora, and `turn` grows when that is written anew: the
# others read it, and so does the one that comes after it. A row outlives its receiver until another has read it.
receiver = Table(
    "receiver",
    metadata,
    _own_id(),
    _name("host"),
    _number("port"),
    _time("started_at"),
    _time("seen_at"),
    _number("watched"),
    _number("silent"),
    _flag("braked"),
    _counter("turn"),
    _document("heard"),
)

# So many load balancers may have an amphora torn down at a time. A turn whose load balancer has settled is free.
replacement_turn = Table(
    "replacement_turn",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    _id("load_balancer_id"),
    _time("taken_at"),
)

# Amphorae without a load balancer. They are no rows of `amphora`, which belong to one.
spare = Table(
    "spare",
    metadata,
    Column("pool", String(NAME_LENGTH), primary_key=True),
    Column("slot", Integer, primary_key=True, autoincrement=False),
    _id("amphora_id"),
    _word("status"),
    _text("amphora"),
    _time("touched_at"),
)

# What third-party provider drivers have been told of load balancers.
provider_record = Table(
    "provider_record",
    metadata,
    Column("load_balancer_id", String(ID_LENGTH), ForeignKey("load_balancer.id", ondelete="CASCADE"), primary_key=True),
    _document("settled", nullable=True),
    _name("sent", nullable=True),
    _document("sent_then", nullable=True),
    _id("sent_by", nullable=True),
    _time("sent_at", nullable=True),
    _word("reported", nullable=True),
    _name("reported_about", nullable=True),
    _time("failed_over_at", nullable=True),
)

# Failovers that were asked for, of such load balancers. The API writes it, and no controller does.
provider_failover = Table(
    "provider_failover",
    metadata,
    Column("load_balancer_id", String(ID_LENGTH), ForeignKey("load_balancer.id", ondelete="CASCADE"), primary_key=True),
    _time("requested_at"),
)

# Owners of things outside that no row knows (model/belongings.py), while they are seen.
orphan = Table(
    "orphan",
    metadata,
    Column("kind", String(STATUS_LENGTH), primary_key=True),
    Column("owner_id", String(64), primary_key=True),
    _time("first_seen_at"),
    _time("seen_at"),
)

# Moves of many load balancers (model/rollouts.py). `active_driver` is set while a rollout is not over: one for each driver.
rollout = Table(
    "rollout",
    metadata,
    _own_id(),
    _word("kind"),
    Column("driver", String(64), nullable=False),
    Column("target", String(64), nullable=False),
    _text("selection"),
    _text("waves"),
    _text("gates"),
    _word("state"),
    _text("reason"),
    _flag("in_canary"),
    _time("wave_since"),
    _time("created_at"),
    _time("ended_at", nullable=True),
    Column("active_driver", String(64), nullable=True),
    _id("lease_owner", nullable=True),
    _counter("lease_epoch"),
    _time("lease_expires_at", nullable=True),
    Index(None, "active_driver", unique=True),
    Index(None, "created_at", "id"),
)

# No foreign key to the load balancer: what was done stays told when it is purged.
rollout_load_balancer = Table(
    "rollout_load_balancer",
    metadata,
    Column("rollout_id", String(ID_LENGTH), ForeignKey("rollout.id", ondelete="CASCADE"), primary_key=True),
    Column("load_balancer_id", String(ID_LENGTH), primary_key=True),
    _number("position"),
    _word("state"),
    _text("state_before", nullable=True),
    _time("moved_at", nullable=True),
    _time("arrived_at", nullable=True),
    _text("reason"),
    Index(None, "rollout_id", "state", "position"),
)
