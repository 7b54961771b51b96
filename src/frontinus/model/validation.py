"""The one validator: every way in (single create, whole tree, batch, old rows) is judged here and nowhere else.

`validate` looks at a tree as it would be after an edit and raises Invalid for a value or combination that is never right,
NotFound for a reference into nothing, Conflict for two things that exclude each other; in that order. It never changes
anything, knows no wire spelling and no driver: what a driver cannot honour is capabilities.py, and what an operator does
not allow is house_rules.py. Rules are those of
contract/resources.yaml; the tables that they apply are in compatibility.py."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Iterable
from functools import lru_cache
from urllib.parse import urlsplit

from frontinus.model.compatibility import (
    ALPN_PROTOCOLS,
    COMPARISONS_OF_L7_RULE,
    DATAGRAM_PERSISTENCE,
    DATAGRAM_POOLS,
    HEALTH_MONITOR_TYPES_OF_POOL,
    HTTP_MONITOR_TYPES,
    HTTP_VERSIONS,
    INSERT_HEADERS_OF_LISTENER,
    L4_FAMILY,
    L7_RULE_KEY_FORBIDDEN,
    L7_RULE_KEY_REQUIRED,
    MAX_INTEGER,
    MAX_L7_RULES_PER_POLICY,
    MAX_PORT,
    MAX_RETRIES,
    MAX_TEXT,
    MAX_TIMEOUT_MS,
    MAX_TLS_CIPHERS,
    MAX_URL_PATH,
    MAX_WEIGHT,
    POOL_PROTOCOLS_OF_LISTENER,
    REDIRECT_HTTP_CODES,
    TLS_LISTENERS,
    TLS_VERSIONS,
)
from frontinus.model.enums import (
    ClientAuthentication,
    L7PolicyAction,
    L7RuleCompareType,
    L7RuleType,
    ListenerProtocol,
    SessionPersistenceType,
    VnicType,
)
from frontinus.model.errors import Conflict, Invalid, NotFound
from frontinus.model.l7 import operand
from frontinus.model.network import require_subnets_of_their_own
from frontinus.model.regular_expressions import Refused, check_regex
from frontinus.model.tree import (
    HealthMonitor,
    L7Policy,
    L7Rule,
    Listener,
    LoadBalancer,
    LoadBalancerTree,
    Member,
    Pool,
    SessionPersistence,
)


def validate(tree: LoadBalancerTree, *, touched_since: int = 0) -> None:
    """Raise the first thing that is wrong with the wanted tree; return nothing when all is well.

    `touched_since` limits the rules about single objects to those that an edit of that generation or a later one
    touched (edits.py marks the parents too); what objects share, as ports and addresses, is always looked at whole.

    Raises Invalid, NotFound or Conflict; `field` is `kind.attribute` in our own words."""
    wanted = tree.wanted()
    validate_load_balancer(wanted.load_balancer)
    for listener in tree.listeners:
        # Looked at in the tree as it is: `wanted` forgets default pools that it does not have.
        if listener.default_pool_id is not None and not listener.delete_requested:
            _require_pool(wanted, listener.default_pool_id)
    for listener in wanted.listeners:
        if listener.changed_generation >= touched_since:
            validate_listener(listener, wanted)
    for pool in wanted.pools:
        if pool.changed_generation >= touched_since:
            validate_pool(pool)
    for member in wanted.members:
        if member.changed_generation >= touched_since:
            validate_member(member)
    for monitor in wanted.health_monitors:
        if monitor.changed_generation >= touched_since:
            validate_health_monitor(monitor, wanted)
    for policy in wanted.l7_policies:
        if policy.changed_generation >= touched_since:
            validate_l7_policy(policy, wanted)
    for rule in wanted.l7_rules:
        if rule.changed_generation >= touched_since:
            validate_l7_rule(rule)
    refuse_duplicates(wanted)


# ---------------------------------------------------------------- values


_FORBIDDEN_IN_TEXT = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
_FORBIDDEN_IN_PROSE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


def check_text(value: str, field: str, *, longest: int = MAX_TEXT, prose: bool = False) -> None:
    """Length in characters; no control characters and no half of a surrogate pair, which no store and no
    configuration carries unharmed. `prose` may have tabs and line ends."""
    if len(value) > longest:
        raise Invalid(field, f"is {len(value)} characters long; at most {longest} are allowed")
    # isprintable and isascii answer for nearly every text without running a pattern.
    if not (value.isascii() and value.isprintable()):
        found = (_FORBIDDEN_IN_PROSE if prose else _FORBIDDEN_IN_TEXT).search(value)
        if found is not None:
            raise Invalid(field, f"contains the character U+{ord(found[0]):04X}, which is not allowed")


def check_integer(value: int, field: str, lowest: int, highest: int = MAX_INTEGER) -> None:
    """Both bounds belong to the range."""
    if not lowest <= value <= highest:
        raise Invalid(field, f"must be from {lowest} to {highest}, not {value}")


@lru_cache(maxsize=4096)
def _parsed_address(value: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        return None
    # A zone (fe80::1%eth0) names an interface of whoever wrote it; it means nothing on an amphora.
    return None if "%" in value else address


def check_address(value: str, field: str) -> None:
    """IPv4 or IPv6 text, without a zone."""
    if _parsed_address(value) is None:
        raise Invalid(field, f"{_quoted(value)} is not an IPv4 or IPv6 address")


def check_url(value: str, field: str) -> None:
    """An http or https URL with a host, without white space or control characters."""
    check_text(value, field)
    try:
        parts = urlsplit(value)
        port_is_right = parts.port is None or 0 < parts.port <= MAX_PORT
    except ValueError as error:
        raise Invalid(field, f"{_quoted(value)} is not a URL: {error}") from error
    if parts.scheme.lower() not in ("http", "https") or not parts.hostname or not port_is_right:
        raise Invalid(field, f"{_quoted(value)} is not an http or https URL with a host")
    if _UNPRINTABLE_OR_SPACE.search(value):
        raise Invalid(field, "a URL has no white space and no characters outside ASCII; encode them with %")


_UNPRINTABLE_OR_SPACE = re.compile("[^\x21-\x7e]")


def check_url_path(value: str, field: str) -> None:
    """Starts with a single slash; no scheme, host or port; query and fragment may follow."""
    check_text(value, field, longest=MAX_URL_PATH)
    if not value.startswith("/") or value.startswith("//"):
        raise Invalid(field, f"{_quoted(value)} must start with one slash and name neither scheme nor host")
    if _UNPRINTABLE_OR_SPACE.search(value):
        raise Invalid(field, "a path has no white space and no characters outside ASCII; encode them with %")


_EXPECTED_CODES = re.compile(r"[0-9]{3}(\s*,\s*[0-9]{3})*|[0-9]{3}-[0-9]{3}")
_MAX_EXPECTED_CODES = 64


def check_expected_codes(value: str, field: str) -> None:
    """One code, a comma list of codes, or one range."""
    check_text(value, field, longest=_MAX_EXPECTED_CODES)
    if _EXPECTED_CODES.fullmatch(value) is None:
        raise Invalid(field, f"{_quoted(value)} must be one status code, a comma list of them, or one range as 200-204")
    low, dash, high = value.partition("-")
    if dash and int(low) > int(high):
        raise Invalid(field, f"the range {value} runs backwards")


_DOMAIN_LABEL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9-]{0,62}(?<!-)")
_MAX_DOMAIN_NAME = 253


def check_domain_name(value: str, field: str) -> None:
    """Labels of letters, digits and hyphens; an underscore only as first character of a label; one dot may end it."""
    name = value.removesuffix(".")
    labels_are_right = all(_DOMAIN_LABEL.fullmatch(label) for label in name.split("."))
    if len(name) > _MAX_DOMAIN_NAME or not labels_are_right:
        raise Invalid(field, f"{_quoted(value)} is not a domain name")


_CIPHERS = re.compile(r"[A-Za-z0-9\-+!:@=_.]+")


def _check_tls(
    field: str, ciphers: str | None, versions: Collection[str] | None, alpn_protocols: Collection[str] | None
) -> None:
    if ciphers is not None:
        check_text(ciphers, f"{field}.tls_ciphers", longest=MAX_TLS_CIPHERS)
        if _CIPHERS.fullmatch(ciphers) is None:
            raise Invalid(f"{field}.tls_ciphers", "must be an OpenSSL cipher list: names joined by colons")
    _check_members_of(versions, TLS_VERSIONS, f"{field}.tls_versions")
    _check_members_of(alpn_protocols, ALPN_PROTOCOLS, f"{field}.alpn_protocols")


def _check_members_of(values: Collection[str] | None, allowed: Collection[str], field: str) -> None:
    if values is None:
        return
    if not values:
        raise Invalid(field, "must name at least one; leave it out for the default")
    for value in values:
        if value not in allowed:
            raise Invalid(field, f"{_quoted(value)} is not one of {', '.join(allowed)}")


def _check_tags(tags: Collection[str], field: str) -> None:
    for tag in tags:
        check_text(tag, field)
    if len(set(tags)) != len(tags):
        raise Invalid(field, "names a tag more than once")


def _check_reference(value: str | None, field: str) -> None:
    if value is not None:
        check_text(value, field)


def _quoted(value: str) -> str:
    """A caller's text in a message: whole if it is short."""
    return repr(value if len(value) <= 80 else value[:77] + "...")


# ---------------------------------------------------------------- objects


def validate_load_balancer(load_balancer: LoadBalancer) -> None:
    check_text(load_balancer.name, "load_balancer.name")
    check_text(load_balancer.description, "load_balancer.description", prose=True)
    _check_tags(load_balancer.tags, "load_balancer.tags")
    if len(set(load_balancer.vip_sg_ids)) != len(load_balancer.vip_sg_ids):
        raise Invalid("load_balancer.vip_sg_ids", "names a security group more than once")
    if load_balancer.vip_sg_ids and load_balancer.vip_vnic_type is VnicType.DIRECT:
        raise Invalid("load_balancer.vip_sg_ids", "the flavor makes the VIP's port a direct one, which has none")
    require_subnets_of_their_own(load_balancer.vip.subnet_id, [x.subnet_id for x in load_balancer.additional_vips])
    for additional in load_balancer.additional_vips:
        if additional.address:
            check_address(additional.address, "load_balancer.additional_vips.ip_address")


def validate_listener(listener: Listener, tree: LoadBalancerTree) -> None:
    check_text(listener.name, "listener.name")
    check_text(listener.description, "listener.description", prose=True)
    _check_tags(listener.tags, "listener.tags")
    check_integer(listener.protocol_port, "listener.protocol_port", 1, MAX_PORT)
    if listener.connection_limit is not None:
        check_integer(listener.connection_limit, "listener.connection_limit", -1)
    for field in ("timeout_client_data", "timeout_member_connect", "timeout_member_data", "timeout_tcp_inspect"):
        check_integer(getattr(listener, field), f"listener.{field}", 0, MAX_TIMEOUT_MS)
    if listener.default_pool_id is not None:
        _check_pool_of_listener(listener, listener.default_pool_id, tree, "listener.default_pool_id")
    if listener.protocol is ListenerProtocol.PROMETHEUS and tree.l7_policies_of(listener.id):
        raise Invalid("listener.l7_policies", "a PROMETHEUS listener has no pools and no policies")
    _check_insert_headers(listener)
    _check_listener_tls(listener)
    _check_hsts(listener)
    check_allowed_cidrs(listener, tree.load_balancer)


def _require_pool(tree: LoadBalancerTree, pool_id: str) -> Pool:
    pool = tree.pool(pool_id)
    if pool is None:
        raise NotFound("pool", f"{pool_id} is not a pool of this load balancer")
    return pool


def _check_pool_of_listener(listener: Listener, pool_id: str, tree: LoadBalancerTree, field: str) -> None:
    pool = _require_pool(tree, pool_id)
    allowed = POOL_PROTOCOLS_OF_LISTENER[listener.protocol]
    if pool.protocol not in allowed:
        pools = ", ".join(sorted(allowed)) or "no pool at all"
        raise Invalid(field, f"a {listener.protocol} listener cannot use a {pool.protocol} pool, but {pools}")


def _check_insert_headers(listener: Listener) -> None:
    if not listener.insert_headers:
        return
    allowed = INSERT_HEADERS_OF_LISTENER.get(listener.protocol)
    if allowed is None:
        raise Invalid("listener.insert_headers", f"a {listener.protocol} listener inserts no headers")
    for header, value in listener.insert_headers.items():
        if header not in allowed:
            raise Invalid("listener.insert_headers", f"{_quoted(header)} is not a header that it can insert")
        check_text(value, "listener.insert_headers")


def _check_listener_tls(listener: Listener) -> None:
    has_certificate = bool(listener.default_tls_container_ref or listener.sni_container_refs)
    _check_reference(listener.default_tls_container_ref, "listener.default_tls_container_ref")
    for reference in listener.sni_container_refs:
        check_text(reference, "listener.sni_container_refs")
    if has_certificate and listener.protocol not in TLS_LISTENERS:
        field = "default_tls_container_ref" if listener.default_tls_container_ref else "sni_container_refs"
        raise Invalid(f"listener.{field}", f"a {listener.protocol} listener does not terminate TLS")
    if listener.protocol is ListenerProtocol.TERMINATED_HTTPS and not has_certificate:
        raise Invalid(
            "listener.default_tls_container_ref",
            "a TERMINATED_HTTPS listener needs a certificate here or in sni_container_refs",
        )
    authority = listener.client_ca_tls_container_ref
    _check_reference(authority, "listener.client_ca_tls_container_ref")
    _check_reference(listener.client_crl_container_ref, "listener.client_crl_container_ref")
    if authority and not has_certificate:
        raise Invalid("listener.client_ca_tls_container_ref", "clients are asked for certificates only where TLS ends")
    if not authority and listener.client_authentication is not ClientAuthentication.NONE:
        raise Invalid("listener.client_authentication", "needs client_ca_tls_container_ref")
    if not authority and listener.client_crl_container_ref:
        raise Invalid("listener.client_crl_container_ref", "needs client_ca_tls_container_ref")
    _check_tls("listener", listener.tls_ciphers, listener.tls_versions, listener.alpn_protocols)


def _check_hsts(listener: Listener) -> None:
    wanted = {
        "hsts_max_age": listener.hsts_max_age is not None,
        "hsts_include_subdomains": bool(listener.hsts_include_subdomains),
        "hsts_preload": bool(listener.hsts_preload),
    }
    for field, is_wanted in wanted.items():
        if is_wanted and listener.protocol is not ListenerProtocol.TERMINATED_HTTPS:
            raise Invalid(f"listener.{field}", "only a TERMINATED_HTTPS listener offers Strict Transport Security")
        if is_wanted and listener.hsts_max_age is None:
            raise Invalid(f"listener.{field}", "needs hsts_max_age")
    if listener.hsts_max_age is not None:
        check_integer(listener.hsts_max_age, "listener.hsts_max_age", 0)


def check_allowed_cidrs(listener: Listener, load_balancer: LoadBalancer) -> None:
    """Each entry is a network of the family of some VIP. While the VIP has no address yet, families are not looked at."""
    if not listener.allowed_cidrs:
        return
    if load_balancer.vip_sg_ids:
        raise Invalid("listener.allowed_cidrs", "cannot be used while the VIP has security groups of its own")
    addresses = [load_balancer.vip.address, *(x.address for x in load_balancer.additional_vips)]
    families = {address.version for x in addresses if (address := _parsed_address(x)) is not None}
    for cidr in listener.allowed_cidrs:
        try:
            network = ipaddress.ip_network(cidr)
        except ValueError as error:
            raise Invalid("listener.allowed_cidrs", f"{_quoted(cidr)} is not a network: {error}") from error
        if families and network.version not in families:
            raise Invalid("listener.allowed_cidrs", f"{cidr} is IPv{network.version}, and no VIP is")


def validate_pool(pool: Pool) -> None:
    check_text(pool.name, "pool.name")
    check_text(pool.description, "pool.description", prose=True)
    _check_tags(pool.tags, "pool.tags")
    if pool.session_persistence is not None:
        _check_session_persistence(pool, pool.session_persistence)
    for field in ("tls_container_ref", "ca_tls_container_ref", "crl_container_ref"):
        _check_reference(getattr(pool, field), f"pool.{field}")
    if pool.crl_container_ref and not pool.ca_tls_container_ref:
        raise Invalid("pool.crl_container_ref", "needs ca_tls_container_ref")
    _check_tls("pool", pool.tls_ciphers, pool.tls_versions, pool.alpn_protocols)


_COOKIE_NAME = re.compile(r'[^\x00-\x20"(),/:;<=>?@\[\\\]{}\x7f]+')


def _check_session_persistence(pool: Pool, persistence: SessionPersistence) -> None:
    field = "pool.session_persistence"
    is_datagram = pool.protocol in DATAGRAM_POOLS
    if is_datagram and persistence.type not in DATAGRAM_PERSISTENCE:
        raise Invalid(f"{field}.type", f"a {pool.protocol} pool can only persist by SOURCE_IP, not {persistence.type}")
    if persistence.type is SessionPersistenceType.APP_COOKIE:
        if not persistence.cookie_name:
            raise Invalid(f"{field}.cookie_name", "APP_COOKIE needs the name of the cookie")
        check_text(persistence.cookie_name, f"{field}.cookie_name")
        if _COOKIE_NAME.fullmatch(persistence.cookie_name) is None:
            raise Invalid(f"{field}.cookie_name", f"{_quoted(persistence.cookie_name)} is not the name of a cookie")
    elif persistence.cookie_name is not None:
        raise Invalid(f"{field}.cookie_name", f"{persistence.type} has no cookie name")
    if persistence.persistence_timeout is not None:
        check_integer(persistence.persistence_timeout, f"{field}.persistence_timeout", -MAX_INTEGER - 1)
    if persistence.persistence_granularity is not None:
        check_address(persistence.persistence_granularity, f"{field}.persistence_granularity")
    for name in ("persistence_timeout", "persistence_granularity"):
        if getattr(persistence, name) is not None and not is_datagram:
            raise Invalid(f"{field}.{name}", f"a {pool.protocol} pool does not have it; UDP and SCTP pools do")


def validate_member(member: Member) -> None:
    check_text(member.name, "member.name")
    _check_tags(member.tags, "member.tags")
    check_integer(member.protocol_port, "member.protocol_port", 1, MAX_PORT)
    check_address(member.address, "member.address")
    if member.weight is not None:
        check_integer(member.weight, "member.weight", 0, MAX_WEIGHT)
    if member.monitor_address is not None:
        check_address(member.monitor_address, "member.monitor_address")
    if member.monitor_port is not None:
        check_integer(member.monitor_port, "member.monitor_port", 1, MAX_PORT)


def validate_health_monitor(monitor: HealthMonitor, tree: LoadBalancerTree) -> None:
    check_text(monitor.name, "health_monitor.name")
    _check_tags(monitor.tags, "health_monitor.tags")
    check_integer(monitor.delay, "health_monitor.delay", 0)
    check_integer(monitor.timeout, "health_monitor.timeout", 0)
    check_integer(monitor.max_retries, "health_monitor.max_retries", 1, MAX_RETRIES)
    check_integer(monitor.max_retries_down, "health_monitor.max_retries_down", 1, MAX_RETRIES)
    pool = _require_pool(tree, monitor.pool_id)
    allowed = HEALTH_MONITOR_TYPES_OF_POOL[pool.protocol]
    if monitor.type not in allowed:
        raise Invalid(
            "health_monitor.type",
            f"a {pool.protocol} pool cannot be watched by {monitor.type}, but by {', '.join(sorted(allowed))}",
        )
    _check_http_fields(monitor)


def _check_http_fields(monitor: HealthMonitor) -> None:
    if monitor.type not in HTTP_MONITOR_TYPES:
        for field in ("http_method", "url_path", "expected_codes"):
            if getattr(monitor, field) is not None:
                raise Invalid(f"health_monitor.{field}", f"a {monitor.type} health monitor does not have it")
    if monitor.url_path is not None:
        check_url_path(monitor.url_path, "health_monitor.url_path")
    if monitor.expected_codes is not None:
        check_expected_codes(monitor.expected_codes, "health_monitor.expected_codes")
    if monitor.http_version is not None and monitor.http_version not in HTTP_VERSIONS:
        raise Invalid("health_monitor.http_version", "must be 1.0 or 1.1")
    if monitor.domain_name is not None:
        check_domain_name(monitor.domain_name, "health_monitor.domain_name")
        if monitor.http_version is None or monitor.http_version < 1.1:
            raise Invalid("health_monitor.domain_name", "needs http_version 1.1")


def validate_l7_policy(policy: L7Policy, tree: LoadBalancerTree) -> None:
    check_text(policy.name, "l7_policy.name")
    check_text(policy.description, "l7_policy.description", prose=True)
    _check_tags(policy.tags, "l7_policy.tags")
    check_integer(policy.position, "l7_policy.position", 1)
    listener = tree.listener(policy.listener_id)
    if listener is None:
        raise NotFound("listener", f"{policy.listener_id} is not a listener of this load balancer")
    if listener.protocol is ListenerProtocol.PROMETHEUS:
        raise Invalid("l7_policy.listener_id", "a PROMETHEUS listener has no pools and no policies")
    for field in ("redirect_url", "redirect_prefix"):
        url = getattr(policy, field)
        if url is not None:
            check_url(url, f"l7_policy.{field}")
    if policy.redirect_http_code is not None and policy.redirect_http_code not in REDIRECT_HTTP_CODES:
        codes = ", ".join(str(x) for x in sorted(REDIRECT_HTTP_CODES))
        raise Invalid("l7_policy.redirect_http_code", f"must be one of {codes}")
    needed = _REDIRECT_TARGET.get(policy.action)
    if needed is not None and not getattr(policy, needed):
        raise Invalid(f"l7_policy.{needed}", f"{policy.action} needs it")
    for field in _REDIRECT_TARGET.values():
        if field != needed and getattr(policy, field):
            raise Invalid(f"l7_policy.{field}", f"{policy.action} does not have it")
    if policy.redirect_pool_id is not None:
        _check_pool_of_listener(listener, policy.redirect_pool_id, tree, "l7_policy.redirect_pool_id")


_REDIRECT_TARGET: dict[L7PolicyAction, str] = {
    L7PolicyAction.REDIRECT_TO_POOL: "redirect_pool_id",
    L7PolicyAction.REDIRECT_TO_URL: "redirect_url",
    L7PolicyAction.REDIRECT_PREFIX: "redirect_prefix",
}

_HEADER_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+,\-.^_`|~]+")
_DN_FIELD = re.compile(r"[A-Za-z][A-Za-z0-9-]*")
_BARE_WORD = re.compile(r"[\x21-\x7e]+")
_QUOTED_WORDS = re.compile(r'"[\x21\x23-\x7e \t]*"')
_COOKIE_VALUE = re.compile(r"[\x21\x23-\x3a\x3c-\x5b\x5d-\x7e]+")
_DECIMAL = re.compile(r"[0-9]+")


def validate_l7_rule(rule: L7Rule) -> None:
    _check_tags(rule.tags, "l7_rule.tags")
    allowed = COMPARISONS_OF_L7_RULE[rule.type]
    if rule.compare_type not in allowed:
        raise Invalid("l7_rule.compare_type", f"{rule.type} is compared by {', '.join(sorted(allowed))}")
    _check_l7_rule_key(rule)
    _check_l7_rule_value(rule)


def _check_l7_rule_key(rule: L7Rule) -> None:
    if rule.type in L7_RULE_KEY_REQUIRED and not rule.key:
        raise Invalid("l7_rule.key", f"{rule.type} needs a key")
    if rule.key is None:
        return
    if rule.type in L7_RULE_KEY_FORBIDDEN:
        raise Invalid("l7_rule.key", f"{rule.type} has no key")
    check_text(rule.key, "l7_rule.key")
    if rule.type in (L7RuleType.COOKIE, L7RuleType.HEADER) and _HEADER_TOKEN.fullmatch(rule.key) is None:
        raise Invalid("l7_rule.key", f"{_quoted(rule.key)} is not the name of a header or cookie")
    if rule.type is L7RuleType.SSL_DN_FIELD and _DN_FIELD.fullmatch(rule.key) is None:
        raise Invalid("l7_rule.key", f"{_quoted(rule.key)} is not a field of a distinguished name")


def _check_l7_rule_value(rule: L7Rule) -> None:
    field, value = "l7_rule.value", rule.value
    check_text(value, field)
    if not value:
        raise Invalid(field, "must not be empty")
    if rule.compare_type is L7RuleCompareType.REGEX:
        if rule.type is L7RuleType.COOKIE and "," in (rule.key or ""):
            raise Invalid("l7_rule.key", "a cookie whose name has a comma cannot be compared by REGEX")
        try:
            check_regex(value)
        except Refused as error:
            raise Invalid(field, f"{_quoted(value)} is not a regular expression that is taken: {error}") from error
        return
    if not operand(rule):
        raise Invalid(field, "must not be empty between its quotes")
    match rule.type:
        case L7RuleType.HEADER | L7RuleType.HOST_NAME | L7RuleType.PATH | L7RuleType.FILE_TYPE:
            if _BARE_WORD.fullmatch(value) is None and _QUOTED_WORDS.fullmatch(value) is None:
                raise Invalid(field, "white space is allowed only when the whole value is in double quotes; ASCII only")
        case L7RuleType.COOKIE:
            if _COOKIE_VALUE.fullmatch(value) is None:
                raise Invalid(field, f"{_quoted(value)} is not the value of a cookie")
        case L7RuleType.SSL_CONN_HAS_CERT:
            if value.lower() != "true":
                raise Invalid(field, "SSL_CONN_HAS_CERT is compared with true; use invert for the opposite")
        case L7RuleType.SSL_VERIFY_RESULT:
            if _DECIMAL.fullmatch(value) is None:
                raise Invalid(field, "SSL_VERIFY_RESULT is compared with a number, 0 or more")
        case L7RuleType.SSL_DN_FIELD:
            pass


# ---------------------------------------------------------------- what objects share


def refuse_duplicates(tree: LoadBalancerTree) -> None:
    """One port per L4 family, one member per address and port of a pool, one health monitor per pool, each SNI
    certificate once, at most 50 rules in a policy. Raises Conflict."""
    ports: set[tuple[str, int]] = set()
    for listener in tree.listeners:
        key = (L4_FAMILY[listener.protocol], listener.protocol_port)
        if key in ports:
            raise Conflict("listener.protocol_port", f"another {key[0]} listener already has port {key[1]}")
        ports.add(key)
        if len(set(listener.sni_container_refs)) != len(listener.sni_container_refs):
            raise Conflict("listener.sni_container_refs", "names a certificate more than once")
    members: set[tuple[str, str, int]] = set()
    for member in tree.members:
        place = (member.pool_id, member.address, member.protocol_port)
        if place in members:
            raise Conflict("member.address", f"the pool already has a member {place[1]} port {place[2]}")
        members.add(place)
    if _repeats(x.pool_id for x in tree.health_monitors):
        raise Conflict("health_monitor.pool_id", "the pool already has a health monitor")
    rules: dict[str, int] = {}
    for rule in tree.l7_rules:
        rules[rule.l7_policy_id] = rules.get(rule.l7_policy_id, 0) + 1
        if rules[rule.l7_policy_id] > MAX_L7_RULES_PER_POLICY:
            raise Conflict("l7_policy.l7_rules", f"a policy has at most {MAX_L7_RULES_PER_POLICY} rules")


def _repeats(values: Iterable[str]) -> bool:
    seen = list(values)
    return len(set(seen)) != len(seen)
