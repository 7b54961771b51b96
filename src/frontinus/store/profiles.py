"""Flavors by id or name, and what they and availability zones stand for, which is the data of their profiles: for who works with
them and edits none.

Apart from offers.py, which loads what lists and edits need: controllers are started often and shall be there soon."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, bindparam, case, or_, select

from frontinus.model.errors import Invalid
from frontinus.model.ids import FlavorId
from frontinus.store import schema
from frontinus.store.engine import Transaction
from frontinus.store.statement import Statement

_flavor, _flavor_profile = schema.flavor.c, schema.flavor_profile.c
_zone, _zone_profile = schema.availability_zone.c, schema.availability_zone_profile.c


def _by_id_or_name(of_flavor: Select[Any]) -> Statement:
    is_its_id = _flavor.id == bindparam("which")
    # The name of one may be the id of another.
    first = case((is_its_id, 0), else_=1)
    found = of_flavor.where(or_(is_its_id, _flavor.name == bindparam("which")))
    return Statement(found.order_by(first).limit(bindparam(None, 1)))


_FLAVOR = _by_id_or_name(select(_flavor.id))
_OF_FLAVOR = _by_id_or_name(select(_flavor_profile.flavor_data).where(_flavor_profile.id == _flavor.flavor_profile_id))
_OF_ZONE = Statement(
    select(_zone_profile.availability_zone_data)
    .where(_zone_profile.id == _zone.availability_zone_profile_id)
    .where(_zone.name == bindparam("which"))
)


def find_flavor(tx: Transaction, which: str) -> FlavorId | None:
    """By its id, or else by its name."""
    row = tx.row(_FLAVOR, {"which": which})
    return None if row is None else FlavorId(row[0])


def flavor_data(tx: Transaction, which: str) -> str:
    """What the flavor of this id or name stands for. Raises Invalid where there is none."""
    row = tx.row(_OF_FLAVOR, {"which": which})
    if row is None:
        raise Invalid("flavor", f"there is no flavor {which!r}")
    return str(row[0])


def availability_zone_data(tx: Transaction, name: str) -> str:
    """What the availability zone stands for. Raises Invalid where there is none."""
    row = tx.row(_OF_ZONE, {"which": name})
    if row is None:
        raise Invalid("availability_zone", f"there is no availability zone {name!r}")
    return str(row[0])
