"""The create of a whole load balancer in one call: nested listeners, pools, members, monitors, policies and rules.

Pure. Pools are defined once (at the top, as a default pool or as a redirect target) and may be named elsewhere; the
order is that of contract/behaviours.yaml nested_create.processing_order. Raises Invalid. Judged by model/validation.py
like every other tree."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from msgspec.structs import replace

from frontinus.api import build
from frontinus.api.requests import Asked
from frontinus.model.errors import Invalid
from frontinus.model.house_rules import Defaults
from frontinus.model.ids import PoolId
from frontinus.model.tree import (
    HealthMonitor,
    L7Policy,
    L7Rule,
    Listener,
    LoadBalancer,
    LoadBalancerTree,
    Member,
    Pool,
)

FIRST_GENERATION = 1


def new_tree(
    asked: Asked, load_balancer: LoadBalancer, now: datetime, defaults: Defaults, *, sriov_members: bool
) -> LoadBalancerTree:
    """The tree that was asked for, below a load balancer that is already built. `sriov_members`: build.new_member."""
    pools: list[Pool] = []
    members: list[Member] = []
    monitors: list[HealthMonitor] = []
    by_name: dict[str, Pool] = {}
    for definition in _pool_definitions(asked):
        pool = replace(
            build.new_pool(definition, load_balancer, now, defaults.pool_tls), changed_generation=FIRST_GENERATION
        )
        if pool.name and pool.name in by_name:
            raise Invalid(f"{definition.path}.name", f"the pool {pool.name!r} is defined more than once")
        by_name[pool.name] = pool
        pools.append(pool)
        members += [
            replace(build.new_member(x, pool, now, sriov=sriov_members), changed_generation=FIRST_GENERATION)
            for x in definition.extra["members"]
        ]
        monitor = definition.extra["health_monitor"]
        if monitor is not None:
            monitors.append(replace(build.new_health_monitor(monitor, pool, now), changed_generation=FIRST_GENERATION))
    listeners: list[Listener] = []
    policies: list[L7Policy] = []
    rules: list[L7Rule] = []
    for definition in asked.extra["listeners"]:
        listener = build.new_listener(definition, load_balancer, now, defaults.listener_tls)
        default_pool = definition.extra["default_pool"]
        if default_pool is not None:
            listener = replace(listener, default_pool_id=_pool_named(default_pool, by_name))
        listeners.append(replace(listener, changed_generation=FIRST_GENERATION))
        own: list[L7Policy] = []
        for policy_definition in definition.extra["l7_policies"]:
            target = policy_definition.extra["redirect_pool"]
            policy = build.new_l7_policy(
                policy_definition, listener, now, None if target is None else _pool_named(target, by_name)
            )
            own.insert(policy.position - 1, policy)
            rules += [
                replace(build.new_l7_rule(x, policy, now), changed_generation=FIRST_GENERATION)
                for x in policy_definition.extra["l7_rules"]
            ]
        policies += [
            replace(x, position=position, changed_generation=FIRST_GENERATION) for position, x in enumerate(own, 1)
        ]
    return LoadBalancerTree(
        load_balancer=load_balancer,
        listeners=tuple(listeners),
        pools=tuple(pools),
        members=tuple(members),
        health_monitors=tuple(monitors),
        l7_policies=tuple(policies),
        l7_rules=tuple(rules),
    )


def asked_members(asked: Asked) -> Iterator[Asked]:
    """Every member anywhere in what was asked."""
    for definition in _pool_definitions(asked):
        yield from definition.extra["members"]


def _pool_definitions(asked: Asked) -> Iterator[Asked]:
    """Full definitions in the order in which they are made. At the top everything is one; elsewhere an object that
    holds only a name refers to one."""
    yield from asked.extra["pools"]
    listeners = asked.extra["listeners"]
    for listener in listeners:
        yield from _definition(listener.extra["default_pool"])
    for listener in listeners:
        for policy in listener.extra["l7_policies"]:
            yield from _definition(policy.extra["redirect_pool"])


def _definition(asked: Asked | None) -> Iterator[Asked]:
    if asked is None:
        return
    if not asked.values.get("name"):
        raise Invalid(f"{asked.path}.name", "is required: a pool inside a listener or policy is known by its name")
    if asked.given != {"name"}:
        yield asked


def _pool_named(asked: Asked, by_name: dict[str, Pool]) -> PoolId:
    pool = by_name.get(asked.values["name"])
    if pool is None:
        raise Invalid(f"{asked.path}.name", f"no pool {asked.values['name']!r} is defined in this request")
    return pool.id
