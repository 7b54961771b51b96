"""Rows that no traffic shows: those without an effect on it, and those that are left, which the API refuses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.acceptance.traffic.rows import RESOURCES

_LABEL = "a word for people"
_OWNER = "whose it is, which decides who may see it"

WITHOUT_EFFECT: dict[str, str] = {
    **{f"{resource}.name": _LABEL for resource in RESOURCES if resource != "l7rule"},
    **{f"{resource}.description": _LABEL for resource in ("loadbalancer", "listener", "pool", "l7policy")},
    **{f"{resource}.tags": _LABEL for resource in RESOURCES},
    **{f"{resource}.{name}": _OWNER for resource in RESOURCES for name in ("project_id", "tenant_id")},
    "loadbalancer.availability_zone": "where it may have its addresses, which is judged when it is made",
    "member.subnet_id": "by which network a member is reached; on loopback by each",
    "member.request_sriov[false]": "what a member has anyway",
}

MEMBER: dict[str, Any] = {"address": "127.84.0.2", "protocol_port": 9}


@dataclass(frozen=True)
class Refusal:
    """Why a row is left, and the create that the API refuses with `status`, naming `field`.

    `collection` is below the load balancer of the test: a listener, a pool, a monitor or member of a pool with `pool`."""

    reason: str
    collection: str
    fields: dict[str, Any]
    field: str
    status: int = 501
    pool: str = "HTTP"


_NO_SCTP = "SCTP needs a module of the kernel, and an amphora with a kernel of its own"
_NO_SSL_3 = "OpenSSL has no SSLv3 any more"
_UUID = "10c0bac0-0000-4000-8000-00000000000a"

IN_A_MACHINE: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("listener.protocol[SCTP]", "pool.protocol[SCTP]", "healthmonitor.type[SCTP]"),
        ("test_sctp_is_served_and_its_members_are_examined",),
    ),
    "pool.session_persistence.persistence_timeout": (
        "test_a_client_stays_with_its_member",
        "test_a_client_may_go_elsewhere_when_its_time_is_over",
    ),
}
"""Rows that are left here, and proved by the driver's traffic through a virtual machine: tests of MACHINE_TESTS."""

MACHINE_TESTS = "tests/integration/places/test_machine_serves.py"

LEFT: dict[str, Refusal] = {
    "loadbalancer.vip_port_id": Refusal(
        "neither loopback nor bridge has ports that a user made; they are Neutron's",
        "loadbalancers",
        {"vip_port_id": _UUID},
        "vip_port_id",
        400,
    ),
    "loadbalancer.vip_qos_policy_id": Refusal(
        "needs Neutron", "loadbalancers", {"vip_qos_policy_id": _UUID}, "vip_qos_policy_id"
    ),
    "loadbalancer.vip_sg_ids": Refusal("needs Neutron", "loadbalancers", {"vip_sg_ids": [_UUID]}, "vip_sg_ids"),
    "listener.protocol[SCTP]": Refusal(_NO_SCTP, "listeners", {"protocol": "SCTP", "protocol_port": 7}, "protocol"),
    "listener.tls_versions[SSLv3]": Refusal(
        _NO_SSL_3,
        "listeners",
        {"protocol": "TERMINATED_HTTPS", "protocol_port": 7, "tls_versions": ["SSLv3"]},
        "tls_versions",
    ),
    "pool.protocol[SCTP]": Refusal(_NO_SCTP, "pools", {"protocol": "SCTP"}, "protocol"),
    "pool.tls_versions[SSLv3]": Refusal(
        _NO_SSL_3, "pools", {"protocol": "HTTP", "tls_enabled": True, "tls_versions": ["SSLv3"]}, "tls_versions"
    ),
    "pool.session_persistence.persistence_timeout": Refusal(
        "of UDP alone, and nginx forgets no client by time",
        "pools",
        {"protocol": "UDP", "session_persistence": {"type": "SOURCE_IP", "persistence_timeout": 60}},
        "persistence_timeout",
    ),
    "healthmonitor.type[SCTP]": Refusal(_NO_SCTP, "healthmonitors", {"type": "SCTP"}, "type", pool="UDP"),
    "member.request_sriov[true]": Refusal(
        "needs a flavor and hardware for it", "members", {**MEMBER, "request_sriov": True}, "request_sriov", 400
    ),
}
