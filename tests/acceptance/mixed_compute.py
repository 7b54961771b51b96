"""A compute driver for fleets of which a few amphorae carry traffic and all others are simulated, chosen by their id.

Out of tree, as a vendor's: found by the entry point that `announce` writes, and loaded because the settings allow it."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import ClassVar

from frontinus.drivers.compute.interface import ComputeDriver, Place
from frontinus.drivers.compute.process.driver import ProcessCompute, ProcessSettings
from frontinus.model.boot import BootFiles
from frontinus.model.ids import AmphoraId, LoadBalancerId
from frontinus.model.placement import UNSPECIFIED, Placement
from frontinus.model.ports import Port
from frontinus.testing.simulated.compute import SimulatedCompute, SimulatedSettings
from frontinus.testing.simulated.fleet import SimulatedFleet

ROOT = Path(__file__).parent.parent.parent
ENTRY_POINTS = """\
[frontinus.compute_drivers]
mixed = tests.acceptance.mixed_compute:MixedCompute
"""


@dataclass(frozen=True, kw_only=True)
class MixedSettings:
    state_dir: Path
    directory: Path
    hosts: tuple[str, ...]
    one_in: int
    """Of so many amphorae one is real."""


def is_real(amphora_id: str, one_in: int) -> bool:
    return int.from_bytes(sha256(amphora_id.encode()).digest()[8:12]) % one_in == 0


class MixedCompute(ComputeDriver):
    """See drivers/compute/interface.py, whose docstrings are the law."""

    name: ClassVar[str] = "mixed"
    interface: ClassVar[int] = 1
    Settings: ClassVar[type[MixedSettings]] = MixedSettings

    def __init__(self, settings: MixedSettings) -> None:
        self._one_in = settings.one_in
        self._real = ProcessCompute(ProcessSettings(state_dir=settings.state_dir))
        self._simulated = SimulatedCompute(SimulatedSettings(directory=settings.directory, hosts=settings.hosts))

    def _of(self, amphora_id: AmphoraId) -> ComputeDriver:
        return self._real if is_real(amphora_id, self._one_in) else self._simulated

    def management_address(self, amphora_id: AmphoraId) -> str | None:
        return self._of(amphora_id).management_address(amphora_id)

    async def build(
        self,
        amphora_id: AmphoraId,
        load_balancer_id: LoadBalancerId,
        boot: BootFiles,
        ports: tuple[Port, ...] = (),
        placement: Placement = UNSPECIFIED,
    ) -> Place:
        return await self._of(amphora_id).build(amphora_id, load_balancer_id, boot, ports, placement)

    async def get(self, amphora_id: AmphoraId) -> Place:
        return await self._of(amphora_id).get(amphora_id)

    async def destroy(self, amphora_id: AmphoraId) -> None:
        await self._of(amphora_id).destroy(amphora_id)

    async def list_owned(self) -> tuple[AmphoraId, ...]:
        return (*await self._real.list_owned(), *await self._simulated.list_owned())

    async def close(self) -> None:
        await self._real.close()
        await self._simulated.close()


def announce(fleet: SimulatedFleet) -> dict[str, str]:
    """Make the driver known to processes with this environment."""
    installed = fleet.directory / "mixed"
    fleet.announce(installed, ENTRY_POINTS)
    return {"PYTHONPATH": f"{installed}:{ROOT}"}


def settings_for(fleet: SimulatedFleet, one_in: int) -> str:
    """TOML that chooses it."""
    hosts = ", ".join(f'"{address}"' for address in fleet.addresses)
    return (
        '[drivers]\ncompute = "mixed"\nallow_experimental = ["mixed"]\n'
        f'[driver_options.mixed]\none_in = {one_in}\ndirectory = "{fleet.directory}"\nhosts = [{hosts}]\n'
    )
