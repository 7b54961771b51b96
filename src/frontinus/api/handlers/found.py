"""An object in a tree, or a clear NotFound."""

from __future__ import annotations

from frontinus.api.changes import not_found
from frontinus.model.enums import Kind
from frontinus.model.tree import HealthMonitor, L7Policy, L7Rule, Listener, LoadBalancerTree, Member, Pool


def find_listener(tree: LoadBalancerTree, listener_id: str) -> Listener:
    found = tree.listener(listener_id)
    if found is None:
        raise not_found(Kind.LISTENER, listener_id)
    return found


def find_pool(tree: LoadBalancerTree, pool_id: str) -> Pool:
    found = tree.pool(pool_id)
    if found is None:
        raise not_found(Kind.POOL, pool_id)
    return found


def find_member(tree: LoadBalancerTree, pool_id: str, member_id: str) -> Member:
    """A member of another pool is not there."""
    found = next((x for x in tree.members if x.id == member_id and x.pool_id == pool_id), None)
    if found is None:
        raise not_found(Kind.MEMBER, member_id)
    return found


def find_health_monitor(tree: LoadBalancerTree, health_monitor_id: str) -> HealthMonitor:
    found = next((x for x in tree.health_monitors if x.id == health_monitor_id), None)
    if found is None:
        raise not_found(Kind.HEALTH_MONITOR, health_monitor_id)
    return found


def find_l7_policy(tree: LoadBalancerTree, l7_policy_id: str) -> L7Policy:
    found = next((x for x in tree.l7_policies if x.id == l7_policy_id), None)
    if found is None:
        raise not_found(Kind.L7_POLICY, l7_policy_id)
    return found


def find_l7_rule(tree: LoadBalancerTree, l7_policy_id: str, l7_rule_id: str) -> L7Rule:
    """A rule of another policy is not there."""
    found = next((x for x in tree.l7_rules if x.id == l7_rule_id and x.l7_policy_id == l7_policy_id), None)
    if found is None:
        raise not_found(Kind.L7_RULE, l7_rule_id)
    return found
