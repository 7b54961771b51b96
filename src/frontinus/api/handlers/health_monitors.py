"""Health monitors: create, update, delete."""

from __future__ import annotations

from starlette.responses import Response

from frontinus.api import build
from frontinus.api.calls import Call, empty_response
from frontinus.api.changes import Edit, change, not_found
from frontinus.api.etags import object_response
from frontinus.api.fields import HEALTH_MONITOR
from frontinus.api.handlers.found import find_health_monitor, find_pool
from frontinus.api.rendering import render_object
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

    return await change(call, Kind.POOL, pool_id, edit, lambda tree: _answer(tree, made[-1].id, 201))


async def update(call: Call) -> Response:
    api = call.api
    asked = parse_body(HEALTH_MONITOR, Operation.UPDATE, call.body)
    monitor_id = call.params[Kind.HEALTH_MONITOR]
    now = api.clock()

    def edit(tree: LoadBalancerTree) -> Edit:
        monitor = find_health_monitor(tree, monitor_id)
        after = edits.apply(tree, now, update=[build.changed_health_monitor(monitor, asked)])
        return Edit(after=after, subject=monitor, touched=(monitor,), parents=(find_pool(tree, monitor.pool_id),))

    return await change(call, Kind.HEALTH_MONITOR, monitor_id, edit, lambda tree: _answer(tree, monitor_id))


async def delete(call: Call) -> Response:
    api = call.api
    monitor_id = call.params[Kind.HEALTH_MONITOR]
    now = api.clock()

    def edit(tree: LoadBalancerTree) -> Edit:
        monitor = find_health_monitor(tree, monitor_id)
        pool = find_pool(tree, monitor.pool_id)
        after = edits.apply(tree, now, delete=[monitor])
        return Edit(after=after, subject=monitor, touched=(monitor,), parents=(pool,), removes=True)

    return await change(call, Kind.HEALTH_MONITOR, monitor_id, edit, lambda _: empty_response(204))


def _answer(tree: LoadBalancerTree, monitor_id: str, status: int = 200) -> Response:
    return object_response(HEALTH_MONITOR, render_object(tree, find_health_monitor(tree, monitor_id)), status)
