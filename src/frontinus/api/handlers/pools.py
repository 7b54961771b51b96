"""Pools: create, update, delete."""

from __future__ import annotations

from msgspec.structs import replace
from starlette.responses import Response

from frontinus.api import build
from frontinus.api.calls import Call, empty_response
from frontinus.api.changes import Edit, change
from frontinus.api.etags import object_response
from frontinus.api.fields import POOL
from frontinus.api.handlers.found import find_listener, find_pool
from frontinus.api.handlers.references import require_secrets
from frontinus.api.rendering import render_object
from frontinus.api.requests import Operation, parse_body
from frontinus.model import edits
from frontinus.model.enums import Kind
from frontinus.model.errors import Conflict, Invalid
from frontinus.model.tree import Listener, LoadBalancerTree, Pool


async def create(call: Call) -> Response:
    api = call.api
    asked = parse_body(POOL, Operation.CREATE, call.body)
    load_balancer_id, listener_id = asked.extra["load_balancer_id"], asked.extra["listener_id"]
    if load_balancer_id is None and listener_id is None:
        raise Invalid(f"{asked.path}.loadbalancer_id", "this or listener_id is required")
    now = api.clock()
    made: list[Pool] = []

    def edit(tree: LoadBalancerTree) -> Edit:
        listener = None if listener_id is None else find_listener(tree, listener_id)
        pool = build.new_pool(asked, tree.load_balancer, now, api.settings.defaults.pool_tls)
        made.append(pool)
        if listener is None:
            return Edit(after=edits.apply(tree, now, create=[pool]))
        return _attach(tree, pool, listener)

    def _attach(tree: LoadBalancerTree, pool: Pool, listener: Listener) -> Edit:
        if listener.default_pool_id is not None:
            raise Conflict("pool.listener_id", f"the listener {listener.id} already has a default pool")
        attached = replace(listener, default_pool_id=pool.id)
        return Edit(after=edits.apply(tree, now, create=[pool], update=[attached]), touched=(listener,))

    owner = (Kind.LISTENER, listener_id) if load_balancer_id is None else (Kind.LOAD_BALANCER, load_balancer_id)
    await require_secrets(call, asked, *owner)
    return await change(call, *owner, edit, lambda tree: _answer(tree, made[-1].id, 201))


async def update(call: Call) -> Response:
    api = call.api
    asked = parse_body(POOL, Operation.UPDATE, call.body)
    pool_id = call.params[Kind.POOL]
    await require_secrets(call, asked, Kind.POOL, pool_id)
    now = api.clock()

    def edit(tree: LoadBalancerTree) -> Edit:
        pool = find_pool(tree, pool_id)
        after = edits.apply(tree, now, update=[build.changed_pool(pool, asked, api.settings.defaults.pool_tls)])
        return Edit(after=after, subject=pool, touched=(pool,))

    return await change(call, Kind.POOL, pool_id, edit, lambda tree: _answer(tree, pool_id))


async def delete(call: Call) -> Response:
    api = call.api
    pool_id = call.params[Kind.POOL]
    now = api.clock()

    def edit(tree: LoadBalancerTree) -> Edit:
        pool = find_pool(tree, pool_id)
        user = next((x for x in tree.wanted().l7_policies if x.redirect_pool_id == pool_id), None)
        if user is not None:
            raise Conflict("pool", f"the l7policy {user.id} redirects to it")
        after = edits.apply(tree, now, delete=[pool])
        return Edit(after=after, subject=pool, touched=(pool,), removes=True)

    return await change(call, Kind.POOL, pool_id, edit, lambda _: empty_response(204))


def _answer(tree: LoadBalancerTree, pool_id: str, status: int = 200) -> Response:
    return object_response(POOL, render_object(tree, find_pool(tree, pool_id)), status)
