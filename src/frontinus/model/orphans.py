"""Whom the store knows, whom it does not although he has things outside, and since when that was seen. Values only."""

from __future__ import annotations

from datetime import datetime

import msgspec

from frontinus.model.belongings import Owner, OwnerKind
from frontinus.model.ids import AmphoraId, LoadBalancerId


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """Amphorae and load balancers that are not DELETED; spare amphorae are among the first."""

    amphorae: frozenset[AmphoraId]
    load_balancers: frozenset[LoadBalancerId]

    def has(self, owner: Owner) -> bool:
        match owner.kind:
            case OwnerKind.AMPHORA:
                return owner.id in self.amphorae
            case OwnerKind.LOAD_BALANCER:
                return owner.id in self.load_balancers
            case OwnerKind.NOBODY:
                return False


class Sighting(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody saw who swept, kept in the store so that the grace is one for all, and outlives each of them."""

    kind: OwnerKind
    owner_id: str
    first_seen_at: datetime
    seen_at: datetime

    @property
    def owner(self) -> Owner:
        return Owner(self.kind, self.owner_id)
