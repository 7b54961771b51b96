"""L7 policies and their rules: create, update, delete. Whether a driver carries them is for its capabilities to say."""

from __future__ import annotations

from starlette.responses import Response

from frontinus.api import build
from frontinus.api.calls import Call, empty_response
from frontinus.api.changes import Edit, change, not_found
from frontinus.api.etags import object_response
from frontinus.api.fields import L7_POLICY, L7_RULE
from frontinus.api.handlers.found import find_l7_policy, find_l7_rule, find_listener
from frontinus.api.rendering import render_object
from frontinus.api.requests import Operation, parse_body
from frontinus.model import edits
from frontinus.model.enums import Kind
from frontinus.model.tree import L7Policy, L7Rule, LoadBalancerTree


async def create_policy(call: Call) -> Response:
    api = call.api
    asked = parse_body(L7_POLICY, Operation.CREATE, call.body)
    listener_id = asked.extra["listener_id"]
    if listener_id is None:
        raise not_found(Kind.LISTENER, "null")
    now = api.clock()
    made: list[L7Policy] = []

    def edit(tree: LoadBalancerTree) -> Edit:
        listener = find_listener(tree, listener_id)
        policy = build.new_l7_policy(asked, listener, now)
        made.append(policy)
        return Edit(after=edits.apply(tree, now, create=[policy]), touched=(listener,))

    return await change(call, Kind.LISTENER, listener_id, edit, lambda tree: _answer_policy(tree, made[-1].id, 201))


async def update_policy(call: Call) -> Response:
    api = call.api
    asked = parse_body(L7_POLICY, Operation.UPDATE, call.body)
    policy_id = call.params[Kind.L7_POLICY]
    now = api.clock()

    def edit(tree: LoadBalancerTree) -> Edit:
        policy = find_l7_policy(tree, policy_id)
        after = edits.apply(tree, now, update=[build.changed_l7_policy(policy, asked)])
        return Edit(after=after, subject=policy, touched=(policy,))

    return await change(call, Kind.L7_POLICY, policy_id, edit, lambda tree: _answer_policy(tree, policy_id))


async def delete_policy(call: Call) -> Response:
    api = call.api
    policy_id = call.params[Kind.L7_POLICY]
    now = api.clock()

    def edit(tree: LoadBalancerTree) -> Edit:
        policy = find_l7_policy(tree, policy_id)
        after = edits.apply(tree, now, delete=[policy])
        return Edit(after=after, subject=policy, touched=(policy,), removes=True)

    return await change(call, Kind.L7_POLICY, policy_id, edit, lambda _: empty_response(204))


async def create_rule(call: Call) -> Response:
    api = call.api
    asked = parse_body(L7_RULE, Operation.CREATE, call.body)
    policy_id = call.params[Kind.L7_POLICY]
    now = api.clock()
    made: list[L7Rule] = []

    def edit(tree: LoadBalancerTree) -> Edit:
        policy = find_l7_policy(tree, policy_id)
        rule = build.new_l7_rule(asked, policy, now)
        made.append(rule)
        return Edit(after=edits.apply(tree, now, create=[rule]), parents=(policy,))

    return await change(
        call, Kind.L7_POLICY, policy_id, edit, lambda tree: _answer_rule(tree, policy_id, made[-1].id, 201)
    )


async def update_rule(call: Call) -> Response:
    api = call.api
    asked = parse_body(L7_RULE, Operation.UPDATE, call.body)
    policy_id, rule_id = call.params[Kind.L7_POLICY], call.params[Kind.L7_RULE]
    now = api.clock()

    def edit(tree: LoadBalancerTree) -> Edit:
        rule = find_l7_rule(tree, policy_id, rule_id)
        after = edits.apply(tree, now, update=[build.changed_l7_rule(rule, asked)])
        return Edit(after=after, subject=rule, touched=(rule,), parents=(find_l7_policy(tree, policy_id),))

    return await change(call, Kind.L7_POLICY, policy_id, edit, lambda tree: _answer_rule(tree, policy_id, rule_id))


async def delete_rule(call: Call) -> Response:
    api = call.api
    policy_id, rule_id = call.params[Kind.L7_POLICY], call.params[Kind.L7_RULE]
    now = api.clock()

    def edit(tree: LoadBalancerTree) -> Edit:
        rule = find_l7_rule(tree, policy_id, rule_id)
        policy = find_l7_policy(tree, policy_id)
        after = edits.apply(tree, now, delete=[rule])
        return Edit(after=after, subject=rule, touched=(rule,), parents=(policy,), removes=True)

    return await change(call, Kind.L7_POLICY, policy_id, edit, lambda _: empty_response(204))


def _answer_policy(tree: LoadBalancerTree, policy_id: str, status: int = 200) -> Response:
    return object_response(L7_POLICY, render_object(tree, find_l7_policy(tree, policy_id)), status)


def _answer_rule(tree: LoadBalancerTree, policy_id: str, rule_id: str, status: int = 200) -> Response:
    return object_response(L7_RULE, render_object(tree, find_l7_rule(tree, policy_id, rule_id)), status)
