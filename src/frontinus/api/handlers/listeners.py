"""Listeners: create, update, delete, statistics."""

from __future__ import annotations

from starlette.responses import Response

from frontinus.api import build
from frontinus.api.calls import Call, empty_response, json_response
from frontinus.api.changes import Edit, edit_tree, edit_tree_of, not_found
from frontinus.api.fields import LISTENER
from frontinus.api.handlers.found import find_listener
from frontinus.api.rendering import render_in_tree, render_statistics
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
        listener = build.new_listener(asked, tree.load_balancer, now)
        made.append(listener.id)
        return Edit(after=edits.apply(tree, now, create=[listener]))

    if load_balancer_id is None:
        raise not_found(Kind.LOAD_BALANCER, "null")
    tree = await api.store.transact(lambda tx: edit_tree(tx, api.settings, load_balancer_id, edit))
    return json_response({LISTENER.item_key: _shown(tree, made[-1])}, 201)


async def update(call: Call) -> Response:
    api = call.api
    asked = parse_body(LISTENER, Operation.UPDATE, call.body)
    listener_id = call.params[Kind.LISTENER]
    now = api.clock()

    def edit(tree: LoadBalancerTree) -> Edit:
        listener = find_listener(tree, listener_id)
        changed = build.changed_listener(listener, asked)
        return Edit(after=edits.apply(tree, now, update=[changed]), touched=(listener,))

    tree = await api.store.transact(lambda tx: edit_tree_of(tx, api.settings, Kind.LISTENER, listener_id, edit))
    return json_response({LISTENER.item_key: _shown(tree, listener_id)})


async def delete(call: Call) -> Response:
    api = call.api
    listener_id = call.params[Kind.LISTENER]
    now = api.clock()

    def edit(tree: LoadBalancerTree) -> Edit:
        listener = find_listener(tree, listener_id)
        return Edit(after=edits.apply(tree, now, delete=[listener]), touched=(listener,), removes=True)

    await api.store.transact(lambda tx: edit_tree_of(tx, api.settings, Kind.LISTENER, listener_id, edit))
    return empty_response(204)


async def show_statistics(call: Call) -> Response:
    listener_id = ListenerId(call.params[Kind.LISTENER])

    def work(tx: Transaction) -> Counters:
        if listing.get_listener(tx, listener_id) is None:
            raise not_found(Kind.LISTENER, listener_id)
        return statistics.listener_statistics(tx, listener_id)

    return json_response({"stats": render_statistics(await call.api.store.read(work))})


def _shown(tree: LoadBalancerTree, listener_id: str) -> object:
    return render_in_tree(LISTENER, tree, find_listener(tree, listener_id))
