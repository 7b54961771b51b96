"""From values to the wire: one object, the answer to a create of a whole tree, the status tree, statistics.

Pure. What is shown is said in fields.py; here it is compiled once into a list of readers per resource."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from frontinus.api.fields import (
    HEALTH_MONITOR,
    L7_POLICY,
    L7_RULE,
    LISTENER,
    LOAD_BALANCER,
    MEMBER,
    POOL,
    RESOURCES,
    Field,
    References,
    Resource,
)
from frontinus.api.wire_types import LastChecks
from frontinus.model.heartbeat import Counters
from frontinus.model.receipts import Live
from frontinus.model.tree import (
    HealthMonitor,
    L7Policy,
    Listener,
    LoadBalancer,
    LoadBalancerTree,
    Member,
    Pool,
    TreeObject,
)

Wire = dict[str, Any]  # a JSON object

_Reader = tuple[str, Callable[[Any, References], object], Callable[[Any], object] | None, bool]


def render(resource: Resource, value: object, references: References, *, full: bool = False) -> Wire:
    """One object as shows and lists have it; with `full`, as the create of a whole tree answers it."""
    shown: Wire = {}
    for wire, read, convert, omit_none in _READERS[resource.item_key, full]:
        content = read(value, references)
        if omit_none and content is None:
            continue
        shown[wire] = content if convert is None else convert(content)
    return shown


def references_of(tree: LoadBalancerTree, value: TreeObject) -> References:
    """What store.listing hands out beside a value, from a tree at hand."""
    match value:
        case LoadBalancer():
            return {"listeners": _ids(tree.listeners), "pools": _ids(tree.pools)}
        case Listener():
            return {"l7_policies": _ids(tree.l7_policies_of(value.id))}
        case Pool():
            monitor = tree.health_monitor_of(value.id)
            return {
                "listeners": _ids(tree.listeners_of(value.id)),
                "members": _ids(tree.members_of(value.id)),
                "health_monitor": () if monitor is None else (monitor.id,),
            }
        case L7Policy():
            return {"l7_rules": _ids(tree.l7_rules_of(value.id))}
        case HealthMonitor():
            return {"pools": (value.pool_id,)}
        case _:
            return {}


def render_in_tree(resource: Resource, tree: LoadBalancerTree, value: TreeObject) -> Wire:
    return render(resource, value, references_of(tree, value))


def render_object(tree: LoadBalancerTree, value: TreeObject) -> Wire:
    """Any object of a tree, as a show has it."""
    return render_in_tree(RESOURCE_OF[value.kind], tree, value)


def render_whole_tree(tree: LoadBalancerTree) -> Wire:
    """The answer to the create of a load balancer: everything nested (behaviours.yaml nested_create.response)."""
    shown = render(LOAD_BALANCER, tree.load_balancer, {}, full=True)
    shown["listeners"] = [_whole_listener(tree, x) for x in tree.listeners]
    shown["pools"] = [_whole_pool(tree, x) for x in tree.pools]
    return shown


def _whole_listener(tree: LoadBalancerTree, listener: Listener) -> Wire:
    shown = render(LISTENER, listener, {}, full=True)
    shown["l7policies"] = [_whole_l7_policy(tree, x) for x in tree.l7_policies_of(listener.id)]
    return shown


def _whole_l7_policy(tree: LoadBalancerTree, policy: L7Policy) -> Wire:
    shown = render(L7_POLICY, policy, {}, full=True)
    shown["rules"] = [render(L7_RULE, x, {}, full=True) for x in tree.l7_rules_of(policy.id)]
    return shown


def _whole_pool(tree: LoadBalancerTree, pool: Pool) -> Wire:
    shown = render(POOL, pool, {"listeners": _ids(tree.listeners_of(pool.id))}, full=True)
    shown["members"] = [render(MEMBER, x, {}, full=True) for x in tree.members_of(pool.id)]
    monitor = tree.health_monitor_of(pool.id)
    if monitor is not None:
        shown["healthmonitor"] = render(HEALTH_MONITOR, monitor, {}, full=True)
    return shown


def render_status_tree(tree: LoadBalancerTree) -> Wire:
    """Load balancer, listeners, their pools, members and health monitors (resources.yaml status_tree). Pools without a
    listener and policies do not appear; the key is health_monitor here, as the contract has it."""
    return {
        **_status(tree.load_balancer),
        "listeners": [
            {**_status(listener), "pools": [_pool_status(tree, pool) for pool in tree.pools_of(listener)]}
            for listener in tree.listeners
        ],
    }


def _pool_status(tree: LoadBalancerTree, pool: Pool) -> Wire:
    shown = _status(pool)
    monitor = tree.health_monitor_of(pool.id)
    if monitor is not None:
        shown["health_monitor"] = {**_status(monitor), "type": monitor.type}
    shown["members"] = [_member_status(x) for x in tree.members_of(pool.id)]
    return shown


def _member_status(member: Member) -> Wire:
    shown = {**_status(member), "address": member.address, "protocol_port": member.protocol_port}
    if member.last_check is not None:
        shown["last_check"] = LastChecks().render(member.last_check)
    return shown


def _status(value: TreeObject) -> Wire:
    return {
        "id": value.id,
        "name": value.name,
        "operating_status": value.operating_status,
        "provisioning_status": value.provisioning_status,
    }


def render_statistics(counters: Counters) -> Wire:
    return {
        "active_connections": counters.active_connections,
        "bytes_in": counters.bytes_in,
        "bytes_out": counters.bytes_out,
        "request_errors": counters.request_errors,
        "total_connections": counters.total_connections,
    }


def render_receipt(live: Live) -> Wire:
    return {
        "amphora_id": live.amphora_id,
        "role": live.role,
        "generation": live.generation,
        "digest": live.digest,
        "driver": live.driver,
        "driver_version": live.driver_version,
        "amphora_version": live.amphora_version,
        "balancer_version": live.balancer_version,
        "since": None if live.since is None else live.since.isoformat(),
        "as_wanted": live.as_wanted,
        "current_driver": live.current_driver,
    }


def _ids(children: Any) -> tuple[str, ...]:
    return tuple(x.id for x in children)


def _readers(resource: Resource, *, full: bool) -> tuple[_Reader, ...]:
    return tuple(_reader(x, x.read) for x in resource.fields if x.read is not None and (x.in_full or not full))


def _reader(field: Field, read: Callable[[Any, References], object]) -> _Reader:
    return field.wire, read, field.type.render if field.type.renders else None, field.omit_none


_READERS: dict[tuple[str, bool], tuple[_Reader, ...]] = {
    (key, full): _readers(resource, full=full) for key, resource in RESOURCES.items() for full in (False, True)
}

RESOURCE_OF = {x.kind: x for x in RESOURCES.values()}
