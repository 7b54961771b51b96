"""The closed sets of the API. Every value is spelled as on the wire (contract/resources.yaml, behaviours.yaml)."""

from __future__ import annotations

from enum import StrEnum


class Kind(StrEnum):
    """The kinds of object that the API knows, in our own words (docs/glossary.md). The first seven make up a tree."""

    LOAD_BALANCER = "load_balancer"
    LISTENER = "listener"
    POOL = "pool"
    MEMBER = "member"
    HEALTH_MONITOR = "health_monitor"
    L7_POLICY = "l7_policy"
    L7_RULE = "l7_rule"

    AMPHORA = "amphora"
    QUOTA = "quota"
    FLAVOR = "flavor"
    FLAVOR_PROFILE = "flavor_profile"
    AVAILABILITY_ZONE = "availability_zone"
    AVAILABILITY_ZONE_PROFILE = "availability_zone_profile"


class ProvisioningStatus(StrEnum):
    """A report of how far a wish has been carried out; never a lock (DESIGN section 6, rule 1)."""

    PENDING_CREATE = "PENDING_CREATE"
    PENDING_UPDATE = "PENDING_UPDATE"
    PENDING_DELETE = "PENDING_DELETE"
    ACTIVE = "ACTIVE"
    ERROR = "ERROR"
    DELETED = "DELETED"


class OperatingStatus(StrEnum):
    """What the data plane was last seen doing."""

    ONLINE = "ONLINE"
    OFFLINE = "OFFLINE"
    DEGRADED = "DEGRADED"
    ERROR = "ERROR"
    DRAINING = "DRAINING"
    NO_MONITOR = "NO_MONITOR"


class AmphoraStatus(StrEnum):
    """Life of an amphora row (behaviours.yaml states.provisioning_status.amphora)."""

    PENDING_CREATE = "PENDING_CREATE"
    BOOTING = "BOOTING"
    READY = "READY"
    ALLOCATED = "ALLOCATED"
    PENDING_DELETE = "PENDING_DELETE"
    DELETED = "DELETED"
    ERROR = "ERROR"
    FAILOVER_STOPPED = "FAILOVER_STOPPED"


class VnicType(StrEnum):
    """What a port is on its host: a virtual device, or a virtual function of the card (SR-IOV)."""

    NORMAL = "normal"
    DIRECT = "direct"


class AmphoraRole(StrEnum):
    STANDALONE = "STANDALONE"
    MASTER = "MASTER"
    BACKUP = "BACKUP"


class Topology(StrEnum):
    SINGLE = "SINGLE"
    ACTIVE_STANDBY = "ACTIVE_STANDBY"


class ListenerProtocol(StrEnum):
    HTTP = "HTTP"
    HTTPS = "HTTPS"
    PROMETHEUS = "PROMETHEUS"
    SCTP = "SCTP"
    TCP = "TCP"
    TERMINATED_HTTPS = "TERMINATED_HTTPS"
    UDP = "UDP"


class PoolProtocol(StrEnum):
    HTTP = "HTTP"
    HTTPS = "HTTPS"
    PROXY = "PROXY"
    PROXYV2 = "PROXYV2"
    SCTP = "SCTP"
    TCP = "TCP"
    UDP = "UDP"


class LbAlgorithm(StrEnum):
    LEAST_CONNECTIONS = "LEAST_CONNECTIONS"
    ROUND_ROBIN = "ROUND_ROBIN"
    SOURCE_IP = "SOURCE_IP"
    SOURCE_IP_PORT = "SOURCE_IP_PORT"


class SessionPersistenceType(StrEnum):
    APP_COOKIE = "APP_COOKIE"
    HTTP_COOKIE = "HTTP_COOKIE"
    SOURCE_IP = "SOURCE_IP"


class HealthMonitorType(StrEnum):
    HTTP = "HTTP"
    HTTPS = "HTTPS"
    PING = "PING"
    SCTP = "SCTP"
    TCP = "TCP"
    TLS_HELLO = "TLS-HELLO"
    UDP_CONNECT = "UDP-CONNECT"


class HttpMethod(StrEnum):
    CONNECT = "CONNECT"
    DELETE = "DELETE"
    GET = "GET"
    HEAD = "HEAD"
    OPTIONS = "OPTIONS"
    PATCH = "PATCH"
    POST = "POST"
    PUT = "PUT"
    TRACE = "TRACE"


class ClientAuthentication(StrEnum):
    NONE = "NONE"
    OPTIONAL = "OPTIONAL"
    MANDATORY = "MANDATORY"


class L7PolicyAction(StrEnum):
    REDIRECT_PREFIX = "REDIRECT_PREFIX"
    REDIRECT_TO_POOL = "REDIRECT_TO_POOL"
    REDIRECT_TO_URL = "REDIRECT_TO_URL"
    REJECT = "REJECT"


class L7RuleType(StrEnum):
    COOKIE = "COOKIE"
    FILE_TYPE = "FILE_TYPE"
    HEADER = "HEADER"
    HOST_NAME = "HOST_NAME"
    PATH = "PATH"
    SSL_CONN_HAS_CERT = "SSL_CONN_HAS_CERT"
    SSL_DN_FIELD = "SSL_DN_FIELD"
    SSL_VERIFY_RESULT = "SSL_VERIFY_RESULT"


class L7RuleCompareType(StrEnum):
    CONTAINS = "CONTAINS"
    ENDS_WITH = "ENDS_WITH"
    EQUAL_TO = "EQUAL_TO"
    REGEX = "REGEX"
    STARTS_WITH = "STARTS_WITH"


class FaultPhase(StrEnum):
    """Where a converge stopped: the step that could not be done."""

    NETWORK = "network"
    COMPUTE = "compute"
    SECRET = "secret"  # noqa: S105 - a phase, not a password
    RENDER = "render"
    APPLY = "apply"
    RETIRE = "retire"
    INTERNAL = "internal"

    @classmethod
    def _missing_(cls, _word: object) -> FaultPhase:
        """A newer version's phase. It is told and nothing hangs on it, so a fault of that version can be read by this one."""
        return cls.INTERNAL
