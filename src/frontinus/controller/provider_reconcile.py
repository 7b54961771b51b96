"""Bring one load balancer of a third-party provider to what is asked: the next call, its report, the next call.

A call is recorded before it is made, so that a report that comes before it returns is not lost, and counted as done when
the driver has reported the load balancer ACTIVE. One that was made by a process that died, or is not reported in time, is
made again; one that was made by another that lives is waited for as by that one: a driver may see a call twice after a crash, and never misses one. A failover that the driver refuses, or reports as
failed, is over all the same: it is a deed and no state to be reached, and each may cut connections off. Next: model/provider_calls.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Protocol

import structlog
from msgspec.structs import replace

from frontinus.controller.backoff import budget_of, is_reported_as_error
from frontinus.controller.metrics import ControllerMetrics
from frontinus.controller.reconcile import fault_of, timed
from frontinus.controller.secrets import Resolver
from frontinus.controller.settings import ControllerSettings
from frontinus.drivers.network.interface import NetworkDriver
from frontinus.drivers.secret.interface import SecretDriver
from frontinus.model.capabilities import Capabilities
from frontinus.model.certificates import NO_SECRETS, Secrets
from frontinus.model.cohorts import SILENT_AFTER, CohortName
from frontinus.model.enums import FaultPhase, Kind, ProvisioningStatus
from frontinus.model.errors import Bug, CallerError, FrontinusError, Retry, blaming
from frontinus.model.ids import ControllerId, LoadBalancerId
from frontinus.model.offer_questions import OfferAnswer, Offered, OfferQuestion
from frontinus.model.offers import read_object
from frontinus.model.provider_calls import FAILOVER, ProviderCall, essence, failover_of, next_call
from frontinus.model.tree import Fault, Listener, LoadBalancer, LoadBalancerTree, Pool
from frontinus.store import controllers, convergence, profiles, providers, trees
from frontinus.store.engine import Store, Transaction
from frontinus.store.leases import LONGEST_PAUSE, Lease
from frontinus.store.providers import ProviderRecord

log = structlog.get_logger()

DONE = ("ACTIVE", "DELETED")
MAX_CALLS = 10_000


class Provider(Protocol):
    """A provider's driver, as the controller needs it."""

    name: str
    version: str

    def offers(self) -> Capabilities:
        """What is published."""

    async def call(self, call: ProviderCall, secrets: Secrets, offered: Offered) -> None:
        """Make a call, with what is behind the references of its trees, and what flavor and zone of the load balancer stand for.
        Raises CallerError for what only another wish can cure, else Retry."""

    async def judge(self, question: OfferQuestion) -> OfferAnswer:
        """Whether the driver takes the data of a flavor or a zone. Raises nothing that an answer could say."""


class Clock(Protocol):
    def __call__(self) -> datetime:
        """The time."""


@dataclass(frozen=True)
class ProviderHands:
    """What a provider's controller works with. `report_wait` is how long the driver has to report a call."""

    id: ControllerId
    store: Store
    driver: Provider
    network: NetworkDriver
    secret: SecretDriver
    settings: ControllerSettings
    now: Clock
    report_wait: timedelta
    metrics: ControllerMetrics = field(default_factory=ControllerMetrics)

    @property
    def cohort(self) -> CohortName:
        """Controllers of one provider with one version of its driver."""
        return CohortName(self.driver.name, self.driver.version)


async def reconcile(lease: Lease, hands: ProviderHands) -> None:
    """Make calls until nothing remains, or a report must be awaited, or a fault is recorded. Raises LeaseLost."""
    left_out: dict[str, Fault] = {}
    failed: Fault | None = None
    for _ in range(MAX_CALLS):
        tree, record, requested_at = await hands.store.read(partial(_read, which=lease.load_balancer_id))
        if tree is None or tree.load_balancer.provisioning_status is ProvisioningStatus.DELETED:
            return
        if record.sent is not None:
            if not await _look_at_report(record, lease, tree, hands):
                return
            continue
        if record.reported is not None and failed is None:
            told = f"provider reports {record.reported} of {record.about or 'the load balancer'} after the failover"
            failed = _failed_failover(told, tree, hands)
        wanted = essence(tree)
        call = next_call(record.settled, None if wanted is None else wanted.without(left_out))
        if (
            call is None
            and wanted is not None
            and _is_failover_due(record, requested_at)
            and record.settled is not None
        ):
            call = failover_of(record.settled)
        if call is None:
            await _record_done(tree, wanted, record, left_out, failed, lease, hands)
            return
        error = await _make(call, record, requested_at, lease, hands)
        if error is None:
            continue
        if isinstance(error, CallerError) and call.name == FAILOVER:
            failed = _failed_failover(str(error), tree, hands)
            continue
        if isinstance(error, CallerError) and call.kind is not Kind.LOAD_BALANCER and call.before is None:
            # What the driver does not do is left out, with the fault on it, and the rest is carried.
            left_out[call.object_id] = replace(_fault(error, tree, hands), left_out=True)
            continue
        await _record_fault(_fault(error, tree, hands), lease, hands)
        return


def _read(tx: Transaction, which: LoadBalancerId) -> tuple[LoadBalancerTree | None, ProviderRecord, datetime | None]:
    return trees.read_tree(tx, which), providers.read(tx, which), providers.failover_requested_at(tx, which)


def _is_failover_due(record: ProviderRecord, requested_at: datetime | None) -> bool:
    return requested_at is not None and (record.failed_over_at is None or record.failed_over_at < requested_at)


def _offered(tx: Transaction, load_balancer: LoadBalancer) -> Offered:
    """What is in use keeps its data, so it is read when it is needed, and not kept twice."""
    flavor = zone = "{}"
    if load_balancer.flavor_id is not None:
        flavor = profiles.flavor_data(tx, load_balancer.flavor_id)
    if load_balancer.availability_zone is not None:
        zone = profiles.availability_zone_data(tx, load_balancer.availability_zone)
    return Offered(flavor=read_object(flavor, "flavor"), zone=read_object(zone, "availability_zone"))


async def _look_at_report(record: ProviderRecord, lease: Lease, tree: LoadBalancerTree, hands: ProviderHands) -> bool:
    """Whether to go on: the call is reported, or to be made again. A report that is still awaited is looked for later."""
    now, unsent = hands.now(), _unsent(record)
    is_failover = (record.sent or "").startswith(FAILOVER)
    if record.reported in DONE or (record.reported is not None and is_failover):
        over = replace(unsent, settled=record.then)
        if is_failover:
            over = replace(over, failed_over_at=record.sent_at)
        if record.reported not in DONE:
            over = replace(over, reported=record.reported, about=record.about)
        await hands.store.transact(lambda tx: providers.write(tx, lease, over))
        return True
    if record.reported is not None:
        error = Retry(
            f"provider reports {record.reported} of {record.about or 'the load balancer'} after {record.sent}",
            after=1.0,
            code="provider-error",
        )
    elif record.sent_at is None or (alive_until := await _sender_lives_until(record, lease, hands)) is None:
        log.info("call of a provider is made again", load_balancer_id=tree.id, call=record.sent)
        await hands.store.transact(lambda tx: providers.write(tx, lease, unsent))
        return True
    elif now < record.sent_at + hands.report_wait:
        until = min(record.sent_at + hands.report_wait, now + LONGEST_PAUSE, alive_until)
        await hands.store.transact(lambda tx: convergence.postpone(tx, lease, until, now))
        return False
    else:
        waited = hands.report_wait.total_seconds()
        error = Retry(
            f"the provider took {record.sent} and has reported nothing for {waited:g} s; the call is made again",
            after=1.0,
            code="provider-silent",
        )
    await hands.store.transact(lambda tx: providers.write(tx, lease, unsent))
    await _record_fault(_fault(error, tree, hands), lease, hands)
    return False


async def _sender_lives_until(record: ProviderRecord, lease: Lease, hands: ProviderHands) -> datetime | None:
    """For how long at least who made the call counts as there, and can still report it; None if he died.

    Another one that lives has given the lease back to wait for the report, and somebody asked for something meanwhile: the
    driver is at work on his call."""
    if record.sent_by == hands.id:
        return datetime.max.replace(tzinfo=UTC)
    sender = record.sent_by
    if sender is None or sender == lease.left_by:
        return None
    seen_at = await hands.store.read(partial(controllers.last_seen, controller_id=sender))
    alive_until = None if seen_at is None else seen_at + SILENT_AFTER
    return alive_until if alive_until is not None and hands.now() < alive_until else None


def _unsent(record: ProviderRecord) -> ProviderRecord:
    return ProviderRecord(
        load_balancer_id=record.load_balancer_id, settled=record.settled, failed_over_at=record.failed_over_at
    )


async def _make(
    call: ProviderCall,
    record: ProviderRecord,
    requested_at: datetime | None,
    lease: Lease,
    hands: ProviderHands,
) -> FrontinusError | None:
    # The wish for a failover may carry the time of another machine, whose clock is ahead; it is fulfilled all the same.
    sent_at = max(hands.now(), requested_at) if call.name == FAILOVER and requested_at is not None else hands.now()
    sent = replace(
        record,
        sent=f"{call.name} {call.object_id}",
        then=call.then,
        sent_by=hands.id,
        sent_at=sent_at,
        reported=None,
        about=None,
    )
    await hands.store.transact(lambda tx: providers.write(tx, lease, sent))
    try:
        load_balancer = (call.then or call.settled or _nothing(call)).load_balancer
        offered = await hands.store.read(lambda tx: _offered(tx, load_balancer))
        await hands.driver.call(call, await _secrets(call, hands), offered)
    except FrontinusError as error:
        is_over = call.name == FAILOVER and isinstance(error, CallerError)
        unsent = replace(record, failed_over_at=sent_at) if is_over else record
        await hands.store.transact(lambda tx: providers.write(tx, lease, unsent))
        return error
    log.info("provider called", load_balancer_id=lease.load_balancer_id, call=call.name, object_id=call.object_id)
    return None


def _nothing(call: ProviderCall) -> LoadBalancerTree:
    raise Bug(f"{call.name} is about no load balancer")


async def _secrets(call: ProviderCall, hands: ProviderHands) -> Secrets:
    """What is behind the references of the object that is made or changed, and of what hangs on it. A deletion needs none: what
    is unreadable by now must not keep it. Raises CallerError or Retry, about the object."""
    about = call.after
    if call.then is None or not isinstance(about, Listener | Pool):
        return NO_SECRETS
    alone = LoadBalancerTree(
        load_balancer=call.then.load_balancer,
        listeners=(about,) if isinstance(about, Listener) else (),
        pools=(about,) if isinstance(about, Pool) else (),
    )
    return await Resolver(hands.secret).resolve(alone)


async def _record_done(
    tree: LoadBalancerTree,
    wanted: LoadBalancerTree | None,
    record: ProviderRecord,
    left_out: dict[str, Fault],
    failed: Fault | None,
    lease: Lease,
    hands: ProviderHands,
) -> None:
    now, load_balancer = hands.now(), tree.load_balancer
    if wanted is not None:
        generation, failure = load_balancer.generation, failed or _told_failure(load_balancer)

        def settle(tx: Transaction) -> None:
            if record.reported is not None:
                providers.write(tx, lease, _unsent(record))
            convergence.record_settled(tx, lease, generation, now, excluding=left_out, failed=failure)

        await hands.store.transact(settle)
        return
    try:
        with blaming(Kind.LOAD_BALANCER, tree.id):
            await hands.network.release_vip(
                tree.id,
                load_balancer.vip,
                port_owned=load_balancer.vip_port_owned,
                additional=load_balancer.additional_vips,
            )
    except FrontinusError as error:
        # The driver's part is done, and is on record: the next try begins here.
        await _record_fault(_fault(error, tree, hands, FaultPhase.NETWORK), lease, hands)
        return

    def work(tx: Transaction) -> None:
        convergence.record_deleted(tx, lease, now)
        providers.forget(tx, tree.id)

    await hands.store.transact(work)


def _failed_failover(words: str, tree: LoadBalancerTree, hands: ProviderHands) -> Fault:
    message = f"{words}; it is not repeated: ask for another, or change the load balancer"
    fault = Fault(
        code="failover-failed",
        phase=FaultPhase.APPLY,
        message=message,
        since=hands.now(),
        permanent=True,
        object_kind=Kind.LOAD_BALANCER,
        object_id=tree.id,
    )
    log.warning("failover of a provider failed", load_balancer_id=tree.id, reason=words)
    hands.metrics.faults.labels(fault.code).inc()
    return fault


def _told_failure(load_balancer: LoadBalancer) -> Fault | None:
    """Of a failover. What was told stays until something is asked, whoever looks at it meanwhile."""
    fault = load_balancer.fault
    is_it = fault is not None and fault.code == "failover-failed"
    return fault if is_it and load_balancer.applied_generation == load_balancer.generation else None


def _fault(
    error: FrontinusError, tree: LoadBalancerTree, hands: ProviderHands, phase: FaultPhase = FaultPhase.APPLY
) -> Fault:
    now = hands.now()
    told = replace(fault_of(error, None, now), phase=phase)
    return timed(told, error, tree.load_balancer.fault, now, hands.settings)


async def _record_fault(fault: Fault, lease: Lease, hands: ProviderHands) -> None:
    now = hands.now()
    log.warning(
        "load balancer not settled",
        load_balancer_id=lease.load_balancer_id,
        code=fault.code,
        reason=fault.message,
        attempts=fault.attempts,
    )
    hands.metrics.faults.labels(fault.code).inc()
    as_error = is_reported_as_error(fault, now, budget_of(fault, hands.settings))
    await hands.store.transact(lambda tx: convergence.record_fault(tx, lease, fault, now, report_error=as_error))
