"""What of a load balancer is left out, when one object of it cannot be carried, so that the rest can be. Pure.

Only what no amphora has is left out: a new object that cannot work keeps nothing else from working. What was carried
before and became impossible by an edit stays as it runs, and so does all the rest: to take it away would cut traffic that
works. Next: reconcile.py."""

from __future__ import annotations

from frontinus.model.enums import AmphoraStatus, ProvisioningStatus
from frontinus.model.errors import Subject
from frontinus.model.ids import AmphoraId, SubnetId
from frontinus.model.tree import HealthMonitor, L7Policy, L7Rule, Listener, LoadBalancerTree, Member, Pool, TreeChild


def omitted_with(tree: LoadBalancerTree, subject: Subject) -> frozenset[str] | None:
    """The ids of what to leave out when the subject cannot be carried; None if nothing can be left out for its sake.

    The subject alone where what is left means what it did before (a new member of a pool, a new policy of a listener
    that is carried); where it would mean something that nobody asked for (a new listener without one of its policies,
    or without its pool), what it is a part of as well."""
    found = next((x for x in tree.children() if x.id == subject.id), None)
    return None if found is None else _omitted_with(tree, found)


def omitted_without_address(tree: LoadBalancerTree, amphora_id: AmphoraId, subnet_id: SubnetId) -> frozenset[str]:
    """The ids of the members to leave out when an amphora gets no address on their subnet; none if that would help nobody.

    New members, as ever. Those that were carried too, unless another amphora serves them: one that has just come serves the
    rest without them, where it would serve nothing at all; a second one of a pair may as well wait."""
    load_balancer = tree.load_balancer
    if subnet_id in (load_balancer.vip.subnet_id, *(x.subnet_id for x in load_balancer.additional_vips)):
        return frozenset()
    is_served = any(
        x.id != amphora_id
        and x.status is AmphoraStatus.ALLOCATED
        and x.suspected_at is None
        and any(subnet_id in port.subnet_ids for port in x.ports)
        for x in tree.amphorae
    )
    return frozenset(
        x.id for x in tree.members if x.subnet_id == subnet_id and (was_never_carried(tree, x) or not is_served)
    )


def was_never_carried(tree: LoadBalancerTree, child: TreeChild) -> bool:
    """Whether no amphora can have it: so nobody misses it."""
    if tree.load_balancer.applied_generation == 0 or child.provisioning_status is ProvisioningStatus.PENDING_CREATE:
        return True
    return child.fault is not None and child.fault.left_out


def _omitted_with(tree: LoadBalancerTree, child: TreeChild) -> frozenset[str] | None:
    if not was_never_carried(tree, child):
        return None
    alone = frozenset({child.id})
    match child:
        case Listener() | Member() | HealthMonitor():
            return alone
        case Pool():
            return _with_users(tree, child)
        case L7Policy():
            listener = tree.listener(child.listener_id)
            is_new = listener is not None and was_never_carried(tree, listener)
            return alone | {child.listener_id} if is_new else alone
        case L7Rule():
            policy = next((x for x in tree.l7_policies if x.id == child.l7_policy_id), None)
            above = None if policy is None else _omitted_with(tree, policy)
            # A policy with fewer conditions would match more than was asked.
            return alone if above is None else alone | above


def _with_users(tree: LoadBalancerTree, pool: Pool) -> frozenset[str] | None:
    """The pool and whatever sends requests to it; None if some of that is carried already."""
    omitted: frozenset[str] = frozenset({pool.id})
    for listener in tree.listeners:
        if listener.default_pool_id == pool.id:
            if not was_never_carried(tree, listener):
                return None
            omitted |= {listener.id}
    for policy in tree.l7_policies:
        if policy.redirect_pool_id == pool.id:
            above = _omitted_with(tree, policy)
            if above is None:
                return None
            omitted |= above
    return omitted
