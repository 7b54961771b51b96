"""The compute driver whose amphorae are servers of OpenStack's Nova, attached to ports of network driver `neutron`.

Nothing is kept between calls; Nova is the record. Each method looks before it acts, one step at a time in a thread
(servers.py, groups.py), and waits between steps without one: a controller may die between any two requests, and whoever comes
next finds what is there by name and tag (names.py). What runs in a server is never asked here: that is the amphora driver's. What
the states of a server mean: facts.py. Next: servers.py."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from http import HTTPStatus
from typing import ClassVar
from weakref import WeakValueDictionary

from openstack.connection import Connection

from frontinus.drivers.compute.interface import APART, ATTACH, LOSES_SIGHT, LVS, ComputeDriver, Place, PlaceState
from frontinus.drivers.compute.nova.facts import ERROR, SHUTOFF, SOFT_DELETED, UNKNOWN, ServerFacts, state_of
from frontinus.drivers.compute.nova.groups import Groups
from frontinus.drivers.compute.nova.names import MANAGEMENT, Names
from frontinus.drivers.compute.nova.nova import Nova
from frontinus.drivers.compute.nova.servers import Servers, Wish
from frontinus.drivers.compute.nova.settings import NO_GROUPS, NovaSettings
from frontinus.drivers.openstack.cloud import Cloud
from frontinus.drivers.openstack.settings import OpenStackSettings
from frontinus.drivers.openstack.trouble import LATER_S, SOON_S, Refused
from frontinus.model.belongings import Belonging, BelongingKind
from frontinus.model.boot import BootFiles
from frontinus.model.errors import Retry
from frontinus.model.findings import Finding, fine, trouble
from frontinus.model.ids import AmphoraId, LoadBalancerId, PortId
from frontinus.model.placement import COMPUTE_FLAVOR, COMPUTE_ZONE, IMAGE_TAG, UNSPECIFIED, Placement
from frontinus.model.ports import Port

ATTACHMENT = "neutron"
"""What a port of network driver `neutron` says: it is attached by its id."""

_POLL_S = 1.0
_LINK_TIMEOUT_S = 60.0
_ASK_AGAIN_S = 10.0
"""Between two DELETEs of one server that is being deleted. Nova notices a dead host after a minute (service_down_time)."""

_BEGINNINGS = 5
"""How often in one attempt something may be in the way of a server, and is removed first. Once, unless others interfere."""

_PAUSE_S = (0.5, 3.0)
"""Before another attempt. Of two who build the same one at once each takes its own, so that they don't meet again."""
_PROOF = "its name and tag in our project"


class NovaCompute(ComputeDriver):
    """See drivers/compute/interface.py, whose docstrings are the law."""

    name: ClassVar[str] = "nova"
    features: ClassVar[frozenset[str]] = frozenset({ATTACH, APART, LVS, LOSES_SIGHT})
    attaches: ClassVar[str] = ATTACHMENT
    starts_slowly: ClassVar[bool] = True
    looks_per_second: ClassVar[float | None] = 1.0  # each is two requests to Nova, which asks Neutron for one of them
    Settings: ClassVar[type[NovaSettings]] = NovaSettings

    def __init__(
        self, settings: NovaSettings, connect: Callable[[OpenStackSettings], Connection] | None = None
    ) -> None:
        """Asks nothing yet. Raises Invalid naming the setting that cannot be."""
        settings.check()
        self._settings = settings
        self._cloud = Cloud(settings.openstack, connect)
        self._nova = Nova(self._cloud)
        names = Names(settings.openstack.installation)
        self._groups = Groups(self._nova, names, settings.server_groups)
        self._servers = Servers(self._nova, names, self._groups, settings, self._cloud.project_id)
        # What builds and destroys one amphora takes turns; across processes the lease sees to it, and servers.py settles the rest.
        self._turns: WeakValueDictionary[AmphoraId, asyncio.Lock] = WeakValueDictionary()

    @property
    def boot_timeout(self) -> timedelta:
        return self._settings.boot_timeout

    @property
    def keeps_apart(self) -> bool:
        return self._settings.server_groups != NO_GROUPS

    @property
    def placement_words(self) -> frozenset[str]:
        return frozenset({COMPUTE_FLAVOR, IMAGE_TAG, COMPUTE_ZONE})

    def management_address(self, amphora_id: AmphoraId) -> str | None:
        return None

    async def build(
        self,
        amphora_id: AmphoraId,
        load_balancer_id: LoadBalancerId,
        boot: BootFiles,
        ports: tuple[Port, ...] = (),
        placement: Placement = UNSPECIFIED,
    ) -> Place:
        for port in ports:
            _require_attachable(port)
        wish = Wish(amphora_id, load_balancer_id, boot, ports, placement)
        async with self._turn(amphora_id):
            why = ""
            for attempt in range(1 + self._settings.build_retries):
                if attempt:
                    await asyncio.sleep(random.uniform(*_PAUSE_S))
                server = await self._try_to_build(wish, afresh=attempt > 0)
                if server is not None and server.status != ERROR:
                    for port in ports:
                        await self._attach(server.id, port)
                    return await self._cloud.run(lambda found=server: self._place(amphora_id, found))  # type: ignore[misc]
                why = "it vanished" if server is None else server.why
            raise Retry(
                f"Nova did not make the server of amphora {amphora_id} in {1 + self._settings.build_retries} attempts: {why}",
                after=LATER_S,
                code="nova-build-failed",
            )

    async def get(self, amphora_id: AmphoraId) -> Place:
        return await self.get_known(amphora_id, None)

    async def get_known(self, amphora_id: AmphoraId, compute_id: str | None) -> Place:
        def work() -> Place:
            server = self._servers.found(amphora_id, compute_id)
            absent = Place(amphora_id=amphora_id, state=PlaceState.ABSENT)
            try:
                return absent if server is None else self._place(amphora_id, server)
            except Refused as refused:
                if refused.status == HTTPStatus.NOT_FOUND:  # it went while we asked
                    return absent
                raise

        return await self._cloud.run(work)

    async def destroy(self, amphora_id: AmphoraId) -> None:
        await self.destroy_known(amphora_id, None)

    async def destroy_known(self, amphora_id: AmphoraId, compute_id: str | None) -> None:
        async with self._turn(amphora_id):
            # Looked for again until there is none: one may have come late, made by a controller that died.
            while found := await self._cloud.run(lambda: self._servers.named(amphora_id, compute_id)):
                await self._remove([x.id for x in found])
            await self._cloud.run(self._groups.drop_empty)

    async def list_owned(self) -> tuple[AmphoraId, ...]:
        found = await self._cloud.run(self._servers.owned)
        return tuple(dict.fromkeys(amphora_id for _, amphora_id in found))

    async def list_running(self) -> frozenset[AmphoraId] | None:
        found = await self._cloud.run(self._servers.owned)
        return frozenset(
            amphora_id for server, amphora_id in found if state_of(server) in (PlaceState.RUNNING, PlaceState.BUILDING)
        )

    async def list_belongings(self) -> tuple[Belonging, ...]:
        found = await self._cloud.run(self._servers.owned)
        return tuple(
            Belonging(kind=BelongingKind.SERVER, name=f"{server.id} {server.name}", proof=_PROOF, amphora_id=amphora_id)
            for server, amphora_id in found
        )

    async def attach(self, amphora_id: AmphoraId, port: Port) -> None:
        _require_attachable(port)
        server = await self._cloud.run(lambda: self._servers.found(amphora_id))
        if server is None or server.is_going:
            raise Retry(f"amphora {amphora_id} has no server to attach a port to", after=SOON_S, code="no-place")
        await self._attach(server.id, port)

    async def detach(self, amphora_id: AmphoraId, port: Port) -> None:
        server = await self._cloud.run(lambda: self._servers.found(amphora_id))
        if server is None:
            return
        deadline = _now() + _LINK_TIMEOUT_S
        is_asked = False
        while port.id in await self._cloud.run(lambda: self._attached(server.id)):
            if _now() > deadline:
                raise Retry(
                    f"Nova does not take port {port.id} from amphora {amphora_id}", after=LATER_S, code="nova-slow"
                )
            if not is_asked:
                await self._cloud.run(lambda: self._detach(server.id, port.id))
                is_asked = True
            await asyncio.sleep(_POLL_S)

    async def examine(self) -> tuple[Finding, ...]:
        def work() -> Finding:
            try:
                self._servers.require_means()
            except Retry as lack:
                return trouble("nova", lack.reason, "see [openstack], [driver_options.nova] and clouds.yaml")
            return fine("nova", f"answers, and has the image and the flavor {self._settings.flavor}")

        return (await self._cloud.run(work),)

    async def close(self) -> None:
        await self._cloud.close()

    # Steps, and waiting between them

    def _turn(self, amphora_id: AmphoraId) -> asyncio.Lock:
        return self._turns.setdefault(amphora_id, asyncio.Lock())

    async def _try_to_build(self, wish: Wish, *, afresh: bool) -> ServerFacts | None:
        """The server when Nova is done with it, for better or worse; None when it is gone. Raises Retry."""
        for _ in range(_BEGINNINGS):
            begun = await self._cloud.run(lambda: self._servers.begin(wish, afresh=afresh))
            if isinstance(begun, str):
                break
            await self._remove(begun)
        else:
            raise Retry(
                f"others make and remove servers of amphora {wish.amphora_id}, or their group, at the same time",
                after=LATER_S,
                code="nova-busy",
            )
        server = await self._until_still(begun)
        if server is not None and server.status == SHUTOFF:
            stopped = server.id
            await self._cloud.run(lambda: self._nova.act(stopped, "os-start"))
            server = await self._until_still(stopped)
        return server

    async def _until_still(self, server_id: str) -> ServerFacts | None:
        deadline = _now() + self._settings.build_timeout.total_seconds()
        while True:
            server = await self._cloud.run(lambda: self._nova.server(server_id))
            if server is None or server.is_going:
                return None
            if not server.is_in_motion and server.status != UNKNOWN:
                return server
            if _now() > deadline:
                raise Retry(
                    f"Nova is at server {server_id} since {self._settings.build_timeout.total_seconds():.0f} s "
                    f"({server.status}, {server.task}); it is waited for",
                    after=SOON_S,
                    code="nova-slow",
                )
            await asyncio.sleep(_POLL_S)

    async def _remove(self, server_ids: Sequence[str]) -> None:
        deadline = _now() + self._settings.delete_timeout.total_seconds()
        remaining, again_at = tuple(server_ids), _now()
        while True:
            # Nova hands the first to the host, and that may be dead. Once it has noticed it deletes by itself, on another.
            again = _now() >= again_at
            again_at = _now() + _ASK_AGAIN_S if again else again_at
            ask = partial(self._servers.remove, remaining, again=again)
            if not (remaining := await self._cloud.run(ask)):
                return
            if _now() > deadline:
                raise Retry(
                    f"Nova does not take server {remaining[0]} away; see what `openstack server event list` says of it",
                    after=LATER_S,
                    code="nova-delete-stuck",
                )
            await asyncio.sleep(_POLL_S)

    async def _attach(self, server_id: str, port: Port) -> None:
        """Raises Retry."""

        def work() -> bool:
            if port.id in self._attached(server_id):
                return True
            try:
                self._nova.attach(server_id, port.id)
            except Refused as refused:
                if port.id in self._attached(server_id):  # somebody else was quicker
                    return True
                raise Retry(
                    f"Nova does not attach port {port.id}: {refused.detail}", after=SOON_S, code="nova-busy"
                ) from refused
            return port.id in self._attached(server_id)

        deadline = _now() + _LINK_TIMEOUT_S
        while not await self._cloud.run(work):
            if _now() > deadline:
                raise Retry(f"Nova does not attach port {port.id}", after=LATER_S, code="nova-slow")
            await asyncio.sleep(_POLL_S)

    def _detach(self, server_id: str, port_id: PortId) -> None:
        try:
            self._nova.detach(server_id, port_id)
        except Refused as refused:
            raise Retry(
                f"Nova does not take port {port_id} away now: {refused.detail}", after=SOON_S, code="nova-busy"
            ) from refused

    def _attached(self, server_id: str) -> frozenset[PortId]:
        """Nothing of a server that is gone."""
        try:
            return frozenset(x.port_id for x in self._nova.interfaces(server_id))
        except Refused as refused:
            if refused.status == HTTPStatus.NOT_FOUND:
                return frozenset()
            raise

    def _place(self, amphora_id: AmphoraId, server: ServerFacts) -> Place:
        if server.status == UNKNOWN:
            # The part of Nova (cell) that has it is away. It may well serve: its heartbeats and its agent say so.
            return Place(amphora_id=amphora_id, state=PlaceState.RUNNING, compute_id=server.id)
        if server.status == SOFT_DELETED:
            return Place(amphora_id=amphora_id, state=PlaceState.ABSENT)
        state = self._servers.state(server)
        has_links = state in (PlaceState.RUNNING, PlaceState.BUILDING)
        return Place(
            amphora_id=amphora_id,
            state=state,
            compute_id=server.id,
            management_address=server.metadata.get(MANAGEMENT),
            host=server.host or server.host_id or None,
            # Nobody sees into a server; but in one that failed nothing runs that could be counted on.
            balancing=False if state is PlaceState.STOPPED else None,
            attached=self._attached(server.id) if has_links else frozenset(),
            compute_flavor=server.flavor.original_name,
            image_id=server.image_id,
            zone=server.zone or None,
            started_at=self._servers.started_at(server) if state is PlaceState.RUNNING or server.is_rebooting else None,
        )


def _require_attachable(port: Port) -> None:
    if port.attachment != ATTACHMENT:
        raise Retry(
            f"compute driver nova attaches ports of Neutron, and port {port.id} is of {port.attachment!r}; "
            'set drivers.network = "neutron"',
            after=LATER_S,
            code="nova-needs-neutron",
        )


def _now() -> float:
    return asyncio.get_running_loop().time()
