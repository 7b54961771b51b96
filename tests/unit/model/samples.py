"""A load balancer with one of everything, in the state that an installation rests in, to be varied by tests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec.structs import replace

from frontinus.model.enums import (
    HealthMonitorType,
    HttpMethod,
    L7PolicyAction,
    L7RuleCompareType,
    L7RuleType,
    LbAlgorithm,
    ListenerProtocol,
    OperatingStatus,
    PoolProtocol,
    ProvisioningStatus,
)
from frontinus.model.ids import (
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
from frontinus.model.tree import (
    HealthMonitor,
    L7Policy,
    L7Rule,
    Listener,
    LoadBalancer,
    LoadBalancerTree,
    Member,
    Pool,
    TreeChild,
    Vip,
)

BORN = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
LATER = BORN + timedelta(minutes=5)
LOAD_BALANCER_ID = LoadBalancerId("lb")

_COMMON: dict[str, Any] = {
    "load_balancer_id": LOAD_BALANCER_ID,
    "project_id": ProjectId("p"),
    "created_at": BORN,
    "provisioning_status": ProvisioningStatus.ACTIVE,
    "operating_status": OperatingStatus.ONLINE,
    "changed_generation": 1,
}

LOAD_BALANCER = LoadBalancer(
    id=LOAD_BALANCER_ID,
    project_id=ProjectId("p"),
    vip=Vip(
        address="198.51.100.1", subnet_id=SubnetId("subnet"), network_id=NetworkId("network"), port_id=PortId("port")
    ),
    provisioning_status=ProvisioningStatus.ACTIVE,
    operating_status=OperatingStatus.ONLINE,
    generation=1,
    applied_generation=1,
    created_at=BORN,
)


def listener(**values: Any) -> Listener:
    given = {"id": "listener", "protocol": ListenerProtocol.HTTP, "protocol_port": 80, **_COMMON, **values}
    return Listener(**{**given, "id": ListenerId(given["id"])})


def pool(**values: Any) -> Pool:
    given = {
        "id": "pool",
        "protocol": PoolProtocol.HTTP,
        "lb_algorithm": LbAlgorithm.ROUND_ROBIN,
        **_COMMON,
        **values,
    }
    return Pool(**{**given, "id": PoolId(given["id"])})


def member(**values: Any) -> Member:
    given = {
        "id": "member",
        "pool_id": PoolId("pool"),
        "address": "192.0.2.1",
        "protocol_port": 80,
        **_COMMON,
        **values,
    }
    return Member(**{**given, "id": MemberId(given["id"])})


def health_monitor(**values: Any) -> HealthMonitor:
    given = {
        "id": "monitor",
        "pool_id": PoolId("pool"),
        "type": HealthMonitorType.HTTP,
        "delay": 3,
        "timeout": 2,
        "max_retries": 3,
        **_COMMON,
        **values,
    }
    if given["type"] in (HealthMonitorType.HTTP, HealthMonitorType.HTTPS):
        given = {"http_method": HttpMethod.GET, "url_path": "/", "expected_codes": "200", **given}
    return HealthMonitor(**{**given, "id": HealthMonitorId(given["id"])})


def l7_policy(**values: Any) -> L7Policy:
    given = {
        "id": "policy",
        "listener_id": ListenerId("listener"),
        "action": L7PolicyAction.REJECT,
        "position": 1,
        **_COMMON,
        **values,
    }
    return L7Policy(**{**given, "id": L7PolicyId(given["id"])})


def l7_rule(**values: Any) -> L7Rule:
    given = {
        "id": "rule",
        "l7_policy_id": L7PolicyId("policy"),
        "type": L7RuleType.PATH,
        "compare_type": L7RuleCompareType.STARTS_WITH,
        "value": "/x",
        **_COMMON,
        **values,
    }
    return L7Rule(**{**given, "id": L7RuleId(given["id"])})


def tree(*children: TreeChild, **load_balancer: Any) -> LoadBalancerTree:
    """A tree of exactly these children."""

    def of(kind: type[Any]) -> tuple[Any, ...]:
        return tuple(x for x in children if isinstance(x, kind))

    return LoadBalancerTree(
        load_balancer=replace(LOAD_BALANCER, **load_balancer),
        listeners=of(Listener),
        pools=of(Pool),
        members=of(Member),
        health_monitors=of(HealthMonitor),
        l7_policies=of(L7Policy),
        l7_rules=of(L7Rule),
    )


def one_of_everything() -> LoadBalancerTree:
    """A listener with a default pool (member, monitor) and a policy with a rule."""
    return tree(listener(default_pool_id=PoolId("pool")), pool(), member(), health_monitor(), l7_policy(), l7_rule())
