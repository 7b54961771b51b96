"""What goes with what, as tables. Source of every row: contract/resources.yaml, matrices.

Pure data. validation.py applies it; api/ documents it."""

from __future__ import annotations

from frontinus.model.enums import (
    AmphoraRole,
    HealthMonitorType,
    L7RuleCompareType,
    L7RuleType,
    LbAlgorithm,
    ListenerProtocol,
    PoolProtocol,
    SessionPersistenceType,
)

_L, _P, _H, _R, _C = ListenerProtocol, PoolProtocol, HealthMonitorType, L7RuleType, L7RuleCompareType

POOL_PROTOCOLS_OF_LISTENER: dict[ListenerProtocol, frozenset[PoolProtocol]] = {
    _L.TCP: frozenset({_P.HTTP, _P.HTTPS, _P.PROXY, _P.PROXYV2, _P.TCP}),
    _L.HTTP: frozenset({_P.HTTP, _P.PROXY, _P.PROXYV2}),
    _L.HTTPS: frozenset({_P.HTTPS, _P.PROXY, _P.PROXYV2, _P.TCP}),
    _L.TERMINATED_HTTPS: frozenset({_P.HTTP, _P.PROXY, _P.PROXYV2}),
    _L.UDP: frozenset({_P.UDP}),
    _L.SCTP: frozenset({_P.SCTP}),
    _L.PROMETHEUS: frozenset(),
}

_TCP_POOL_MONITORS = frozenset({_H.HTTP, _H.HTTPS, _H.PING, _H.TCP, _H.TLS_HELLO})
_DATAGRAM_POOL_MONITORS = frozenset({_H.HTTP, _H.SCTP, _H.TCP, _H.UDP_CONNECT})

HEALTH_MONITOR_TYPES_OF_POOL: dict[PoolProtocol, frozenset[HealthMonitorType]] = {
    _P.HTTP: _TCP_POOL_MONITORS,
    _P.HTTPS: _TCP_POOL_MONITORS,
    _P.PROXY: _TCP_POOL_MONITORS,
    _P.PROXYV2: _TCP_POOL_MONITORS,
    _P.TCP: _TCP_POOL_MONITORS,
    _P.UDP: _DATAGRAM_POOL_MONITORS,
    _P.SCTP: _DATAGRAM_POOL_MONITORS,
}

HTTP_MONITOR_TYPES: frozenset[HealthMonitorType] = frozenset({_H.HTTP, _H.HTTPS})
"""Only these have http_method, url_path and expected_codes."""

DATAGRAM_POOLS: frozenset[PoolProtocol] = frozenset({_P.UDP, _P.SCTP})

DATAGRAM_LISTENERS: frozenset[ListenerProtocol] = frozenset({_L.UDP, _L.SCTP})

TLS_LISTENERS: frozenset[ListenerProtocol] = frozenset({_L.TERMINATED_HTTPS, _L.PROMETHEUS})

L4_FAMILY: dict[ListenerProtocol, str] = {
    _L.TCP: "TCP",
    _L.HTTP: "TCP",
    _L.HTTPS: "TCP",
    _L.TERMINATED_HTTPS: "TCP",
    _L.PROMETHEUS: "TCP",
    _L.UDP: "UDP",
    _L.SCTP: "SCTP",
}
"""Listeners of one load balancer may share a port number across families, not within one."""

_FORWARDING_HEADERS = (
    "X-Forwarded-For",
    "X-Forwarded-Port",
    "X-Forwarded-Proto",
    "X-Forwarded-IP",
    "X-Client-IP",
    "X-Real-IP",
)
_TLS_HEADERS = (
    "X-SSL-Client-Verify",
    "X-SSL-Client-Has-Cert",
    "X-SSL-Client-DN",
    "X-SSL-Client-CN",
    "X-SSL-Issuer",
    "X-SSL-Client-SHA1",
    "X-SSL-Client-Not-Before",
    "X-SSL-Client-Not-After",
)
INSERT_HEADERS_OF_LISTENER: dict[ListenerProtocol, frozenset[str]] = {
    _L.HTTP: frozenset(_FORWARDING_HEADERS),
    _L.TERMINATED_HTTPS: frozenset(_FORWARDING_HEADERS + _TLS_HEADERS),
}

DATAGRAM_PERSISTENCE: frozenset[SessionPersistenceType] = frozenset({SessionPersistenceType.SOURCE_IP})

_TEXT_COMPARISONS = frozenset({_C.REGEX, _C.STARTS_WITH, _C.ENDS_WITH, _C.CONTAINS, _C.EQUAL_TO})
COMPARISONS_OF_L7_RULE: dict[L7RuleType, frozenset[L7RuleCompareType]] = {
    _R.COOKIE: _TEXT_COMPARISONS,
    _R.HEADER: _TEXT_COMPARISONS,
    _R.HOST_NAME: _TEXT_COMPARISONS,
    _R.PATH: _TEXT_COMPARISONS,
    _R.SSL_DN_FIELD: _TEXT_COMPARISONS,
    _R.FILE_TYPE: frozenset({_C.REGEX, _C.EQUAL_TO}),
    _R.SSL_CONN_HAS_CERT: frozenset({_C.EQUAL_TO}),
    _R.SSL_VERIFY_RESULT: frozenset({_C.EQUAL_TO}),
}

L7_RULE_KEY_REQUIRED: frozenset[L7RuleType] = frozenset({_R.COOKIE, _R.HEADER, _R.SSL_DN_FIELD})
L7_RULE_KEY_FORBIDDEN: frozenset[L7RuleType] = frozenset({_R.SSL_CONN_HAS_CERT, _R.SSL_VERIFY_RESULT})

REDIRECT_HTTP_CODES: frozenset[int] = frozenset({301, 302, 303, 307, 308})
MAX_L7_RULES_PER_POLICY = 50
MAX_TIMEOUT_MS = 2_073_600_000
MAX_PORT = 65_535
MAX_RETRIES = 10
MAX_TEXT = 255
"""Characters of a name, a description, a tag, a URL, a reference to a secret."""
MAX_URL_PATH = 2_048
MAX_TLS_CIPHERS = 2_048
MAX_INTEGER = 2_147_483_647
"""Where the contract sets no upper bound: what every database keeps in an integer column."""
HTTP_VERSIONS: tuple[float, ...] = (1.0, 1.1)
"""What a health monitor may speak."""
MAX_WEIGHT = 256
UDP_CONNECT_MIN_DELAY_S = 3
RESERVED_MEMBER_ADDRESSES: tuple[str, ...] = ("169.254.169.254",)

TLS_VERSIONS: tuple[str, ...] = ("SSLv3", "TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")
TLS_VERSIONS_DEFAULT: tuple[str, ...] = ("TLSv1.2", "TLSv1.3")
ALPN_PROTOCOLS: tuple[str, ...] = ("h2", "http/1.1", "http/1.0")
TLS_CIPHERS_DEFAULT = (
    "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256:ECDHE-ECDSA-AES128-GCM-SHA256:"
    "ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
    "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305:DHE-RSA-AES128-GCM-SHA256:DHE-RSA-AES256-GCM-SHA384:"
    "DHE-RSA-CHACHA20-POLY1305"
)

ALGORITHMS: frozenset[LbAlgorithm] = frozenset(LbAlgorithm)

VRRP_ID = 1
"""Of every pair: adverts go from one address to another, so that pairs on one network never hear each other."""

LVS_SYNC_PORT = 8848
"""Where the kernel of one amphora of a pair tells the other of its sessions of datagrams (Linux' own default)."""

VRRP_PRIORITY: dict[AmphoraRole, int] = {AmphoraRole.MASTER: 100, AmphoraRole.BACKUP: 90}
"""Who of a pair has the address first, as Octavia tells it; an amphora that stands alone has no priority. What a driver says
on the wire of VRRP may be other numbers in the same order."""
