"""How a change alters a tree: new rows in, PENDING statuses set, generation moved on. Pure; validation is separate.

Which rows move at request time: contract/behaviours.yaml, transitions_at_request. A second edit while the first is
under way simply moves the generation again (DESIGN section 6, rule 2). Next: validation.py."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import TypeVar

from msgspec.structs import replace

from frontinus.model.enums import OperatingStatus, ProvisioningStatus
from frontinus.model.status import after_edit, move_provisioning
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
)

_P = ProvisioningStatus
_C = TypeVar("_C", bound=TreeChild)


def update_load_balancer(tree: LoadBalancerTree, changed: LoadBalancer, now: datetime) -> LoadBalancerTree:
    """The tree with its load balancer's own attributes replaced."""
    return _next_generation(replace(tree, load_balancer=changed), now)


def delete_load_balancer(tree: LoadBalancerTree, now: datetime) -> LoadBalancerTree:
    """The load balancer and all below it are to go. Children keep their statuses, as in Octavia."""
    moved = _next_generation(tree, now)
    load_balancer = replace(
        moved.load_balancer,
        delete_requested=True,
        provisioning_status=move_provisioning(moved.load_balancer.provisioning_status, _P.PENDING_DELETE),
    )
    return replace(moved, load_balancer=load_balancer)


def request_failover(tree: LoadBalancerTree, now: datetime) -> LoadBalancerTree:
    """Nothing is changed but the generation; the controller finds what must be replaced by looking."""
    return _next_generation(tree, now)


def apply(
    tree: LoadBalancerTree,
    now: datetime,
    *,
    create: Iterable[TreeChild] = (),
    update: Iterable[TreeChild] = (),
    delete: Iterable[TreeChild] = (),
) -> LoadBalancerTree:
    """The tree after an edit of its children, as one step of the generation.

    `update` holds the objects with their new values. Deleting an object deletes what it owns (members and health
    monitor of a pool, policies of a listener, rules of a policy) and takes it out of what refers to it. Parents that
    the change touches become PENDING_UPDATE."""
    moved = _next_generation(tree, now)
    generation = moved.load_balancer.generation
    touched: list[TreeChild] = []
    for child in create:
        fresh = replace(child, provisioning_status=_P.PENDING_CREATE, changed_generation=generation)
        moved = _put(moved, fresh)
        touched.append(fresh)
    for child in update:
        edited = replace(
            child,
            provisioning_status=after_edit(child.provisioning_status),
            changed_generation=generation,
            updated_at=now,
        )
        moved = _put(moved, edited)
        touched.append(edited)
    for child in delete:
        # Parents are marked by the tree as it is before the child goes: afterwards nothing points to it any more.
        moved = _mark_parents(moved, [child], generation, now)
        for victim in _with_possessions(moved, child):
            gone = replace(
                victim,
                provisioning_status=move_provisioning(victim.provisioning_status, _P.PENDING_DELETE),
                delete_requested=True,
                changed_generation=generation,
                updated_at=now,
            )
            moved = _put(moved, gone)
        moved = _forget(moved, child)
    moved = _mark_parents(moved, touched, generation, now)
    return _renumber_l7_policies(moved, generation)


def initial_operating_status(tree: LoadBalancerTree, member: Member) -> OperatingStatus:
    """NO_MONITOR if the pool has no health monitor, else OFFLINE (behaviours.yaml states.initial)."""
    monitor = tree.wanted().health_monitor_of(member.pool_id)
    return OperatingStatus.NO_MONITOR if monitor is None else OperatingStatus.OFFLINE


def _next_generation(tree: LoadBalancerTree, now: datetime) -> LoadBalancerTree:
    load_balancer = tree.load_balancer
    return replace(
        tree,
        load_balancer=replace(
            load_balancer,
            generation=load_balancer.generation + 1,
            provisioning_status=after_edit(load_balancer.provisioning_status),
            updated_at=now,
        ),
    )


def _put(tree: LoadBalancerTree, child: TreeChild) -> LoadBalancerTree:
    match child:
        case Listener():
            return replace(tree, listeners=_with(tree.listeners, child))
        case Pool():
            return replace(tree, pools=_with(tree.pools, child))
        case Member():
            return replace(tree, members=_with(tree.members, child))
        case HealthMonitor():
            return replace(tree, health_monitors=_with(tree.health_monitors, child))
        case L7Policy():
            return replace(tree, l7_policies=_with(tree.l7_policies, child))
        case L7Rule():
            return replace(tree, l7_rules=_with(tree.l7_rules, child))


def _with(children: tuple[_C, ...], child: _C) -> tuple[_C, ...]:
    if any(x.id == child.id for x in children):
        return tuple(child if x.id == child.id else x for x in children)
    return (*children, child)


def _with_possessions(tree: LoadBalancerTree, child: TreeChild) -> list[TreeChild]:
    """The child and what is deleted with it (behaviours.yaml delete_rules)."""
    victims: list[TreeChild] = [child]
    match child:
        case Pool():
            victims += [x for x in tree.members if x.pool_id == child.id]
            victims += [x for x in tree.health_monitors if x.pool_id == child.id]
        case Listener():
            for policy in tree.l7_policies_of(child.id):
                victims += [policy, *tree.l7_rules_of(policy.id)]
        case L7Policy():
            victims += tree.l7_rules_of(child.id)
        case Member() | HealthMonitor() | L7Rule():
            pass
    return victims


def _forget(tree: LoadBalancerTree, gone: TreeChild) -> LoadBalancerTree:
    """Listeners lose a default pool that goes; members of a pool whose monitor goes are NO_MONITOR again."""
    match gone:
        case Pool():
            return replace(
                tree,
                listeners=tuple(
                    replace(x, default_pool_id=None) if x.default_pool_id == gone.id else x for x in tree.listeners
                ),
            )
        case HealthMonitor():
            return replace(
                tree,
                members=tuple(
                    replace(x, operating_status=OperatingStatus.NO_MONITOR) if x.pool_id == gone.pool_id else x
                    for x in tree.members
                ),
            )
        case _:
            return tree


def _mark_parents(
    tree: LoadBalancerTree, children: Iterable[TreeChild], generation: int, now: datetime
) -> LoadBalancerTree:
    listener_ids: set[str] = set()
    pool_ids: set[str] = set()
    policy_ids: set[str] = set()
    for child in children:
        match child:
            case Pool():
                listener_ids |= {x.id for x in tree.listeners_of(child.id)}
            case Member() | HealthMonitor():
                pool_ids.add(child.pool_id)
                listener_ids |= {x.id for x in tree.listeners_of(child.pool_id)}
            case L7Policy():
                listener_ids.add(child.listener_id)
            case L7Rule():
                policy_ids.add(child.l7_policy_id)
                listener_ids |= {x.listener_id for x in tree.l7_policies if x.id == child.l7_policy_id}
            case Listener():
                pass

    def mark(children: tuple[_C, ...], ids: set[str]) -> tuple[_C, ...]:
        if not ids:
            return children
        return tuple(
            x
            if x.id not in ids or x.changed_generation == generation
            else replace(
                x,
                provisioning_status=after_edit(x.provisioning_status),
                changed_generation=generation,
                updated_at=now,
            )
            for x in children
        )

    return replace(
        tree,
        listeners=mark(tree.listeners, listener_ids),
        pools=mark(tree.pools, pool_ids),
        l7_policies=mark(tree.l7_policies, policy_ids),
    )


def _renumber_l7_policies(tree: LoadBalancerTree, generation: int) -> LoadBalancerTree:
    """Positions of each listener's remaining policies count from 1 without gaps; a policy just put goes before others.

    Contract: resources.yaml l7policy.position and behaviours.yaml delete_rules.l7policy."""
    if not tree.l7_policies:
        return tree
    positions: dict[str, int] = {}
    for listener in tree.listeners:
        remaining = [x for x in tree.l7_policies_of(listener.id) if not x.delete_requested]
        remaining.sort(key=lambda x: (x.position, x.changed_generation != generation))
        positions |= {policy.id: number for number, policy in enumerate(remaining, 1)}
    return replace(
        tree,
        l7_policies=tuple(
            x if positions.get(x.id, x.position) == x.position else replace(x, position=positions[x.id])
            for x in tree.l7_policies
        ),
    )
