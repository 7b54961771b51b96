"""Flavors, availability zones and their profiles: written here, read by listing.py.

Names of flavors and zones are unique, and a profile that something stands on stays: unique indexes and foreign keys
hold that against races; what is raised here says it in words first."""

from __future__ import annotations

from functools import cache
from typing import Any, TypeAlias

from sqlalchemy import bindparam, delete, insert, select, update

from frontinus.model.enums import Kind, ProvisioningStatus
from frontinus.model.errors import Conflict, NotFound
from frontinus.model.offers import AvailabilityZone, AvailabilityZoneProfile, Flavor, FlavorProfile
from frontinus.store import rows, schema
from frontinus.store.engine import Transaction
from frontinus.store.listing import key_of
from frontinus.store.rows import Shape
from frontinus.store.statement import Statement

Offer: TypeAlias = Flavor | FlavorProfile | AvailabilityZone | AvailabilityZoneProfile

_SHAPES: dict[Kind, Shape[Any]] = {
    Kind.FLAVOR: rows.FLAVOR,
    Kind.FLAVOR_PROFILE: rows.FLAVOR_PROFILE,
    Kind.AVAILABILITY_ZONE: rows.AVAILABILITY_ZONE,
    Kind.AVAILABILITY_ZONE_PROFILE: rows.AVAILABILITY_ZONE_PROFILE,
}
_NAMED_ONCE = (Kind.FLAVOR, Kind.AVAILABILITY_ZONE)
_owner = schema.load_balancer.c
_USERS: dict[Kind, tuple[Any, Any]] = {
    Kind.FLAVOR: (_owner.id, _owner.flavor_id),
    Kind.AVAILABILITY_ZONE: (_owner.id, _owner.availability_zone),
    Kind.FLAVOR_PROFILE: (schema.flavor.c.name, schema.flavor.c.flavor_profile_id),
    Kind.AVAILABILITY_ZONE_PROFILE: (
        schema.availability_zone.c.name,
        schema.availability_zone.c.availability_zone_profile_id,
    ),
}
"""Who uses it: what to call the user, and where it names what it uses."""


@cache
def _insert(kind: Kind) -> Statement:
    shape = _SHAPES[kind]
    return Statement(insert(shape.table).values({name: bindparam(name) for name in shape.columns}))


@cache
def _update(kind: Kind, columns: tuple[str, ...]) -> Statement:
    table = _SHAPES[kind].table
    return Statement(
        update(table)
        .where(table.c[key_of(kind)] == bindparam("which"))
        .values({name: bindparam(name) for name in columns})
    )


@cache
def _delete(kind: Kind) -> Statement:
    table = _SHAPES[kind].table
    return Statement(delete(table).where(table.c[key_of(kind)] == bindparam("which")))


@cache
def _named(kind: Kind) -> Statement:
    table = _SHAPES[kind].table
    return Statement(select(table.c[key_of(kind)]).where(table.c.name == bindparam("name")))


@cache
def _user(kind: Kind) -> Statement:
    name, reference = _USERS[kind]
    found = select(name).where(reference == bindparam("which"))
    if kind in _NAMED_ONCE:
        found = found.where(_owner.provisioning_status != ProvisioningStatus.DELETED.value)
    return Statement(found.limit(bindparam(None, 1)))


@cache
def _hold(kind: Kind) -> Statement:
    table = _SHAPES[kind].table
    return Statement(select(table.c[key_of(kind)]).where(table.c[key_of(kind)] == bindparam("which")).with_for_update())


def user_of(tx: Transaction, kind: Kind, key: str) -> str | None:
    """Something that uses it: the id of a load balancer that is not DELETED, or the name of a flavor or zone."""
    row = tx.row(_user(kind), {"which": key})
    return None if row is None else str(row[0])


def hold(tx: Transaction, kind: Kind, key: str) -> bool:
    """Keep it from being changed or removed until the transaction ends; whether it is there at all."""
    return tx.row(_hold(kind), {"which": key}) is not None


def add(tx: Transaction, offer: Offer) -> None:
    """Raises Conflict where the name is taken."""
    _require_free_name(tx, offer)
    shape = _SHAPES[offer.kind]
    tx.insert(_insert(offer.kind), shape.columns, [shape.encode(offer)])


def change(tx: Transaction, before: Offer, after: Offer) -> None:
    """Raises Conflict where a new name is taken."""
    if after.name != before.name:
        _require_free_name(tx, after)
    changed = _SHAPES[before.kind].changed(before, after)
    if changed:
        tx.run(_update(before.kind, tuple(changed)), {**changed, "which": key(before)})


def remove(tx: Transaction, kind: Kind, key: str) -> None:
    """Raises NotFound if there is none, Conflict while something uses it."""
    if not hold(tx, kind, key):
        raise NotFound(kind, f"there is no {kind.replace('_', ' ')} {key[:80]}")
    user = user_of(tx, kind, key)
    if user is not None:
        raise Conflict(kind, f"{key} is used by {user}")
    tx.run(_delete(kind), {"which": key})


def _require_free_name(tx: Transaction, offer: Offer) -> None:
    if offer.kind not in _NAMED_ONCE:
        return
    if tx.row(_named(offer.kind), {"name": offer.name}) is not None:
        raise Conflict(f"{offer.kind}.name", f"there is one with the name {offer.name!r} already")


def key(offer: Offer) -> str:
    """By what it is known: an id, or an availability zone's name."""
    return str(getattr(offer, key_of(offer.kind)))
