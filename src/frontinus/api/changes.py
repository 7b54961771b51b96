"""One way to change a load balancer: read its tree locked, edit it purely, judge it, write the difference.

Every function here runs inside a transaction of the store and makes no call to anything else. Raises NotFound, Invalid,
Immutable, Conflict, Unsupported, in the contract's order (behaviours.yaml errors.precedence)."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from frontinus.api.settings import ApiSettings, Immutability
from frontinus.model import capabilities
from frontinus.model.capabilities import Capabilities
from frontinus.model.enums import Kind, ProvisioningStatus
from frontinus.model.errors import Immutable, Invalid, NotFound, Unsupported
from frontinus.model.ids import LoadBalancerId
from frontinus.model.tree import LoadBalancerTree, TreeObject
from frontinus.model.validation import validate
from frontinus.store import controllers, trees
from frontinus.store.engine import Transaction


class Edit(msgspec.Struct, frozen=True, kw_only=True):
    """The tree as it shall be, and what has to stand still for it.

    `touched` must not be on its way out. `parents` must not either, and with strict immutability must be ACTIVE.
    `removes` says that nothing was added or changed, so there is nothing to judge."""

    after: LoadBalancerTree
    touched: tuple[TreeObject, ...] = ()
    parents: tuple[TreeObject, ...] = ()
    removes: bool = False
    error_is_fine: bool = False
    """Whether strict immutability lets it pass while the load balancer is in ERROR."""


def edit_tree(
    tx: Transaction,
    settings: ApiSettings,
    load_balancer_id: LoadBalancerId,
    edit: Callable[[LoadBalancerTree], Edit],
) -> LoadBalancerTree:
    """The tree after the edit, which is written."""
    before = trees.read_tree(tx, load_balancer_id, for_update=True)
    if before is None:
        raise NotFound("load_balancer", f"there is no load balancer {load_balancer_id}")
    edited = edit(before)
    after = edited.after
    if not edited.removes:
        validate(after, touched_since=after.load_balancer.generation)
    _refuse_immutable(before, edited, settings)
    if not edited.removes:
        capabilities.require(after, capabilities_of(tx, settings, after.load_balancer.provider))
    trees.write_tree(tx, before, after)
    return after


def edit_tree_of(
    tx: Transaction,
    settings: ApiSettings,
    kind: Kind,
    object_id: str,
    edit: Callable[[LoadBalancerTree], Edit],
) -> LoadBalancerTree:
    """As `edit_tree`, for the tree that an object is in."""
    load_balancer_id = trees.load_balancer_of(tx, kind, object_id)
    if load_balancer_id is None:
        raise not_found(kind, object_id)
    return edit_tree(tx, settings, load_balancer_id, edit)


def not_found(kind: Kind, object_id: str) -> NotFound:
    return NotFound(kind, f"there is no {kind.replace('_', ' ')} {object_id[:80]}")


def capabilities_of(tx: Transaction, settings: ApiSettings, provider: str) -> Capabilities:
    """What the provider's driver can do. Raises Invalid for a provider that is not enabled, Unsupported for one that no
    controller has ever served."""
    known = next((x for x in settings.providers if x.name == provider), None)
    served_by = (known.served_by or known.name) if known is not None else provider
    found = controllers.capabilities_of(tx, served_by)
    if found is not None:
        return found
    if known is None:
        names = ", ".join(sorted({x.name for x in settings.providers} | set(controllers.providers(tx))))
        raise Invalid("load_balancer.provider", f"{provider!r} is not enabled; there are {names}")
    raise Unsupported(
        "load_balancer.provider",
        f"no controller has registered for {served_by}: start one (`frontinus up` has one) and try again",
    )


def _refuse_immutable(before: LoadBalancerTree, edited: Edit, settings: ApiSettings) -> None:
    load_balancer = before.load_balancer
    for value in (load_balancer, *edited.parents, *edited.touched):
        if value.delete_requested:
            raise Immutable(value.kind, f"{value.id} is being deleted")
    if settings.immutable is not Immutability.STRICT:
        return
    allowed = {ProvisioningStatus.ACTIVE}
    if edited.error_is_fine:
        allowed.add(ProvisioningStatus.ERROR)
    for value in (load_balancer, *edited.parents):
        if value.provisioning_status not in allowed:
            raise Immutable(value.kind, f"{value.id} is {value.provisioning_status}; try again when it is ACTIVE")
