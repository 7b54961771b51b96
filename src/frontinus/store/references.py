"""Which other objects an object's answer names: a fixed number of statements for a whole page of objects.

Knows how rows hang on each other, and nothing of filters, orders and pages: listing.py does."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from sqlalchemy import Select, exists, select, union

from frontinus.model.enums import Kind
from frontinus.store import schema
from frontinus.store.engine import Transaction
from frontinus.store.statement import Statement, chunks, is_one_of, padded, padded_size

_MOST_IDS_AT_ONCE = 8192

_listener, _policy = schema.listener.c, schema.l7_policy.c


def _by_age(table: Any, owner: str) -> Callable[[int], Select[Any]]:
    return lambda size: (
        select(table.c[owner], table.c.id)
        .where(is_one_of(table.c[owner], size))
        .order_by(table.c[owner], table.c.created_at, table.c.id)
    )


def _policies_by_position(size: int) -> Select[Any]:
    return (
        select(_policy.listener_id, _policy.id)
        .where(is_one_of(_policy.listener_id, size))
        .order_by(_policy.listener_id, _policy.position, _policy.created_at, _policy.id)
    )


def _attached_listeners(size: int) -> Select[Any]:
    """As LoadBalancerTree.listeners_of: by default pool, or by an enabled policy that has a rule."""
    by_default = select(_listener.default_pool_id.label("pool_id"), _listener.id, _listener.created_at).where(
        is_one_of(_listener.default_pool_id, size)
    )
    has_rule = exists().where(schema.l7_rule.c.l7_policy_id == _policy.id)
    by_policy = (
        select(_policy.redirect_pool_id.label("pool_id"), _listener.id, _listener.created_at)
        .select_from(schema.l7_policy.join(schema.listener, _listener.id == _policy.listener_id))
        .where(is_one_of(_policy.redirect_pool_id, size), _policy.admin_state_up.is_(True), has_rule)
    )
    both = union(by_default, by_policy).subquery()
    return select(both.c.pool_id, both.c.id).order_by(both.c.pool_id, both.c.created_at, both.c.id)


def _vip_part(name: str) -> Callable[[int], Select[Any]]:
    owner, amphora = schema.load_balancer, schema.amphora
    return lambda size: (
        select(amphora.c.id, owner.c[name])
        .select_from(amphora.join(owner, owner.c.id == amphora.c.load_balancer_id))
        .where(is_one_of(amphora.c.id, size))
    )


_REFERENCES: dict[Kind, dict[str, Callable[[int], Select[Any]]]] = {
    Kind.LOAD_BALANCER: {
        "listeners": _by_age(schema.listener, "load_balancer_id"),
        "pools": _by_age(schema.pool, "load_balancer_id"),
    },
    Kind.LISTENER: {"l7_policies": _policies_by_position},
    Kind.POOL: {
        "listeners": _attached_listeners,
        "members": _by_age(schema.member, "pool_id"),
        "health_monitor": _by_age(schema.health_monitor, "pool_id"),
    },
    Kind.MEMBER: {},
    Kind.HEALTH_MONITOR: {},
    Kind.L7_POLICY: {"l7_rules": _by_age(schema.l7_rule, "l7_policy_id")},
    Kind.L7_RULE: {},
    Kind.AMPHORA: {"ha_ip": _vip_part("vip_address"), "ha_port_id": _vip_part("vip_port_id")},
    Kind.QUOTA: {},
    Kind.FLAVOR: {},
    Kind.FLAVOR_PROFILE: {},
    Kind.AVAILABILITY_ZONE: {},
    Kind.AVAILABILITY_ZONE_PROFILE: {},
}


def references_of(tx: Transaction, kind: Kind, ids: Sequence[str]) -> list[dict[str, tuple[str, ...]]]:
    """For each of these objects what it refers to (Listed.references says what that is), in the order of the ids."""
    names = _REFERENCES[kind]
    if not ids or not names:
        return [{} for _ in ids]
    found: dict[str, dict[str, list[str]]] = {}
    for name in names:
        of_owner: dict[str, list[str]] = defaultdict(list)
        for part in chunks(ids, _MOST_IDS_AT_ONCE):
            size = padded_size(len(part))
            for owner, reference in tx.rows(_reference_statement(kind, name, size), padded(part, size)):
                of_owner[owner].append(reference)
        found[name] = of_owner
    return [{name: tuple(of_owner.get(x, ())) for name, of_owner in found.items()} for x in ids]


@cache
def _reference_statement(kind: Kind, name: str, size: int) -> Statement:
    return Statement(_REFERENCES[kind][name](size))
