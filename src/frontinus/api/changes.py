"""One way to change a load balancer: read its tree locked, edit it purely, judge it, write the difference.

Everything happens inside one transaction of the store and calls nothing else. Raises NotFound, Invalid, Immutable,
Conflict, Unsupported, in the contract's order (behaviours.yaml errors.precedence), and HttpError 412 after all of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import msgspec
from starlette.responses import Response

from frontinus.api.calls import Call
from frontinus.api.commits import commit
from frontinus.api.etags import require_match
from frontinus.api.honour import require_honoured
from frontinus.api.placing import capabilities_for
from frontinus.api.rendering import RESOURCE_OF, Wire, render_object
from frontinus.api.settings import ApiSettings, Immutability
from frontinus.api.written import Written
from frontinus.model.enums import Kind, ProvisioningStatus
from frontinus.model.errors import Immutable, NotFound
from frontinus.model.house_rules import check_house_rules
from frontinus.model.ids import AmphoraId, LoadBalancerId
from frontinus.model.quotas import added_by
from frontinus.model.tree import LoadBalancerTree, TreeObject
from frontinus.model.validation import validate
from frontinus.store import quotas, trees
from frontinus.store.engine import Transaction


class Edit(msgspec.Struct, frozen=True, kw_only=True):
    """The tree as it shall be, and what has to stand still for it.

    `subject` is the stored object that the request's path names, which If-Match is about. `touched` must not be on its
    way out. `parents` must not either, and with strict immutability must be ACTIVE.
    `removes` says that nothing was added or changed, so there is nothing to judge."""

    after: LoadBalancerTree
    subject: TreeObject | None = None
    touched: tuple[TreeObject, ...] = ()
    parents: tuple[TreeObject, ...] = ()
    removes: bool = False
    error_is_fine: bool = False
    """Whether strict immutability lets it pass while the load balancer is in ERROR."""
    replaced: tuple[AmphoraId, ...] = ()
    """Amphorae that are to be replaced, whatever becomes of the tree."""
    also: Callable[[Transaction], None] | None = None
    """What is written beside the tree, in the same transaction."""


async def change(
    call: Call,
    kind: Kind,
    object_id: str,
    edit: Callable[[LoadBalancerTree], Edit],
    answer: Callable[[LoadBalancerTree], Response],
    *,
    shown: Callable[[LoadBalancerTree], Wire] | None = None,
) -> Response:
    """Edit the tree that an object is in, and answer from the tree as it is then.

    `edit` and `answer` run inside the transaction, perhaps more than once, and must be pure. `shown` is what a dry run
    shows where the answer has no body; by default the edit's subject as it would be."""
    settings = call.api.settings

    def work(tx: Transaction) -> Written:
        before = _locked_tree(tx, kind, object_id)
        edited = edit(before)
        after = edited.after
        if not edited.removes:
            validate(after, touched_since=after.load_balancer.generation)
            check_house_rules(before, after, settings.house_rules)
        _refuse_immutable(before, edited, settings)
        if not edited.removes:
            require_honoured(after, capabilities_for(tx, call.api, after.load_balancer))
        if edited.subject is not None:
            require_match(call.headers, render_object(before, edited.subject))
        if not edited.removes:
            require_room(tx, call, before, after)
        trees.write_tree(tx, before, after)
        if edited.also is not None:
            edited.also(tx)
        return Written(
            answer=answer(after),
            before=before,
            after=after,
            replaced=edited.replaced,
            shown=partial(shown or partial(_subject, edited.subject), after),
        )

    return await commit(call, work)


def _subject(subject: TreeObject | None, after: LoadBalancerTree) -> Wire:
    """The subject of an edit under its envelope, as it is then."""
    if subject is None:
        return {}
    objects = (after.load_balancer, *after.children())
    found = next(x for x in objects if x.id == subject.id)
    return {RESOURCE_OF[found.kind].item_key: render_object(after, found)}


def _locked_tree(tx: Transaction, kind: Kind, object_id: str) -> LoadBalancerTree:
    load_balancer_id: LoadBalancerId | None = LoadBalancerId(object_id)
    if kind is not Kind.LOAD_BALANCER:
        load_balancer_id = trees.load_balancer_of(tx, kind, object_id)
    tree = None if load_balancer_id is None else trees.read_tree(tx, load_balancer_id, for_update=True)
    if tree is None:
        raise not_found(kind, object_id)
    return tree


def not_found(kind: Kind, object_id: str) -> NotFound:
    return NotFound(kind, f"there is no {kind.replace('_', ' ')} {object_id[:80]}")


def require_room(tx: Transaction, call: Call, before: LoadBalancerTree | None, after: LoadBalancerTree) -> None:
    """Raise OverQuota for what the edit adds and the project may not have. Where nobody is asked who calls, projects are
    mere words, and there are no quotas (behaviours.yaml quotas.not_enforced)."""
    if call.identity.is_admin:
        return
    added = added_by(before, after)
    if added:
        defaults = call.api.settings.quotas.limits
        quotas.require_room(tx, after.load_balancer.project_id, added, defaults, call.api.clock())


def look_for_room(tx: Transaction, call: Call, wanted: LoadBalancerTree) -> None:
    """`require_room` for a load balancer that is not made yet: so that none is over its quota only after the network was
    asked for an address. What decides is `require_room`."""
    if not call.identity.is_admin:
        project_id, defaults = wanted.load_balancer.project_id, call.api.settings.quotas.limits
        quotas.look_for_room(tx, project_id, added_by(None, wanted), defaults)


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
