"""What is live on the amphorae of a load balancer, and whether it is what is wanted. Pure.

An amphora's receipt is what it acknowledged last (model/tree.py); here it is judged against the load balancer."""

from __future__ import annotations

from datetime import datetime

import msgspec

from frontinus.model.cohorts import CohortName
from frontinus.model.enums import AmphoraRole, AmphoraStatus
from frontinus.model.ids import AmphoraId
from frontinus.model.tree import LoadBalancerTree

_GONE = (AmphoraStatus.PENDING_DELETE, AmphoraStatus.DELETED)


class Live(msgspec.Struct, frozen=True, kw_only=True):
    """What one amphora runs; all None where it never acknowledged anything. `as_wanted` says that every wish so far is
    carried out and this amphora serves. `current_driver` says that the driver that serves the load balancer now rendered it,
    in its present version."""

    amphora_id: AmphoraId
    role: AmphoraRole
    status: AmphoraStatus
    generation: int | None = None
    digest: str | None = None
    driver: str | None = None
    driver_version: str | None = None
    amphora_version: str | None = None
    balancer_version: str | None = None
    action: str | None = None
    since: datetime | None = None
    as_wanted: bool = False
    current_driver: bool = False


def receipts_of(tree: LoadBalancerTree, cohort: CohortName | None) -> tuple[Live, ...]:
    """A record for each amphora that is not going away, in the order of the tree."""
    load_balancer = tree.load_balancer
    is_settled = load_balancer.applied_generation == load_balancer.generation and not load_balancer.delete_requested
    found = []
    for amphora in tree.amphorae:
        if amphora.status in _GONE:
            continue
        blank = Live(amphora_id=amphora.id, role=amphora.role, status=amphora.status)
        receipt = amphora.receipt
        if receipt is None:
            found.append(blank)
            continue
        found.append(
            msgspec.structs.replace(
                blank,
                generation=receipt.generation,
                digest=receipt.digest,
                driver=receipt.driver,
                driver_version=receipt.driver_version,
                amphora_version=receipt.amphora_version,
                balancer_version=receipt.balancer_version or amphora.balancer_version,
                action=receipt.action or None,
                since=receipt.applied_at,
                as_wanted=is_settled and amphora.status is AmphoraStatus.ALLOCATED,
                current_driver=cohort is not None
                and receipt.driver_version == cohort.driver_version
                and receipt.driver in (None, cohort.driver),
            )
        )
    return tuple(found)
