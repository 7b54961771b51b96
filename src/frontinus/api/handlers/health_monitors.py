"""Health monitors: create, update, delete."""

from __future__ import annotations

from starlette.responses import Response

from frontinus.api import build
from frontinus.api.calls import Call, empty_response, json_response
from frontinus.api.changes import Edit, edit_tree_of, not_found
from frontinus.api.fields import HEALTH_MONITOR
from frontinus.api.handlers.found import find_health_monitor, find_pool
from frontinus.api.rendering import render_in_tree
from frontinus.api.requests import Operation, parse_body
from frontinus.model import edits
from frontinus.model.enums import Kind
from frontinus.model.tree import HealthMonitor, LoadBalancerTree


async def create(call: Call) -> Response:
    api = call.api
    asked = parse_body(HEALTH_MONITOR, Operation.CREATE, call.body)
    pool_id = asked.extra["pool_id"]
    if pool_id is None:
        raise not_found(Kind.POOL, "null")
    now = api.clock()
    made: list[HealthMonitor] = []

    def edit(tree: LoadBalancerTree) -> Edit:
        pool = find_pool(tree, pool_id)
        monitor = build.new_health_monitor(asked, pool, now)
        made.append(monitor)
        return Edit(after=edits.apply(tree, now, create=[monitor]), parents=(pool,))

    tree = await api.store.transact(lambda tx: edit_tree_of(tx, api.settings, Kind.POOL, pool_id, edit))
    return json_response({HEALTH_MONITOR.item_key: _shown(tree, made[-1].id)}, 201)


async def update(call: Call) -> Response:
    api = call.api
    asked = parse_body(HEALTH_MONITOR, Operation.UPDATE, call.body)
    monitor_id = call.params[Kind.HEALTH_MONITOR]
    now = api.clock()

    def edit(tree: LoadBalancerTree) -> Edit:
        monitor = find_health_monitor(tree, monitor_id)
        after = edits.apply(tree, now, update=[build.changed_health_monitor(monitor, asked)])
        return Edit(after=after, touched=(monitor,), parents=(find_pool(tree, monitor.pool_id),))

    tree = await api.store.transact(lambda tx: edit_tree_of(tx, api.settings, Kind.HEALTH_MONITOR, monitor_id, edit))
    return json_response({HEALTH_MONITOR.item_key: _shown(tree, monitor_id)})


async def delete(call: Call) -> Response:
    api = call.api
    monitor_id = call.params[Kind.HEALTH_MONITOR]
    now = api.clock()

    def edit(tree: LoadBalancerTree) -> Edit:
        monitor = find_health_monitor(tree, monitor_id)
        pool = find_pool(tree, monitor.pool_id)
        return Edit(after=edits.apply(tree, now, delete=[monitor]), touched=(monitor,), parents=(pool,), removes=True)

    await api.store.transact(lambda tx: edit_tree_of(tx, api.settings, Kind.HEALTH_MONITOR, monitor_id, edit))
    return empty_response(204)


def _shown(tree: LoadBalancerTree, monitor_id: str) -> object:
    return render_in_tree(HEALTH_MONITOR, tree, find_health_monitor(tree, monitor_id))
