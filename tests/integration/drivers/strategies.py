"""Trees of every kind that the API accepts for this driver, and strings that are as awkward as they can be."""

from __future__ import annotations

from typing import Any

from hypothesis import assume
from hypothesis import strategies as st
from msgspec.structs import replace

from frontinus.drivers.amphora.haproxy.render import CAPABILITIES
from frontinus.model.capabilities import Capabilities, insert_header_feature
from frontinus.model.certificates import Authorities, Revocations, Secrets
from frontinus.model.compatibility import (
    ALPN_PROTOCOLS,
    DATAGRAM_LISTENERS,
    DATAGRAM_POOLS,
    HEALTH_MONITOR_TYPES_OF_POOL,
    INSERT_HEADERS_OF_LISTENER,
    MAX_TIMEOUT_MS,
    POOL_PROTOCOLS_OF_LISTENER,
    TLS_CIPHERS_DEFAULT,
    TLS_VERSIONS,
)
from frontinus.model.enums import (
    ClientAuthentication,
    HealthMonitorType,
    HttpMethod,
    ListenerProtocol,
    PoolProtocol,
    SessionPersistenceType,
)
from frontinus.model.enums import L7PolicyAction as Action
from frontinus.model.enums import L7RuleCompareType as Compare
from frontinus.model.enums import L7RuleType as Type
from frontinus.model.errors import Invalid
from frontinus.model.ids import ListenerId, MemberId, PoolId
from frontinus.model.tree import (
    HealthMonitor,
    L7Policy,
    L7Rule,
    Listener,
    LoadBalancerTree,
    Member,
    Pool,
    SessionPersistence,
)
from frontinus.model.validation import validate_l7_rule
from frontinus.testing.certificates import TestAuthority

from tests.unit.drivers.trees import a_listener, a_load_balancer, a_member, a_monitor, a_policy, a_pool, a_rule, a_tree

_ADDRESSES = st.ip_addresses().map(str)
_PORTS = st.integers(1, 65535)
_TIMEOUTS = st.sampled_from([0, 1, 50_000, MAX_TIMEOUT_MS]) | st.integers(0, MAX_TIMEOUT_MS)
_CODES = st.integers(100, 999).map(str)
_EXPECTED = st.one_of(
    _CODES,
    st.lists(_CODES, min_size=2, max_size=12).map(", ".join),
    st.tuples(st.integers(100, 999), st.integers(100, 999)).map(lambda pair: f"{min(pair)}-{max(pair)}"),
)
_PATHS = st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0x7E) | st.sampled_from("'\"\\$#%&;{}"), max_size=200
).map(lambda rest: f"/{rest}".replace("//", "/"))
_DOMAINS = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9-]{0,20}[A-Za-z0-9])?(\.[a-z]{2,5}){0,3}", fullmatch=True)


def words() -> st.SearchStrategy[str]:
    """Words that a configuration can hold: everything but control characters, as bytes that HAProxy hands back."""
    awkward = st.sampled_from("'\"\\ $#%{}[]()|;,\u00fc\u4e2d\U0001f600")
    return st.text(awkward | st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=40)


_AUTHORITY = TestAuthority()
_REFERENCES = ("local:one", "local:two", "https://keys.example.org/v1/containers/\u00fc 'x'")
SECRETS = Secrets(
    certificates={reference: _AUTHORITY.issue("www.example.org") for reference in _REFERENCES},
    authorities={_REFERENCES[0]: Authorities(certificates=(_AUTHORITY.pem,))},
    revocations={_REFERENCES[0]: Revocations(lists=(_AUTHORITY.revoke(),))},
)
"""What is behind the references that these trees make."""

_VERSIONS = st.none() | st.tuples(st.integers(1, 4), st.integers(1, 4)).map(
    lambda ends: TLS_VERSIONS[min(ends) : max(ends) + 1]
)
_CIPHERS = st.none() | st.lists(
    st.sampled_from([*TLS_CIPHERS_DEFAULT.split(":"), "HIGH", "ECDHE+AESGCM", "!aNULL", "@STRENGTH"]),
    min_size=1,
    unique=True,
).map(lambda names: ":".join(["DHE-RSA-AES128-GCM-SHA256", *names]))
_ALPN = st.none() | st.lists(st.sampled_from(ALPN_PROTOCOLS), min_size=1, unique=True).map(tuple)


def ends_of_tls() -> st.SearchStrategy[dict[str, Any]]:
    """Fields of a TERMINATED_HTTPS listener."""
    clients = st.fixed_dictionaries(
        {
            "client_authentication": st.sampled_from(list(ClientAuthentication)),
            "client_ca_tls_container_ref": st.just(_REFERENCES[0]),
            "client_crl_container_ref": st.sampled_from([None, _REFERENCES[0]]),
        }
    )
    rest = st.fixed_dictionaries(
        {
            "default_tls_container_ref": st.sampled_from(_REFERENCES),
            "sni_container_refs": st.lists(st.sampled_from(_REFERENCES), unique=True).map(tuple),
            "tls_versions": _VERSIONS,
            "tls_ciphers": _CIPHERS,
            "alpn_protocols": _ALPN,
            "hsts_max_age": st.none() | st.integers(0, 2**31 - 1),
            "hsts_include_subdomains": st.booleans(),
        }
    )
    return st.tuples(st.just({}) | clients, rest).map(lambda both: {**both[0], **both[1]})


def tls_to_members() -> st.SearchStrategy[dict[str, Any]]:
    """Fields of a pool whose members are spoken to in TLS."""
    return st.fixed_dictionaries(
        {
            "tls_enabled": st.just(True),
            "tls_container_ref": st.sampled_from([None, *_REFERENCES]),
            "ca_tls_container_ref": st.sampled_from([None, _REFERENCES[0]]),
            "crl_container_ref": st.sampled_from([None, _REFERENCES[0]]),
            "tls_versions": _VERSIONS,
            "tls_ciphers": _CIPHERS,
            "alpn_protocols": _ALPN,
        }
    )


@st.composite
def members(draw: st.DrawFn, pool: int, index: int) -> Member:
    return a_member(
        1000 * pool + index,
        pool=pool,
        address=draw(_ADDRESSES),
        port=draw(_PORTS),
        weight=draw(st.none() | st.integers(0, 256)),
        backup=draw(st.booleans()),
        admin_state_up=draw(st.booleans()),
        monitor_address=draw(st.none() | _ADDRESSES),
        monitor_port=draw(st.none() | _PORTS),
    )


@st.composite
def monitors(draw: st.DrawFn, pool: int, kinds: frozenset[HealthMonitorType]) -> HealthMonitor:
    kind = draw(st.sampled_from(sorted(kinds)))
    http = kind in (HealthMonitorType.HTTP, HealthMonitorType.HTTPS)
    version = draw(st.sampled_from([None, 1.0, 1.1]))
    timeout = draw(st.sampled_from([0, 2**31 - 1]) | st.integers(0, 100))
    return a_monitor(
        100 + pool,
        pool=pool,
        type=kind,
        delay=draw(st.sampled_from([timeout, 2**40]) | st.integers(timeout, 2**31)),
        timeout=timeout,
        max_retries=draw(st.integers(1, 10)),
        max_retries_down=draw(st.integers(1, 10)),
        http_method=draw(st.sampled_from(list(HttpMethod))) if http else None,
        url_path=draw(_PATHS) if http else None,
        expected_codes=draw(_EXPECTED) if http else None,
        http_version=version,
        domain_name=draw(st.none() | _DOMAINS) if version == 1.1 else None,
        admin_state_up=draw(st.booleans()),
    )


_COOKIE_NAMES = st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters='"(),/:;<=>?@[\\]{}'), min_size=1
)
_BY_COOKIE = (SessionPersistenceType.HTTP_COOKIE, SessionPersistenceType.APP_COOKIE)
_EVERY_L7 = {feature for feature in CAPABILITIES.features if feature.startswith("l7_")}
_READS_REQUESTS = (ListenerProtocol.HTTP, ListenerProtocol.TERMINATED_HTTPS)


@st.composite
def persistences(draw: st.DrawFn, protocol: PoolProtocol, capabilities: Capabilities) -> SessionPersistence | None:
    may_read = protocol in (PoolProtocol.HTTP, PoolProtocol.PROXY, PoolProtocol.PROXYV2)
    kinds = {
        SessionPersistenceType.SOURCE_IP,
        *(_BY_COOKIE if may_read else ()),
    } & capabilities.session_persistence_types
    kind = draw(st.sampled_from([None, *sorted(kinds)]))
    if kind is None:
        return None
    named = kind is SessionPersistenceType.APP_COOKIE
    return SessionPersistence(type=kind, cookie_name=draw(_COOKIE_NAMES) if named else None)


def fitting_pools(protocol: ListenerProtocol, pools: list[Pool]) -> list[Pool]:
    """Pools that a listener may have, and whose persistence it can carry."""
    return [
        pool
        for pool in pools
        if pool.protocol in POOL_PROTOCOLS_OF_LISTENER[protocol]
        and (
            protocol in _READS_REQUESTS
            or pool.session_persistence is None
            or pool.session_persistence.type not in _BY_COOKIE
        )
    ]


@st.composite
def listeners(draw: st.DrawFn, index: int, pools: list[Pool], capabilities: Capabilities) -> Listener:
    left_out = frozenset() if "pool_tls" in capabilities.features else {ListenerProtocol.TERMINATED_HTTPS}
    protocol = draw(st.sampled_from(sorted(capabilities.listener_protocols - left_out)))
    fitting = fitting_pools(protocol, pools)
    headers = INSERT_HEADERS_OF_LISTENER.get(protocol, frozenset())
    names = sorted(name for name in headers if insert_header_feature(name) in capabilities.features)
    cidrs = st.lists(st.ip_addresses().map(lambda x: f"{x}/{x.max_prefixlen}"), max_size=120).map(tuple)
    may_restrict = "allowed_cidrs" in capabilities.features and protocol is not ListenerProtocol.UDP
    default = draw(st.none() | st.sampled_from(fitting)) if fitting else None
    listener = a_listener(
        index,
        protocol,
        draw(_PORTS),
        None,
        connection_limit=draw(st.sampled_from([None, -1, 0, 1, 2**31 - 1, 2**40])),
        timeout_client_data=draw(_TIMEOUTS),
        timeout_member_connect=draw(_TIMEOUTS),
        timeout_member_data=draw(_TIMEOUTS),
        timeout_tcp_inspect=0 if protocol in DATAGRAM_LISTENERS else draw(_TIMEOUTS),
        admin_state_up=draw(st.booleans()),
        allowed_cidrs=draw(st.just(()) | cidrs) if may_restrict else (),
        insert_headers={name: draw(st.sampled_from(["true", "True", "false", "x"])) for name in names},
    )
    if protocol is ListenerProtocol.TERMINATED_HTTPS:
        listener = replace(listener, **draw(ends_of_tls()))
    return replace(listener, default_pool_id=None if default is None else default.id)


_ODD = "'\\\"$#%&{}[]()|;,=+-~!*^@:._?"
_WORD = st.sampled_from(
    ["a", "ab", "b", "-f", "-i", "--", "-m", "%[src]", "$HOME", "${PATH}", "\\t", "#", "'", "a,b", "a.b"]
)
PATH_PIECE = st.one_of(_WORD, st.text("ab./" + _ODD.replace("?", "").replace("#", ""), min_size=1, max_size=4))
PIECE = st.one_of(_WORD, st.text("ab. " + _ODD, min_size=1, max_size=4))
_REGEX_PIECES = (
    *("a", "b", ".", "[ab]", "[^a]", "(a|b)", "(?:ab)+", "a*?", r"\.", r"\d", r"\S", "a{1,2}", "(?=a)", "x?", "'", "#"),
    *('"', "%", r"\$", ",", "[[]", r"[\]]", r"\x61", "(?P<n>b)(?P=n)", "(?i:A)", "[a-c]", "[-a]", "&", " ", "=", "/"),
)
_REGEX = st.lists(st.sampled_from(_REGEX_PIECES), min_size=1, max_size=4).map("".join)
KEYS = st.sampled_from(["X-A", "x-b", "a'b", "o|k", "d,e"])
COOKIES = st.sampled_from(["c", "C", "s-id", "a'$"])


@st.composite
def l7_rules(draw: st.DrawFn, rule: int, policy: int) -> L7Rule:
    kind = draw(st.sampled_from([Type.PATH, Type.HOST_NAME, Type.FILE_TYPE, Type.HEADER, Type.COOKIE]))
    compares = [Compare.EQUAL_TO, Compare.REGEX] if kind is Type.FILE_TYPE else list(Compare)
    compare = draw(st.sampled_from(compares))
    if compare is Compare.REGEX:
        begin, end = draw(st.sampled_from(["", "^"])), draw(st.sampled_from(["", "$"]))
        value = f"{begin}{draw(_REGEX)}{end}"
    else:
        value = draw(PATH_PIECE if kind in (Type.PATH, Type.FILE_TYPE) else PIECE)
        if kind is Type.PATH and draw(st.booleans()):
            value = f"/{value}"
        if " " in value:
            value = f'"{value}"'
    key = draw(KEYS) if kind is Type.HEADER else draw(COOKIES) if kind is Type.COOKIE else None
    made = a_rule(
        rule,
        policy,
        kind,
        compare,
        value,
        key=key,
        invert=draw(st.integers(0, 3)) == 0,
        admin_state_up=draw(st.integers(0, 5)) > 0,
    )
    try:
        validate_l7_rule(made)
    except Invalid:
        assume(False)
    return made


_URLS = st.text("ab/?=&" + _ODD, max_size=20).map(lambda rest: f"http://there.example/{rest}")


@st.composite
def l7_policies(
    draw: st.DrawFn, policy: int, listener: ListenerId, pools: list[PoolId]
) -> tuple[L7Policy, list[L7Rule]]:
    """A policy at a position of its number, and its rules; each could be made over the API."""
    action = draw(st.sampled_from(list(Action)))
    redirects = action in (Action.REDIRECT_TO_URL, Action.REDIRECT_PREFIX)
    made = a_policy(
        policy,
        action=action,
        position=policy,
        redirect_pool_id=draw(st.sampled_from(pools)) if action is Action.REDIRECT_TO_POOL else None,
        redirect_url=draw(_URLS) if action is Action.REDIRECT_TO_URL else None,
        redirect_prefix=draw(_URLS) if action is Action.REDIRECT_PREFIX else None,
        redirect_http_code=draw(st.sampled_from([None, 301, 302, 303, 307, 308])) if redirects else None,
        admin_state_up=draw(st.integers(0, 5)) > 0,
    )
    rules = [draw(l7_rules(policy * 10 + i, policy)) for i in range(draw(st.integers(0, 3)))]
    return replace(made, listener_id=listener), rules


@st.composite
def trees(draw: st.DrawFn, capabilities: Capabilities = CAPABILITIES) -> LoadBalancerTree:
    pools = [
        a_pool(
            20 + index,
            draw(st.sampled_from(sorted(capabilities.pool_protocols))),
            draw(st.sampled_from(sorted(capabilities.lb_algorithms))),
            admin_state_up=draw(st.integers(0, 4)) > 0,
            **draw(st.just({}) | tls_to_members() if "pool_tls" in capabilities.features else st.just({})),
        )
        for index in range(draw(st.integers(0, 3)))
    ]
    # Nobody speaks TLS to members in datagrams, which the API says.
    pools = [replace(x, tls_enabled=x.tls_enabled and x.protocol not in DATAGRAM_POOLS) for x in pools]
    pools = [replace(pool, session_persistence=draw(persistences(pool.protocol, capabilities))) for pool in pools]
    rows: list[Member] = []
    checks: list[HealthMonitor] = []
    for number, pool in enumerate(pools):
        own = [draw(members(20 + number, index)) for index in range(draw(st.integers(0, 4)))]
        kinds = capabilities.health_monitor_types & HEALTH_MONITOR_TYPES_OF_POOL[pool.protocol]
        if draw(st.booleans()) and kinds:
            checks.append(draw(monitors(20 + number, kinds)))
            if checks[-1].type is HealthMonitorType.PING:
                own = [replace(row, monitor_address=None) for row in own]
        rows += own
    fronts = [draw(listeners(10 + index, pools, capabilities)) for index in range(draw(st.integers(0, 3)))]
    fronts = list({front.protocol_port: front for front in fronts}.values())
    l7 = [
        draw(l7_policies(50 + 10 * number + turn, front.id, targets))
        for number, front in enumerate(fronts)
        if front.protocol in _READS_REQUESTS and capabilities.features >= _EVERY_L7
        if (targets := [x.id for x in fitting_pools(front.protocol, pools)])
        for turn in range(draw(st.integers(0, 3)))
    ]
    return a_tree(
        a_load_balancer(draw(_ADDRESSES)),
        listeners=fronts,
        pools=pools,
        members=rows,
        monitors=checks,
        policies=[policy for policy, _ in l7],
        rules=[rule for _, own in l7 for rule in own],
    )


@st.composite
def member_sets(draw: st.DrawFn, address: str, port: int) -> list[Member]:
    """Rows of up to six members, all answered by one real server; a row's fixed fields depend on its id alone, as they
    cannot be changed over the API."""
    chosen = draw(st.sets(st.integers(1, 6), max_size=6))
    return [
        replace(
            a_member(30 + index, address=address, port=port, backup=index == 6),
            id=MemberId(a_member(30 + index).id),
            weight=draw(st.sampled_from([0, 1, 3, 256])),
            admin_state_up=draw(st.booleans()),
            monitor_port=draw(st.none() | st.just(port)),
        )
        for index in sorted(chosen)
    ]
