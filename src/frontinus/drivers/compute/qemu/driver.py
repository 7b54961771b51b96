"""The compute driver whose amphorae are virtual machines of this host, by QEMU.

A machine is a directory, a process and a tap for each port. It outlives the controller, and is found again by its
directory and by its command line (place.py). The image is read by all and written by none; what a machine changes is in
its memory, and one push gives it back. Privileges: taps are made, so root, or CAP_NET_ADMIN with access to /dev/net/tun.

A planned stop is told from a failure by the process that stays: QEMU keeps one whose guest was powered off or paused,
and it says so (`-no-shutdown`). A guest that panics starts anew; a QEMU that is gone is a failure.

Next: machine.py, place.py, qmp.py, taps.py."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from frontinus.drivers.compute import endings
from frontinus.drivers.compute.interface import ATTACH, LVS, ComputeDriver, Place, PlaceState
from frontinus.drivers.compute.qemu import taps
from frontinus.drivers.compute.qemu.kvm import has_kvm, kvm_lacks
from frontinus.drivers.compute.qemu.machine import (
    ACCELERATORS,
    CONFIG_DRIVE,
    DISK,
    KERNEL,
    NETDEV_PREFIX,
    NIC_PREFIX,
    QMP,
    RAM_DISK,
    arguments,
    config_drive,
    netdev,
    nic,
    tap_name,
)
from frontinus.drivers.compute.qemu.place import MachineDirectory, machines_in, running_in
from frontinus.drivers.compute.qemu.qmp import Declined, Monitor, Unanswered, monitor
from frontinus.drivers.examination import version_of
from frontinus.model.belongings import Belonging, BelongingKind
from frontinus.model.boot import BootFiles
from frontinus.model.errors import Invalid, Retry
from frontinus.model.findings import Finding, fine, trouble, warning
from frontinus.model.ids import AmphoraId, LoadBalancerId, PortId
from frontinus.model.placement import COMPUTE_FLAVOR, IMAGE_TAG, UNSPECIFIED, Placement
from frontinus.model.ports import Port, PortPurpose, port_for

_T = TypeVar("_T")

_SYSTEM_DIRECTORIES = "/usr/local/sbin:/usr/sbin:/sbin"
LATER_S = 30.0
_INSTALL = "apt-get install qemu-system-x86"
_STATES: dict[str, PlaceState] = {
    "running": PlaceState.RUNNING,
    "prelaunch": PlaceState.BUILDING,
    "inmigrate": PlaceState.BUILDING,
    "paused": PlaceState.STOPPED_ON_PURPOSE,
    "shutdown": PlaceState.STOPPED_ON_PURPOSE,
    "suspended": PlaceState.STOPPED_ON_PURPOSE,
}
"""Run states of QEMU (qapi/run-state.json). The others, such as io-error and internal-error, are failures: STOPPED."""


BOOT_TIMEOUT = {"kvm": timedelta(seconds=60), "tcg": timedelta(seconds=180)}
"""Emulated: seven seconds of CPU, and several machines may share it with much other work (75 s were seen)."""


LEAST_MEMORY_MIB = 192


@dataclass(frozen=True, kw_only=True)
class QemuFlavor:
    """A size of machines that flavors may name: [[driver_options.qemu.flavors]]."""

    name: str
    """As `compute_flavor` of a flavor says it."""

    memory_mib: int = 256
    cpus: int = 1


@dataclass(frozen=True, kw_only=True)
class QemuImage:
    """An image that flavors may name: [[driver_options.qemu.images]]."""

    tag: str
    """As `amp_image_tag` of a flavor says it."""

    path: Path
    """The directory that `make image IMAGE=...` filled."""


@dataclass(frozen=True, kw_only=True)
class QemuSettings:
    """Where and how; [driver_options.qemu] in the configuration file."""

    state_dir: Path
    """Machines live in <state_dir>/machines. Part of the proof of ownership: do not move it while machines run."""

    image: Path | None = None
    """The directory that `make image IMAGE=...` filled; None: `image` in the state directory. A new image is used by
    machines that are started from then on."""

    program: str = field(default="qemu-system-x86_64", metadata={"own": True})
    """QEMU, a name or a path."""

    accelerator: str = field(default="auto", metadata={"own": True})
    """`kvm`, `tcg` (emulation), or `auto`: KVM where /dev/kvm can be opened and the processor has virtualisation."""

    memory_mib: int = 256
    """Memory of a machine; with less than 192 its kernel does not start."""

    cpus: int = 1
    """Processors of a machine."""

    flavors: tuple[QemuFlavor, ...] = ()
    """Other sizes, for load balancers whose flavor names one (`compute_flavor`)."""

    images: tuple[QemuImage, ...] = field(default=(), metadata={"own": True})
    """Other images, for load balancers whose flavor names one (`amp_image_tag`)."""

    start_timeout: timedelta = field(default=timedelta(seconds=30), metadata={"own": True})
    """Until QEMU has set a machine up; the guest's own start is not part of it."""

    monitor_timeout: timedelta = field(default=timedelta(seconds=5), metadata={"own": True})
    """For one conversation with a machine's monitor."""

    def check(self) -> None:
        """Raises Invalid naming the setting that cannot be."""
        if self.accelerator not in ("auto", *ACCELERATORS):
            raise Invalid("accelerator", f"must be auto, {' or '.join(ACCELERATORS)}, not {self.accelerator!r}")
        sizes: list[tuple[str, QemuFlavor | QemuSettings]] = [("", self)]
        sizes += [(f"flavors[{number}].", x) for number, x in enumerate(self.flavors)]
        for path, size in sizes:
            if size.memory_mib < LEAST_MEMORY_MIB:
                raise Invalid(f"{path}memory_mib", f"must be at least {LEAST_MEMORY_MIB}, not {size.memory_mib}")
            if size.cpus < 1:
                raise Invalid(f"{path}cpus", f"must be at least 1, not {size.cpus}")
        for field_name, known in (
            ("flavors", [x.name for x in self.flavors]),
            ("images", [x.tag for x in self.images]),
        ):
            if "" in known or len(set(known)) < len(known):
                raise Invalid(field_name, "each needs a name of its own")


class QemuCompute(ComputeDriver):
    """See drivers/compute/interface.py, whose docstrings are the law."""

    name: ClassVar[str] = "qemu"
    features: ClassVar[frozenset[str]] = frozenset({ATTACH, LVS})
    attaches: ClassVar[str] = "bridge"
    starts_slowly: ClassVar[bool] = True
    Settings: ClassVar[type[QemuSettings]] = QemuSettings

    def __init__(self, settings: QemuSettings) -> None:
        """Touches nothing. Raises Invalid naming the setting that cannot be."""
        settings.check()
        self._settings = settings
        state_dir = settings.state_dir.expanduser().resolve()
        self._machines = state_dir / "machines"
        self._image = state_dir / "image" if settings.image is None else settings.image.expanduser().resolve()
        self._built = asyncio.Event()
        self._letting_go: set[str] = set()  # taps that go because they shall
        self._threads = ThreadPoolExecutor(max_workers=32, thread_name_prefix="qemu-compute")

    @property
    def boot_timeout(self) -> timedelta:
        return BOOT_TIMEOUT[self._accelerator()]

    @property
    def placement_words(self) -> frozenset[str]:
        words = ((COMPUTE_FLAVOR, self._settings.flavors), (IMAGE_TAG, self._settings.images))
        return frozenset(word for word, known in words if known)

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
        place = await self._in_thread(
            amphora_id, lambda: self._build(amphora_id, load_balancer_id, boot, ports, placement)
        )
        self._built.set()
        return place

    async def watch(self, tell: Callable[[AmphoraId], None]) -> None:
        async def owners(links: frozenset[str]) -> list[AmphoraId]:
            return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: self._owners(links))

        await endings.watch(tell, self._follow, self._built, owners)

    async def _follow(self, followed: endings.Endings) -> None:
        """Follow the machines that nobody follows yet."""

        def running() -> list[tuple[AmphoraId, int]]:
            new = [x for x in machines_in(self._machines) if x not in followed]
            return [(x, pid) for x in new if (pid := self._directory(x).process()) is not None]

        for amphora_id, pid in await asyncio.get_running_loop().run_in_executor(self._threads, running):
            directory = self._directory(amphora_id)
            followed.follow(amphora_id, pid, partial(_is_machine, directory, pid))

    async def get(self, amphora_id: AmphoraId) -> Place:
        return await self._in_thread(amphora_id, lambda: self._get(amphora_id))

    async def destroy(self, amphora_id: AmphoraId) -> None:
        await self._in_thread(amphora_id, lambda: self._destroy(amphora_id))

    async def list_owned(self) -> tuple[AmphoraId, ...]:
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._list_owned)

    async def list_belongings(self) -> tuple[Belonging, ...]:
        return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: tuple(self._belongings()))

    async def attach(self, amphora_id: AmphoraId, port: Port) -> None:
        await self._in_thread(amphora_id, lambda: self._attach(amphora_id, port))

    async def detach(self, amphora_id: AmphoraId, port: Port) -> None:
        await self._in_thread(amphora_id, lambda: self._detach(amphora_id, port))

    async def examine(self) -> tuple[Finding, ...]:
        return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: tuple(self._examine()))

    async def close(self) -> None:
        await asyncio.to_thread(self._threads.shutdown)

    # What the methods do, in a thread

    def _build(
        self,
        amphora_id: AmphoraId,
        load_balancer_id: LoadBalancerId,
        boot: BootFiles,
        ports: Sequence[Port],
        placement: Placement,
    ) -> Place:
        image, size = self._image_of(placement), self._size_of(placement)
        program = self._need_program(image)
        directory = self._directory(amphora_id)
        with directory.locked():
            directory.write(CONFIG_DRIVE, config_drive(amphora_id, load_balancer_id, boot, ports))
            management = port_for(ports, PortPurpose.MANAGEMENT)
            if management is not None:
                directory.write_management_address(management.addresses[0].address)
            directory.trim_console()
            if self._state(directory)[0] is PlaceState.RUNNING:
                for port in ports:
                    self._plug(directory, port)
            else:
                # One that was stopped on purpose too: whoever builds wants it to run, with these boot files.
                self._end_all(amphora_id)
                for port in ports:
                    self._raise_tap(directory, port)
                words = arguments(
                    amphora_id=amphora_id,
                    directory=directory.path,
                    image=image,
                    accelerator=self._accelerator(),
                    memory_mib=size.memory_mib,
                    cpus=size.cpus,
                    ports=ports,
                )
                self._start(amphora_id, directory, [program, *words])
            return self._place(amphora_id, directory, *self._state(directory))

    def _get(self, amphora_id: AmphoraId) -> Place:
        directory = self._directory(amphora_id)
        if not directory.exists():
            return Place(amphora_id=amphora_id, state=PlaceState.ABSENT)
        return self._place(amphora_id, directory, *self._state(directory))

    def _owners(self, links: frozenset[str]) -> list[AmphoraId]:
        lost = links - self._letting_go
        self._letting_go -= links
        if not lost:
            return []
        return [x for x in machines_in(self._machines) if not lost.isdisjoint(self._directory(x).taps())]

    def _destroy(self, amphora_id: AmphoraId) -> None:
        directory = self._directory(amphora_id)
        with directory.locked():
            self._end_all(amphora_id)
            for tap in directory.taps():
                taps.remove_tap(tap)
            directory.remove()

    def _list_owned(self) -> tuple[AmphoraId, ...]:
        in_directories = machines_in(self._machines)
        for amphora_id in in_directories:
            self._directory(amphora_id).trim_console()
        return tuple(dict.fromkeys((*in_directories, *running_in(self._machines))))

    def _belongings(self) -> Iterator[Belonging]:
        for amphora_id in machines_in(self._machines):
            directory = self._directory(amphora_id)
            yield Belonging(
                kind=BelongingKind.DIRECTORY,
                name=str(directory.path),
                proof="lies in the state directory",
                amphora_id=amphora_id,
            )
            for tap in directory.taps():
                yield Belonging(kind=BelongingKind.LINK, name=tap, proof="noted in its place", amphora_id=amphora_id)
        for amphora_id, pids in running_in(self._machines).items():
            for pid in pids:
                yield Belonging(
                    kind=BelongingKind.PROCESS,
                    name=f"{pid} qemu",
                    proof="its command line names amphora and state directory",
                    amphora_id=amphora_id,
                )

    def _attach(self, amphora_id: AmphoraId, port: Port) -> None:
        directory = self._directory(amphora_id)
        with directory.locked(make=False) as is_there:
            if not is_there or directory.process() is None:
                raise Retry(f"the machine of amphora {amphora_id} does not run", after=1.0, code="machine-stopped")
            self._plug(directory, port)

    def _detach(self, amphora_id: AmphoraId, port: Port) -> None:
        directory = self._directory(amphora_id)
        with directory.locked(make=False) as is_there:
            if not is_there:
                return
            if directory.process() is not None:
                with self._monitor(directory) as qemu, contextlib.suppress(Unanswered):
                    # A guest that is only starting lets go of nothing. Without its tap the interface leads nowhere, which
                    # is what was asked; what is left of it goes before the port is attached again.
                    self._unplug(qemu, port.id)
            self._letting_go.add(tap_name(port.id))
            taps.remove_tap(tap_name(port.id))
            directory.forget_tap(tap_name(port.id))

    # Steps

    def _directory(self, amphora_id: AmphoraId) -> MachineDirectory:
        return MachineDirectory(self._machines, amphora_id)

    def _monitor(self, directory: MachineDirectory) -> contextlib.AbstractContextManager[Monitor]:
        return monitor(directory.path, QMP, self._settings.monitor_timeout.total_seconds())

    def _find_program(self) -> str | None:
        search = f"{os.environ.get('PATH', os.defpath)}:{_SYSTEM_DIRECTORIES}"
        return shutil.which(self._settings.program, path=search)

    def _image_of(self, placement: Placement) -> Path:
        """Raises Retry for a tag that no image has."""
        if placement.amp_image_tag is None:
            return self._image
        for image in self._settings.images:
            if image.tag == placement.amp_image_tag:
                return image.path.expanduser().resolve()
        raise Retry(
            f"there is no image {placement.amp_image_tag!r}, which the flavor of the load balancer asks for; name it in "
            "driver_options.qemu.images",
            after=LATER_S,
            code="no-image",
        )

    def _size_of(self, placement: Placement) -> QemuFlavor | QemuSettings:
        """Raises Retry for a flavor that there is not."""
        if placement.compute_flavor is None:
            return self._settings
        for flavor in self._settings.flavors:
            if flavor.name == placement.compute_flavor:
                return flavor
        raise Retry(
            f"there is no compute flavor {placement.compute_flavor!r}, which the flavor of the load balancer asks for; name "
            "it in driver_options.qemu.flavors",
            after=LATER_S,
            code="no-flavor",
        )

    def _missing_of(self, image: Path) -> Path | None:
        files = (image / name for name in (KERNEL, RAM_DISK, DISK))
        return next((file for file in files if not file.is_file()), None)

    def _need_program(self, image: Path) -> str:
        """QEMU's path. Raises Retry saying what to install or build."""
        found, missing = self._find_program(), self._missing_of(image)
        if found is None:
            raise Retry(f"{self._settings.program} is not installed: {_INSTALL}", after=5.0, code="qemu-missing")
        if missing is not None:
            raise Retry(f"the image lacks {missing}: make image IMAGE={image}", after=5.0, code="image-missing")
        return found

    def _examine(self) -> Iterator[Finding]:
        program = self._find_program()
        if program is None:
            yield trouble("qemu", f"{self._settings.program} is not installed", _INSTALL)
        else:
            yield version_of("qemu", [program, "--version"], r"version (\S+)", (6, 0))
        for image in (self._image, *(x.path.expanduser().resolve() for x in self._settings.images)):
            missing = self._missing_of(image)
            if missing is None:
                yield fine("image", f"{image}{_contents(image)}")
            else:
                build = f"make image IMAGE={image}, as root and in Frontinus' sources; it takes a minute"
                yield trouble("image", f"there is none: {missing} is missing", build)
        lack = kvm_lacks() if self._settings.accelerator != "tcg" else None
        if lack is not None and self._settings.accelerator == "kvm":
            yield trouble("kvm", f"no machine can start: {lack.reason}", f'{lack.advice}; or accelerator = "auto"')
        elif lack is not None:
            slow = f"machines are emulated, so a start takes seconds, and traffic is slow: {lack.reason}"
            yield warning("kvm", slow, lack.advice)
        if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
            yield trouble(
                "privileges", "/dev/net/tun cannot be opened", "run as root, or with CAP_NET_ADMIN and that file"
            )

    def _accelerator(self) -> str:
        if self._settings.accelerator != "auto":
            return self._settings.accelerator
        return "kvm" if has_kvm() else "tcg"

    def _start(self, amphora_id: AmphoraId, directory: MachineDirectory, command: Sequence[str]) -> None:
        try:
            subprocess.run(
                command,
                cwd=directory.path,
                # Nothing of our environment, which may hold secrets.
                env={"PATH": f"/usr/bin:/bin:{_SYSTEM_DIRECTORIES}"},
                check=True,
                capture_output=True,
                stdin=subprocess.DEVNULL,
                timeout=self._settings.start_timeout.total_seconds(),
                umask=0o077,
            )
        except subprocess.CalledProcessError as error:
            said = error.stderr.decode("utf-8", "replace").strip()
            raise Retry(
                f"QEMU did not start the machine of amphora {amphora_id}: {said[-500:]}",
                after=5.0,
                code="machine-failed",
            ) from error
        except subprocess.TimeoutExpired as error:
            raise Retry(
                f"QEMU did not set the machine of amphora {amphora_id} up in time", after=5.0, code="machine-failed"
            ) from error

    def _state(self, directory: MachineDirectory) -> tuple[PlaceState, frozenset[PortId]]:
        """What the machine is, and which ports it has. Raises Unanswered when it runs and does not say."""
        if directory.process() is None:
            return PlaceState.STOPPED, frozenset()
        try:
            with self._monitor(directory) as qemu:
                state = _STATES.get(str(qemu.ask("query-status")["status"]), PlaceState.STOPPED)
                nics = _nics(qemu)
        except (Declined, Unanswered):
            if directory.process() is None:  # it ended while we asked
                return PlaceState.STOPPED, frozenset()
            raise
        return state, frozenset(port_id for port_id in nics if taps.is_on_bridge(tap_name(port_id)))

    def _place(
        self, amphora_id: AmphoraId, directory: MachineDirectory, state: PlaceState, attached: frozenset[PortId]
    ) -> Place:
        return Place(
            amphora_id=amphora_id,
            state=state,
            compute_id=amphora_id,
            management_address=directory.management_address(),
            host=socket.gethostname(),
            # Into a machine nobody can see; but in one whose QEMU is gone, nothing runs.
            balancing=None if state is not PlaceState.STOPPED or directory.process() is not None else False,
            attached=attached,
        )

    def _raise_tap(self, directory: MachineDirectory, port: Port) -> None:
        name = tap_name(port.id)
        directory.note_tap(name)
        taps.raise_tap(name, port.attachment, port.mtu)

    def _plug(self, directory: MachineDirectory, port: Port) -> None:
        """The running machine has this port."""
        had_tap = taps.is_on_bridge(tap_name(port.id))
        self._raise_tap(directory, port)
        with self._monitor(directory) as qemu:
            if had_tap and port.id in _nics(qemu):
                return
            self._unplug(qemu, port.id)  # one whose tap is another now, or of an attach that was broken off
            qemu.ask("netdev_add", netdev(port))
            qemu.ask("device_add", nic(port))

    def _unplug(self, qemu: Monitor, port_id: PortId) -> None:
        """The guest lets go of the device when it gets to it; until it does this waits. Raises Unanswered."""
        with contextlib.suppress(Declined):  # there is none
            qemu.ask("set_link", {"name": f"{NIC_PREFIX}{port_id}", "up": False})
        deadline = time.monotonic() + self._settings.monitor_timeout.total_seconds()
        while port_id in _nics(qemu):
            if time.monotonic() > deadline:
                raise Unanswered("the guest does not let go of the interface")
            with contextlib.suppress(Declined):  # it is under way already
                qemu.ask("device_del", {"id": f"{NIC_PREFIX}{port_id}"})
            time.sleep(0.05)
        with contextlib.suppress(Declined):  # there is none
            qemu.ask("netdev_del", {"id": f"{NETDEV_PREFIX}{port_id}"})

    def _end_all(self, amphora_id: AmphoraId) -> None:
        """End every process of the machine: nothing in it is worth a word of farewell. Raises Retry if one stays."""
        deadline = time.monotonic() + 10.0
        while pids := running_in(self._machines).get(amphora_id, ()):
            if time.monotonic() > deadline:
                raise Retry(
                    f"process {pids[0]} of the machine of amphora {amphora_id} does not end, even when killed",
                    after=10.0,
                    code="process-stuck",
                )
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)

    async def _in_thread(self, amphora_id: AmphoraId, work: Callable[[], _T]) -> _T:
        """The work's result; what the host refuses becomes a Retry."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except (OSError, Declined) as error:
            raise Retry(
                f"the machine of amphora {amphora_id}: {error}; look after {self._machines / amphora_id}",
                after=5.0,
                code="machine-failed",
            ) from error


def _is_machine(directory: MachineDirectory, pid: int) -> bool:
    return directory.process() == pid


def _contents(image: Path) -> str:
    """What an image says of itself; nothing when it says nothing, as one that was put together by hand."""
    try:
        manifest = json.loads((image / "manifest.json").read_text())
        return ": " + ", ".join(f"{name} {manifest[name]}" for name in ("suite", "kernel", "haproxy", "agent"))
    except (OSError, ValueError, LookupError, TypeError):
        return ""


def _nics(qemu: Monitor) -> frozenset[PortId]:
    devices: list[dict[str, Any]] = qemu.ask("qom-list", {"path": "/machine/peripheral"})
    names = (str(device["name"]) for device in devices)
    return frozenset(PortId(name.removeprefix(NIC_PREFIX)) for name in names if name.startswith(NIC_PREFIX))
