"""The load balancer and everything below it, as frozen values.

Objects are held flat (a member names its pool) because that is how they are stored, compared and changed; the tree
answers the questions that need the shape. Times are aware datetimes in UTC. `changed_generation` is the generation of
the load balancer that last touched the object: when that generation has been applied, the object is settled.
Next: edits.py."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import datetime
from typing import ClassVar, TypeAlias

import msgspec

from frontinus.model.enums import (
    AmphoraRole,
    AmphoraStatus,
    ClientAuthentication,
    FaultPhase,
    HealthMonitorType,
    HttpMethod,
    Kind,
    L7PolicyAction,
    L7RuleCompareType,
    L7RuleType,
    LbAlgorithm,
    ListenerProtocol,
    OperatingStatus,
    PoolProtocol,
    ProvisioningStatus,
    SessionPersistenceType,
    Topology,
    VnicType,
)
from frontinus.model.ids import (
    AmphoraId,
    HealthMonitorId,
    L7PolicyId,
    L7RuleId,
    ListenerId,
    LoadBalancerId,
    MemberId,
    NetworkId,
    PoolId,
    PortId,
    ProjectId,
    SubnetId,
)
from frontinus.model.placement import Placement
from frontinus.model.ports import Port


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """Why a wish is not carried out yet, in words for the person who made it.

    `permanent` faults wait for a change by the user; the others are tried again at `retry_at`. `attempts` counts the
    tries since `since`. `object_kind` and `object_id` name the object that caused it, where one did. `left_out` says that
    what shows it is carried by no amphora, while the rest of the load balancer is; `without` names references of what shows
    it that lead nowhere, and that it is carried without: a listener without these certificates, a pool without members.
    `outage` says that since `since` a service that Frontinus works with was away, for a while at least."""

    code: str
    phase: FaultPhase
    message: str
    since: datetime
    attempts: int = 1
    permanent: bool = False
    retry_at: datetime | None = None
    object_kind: Kind | None = None
    object_id: str | None = None
    left_out: bool = False
    without: tuple[str, ...] = ()
    outage: bool = False


class Vip(msgspec.Struct, frozen=True, kw_only=True):
    """The virtual address. All four are known from the answer to the create call on."""

    address: str
    subnet_id: SubnetId
    network_id: NetworkId
    port_id: PortId


class AdditionalVip(msgspec.Struct, frozen=True, kw_only=True):
    """A further address, on a subnet of its own. In a wish the address may be empty, and the port unknown."""

    address: str
    subnet_id: SubnetId
    port_id: PortId | None = None
    port_owned: bool = True  # as vip_port_owned


class LoadBalancer(msgspec.Struct, frozen=True, kw_only=True):
    """`generation` counts the wishes, `applied_generation` the wishes carried out; equal means settled."""

    kind: ClassVar[Kind] = Kind.LOAD_BALANCER

    id: LoadBalancerId
    project_id: ProjectId
    name: str = ""
    description: str = ""
    admin_state_up: bool = True
    vip: Vip
    additional_vips: tuple[AdditionalVip, ...] = ()
    vip_qos_policy_id: str | None = None
    vip_sg_ids: tuple[str, ...] = ()
    vip_vnic_type: VnicType = VnicType.NORMAL
    threads: int | None = None  # as max_connections by the flavor; None: what the driver's settings say
    max_connections: int | None = None
    max_memory: int | None = None  # MiB
    placement: Placement | None = None  # by flavor and zone; None: what the drivers' settings say
    vip_port_owned: bool = True  # we made the VIP's port, so we remove it
    flavor_id: str | None = None
    availability_zone: str | None = None
    provider: str = "amphora"
    topology: Topology = Topology.SINGLE
    deletion_protection: bool = False  # of the load balancer itself: what hangs on it can be deleted
    tags: tuple[str, ...] = ()
    provisioning_status: ProvisioningStatus = ProvisioningStatus.PENDING_CREATE
    operating_status: OperatingStatus = OperatingStatus.OFFLINE
    generation: int = 1
    applied_generation: int = 0
    delete_requested: bool = False
    fault: Fault | None = None
    created_at: datetime
    updated_at: datetime | None = None


class Child(msgspec.Struct, frozen=True, kw_only=True):
    """What every object below a load balancer has."""

    load_balancer_id: LoadBalancerId
    project_id: ProjectId
    name: str = ""
    admin_state_up: bool = True
    tags: tuple[str, ...] = ()
    provisioning_status: ProvisioningStatus = ProvisioningStatus.PENDING_CREATE
    operating_status: OperatingStatus = OperatingStatus.OFFLINE
    changed_generation: int = 0
    delete_requested: bool = False
    fault: Fault | None = None
    created_at: datetime
    updated_at: datetime | None = None


DEFAULT_IDLE_MS = 50_000
"""How long clients and members may be silent where nothing is said."""


class Listener(Child, frozen=True, kw_only=True):
    """Timeouts are in milliseconds; connection_limit -1 (or None, as Octavia stores it) means no limit."""

    kind: ClassVar[Kind] = Kind.LISTENER

    id: ListenerId
    description: str = ""
    protocol: ListenerProtocol
    protocol_port: int
    default_pool_id: PoolId | None = None
    connection_limit: int | None = -1
    timeout_client_data: int = DEFAULT_IDLE_MS
    timeout_member_connect: int = 5_000
    timeout_member_data: int = DEFAULT_IDLE_MS
    timeout_tcp_inspect: int = 0
    insert_headers: dict[str, str] = {}
    allowed_cidrs: tuple[str, ...] = ()
    default_tls_container_ref: str | None = None
    sni_container_refs: tuple[str, ...] = ()
    client_ca_tls_container_ref: str | None = None
    client_authentication: ClientAuthentication = ClientAuthentication.NONE
    client_crl_container_ref: str | None = None
    tls_ciphers: str | None = None
    tls_versions: tuple[str, ...] | None = None
    alpn_protocols: tuple[str, ...] | None = None
    hsts_max_age: int | None = None
    hsts_include_subdomains: bool | None = False
    hsts_preload: bool | None = False

    @property
    def idle_ms(self) -> int:
        """How long a session of datagrams may be silent on both sides: the shorter of the two; 0: for ever."""
        return min((x for x in (self.timeout_client_data, self.timeout_member_data) if x), default=0)


class SessionPersistence(msgspec.Struct, frozen=True, kw_only=True):
    type: SessionPersistenceType
    cookie_name: str | None = None
    persistence_timeout: int | None = None
    persistence_granularity: str | None = None


class Pool(Child, frozen=True, kw_only=True):
    kind: ClassVar[Kind] = Kind.POOL

    id: PoolId
    description: str = ""
    protocol: PoolProtocol
    lb_algorithm: LbAlgorithm
    session_persistence: SessionPersistence | None = None
    tls_enabled: bool = False
    tls_container_ref: str | None = None
    ca_tls_container_ref: str | None = None
    crl_container_ref: str | None = None
    tls_ciphers: str | None = None
    tls_versions: tuple[str, ...] | None = None
    alpn_protocols: tuple[str, ...] | None = None


class LastCheck(msgspec.Struct, frozen=True, kw_only=True):
    """Why a member is down, and since when that is known: model/heartbeat.py, CheckReport."""

    status: str
    code: int | None = None
    text: str = ""
    since: datetime


class Member(Child, frozen=True, kw_only=True):
    """`last_check` is a report, while it is down. weight None is how Octavia stores an explicit null at create; the data plane reads it as 1."""

    kind: ClassVar[Kind] = Kind.MEMBER

    id: MemberId
    pool_id: PoolId
    address: str
    protocol_port: int
    weight: int | None = 1
    backup: bool = False
    subnet_id: SubnetId | None = None
    monitor_address: str | None = None
    monitor_port: int | None = None
    vnic_type: VnicType = VnicType.NORMAL
    last_check: LastCheck | None = None


class HealthMonitor(Child, frozen=True, kw_only=True):
    """delay and timeout are in seconds; max_retries successes bring a member up, max_retries_down failures down."""

    kind: ClassVar[Kind] = Kind.HEALTH_MONITOR

    id: HealthMonitorId
    pool_id: PoolId
    type: HealthMonitorType
    delay: int
    timeout: int
    max_retries: int
    max_retries_down: int = 3
    http_method: HttpMethod | None = None
    url_path: str | None = None
    expected_codes: str | None = None
    http_version: float | None = None
    domain_name: str | None = None


class L7Policy(Child, frozen=True, kw_only=True):
    kind: ClassVar[Kind] = Kind.L7_POLICY

    id: L7PolicyId
    listener_id: ListenerId
    description: str = ""
    action: L7PolicyAction
    position: int
    redirect_pool_id: PoolId | None = None
    redirect_url: str | None = None
    redirect_prefix: str | None = None
    redirect_http_code: int | None = None


class L7Rule(Child, frozen=True, kw_only=True):
    kind: ClassVar[Kind] = Kind.L7_RULE

    id: L7RuleId
    l7_policy_id: L7PolicyId
    type: L7RuleType
    compare_type: L7RuleCompareType
    key: str | None = None
    value: str
    invert: bool = False


ADOPTED = "adopted"
"""The action of a receipt for what another installation had put there."""


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """What is live on an amphora, and since when. `action` is how it got there: unchanged, start, runtime, reload,
    or ADOPTED.

    `driver`, and what the agent said of its own version and of the balancer's, are missing in receipts of versions that noted
    none."""

    generation: int
    digest: str
    driver_version: str
    applied_at: datetime
    action: str = ""
    driver: str | None = None
    amphora_version: str | None = None
    balancer_version: str | None = None


class Amphora(msgspec.Struct, frozen=True, kw_only=True):
    """One appliance. Its compute name is derived from the id, and the row exists before anything is built under it.

    `management_address` is where its agent listens, `host` on which machine compute says that it is; `compute_flavor`,
    `image_id` and `compute_zone` of what and where it says that it made it. `speaks_plain` says that
    its agent knows no other heartbeats than Octavia's. `balancer_version` is what the agent said of the program that
    balances when it was last asked; None: nobody asked yet. `identity_digest`, `certificate_expires_at` and
    `certificate_renew_at` are of the identity that it was given last (model.boot.Identity), `birth_fingerprint` is of the
    certificate in its boot files, which a machine shows again when it restarts by itself. `suspected_at` is set while it
    has been silent past its deadline. `revived_at` is when its agent was last started again in place.
    `replacement_requested_at` is when somebody asked for
    another in its place, `push_requested_at` when for its configuration to be pushed again (an operator, or health when
    the amphora has lost files): both are wishes, which the controller reads and never writes.

    `ports` are what it hangs on networks by, where the network driver makes ports; the three of VRRP are of the one that
    is on the VIP's network (model/ports.py), written with it, so that lists can be filtered by them."""

    kind: ClassVar[Kind] = Kind.AMPHORA

    id: AmphoraId
    load_balancer_id: LoadBalancerId
    project_id: ProjectId
    status: AmphoraStatus = AmphoraStatus.PENDING_CREATE
    role: AmphoraRole = AmphoraRole.STANDALONE
    compute_id: str | None = None
    management_address: str | None = None
    balancer_version: str | None = None
    ports: tuple[Port, ...] = ()
    vrrp_address: str | None = None
    vrrp_port_id: PortId | None = None
    vrrp_interface: str | None = None
    host: str | None = None
    compute_flavor: str | None = None
    image_id: str | None = None
    compute_zone: str | None = None
    speaks_plain: bool = False
    receipt: Receipt | None = None
    identity_digest: str | None = None
    certificate_expires_at: datetime | None = None
    certificate_renew_at: datetime | None = None
    birth_fingerprint: str | None = None
    suspected_at: datetime | None = None
    revived_at: datetime | None = None
    replacement_requested_at: datetime | None = None
    push_requested_at: datetime | None = None
    seen_at: datetime | None = None
    created_at: datetime
    updated_at: datetime | None = None

    @property
    def is_push_wished(self) -> bool:
        """Whether somebody asked for a push since the last one, whatever it has."""
        if self.push_requested_at is None:
            return False
        return self.receipt is None or self.receipt.applied_at < self.push_requested_at


TreeChild: TypeAlias = Listener | Pool | Member | HealthMonitor | L7Policy | L7Rule
TreeObject: TypeAlias = LoadBalancer | TreeChild


class LoadBalancerTree(msgspec.Struct, frozen=True, kw_only=True):
    """A whole load balancer. Objects whose deletion was requested are still here until it has been carried out;
    `wanted()` is the tree without them."""

    load_balancer: LoadBalancer
    listeners: tuple[Listener, ...] = ()
    pools: tuple[Pool, ...] = ()
    members: tuple[Member, ...] = ()
    health_monitors: tuple[HealthMonitor, ...] = ()
    l7_policies: tuple[L7Policy, ...] = ()
    l7_rules: tuple[L7Rule, ...] = ()
    amphorae: tuple[Amphora, ...] = ()
    fence: int = 0
    """A number that is greater for whoever has the right to change the load balancer later; 0: no such number. A driver
    hands it to amphorae that know such numbers, which then refuse those who have lost the right and do not know it."""

    @property
    def id(self) -> LoadBalancerId:
        return self.load_balancer.id

    def children(self) -> Iterator[TreeChild]:
        """Every object below the load balancer, parents before what refers to them."""
        yield from self.pools
        yield from self.listeners
        yield from self.members
        yield from self.health_monitors
        yield from self.l7_policies
        yield from self.l7_rules

    def listener(self, listener_id: str | None) -> Listener | None:
        return next((x for x in self.listeners if x.id == listener_id), None)

    def pool(self, pool_id: str | None) -> Pool | None:
        return next((x for x in self.pools if x.id == pool_id), None)

    def members_of(self, pool_id: str) -> tuple[Member, ...]:
        return tuple(x for x in self.members if x.pool_id == pool_id)

    def health_monitor_of(self, pool_id: str) -> HealthMonitor | None:
        return next((x for x in self.health_monitors if x.pool_id == pool_id), None)

    def l7_policies_of(self, listener_id: str) -> tuple[L7Policy, ...]:
        """Policies of a listener in the order in which they are tried."""
        return tuple(
            sorted((x for x in self.l7_policies if x.listener_id == listener_id), key=lambda policy: policy.position)
        )

    def l7_rules_of(self, l7_policy_id: str) -> tuple[L7Rule, ...]:
        return tuple(x for x in self.l7_rules if x.l7_policy_id == l7_policy_id)

    def pools_of(self, listener: Listener) -> tuple[Pool, ...]:
        """The default pool, then the targets of enabled policies that have at least one rule; each pool once."""
        wanted: dict[str, None] = {}
        if listener.default_pool_id is not None:
            wanted[listener.default_pool_id] = None
        for policy in self.l7_policies_of(listener.id):
            if policy.redirect_pool_id and policy.admin_state_up and self.l7_rules_of(policy.id):
                wanted[policy.redirect_pool_id] = None
        return tuple(pool for pool_id in wanted if (pool := self.pool(pool_id)) is not None)

    def listeners_of(self, pool_id: str) -> tuple[Listener, ...]:
        """The listeners attached to a pool (behaviours.yaml attached_listeners)."""
        return tuple(x for x in self.listeners if any(pool.id == pool_id for pool in self.pools_of(x)))

    def addresses(self) -> tuple[str, ...]:
        """Every address on which its listeners listen, the VIP's first."""
        return (self.load_balancer.vip.address, *(x.address for x in self.load_balancer.additional_vips))

    def wanted(self) -> LoadBalancerTree:
        """The tree as it should be: without the objects whose deletion was requested, and without what hangs on them."""
        listeners = tuple(x for x in self.listeners if not x.delete_requested)
        pools = tuple(x for x in self.pools if not x.delete_requested)
        policies = tuple(x for x in self.l7_policies if not x.delete_requested)
        listener_ids, pool_ids = {x.id for x in listeners}, {x.id for x in pools}
        policies = tuple(x for x in policies if x.listener_id in listener_ids)
        policy_ids = {x.id for x in policies}
        return msgspec.structs.replace(
            self,
            listeners=tuple(
                x
                if x.default_pool_id is None or x.default_pool_id in pool_ids
                else msgspec.structs.replace(x, default_pool_id=None)
                for x in listeners
            ),
            pools=pools,
            members=tuple(x for x in self.members if not x.delete_requested and x.pool_id in pool_ids),
            health_monitors=tuple(x for x in self.health_monitors if not x.delete_requested and x.pool_id in pool_ids),
            l7_policies=policies,
            l7_rules=tuple(x for x in self.l7_rules if not x.delete_requested and x.l7_policy_id in policy_ids),
        )

    def without(self, ids: Collection[str]) -> LoadBalancerTree:
        """The tree less some objects and what hangs on them; used to carry the rest when those cannot be carried."""
        if not ids:
            return self
        listeners = tuple(x for x in self.listeners if x.id not in ids)
        pools = tuple(x for x in self.pools if x.id not in ids)
        listener_ids, pool_ids = {x.id for x in listeners}, {None, *(x.id for x in pools)}
        policies = tuple(
            x
            for x in self.l7_policies
            if x.id not in ids and x.listener_id in listener_ids and x.redirect_pool_id in pool_ids
        )
        policy_ids = {x.id for x in policies}
        return msgspec.structs.replace(
            self,
            listeners=tuple(
                x if x.default_pool_id in pool_ids else msgspec.structs.replace(x, default_pool_id=None)
                for x in listeners
            ),
            pools=pools,
            members=tuple(x for x in self.members if x.id not in ids and x.pool_id in pool_ids),
            health_monitors=tuple(x for x in self.health_monitors if x.id not in ids and x.pool_id in pool_ids),
            l7_policies=policies,
            l7_rules=tuple(x for x in self.l7_rules if x.id not in ids and x.l7_policy_id in policy_ids),
        )
