"""Which rules a request meets, and whose project it is about; asked once per request, before its handler.

In the contract's order (rbac.yaml evaluation, behaviours.yaml errors.precedence): a body that cannot be read is 400 first, an
object that is not there is left to its handler, which says 404, and only then comes policy. No handler can forget to ask,
and an operation without a rule is found when the API starts. Nothing here can change between the question and the
handler's transaction: an object never moves to another project."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from frontinus.api import requests
from frontinus.api.calls import Call
from frontinus.api.errors import Forbidden
from frontinus.api.fields import RESOURCES
from frontinus.api.policy.enforcer import Enforcer
from frontinus.api.policy.rules import Rule, When, needs_rule, rules_of
from frontinus.api.requests import Asked, parse_body, parse_list
from frontinus.api.routing import Body, Operation
from frontinus.api.wire_types import lenient_boolean
from frontinus.model.enums import Kind
from frontinus.model.errors import Bug
from frontinus.model.ids import ProjectId
from frontinus.store import trees
from frontinus.store.engine import Transaction

PROJECT = "project_id"

_PARENTS_IN_PATH: Mapping[Kind, Kind] = {Kind.MEMBER: Kind.POOL, Kind.L7_RULE: Kind.L7_POLICY}

_PARENTS_IN_BODY: Mapping[str, tuple[tuple[str, Kind], ...]] = {
    "listener": (("load_balancer_id", Kind.LOAD_BALANCER),),
    "pool": (("load_balancer_id", Kind.LOAD_BALANCER), ("listener_id", Kind.LISTENER)),
    "healthmonitor": (("pool_id", Kind.POOL),),
    "l7policy": (("listener_id", Kind.LISTENER),),
}
"""What the create of a child names its parent by; the first one given counts."""

_TREE_RESOURCES = frozenset({*_PARENTS_IN_BODY, "loadbalancer", "member", "rule"})
_OWNED = (
    Kind.MEMBER,
    Kind.L7_RULE,
    Kind.LOAD_BALANCER,
    Kind.LISTENER,
    Kind.POOL,
    Kind.HEALTH_MONITOR,
    Kind.L7_POLICY,
)
"""Kinds that belong to a project; of two in one path the child comes first."""

_QUOTAS = "/v2/lbaas/quotas/"
_AMPHORA_ORDERS = ("amphora:put_config", "amphora:put_failover")


class _Target(msgspec.Struct, frozen=True):
    """Whose project a request is about. `is_there` is False where an object or parent that it names does not exist."""

    project_id: str | None
    is_there: bool = True


_NOT_THERE = _Target(None, is_there=False)


class Guard:
    def __init__(self, enforcer: Enforcer, operations: Iterable[Operation]) -> None:
        """Raises Bug for an operation on a resource that no rule is about."""
        self._enforcer = enforcer
        self._rules = {x.id: rules_of(x.method, x.path) for x in operations}
        for operation in operations:
            if needs_rule(operation.path) and not self._rules[operation.id]:
                raise Bug(f"no rule of access is about {operation.method} {operation.path}")

    async def admit(self, call: Call, operation: Operation) -> ProjectId | None:
        """Let the request pass, or raise Forbidden (and Invalid for a body that cannot be read).

        A list that may show one project only is told which one; None is no restriction."""
        if call.identity.is_admin:
            return None
        rules = self._rules.get(operation.id, ())
        if not rules:
            return None
        across = next((x for x in rules if x.when is When.ACROSS_PROJECTS), None)
        if across is not None:
            return self._admit_list(call, across, next(x for x in rules if x.when is When.ALWAYS))
        asked = _parse(call, operation)
        target = await _target(call, operation, rules, asked)
        if target.is_there:
            for rule in rules:
                if _applies(rule, call, asked):
                    self._require(rule, call, target.project_id)
        return None

    def _admit_list(self, call: Call, across: Rule, within: Rule) -> ProjectId | None:
        if self._enforcer.allows(across.full_name, call.identity, call.identity.project_id):
            return None
        project_id = call.argument(PROJECT) or call.identity.project_id
        if not project_id:
            raise Forbidden("policy does not allow lists across projects, and the token has no project of its own")
        self._require(within, call, project_id)
        return ProjectId(project_id)

    def _require(self, rule: Rule, call: Call, project_id: str | None) -> None:
        if not self._enforcer.allows(rule.full_name, call.identity, project_id):
            raise Forbidden(f"policy does not allow it: {rule.full_name}")


def _applies(rule: Rule, call: Call, asked: Asked | None) -> bool:
    match rule.when:
        case When.SECURITY_GROUPS:
            return asked is not None and "vip_sg_ids" in asked.given
        case When.REMOVES:
            return not lenient_boolean(call.argument("additive_only") or "")
        case When.ALWAYS | When.ACROSS_PROJECTS:
            return True


def _parse(call: Call, operation: Operation) -> Asked | None:
    """The body of an operation on a part of a tree, so that one that cannot be read is said to be that first."""
    if operation.body is not Body.REQUIRED or operation.resource not in _TREE_RESOURCES:
        return None
    resource = RESOURCES[operation.resource]
    if operation.id.endswith(".batch"):
        parse_list(resource, requests.Operation.CREATE, call.body)
        return None
    is_create = operation.id.endswith(".create")
    return parse_body(resource, requests.Operation.CREATE if is_create else requests.Operation.UPDATE, call.body)


async def _target(call: Call, operation: Operation, rules: tuple[Rule, ...], asked: Asked | None) -> _Target:
    if operation.path.startswith(_QUOTAS):
        # A word in the project's place ("defaults") is taken for one.
        return _Target(next(iter(call.params.values()), operation.path.removeprefix(_QUOTAS)))
    named = next(((kind, call.params[kind]) for kind in _OWNED if kind in call.params), None)
    if named is None and asked is not None:
        named = _parent_in_body(operation, asked)
        if named is None:
            if operation.resource == "loadbalancer":
                return _Target(asked.extra.get("tenant_id") or asked.extra.get(PROJECT) or call.identity.project_id)
            return _NOT_THERE
    if named is not None:
        kind, object_id = named
        parent = call.params.get(_PARENTS_IN_PATH[kind]) if kind in _PARENTS_IN_PATH else None

        def look(tx: Transaction) -> ProjectId | None:
            return trees.project_of(tx, kind, object_id, parent_id=parent)

        project_id = await call.api.store.read(look)
        return _NOT_THERE if project_id is None else _Target(project_id)
    if any(x.name in _AMPHORA_ORDERS for x in rules):
        amphora_id = next(iter(call.params.values()))
        project_id = await call.api.store.read(lambda tx: trees.project_of_amphora(tx, amphora_id))
        return _NOT_THERE if project_id is None else _Target(project_id)
    return _Target(call.identity.project_id)


def _parent_in_body(operation: Operation, asked: Asked) -> tuple[Kind, str] | None:
    for name, kind in _PARENTS_IN_BODY.get(operation.resource or "", ()):
        object_id = asked.extra.get(name)
        if object_id is not None:
            return kind, object_id
    return None
