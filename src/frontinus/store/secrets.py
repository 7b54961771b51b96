"""Who refers to secrets: asked when one changed, and before one is taken away. A look at all listeners and pools that
speak TLS, which is rare enough not to be worth tables of its own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import bindparam, or_, select

from frontinus.model.enums import Kind
from frontinus.model.ids import LoadBalancerId, ProjectId
from frontinus.model.tree import ADOPTED
from frontinus.store import schema
from frontinus.store.engine import Transaction
from frontinus.store.health import make_due
from frontinus.store.rows import to_microseconds
from frontinus.store.statement import Statement


class SecretUser(msgspec.Struct, frozen=True):
    """An object that refers to a secret by a field."""

    kind: Kind
    id: str
    field: str
    load_balancer_id: LoadBalancerId
    project_id: ProjectId


_LISTENER, _POOL = schema.listener.c, schema.pool.c
_FIELDS: dict[Kind, tuple[str, ...]] = {
    Kind.LISTENER: (
        "default_tls_container_ref",
        "sni_container_refs",
        "client_ca_tls_container_ref",
        "client_crl_container_ref",
    ),
    Kind.POOL: ("tls_container_ref", "ca_tls_container_ref", "crl_container_ref"),
}
_COLUMNS: dict[Kind, Any] = {Kind.LISTENER: _LISTENER, Kind.POOL: _POOL}
_NO_REFERENCES = "[]"
_SELECT: dict[Kind, Statement] = {
    kind: Statement(
        select(columns.id, columns.load_balancer_id, columns.project_id, *(columns[field] for field in _FIELDS[kind]))
        .where(
            or_(
                *(
                    columns[field] != _NO_REFERENCES if field.endswith("_refs") else columns[field].is_not(None)
                    for field in _FIELDS[kind]
                )
            )
        )
        .order_by(columns.id)
    )
    for kind, columns in _COLUMNS.items()
}


_FAULTY: dict[Kind, Statement] = {
    kind: Statement(select(columns.load_balancer_id).where(columns.fault.like(bindparam("told"))))
    for kind, columns in _COLUMNS.items()
}
_ADOPTED = Statement(
    select(schema.amphora.c.load_balancer_id).where(
        schema.amphora.c.receipt.like(bindparam("told", f'%"action":"{ADOPTED}"%')),
        schema.amphora.c.load_balancer_id.is_not(None),
    )
)


def users(tx: Transaction) -> Mapping[str, tuple[SecretUser, ...]]:
    """Every reference that an object makes -> the objects, whether it has an effect there or not."""
    found: dict[str, list[SecretUser]] = defaultdict(list)
    for kind, statement in _SELECT.items():
        for row in tx.rows(statement, {}):
            object_id, load_balancer_id, project_id = row[:3]
            for field, value in zip(_FIELDS[kind], row[3:], strict=True):
                references = msgspec.json.decode(value, type=list[str]) if field.endswith("_refs") else [value]
                for reference in references:
                    if reference:
                        found[reference].append(SecretUser(kind, object_id, field, load_balancer_id, project_id))
    return {reference: tuple(held) for reference, held in found.items()}


def wake_users(tx: Transaction, references: Collection[str], now: datetime, *, spare_adopted: bool = False) -> int:
    """Have every load balancer looked at that refers to one of these; how many there are. `spare_adopted`: none whose amphorae
    still run what another installation gave them, which a look would replace."""
    known = users(tx)
    load_balancers = {user.load_balancer_id for reference in references for user in known.get(reference, ())}
    if load_balancers and spare_adopted:
        load_balancers -= {row[0] for row in tx.rows(_ADOPTED, {})}
    make_due(tx, load_balancers, to_microseconds(now), nudge=True)
    if load_balancers:
        tx.wake()
    return len(load_balancers)


def wake_faulty(tx: Transaction, code: str, now: datetime) -> int:
    """Have every load balancer looked at in which an object that may refer to secrets has a fault of this code; how many."""
    told = {"told": f'%"code":"{code}"%'}
    load_balancers: set[LoadBalancerId] = {row[0] for x in _FAULTY.values() for row in tx.rows(x, told)}
    make_due(tx, load_balancers, to_microseconds(now), nudge=True)
    if load_balancers:
        tx.wake()
    return len(load_balancers)
