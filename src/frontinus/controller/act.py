"""Carry out one step through a driver, and record what came of it.

Every record is fenced by the lease. A step that fails raises; reconcile.py decides what that means. Nothing here
decides what to do next: plan.py does."""

from __future__ import annotations

import asyncio
import dataclasses
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import assert_never

import structlog
from msgspec.structs import replace

from frontinus.controller import places, plugging
from frontinus.controller.backoff import budget_of, continued, is_reported_as_error
from frontinus.controller.hands import Hands
from frontinus.controller.plan import is_leftover, newest_arrival
from frontinus.controller.steps import (
    PHASE_OF_STEP,
    ApplyConfiguration,
    AwaitAgent,
    BeginReplacement,
    BuildAmphora,
    CondemnAmphora,
    DestroyAmphora,
    DismissSuspicion,
    ForgetLoadBalancer,
    IntroducePeer,
    LookAgain,
    PlugAmphora,
    RecordAmphora,
    RecordSettled,
    Step,
    UnplugAmphora,
    WishReplacement,
)
from frontinus.drivers.amphora.interface import Rendered
from frontinus.drivers.compute.interface import APART
from frontinus.drivers.network.interface import KEEPS_CONNECTIONS
from frontinus.model.enums import AmphoraStatus, Kind, Topology
from frontinus.model.errors import Bug, CallerError, FrontinusError, Invalid, LeaseLost, Retry, Subject
from frontinus.model.ids import AmphoraId, NetworkId, PortId, SubnetId
from frontinus.model.network import VipRequest
from frontinus.model.ports import PortPurpose, PortRequest, port_for
from frontinus.model.status import move_amphora
from frontinus.model.tree import Amphora, Fault, LoadBalancer, LoadBalancerTree, Receipt, Vip
from frontinus.store import convergence
from frontinus.store.engine import Transaction
from frontinus.store.leases import Lease

log = structlog.get_logger()

LEFTOVER_PATIENCE = timedelta(seconds=3)
"""The same as `removal_patience` for one that is cut off: edits shall not wait for it."""

INTERFACE_PATIENCE_S, INTERFACE_POLL_S = 3.0, 0.05
"""How long an agent may not see what compute has attached, and the pause between two questions."""


@dataclass(frozen=True)
class Situation:
    """What a step is carried out against: the lease held, the tree as read, and what its amphorae shall run."""

    lease: Lease
    tree: LoadBalancerTree
    carried: LoadBalancerTree
    rendered: dict[AmphoraId, Rendered]
    left_out: dict[str, Fault]

    def amphora(self, amphora_id: AmphoraId) -> Amphora:
        found = next((x for x in self.tree.amphorae if x.id == amphora_id), None)
        if found is None:
            raise Bug(f"a step names amphora {amphora_id}, which is not recorded")
        return found


@dataclass(frozen=True)
class Outcome:
    """What is known after a step: the tree as it is now (None: it must be read anew), and whether that was the end, recorded
    as settled and the lease given back."""

    tree: LoadBalancerTree | None = None
    ended: bool = False


READ_ANEW = Outcome()


async def act(step: Step, situation: Situation, hands: Hands, *, closing: int | None = None) -> Outcome:
    """Carry out one step. When it returns, what the step says is true and recorded. Safe to repeat.

    `closing` is the generation that is settled with this step, when nothing remains after it: then the end is recorded with
    the step, unless something came meanwhile."""
    match step:
        case RecordAmphora():
            return await _record_amphora(step, situation, hands)
        case BeginReplacement():
            now = hands.now()
            turns = hands.settings.replacements_at_once if step.counted else None
            await hands.store.transact(lambda tx: convergence.begin_replacement(tx, situation.lease, now, turns=turns))
        case BuildAmphora():
            return await _build(step, situation, hands)
        case AwaitAgent():
            return await _await_agent(situation.amphora(step.amphora_id), situation, hands)
        case ApplyConfiguration():
            return await _apply(situation.amphora(step.amphora_id), situation, hands, closing)
        case IntroducePeer():
            return await _introduce(situation.amphora(step.amphora_id), situation, hands)
        case WishReplacement():
            now = hands.now()
            await hands.store.transact(
                lambda tx: convergence.request_replacement(tx, situation.lease, step.amphora_id, now)
            )
        case PlugAmphora():
            return await _plug(situation.amphora(step.amphora_id), situation, hands, exact=False)
        case UnplugAmphora():
            return await _plug(situation.amphora(step.amphora_id), situation, hands, exact=True)
        case DismissSuspicion():
            amphora = situation.amphora(step.amphora_id)
            return await _update(amphora, situation, hands, suspected_at=None, seen_at=hands.now())
        case CondemnAmphora():
            return await _condemn(step, situation, hands)
        case DestroyAmphora():
            return await _destroy(situation.amphora(step.amphora_id), situation, hands)
        case ForgetLoadBalancer():
            await _forget(situation, hands)
        case RecordSettled():
            return await _settle(step, situation, hands, closing)
        case LookAgain():
            await _look_again(step, situation, hands)
        case _:
            assert_never(step)
    return READ_ANEW


async def _forget(situation: Situation, hands: Hands) -> None:
    load_balancer, now = situation.tree.load_balancer, hands.now()
    await hands.network.release_vip(
        load_balancer.id,
        load_balancer.vip,
        port_owned=load_balancer.vip_port_owned,
        additional=load_balancer.additional_vips,
    )
    await hands.store.transact(lambda tx: convergence.record_deleted(tx, situation.lease, now))


async def _settle(step: RecordSettled, situation: Situation, hands: Hands, closing: int | None) -> Outcome:
    lease, now, left_out, tree = situation.lease, hands.now(), situation.left_out, situation.tree
    if closing == step.generation and not left_out:
        finish = partial(convergence.finish, lease=lease, generation=step.generation, now=now, tree=tree)
        return Outcome(ended=await hands.store.transact(finish))
    # Whoever dies before it has looked after a leftover leaves it to the next one.
    again_at = now if hands.has_ports and any(is_leftover(x) for x in tree.amphorae) else None

    def work(tx: Transaction) -> None:
        convergence.record_settled(tx, lease, step.generation, now, excluding=left_out, tree=tree, again_at=again_at)

    await hands.store.transact(work)
    return READ_ANEW


async def _record_amphora(step: RecordAmphora, situation: Situation, hands: Hands) -> Outcome:
    amphora = Amphora(
        id=step.amphora_id,
        load_balancer_id=situation.tree.id,
        project_id=situation.tree.load_balancer.project_id,
        role=step.role,
        created_at=hands.now(),
    )
    apart = APART in hands.compute.features
    pool = hands.spare_pool(situation.tree.load_balancer.placement)
    hosts = {x.host for x in situation.tree.amphorae if apart and x.host is not None}
    is_pair = situation.tree.load_balancer.topology is not Topology.SINGLE
    # Compute would not know that a spare and what is built beside it, now or later, belong together.
    takes_spare = not (is_pair and hands.compute.keeps_apart)

    def work(tx: Transaction) -> Amphora | None:
        if takes_spare and convergence.add_spare_amphora(tx, situation.lease, amphora, pool, hosts) is not None:
            return None
        return convergence.add_amphora(tx, situation.lease, amphora)

    added = await hands.store.transact(work)
    return READ_ANEW if added is None else Outcome(replace(situation.tree, amphorae=(*situation.tree.amphorae, added)))


async def _condemn(step: CondemnAmphora, situation: Situation, hands: Hands) -> Outcome:
    amphora, now = situation.amphora(step.amphora_id), hands.now()
    move_amphora(amphora.status, AmphoraStatus.PENDING_DELETE)
    condemned = replace(amphora, status=AmphoraStatus.PENDING_DELETE, updated_at=now)

    def work(tx: Transaction) -> Amphora | None:
        if step.counted:
            convergence.take_turn(tx, situation.lease, now, hands.settings.replacements_at_once)
        return convergence.update_amphora(tx, situation.lease, condemned)

    return _outcome(situation.tree, await hands.store.transact(work))


async def _look_again(step: LookAgain, situation: Situation, hands: Hands) -> None:
    """What may take long is told; as ERROR only where something was asked that waits with it."""
    now, because = hands.now(), step.because
    if because is None:
        await hands.store.transact(lambda tx: convergence.postpone(tx, situation.lease, now + step.after, now))
        return
    before = situation.tree.load_balancer.fault
    told = Fault(code=because.code, phase=PHASE_OF_STEP[LookAgain], message=because.message, since=now)
    fault = replace(continued(told, before), retry_at=now + step.after)
    if before is None or before.code != fault.code:
        log.warning("amphora left alone", load_balancer_id=situation.tree.id, code=fault.code, reason=fault.message)
        hands.metrics.faults.labels(fault.code).inc()
    as_error = is_reported_as_error(fault, now, budget_of(fault, hands.settings))
    await hands.store.transact(
        lambda tx: convergence.record_fault(tx, situation.lease, fault, now, report_error=as_error)
    )


async def _build(step: BuildAmphora, situation: Situation, hands: Hands) -> Outcome:
    amphora = situation.amphora(step.amphora_id)
    if situation.tree.load_balancer.applied_generation and not step.revive:
        held = await _hold_vip(situation, hands)
        situation = dataclasses.replace(situation, tree=replace(situation.tree, load_balancer=held))
    built = await places.build(amphora, situation.tree, hands)
    return await _update(
        built,
        situation,
        hands,
        status=AmphoraStatus.BOOTING,
        suspected_at=None,
        # What it ran before counts no more: the agent is asked for it when it is up.
        receipt=None,
        revived_at=hands.now() if step.revive else amphora.revived_at,
    )


async def _hold_vip(situation: Situation, hands: Hands) -> LoadBalancer:
    """See that the addresses are still the load balancer's before another amphora is built for them: somebody may have
    removed the port since it was made. Returns the load balancer with the ports that have them now, which are on record.
    Raises Retry: what is gone may come back, or be free again."""
    load_balancer = situation.tree.load_balancer
    vip, owned = load_balancer.vip, load_balancer.vip_port_owned
    request = VipRequest(
        address=vip.address,
        subnet_id=vip.subnet_id,
        port_id=None if owned else vip.port_id,  # it may have other addresses beside
        additional=tuple(replace(x, port_id=None) if x.port_owned else x for x in load_balancer.additional_vips),
    )
    try:
        held = await hands.network.allocate_vip(load_balancer.id, load_balancer.project_id, request)
    except CallerError as error:
        raise _vip_gone(vip, str(error)) from error
    if held.vip.address != vip.address:
        raise _vip_gone(vip, f"the network gives {held.vip.address} instead")
    further = tuple(
        replace(x, port_id=now.port_id) for x, now in zip(load_balancer.additional_vips, held.additional, strict=True)
    )
    if (held.vip.port_id, further) == (vip.port_id, load_balancer.additional_vips):
        return load_balancer
    log.warning("port of a VIP made again", load_balancer_id=load_balancer.id, port_id=held.vip.port_id)
    return await hands.store.transact(
        lambda tx: convergence.record_vip_ports(tx, situation.lease, held.vip.port_id, further)
    )


def _vip_gone(vip: Vip, reason: str) -> Retry:
    return Retry(
        f"the VIP {vip.address} (port {vip.port_id}) cannot be had: {reason}; it is taken again as soon as it can be",
        after=2.0,
        code="vip-gone",
    )


async def _await_agent(amphora: Amphora, situation: Situation, hands: Hands) -> Outcome:
    try:
        answered = await places.first_answer(amphora, situation.tree, hands)
    except Retry as silent:
        await _update(amphora, situation, hands, status=AmphoraStatus.ERROR)
        raise Retry(
            f"{silent.reason}; another amphora is built; if this goes on, read the agent's log in its place",
            after=silent.after,
            code=silent.code,
        ) from silent
    return await _update(answered, situation, hands, status=AmphoraStatus.READY)


async def _plug(amphora: Amphora, situation: Situation, hands: Hands, *, exact: bool) -> Outcome:
    """Make, attach and configure the ports that are needed; if `exact`, also take away the others, after that."""
    network_of = await _networks(amphora, situation, hands)
    management = port_for(amphora.ports, PortPurpose.MANAGEMENT)
    ports = [] if management is None else [management]
    for request in plugging.port_requests(situation.carried, amphora, network_of, exact=exact):
        port = await hands.network.create_port(request)
        await hands.compute.attach(amphora.id, port)
        ports.append(port)
    interfaces = await _tell_of_ports(replace(amphora, ports=tuple(ports)), situation, hands)
    if exact:
        # Those too that were made and never recorded.
        known = {x.id: x for x in (*amphora.ports, *await hands.network.list_ports(amphora.id))}
        for port in known.values():
            if all(port.id != x.id for x in ports):
                await hands.compute.detach(amphora.id, port)
                await hands.network.delete_port(amphora.id, port.id)
    plugged = tuple(replace(x, interface=interfaces.get(x.id)) for x in ports)
    return await _update(amphora, situation, hands, **plugging.recorded(plugged))


async def _tell_of_ports(amphora: Amphora, situation: Situation, hands: Hands) -> dict[PortId, str]:
    """Have the agent configure its ports; the interface of each. What was attached a moment ago may take a moment to show
    inside: it is waited for here, since a fault would wait for longer."""
    deadline = asyncio.get_running_loop().time() + INTERFACE_PATIENCE_S
    while True:
        try:
            return dict(await hands.talks.hold(amphora.id, hands.amphora_driver.plug(amphora, situation.carried)))
        except Retry as not_yet:
            if not_yet.code != "no-interface" or asyncio.get_running_loop().time() > deadline:
                raise
        await asyncio.sleep(INTERFACE_POLL_S)


async def _networks(amphora: Amphora, situation: Situation, hands: Hands) -> dict[SubnetId, NetworkId]:
    """On which network each subnet of members is. A subnet that does not exist is its members' fault, not the rest's."""
    known = {subnet_id: x.network_id for x in amphora.ports for subnet_id in x.subnet_ids}
    for subnet_id in plugging.member_subnets(situation.carried):
        if subnet_id not in known:
            try:
                known[subnet_id] = (await hands.network.get_subnet(subnet_id)).network_id
            except Invalid as error:
                member = next(x for x in situation.carried.members if x.subnet_id == subnet_id)
                error.subject = Subject(Kind.MEMBER, member.id)
                raise
    return known


async def _apply(amphora: Amphora, situation: Situation, hands: Hands, closing: int | None) -> Outcome:
    rendered = situation.rendered[amphora.id]
    with hands.metrics.push_seconds.time():
        applied = await hands.talks.hold(amphora.id, hands.amphora_driver.apply(amphora, situation.carried, rendered))
    hands.metrics.pushes.labels(applied.action).inc()
    balancer_version = applied.balancer_version or amphora.balancer_version
    # The wish may carry the time of another machine, whose clock is ahead; it is obeyed all the same.
    applied_at = max(hands.now(), amphora.push_requested_at or amphora.created_at)
    receipt = Receipt(
        generation=situation.tree.load_balancer.generation,
        digest=applied.digest,
        driver_version=hands.amphora_driver.version,
        applied_at=applied_at,
        action=applied.action,
        driver=hands.amphora_driver.name,
        amphora_version=applied.agent_version,
        balancer_version=balancer_version,
    )
    carries = _changed(
        amphora,
        hands,
        status=AmphoraStatus.ALLOCATED,
        receipt=receipt,
        balancer_version=balancer_version,
        suspected_at=None,
        **places.recorded_identity(applied.identity),
    )
    # Should the balancer be another than before, the next round renders for it.
    if closing is not None and applied.digest == rendered.digest and balancer_version == amphora.balancer_version:
        finish = partial(
            convergence.finish,
            lease=situation.lease,
            generation=closing,
            now=hands.now(),
            tree=situation.tree,
            amphora=carries,
        )
        return Outcome(ended=await hands.store.transact(finish))
    return await _record(carries, situation, hands)


async def _introduce(amphora: Amphora, situation: Situation, hands: Hands) -> Outcome:
    """It still carries the generation that it did. That it knows the other one is told by the time of its receipt."""
    rendered, before = situation.rendered[amphora.id], amphora.receipt
    if before is None:
        raise Bug(f"amphora {amphora.id} carries nothing yet, and cannot be introduced to another")
    introduction = hands.amphora_driver.introduce(
        amphora, situation.carried, rendered, lambda: _shut(amphora, situation, hands)
    )
    applied = await hands.talks.hold(amphora.id, introduction)
    hands.metrics.pushes.labels(applied.action).inc()
    if KEEPS_CONNECTIONS in hands.network.features:
        await hands.network.create_port(await _vip_request(amphora, situation, hands))
    known_since = max(hands.now(), newest_arrival(situation.tree) or before.applied_at)
    receipt = replace(before, digest=applied.digest, applied_at=known_since, action=applied.action)
    return await _update(amphora, situation, hands, receipt=receipt, suspected_at=None)


async def _destroy(amphora: Amphora, situation: Situation, hands: Hands) -> Outcome:
    # One that was silent is not asked to stop: it would not hear that either, and its successor waits.
    if amphora.management_address is not None and amphora.suspected_at is None and not is_leftover(amphora):
        try:
            if amphora.receipt is not None and _is_succeeded(amphora, situation.tree):
                leaving = hands.amphora_driver.leave(amphora, situation.tree, lambda: _shut(amphora, situation, hands))
                await hands.talks.hold(amphora.id, leaving)
            await hands.talks.hold(amphora.id, hands.amphora_driver.retire(amphora, situation.tree))
        except LeaseLost:
            raise
        except FrontinusError as error:
            # Destroying its place stops it all the same, and one that is replaced for its age may not even know what is asked.
            log.info("amphora does not end by itself", amphora_id=amphora.id, reason=str(error))
    try:
        await _take_away(amphora, situation, hands)
    except Retry:
        since = amphora.updated_at or amphora.created_at
        if not _may_be_left(situation, hands) or hands.now() - since < hands.settings.removal_patience:
            raise
        if is_leftover(amphora):
            raise
        log.warning(
            "amphora is a leftover: its ports are deleted, and nobody waits for it",
            amphora_id=amphora.id,
            load_balancer_id=situation.tree.id,
        )
        await places.delete_ports(amphora.id, hands, amphora.ports)
        return await _update(amphora, situation, hands, **plugging.recorded(()))
    await places.delete_ports(amphora.id, hands, amphora.ports)
    return await _update(amphora, situation, hands, status=AmphoraStatus.DELETED, **plugging.recorded(()))


async def _take_away(amphora: Amphora, situation: Situation, hands: Hands) -> None:
    """Raises Retry, at the latest when others have waited for long enough."""
    patience = hands.settings.removal_patience if not is_leftover(amphora) else LEFTOVER_PATIENCE
    try:
        async with asyncio.timeout(patience.total_seconds() if _may_be_left(situation, hands) else None):
            await hands.compute.destroy_known(amphora.id, amphora.compute_id)
    except TimeoutError as slow:
        raise Retry(
            f"compute does not take amphora {amphora.id} away; nothing waits for it, and it is asked again",
            after=2.0,
            code="removal-slow",
        ) from slow


def _may_be_left(situation: Situation, hands: Hands) -> bool:
    """Whether an amphora that is not taken away does no harm once it has no ports, and somebody waits."""
    return hands.has_ports and not situation.tree.load_balancer.delete_requested


def _is_succeeded(amphora: Amphora, tree: LoadBalancerTree) -> bool:
    """Whether another one serves in its stead: nobody waits for its connections otherwise."""
    others = (x for x in tree.amphorae if x.id != amphora.id)
    return not tree.load_balancer.delete_requested and any(
        x.status is AmphoraStatus.ALLOCATED and x.receipt is not None and x.suspected_at is None for x in others
    )


async def _shut(amphora: Amphora, situation: Situation, hands: Hands) -> bool:
    """Have the network let no new connection of a client in, where that leaves the others alone; whether it does. It is on
    record first: whoever goes on after a death plugs the amphora again, unless it goes with its ports."""
    if KEEPS_CONNECTIONS not in hands.network.features:
        return False
    request = plugging.shut_to_clients(await _vip_request(amphora, situation, hands))
    ports = (replace(x, allowed=request.allowed) if x.purpose is PortPurpose.VIP else x for x in amphora.ports)
    await _update(amphora, situation, hands, ports=tuple(ports))
    await hands.network.create_port(request)
    return True


async def _vip_request(amphora: Amphora, situation: Situation, hands: Hands) -> PortRequest:
    """The port of the VIP, of which each amphora has one."""
    network_of = await _networks(amphora, situation, hands)
    requests = plugging.port_requests(situation.carried, amphora, network_of, exact=False)
    return next(x for x in requests if x.purpose is PortPurpose.VIP)


async def _update(amphora: Amphora, situation: Situation, hands: Hands, **changes: object) -> Outcome:
    return await _record(_changed(amphora, hands, **changes), situation, hands)


def _changed(amphora: Amphora, hands: Hands, **changes: object) -> Amphora:
    status = changes.get("status")
    if isinstance(status, AmphoraStatus):
        move_amphora(amphora.status, status)
    return replace(amphora, updated_at=hands.now(), **changes)


async def _record(amphora: Amphora, situation: Situation, hands: Hands) -> Outcome:
    written = await hands.store.transact(lambda tx: convergence.update_amphora(tx, situation.lease, amphora))
    return _outcome(situation.tree, written)


def _outcome(tree: LoadBalancerTree, written: Amphora | None) -> Outcome:
    """What the tree is after this amphora was written; None: there is news."""
    if written is None:
        return READ_ANEW
    others = (written if x.id == written.id else x for x in tree.amphorae)
    return Outcome(replace(tree, amphorae=tuple(x for x in others if x.status is not AmphoraStatus.DELETED)))
