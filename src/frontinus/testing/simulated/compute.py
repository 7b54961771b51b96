"""The compute driver whose places are simulated amphorae (host.py), for any number of controllers at once.

Nothing is kept here: the hosts are the world. Which host an amphora is on follows from its id."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import ClassVar

import aiohttp
import msgspec

from frontinus.drivers.compute.interface import ComputeDriver, Place, PlaceState
from frontinus.model.boot import BootFiles
from frontinus.model.errors import Invalid, Retry
from frontinus.model.ids import AmphoraId, LoadBalancerId
from frontinus.model.placement import UNSPECIFIED, Placement
from frontinus.model.ports import Port
from frontinus.testing.simulated.host import Building, Standing, socket_of


@dataclass(frozen=True, kw_only=True)
class SimulatedSettings:
    """Which hosts there are; [driver_options.simulated] in the configuration file. fleet.py writes it."""

    directory: Path
    """Where their sockets are."""

    hosts: tuple[str, ...]
    """The address of each."""

    timeout: float = 10.0
    """Seconds for a host to answer."""

    def check(self) -> None:
        """Raises Invalid naming the setting that cannot be."""
        if not self.hosts:
            raise Invalid("hosts", "there must be one at least")


class SimulatedCompute(ComputeDriver):
    """See drivers/compute/interface.py, whose docstrings are the law."""

    name: ClassVar[str] = "simulated"
    interface: ClassVar[int] = 1  # of compute drivers; a number, since it is loaded as another distribution's
    Settings: ClassVar[type[SimulatedSettings]] = SimulatedSettings

    def __init__(self, settings: SimulatedSettings) -> None:
        self._settings = settings
        self._sessions: dict[str, aiohttp.ClientSession] = {}

    def management_address(self, amphora_id: AmphoraId) -> str | None:
        hosts = self._settings.hosts
        return hosts[int.from_bytes(sha256(amphora_id.encode()).digest()[:4]) % len(hosts)]

    async def build(
        self,
        amphora_id: AmphoraId,
        load_balancer_id: LoadBalancerId,
        boot: BootFiles,
        ports: tuple[Port, ...] = (),
        placement: Placement = UNSPECIFIED,
    ) -> Place:
        body = msgspec.json.encode(Building(load_balancer_id=load_balancer_id, files=boot.files))
        return await self._ask_about("PUT", amphora_id, body)

    async def get(self, amphora_id: AmphoraId) -> Place:
        return await self._ask_about("GET", amphora_id)

    async def destroy(self, amphora_id: AmphoraId) -> None:
        await self._ask("DELETE", self._host_of(amphora_id), f"/places/{amphora_id}")

    async def list_owned(self) -> tuple[AmphoraId, ...]:
        found: list[AmphoraId] = []
        for host in self._settings.hosts:
            _, content = await self._ask("GET", host, "/places")
            found += msgspec.json.decode(content, type=list[AmphoraId])
        return tuple(found)

    async def close(self) -> None:
        for session in self._sessions.values():
            await session.close()
        self._sessions.clear()

    def _host_of(self, amphora_id: AmphoraId) -> str:
        return self.management_address(amphora_id) or ""

    async def _ask_about(self, method: str, amphora_id: AmphoraId, body: bytes = b"") -> Place:
        host = self._host_of(amphora_id)
        status, content = await self._ask(method, host, f"/places/{amphora_id}", body)
        if status == 404:
            return Place(amphora_id=amphora_id, state=PlaceState.ABSENT)
        if status != 200:
            raise Retry(f"host {host} makes no place: {content[:200]!r}", after=1.0, code="place-failed")
        standing = msgspec.json.decode(content, type=Standing)
        return Place(
            amphora_id=amphora_id,
            state=PlaceState.STOPPED if standing.stopped else PlaceState.RUNNING,
            compute_id=amphora_id,
            management_address=host,
            host=host,
            balancing=standing.balancing,
        )

    async def _ask(self, method: str, host: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        session = self._sessions.get(host)
        if session is None:
            session = self._sessions[host] = aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(str(socket_of(self._settings.directory, host))),
                timeout=aiohttp.ClientTimeout(total=self._settings.timeout),
            )
        try:
            async with session.request(method, f"http://host{path}", data=body) as response:
                return response.status, await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Retry(f"host {host} does not answer: {error}", after=1.0, code="place-failed") from error
