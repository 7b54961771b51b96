"""Drivers of a cloud that an Octavia has built its amphorae in, as far as adoption needs one: servers that run, and ports that a
file tells. What would be changed in the cloud is written down, so that a test sees it.

In a distribution of its own, as a vendor's are: this directory in PYTHONPATH. `STAND_IN_CLOUD` names the directory with
ports.json (amphora id -> its ports) and journal."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar

import msgspec
from msgspec.structs import replace

from frontinus.drivers.compute.interface import ADOPTS, ATTACH, Place
from frontinus.drivers.compute.noop import NoopCompute
from frontinus.drivers.network.interface import ADOPTS as ADOPTS_PORTS
from frontinus.drivers.network.interface import PORTS
from frontinus.drivers.network.noop import NoopNetwork
from frontinus.model.errors import Invalid
from frontinus.model.ids import AmphoraId, PortId
from frontinus.model.ports import Adoptee, Port, PortPurpose, PortRequest


def directory() -> Path:
    return Path(os.environ["STAND_IN_CLOUD"])


def ports() -> dict[AmphoraId, tuple[Port, ...]]:
    return msgspec.json.decode((directory() / "ports.json").read_bytes(), type=dict[AmphoraId, tuple[Port, ...]])


def note(*words: str) -> None:
    with (directory() / "journal").open("a") as journal:
        journal.write(" ".join(words) + "\n")


class Servers(NoopCompute):
    """Servers that somebody built, and that run."""

    name: ClassVar[str] = "stand-in-servers"
    interface: ClassVar[int] = 1
    features: ClassVar[frozenset[str]] = frozenset({ADOPTS, ATTACH})

    async def get(self, amphora_id: AmphoraId) -> Place:
        place = await super().get(amphora_id)
        return replace(place, attached=frozenset(x.id for x in ports().get(amphora_id, ())))

    async def attach(self, amphora_id: AmphoraId, port: Port) -> None:
        if port.id not in {x.id for x in ports().get(amphora_id, ())}:
            note("attached", port.id)

    async def detach(self, amphora_id: AmphoraId, port: Port) -> None:
        note("detached", port.id)


class Ports(NoopNetwork):
    """The ports of that file; none can be made."""

    name: ClassVar[str] = "stand-in-ports"
    interface: ClassVar[int] = 1
    features: ClassVar[frozenset[str]] = NoopNetwork.features | {PORTS, ADOPTS_PORTS}

    async def find_ports(self, adoptee: Adoptee) -> tuple[Port, ...]:
        there = ports().get(adoptee.amphora_id, ())
        if adoptee.vip_port_id not in {x.id for x in there}:
            raise Invalid("vip_port_id", f"there is no port {adoptee.vip_port_id}")
        networks = [network_id for network_id, _ in adoptee.subnets]
        return tuple(x for x in there if x.purpose is PortPurpose.MANAGEMENT or x.network_id in networks)

    async def create_port(self, request: PortRequest) -> Port:
        found = next((x for x in ports().get(request.amphora_id, ()) if x.id == request.port_id), None)
        if found is None:
            note("made", str(request.network_id))
            raise Invalid("network_id", "this cloud makes no ports")
        note("lets-in", found.id, *(f"{x.protocol}/{x.port}" for x in request.allowed))
        return replace(found, allowed=request.allowed)

    async def delete_port(self, amphora_id: AmphoraId, port_id: PortId) -> None:
        note("deleted", port_id)

    async def list_ports(self, amphora_id: AmphoraId) -> tuple[Port, ...]:
        return ports().get(amphora_id, ())

    async def list_port_owners(self) -> tuple[AmphoraId, ...]:
        return ()
