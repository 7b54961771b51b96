"""Carry out one step through a driver, and record what came of it.

Every record is fenced by the lease. A step that fails raises; reconcile.py decides what that means. Nothing here
decides what to do next: plan.py does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import assert_never

from msgspec.structs import replace

from frontinus.controller.metrics import ControllerMetrics
from frontinus.controller.settings import ControllerSettings
from frontinus.controller.steps import (
    ApplyConfiguration,
    AwaitAgent,
    BeginReplacement,
    BuildAmphora,
    CondemnAmphora,
    DestroyAmphora,
    DismissSuspicion,
    ForgetLoadBalancer,
    LookAgain,
    RecordAmphora,
    RecordSettled,
    Step,
)
from frontinus.drivers.amphora.interface import AmphoraDriver, Rendered
from frontinus.drivers.compute.interface import ComputeDriver
from frontinus.drivers.network.interface import NetworkDriver
from frontinus.drivers.secret.interface import SecretDriver
from frontinus.model.enums import AmphoraStatus
from frontinus.model.errors import Bug, Retry
from frontinus.model.ids import AmphoraId
from frontinus.model.status import move_amphora
from frontinus.model.tree import Amphora, Fault, LoadBalancerTree, Receipt
from frontinus.store import convergence
from frontinus.store.engine import Store
from frontinus.store.leases import Lease

AGENT_POLL_S = 0.02
"""Pause between two questions to an agent that starts. Short, since a `process` amphora is up in a tenth of a second."""


@dataclass(frozen=True)
class Hands:
    """What the controller acts with: the drivers, the store and the clock; and where it counts. One per process."""

    store: Store
    amphora_driver: AmphoraDriver
    compute: ComputeDriver
    network: NetworkDriver
    secret: SecretDriver
    settings: ControllerSettings
    now: Callable[[], datetime]
    metrics: ControllerMetrics = field(default_factory=ControllerMetrics)


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


async def act(step: Step, situation: Situation, hands: Hands) -> None:
    """Carry out one step. When it returns, what the step says is true and recorded. Safe to repeat."""
    match step:
        case RecordAmphora():
            await _record_amphora(step, situation, hands)
        case BeginReplacement():
            now = hands.now()
            await hands.store.transact(lambda tx: convergence.begin_replacement(tx, situation.lease, now))
        case BuildAmphora():
            await _build(step, situation, hands)
        case AwaitAgent():
            await _await_agent(situation.amphora(step.amphora_id), situation, hands)
        case ApplyConfiguration():
            await _apply(situation.amphora(step.amphora_id), situation, hands)
        case DismissSuspicion():
            await _update(situation.amphora(step.amphora_id), situation, hands, suspected_at=None, seen_at=hands.now())
        case CondemnAmphora():
            await _update(situation.amphora(step.amphora_id), situation, hands, status=AmphoraStatus.PENDING_DELETE)
        case DestroyAmphora():
            await _destroy(situation.amphora(step.amphora_id), situation, hands)
        case ForgetLoadBalancer():
            load_balancer, now = situation.tree.load_balancer, hands.now()
            await hands.network.release_vip(
                load_balancer.id,
                load_balancer.vip,
                port_owned=load_balancer.vip_port_owned,
                additional=load_balancer.additional_vips,
            )
            await hands.store.transact(lambda tx: convergence.record_deleted(tx, situation.lease, now))
        case RecordSettled():
            now = hands.now()
            await hands.store.transact(
                lambda tx: convergence.record_settled(
                    tx, situation.lease, step.generation, now, excluding=situation.left_out
                )
            )
        case LookAgain():
            now = hands.now()
            await hands.store.transact(lambda tx: convergence.postpone(tx, situation.lease, now + step.after, now))
        case _:
            assert_never(step)


async def _record_amphora(step: RecordAmphora, situation: Situation, hands: Hands) -> None:
    amphora = Amphora(
        id=step.amphora_id,
        load_balancer_id=situation.tree.id,
        project_id=situation.tree.load_balancer.project_id,
        role=step.role,
        created_at=hands.now(),
    )
    await hands.store.transact(lambda tx: convergence.add_amphora(tx, situation.lease, amphora))


async def _build(step: BuildAmphora, situation: Situation, hands: Hands) -> None:
    amphora = situation.amphora(step.amphora_id)
    address = hands.compute.management_address(amphora.id)
    boot = hands.amphora_driver.boot_files(amphora.id, address or "")
    place = await hands.compute.build(amphora.id, situation.tree.id, boot)
    await _update(
        amphora,
        situation,
        hands,
        status=AmphoraStatus.BOOTING,
        compute_id=place.compute_id,
        management_address=place.management_address or address,
        suspected_at=None,
        # What it ran before counts no more: the agent is asked for it when it is up.
        receipt=None,
        revived_at=hands.now() if step.revive else amphora.revived_at,
    )


async def _await_agent(amphora: Amphora, situation: Situation, hands: Hands) -> None:
    deadline = asyncio.get_running_loop().time() + hands.settings.boot_timeout.total_seconds()
    while True:
        try:
            await hands.amphora_driver.info(amphora, situation.tree)
            break
        except Retry as not_yet:
            if asyncio.get_running_loop().time() > deadline:
                await _update(amphora, situation, hands, status=AmphoraStatus.ERROR)
                raise Retry(
                    f"the agent of amphora {amphora.id} did not answer within "
                    f"{hands.settings.boot_timeout.total_seconds():.0f} s of its start ({not_yet.reason}); "
                    "another amphora is built; if this goes on, read the agent's log in its place",
                    after=1.0,
                    code="agent-did-not-start",
                ) from not_yet
            await asyncio.sleep(AGENT_POLL_S)
    await _update(amphora, situation, hands, status=AmphoraStatus.READY)


async def _apply(amphora: Amphora, situation: Situation, hands: Hands) -> None:
    rendered = situation.rendered[amphora.id]
    with hands.metrics.push_seconds.time():
        applied = await hands.amphora_driver.apply(amphora, situation.carried, rendered)
    hands.metrics.pushes.labels(applied.action).inc()
    # The wish may carry the time of another machine, whose clock is ahead; it is obeyed all the same.
    applied_at = max(hands.now(), amphora.push_requested_at or amphora.created_at)
    receipt = Receipt(
        generation=situation.tree.load_balancer.generation,
        digest=applied.digest,
        driver_version=hands.amphora_driver.version,
        applied_at=applied_at,
        action=applied.action,
    )
    await _update(amphora, situation, hands, status=AmphoraStatus.ALLOCATED, receipt=receipt, suspected_at=None)


async def _destroy(amphora: Amphora, situation: Situation, hands: Hands) -> None:
    if amphora.management_address is not None:
        try:
            await hands.amphora_driver.retire(amphora, situation.tree)
        except Retry:
            pass  # it does not answer; destroying its place stops it all the same
    await hands.compute.destroy(amphora.id)
    await _update(amphora, situation, hands, status=AmphoraStatus.DELETED)


async def _update(amphora: Amphora, situation: Situation, hands: Hands, **changes: object) -> None:
    status = changes.get("status")
    if isinstance(status, AmphoraStatus):
        move_amphora(amphora.status, status)
    changed = replace(amphora, updated_at=hands.now(), **changes)
    await hands.store.transact(lambda tx: convergence.update_amphora(tx, situation.lease, changed))
