"""Every attribute of every resource, once: parsing, rendering, filters, sorting and the OpenAPI document follow from it.

A row says what an attribute is called on the wire and in our own words, what type it has, whether create, nested create
and update take it, what its absence and an explicit null mean there, where it is read from for a response, and under
which column of the store a list can be filtered and sorted by it. Source of every row: contract/resources.yaml.
Pure data; nothing here knows requests or the store. Next: requests.py, rendering.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum, auto
from operator import attrgetter
from typing import Any, Final

import msgspec

from frontinus.api.wire_types import (
    AdditionalVips,
    Address,
    Boolean,
    Choice,
    Cidrs,
    Faults,
    Headers,
    Ids,
    Integer,
    Moment,
    Nested,
    Number,
    Persistence,
    Tags,
    Text,
    Texts,
    Uuid,
    WireType,
)
from frontinus.model.compatibility import (
    ALPN_PROTOCOLS,
    HTTP_VERSIONS,
    MAX_INTEGER,
    MAX_PORT,
    MAX_RETRIES,
    MAX_TIMEOUT_MS,
    MAX_TLS_CIPHERS,
    MAX_URL_PATH,
    MAX_WEIGHT,
    TLS_CIPHERS_DEFAULT,
    TLS_VERSIONS_DEFAULT,
)
from frontinus.model.enums import (
    ClientAuthentication,
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
    Topology,
)

References = Mapping[str, tuple[str, ...]]
"""Ids of what an object refers to, by name: what store.listing hands out beside each value."""


class Missing(Enum):
    """What stands where a value would, and is none."""

    REQUIRED = auto()  # absent: 400
    NOTHING = auto()  # absent: stays unsaid, whoever builds the object decides
    REFUSED = auto()  # null: 400
    UNCHANGED = auto()  # null: as if it had not been sent


REQUIRED, NOTHING, REFUSED, UNCHANGED = Missing


class Rule(msgspec.Struct, frozen=True):
    """How one operation takes an attribute. `absent` is the value when it is not sent (create only), `null` when null
    is. Either can be one of Missing."""

    absent: Any = NOTHING
    null: Any = REFUSED


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """One attribute. No rule for an operation: sending it there is refused as an unknown attribute would be."""

    wire: str
    attribute: str
    type: WireType
    doc: str
    since: str = "2.0"
    create: Rule | None = None
    nested: Rule | None = None
    update: Rule | None = None
    part: bool = True
    """Whether it is an attribute of the model's object; otherwise it is for whoever builds the object."""
    read: Callable[[Any, References], object] | None = None
    """Where a response gets it from; None: never shown."""
    in_full: bool = True
    """Whether the answer to a create of a whole tree shows it too."""
    omit_none: bool = False
    column: str | None = None
    """The store's name of it, where lists can be filtered and sorted by it."""


class Resource(msgspec.Struct, frozen=True, kw_only=True):
    kind: Kind
    item_key: str
    collection_key: str
    fields: tuple[Field, ...]


# ---------------------------------------------------------------- ways to write a row


_SAME: Final = Rule()


def _attribute(
    wire: str,
    type_: WireType,
    doc: str,
    *,
    attribute: str | None = None,
    create: Rule | None = None,
    nested: Rule | None = _SAME,
    update: Rule | None = None,
    column: bool = True,
    since: str = "2.0",
    read: Callable[[Any, References], object] | None = None,
    part: bool = True,
) -> Field:
    """An attribute of the object, shown in responses and usable as a filter. Nested create takes it as create does
    unless told."""
    name = attribute or wire
    getter = attrgetter(name)
    return Field(
        wire=wire,
        attribute=name,
        type=type_,
        doc=doc,
        since=since,
        create=create,
        nested=create if nested is _SAME else nested,
        update=update,
        part=part,
        read=read or (lambda value, _: getter(value)),
        column=name if column else None,
    )


def _request_only(
    wire: str,
    attribute: str,
    type_: WireType,
    doc: str,
    *,
    create: Rule,
    nested: Rule | None = None,
    since: str = "2.0",
) -> Field:
    """Taken at create, never shown, not part of the object."""
    return Field(
        wire=wire, attribute=attribute, type=type_, doc=doc, since=since, create=create, nested=nested, part=False
    )


def _read_only(
    wire: str, type_: WireType, doc: str, *, attribute: str | None = None, column: bool = True, since: str = "2.0"
) -> Field:
    return _attribute(wire, type_, doc, attribute=attribute, column=column, since=since)


def _owner(wire: str, attribute: str, doc: str) -> Field:
    """The one object above, as a list of one; a whole tree shows it by its shape instead."""
    getter = attrgetter(attribute)
    return Field(
        wire=wire,
        attribute=wire,
        type=Ids(),
        doc=doc,
        part=False,
        read=lambda value, _: (getter(value),),
        in_full=False,
    )


def _children(wire: str, reference: str, resource: str, doc: str, *, create: Rule, nested: Rule | None = None) -> Field:
    """Whole objects in the request, ids in responses."""
    return Field(
        wire=wire,
        attribute=reference,
        type=Nested(resource, many=True),
        doc=doc,
        create=create,
        nested=nested,
        part=False,
        read=lambda _, references: [{"id": x} for x in references.get(reference, ())],
    )


def _name() -> Field:
    return _attribute("name", Text(), "A name; need not be unique.", create=Rule("", ""), update=Rule(null=""))


def _description() -> Field:
    return _attribute("description", Text(prose=True), "Words for people.", create=Rule("", ""), update=Rule(null=""))


def _admin_state_up() -> Field:
    doc = "Whether it shall work. Null means false."
    return _attribute("admin_state_up", Boolean(), doc, create=Rule(True, False), update=Rule(null=False))


def _tags(*, null_on_update: Any = UNCHANGED) -> Field:
    doc = "Words to find it by; each once."
    return _attribute(
        "tags", Tags(), doc, create=Rule((), ()), update=Rule(null=null_on_update), column=False, since="2.5"
    )


def _identity() -> tuple[Field, ...]:
    return (
        _read_only("id", Uuid(), "Given by the server."),
        _read_only("provisioning_status", Choice(ProvisioningStatus), "How far the wish has been carried out."),
        _read_only("operating_status", Choice(OperatingStatus), "What the data plane was last seen doing."),
        _read_only("created_at", Moment(), "UTC."),
        _read_only("updated_at", Moment(), "UTC; null until the first change."),
        Field(
            wire="fault",
            attribute="fault",
            type=Faults(),
            doc="Why the wish is not carried out yet: code, phase, message, since, retry_at, attempts, permanent, "
            "object_type, object_id; or null. An addition of Frontinus.",
            read=lambda value, _: value.fault,
            part=False,
        ),
    )


def _project_of_child() -> tuple[Field, ...]:
    """Both spellings are taken and ignored: a child belongs to the project of its load balancer."""
    taken = Rule(NOTHING, None)
    return tuple(
        Field(
            wire=wire,
            attribute=wire,
            type=Text(36),
            doc="The project of the load balancer; ignored when sent.",
            create=taken,
            part=False,
            read=lambda value, _: value.project_id,
            column=column,
        )
        for wire, column in (("project_id", "project_id"), ("tenant_id", None))
    )


def _project_of_load_balancer() -> tuple[Field, ...]:
    return tuple(
        Field(
            wire=wire,
            attribute=wire,
            type=Text(36),
            doc="Whose it is. By default the project of the caller. tenant_id wins when both are sent.",
            create=Rule(),
            part=False,
            read=lambda value, _: value.project_id,
            column=column,
        )
        for wire, column in (("project_id", "project_id"), ("tenant_id", None))
    )


def _timeout(wire: str, default: int, doc: str) -> Field:
    return _attribute(
        wire,
        Integer(0, MAX_TIMEOUT_MS),
        doc + " Milliseconds.",
        create=Rule(default, default),
        update=Rule(null=default),
        since="2.1",
    )


def _reference_to_secret(wire: str, doc: str, *, since: str = "2.0") -> Field:
    return _attribute(wire, Text(), doc, create=Rule(None, None), update=Rule(null=None), since=since)


# ---------------------------------------------------------------- the tables


def _vip(wire: str, attribute: str, type_: WireType, doc: str) -> Field:
    part = attrgetter(f"vip.{attribute}")
    return Field(
        wire=wire,
        attribute=wire,
        type=type_,
        doc=doc,
        create=Rule(None, None),
        part=False,
        read=lambda value, _: part(value),
        column=wire,
    )


LOAD_BALANCER = Resource(
    kind=Kind.LOAD_BALANCER,
    item_key="loadbalancer",
    collection_key="loadbalancers",
    fields=(
        _name(),
        _description(),
        _admin_state_up(),
        _vip("vip_address", "address", Address(), "The virtual address; by default the network gives one."),
        _vip("vip_port_id", "port_id", Uuid(), "A port that holds the address."),
        _vip("vip_subnet_id", "subnet_id", Uuid(), "The subnet of the address. Port, network or subnet is required."),
        _vip("vip_network_id", "network_id", Uuid(), "The network of the address."),
        _attribute(
            "vip_qos_policy_id",
            Uuid(),
            "A QoS policy for the VIP's port.",
            create=Rule(None, None),
            update=Rule(null=None),
        ),
        _attribute(
            "vip_sg_ids",
            Texts(Uuid()),
            "Security groups of the VIP's port.",
            create=Rule((), ()),
            update=Rule(null=()),
            column=False,
            since="2.29",
        ),
        _attribute(
            "additional_vips",
            AdditionalVips(),
            "Further addresses, each on a subnet of its own.",
            create=Rule(()),
            column=False,
            since="2.26",
        ),
        *_project_of_load_balancer(),
        _children(
            "listeners",
            "listeners",
            "listener",
            "At create: whole listeners. In responses: their ids.",
            create=Rule((), ()),
        ),
        _children(
            "pools",
            "pools",
            "pool",
            "At create: whole pools, which listeners name. In responses: their ids.",
            create=Rule((), ()),
        ),
        _attribute(
            "provider", Text(64), "Which kind of amphora carries it.", create=Rule(NOTHING, "amphora"), part=False
        ),
        _tags(),
        _attribute("flavor_id", Uuid(), "A flavor.", create=Rule(None), since="2.6"),
        _attribute("availability_zone", Text(), "The name of a zone.", create=Rule(None), since="2.14"),
        Field(
            wire="vip_vnic_type",
            attribute="vip_vnic_type",
            type=Text(),
            doc="Always normal: no flavor asks for another kind yet.",
            since="2.28",
            part=False,
            read=lambda _value, _: "normal",
        ),
        Field(wire="topology", attribute="topology", type=Choice(Topology), doc="A filter only.", column="topology"),
        *_identity(),
    ),
)


LISTENER = Resource(
    kind=Kind.LISTENER,
    item_key="listener",
    collection_key="listeners",
    fields=(
        _name(),
        _description(),
        _admin_state_up(),
        _attribute("protocol", Choice(ListenerProtocol), "What clients speak.", create=Rule(REQUIRED)),
        _attribute(
            "protocol_port",
            Integer(1, MAX_PORT),
            "Where it listens; unique among the TCP-like, the UDP and the SCTP listeners of a load balancer.",
            create=Rule(REQUIRED),
        ),
        _attribute(
            "connection_limit",
            Integer(-1),
            "Connections at one time; -1 means no limit.",
            create=Rule(-1, None),
            update=Rule(null=-1),
        ),
        _reference_to_secret("default_tls_container_ref", "The certificate of a TERMINATED_HTTPS listener."),
        _attribute(
            "sni_container_refs",
            Texts(),
            "Further certificates, chosen by server name.",
            create=Rule((), ()),
            update=Rule(null=()),
            column=False,
        ),
        *_project_of_child(),
        _attribute(
            "default_pool_id",
            Uuid(),
            "The pool for what no policy sends elsewhere.",
            create=Rule(None, None),
            update=Rule(null=None),
        ),
        _request_only(
            "default_pool",
            "default_pool",
            Nested("pool", many=False),
            "Whole tree only: the default pool, or the name of one.",
            create=Rule(None, None),
            nested=Rule(None, None),
        ),
        _children(
            "l7policies",
            "l7_policies",
            "l7policy",
            "Whole tree only: its policies. In responses: their ids, by position.",
            create=Rule(()),
            nested=Rule(()),
        ),
        _attribute(
            "insert_headers",
            Headers(),
            "Headers to add to requests.",
            create=Rule({}, {}),
            update=Rule(null={}),
            column=False,
        ),
        Field(
            wire="loadbalancer_id",
            attribute="load_balancer_id",
            type=Uuid(),
            doc="Its load balancer.",
            create=Rule(REQUIRED, None),
            part=False,
            column="load_balancer_id",
        ),
        _timeout("timeout_client_data", 50_000, "How long a client may be silent."),
        _timeout("timeout_member_connect", 5_000, "How long connecting to a member may take."),
        _timeout("timeout_member_data", 50_000, "How long a member may be silent."),
        _timeout("timeout_tcp_inspect", 0, "How long to wait for content before a decision."),
        _tags(),
        _reference_to_secret("client_ca_tls_container_ref", "The authority of clients' certificates.", since="2.8"),
        _attribute(
            "client_authentication",
            Choice(ClientAuthentication),
            "Whether clients must show a certificate.",
            create=Rule(ClientAuthentication.NONE),
            update=Rule(null=ClientAuthentication.NONE),
            since="2.8",
        ),
        _reference_to_secret("client_crl_container_ref", "Revoked certificates of clients.", since="2.8"),
        _attribute(
            "allowed_cidrs",
            Cidrs(empty_as_null=True),
            "Who may connect; null means everybody.",
            create=Rule((), ()),
            update=Rule(null=()),
            column=False,
            since="2.12",
        ),
        _attribute(
            "tls_ciphers",
            Text(MAX_TLS_CIPHERS),
            "OpenSSL cipher list.",
            create=Rule(None, None),
            update=Rule(null=TLS_CIPHERS_DEFAULT),
            since="2.15",
        ),
        _attribute(
            "tls_versions",
            Texts(Text(32)),
            "TLS versions.",
            create=Rule(None, None),
            update=Rule(null=TLS_VERSIONS_DEFAULT),
            column=False,
            since="2.17",
        ),
        _attribute(
            "alpn_protocols",
            Texts(),
            "Protocols offered inside TLS.",
            create=Rule(None, None),
            update=Rule(null=ALPN_PROTOCOLS),
            column=False,
            since="2.20",
        ),
        _attribute(
            "hsts_max_age",
            Integer(0),
            "Strict Transport Security, in seconds.",
            create=Rule(None, None),
            update=Rule(null=None),
            since="2.27",
        ),
        _attribute(
            "hsts_include_subdomains",
            Boolean(),
            "Whether it covers sub-domains.",
            create=Rule(False, None),
            update=Rule(null=False),
            since="2.27",
        ),
        _attribute(
            "hsts_preload",
            Boolean(),
            "Whether browsers may know it beforehand.",
            create=Rule(False, None),
            update=Rule(null=False),
            since="2.27",
        ),
        *_identity(),
        _owner("loadbalancers", "load_balancer_id", "Its load balancer."),
    ),
)


POOL = Resource(
    kind=Kind.POOL,
    item_key="pool",
    collection_key="pools",
    fields=(
        _name(),
        _description(),
        _admin_state_up(),
        _request_only(
            "listener_id", "listener_id", Uuid(), "Makes it the default pool of a listener.", create=Rule(None, None)
        ),
        Field(
            wire="loadbalancer_id",
            attribute="load_balancer_id",
            type=Uuid(),
            doc="Its load balancer. This or listener_id is required.",
            create=Rule(None, None),
            part=False,
            column="load_balancer_id",
        ),
        _attribute("protocol", Choice(PoolProtocol), "What members speak.", create=Rule(REQUIRED), nested=Rule()),
        _attribute(
            "lb_algorithm",
            Choice(LbAlgorithm),
            "How a member is chosen.",
            create=Rule(REQUIRED),
            nested=Rule(),
            update=Rule(),
        ),
        _attribute(
            "session_persistence",
            Persistence(),
            "What keeps a client at one member.",
            create=Rule(None, None),
            update=Rule(null=None),
            column=False,
        ),
        *_project_of_child(),
        _request_only(
            "healthmonitor",
            "health_monitor",
            Nested("healthmonitor", many=False),
            "Whole tree only: its health monitor.",
            create=Rule(None, None),
            nested=Rule(None, None),
        ),
        _children(
            "members",
            "members",
            "member",
            "Whole tree only: its members. In responses: their ids.",
            create=Rule((), ()),
            nested=Rule((), ()),
        ),
        _tags(),
        _reference_to_secret("tls_container_ref", "The certificate shown to members.", since="2.8"),
        _reference_to_secret("ca_tls_container_ref", "The authority of members' certificates.", since="2.8"),
        _reference_to_secret("crl_container_ref", "Revoked certificates of members.", since="2.8"),
        _attribute(
            "tls_enabled",
            Boolean(),
            "Whether members are spoken to in TLS.",
            create=Rule(False, False),
            update=Rule(),
            since="2.8",
        ),
        _attribute(
            "tls_ciphers",
            Text(MAX_TLS_CIPHERS),
            "OpenSSL cipher list.",
            create=Rule(None, None),
            update=Rule(null=TLS_CIPHERS_DEFAULT),
            since="2.15",
        ),
        _attribute(
            "tls_versions",
            Texts(Text(32)),
            "TLS versions.",
            create=Rule(None, None),
            update=Rule(null=TLS_VERSIONS_DEFAULT),
            column=False,
            since="2.18",
        ),
        _attribute(
            "alpn_protocols",
            Texts(),
            "Protocols offered inside TLS.",
            create=Rule(None, None),
            update=Rule(null=None),
            column=False,
            since="2.24",
        ),
        *_identity(),
        _owner("loadbalancers", "load_balancer_id", "Its load balancer."),
        Field(
            wire="listeners",
            attribute="listeners",
            type=Ids(),
            doc="The listeners that send it requests.",
            part=False,
            read=lambda _, references: references.get("listeners", ()),
        ),
        Field(
            wire="healthmonitor_id",
            attribute="health_monitor_id",
            type=Uuid(),
            doc="Its health monitor; the key is absent when there is none.",
            part=False,
            read=lambda _, references: next(iter(references.get("health_monitor", ())), None),
            in_full=False,
            omit_none=True,
            column="health_monitor_id",
        ),
    ),
)


MEMBER = Resource(
    kind=Kind.MEMBER,
    item_key="member",
    collection_key="members",
    fields=(
        _name(),
        _admin_state_up(),
        _attribute("address", Address(), "Where it is; kept as it is written.", create=Rule(REQUIRED)),
        _attribute("protocol_port", Integer(1, MAX_PORT), "The port it listens on.", create=Rule(REQUIRED)),
        _attribute(
            "weight",
            Integer(0, MAX_WEIGHT),
            "Its share of the requests; 0 means no new connections.",
            create=Rule(1, None),
            update=Rule(null=1),
        ),
        _attribute(
            "backup",
            Boolean(),
            "Whether it works only when the others do not.",
            create=Rule(False),
            update=Rule(null=False),
            since="2.1",
        ),
        _attribute("subnet_id", Uuid(), "The subnet that it is reached through.", create=Rule(None, None)),
        *_project_of_child(),
        _attribute(
            "monitor_port",
            Integer(1, MAX_PORT),
            "Where health checks go instead of protocol_port.",
            create=Rule(None, None),
            update=Rule(null=None),
        ),
        _attribute(
            "monitor_address",
            Address(),
            "Where health checks go instead of address.",
            create=Rule(None, None),
            update=Rule(null=None),
        ),
        _tags(),
        _request_only(
            "request_sriov",
            "request_sriov",
            Boolean(),
            "Whether it is reached through a port of its own kind; the flavor must allow it.",
            create=Rule(False, False),
            nested=Rule(False, False),
            since="2.30",
        ),
        _read_only("vnic_type", Text(), "normal or direct.", since="2.30"),
        *_identity(),
    ),
)


HEALTH_MONITOR = Resource(
    kind=Kind.HEALTH_MONITOR,
    item_key="healthmonitor",
    collection_key="healthmonitors",
    fields=(
        _name(),
        _attribute("type", Choice(HealthMonitorType), "How members are asked.", create=Rule(REQUIRED)),
        _attribute("delay", Integer(0), "Seconds between two checks.", create=Rule(REQUIRED), update=Rule()),
        _attribute("timeout", Integer(0), "Seconds until a check has failed.", create=Rule(REQUIRED), update=Rule()),
        _attribute(
            "max_retries_down",
            Integer(1, MAX_RETRIES),
            "Failed checks until a member is in ERROR.",
            create=Rule(3),
            update=Rule(null=3),
        ),
        _attribute(
            "max_retries",
            Integer(1, MAX_RETRIES),
            "Good checks until a member is ONLINE.",
            create=Rule(REQUIRED),
            update=Rule(),
        ),
        _attribute(
            "http_method",
            Choice(HttpMethod),
            "HTTP and HTTPS only; GET by default.",
            create=Rule(None, None),
            update=Rule(null=None),
        ),
        _attribute(
            "url_path",
            Text(MAX_URL_PATH),
            "HTTP and HTTPS only; / by default.",
            create=Rule(None, None),
            update=Rule(null=None),
        ),
        _attribute(
            "expected_codes",
            Text(64),
            "HTTP and HTTPS only; one code, a comma list or one range; 200 by default.",
            create=Rule(None, None),
            update=Rule(null=None),
        ),
        _admin_state_up(),
        *_project_of_child(),
        Field(
            wire="pool_id",
            attribute="pool_id",
            type=Uuid(),
            doc="The pool whose members it watches.",
            create=Rule(REQUIRED, None),
            part=False,
            column="pool_id",
        ),
        _tags(),
        _attribute(
            "http_version",
            Number(HTTP_VERSIONS),
            "Of the requests that it sends.",
            create=Rule(None, None),
            update=Rule(null=None),
            since="2.10",
        ),
        _attribute(
            "domain_name",
            Text(),
            "The Host that it asks for; needs http_version 1.1.",
            create=Rule(None, None),
            update=Rule(null=None),
            since="2.10",
        ),
        *_identity(),
        _owner("pools", "pool_id", "The pool whose members it watches."),
    ),
)


L7_POLICY = Resource(
    kind=Kind.L7_POLICY,
    item_key="l7policy",
    collection_key="l7policies",
    fields=(
        _name(),
        _description(),
        _admin_state_up(),
        *_project_of_child(),
        _attribute("action", Choice(L7PolicyAction), "What it does.", create=Rule(REQUIRED), update=Rule()),
        _attribute(
            "redirect_pool_id",
            Uuid(),
            "REDIRECT_TO_POOL: where to.",
            create=Rule(None, None),
            nested=None,
            update=Rule(null=None),
        ),
        _attribute(
            "redirect_url", Text(), "REDIRECT_TO_URL: where to.", create=Rule(None, None), update=Rule(null=None)
        ),
        _attribute(
            "redirect_prefix",
            Text(),
            "REDIRECT_PREFIX: what is put before the path.",
            create=Rule(None, None),
            update=Rule(null=None),
        ),
        _attribute(
            "position",
            Integer(1, MAX_INTEGER),
            "The order in which policies are tried, from 1; the last by default.",
            create=Rule(MAX_INTEGER, MAX_INTEGER),
            update=Rule(null=UNCHANGED),
        ),
        _attribute("listener_id", Uuid(), "Its listener.", create=Rule(REQUIRED, None), nested=None, part=False),
        _children(
            "rules",
            "l7_rules",
            "rule",
            "Whole tree only: its rules. In responses: their ids.",
            create=Rule((), ()),
            nested=Rule((), ()),
        ),
        _tags(null_on_update=()),
        _attribute(
            "redirect_http_code",
            Integer(),
            "301, 302, 303, 307 or 308; 302 by default for redirects to a URL.",
            create=Rule(None, None),
            update=Rule(null=None),
            since="2.9",
        ),
        Field(
            wire="redirect_pool",
            attribute="redirect_pool",
            type=Nested("pool", many=False),
            doc="Whole tree only: REDIRECT_TO_POOL's pool, or the name of one.",
            nested=Rule(None, None),
            part=False,
        ),
        *_identity(),
    ),
)


L7_RULE = Resource(
    kind=Kind.L7_RULE,
    item_key="rule",
    collection_key="rules",
    fields=(
        _attribute(
            "type", Choice(L7RuleType), "What of the request is looked at.", create=Rule(REQUIRED), update=Rule()
        ),
        _attribute(
            "compare_type", Choice(L7RuleCompareType), "How it is compared.", create=Rule(REQUIRED), update=Rule()
        ),
        _attribute("key", Text(), "The name of the header, cookie or field.", create=Rule(None, None), update=Rule()),
        _attribute("value", Text(), "What it is compared with.", create=Rule(REQUIRED), update=Rule()),
        _attribute(
            "invert", Boolean(), "Whether the opposite is meant.", create=Rule(False, False), update=Rule(null=False)
        ),
        _admin_state_up(),
        *_project_of_child(),
        _tags(null_on_update=()),
        *_identity(),
    ),
)


RESOURCES: Mapping[str, Resource] = {
    x.item_key: x for x in (LOAD_BALANCER, LISTENER, POOL, MEMBER, HEALTH_MONITOR, L7_POLICY, L7_RULE)
}
"""By the key that wraps one of them on the wire."""
