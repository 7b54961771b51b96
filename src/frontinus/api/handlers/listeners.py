"""Listeners: create, update, delete, statistics."""

from __future__ import annotations

from starlette.responses import Response

from frontinus.api import build
from frontinus.api.calls import Call, empty_response, json_response
from frontinus.api.changes import Edit, change, not_found
from frontinus.api.etags import object_response
from frontinus.api.fields import LISTENER
from frontinus.api.handlers.found import find_listener
from frontinus.api.handlers.references import require_secrets
from frontinus.api.rendering import render_object, render_statistics
from frontinus.api.requests import Operation, parse_body
from frontinus.model import edits
from frontinus.model.enums import Kind
from frontinus.model.heartbeat import Counters
from frontinus.model.ids import ListenerId
from frontinus.model.tree import LoadBalancerTree
from frontinus.store import listing, statistics
from frontinus.store.engine import Transaction


async def create(call: Call) -> Response:
    api = call.api
    asked = parse_body(LISTENER, Operation.CREATE, call.body)
    load_balancer_id = asked.extra["load_balancer_id"]
    now = api.clock()
    made = []

    def edit(tree: LoadBalancerTree) -> Edit:
        listener = build.new_listener(asked, tree.load_balancer, now, api.settings.defaults.listener_tls)
        made.append(listener.id)
        return Edit(after=edits.apply(tree, now, create=[listener]))

    if load_balancer_id is None:
        raise not_found(Kind.LOAD_BALANCER, "null")
    await require_secrets(call, asked, Kind.LOAD_BALANCER, load_balancer_id)
    return await change(call, Kind.LOAD_BALANCER, load_balancer_id, edit, lambda tree: _answer(tree, made[-1], 201))


async def update(call: Call) -> Response:
    api = call.api
    asked = parse_body(LISTENER, Operation.UPDATE, call.body)
    listener_id = call.params[Kind.LISTENER]
    await require_secrets(call, asked, Kind.LISTENER, listener_id)
    now = api.clock()

    def edit(tree: LoadBalancerTree) -> Edit:
        listener = find_listener(tree, listener_id)
        changed = build.changed_listener(listener, asked, api.settings.defaults.listener_tls)
        return Edit(after=edits.apply(tree, now, update=[changed]), subject=listener, touched=(listener,))

    return await change(call, Kind.LISTENER, listener_id, edit, lambda tree: _answer(tree, listener_id))


async def delete(call: Call) -> Response:
    api = call.api
    listener_id = call.params[Kind.LISTENER]
    now = api.clock()

    def edit(tree: LoadBalancerTree) -> Edit:
        listener = find_listener(tree, listener_id)
        after = edits.apply(tree, now, delete=[listener])
        return Edit(after=after, subject=listener, touched=(listener,), removes=True)

    return await change(call, Kind.LISTENER, listener_id, edit, lambda _: empty_response(204))


async def show_statistics(call: Call) -> Response:
    listener_id = ListenerId(call.params[Kind.LISTENER])

    def work(tx: Transaction) -> Counters:
        if listing.get_listener(tx, listener_id) is None:
            raise not_found(Kind.LISTENER, listener_id)
        return statistics.listener_statistics(tx, listener_id)

    return json_response({"stats": render_statistics(await call.api.store.read(work))})


def _answer(tree: LoadBalancerTree, listener_id: str, status: int = 200) -> Response:
    return object_response(LISTENER, render_object(tree, find_listener(tree, listener_id)), status)
