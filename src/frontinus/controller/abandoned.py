"""Say of load balancers whose driver has no controllers what they wait for.

Nobody of their own could: the last was stopped, or cannot start. So any controller of another driver says it, under a lease
like any other, and leaves them due: whoever comes back for them goes on at once. Whose absence counts: attendance.py. Next: store/leases.py."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import structlog

from frontinus.controller.attendance import Attendance
from frontinus.controller.backoff import is_reported_as_error
from frontinus.controller.settings import ControllerSettings
from frontinus.model.cohorts import SILENT_AFTER, Cohort
from frontinus.model.enums import FaultPhase
from frontinus.model.ids import ControllerId
from frontinus.model.tree import Fault
from frontinus.store import cohorts, convergence, leases, trees
from frontinus.store.engine import Store, Transaction

log = structlog.get_logger()

MOST_AT_ONCE = 100
AGAIN_AFTER = timedelta(seconds=10)
"""They are due again after this, so that whoever comes back has them soon, and that those who tell it do little."""


async def tell_abandoned(
    store: Store, owner: ControllerId, settings: ControllerSettings, now: Callable[[], datetime], attendance: Attendance
) -> int:
    """Of how many it was told. `attendance` is of the caller."""
    moment = now()
    known = await store.read(cohorts.all_cohorts)
    absent = {x.name for x in abandoned(attendance.of(known, moment), moment)}
    told = 0
    for cohort in known:
        if cohort.name not in absent:
            continue

        def work(tx: Transaction, cohort: Cohort = cohort) -> int:
            return _tell(tx, owner, cohort, settings, moment)

        count = await store.transact(work)
        if count:
            log.warning("load balancers wait for a controller", driver=cohort.driver, count=count)
        told += count
    return told


def abandoned(known: list[Cohort], now: datetime) -> list[Cohort]:
    """Cohorts of drivers of which no controller lives in any version, and has not for a while: those of others are taken over,
    and one that is restarted comes back."""
    served = {x.driver for x in known if x.is_served(now)}
    return [x for x in known if x.driver not in served and (x.seen_at is None or x.seen_at <= now - SILENT_AFTER)]


def _tell(tx: Transaction, owner: ControllerId, cohort: Cohort, settings: ControllerSettings, now: datetime) -> int:
    claimed = leases.claim_due(tx, owner, cohort.name, now, settings.lease_duration, MOST_AT_ONCE)
    known = trees.read_trees(tx, [x.load_balancer_id for x in claimed])
    for lease in claimed:
        tree = known.get(lease.load_balancer_id)
        if tree is not None:
            before = tree.load_balancer.fault
            is_told = before is not None and before.code == "no-controller"
            fault = Fault(
                code="no-controller",
                phase=FaultPhase.APPLY,
                message=_message(cohort),
                since=before.since if before is not None and is_told else now,
                retry_at=now + AGAIN_AFTER,
            )
            as_error = is_reported_as_error(fault, now, settings.retry_budget)
            convergence.record_fault(tx, lease, fault, now, report_error=as_error)
        leases.release(tx, lease)
    return len(claimed)


def _message(cohort: Cohort) -> str:
    provider = cohort.driver.removeprefix("provider:")
    how = f"--provider {provider}" if provider != cohort.driver else f"--driver {cohort.driver}"
    seen = "" if cohort.seen_at is None else f", and has not since {cohort.seen_at:%Y-%m-%d %H:%M} UTC"
    return f"no controller of {cohort.driver} runs{seen}; it goes on as soon as one does: frontinus controller {how}"
