"""What a provider driver (octavia-lib) is called with: one call for each change, from the difference of two trees.

`settled` is the tree that the driver has taken and reported; `wanted` is what is asked for. The first call that leads from
one to the other is made, its report is awaited, and so on: Octavia locks a load balancer from a call to its report, so
drivers see one call at a time. Pure. Next: controller/provider_reconcile.py."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

import msgspec
from msgspec.structs import replace

from frontinus.model.enums import Kind, OperatingStatus, ProvisioningStatus
from frontinus.model.tree import (
    HealthMonitor,
    L7Policy,
    L7Rule,
    Listener,
    LoadBalancer,
    LoadBalancerTree,
    Member,
    Pool,
    TreeObject,
)

_NAMES = {
    Kind.LOAD_BALANCER: "loadbalancer",
    Kind.LISTENER: "listener",
    Kind.POOL: "pool",
    Kind.MEMBER: "member",
    Kind.HEALTH_MONITOR: "health_monitor",
    Kind.L7_POLICY: "l7policy",
    Kind.L7_RULE: "l7rule",
}


FAILOVER = "loadbalancer_failover"


class ProviderCall(msgspec.Struct, frozen=True, kw_only=True):
    """One call of a driver's method `name`. `before` and `after` are the object as the driver knows it and as it shall be;
    `settled` and `then` are the trees with it. For a batch of members the object is their pool."""

    name: str
    kind: Kind
    object_id: str
    before: TreeObject | None
    after: TreeObject | None
    settled: LoadBalancerTree | None
    then: LoadBalancerTree | None


def essence(tree: LoadBalancerTree) -> LoadBalancerTree | None:
    """What of a tree is a matter of the driver: the wanted objects, without reports and words of our own. None for one that
    is to be deleted."""
    if tree.load_balancer.delete_requested:
        return None
    wanted = tree.wanted()
    return LoadBalancerTree(
        load_balancer=replace(
            wanted.load_balancer,
            tags=(),
            deletion_protection=False,
            provisioning_status=ProvisioningStatus.ACTIVE,
            operating_status=OperatingStatus.OFFLINE,
            generation=1,
            applied_generation=0,
            fault=None,
            updated_at=None,
        ),
        listeners=tuple(_bare(x) for x in wanted.listeners),
        pools=tuple(_bare(x) for x in wanted.pools),
        members=tuple(replace(_bare(x), last_check=None) for x in wanted.members),
        health_monitors=tuple(_bare(x) for x in wanted.health_monitors),
        l7_policies=tuple(_bare(x) for x in wanted.l7_policies),
        l7_rules=tuple(_bare(x) for x in wanted.l7_rules),
    )


_C = TypeVar("_C", Listener, Pool, Member, HealthMonitor, L7Policy, L7Rule)


def _bare(child: _C) -> _C:
    return replace(
        child,
        tags=(),
        provisioning_status=ProvisioningStatus.ACTIVE,
        operating_status=OperatingStatus.OFFLINE,
        changed_generation=0,
        fault=None,
        updated_at=None,
    )


def next_call(settled: LoadBalancerTree | None, wanted: LoadBalancerTree | None) -> ProviderCall | None:
    """The first call on the way; None when there is nothing to do. Both trees are essences."""
    if settled is None:
        return None if wanted is None else _creation(wanted)
    if wanted is None:
        gone = settled.load_balancer
        return ProviderCall(
            name="loadbalancer_delete",
            kind=gone.kind,
            object_id=gone.id,
            before=gone,
            after=None,
            settled=settled,
            then=None,
        )
    return next(_changes(settled, wanted), None)


def failover_of(settled: LoadBalancerTree) -> ProviderCall:
    """Asks for the same, on other machines of the provider's."""
    whole = settled.load_balancer
    return ProviderCall(
        name=FAILOVER,
        kind=whole.kind,
        object_id=whole.id,
        before=whole,
        after=whole,
        settled=settled,
        then=settled,
    )


def _creation(wanted: LoadBalancerTree) -> ProviderCall:
    # Without children, which follow one by one: every driver can do that, and few a whole tree.
    made = wanted.load_balancer
    then = LoadBalancerTree(load_balancer=made)
    return ProviderCall(
        name="loadbalancer_create", kind=made.kind, object_id=made.id, before=None, after=made, settled=None, then=then
    )


_FIELDS: dict[Kind, str] = {
    Kind.LISTENER: "listeners",
    Kind.POOL: "pools",
    Kind.MEMBER: "members",
    Kind.HEALTH_MONITOR: "health_monitors",
    Kind.L7_POLICY: "l7_policies",
    Kind.L7_RULE: "l7_rules",
}


def _changes(settled: LoadBalancerTree, wanted: LoadBalancerTree) -> Iterator[ProviderCall]:
    """In an order in which no driver is told of a reference to something that it does not know (any more)."""
    if settled.load_balancer != wanted.load_balancer:
        yield _update(settled, settled.load_balancer, wanted.load_balancer)
    for kind in (Kind.L7_RULE, Kind.L7_POLICY, Kind.LISTENER):
        yield from _deletions(settled, wanted, kind)
    yield from _creations(settled, wanted, Kind.POOL)
    for kind in (Kind.POOL, Kind.LISTENER, Kind.L7_POLICY):
        yield from _updates(settled, wanted, kind)
    yield from _deletions(settled, wanted, Kind.HEALTH_MONITOR)
    yield from _deletions(settled, wanted, Kind.POOL)
    yield from _creations(settled, wanted, Kind.LISTENER)
    for pool in wanted.pools:
        yield from _of_members(settled, wanted, pool)
    for kind in (Kind.HEALTH_MONITOR, Kind.L7_RULE):
        yield from _updates(settled, wanted, kind)
    for kind in (Kind.HEALTH_MONITOR, Kind.L7_POLICY, Kind.L7_RULE):
        yield from _creations(settled, wanted, kind)


def _objects(tree: LoadBalancerTree, kind: Kind) -> dict[str, TreeObject]:
    return {x.id: x for x in getattr(tree, _FIELDS[kind])}


def _parents(child: TreeObject) -> tuple[str, ...]:
    match child:
        case Member() | HealthMonitor():
            return (child.pool_id,)
        case L7Policy():
            return (child.listener_id,)
        case L7Rule():
            return (child.l7_policy_id,)
        case _:
            return ()


def _deletions(settled: LoadBalancerTree, wanted: LoadBalancerTree, kind: Kind) -> Iterator[ProviderCall]:
    """Of what goes with its parent the driver is not told apart: the call of the parent has it."""
    there = _objects(wanted, kind)
    staying = {x.id for x in wanted.children()}
    for each in _objects(settled, kind).values():
        if each.id not in there and all(parent in staying for parent in _parents(each)):
            yield ProviderCall(
                name=f"{_NAMES[kind]}_delete",
                kind=kind,
                object_id=each.id,
                before=each,
                after=None,
                settled=settled,
                then=settled.without({each.id}),
            )


def _creations(settled: LoadBalancerTree, wanted: LoadBalancerTree, kind: Kind) -> Iterator[ProviderCall]:
    known = _objects(settled, kind)
    for each in _objects(wanted, kind).values():
        if each.id not in known:
            then = replace(settled, **{_FIELDS[kind]: (*getattr(settled, _FIELDS[kind]), each)})
            yield ProviderCall(
                name=f"{_NAMES[kind]}_create",
                kind=kind,
                object_id=each.id,
                before=None,
                after=each,
                settled=settled,
                then=then,
            )


def _updates(settled: LoadBalancerTree, wanted: LoadBalancerTree, kind: Kind) -> Iterator[ProviderCall]:
    there = _objects(wanted, kind)
    for each in _objects(settled, kind).values():
        after = there.get(each.id)
        if after is not None and after != each:
            yield _update(settled, each, after)


def _update(settled: LoadBalancerTree, before: TreeObject, after: TreeObject) -> ProviderCall:
    if isinstance(after, LoadBalancer):
        then = replace(settled, load_balancer=after)
    else:
        name = _FIELDS[after.kind]
        then = replace(settled, **{name: tuple(after if x.id == after.id else x for x in getattr(settled, name))})
    return ProviderCall(
        name=f"{_NAMES[after.kind]}_update",
        kind=after.kind,
        object_id=after.id,
        before=before,
        after=after,
        settled=settled,
        then=then,
    )


def _of_members(settled: LoadBalancerTree, wanted: LoadBalancerTree, pool: Pool) -> Iterator[ProviderCall]:
    """One call for one member, and one for all when several of a pool change."""
    known = {x.id: x for x in settled.members_of(pool.id)}
    there = {x.id: x for x in wanted.members_of(pool.id)}
    gone = [x for x in known.values() if x.id not in there]
    new = [x for x in there.values() if x.id not in known]
    changed = [x for x in there.values() if x.id in known and known[x.id] != x]
    if len(gone) + len(new) + len(changed) > 1:
        others = tuple(x for x in settled.members if x.pool_id != pool.id)
        yield ProviderCall(
            name="member_batch_update",
            kind=Kind.POOL,
            object_id=pool.id,
            before=pool,
            after=pool,
            settled=settled,
            then=replace(settled, members=(*others, *there.values())),
        )
        return
    for each in gone:
        then = settled.without({each.id})
        yield ProviderCall(
            name="member_delete",
            kind=Kind.MEMBER,
            object_id=each.id,
            before=each,
            after=None,
            settled=settled,
            then=then,
        )
    for each in new:
        yield ProviderCall(
            name="member_create",
            kind=Kind.MEMBER,
            object_id=each.id,
            before=None,
            after=each,
            settled=settled,
            then=replace(settled, members=(*settled.members, each)),
        )
    for each in changed:
        yield _update(settled, known[each.id], each)
