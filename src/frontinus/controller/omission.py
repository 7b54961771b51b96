"""What of a load balancer is left out, when one object of it cannot be carried, so that the rest can be. Pure.

Only what no amphora has is left out: a new object that cannot work keeps nothing else from working. What was carried
before and became impossible by an edit stays as it runs, and so does all the rest: to take it away would cut traffic that
works. Where no amphora serves any more there is nothing to cut: then whatever cannot be carried is left out, so that
another amphora can be built for the rest. Next: reconcile.py."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from frontinus.controller.plan import Verdict
from frontinus.model.certificates import SecretUse
from frontinus.model.enums import AmphoraStatus, ProvisioningStatus
from frontinus.model.errors import Subject
from frontinus.model.ids import AmphoraId, SubnetId
from frontinus.model.tree import (
    Amphora,
    Fault,
    HealthMonitor,
    L7Policy,
    L7Rule,
    Listener,
    LoadBalancerTree,
    Member,
    Pool,
    TreeChild,
)

_CARRIES_NOTHING = frozenset({Verdict.DEAD, Verdict.STARTING})


def carries(amphora: Amphora, judged: Verdict) -> bool:
    """Whether clients may be served by it, or will be again as soon as it is back, by what it was given before."""
    return amphora.receipt is not None and judged not in _CARRIES_NOTHING


def carries_on_record(amphora: Amphora) -> bool:
    """Whether it would carry what it was given should it turn out to be alive: nobody has given it up."""
    return amphora.receipt is not None and amphora.status is AmphoraStatus.ALLOCATED


def carried_of(tree: LoadBalancerTree, left_out: Mapping[str, Fault]) -> LoadBalancerTree:
    """What is asked for, less what these faults say: the whole object, or what it would need the references for that its
    fault names."""
    partly = {object_id: fault.without for object_id, fault in left_out.items() if fault.without}
    carried = tree.wanted().without(left_out.keys() - partly.keys())
    if not partly:
        return carried
    return replace(
        carried,
        listeners=tuple(
            replace(x, sni_container_refs=tuple(y for y in x.sni_container_refs if y not in partly[x.id]))
            if x.id in partly
            else x
            for x in carried.listeners
        ),
        # Nobody is spoken to by its TLS.
        pools=tuple(
            replace(x, tls_container_ref=None, ca_tls_container_ref=None, crl_container_ref=None)
            if x.id in partly
            else x
            for x in carried.pools
        ),
        members=tuple(x for x in carried.members if x.pool_id not in partly),
    )


def omitted_with(tree: LoadBalancerTree, subject: Subject, *, served: bool = True) -> frozenset[str] | None:
    """The ids of what to leave out when the subject cannot be carried; None if nothing can be left out for its sake.
    `served`: whether an amphora carries what was carried before.

    The subject alone where what is left means what it did before (a new member of a pool, a new policy of a listener
    that is carried); where it would mean something that nobody asked for (a new listener without one of its policies,
    or without its pool), what it is a part of as well."""
    found = next((x for x in tree.children() if x.id == subject.id), None)
    return None if found is None else _omitted_with(tree, found, served)


def omitted_without_secret(
    tree: LoadBalancerTree, use: SecretUse, *, served: bool = True
) -> Mapping[str, tuple[str, ...]] | None:
    """The ids of what to leave out when a reference of this tree, which is the one that is carried, leads nowhere: each with
    the reference that it can do without, or nothing if all of it is left out. None and `served` as above.

    A listener goes on without one certificate of several: whoever asks for another name is served. Without that for whoever
    asks for no name, or without knowing whose clients to trust, it does not. Of a pool the members go: what would be sent to
    them in clear, or to nobody knows whom, is refused, and listeners serve what they serve by other pools."""
    found = next((x for x in tree.children() if x.id == use.object_id), None)
    match found:
        case Listener() if use.field == "sni_container_refs" and _has_another_certificate(found, use.reference):
            misses = served and not was_never_carried(tree, found) and use.reference not in _without(found)
            return None if misses else {found.id: (use.reference,)}
        case Pool() if not served or _without(found):
            alone: dict[str, tuple[str, ...]] = {found.id: (use.reference,)}
            return alone | {x.id: () for x in tree.members if x.pool_id == found.id}
    omitted = omitted_with(tree, Subject(use.object_kind, use.object_id), served=served)
    return None if omitted is None else dict.fromkeys(omitted, ())


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


def _has_another_certificate(listener: Listener, reference: str) -> bool:
    held = {listener.default_tls_container_ref, *listener.sni_container_refs} - {None, reference}
    return bool(held)


def _without(child: Listener | Pool) -> tuple[str, ...]:
    """The references that it is carried without already."""
    return () if child.fault is None else child.fault.without


def _is_missed(tree: LoadBalancerTree, child: TreeChild, served: bool) -> bool:
    return served and not was_never_carried(tree, child)


def _omitted_with(tree: LoadBalancerTree, child: TreeChild, served: bool) -> frozenset[str] | None:
    if _is_missed(tree, child, served):
        return None
    alone = frozenset({child.id})
    match child:
        case Listener() | Member() | HealthMonitor():
            return alone
        case Pool():
            return _with_users(tree, child, served)
        case L7Policy():
            listener = tree.listener(child.listener_id)
            is_new = listener is not None and not _is_missed(tree, listener, served)
            return alone | {child.listener_id} if is_new else alone
        case L7Rule():
            policy = next((x for x in tree.l7_policies if x.id == child.l7_policy_id), None)
            above = None if policy is None else _omitted_with(tree, policy, served)
            # A policy with fewer conditions would match more than was asked.
            return alone if above is None else alone | above


def _with_users(tree: LoadBalancerTree, pool: Pool, served: bool) -> frozenset[str] | None:
    """The pool and whatever sends requests to it; None if some of that is carried already."""
    omitted: frozenset[str] = frozenset({pool.id})
    for listener in tree.listeners:
        if listener.default_pool_id == pool.id:
            if _is_missed(tree, listener, served):
                return None
            omitted |= {listener.id}
    for policy in tree.l7_policies:
        if policy.redirect_pool_id == pool.id:
            above = _omitted_with(tree, policy, served)
            if above is None:
                return None
            omitted |= above
    return omitted
