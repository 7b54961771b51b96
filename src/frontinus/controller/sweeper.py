"""Find what nobody wants any more: places and addresses that carry our name and have no row.

Ownership is proved by the drivers' naming, never guessed. An orphan is destroyed when two sweeps in a row have seen
it, so that what is just being recorded is not taken for one. The other way round, rows without a place, is witness.py.
Next: store/inventory.py."""

from __future__ import annotations

import asyncio

import structlog

from frontinus.controller import places
from frontinus.controller.hands import Hands
from frontinus.model.errors import WorldError
from frontinus.model.ids import AmphoraId, LoadBalancerId
from frontinus.store import inventory

log = structlog.get_logger()


class Sweeper:
    """One per controller. One owner: its own loop."""

    def __init__(self, hands: Hands) -> None:
        self._hands = hands
        self._orphan_places: frozenset[AmphoraId] = frozenset()
        self._orphan_addresses: frozenset[LoadBalancerId] = frozenset()

    async def run(self) -> None:
        """Sweep until cancelled; first at once, since a start is when most has drifted."""
        while True:
            try:
                await self.sweep()
            except WorldError as trouble:
                log.warning("sweep put off", reason=str(trouble))
            except Exception:  # the loop protects its next turn
                log.exception("sweep failed")
            await asyncio.sleep(self._hands.settings.sweep_interval.total_seconds())

    async def sweep(self) -> None:
        """One look at everything that carries our name."""
        # Outside first, rows second: what appears between the two has a row already, so it is no orphan.
        standing = frozenset(await self._hands.compute.list_owned())
        if self._hands.has_ports:
            standing |= frozenset(await self._hands.network.list_port_owners())
        addresses = frozenset(await self._hands.network.list_owned())
        known = await self._hands.store.read(inventory.known)
        orphans = standing - known.amphorae
        for amphora_id in orphans & self._orphan_places:
            log.warning("orphan amphora destroyed", amphora_id=amphora_id)
            await self._hands.compute.destroy(amphora_id)
            await places.delete_ports(amphora_id, self._hands)
        self._orphan_places = orphans
        stray = addresses - known.load_balancers
        for load_balancer_id in stray & self._orphan_addresses:
            log.warning("orphan address released", load_balancer_id=load_balancer_id)
            await self._hands.network.release_owned(load_balancer_id)
        self._orphan_addresses = stray
