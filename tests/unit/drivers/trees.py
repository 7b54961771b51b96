"""Trees for tests, with as few words as possible. Ids are small numbers written as UUIDs."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from frontinus.model.enums import (
    HealthMonitorType,
    L7PolicyAction,
    L7RuleCompareType,
    L7RuleType,
    LbAlgorithm,
    ListenerProtocol,
    PoolProtocol,
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
from frontinus.model.tree import (
    Amphora,
    HealthMonitor,
    L7Policy,
    L7Rule,
    Listener,
    LoadBalancer,
    LoadBalancerTree,
    Member,
    Pool,
    Vip,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
PROJECT = ProjectId("a-project")
LOAD_BALANCER = LoadBalancerId(str(UUID(int=1)))
AMPHORA = AmphoraId(str(UUID(int=2)))


def number(value: int) -> str:
    """An id that a reader recognises: 10 becomes 00000000-0000-0000-0000-00000000000a."""
    return str(UUID(int=value))


def a_load_balancer(address: str = "127.0.0.1", **fields: Any) -> LoadBalancer:
    vip = Vip(address=address, subnet_id=SubnetId("s"), network_id=NetworkId("n"), port_id=PortId("p"))
    return LoadBalancer(id=LOAD_BALANCER, project_id=PROJECT, vip=vip, created_at=NOW, **fields)


def a_listener(
    listener: int = 10,
    protocol: ListenerProtocol = ListenerProtocol.HTTP,
    port: int = 80,
    pool: int | None = 20,
    **fields: Any,
) -> Listener:
    return Listener(
        id=ListenerId(number(listener)),
        protocol=protocol,
        protocol_port=port,
        default_pool_id=None if pool is None else PoolId(number(pool)),
        **_common(fields),
    )


def a_pool(
    pool: int = 20,
    protocol: PoolProtocol = PoolProtocol.HTTP,
    lb_algorithm: LbAlgorithm = LbAlgorithm.ROUND_ROBIN,
    **fields: Any,
) -> Pool:
    return Pool(id=PoolId(number(pool)), protocol=protocol, lb_algorithm=lb_algorithm, **_common(fields))


def a_member(member: int = 30, pool: int = 20, address: str = "127.0.0.1", port: int = 8080, **fields: Any) -> Member:
    return Member(
        id=MemberId(number(member)),
        pool_id=PoolId(number(pool)),
        address=address,
        protocol_port=port,
        **_common(fields),
    )


def a_monitor(
    monitor: int = 40,
    pool: int = 20,
    type: HealthMonitorType = HealthMonitorType.HTTP,  # noqa: A002 - the model's word
    **fields: Any,
) -> HealthMonitor:
    timing = {"delay": 1, "timeout": 1, "max_retries": 2, "max_retries_down": 2}
    return HealthMonitor(
        id=HealthMonitorId(number(monitor)), pool_id=PoolId(number(pool)), type=type, **_common({**timing, **fields})
    )


def a_policy(
    policy: int = 50, listener: int = 10, action: L7PolicyAction = L7PolicyAction.REJECT, **fields: Any
) -> L7Policy:
    """`position` follows the id unless it is said."""
    return L7Policy(
        id=L7PolicyId(number(policy)),
        listener_id=ListenerId(number(listener)),
        action=action,
        **_common({"position": policy, **fields}),
    )


def a_rule(
    rule: int = 60,
    policy: int = 50,
    type: L7RuleType = L7RuleType.PATH,  # noqa: A002 - the model's word
    compare_type: L7RuleCompareType = L7RuleCompareType.EQUAL_TO,
    value: str = "/here",
    **fields: Any,
) -> L7Rule:
    return L7Rule(
        id=L7RuleId(number(rule)),
        l7_policy_id=L7PolicyId(number(policy)),
        type=type,
        compare_type=compare_type,
        value=value,
        **_common(fields),
    )


def a_tree(
    load_balancer: LoadBalancer | None = None,
    *,
    listeners: Iterable[Listener] = (),
    pools: Iterable[Pool] = (),
    members: Iterable[Member] = (),
    monitors: Iterable[HealthMonitor] = (),
    policies: Iterable[L7Policy] = (),
    rules: Iterable[L7Rule] = (),
) -> LoadBalancerTree:
    return LoadBalancerTree(
        load_balancer=load_balancer or a_load_balancer(),
        listeners=tuple(listeners),
        pools=tuple(pools),
        members=tuple(members),
        health_monitors=tuple(monitors),
        l7_policies=tuple(policies),
        l7_rules=tuple(rules),
    )


def an_amphora(management_address: str | None = "127.0.0.1", **fields: Any) -> Amphora:
    return Amphora(
        id=AMPHORA,
        load_balancer_id=LOAD_BALANCER,
        project_id=PROJECT,
        management_address=management_address,
        **{"created_at": NOW, **fields},
    )


def _common(fields: dict[str, Any]) -> dict[str, Any]:
    return {"load_balancer_id": LOAD_BALANCER, "project_id": PROJECT, "created_at": NOW, **fields}
