"""What flavors and availability zones stand for: the data of their profiles, for who works with them and edits none.

Apart from offers.py, which loads what lists and edits need: controllers are started often and shall be there soon."""

from __future__ import annotations

from sqlalchemy import bindparam, case, or_, select

from frontinus.model.errors import Invalid
from frontinus.store import schema
from frontinus.store.engine import Transaction
from frontinus.store.statement import Statement

_flavor, _flavor_profile = schema.flavor.c, schema.flavor_profile.c
_zone, _zone_profile = schema.availability_zone.c, schema.availability_zone_profile.c

_OF_FLAVOR = Statement(
    select(_flavor_profile.flavor_data)
    .where(_flavor_profile.id == _flavor.flavor_profile_id)
    .where(or_(_flavor.id == bindparam("which"), _flavor.name == bindparam("which")))
    # The name of one may be the id of another.
    .order_by(case((_flavor.id == bindparam("which"), 0), else_=1))
    .limit(bindparam(None, 1))
)
_OF_ZONE = Statement(
    select(_zone_profile.availability_zone_data)
    .where(_zone_profile.id == _zone.availability_zone_profile_id)
    .where(_zone.name == bindparam("which"))
)


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
