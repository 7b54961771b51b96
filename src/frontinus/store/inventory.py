"""What the store knows to exist, for whoever looks for what exists without being known. Read only."""

from __future__ import annotations

import msgspec
from sqlalchemy import select

from frontinus.model.enums import AmphoraStatus, ProvisioningStatus
from frontinus.model.ids import AmphoraId, LoadBalancerId
from frontinus.store import schema
from frontinus.store.engine import Transaction
from frontinus.store.statement import Statement

_AMPHORAE = Statement(
    select(schema.amphora.c.id, schema.amphora.c.status).where(schema.amphora.c.status != AmphoraStatus.DELETED.value)
)
_LOAD_BALANCERS = Statement(
    select(schema.load_balancer.c.id).where(
        schema.load_balancer.c.provisioning_status != ProvisioningStatus.DELETED.value
    )
)


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """`amphorae` maps each amphora that is not DELETED to whether it is meant to serve (ALLOCATED)."""

    amphorae: dict[AmphoraId, bool]
    load_balancers: frozenset[LoadBalancerId]


def known(tx: Transaction) -> Known:
    """Everything that may have something outside, in two selects."""
    return Known(
        amphorae={AmphoraId(row[0]): row[1] == AmphoraStatus.ALLOCATED.value for row in tx.rows(_AMPHORAE, {})},
        load_balancers=frozenset(LoadBalancerId(row[0]) for row in tx.rows(_LOAD_BALANCERS, {})),
    )
