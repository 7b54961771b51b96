"""Members of a pool: create, update, delete, and all at once (batch)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from starlette.responses import Response

from frontinus.api import build
from frontinus.api.calls import Call, empty_response
from frontinus.api.changes import Edit, change, not_found
from frontinus.api.choices import allows_sriov_members
from frontinus.api.etags import object_response
from frontinus.api.fields import MEMBER
from frontinus.api.handlers.found import find_member, find_pool
from frontinus.api.handlers.references import require_subnets
from frontinus.api.rendering import Wire, render_object
from frontinus.api.requests import Asked, Operation, parse_body, parse_list
from frontinus.api.wire_types import lenient_boolean
from frontinus.model import edits
from frontinus.model.enums import Kind, OperatingStatus, VnicType
from frontinus.model.errors import Invalid
from frontinus.model.ids import ProjectId
from frontinus.model.tree import LoadBalancerTree, Member, Pool
from frontinus.store import listing, trees
from frontinus.store.engine import Transaction


async def create(call: Call) -> Response:
    api = call.api
    asked = parse_body(MEMBER, Operation.CREATE, call.body)
    pool_id = call.params[Kind.POOL]
    sriov = await _look_up(call, [asked])
    now = api.clock()
    made: list[Member] = []

    def edit(tree: LoadBalancerTree) -> Edit:
        pool = find_pool(tree, pool_id)
        member = build.new_member(asked, pool, now, _initial_status(tree, pool), sriov=sriov)
        made.append(member)
        return Edit(after=edits.apply(tree, now, create=[member]), parents=(pool,))

    return await change(call, Kind.POOL, pool_id, edit, lambda tree: _answer(tree, pool_id, made[-1].id, 201))


async def update(call: Call) -> Response:
    api = call.api
    asked = parse_body(MEMBER, Operation.UPDATE, call.body)
    pool_id, member_id = call.params[Kind.POOL], call.params[Kind.MEMBER]
    now = api.clock()

    def edit(tree: LoadBalancerTree) -> Edit:
        member = find_member(tree, pool_id, member_id)
        after = edits.apply(tree, now, update=[build.changed_member(member, asked)])
        return Edit(after=after, subject=member, touched=(member,), parents=(find_pool(tree, pool_id),))

    return await change(call, Kind.POOL, pool_id, edit, lambda tree: _answer(tree, pool_id, member_id))


async def delete(call: Call) -> Response:
    api = call.api
    pool_id, member_id = call.params[Kind.POOL], call.params[Kind.MEMBER]
    now = api.clock()

    def edit(tree: LoadBalancerTree) -> Edit:
        member = find_member(tree, pool_id, member_id)
        pool = find_pool(tree, pool_id)
        after = edits.apply(tree, now, delete=[member])
        return Edit(after=after, subject=member, touched=(member,), parents=(pool,), removes=True)

    return await change(call, Kind.POOL, pool_id, edit, lambda _: empty_response(204))


async def update_batch(call: Call) -> Response:
    """Make the pool's members those of the request: new ones come, named ones change, others go unless additive."""
    api = call.api
    asked = parse_list(MEMBER, Operation.CREATE, call.body)
    additive = lenient_boolean(call.argument("additive_only") or "")
    pool_id = call.params[Kind.POOL]
    sriov = await _look_up(call, asked)
    now = api.clock()

    def edit(tree: LoadBalancerTree) -> Edit:
        return _edit_batch(tree, find_pool(tree, pool_id), asked, additive=additive, sriov=sriov, now=now)

    def shown(tree: LoadBalancerTree) -> Wire:
        return {MEMBER.collection_key: [render_object(tree, x) for x in tree.members_of(find_pool(tree, pool_id).id)]}

    return await change(call, Kind.POOL, pool_id, edit, lambda _: empty_response(202), shown=shown)


def _edit_batch(
    tree: LoadBalancerTree, pool: Pool, asked: Sequence[Asked], *, additive: bool, sriov: bool, now: datetime
) -> Edit:
    stored = {(x.address, x.protocol_port): x for x in tree.members_of(pool.id) if not x.delete_requested}
    status = _initial_status(tree, pool)
    fresh: list[Member] = []
    matched: dict[str, Member] = {}
    for each in asked:
        known = stored.get((each.values["address"], each.values["protocol_port"]))
        if known is None:
            fresh.append(build.new_member(each, pool, now, status, sriov=sriov))
        elif known.id in matched:
            raise Invalid(each.path, f"the member {known.address} port {known.protocol_port} is listed more than once")
        elif each.extra.get("request_sriov") and known.vnic_type is not VnicType.DIRECT:
            raise Invalid(
                f"{each.path}.request_sriov", "what a member's port is cannot be changed: make another member"
            )
        else:
            matched[known.id] = build.matched_member(known, each)
    removed = [] if additive else [x for x in stored.values() if x.id not in matched]
    if not (fresh or matched or removed):
        return Edit(after=tree, subject=pool, removes=True)
    after = edits.apply(tree, now, create=fresh, update=matched.values(), delete=removed)
    return Edit(after=after, subject=pool, parents=(pool,))


async def _look_up(call: Call, asked: Sequence[Asked]) -> bool:
    """Whether members may have SR-IOV ports, where one shall; and the subnets that members name must be there. A pool that
    does not exist is said before a subnet that does not."""
    wants_sriov = any(x.extra.get("request_sriov") for x in asked)
    if not wants_sriov and not any(x.values["subnet_id"] for x in asked):
        return False
    pool_id = call.params[Kind.POOL]

    def look(tx: Transaction) -> tuple[ProjectId, bool]:
        load_balancer_id = trees.load_balancer_of(tx, Kind.POOL, pool_id)
        found = None if load_balancer_id is None else listing.get_load_balancer(tx, load_balancer_id)
        if found is None:
            raise not_found(Kind.POOL, pool_id)
        return found.value.project_id, wants_sriov and allows_sriov_members(tx, found.value)

    project_id, sriov = await call.api.store.read(look)
    await require_subnets(call, project_id, asked)
    return sriov


def _initial_status(tree: LoadBalancerTree, pool: Pool) -> OperatingStatus:
    """Of a member that comes to a pool (behaviours.yaml states.initial)."""
    monitor = tree.health_monitor_of(pool.id)
    watched = monitor is not None and not monitor.delete_requested
    return OperatingStatus.OFFLINE if watched else OperatingStatus.NO_MONITOR


def _answer(tree: LoadBalancerTree, pool_id: str, member_id: str, status: int = 200) -> Response:
    return object_response(MEMBER, render_object(tree, find_member(tree, pool_id, member_id)), status)
