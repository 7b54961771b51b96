"""Bring one load balancer to what is asked of it: read the whole world, plan, take the first step, look again.

There is no create path and no update path. `reconcile` is handed a lease and returns when nothing remains to be done
for now; what could not be done is recorded as a fault with the time of the next try. It may be killed between any two
statements: whoever claims the load balancer next starts from the same rows. Next: plan.py, then act.py."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from functools import partial

import structlog
from msgspec.structs import replace

from frontinus.controller.act import Situation, act
from frontinus.controller.backoff import budget_of, continued, is_reported_as_error, pause
from frontinus.controller.hands import Hands
from frontinus.controller.omission import (
    carried_of,
    carries,
    carries_on_record,
    omitted_with,
    omitted_without_address,
    omitted_without_secret,
)
from frontinus.controller.plan import (
    NO_HOLDS,
    Sighting,
    carried_before_next_push,
    closing_generation,
    needs_look,
    plan,
    verdict,
)
from frontinus.controller.plugging import Plugging, plugging_of
from frontinus.controller.restraint import Hold, Restraint, holds_of
from frontinus.controller.secrets import Resolver, SecretsOutOfReach, SecretUnreadable
from frontinus.controller.settings import ControllerSettings, Outgrown
from frontinus.controller.steps import (
    PHASE_OF_STEP,
    ApplyConfiguration,
    AwaitAgent,
    DismissSuspicion,
    ForgetLoadBalancer,
    IntroducePeer,
    LookAgain,
    PlugAmphora,
    RecordSettled,
    Step,
)
from frontinus.drivers.amphora.interface import Rendered
from frontinus.drivers.compute.interface import LOSES_SIGHT, PlaceState
from frontinus.model.enums import FaultPhase, Kind, Topology
from frontinus.model.errors import (
    BindRefused,
    Bug,
    CallerError,
    FrontinusError,
    Gone,
    Incompatible,
    LeaseLost,
    NoFreeAddress,
    NoTurn,
    Rejected,
    Retry,
)
from frontinus.model.ids import AmphoraId, new_id
from frontinus.model.maintenance import mark_on
from frontinus.model.tree import Amphora, Fault, LoadBalancerTree
from frontinus.store import convergence, maintenance, receivers, trees
from frontinus.store.engine import Transaction
from frontinus.store.leases import LONGEST_PAUSE, Lease

log = structlog.get_logger()

NO_SIGHTINGS: Mapping[AmphoraId, Sighting] = {}

SUSPECT_AGAIN = timedelta(seconds=2)
"""What waits for a person is looked at again so soon while an amphora is suspected: should it be dead, there is work all the
same."""

MAX_ROUNDS = 200
"""More rounds than any load balancer needs; a plan that never ends is a bug, and shows as one."""

BIND_ADVICE = {
    "EADDRINUSE": "another program listens there; stop it, or give the listener another port",
    "EACCES": "this user may not bind ports below 1024; run Frontinus as root, lower net.ipv4.ip_unprivileged_port_start, "
    "or use a higher port",
    "EADDRNOTAVAIL": "this machine does not have the address; choose another VIP address",
}


async def reconcile(lease: Lease, hands: Hands) -> bool:
    """Converge the leased load balancer; whether the lease was given back with the last record. Raises LeaseLost when
    another controller took over; nothing else: what goes wrong is a fault on the load balancer, with a time for the next
    try."""
    left_out: dict[str, Fault] = {}
    judged_at = 0  # the generation whose objects were left out
    unnoted = False  # whether some of it was left out because nobody serves, and that is not on record yet
    doubted: set[AmphoraId] = set()
    dismissed: set[AmphoraId] = set()
    without_turn: Hold | None = None
    pushed: dict[AmphoraId, int] = {}
    plugged: set[AmphoraId] = set()
    outgrown: set[AmphoraId] = set()
    unspeaking: set[AmphoraId] = set()
    settled = False
    resolver = Resolver(hands.secret)
    tree: LoadBalancerTree | None = None
    before: LoadBalancerTree | None = None  # the tree as it was in the last round, if only little can have changed
    known: LoadBalancerTree | None = None  # what the tree is now, when the last step left no doubt of it
    step: Step | None = None
    rounds = 0
    while rounds < MAX_ROUNDS:
        rounds += 1
        tree, known = known or await _read(lease, before, hands), None
        if tree is None:
            return False  # deleted for good, by whoever held the lease before
        tree = before = replace(tree, fence=lease.epoch)
        if tree.load_balancer.generation != judged_at:
            # An edit came, perhaps the one that mends what was left out: it is judged anew.
            left_out, judged_at, unnoted = {}, tree.load_balancer.generation, False
            outgrown.clear()
            resolver.forget_failures()
        step = None
        sightings, holds = NO_SIGHTINGS, NO_HOLDS
        try:
            sightings = await _look(tree, hands)
            holds = await _holds(tree, sightings, without_turn, hands)
            if unnoted and _is_served(tree, sightings, holds, hands):
                left_out, unnoted = {}, False  # who was taken for dead is back, or is left alone
            elif unnoted and not any(carries_on_record(x) for x in tree.amphorae):
                await _note_left_out(left_out, lease, tree, hands)
                before, unnoted = None, False
                continue
            carried = carried_of(tree, left_out)
            rendered = await _render(carried, resolver, hands)
            steps = plan(
                tree,
                sightings,
                {amphora_id: x.digest for amphora_id, x in rendered.items()},
                hands.now(),
                hands.settings,
                _fresh_ids(),
                partial=bool(left_out),
                recorded=settled and bool(left_out),
                plugging=_plugging(carried, hands),
                holds=holds,
                grace=hands.grace.since,
                plugged=plugged,
                outgrown=outgrown,
                unspeaking=unspeaking,
                boot_timeout=hands.boot_timeout,
            )
            if not steps and settled:
                return False
            # Nothing to do for a load balancer that was due is an outcome too: recorded, it is due no more.
            steps = steps or (RecordSettled(tree.load_balancer.generation),)
            step = steps[0]
            if isinstance(step, DismissSuspicion):
                if step.amphora_id in dismissed:
                    return False  # it arose since the lease was taken, and is looked into under the next
                dismissed.add(step.amphora_id)
            carried_already = carried_before_next_push(steps, pushed)
            if carried_already is not None:
                step = RecordSettled(carried_already)
            closing = None if left_out or carried_already is not None else closing_generation(steps, tree)
            outcome = await act(step, Situation(lease, tree, carried, rendered, left_out), hands, closing=closing)
            if isinstance(step, PlugAmphora):
                plugged.add(step.amphora_id)
        except LeaseLost:
            raise
        except NoTurn as error:
            without_turn = Hold(code="replacement-limit", message=f"the replacement of an amphora waits: {error}")
            continue
        except BindRefused as refused:
            left_out |= _refused_listeners(refused, tree, hands)
            continue
        except Exception as error:  # noqa: BLE001 - whatever it is becomes a fault, and the next try is set
            if without := _without_address(error, step, tree, left_out, hands):
                left_out |= without
                continue
            if await _agent_fell_silent(error, step, lease, tree, hands, doubted):
                continue
            if await _agent_is_outgrown(error, step, tree, hands, outgrown):
                continue
            if isinstance(error, Incompatible) and isinstance(step, IntroducePeer):
                # Its peer is new already, and better unannounced for the moment until this one is replaced than idle for ever.
                log.warning("amphora cannot be told of its new peer", amphora_id=step.amphora_id, reason=str(error))
                unspeaking.add(step.amphora_id)
                continue
            served = _is_served(tree, sightings, holds, hands)
            if omitted := _omitted(error, step, tree, left_out, hands, served=served):
                left_out |= omitted
                unnoted = unnoted or not served
                rounds -= 1  # bounded by the number of objects and references: each is left out once in a generation
                continue
            await _record_fault(error, step, lease, tree, hands)
            return False
        if outcome.ended and closing is not None:
            _tell_outcome(RecordSettled(closing), tree, left_out, hands)
            return True
        known = outcome.tree
        if isinstance(step, LookAgain):
            hands.metrics.reconciles.labels("waiting").inc()
            return False
        if isinstance(step, RecordSettled | ForgetLoadBalancer):
            before = None  # statuses were settled below it
            _tell_outcome(step, tree, left_out, hands)
            if carried_already is not None:
                # A burst of edits. What is carried is settled; what comes within the window goes with the next push.
                pushed.clear()
                rounds = 0
                resolver = Resolver(hands.secret)  # what changed in the store is seen although the work does not end
                await asyncio.sleep(hands.settings.coalesce_window.total_seconds())
                continue
            if isinstance(step, ForgetLoadBalancer) or (left_out and len(steps) == 1):
                return False
            settled = True
        else:
            settled = False
        if isinstance(step, AwaitAgent) and left_out:
            # It took its time: what could not be carried then may be by now. It is left out anew if not.
            left_out, unnoted = {}, False
            resolver.forget_failures()
        if isinstance(step, ApplyConfiguration):
            pushed[step.amphora_id] = tree.load_balancer.generation
            plugged.discard(step.amphora_id)
    if tree is not None:
        await _record_fault(Bug(f"the plan does not end: {step!r} after {MAX_ROUNDS} rounds"), step, lease, tree, hands)
    return False


async def _read(lease: Lease, before: LoadBalancerTree | None, hands: Hands) -> LoadBalancerTree | None:
    """The whole tree for the first round, what can have changed for the others."""
    if before is None:
        return await hands.trees.read(lease.load_balancer_id)
    return await hands.store.read(lambda tx: trees.read_again(tx, before))


def _tell_outcome(
    step: RecordSettled | ForgetLoadBalancer, tree: LoadBalancerTree, left_out: Mapping[str, Fault], hands: Hands
) -> None:
    deleted = isinstance(step, ForgetLoadBalancer)
    hands.metrics.reconciles.labels("deleted" if deleted else "partial" if left_out else "settled").inc()
    for fault in left_out.values():
        hands.metrics.faults.labels(fault.code).inc()
    if isinstance(step, ForgetLoadBalancer):
        log.info("load balancer deleted", load_balancer_id=tree.id, generation=tree.load_balancer.generation)
    elif not left_out:
        log.info("load balancer settled", load_balancer_id=tree.id, generation=step.generation)
    else:
        log.warning(
            "load balancer settled without some objects",
            load_balancer_id=tree.id,
            generation=step.generation,
            left_out={object_id: fault.message for object_id, fault in left_out.items()},
        )


def _fresh_ids() -> Iterator[AmphoraId]:
    while True:
        yield AmphoraId(new_id())


async def _look(tree: LoadBalancerTree, hands: Hands) -> dict[AmphoraId, Sighting]:
    """Ask compute and agent about those amphorae of which more must be known than their receipts say."""
    doubtful = [x for x in tree.amphorae if needs_look(tree, x)]
    seen = await asyncio.gather(*(_sight(x, tree, hands) for x in doubtful))
    return {amphora.id: sighting for amphora, sighting in zip(doubtful, seen, strict=True)}


async def _sight(amphora: Amphora, tree: LoadBalancerTree, hands: Hands) -> Sighting:
    place = await hands.compute.get_known(amphora.id, amphora.compute_id)
    answering: bool | None = None
    # Of whom compute knows that nothing runs there nobody is asked: where an address has gone, that takes seconds.
    is_unseen = place.state is PlaceState.ABSENT and LOSES_SIGHT in hands.compute.features
    is_gone = place.state is PlaceState.ABSENT and not is_unseen
    is_empty = is_gone or (place.state is PlaceState.STOPPED and place.balancing is False)
    if amphora.suspected_at is not None and amphora.management_address is not None and not is_empty:
        try:
            await hands.amphora_driver.info(amphora, tree)
            answering = True
            if is_unseen:
                log.warning("compute does not show an amphora that serves", amphora_id=amphora.id)
        except (Retry, Gone, Incompatible):
            answering = False
    return Sighting(place=place, answering=answering)


def _plugging(carried: LoadBalancerTree, hands: Hands) -> dict[AmphoraId, Plugging] | None:
    return {x.id: plugging_of(carried, x) for x in carried.amphorae} if hands.has_ports else None


async def _holds(
    tree: LoadBalancerTree, sightings: Mapping[AmphoraId, Sighting], without_turn: Hold | None, hands: Hands
) -> Mapping[AmphoraId, Hold]:
    """Which amphorae are left alone whatever the witnesses say. The store is asked only if one of them is suspected."""
    suspects = [x for x in tree.amphorae if x.suspected_at is not None and x.id in sightings]
    if not suspects:
        return NO_HOLDS
    restraint = await hands.store.read(_restraint)
    held = holds_of(suspects, {x: y.place for x, y in sightings.items()}, restraint, hands.now())
    return held if without_turn is None else {**dict.fromkeys((x.id for x in suspects), without_turn), **held}


def _restraint(tx: Transaction) -> Restraint:
    return Restraint(marks=tuple(maintenance.marks(tx)), receivers=tuple(receivers.all_receivers(tx)))


async def _render(carried: LoadBalancerTree, resolver: Resolver, hands: Hands) -> dict[AmphoraId, Rendered]:
    if carried.load_balancer.delete_requested:
        return {}
    secrets = await resolver.resolve(carried)
    return {x.id: hands.amphora_driver.render(carried, x, secrets) for x in carried.amphorae}


def _refused_listeners(refused: BindRefused, tree: LoadBalancerTree, hands: Hands) -> dict[str, Fault]:
    """A fault for each listener that got no port. The others are carried without them."""
    now = hands.now()
    faults: dict[str, Fault] = {}
    for bind in refused.binds:
        listener = tree.listener(bind.listener_id)
        if listener is None:
            continue
        advice = BIND_ADVICE.get(bind.errno, "see the agent's log")
        fault = continued(
            Fault(
                code="bind-refused",
                phase=FaultPhase.APPLY,
                message=f"{bind.address} port {bind.port} cannot be bound ({bind.errno}): {advice}",
                since=now,
                object_kind=Kind.LISTENER,
                object_id=listener.id,
                left_out=True,
            ),
            listener.fault,
        )
        after = pause(fault.attempts, hands.settings.backoff_base, hands.settings.bind_retry_cap, random.random())
        faults[listener.id] = replace(fault, retry_at=now + after)
    if not faults:
        raise Retry(f"addresses of no known listener were refused: {refused}", after=1.0, code="bind-refused")
    return faults


def _is_served(
    tree: LoadBalancerTree, sightings: Mapping[AmphoraId, Sighting], holds: Mapping[AmphoraId, Hold], hands: Hands
) -> bool:
    """Whether an amphora carries what was carried before, so that it is missed if it is left out."""
    now, settings = hands.now(), hands.settings
    return any(
        carries(
            x,
            verdict(
                x,
                sightings.get(x.id, Sighting()),
                now,
                settings,
                grace=hands.grace.since,
                hold=holds.get(x.id),
                boot_timeout=hands.boot_timeout,
            ),
        )
        for x in tree.amphorae
    )


def _omitted(
    error: Exception,
    step: Step | None,
    tree: LoadBalancerTree,
    left_out: Mapping[str, Fault],
    hands: Hands,
    *,
    served: bool,
) -> dict[str, Fault]:
    """A fault for each object that is left out, or carried without something, because of an error about one of them; none if
    nothing can be."""
    subject = error.subject if isinstance(error, FrontinusError) else None
    if subject is None:
        return {}
    before = next((x.fault for x in tree.children() if x.id == subject.id), None)
    return left_out_by(error, _timed_fault(error, step, before, hands), tree, left_out, served=served)


def left_out_by(
    error: Exception, fault: Fault, tree: LoadBalancerTree, left_out: Mapping[str, Fault], *, served: bool
) -> dict[str, Fault]:
    """What an error about an object leaves out beside what is left out already, each with this fault; nothing if it cannot
    be. `served` as for omission.py."""
    if not isinstance(error, Rejected | CallerError | Retry) or error.subject is None:
        return {}
    carried = carried_of(tree, left_out)
    omitted: Mapping[str, tuple[str, ...]] | None
    if isinstance(error, SecretUnreadable | SecretsOutOfReach):
        omitted = omitted_without_secret(carried, error.use, served=served)
    elif error.subject.id in left_out:
        return {}
    else:
        found = omitted_with(carried, error.subject, served=served)
        omitted = None if found is None else dict.fromkeys(found, ())
    return {
        x: _partly(fault, references, left_out.get(x)) if references else replace(fault, left_out=True)
        for x, references in (omitted or {}).items()
    }


def _partly(fault: Fault, references: tuple[str, ...], already: Fault | None) -> Fault:
    """The fault of an object that is carried without these references, and without those that it was without already."""
    known = () if already is None else already.without
    return replace(
        fault,
        message=f"{fault.message}; the rest of it is carried",
        left_out=False,
        without=(*known, *references),
    )


async def _note_left_out(left_out: Mapping[str, Fault], lease: Lease, tree: LoadBalancerTree, hands: Hands) -> None:
    """On record before anything is built for the rest, and not before whatever carried it is given up: as long as it stands on
    record it may come back, and then it is missed."""
    generation, now = tree.load_balancer.generation, hands.now()
    await hands.store.transact(lambda tx: convergence.record_left_out(tx, lease, generation, left_out, now))


def _without_address(
    error: Exception, step: Step | None, tree: LoadBalancerTree, left_out: Mapping[str, Fault], hands: Hands
) -> dict[str, Fault]:
    """A fault for each member that is left out because its subnet has no address for an amphora; none if none can be."""
    if not (isinstance(error, NoFreeAddress) and isinstance(step, PlugAmphora)):
        return {}
    omitted = omitted_without_address(carried_of(tree, left_out), step.amphora_id, error.subnet_id)
    members = [x for x in tree.members if x.id in omitted]
    before = next((x.fault for x in members if x.fault is not None), None)
    fault = replace(_timed_fault(error, step, before, hands), left_out=True, object_kind=Kind.MEMBER)
    return {x.id: replace(fault, object_id=x.id) for x in members}


async def _agent_fell_silent(
    error: Exception,
    step: Step | None,
    lease: Lease,
    tree: LoadBalancerTree,
    hands: Hands,
    doubted: set[AmphoraId],
) -> bool:
    """An amphora that cannot be reached for a push is suspected at once; the next round looks at it closely. Says
    whether it was so, and not suspected already.

    Only once per claim, which `doubted` remembers: an agent that answers questions and still takes no push (its disk is
    full) is in trouble but not silent, and doubting it again would only go round in a circle."""
    if not (isinstance(error, Retry) and isinstance(step, ApplyConfiguration | IntroducePeer | PlugAmphora)):
        return False
    if isinstance(error, NoFreeAddress):
        return False  # nobody has asked the agent yet
    amphora = next((x for x in tree.amphorae if x.id == step.amphora_id), None)
    if amphora is None or amphora.suspected_at is not None or amphora.id in doubted:
        return False
    doubted.add(amphora.id)
    suspect = replace(amphora, suspected_at=hands.now(), updated_at=hands.now())
    await hands.store.transact(lambda tx: convergence.update_amphora(tx, lease, suspect))
    return True


async def _agent_is_outgrown(
    error: Exception, step: Step | None, tree: LoadBalancerTree, hands: Hands, outgrown: set[AmphoraId]
) -> bool:
    """An amphora that served until now and is of no version that can carry what is wanted is to be replaced from the
    current image: the lazy upgrade. Says whether it was so, which `outgrown` remembers; the next round plans what is done.

    One that has never carried anything is of the current image: another one would be no better, and that is a fault."""
    if not (isinstance(error, Incompatible) and isinstance(step, ApplyConfiguration)):
        return False
    if hands.settings.outgrown_amphorae is Outgrown.REFUSE:
        return False
    amphora = next((x for x in tree.amphorae if x.id == step.amphora_id), None)
    if amphora is None or amphora.receipt is None:
        return False
    if tree.load_balancer.topology is not Topology.SINGLE and not hands.amphora_driver.introduces:
        return False  # the one that is left could not be told of a new one: both go on as they are
    if amphora.replacement_requested_at is None:
        marks = await hands.store.read(maintenance.marks)
        if mark_on(amphora.id, amphora.load_balancer_id, amphora.host, marks, hands.now()) is not None:
            return False  # nothing is replaced under it, and the fault is tried again
    log.info("amphora is outgrown", load_balancer_id=tree.id, amphora_id=amphora.id, reason=str(error))
    outgrown.add(amphora.id)
    return True


def fault_of(error: Exception, step: Step | None, now: datetime) -> Fault:
    """Say of an error who has to do what, and which object it is about."""
    phase = FaultPhase.RENDER if step is None else PHASE_OF_STEP[type(step)]
    if isinstance(error, SecretUnreadable | SecretsOutOfReach):
        phase = FaultPhase.SECRET
    subject = error.subject if isinstance(error, FrontinusError) else None
    told = partial(
        Fault,
        phase=phase,
        since=now,
        object_kind=None if subject is None else subject.kind,
        object_id=None if subject is None else subject.id,
    )
    match error:
        case Rejected():
            return told(code="rejected", message=str(error), permanent=True)
        case SecretUnreadable():
            return told(code="secret-unreadable", message=str(error), permanent=True)
        case CallerError():
            return told(code="invalid", message=str(error), permanent=True)
        case Retry():
            return told(code=error.code, message=error.reason, outage=error.is_outage)
        case Incompatible():
            return told(code="incompatible-amphora", message=str(error))
        case Gone():
            return told(code="amphora-gone", message=str(error))
        case _:
            message = f"a fault of Frontinus itself ({type(error).__name__}); the controller's log has the details"
            return told(code="bug", message=message)


def _timed_fault(error: Exception, step: Step | None, before: Fault | None, hands: Hands) -> Fault:
    now = hands.now()
    return timed(fault_of(error, step, now), error, before, now, hands.settings)


def timed(told: Fault, error: Exception, before: Fault | None, now: datetime, settings: ControllerSettings) -> Fault:
    """The fault, which `error` is told by, as the continuation of the one before, with the time of the next try."""
    fault = continued(told, before)
    if fault.permanent:
        return fault
    asked = timedelta(seconds=error.after) if isinstance(error, Retry) else timedelta(0)
    after = max(asked, pause(fault.attempts, settings.backoff_base, settings.backoff_cap, random.random()))
    after = min(after, LONGEST_PAUSE)
    budget_left = fault.since + budget_of(fault, settings) - now
    if budget_left > timedelta(0):
        after = min(after, budget_left)  # the try at its end turns PENDING into ERROR, whatever pause was asked for
    return replace(fault, retry_at=now + after)


async def _record_fault(
    error: Exception, step: Step | None, lease: Lease, tree: LoadBalancerTree, hands: Hands
) -> None:
    now = hands.now()
    fault = _timed_fault(error, step, tree.load_balancer.fault, hands)
    if fault.permanent and any(x.suspected_at is not None for x in tree.amphorae):
        fault = replace(fault, retry_at=now + SUSPECT_AGAIN)
    blamed = next((x.fault for x in tree.children() if x.id == fault.object_id), None)
    if blamed is not None and blamed.without:
        fault = replace(fault, without=blamed.without)  # it is carried without these still
    log.warning(
        "load balancer not settled",
        load_balancer_id=tree.id,
        code=fault.code,
        phase=fault.phase.value,
        reason=fault.message,
        attempts=fault.attempts,
        exc_info=error if fault.code == "bug" else None,
    )
    hands.metrics.reconciles.labels("fault").inc()
    hands.metrics.faults.labels(fault.code).inc()
    as_error = is_reported_as_error(fault, now, budget_of(fault, hands.settings))
    await hands.store.transact(lambda tx: convergence.record_fault(tx, lease, fault, now, report_error=as_error))
