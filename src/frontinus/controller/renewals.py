"""Give amphorae a fresh identity before theirs ends, and when the authority that vouches for them changes.

What an amphora carries is not touched, so this is no step of a plan and no trouble with it shows on a load balancer: half
of a certificate's time is left when it begins, and it is tried again until it works. It holds the load balancer's lease
all the same, since it writes. While a rollout brings a phase of the authority's change to them, the rollout says whose
turn it is: it makes their certificates due. Next: store/inventory.py, model/boot.py."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial

import structlog
from msgspec.structs import replace

from frontinus.controller.hands import Hands
from frontinus.controller.places import recorded_identity
from frontinus.model.enums import AmphoraStatus
from frontinus.model.errors import Incompatible, LeaseLost, Retry, WorldError
from frontinus.model.ids import AmphoraId, ControllerId, LoadBalancerId
from frontinus.model.tree import Amphora
from frontinus.store import convergence, inventory, leases, rollouts, trees
from frontinus.store.engine import Transaction
from frontinus.store.leases import Lease

log = structlog.get_logger()

MOST_IN_A_TURN = 500
AT_ONCE = 16
"""Load balancers whose lease is held at a time; a renewal takes milliseconds, one that fails up to two seconds."""

PATIENCE_S = 60.0
"""An amphora of which a renewal failed is left alone for so long."""


class Renewals:
    """One per controller. One owner: its own loop."""

    def __init__(self, owner: ControllerId, hands: Hands) -> None:
        self._owner = owner
        self._hands = hands
        self._failed_at: dict[AmphoraId, float] = {}
        self._held = False

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            try:
                await self.look()
            except WorldError as trouble:
                log.warning("renewals put off", reason=str(trouble))
            except Exception:  # the loop protects its next turn
                log.exception("renewals failed")
            await asyncio.sleep(self._hands.settings.renewal_interval.total_seconds())

    async def look(self) -> None:
        """Renew whatever is due now."""
        hands, digest = self._hands, self._hands.amphora_driver.identity_digest
        if not digest:
            return
        self._held, due = await hands.store.read(partial(self._find, digest=digest))
        moment = asyncio.get_running_loop().time()
        self._failed_at = {x: at for x, at in self._failed_at.items() if moment - at < PATIENCE_S}
        turns = asyncio.Semaphore(AT_ONCE)

        async def one(amphora_id: AmphoraId, load_balancer_id: LoadBalancerId) -> None:
            async with turns:
                await self._renew(amphora_id, load_balancer_id)

        await asyncio.gather(*(one(x, y) for x, y in due if x not in self._failed_at))

    def _find(self, tx: Transaction, digest: str) -> tuple[bool, list[tuple[AmphoraId, LoadBalancerId]]]:
        """Whether a rollout brings the authority's phase to amphorae, in waves; and whose identity is due."""
        driver = self._hands.amphora_driver
        held = rollouts.holds_authority(tx, driver.name)
        due = inventory.identities_due(
            tx,
            driver.name,
            digest,
            self._hands.now(),
            MOST_IN_A_TURN,
            kept=driver.kept_identity_digest,
            only_over=held,
        )
        return held, due

    async def _renew(self, amphora_id: AmphoraId, load_balancer_id: LoadBalancerId) -> None:
        hands = self._hands
        now, duration = hands.now(), hands.settings.lease_duration
        lease = await hands.store.transact(
            lambda tx: leases.claim_one(tx, self._owner, load_balancer_id, now, duration)
        )
        if lease is None:
            return  # somebody works on it; the next turn comes soon
        try:
            tree = await hands.store.read(lambda tx: trees.read_tree(tx, load_balancer_id))
            amphorae = () if tree is None else tree.amphorae
            amphora = next((x for x in amphorae if x.id == amphora_id), None)
            if amphora is not None and self._is_due(amphora):
                await self._carry_out(amphora, lease)
        except LeaseLost:
            log.warning("lease lost", load_balancer_id=load_balancer_id)
        finally:
            with suppress(WorldError):  # an unreleased lease runs out by itself
                await hands.store.transact(lambda tx: leases.release(tx, lease))

    def _is_due(self, amphora: Amphora) -> bool:
        if amphora.status is not AmphoraStatus.ALLOCATED or amphora.suspected_at is not None:
            return False
        is_over = amphora.certificate_renew_at is not None and amphora.certificate_renew_at <= self._hands.now()
        driver = self._hands.amphora_driver
        kept = amphora.identity_digest is not None and amphora.identity_digest == driver.kept_identity_digest
        return is_over or not (self._held or kept or amphora.identity_digest == driver.identity_digest)

    async def _carry_out(self, amphora: Amphora, lease: Lease) -> None:
        hands = self._hands
        try:
            identity = await hands.amphora_driver.renew_identity(amphora)
        except Retry as error:
            log.warning("an amphora's certificate was not renewed", amphora_id=amphora.id, reason=error.reason)
            self._failed(amphora, "failed")
            return
        except Incompatible as error:
            log.info("amphora is outgrown", amphora_id=amphora.id, reason=str(error))
            self._failed(amphora, "outgrown")
            now = hands.now()
            await hands.store.transact(lambda tx: convergence.replace_outgrown(tx, lease, amphora.id, now))
            return
        renewed = replace(amphora, **recorded_identity(identity))
        await hands.store.transact(lambda tx: convergence.update_amphora(tx, lease, renewed))
        hands.metrics.renewals.labels("renewed").inc()

    def _failed(self, amphora: Amphora, outcome: str) -> None:
        self._failed_at[amphora.id] = asyncio.get_running_loop().time()
        self._hands.metrics.renewals.labels(outcome).inc()
