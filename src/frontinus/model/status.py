"""The two state machines, as tables. `move_*` is the only way to a new status; an illegal move names both.

Provisioning status is derived from wishes and what became of them: the table says which reports may follow which."""

from __future__ import annotations

from frontinus.model.enums import AmphoraStatus, Kind, OperatingStatus, ProvisioningStatus
from frontinus.model.errors import Bug

_P = ProvisioningStatus
_A = AmphoraStatus
_O = OperatingStatus

PROVISIONING_MOVES: dict[ProvisioningStatus, frozenset[ProvisioningStatus]] = {
    _P.PENDING_CREATE: frozenset({_P.PENDING_CREATE, _P.ACTIVE, _P.ERROR, _P.PENDING_DELETE}),
    _P.PENDING_UPDATE: frozenset({_P.PENDING_UPDATE, _P.ACTIVE, _P.ERROR, _P.PENDING_DELETE}),
    _P.ACTIVE: frozenset({_P.ACTIVE, _P.PENDING_UPDATE, _P.PENDING_DELETE, _P.ERROR}),
    # ERROR heals to ACTIVE by itself when the cause goes away; a failed deletion goes on to DELETED.
    _P.ERROR: frozenset({_P.ERROR, _P.ACTIVE, _P.PENDING_UPDATE, _P.PENDING_DELETE, _P.DELETED}),
    _P.PENDING_DELETE: frozenset({_P.PENDING_DELETE, _P.DELETED, _P.ERROR}),
    _P.DELETED: frozenset({_P.DELETED}),
}

AMPHORA_MOVES: dict[AmphoraStatus, frozenset[AmphoraStatus]] = {
    _A.PENDING_CREATE: frozenset({_A.PENDING_CREATE, _A.BOOTING, _A.ERROR, _A.PENDING_DELETE}),
    _A.BOOTING: frozenset({_A.BOOTING, _A.READY, _A.ALLOCATED, _A.ERROR, _A.PENDING_DELETE}),
    # Whatever dies before it serves is built again under its id.
    _A.READY: frozenset({_A.READY, _A.BOOTING, _A.ALLOCATED, _A.ERROR, _A.PENDING_DELETE}),
    _A.ALLOCATED: frozenset({_A.ALLOCATED, _A.BOOTING, _A.ERROR, _A.FAILOVER_STOPPED, _A.PENDING_DELETE}),
    _A.FAILOVER_STOPPED: frozenset({_A.FAILOVER_STOPPED, _A.ALLOCATED, _A.ERROR, _A.PENDING_DELETE}),
    _A.ERROR: frozenset({_A.ERROR, _A.BOOTING, _A.PENDING_DELETE}),
    _A.PENDING_DELETE: frozenset({_A.PENDING_DELETE, _A.DELETED}),
    _A.DELETED: frozenset({_A.DELETED}),
}

OPERATING_STATUSES: dict[Kind, frozenset[OperatingStatus]] = {
    Kind.LOAD_BALANCER: frozenset({_O.ONLINE, _O.OFFLINE, _O.DEGRADED, _O.ERROR}),
    Kind.LISTENER: frozenset({_O.ONLINE, _O.OFFLINE, _O.DEGRADED, _O.ERROR}),
    Kind.POOL: frozenset({_O.ONLINE, _O.OFFLINE, _O.DEGRADED, _O.ERROR}),
    Kind.MEMBER: frozenset({_O.ONLINE, _O.OFFLINE, _O.ERROR, _O.DRAINING, _O.NO_MONITOR}),
    Kind.HEALTH_MONITOR: frozenset({_O.ONLINE, _O.OFFLINE}),
    Kind.L7_POLICY: frozenset({_O.ONLINE, _O.OFFLINE}),
    Kind.L7_RULE: frozenset({_O.ONLINE, _O.OFFLINE}),
}
"""Which operating statuses each kind can have (behaviours.yaml states.operating_status). A move between any two of
them is legal: they are observations."""


def move_provisioning(current: ProvisioningStatus, wanted: ProvisioningStatus) -> ProvisioningStatus:
    """`wanted`, if it may follow `current`. Raises Bug naming both if not."""
    if wanted not in PROVISIONING_MOVES[current]:
        raise Bug(f"provisioning status cannot go from {current} to {wanted}")
    return wanted


def move_amphora(current: AmphoraStatus, wanted: AmphoraStatus) -> AmphoraStatus:
    """`wanted`, if it may follow `current`. Raises Bug naming both if not."""
    if wanted not in AMPHORA_MOVES[current]:
        raise Bug(f"amphora status cannot go from {current} to {wanted}")
    return wanted


def after_edit(current: ProvisioningStatus) -> ProvisioningStatus:
    """The status of an object that an edit touched: what was never created yet is still being created."""
    if current in (_P.PENDING_CREATE, _P.PENDING_DELETE):
        return current
    return move_provisioning(current, _P.PENDING_UPDATE)
