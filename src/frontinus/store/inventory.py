"""What the store knows to exist, for whoever looks for what exists without being known. Read only."""

from __future__ import annotations

from datetime import datetime

import msgspec
from sqlalchemy import bindparam, or_, select

from frontinus.model.enums import AmphoraStatus, ProvisioningStatus
from frontinus.model.ids import AmphoraId, LoadBalancerId
from frontinus.store import schema
from frontinus.store.engine import Transaction
from frontinus.store.rows import to_microseconds
from frontinus.store.statement import Statement

_AMPHORAE = Statement(select(schema.amphora.c.id).where(schema.amphora.c.status != AmphoraStatus.DELETED.value))
_UNHEARD = Statement(
    select(schema.amphora.c.id)
    .where(
        schema.amphora.c.status == AmphoraStatus.ALLOCATED.value,
        schema.amphora.c.suspected_at.is_(None),
        or_(schema.amphora.c.seen_at.is_(None), schema.amphora.c.seen_at < bindparam("since")),
    )
    .order_by(schema.amphora.c.id)
)
_LOAD_BALANCERS = Statement(
    select(schema.load_balancer.c.id).where(
        schema.load_balancer.c.provisioning_status != ProvisioningStatus.DELETED.value
    )
)


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """Amphorae and load balancers that are not DELETED."""

    amphorae: frozenset[AmphoraId]
    load_balancers: frozenset[LoadBalancerId]


def known(tx: Transaction) -> Known:
    """Everything that may have something outside, in two selects."""
    return Known(
        amphorae=frozenset(AmphoraId(row[0]) for row in tx.rows(_AMPHORAE, {})),
        load_balancers=frozenset(LoadBalancerId(row[0]) for row in tx.rows(_LOAD_BALANCERS, {})),
    )


def unheard(tx: Transaction, since: datetime) -> list[AmphoraId]:
    """Amphorae that are meant to serve, are not suspected yet, and were never heard or not since then."""
    return [AmphoraId(row[0]) for row in tx.rows(_UNHEARD, {"since": to_microseconds(since)})]
