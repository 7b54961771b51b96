"""The compute driver whose amphorae are network namespaces of this machine.

An amphora is what it is for `process` (drivers/compute/host/), and runs in a network namespace of its own: eth0 for
management, which this driver configures, and an interface for each further port, which the agent does. So an amphora has
what a virtual machine has of networks, starts in a fraction of a second, and needs root (CAP_NET_ADMIN, CAP_SYS_ADMIN).

What shall hang on it is written down in the place's directory before it is made: what a crash leaves is found.
Next: links.py."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import ClassVar

import msgspec

from frontinus.drivers import iproute
from frontinus.drivers.compute.host.compute import HostCompute, HostSettings
from frontinus.drivers.compute.host.place import PlaceDirectory, amphorae_in
from frontinus.drivers.compute.host.processes import is_alive
from frontinus.drivers.compute.interface import ATTACH
from frontinus.drivers.compute.netns import links, namespaces
from frontinus.drivers.private_files import write_private
from frontinus.model.belongings import Belonging, BelongingKind
from frontinus.model.errors import Retry
from frontinus.model.findings import Finding
from frontinus.model.ids import AmphoraId, PortId
from frontinus.model.ports import Port, PortPurpose, port_for

_PORTS = "ports.json"
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, kw_only=True)
class NetnsSettings(HostSettings):
    """Where and how; [driver_options.netns] in the configuration file."""


class _Ports(msgspec.Struct, frozen=True):
    ports: tuple[Port, ...] = ()


class NetnsCompute(HostCompute):
    """See drivers/compute/interface.py, whose docstrings are the law."""

    name: ClassVar[str] = "netns"
    features: ClassVar[frozenset[str]] = frozenset({ATTACH})
    attaches: ClassVar[str] = "bridge"
    Settings: ClassVar[type[NetnsSettings]] = NetnsSettings

    def __init__(self, settings: NetnsSettings) -> None:
        """Touches nothing. Raises Invalid naming the setting that cannot be."""
        super().__init__(settings)
        # Names of namespaces are the machine's: two installations on it must not take each other's for their own.
        # Links that go because they shall; each until that was heard of.
        self._letting_go: set[str] = set()
        self._prefix = f"frontinus-{sha256(os.fsencode(self._state_dir)).hexdigest()[:8]}-"

    def management_address(self, amphora_id: AmphoraId) -> str | None:
        return None

    async def attach(self, amphora_id: AmphoraId, port: Port) -> None:
        await self._in_thread(lambda: self._attach(amphora_id, port))

    async def detach(self, amphora_id: AmphoraId, port: Port) -> None:
        await self._in_thread(lambda: self._detach(amphora_id, port))

    async def examine(self) -> tuple[Finding, ...]:
        here = await self._in_thread(lambda: tuple(iproute.examine("ip")))
        return (*await super().examine(), *here)

    # What is added to a place of this machine

    def _address(self, amphora_id: AmphoraId, directory: PlaceDirectory) -> str | None:
        port = port_for(_read(directory), PortPurpose.MANAGEMENT)
        return None if port is None else port.addresses[0].address

    def _prepare(self, amphora_id: AmphoraId, directory: PlaceDirectory, ports: tuple[Port, ...]) -> None:
        _write(directory, (*_read(directory), *ports))
        self._ensure_namespace(amphora_id, directory)
        for port in _read(directory):
            links.plug(self._namespace(amphora_id), port)

    def _enter(self, amphora_id: AmphoraId, command: list[str]) -> list[str]:
        program = shutil.which("ip", path=f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin")
        if program is None:  # it was there a moment ago, when the namespace was made
            raise Retry("ip is not installed: apt-get install iproute2", after=2.0, code="network-tools")
        return [program, "netns", "exec", self._namespace(amphora_id), *command]

    def _lacks(self, amphora_id: AmphoraId, directory: PlaceDirectory) -> bool:
        management = port_for(_read(directory), PortPurpose.MANAGEMENT)
        return management is not None and not links.is_up(management.link)

    def _attached(self, amphora_id: AmphoraId, directory: PlaceDirectory) -> frozenset[PortId]:
        return frozenset(port.id for port in _read(directory) if links.is_up(port.link))

    def _clear(self, amphora_id: AmphoraId, directory: PlaceDirectory) -> None:
        # First the links: those of a namespace that is going go when the kernel finds time for it.
        for port in _read(directory):
            links.delete(port.link)
        namespaces.remove(self._namespace(amphora_id))

    def _owners(self, links: frozenset[str]) -> Iterable[AmphoraId]:
        lost = links - self._letting_go
        if not lost:
            return ()
        places = ((x, self._directory(x)) for x in amphorae_in(self._amphorae))
        return [x for x, directory in places if any(port.link in lost for port in _read(directory))]

    def _others_owned(self) -> tuple[AmphoraId, ...]:
        ids = (name.removeprefix(self._prefix) for name in namespaces.names(self._prefix))
        return tuple(AmphoraId(x) for x in ids if _UUID.fullmatch(x))

    def _others_belonging(self) -> Iterator[Belonging]:
        for amphora_id in self._others_owned():
            yield Belonging(
                kind=BelongingKind.NAMESPACE,
                name=self._namespace(amphora_id),
                proof="its name has the state directory's digest",
                amphora_id=amphora_id,
            )
        for amphora_id in amphorae_in(self._amphorae):
            for port in _read(self._directory(amphora_id)):
                if Path("/sys/class/net", port.link).exists():
                    yield Belonging(
                        kind=BelongingKind.LINK, name=port.link, proof="noted in its place", amphora_id=amphora_id
                    )

    # Steps

    def _namespace(self, amphora_id: AmphoraId) -> str:
        return f"{self._prefix}{amphora_id}"

    def _ensure_namespace(self, amphora_id: AmphoraId, directory: PlaceDirectory) -> None:
        """The namespace is there under its name, its loopback up. Raises Retry."""
        agent = directory.read_agent()
        lives = agent is not None and is_alive(agent, amphora_id, self._state_dir)
        namespaces.ensure(self._namespace(amphora_id), agent.pid if agent is not None and lives else None)

    def _attach(self, amphora_id: AmphoraId, port: Port) -> None:
        directory = self._directory(amphora_id)
        if not directory.exists():
            raise Retry(f"amphora {amphora_id} has no place to attach to", after=1.0, code="place-failed")
        try:
            with directory.locked() as is_new:
                if is_new:  # destroyed meanwhile: what was made by locking it is nobody's
                    directory.remove()
                    raise Retry(f"amphora {amphora_id} has no place any more", after=1.0, code="place-failed")
                _write(directory, (*_read(directory), port))
                self._ensure_namespace(amphora_id, directory)
                links.plug(self._namespace(amphora_id), port)
        except OSError as error:
            raise _trouble(port, error) from error

    def _detach(self, amphora_id: AmphoraId, port: Port) -> None:
        directory = self._directory(amphora_id)
        if not directory.exists():
            return
        try:
            with directory.locked() as is_new:
                if is_new:
                    directory.remove()
                    return
                # Until the record is written: of one link that goes the kernel speaks more than once.
                self._letting_go.add(port.link)
                try:
                    links.delete(port.link)
                    _write(directory, tuple(x for x in _read(directory) if x.id != port.id))
                finally:
                    self._letting_go.discard(port.link)
        except OSError as error:
            raise _trouble(port, error) from error


def _read(directory: PlaceDirectory) -> tuple[Port, ...]:
    """What shall hang on the place; nothing where that was not written yet."""
    try:
        return msgspec.json.decode((directory.path / _PORTS).read_bytes(), type=_Ports).ports
    except (OSError, msgspec.MsgspecError):
        return ()


def _write(directory: PlaceDirectory, ports: tuple[Port, ...]) -> None:
    """Of two values of one port the last."""
    content = msgspec.json.encode(_Ports(tuple({x.id: x for x in ports}.values())))
    write_private(directory.path / _PORTS, content)


def _trouble(port: Port, error: OSError) -> Retry:
    return Retry(f"port {port.id} cannot be attached or detached: {error}", after=5.0, code="place-failed")
