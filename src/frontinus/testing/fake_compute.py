"""A compute driver whose places are values in a dict, with faults on order.

Hand the same dict to a second FakeCompute and it is the same world after a restart; hand it to FakeAmphoraDriver and
the amphorae in it can be spoken to. Next: fake_amphora.py."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import ClassVar

from frontinus.drivers.amphora.interface import Rendered
from frontinus.drivers.compute.interface import ATTACH, LOSES_SIGHT, ComputeDriver, Place, PlaceState
from frontinus.model.boot import BootFiles, Identity
from frontinus.model.errors import Retry
from frontinus.model.ids import AmphoraId, LoadBalancerId, PortId
from frontinus.model.placement import COMPUTE_FLAVOR, COMPUTE_ZONE, IMAGE_TAG, UNSPECIFIED, Placement
from frontinus.model.ports import Port, PortPurpose, port_for
from frontinus.testing.faults import Faults

NO_SUCH = "no-such-"
"""How words begin that there never are."""


@dataclass
class FakePlace:
    """One place, for tests to look at and to break.

    `starts` counts how often its agent was started. `on_disk` is the configuration last pushed; it balances while
    `balancing` is True. `on_purpose` says that somebody stopped the place. `attached` are its links, `configured` is what
    its agent was told of them, by their MAC. `identity` is what it was given since its start. A ShortSightedCompute does not find
    a `hidden` one by its name."""

    amphora_id: AmphoraId
    load_balancer_id: LoadBalancerId
    address: str
    boot: BootFiles
    starts: int = 0
    agent_running: bool = False
    balancing: bool = False
    on_purpose: bool = False
    hidden: bool = False
    on_disk: Rendered | None = None
    attached: dict[PortId, Port] = field(default_factory=dict)
    configured: dict[str, Port] = field(default_factory=dict)
    host: str = "host-1"
    placement: Placement = UNSPECIFIED
    identity: Identity | None = None
    history: list[str] = field(default_factory=list)
    """The action of every push that was carried out, in order."""
    watchers: list[Callable[[AmphoraId], None]] = field(default_factory=list)

    @property
    def runs(self) -> Rendered | None:
        """What carries traffic now, if anything does."""
        return self.on_disk if self.balancing else None

    def kill_agent(self) -> None:
        self.agent_running = False
        self._tell()

    def unplug(self, port_id: PortId) -> None:
        """A link goes by itself."""
        del self.attached[port_id]
        self._tell()

    def _tell(self) -> None:
        for tell in self.watchers:
            tell(self.amphora_id)

    def kill_balancer(self) -> None:
        self.balancing = False

    def kill(self) -> None:
        """Everything in it dies; what is on disk stays."""
        self.balancing = False
        self.kill_agent()


class FakeCompute(ComputeDriver):
    """`places` is the world. Delete a key and the place is gone without a trace.

    It attaches ports where it is given any, and has an address of its own for a place that is built without. It takes any
    flavor, tag and zone for one that it has, but for those in `lacks` and those that begin with NO_SUCH."""

    name: ClassVar[str] = "fake"
    features: ClassVar[frozenset[str]] = frozenset({ATTACH})

    def __init__(
        self, places: MutableMapping[AmphoraId, FakePlace] | None = None, faults: Faults | None = None
    ) -> None:
        self.places: MutableMapping[AmphoraId, FakePlace] = {} if places is None else places
        self.faults = Faults() if faults is None else faults
        self.lacks: set[str] = set()
        self._watchers: list[Callable[[AmphoraId], None]] = []

    @property
    def placement_words(self) -> frozenset[str]:
        return frozenset({COMPUTE_FLAVOR, IMAGE_TAG, COMPUTE_ZONE})

    def management_address(self, amphora_id: AmphoraId) -> str | None:
        one, two, three = sha256(amphora_id.encode()).digest()[:3]
        return f"127.{128 | one & 63}.{two}.{1 + three % 254}"

    async def build(
        self,
        amphora_id: AmphoraId,
        load_balancer_id: LoadBalancerId,
        boot: BootFiles,
        ports: tuple[Port, ...] = (),
        placement: Placement = UNSPECIFIED,
    ) -> Place:
        async with self.faults.around("build"):
            place = self.places.get(amphora_id)
            if place is None:
                management = port_for(ports, PortPurpose.MANAGEMENT)
                address = self.management_address(amphora_id) or ""
                if management is not None:
                    address = management.addresses[0].address
                missing = [x for x in sorted(placement.asked) if self._lacks(getattr(placement, x))]
                if missing:
                    raise Retry(
                        f"there is no {missing[0]} {getattr(placement, missing[0])!r}", after=0.0, code="no-flavor"
                    )
                place = FakePlace(amphora_id, load_balancer_id, address, boot, watchers=self._watchers)
                place.placement = placement
                self.places[amphora_id] = place
            place.boot = boot
            place.attached |= {x.id: x for x in ports}
            place.on_purpose = False
            if not place.agent_running:
                place.starts += 1
                place.agent_running = True
        return self._describe(amphora_id)

    async def get(self, amphora_id: AmphoraId) -> Place:
        async with self.faults.around("get"):
            pass
        return self._describe(amphora_id)

    async def destroy(self, amphora_id: AmphoraId) -> None:
        async with self.faults.around("destroy"):
            place = self.places.pop(amphora_id, None)
            if place is not None:
                place.kill()

    async def watch(self, tell: Callable[[AmphoraId], None]) -> None:
        self._watchers.append(tell)
        try:
            await asyncio.Event().wait()
        finally:
            self._watchers.remove(tell)

    async def attach(self, amphora_id: AmphoraId, port: Port) -> None:
        async with self.faults.around("attach"):
            if amphora_id not in self.places:
                raise Retry(f"amphora {amphora_id} has no place to attach to", after=0.0, code="place-failed")
            self.places[amphora_id].attached[port.id] = port

    async def detach(self, amphora_id: AmphoraId, port: Port) -> None:
        async with self.faults.around("detach"):
            place = self.places.get(amphora_id)
            if place is not None:
                place.attached.pop(port.id, None)
                place.configured.pop(port.mac, None)

    async def list_owned(self) -> tuple[AmphoraId, ...]:
        async with self.faults.around("list_owned"):
            pass
        return tuple(self.places)

    def _lacks(self, word: str) -> bool:
        return word in self.lacks or word.startswith(NO_SUCH)

    def _describe(self, amphora_id: AmphoraId) -> Place:
        place = self.places.get(amphora_id)
        if place is None:
            return Place(amphora_id=amphora_id, state=PlaceState.ABSENT)
        if place.on_purpose:
            state = PlaceState.STOPPED_ON_PURPOSE
        else:
            state = PlaceState.RUNNING if place.agent_running else PlaceState.STOPPED
        return Place(
            amphora_id=amphora_id,
            state=state,
            compute_id=amphora_id,
            management_address=place.address,
            host=place.host,
            balancing=place.balancing,
            attached=frozenset(place.attached),
            compute_flavor=place.placement.compute_flavor,
            zone=place.placement.compute_zone,
        )


class ShortSightedCompute(FakeCompute):
    """One that loses sight of what is `hidden`, and finds it by its compute id, as a cloud would."""

    features: ClassVar[frozenset[str]] = frozenset({ATTACH, LOSES_SIGHT})

    async def get(self, amphora_id: AmphoraId) -> Place:
        return await self.get_known(amphora_id, None)

    async def get_known(self, amphora_id: AmphoraId, compute_id: str | None) -> Place:
        seen = await super().get(amphora_id)
        if compute_id is None and self._is_hidden(amphora_id):
            return Place(amphora_id=amphora_id, state=PlaceState.ABSENT)
        return seen

    async def destroy(self, amphora_id: AmphoraId) -> None:
        await self.destroy_known(amphora_id, None)

    async def destroy_known(self, amphora_id: AmphoraId, compute_id: str | None) -> None:
        if compute_id is not None or not self._is_hidden(amphora_id):
            await super().destroy(amphora_id)

    async def list_owned(self) -> tuple[AmphoraId, ...]:
        return tuple(x for x in await super().list_owned() if not self._is_hidden(x))

    async def list_running(self) -> frozenset[AmphoraId] | None:
        return frozenset(x for x in await self.list_owned() if self.places[x].agent_running)

    def _is_hidden(self, amphora_id: AmphoraId) -> bool:
        return amphora_id in self.places and self.places[amphora_id].hidden
