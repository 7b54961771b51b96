"""Settings of the API, as one frozen value: built once by whoever starts it, handed down, never read from a global."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from functools import cached_property
from pathlib import Path

from frontinus.api.identity.settings import KeystoneSettings, StaticToken
from frontinus.model.compatibility import (
    ALPN_PROTOCOLS,
    RESERVED_MEMBER_ADDRESSES,
    TLS_CIPHERS_DEFAULT,
    TLS_VERSIONS,
    TLS_VERSIONS_DEFAULT,
    UDP_CONNECT_MIN_DELAY_S,
)
from frontinus.model.enums import Topology
from frontinus.model.errors import Invalid
from frontinus.model.house_rules import Defaults, HouseRules, TlsDefaults, canonical_address
from frontinus.model.ids import ProjectId
from frontinus.model.quotas import COUNTED, MAX_LIMIT, UNLIMITED, Limits


class Immutability(StrEnum):
    """What an edit meets while an earlier one is under way."""

    COALESCE = "coalesce"
    STRICT = "strict"


class Authentication(StrEnum):
    """Who is asked whether a caller may."""

    NONE = "none"
    TOKEN = "token"  # noqa: S105 - the name of a way
    KEYSTONE = "keystone"


@dataclass(frozen=True)
class Provider:
    """A name by which users choose who carries their load balancers. `served_by` is the name under which controllers
    register, where it differs."""

    name: str
    description: str
    served_by: str = ""


AMPHORA_PROVIDER = Provider("amphora", "Load balancers on amphorae of their own.")
OCTAVIA_PROVIDER = Provider("octavia", "Another name of amphora, kept for old clients.", served_by="amphora")


@dataclass(frozen=True)
class DefaultQuotas:
    """How many objects a project may have that has no quota of its own; -1 is no limit. Asked for with each create, so a
    change here reaches every project that has not been given a limit of the kind."""

    load_balancer: int = UNLIMITED
    """Load balancers."""

    listener: int = UNLIMITED
    """Listeners, of all its load balancers together; so it is with the others."""

    pool: int = UNLIMITED
    """Pools."""

    member: int = UNLIMITED
    """Members."""

    health_monitor: int = UNLIMITED
    """Health monitors."""

    l7_policy: int = UNLIMITED
    """L7 policies."""

    l7_rule: int = UNLIMITED
    """L7 rules."""

    @cached_property
    def limits(self) -> Limits:
        return Limits(**{kind.value: getattr(self, kind) for kind in COUNTED})


_DEFAULT_PROJECT = ProjectId("default")


@dataclass(frozen=True)
class ApiSettings:
    bind_host: str = "127.0.0.1"
    """Address to listen on. Loopback by default, because authentication is off by default."""

    bind_port: int = 9876
    """TCP port to listen on. 9876 is where clients expect an Octavia API that has no catalog entry."""

    auth: Authentication = Authentication.NONE
    """Who is asked who a caller is. `none` asks nobody: everyone who reaches the port is administrator. `token` knows the
    callers in [[api.tokens]], `keystone` asks the Keystone of [api.keystone]."""

    tokens: tuple[StaticToken, ...] = ()
    """Callers with `auth = "token"`."""

    keystone: KeystoneSettings = field(default_factory=KeystoneSettings)
    """Who validates tokens with `auth = "keystone"`."""

    policy_file: Path | None = None
    """Operator's rules in oslo.policy's form (YAML), which take the place of built-in ones of the same name. Read again
    when it changes; while it cannot be read, or makes no sense, the rules that were good last hold."""

    enforce_new_defaults: bool = True
    """Whether only Keystone's default roles count (admin, member, reader). false adds the load-balancer_* roles. The
    name and the default are oslo.policy's."""

    open_metrics: bool = False
    """Whether GET /metrics is answered to callers without a token, where others need one."""

    insecure_bind: bool = False
    """Whether the operator wrote that an API without authentication may listen beyond loopback."""

    default_project_id: ProjectId = _DEFAULT_PROJECT
    """Project of a caller who names none (header X-Project-Id), with authentication `none`."""

    default_topology: Topology = Topology.SINGLE
    """How many amphorae a load balancer has whose flavor does not say: `SINGLE`, or `ACTIVE_STANDBY` for a pair of which one
    takes over when the other fails. A pair needs a network driver that makes ports."""

    default_provider: str = "amphora"
    """Provider of load balancers for which none is asked."""

    providers: tuple[Provider, ...] = (AMPHORA_PROVIDER, OCTAVIA_PROVIDER)
    """Providers that may be asked for, beside those that a controller has registered under a name of its own."""

    immutable: Immutability = Immutability.COALESCE
    """What an edit meets while an earlier one is under way: `coalesce` takes it and carries both out together, `strict`
    answers 409 until the load balancer is ACTIVE again, as Octavia does. Under both, what is being deleted is 409."""

    idempotency_wait: timedelta = timedelta(seconds=10)
    """How long a create with an Idempotency-Key waits for another one with the same key that is under way; then it is
    answered with 409. Below what proxies wait for an answer (a minute, usually)."""

    preview_wait: timedelta = timedelta(seconds=2)
    """How long a dry run waits for a controller to say what the change would do to what amphorae run; then it is answered
    without. Above the controllers' poll interval, so that a lost wake-up is no loss."""

    pagination_max_limit: int = 1000
    """Most objects on one page, whatever limit is asked for. A limit of 0 asks for everything and gets it."""

    max_body_bytes: int = 114_688
    """Largest request body; more is 413. Octavia's figure."""

    api_base_uri: str | None = None
    """Scheme, host and prefix that links in answers start with, for an API behind a proxy; by default what the client
    used itself."""

    quotas: DefaultQuotas = field(default_factory=DefaultQuotas)
    """What projects may have that were given no quota. Quotas are not looked at with authentication `none`."""

    allow_vip_port_id: bool = True
    """Whether users may bring a port for a VIP."""

    allow_vip_network_id: bool = True
    """Whether users may name the network of a VIP."""

    allow_vip_subnet_id: bool = True
    """Whether users may name the subnet of a VIP."""

    valid_vip_networks: tuple[str, ...] = ()
    """The ids of the only networks on which VIPs may be; none named: all are fine. An availability zone that names its own
    goes before it."""

    denylist_vip_networks: tuple[str, ...] = ()
    """The ids of networks on which no VIP may be."""

    reserved_ips: tuple[str, ...] = RESERVED_MEMBER_ADDRESSES
    """Addresses that no member may have. By default that of the metadata service of clouds."""

    allow_tls_terminated_listeners: bool = True
    """Whether new TERMINATED_HTTPS listeners are allowed. Those that are there stay, as with the other switches."""

    allow_prometheus_listeners: bool = True
    """Whether new PROMETHEUS listeners are allowed."""

    allow_ping_health_monitors: bool = True
    """Whether new PING health monitors are allowed."""

    udp_connect_min_interval_health_monitor: int = UDP_CONNECT_MIN_DELAY_S
    """Shortest delay of UDP-CONNECT health monitors, in seconds. Each check must wait for an ICMP error that may not come;
    negative: any delay."""

    tls_cipher_prohibit_list: tuple[str, ...] = ()
    """Names of OpenSSL ciphers that no listener and no pool may be given from now on."""

    minimum_tls_version: str | None = None
    """Lowest version of TLS that listeners and pools may be given from now on (TLSv1.2, say). None: any that is known."""

    default_listener_tls_versions: tuple[str, ...] = TLS_VERSIONS_DEFAULT
    """TLS versions of TERMINATED_HTTPS listeners for which none are named."""

    default_pool_tls_versions: tuple[str, ...] = TLS_VERSIONS_DEFAULT
    """TLS versions of pools with TLS for which none are named."""

    default_listener_ciphers: str = TLS_CIPHERS_DEFAULT
    """Cipher list of TERMINATED_HTTPS listeners for which none is given."""

    default_pool_ciphers: str = TLS_CIPHERS_DEFAULT
    """Cipher list of pools with TLS for which none is given."""

    default_listener_alpn_protocols: tuple[str, ...] = ALPN_PROTOCOLS
    """Protocols that TERMINATED_HTTPS listeners offer inside TLS where none are named."""

    default_pool_alpn_protocols: tuple[str, ...] = ALPN_PROTOCOLS
    """Protocols that pools with TLS offer to members where none are named."""

    allow_pagination: bool = True
    """Whether lists come in pages. Without, limit and marker are ignored and every list is whole."""

    allow_sorting: bool = True
    """Whether lists are sorted as asked. Without, sort arguments are ignored."""

    allow_filtering: bool = True
    """Whether lists can be filtered. Without, filters are ignored, but for project_id."""

    allow_field_selection: bool = True
    """Whether `fields` picks attributes. Without, it is ignored."""

    default_driver: str = ""
    """Amphora driver of new load balancers, where controllers of several serve their provider. Empty: `drivers.amphora`.
    With controllers of one driver only, that one is taken whatever stands here."""

    network_compat: bool = True
    """Whether to answer the read-only look-ups of subnets, networks and projects that OpenStack clients send to the same
    endpoint when there is no catalog (authentication `none`). Off where a real network service answers them."""

    @cached_property
    def house_rules(self) -> HouseRules:
        return HouseRules(
            allow_tls_terminated_listeners=self.allow_tls_terminated_listeners,
            allow_prometheus_listeners=self.allow_prometheus_listeners,
            allow_ping_health_monitors=self.allow_ping_health_monitors,
            udp_connect_min_delay=self.udp_connect_min_interval_health_monitor,
            prohibited_ciphers=frozenset(self.tls_cipher_prohibit_list),
            minimum_tls_version=self.minimum_tls_version,
            reserved_addresses=frozenset(canonical_address(x) for x in self.reserved_ips),
        )

    @cached_property
    def defaults(self) -> Defaults:
        return Defaults(
            listener_tls=TlsDefaults(
                versions=self.default_listener_tls_versions,
                ciphers=self.default_listener_ciphers,
                alpn_protocols=self.default_listener_alpn_protocols,
            ),
            pool_tls=TlsDefaults(
                versions=self.default_pool_tls_versions,
                ciphers=self.default_pool_ciphers,
                alpn_protocols=self.default_pool_alpn_protocols,
            ),
        )

    def served_by(self, provider: str) -> str:
        """The name under which controllers of a provider register."""
        known = next((x for x in self.providers if x.name == provider), None)
        return provider if known is None else known.served_by or known.name


def check_bind(settings: ApiSettings) -> None:
    """Raise Invalid where an API that asks nobody would be reachable from other machines without the operator's word."""
    if settings.auth is not Authentication.NONE or settings.insecure_bind or _is_loopback(settings.bind_host):
        return
    raise Invalid(
        "api.bind_host",
        f"{settings.bind_host} can be reached from other machines, and authentication is `none`: everyone there would be "
        'administrator. Set api.auth to "token" or "keystone", or listen on 127.0.0.1, or set api.insecure_bind = true to '
        "say that you mean it.",
    )


def check_quotas(settings: ApiSettings) -> None:
    """Raise Invalid naming the default that is no limit."""
    for kind in COUNTED:
        limit = getattr(settings.quotas, kind)
        if not UNLIMITED <= limit <= MAX_LIMIT:
            raise Invalid(f"api.quotas.{kind}", f"must be from {UNLIMITED} (no limit) to {MAX_LIMIT}, not {limit}")


def check_house_settings(settings: ApiSettings) -> None:
    """Raise Invalid naming a setting that no listener or pool could live with."""
    lowest = settings.minimum_tls_version
    if lowest is not None and lowest not in TLS_VERSIONS:
        raise Invalid("api.minimum_tls_version", f"must be one of {', '.join(TLS_VERSIONS)}, not {lowest!r}")
    allowed = TLS_VERSIONS if lowest is None else TLS_VERSIONS[TLS_VERSIONS.index(lowest) :]
    lists = {
        "default_listener_tls_versions": (settings.default_listener_tls_versions, allowed),
        "default_pool_tls_versions": (settings.default_pool_tls_versions, allowed),
        "default_listener_alpn_protocols": (settings.default_listener_alpn_protocols, ALPN_PROTOCOLS),
        "default_pool_alpn_protocols": (settings.default_pool_alpn_protocols, ALPN_PROTOCOLS),
    }
    for name, (values, possible) in lists.items():
        if not values or not set(values) <= set(possible):
            raise Invalid(f"api.{name}", f"must name some of {', '.join(possible)}, and nothing else")
    for name in ("default_listener_ciphers", "default_pool_ciphers"):
        prohibited = set(getattr(settings, name).split(":")) & set(settings.tls_cipher_prohibit_list)
        if prohibited:
            raise Invalid(
                f"api.{name}", f"names {', '.join(sorted(prohibited))}, which tls_cipher_prohibit_list prohibits"
            )
    for address in settings.reserved_ips:
        try:
            ipaddress.ip_address(address)
        except ValueError as error:
            raise Invalid("api.reserved_ips", f"{address!r} is not an IP address") from error


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # a name may mean anything tomorrow
