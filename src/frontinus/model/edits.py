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
    touched: list[TreeChild] = [
        replace(child, provisioning_status=_P.PENDING_CREATE, changed_generation=generation) for child in create
    ]
    touched += [
        replace(
            child,
            provisioning_status=after_edit(child.provisioning_status),
            changed_generation=generation,
            # What is asked now may be right. That it is not carried so far, or not whole, stays true.
            fault=child.fault if child.fault is not None and (child.fault.left_out or child.fault.without) else None,
            updated_at=now,
        )
        for child in update
    ]
    moved = _put(moved, touched)
    gone = tuple(delete)
    # Parents are marked by the tree as it is before the children go: afterwards nothing points to them any more.
    moved = _mark_parents(moved, gone, generation, now)
    moved = _put(
        moved,
        [
            replace(
                victim,
                provisioning_status=move_provisioning(victim.provisioning_status, _P.PENDING_DELETE),
                delete_requested=True,
                changed_generation=generation,
                updated_at=now,
            )
            for victim in _with_possessions(moved, gone)
        ],
    )
    moved = _forget(moved, gone)
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


def _put(tree: LoadBalancerTree, children: Iterable[TreeChild]) -> LoadBalancerTree:
    """The tree with these children in the place of those that have their ids; new ones come last. One pass per branch,
    whatever the number: a batch may replace a thousand members."""
    by_id = {x.id: x for x in children}
    if not by_id:
        return tree

    def merged(present: tuple[_C, ...], kind: type[_C]) -> tuple[_C, ...]:
        mine: dict[str, _C] = {key: x for key, x in by_id.items() if isinstance(x, kind)}
        if not mine:
            return present
        kept = tuple([mine.pop(x.id, x) for x in present])
        return (*kept, *mine.values())

    return replace(
        tree,
        listeners=merged(tree.listeners, Listener),
        pools=merged(tree.pools, Pool),
        members=merged(tree.members, Member),
        health_monitors=merged(tree.health_monitors, HealthMonitor),
        l7_policies=merged(tree.l7_policies, L7Policy),
        l7_rules=merged(tree.l7_rules, L7Rule),
    )


def _with_possessions(tree: LoadBalancerTree, children: Iterable[TreeChild]) -> list[TreeChild]:
    """The children, as the tree has them now, and what is deleted with them (behaviours.yaml delete_rules)."""
    ids = {x.id for x in children}
    if not ids:
        return []
    policies = {x.id for x in tree.l7_policies if x.id in ids or x.listener_id in ids}
    return [
        *(x for x in tree.listeners if x.id in ids),
        *(x for x in tree.pools if x.id in ids),
        *(x for x in tree.members if x.id in ids or x.pool_id in ids),
        *(x for x in tree.health_monitors if x.id in ids or x.pool_id in ids),
        *(x for x in tree.l7_policies if x.id in policies),
        *(x for x in tree.l7_rules if x.id in ids or x.l7_policy_id in policies),
    ]


def _forget(tree: LoadBalancerTree, gone: Iterable[TreeChild]) -> LoadBalancerTree:
    """Listeners lose a default pool that goes; members of a pool whose monitor goes are NO_MONITOR again."""
    pools = {x.id for x in gone if isinstance(x, Pool)}
    unwatched = {x.pool_id for x in gone if isinstance(x, HealthMonitor)}
    listeners, members = tree.listeners, tree.members
    if pools:
        listeners = tuple(replace(x, default_pool_id=None) if x.default_pool_id in pools else x for x in listeners)
    if unwatched:
        members = tuple(
            replace(x, operating_status=OperatingStatus.NO_MONITOR) if x.pool_id in unwatched else x for x in members
        )
    return replace(tree, listeners=listeners, members=members)


def _mark_parents(
    tree: LoadBalancerTree, children: Iterable[TreeChild], generation: int, now: datetime
) -> LoadBalancerTree:
    listener_ids: set[str] = set()
    pool_ids: set[str] = set()
    policy_ids: set[str] = set()
    attached_to: set[str] = set()
    for child in children:
        match child:
            case Pool():
                attached_to.add(child.id)
            case Member() | HealthMonitor():
                pool_ids.add(child.pool_id)
                attached_to.add(child.pool_id)
            case L7Policy():
                listener_ids.add(child.listener_id)
            case L7Rule():
                policy_ids.add(child.l7_policy_id)
            case Listener():
                pass
    listener_ids |= {listener.id for pool_id in attached_to for listener in tree.listeners_of(pool_id)}
    listener_ids |= {x.listener_id for x in tree.l7_policies if x.id in policy_ids}

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
