"""A compute driver that makes nothing: every place is there and runs, until it was destroyed.

For the start of a driver of your own, and to measure the API and the controller alone. With no memory of what was
built, any number of controllers agree on it, also after a restart. The price: an amphora that was never built is said
to run too, which is not what the interface asks of a real driver."""

from __future__ import annotations

from typing import ClassVar

from frontinus.drivers.compute.interface import ADOPTS, ComputeDriver, Place, PlaceState
from frontinus.model.boot import BootFiles
from frontinus.model.ids import AmphoraId, LoadBalancerId
from frontinus.model.placement import UNSPECIFIED, Placement
from frontinus.model.ports import Port

_REMEMBERED = 10_000


class NoopCompute(ComputeDriver):
    """See drivers/compute/interface.py. Does nothing, successfully."""

    name: ClassVar[str] = "noop"
    features: ClassVar[frozenset[str]] = frozenset({ADOPTS})

    def __init__(self) -> None:
        # The latest only: who asks after a place that was destroyed asks soon, and then it had better be gone.
        self._destroyed: dict[AmphoraId, None] = {}

    def management_address(self, amphora_id: AmphoraId) -> str | None:
        return "127.0.0.1"

    async def build(
        self,
        amphora_id: AmphoraId,
        load_balancer_id: LoadBalancerId,
        boot: BootFiles,
        ports: tuple[Port, ...] = (),
        placement: Placement = UNSPECIFIED,
    ) -> Place:
        self._destroyed.pop(amphora_id, None)
        return await self.get(amphora_id)

    async def get(self, amphora_id: AmphoraId) -> Place:
        if amphora_id in self._destroyed:
            return Place(amphora_id=amphora_id, state=PlaceState.ABSENT)
        return Place(
            amphora_id=amphora_id,
            state=PlaceState.RUNNING,
            compute_id=amphora_id,
            management_address=self.management_address(amphora_id),
        )

    async def destroy(self, amphora_id: AmphoraId) -> None:
        self._destroyed[amphora_id] = None
        if len(self._destroyed) > _REMEMBERED:
            del self._destroyed[next(iter(self._destroyed))]

    async def list_owned(self) -> tuple[AmphoraId, ...]:
        return ()
