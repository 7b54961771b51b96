"""The benches that `frontinus driver check` brings: a state directory of its own, and places of this machine.

An amphora driver is examined on amphorae that the compute driver `process` starts, so whatever the vendor's amphora runs
must run there (`[driver_options.process] agent_command`); a driver of something else brings a bench of its own. Heartbeats
are heard on a socket of ours, which the driver is told as `heartbeat_destinations`. Next: frontinus/testing/exam.py."""

from __future__ import annotations

import asyncio
import os
import pickle
import secrets
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from frontinus.drivers.amphora.interface import AmphoraDriver, Refused
from frontinus.drivers.compute.host.compute import HostCompute
from frontinus.drivers.compute.host.processes import CensusTaker
from frontinus.drivers.compute.interface import ATTACH, ComputeDriver
from frontinus.loading import DriverKind, naming_option, settings_of
from frontinus.main import Drivers
from frontinus.model.errors import Retry
from frontinus.model.ids import AmphoraId, LoadBalancerId, new_id
from frontinus.model.tree import Amphora, LoadBalancerTree
from frontinus.settings import Settings
from frontinus.testing import (
    amphora_conformance,
    compute_conformance,
    network_conformance,
    placement_conformance,
    secret_conformance,
)
from frontinus.testing.amphora_bench import AmphoraBench, amphora_at
from frontinus.testing.compute_conformance import ComputeBench
from frontinus.testing.exam import Check, NotExaminable, Violation
from frontinus.testing.network_conformance import NetworkBench
from frontinus.testing.secret_conformance import SecretBench

KITS: dict[str, tuple[Sequence[Check[Any]], type[Any]]] = {
    "amphora": (amphora_conformance.CHECKS, AmphoraBench),
    "compute": ((*compute_conformance.CHECKS, *placement_conformance.CHECKS), ComputeBench),
    "network": (network_conformance.CHECKS, NetworkBench),
    "secret": (secret_conformance.CHECKS, SecretBench),
}
"""By kind of driver: the checks, and the class of the bench that they want."""

FIRST_ANSWER_S = 20.0
HEARTBEAT_S = 10.0
_LOOK_EVERY_S = 0.05


@dataclass(frozen=True)
class Subject:
    """Who is examined: a driver's class with the settings that it is called with."""

    kind: DriverKind
    driver: type[Any]
    driver_settings: object

    def make(self) -> Any:
        with naming_option(self.driver.name):
            return self.driver() if self.driver_settings is None else self.driver(self.driver_settings)


def subject(kind: DriverKind, driver: type[Any], settings: Settings, heard_at: str | None) -> Subject:
    """The driver with what the operator wrote in [driver_options.NAME], and for the rest what an exam has. Raises
    Invalid."""
    name = getattr(driver, "name", driver.__name__)
    context: dict[str, object] = {
        "state_dir": settings.state_dir,
        "heartbeat_destinations": () if heard_at is None else (heard_at,),
        "heartbeat_interval": timedelta(seconds=0.2),
        "datagram_balancer": "nginx",
        "network": "none",
    }
    return Subject(kind, driver, settings_of(driver, name, settings.driver_options.get(name, {}), context))


class Places:
    """Amphorae on this machine, for an exam."""

    def __init__(self, examined: Subject, settings: Settings, ear: socket.socket) -> None:
        self._examined = examined
        self._settings = settings
        self._ear = ear
        self.compute: ComputeDriver = Drivers(settings, 0).compute
        self.vip_address = f"127.{100 + secrets.randbelow(20)}.{secrets.randbelow(256)}.{1 + secrets.randbelow(254)}"
        self.ports = (_free_port(self.vip_address), _free_port(self.vip_address))

    def bench(self) -> AmphoraBench:
        if ATTACH in self.compute.features:
            return paper_bench(self._examined)
        on_host = isinstance(self.compute, HostCompute)
        return AmphoraBench(
            factory=self._examined.make,
            place=self.place,
            vip_address=self.vip_address,
            ports=self.ports,
            hold_port=_hold_port if on_host else None,
            hang=self.hang if on_host else None,
            reachable=on_host,
            datagram=self.datagram if hasattr(self._examined.driver_settings, "heartbeat_destinations") else None,
            digest_elsewhere=elsewhere(self._examined),
        )

    @asynccontextmanager
    async def place(self, driver: AmphoraDriver, amphora_id: AmphoraId) -> AsyncIterator[str]:
        told = self.compute.management_address(amphora_id)
        boot = driver.boot_files(amphora_id, told or "")
        built = await self.compute.build(amphora_id, LoadBalancerId(new_id()), boot)
        address = told or built.management_address
        if address is None:
            raise NotExaminable(f"compute driver {self.compute.name} tells no management address")
        try:
            await self._first_answer(driver, amphora_id, address)
            yield address
        finally:
            await self.compute.destroy(amphora_id)

    async def _first_answer(self, driver: AmphoraDriver, amphora_id: AmphoraId, address: str) -> None:
        tree = AmphoraBench(factory=self._examined.make, vip_address=self.vip_address).tree(driver, self.ports[0])
        amphora = amphora_at(address, tree, amphora_id)
        clock = asyncio.get_running_loop().time
        deadline = clock() + FIRST_ANSWER_S
        while True:
            try:
                await driver.info(amphora, tree)
            except Retry as silent:
                if clock() > deadline:
                    raise Violation(
                        f"no agent answered in {FIRST_ANSWER_S:g} s: {silent}{self._log(amphora_id)}"
                    ) from silent
                await asyncio.sleep(_LOOK_EVERY_S)
            else:
                return

    def _log(self, amphora_id: AmphoraId) -> str:
        log = self._settings.state_dir / "amphorae" / amphora_id / "agent.log"
        try:
            return "; the end of what it printed: " + " / ".join(log.read_text(errors="replace").splitlines()[-3:])
        except OSError:
            return ""

    @contextmanager
    def hang(self, amphora_id: AmphoraId) -> Iterator[None]:
        """Nothing in the place gets the processor."""
        with hung(self._settings.state_dir, amphora_id):
            yield

    async def datagram(self, driver: AmphoraDriver, amphora_id: AmphoraId) -> bytes:
        """What an amphora that runs here sends by itself."""
        loop = asyncio.get_running_loop()
        async with self.place(driver, amphora_id):
            other = self._examined.make()  # the one that is examined has not seen it
            try:
                async with asyncio.timeout(HEARTBEAT_S):
                    while True:
                        datagram = await loop.sock_recv(self._ear, 65_536)
                        try:
                            if other.decode(datagram, datetime.now(UTC)).amphora_id == amphora_id:
                                return datagram
                        except Refused:
                            continue
            except TimeoutError:
                raise Violation(
                    f"no heartbeat of the amphora that could be decoded came in {HEARTBEAT_S:g} s"
                ) from None
            finally:
                await other.close()


@contextmanager
def hung(state_dir: Path, amphora_id: AmphoraId) -> Iterator[None]:
    """No process of an amphora of this state directory gets the processor."""
    pids = [x.pid for x in CensusTaker(state_dir.resolve()).take().get(amphora_id, ())]
    if not pids:
        raise NotExaminable("no process of the amphora is found that could be stopped")
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def paper_bench(examined: Subject) -> AmphoraBench:
    """A bench without amphorae."""
    return AmphoraBench(factory=examined.make, digest_elsewhere=elsewhere(examined))


def open_ear() -> tuple[socket.socket, str]:
    """A socket for heartbeats, and its address as settings write it."""
    ear = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    ear.bind(("127.0.0.1", 0))
    ear.setblocking(False)
    return ear, f"127.0.0.1:{ear.getsockname()[1]}"


def _free_port(address: str) -> int:
    with socket.socket() as trial:
        trial.bind((address, 0))
        return int(trial.getsockname()[1])


@contextmanager
def _held(address: str, port: int) -> Iterator[None]:
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind((address, port))
        holder.listen()
        yield


def _hold_port(address: str, port: int) -> AbstractContextManager[object]:
    return _held(address, port)


def elsewhere(examined: Subject) -> Callable[[LoadBalancerTree, Amphora], Any]:
    """What renders in a fresh process, whose sets and dicts of strings have another order."""

    async def digest(tree: LoadBalancerTree, amphora: Amphora) -> str:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "frontinus.cli.driver_elsewhere",
            env={**_environment(), "PYTHONHASHSEED": str(1 + secrets.randbelow(1_000_000))},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        told, complaint = await process.communicate(
            pickle.dumps((sys.path, pickle.dumps((examined.driver, examined.driver_settings, tree, amphora))))
        )
        if process.returncode:
            raise Violation(f"in another process it cannot be made: {complaint.decode(errors='replace')[-300:]}")
        return told.decode().strip()

    return digest


def _environment() -> Mapping[str, str]:
    return {key: value for key, value in os.environ.items() if key != "PYTHONHASHSEED"}
