"""What every compute driver does whose amphorae are agents started on this machine.

An amphora is a directory and an agent started in it, in a session of its own; the agent starts haproxy. Both outlive
the controller, and are found again by their environment (processes.py). A driver adds what an amphora has beside them:
nothing but an address (`process`), or a network namespace (`netns`).

The agent is our direct child, not one handed to init by a double fork: that costs 0.5 ms instead of 1.3, and works
where process 1 does not reap. What that takes: a dead child of ours is a zombie until we ask for its exit status, so we
ask whenever we look at it; asking names the pid, so no other part of the program loses a child to us. After a restart
of the controller the agents are init's. Nothing here tells the two cases apart: a zombie counts as dead.

Next: place.py and processes.py."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import signal
import socket
import sys
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TypeVar

from frontinus.drivers.compute import endings
from frontinus.drivers.compute.host.place import PlaceDirectory, amphorae_in, amphorae_in_memory
from frontinus.drivers.compute.host.processes import (
    AMPHORA_VARIABLE,
    AMPHORAE,
    STATE_DIR_VARIABLE,
    CensusTaker,
    Process,
    arguments,
    children,
    end,
    is_alive,
    name,
    owner_of,
    start_time,
)
from frontinus.drivers.compute.interface import ATTACH, ComputeDriver, Place, PlaceState
from frontinus.drivers.examination import version_of
from frontinus.model.belongings import Belonging, BelongingKind
from frontinus.model.boot import BootFiles
from frontinus.model.errors import Invalid, Retry
from frontinus.model.findings import Finding, fine, trouble, warning
from frontinus.model.ids import AmphoraId, LoadBalancerId, PortId
from frontinus.model.placement import UNSPECIFIED, Placement
from frontinus.model.ports import Port

_T = TypeVar("_T")

_AGENT_MODULE = "frontinus_amphora"
_SYSTEM_DIRECTORIES = "/usr/local/sbin:/usr/sbin:/sbin"
_STUBBORN_S = 10.0
_HANDED_ON = frozenset({"PATH", "HOME", "LANG", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME"})
"""What an agent gets of our environment. The rest may hold secrets (a database's password) that no amphora may have."""
_DEFAULT_SIGNALS = tuple(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP} - set(range(32, 65)))


def _agent_command() -> tuple[str, ...]:
    # -P: whatever lies in the directory where the operator happens to stand is not imported.
    return (sys.executable, "-P", "-m", _AGENT_MODULE)


@dataclass(frozen=True, kw_only=True)
class HostSettings:
    """Where and how; what [driver_options.NAME] holds for each of these drivers."""

    state_dir: Path
    """Amphorae live in <state_dir>/amphorae. Its name is part of the proof of ownership: do not move it while
    amphorae run."""

    agent_command: tuple[str, ...] = field(default_factory=_agent_command, metadata={"own": True})
    """The agent's program and first words; `--config <place>/agent.conf` is added."""

    memory_dir: Path | None = Path("/dev/shm")  # noqa: S108 - what is made in it is for our eyes only
    """A directory on a tmpfs; each amphora gets one of its own in it for its keys. Made and removed with its place."""

    balancer: str = "haproxy"
    """The balancer's program, a name or a path: looked for before a place is built, so that the fault can say what to
    install, and recognised by this name when a place is looked at."""

    grace: timedelta = field(default=timedelta(seconds=1), metadata={"own": True})
    """How long a process that is asked to end may take before it is killed."""


MISSING_AFTER_S = 2.0
"""Until it is looked again whether a missing program is there: a look costs nothing, and who installs it waits for that.
The controller's back-off makes it longer where nobody does."""


class HostCompute(ComputeDriver):
    """See drivers/compute/interface.py, whose docstrings are the law. What differs between drivers is the methods under
    'What a driver adds'; all but `_address`, `_lacks` and `_attached` run in a thread."""

    def __init__(self, settings: HostSettings) -> None:
        """Touches nothing. Raises Invalid naming the setting that cannot be."""
        if not settings.agent_command:
            raise Invalid("agent_command", "it is empty; it needs at least a program")
        self._settings = settings
        # Resolved, so that the proof is the same by whatever way the operator wrote it.
        self._state_dir = settings.state_dir.expanduser().resolve()
        self._amphorae = self._state_dir / AMPHORAE
        self._census = CensusTaker(self._state_dir)
        # Threads of our own: destroying waits for processes to end, and must not hold up others' short work.
        # Many, because those who destroy at the same time share their looks at the machine: 400 places in 1.5 s of CPU,
        # against 3.0 s with eight threads.
        self._threads = ThreadPoolExecutor(max_workers=32, thread_name_prefix=f"{self.name}-compute")
        self._children_lock = threading.Lock()
        # Guarded by the lock: agents that this process started and whose exit status nobody has asked for yet.
        self._children: dict[AmphoraId, int] = {}
        self._built = asyncio.Event()

    # What a driver adds

    @abstractmethod
    def _address(self, amphora_id: AmphoraId, directory: PlaceDirectory) -> str | None:
        """Where the agent of a place that exists listens. Reads a small file at most."""

    def _prepare(self, amphora_id: AmphoraId, directory: PlaceDirectory, ports: tuple[Port, ...]) -> None:
        """Make what the agent needs around it, unless it is there. The directory is held. Raises Retry or OSError."""

    def _enter(self, amphora_id: AmphoraId, command: list[str]) -> list[str]:
        """The command in words that have it run inside the place; the process stays the one that is started."""
        return command

    def _lacks(self, amphora_id: AmphoraId, directory: PlaceDirectory) -> bool:
        """Whether a part of the place is gone without which its agent, though it lives, is of no use."""
        return False

    def _attached(self, amphora_id: AmphoraId, directory: PlaceDirectory) -> frozenset[PortId] | None:
        """The ports whose link is there and up."""
        return None

    def _clear(self, amphora_id: AmphoraId, directory: PlaceDirectory) -> None:
        """Take away what `_prepare` made, and end whoever hid in it. The directory is held; our processes have ended."""

    def _owners(self, links: frozenset[str]) -> Iterable[AmphoraId]:
        """The amphorae to which links of these names belong."""
        return ()

    def _others_owned(self) -> tuple[AmphoraId, ...]:
        """Amphorae of which something is there that has neither directory nor process."""
        return ()

    def _others_belonging(self) -> Iterator[Belonging]:
        """What `_prepare` made of each amphora and is there, one by one."""
        yield from ()

    # The interface

    async def build(
        self,
        amphora_id: AmphoraId,
        load_balancer_id: LoadBalancerId,
        boot: BootFiles,
        ports: tuple[Port, ...] = (),
        placement: Placement = UNSPECIFIED,
    ) -> Place:
        place = await self._in_thread(lambda: self._build(amphora_id, boot, ports))
        self._built.set()
        return place

    async def get(self, amphora_id: AmphoraId) -> Place:
        directory = self._directory(amphora_id)
        self._reap(amphora_id)
        if not directory.exists():
            return Place(amphora_id=amphora_id, state=PlaceState.ABSENT)
        agent = directory.read_agent()
        if agent is not None and is_alive(agent, amphora_id, self._state_dir):
            # A few small files: quicker than handing it to a thread.
            directory.trim_log()
            state = PlaceState.STOPPED if self._lacks(amphora_id, directory) else PlaceState.RUNNING
            return self._describe(amphora_id, state, self._sees_balancer(amphora_id, directory, agent))
        return await self._in_thread(lambda: self._look_closely(amphora_id, directory))

    async def watch(self, tell: Callable[[AmphoraId], None]) -> None:
        async def owners(links: frozenset[str]) -> Iterable[AmphoraId]:
            return await self._in_thread(lambda: self._owners(links))

        await endings.watch(tell, self._follow, self._built, owners if ATTACH in self.features else None)

    async def destroy(self, amphora_id: AmphoraId) -> None:
        await self._in_thread(lambda: self._destroy(amphora_id))

    async def list_owned(self) -> tuple[AmphoraId, ...]:
        return await self._in_thread(self._list_owned)

    async def list_belongings(self) -> tuple[Belonging, ...]:
        return await self._in_thread(lambda: tuple(self._belongings()))

    async def examine(self) -> tuple[Finding, ...]:
        return await self._in_thread(lambda: tuple(self._examine()))

    async def close(self) -> None:
        await asyncio.to_thread(self._threads.shutdown)

    async def _follow(self, followed: endings.Endings) -> None:
        """Follow the agents that nobody follows yet."""

        def agents() -> list[tuple[AmphoraId, Process]]:
            new = [x for x in amphorae_in(self._amphorae) if x not in followed]
            return [(x, agent) for x in new if (agent := self._directory(x).read_agent()) is not None]

        for amphora_id, agent in await self._in_thread(agents):
            followed.follow(amphora_id, agent.pid, partial(is_alive, agent, amphora_id, self._state_dir))

    # What the methods do, in a thread

    def _build(self, amphora_id: AmphoraId, boot: BootFiles, ports: tuple[Port, ...]) -> Place:
        command = self._find_command()
        directory = self._directory(amphora_id)
        try:
            with directory.locked() as is_new:
                directory.lay_down(boot)
                self._reap(amphora_id)
                directory.trim_log()
                self._prepare(amphora_id, directory, ports)
                if self._find_agent(amphora_id, directory, is_new=is_new) is None:
                    directory.write_agent(self._start_agent(amphora_id, directory, command))
        except OSError as error:
            raise Retry(
                f"the place of amphora {amphora_id} cannot be made: {error}; look after {self._state_dir}",
                after=10.0,
                code="place-failed",
            ) from error
        return self._describe(amphora_id, PlaceState.RUNNING, None)

    def _look_closely(self, amphora_id: AmphoraId, directory: PlaceDirectory) -> Place:
        """What is there when the pid file does not lead to an agent: the agent died, or was never written down."""
        ours = self._census.take().get(amphora_id, ())
        is_running = _agent_among(ours, directory) is not None and not self._lacks(amphora_id, directory)
        balancing = any(self._is_balancer(process.pid) for process in ours)
        return self._describe(amphora_id, PlaceState.RUNNING if is_running else PlaceState.STOPPED, balancing)

    def _destroy(self, amphora_id: AmphoraId) -> None:
        directory = self._directory(amphora_id)
        try:
            with directory.locked():
                self._end_all(amphora_id)
                self._clear(amphora_id, directory)
                directory.remove()
        except OSError as error:
            raise Retry(
                f"the place of amphora {amphora_id} cannot be removed: {error}; look after {self._state_dir}",
                after=10.0,
                code="place-failed",
            ) from error

    def _end_all(self, amphora_id: AmphoraId) -> None:
        """End every process of the amphora. Raises Retry when one does not end."""
        grace = self._settings.grace.total_seconds()
        give_up = time.monotonic() + grace + _STUBBORN_S
        # Again until nobody is left: an agent that is ending may start a balancer that has just died.
        while ours := self._census.take().get(amphora_id, ()):
            if time.monotonic() > give_up:
                pids = ", ".join(str(process.pid) for process in ours)
                raise Retry(
                    f"processes {pids} of amphora {amphora_id} do not end, even when killed; see what they wait for",
                    after=10.0,
                    code="process-stuck",
                )
            end(ours, amphora_id, self._state_dir, grace)
            grace = 0.0
        self._reap(amphora_id)

    def _list_owned(self) -> tuple[AmphoraId, ...]:
        in_directories = amphorae_in(self._amphorae)
        for amphora_id in in_directories:
            self._directory(amphora_id).trim_log()
            self._reap(amphora_id)
        return tuple(dict.fromkeys((*in_directories, *self._in_memory(), *self._others_owned(), *self._census.take())))

    def _in_memory(self) -> tuple[AmphoraId, ...]:
        memory = self._settings.memory_dir
        return () if memory is None else amphorae_in_memory(memory, self._amphorae)

    def _belongings(self) -> Iterator[Belonging]:
        for amphora_id in amphorae_in(self._amphorae):
            path = str(self._directory(amphora_id).path)
            yield Belonging(
                kind=BelongingKind.DIRECTORY, name=path, proof="lies in the state directory", amphora_id=amphora_id
            )
        for amphora_id in self._in_memory():
            yield Belonging(
                kind=BelongingKind.MEMORY,
                name=str(self._directory(amphora_id).memory),
                proof="its tag leads to the place",
                amphora_id=amphora_id,
            )
        yield from self._others_belonging()
        for amphora_id, processes in self._census.take().items():
            for process in processes:
                yield Belonging(
                    kind=BelongingKind.PROCESS,
                    name=f"{process.pid} {name(process.pid)}".rstrip(),
                    proof="its environment names amphora and state directory",
                    amphora_id=amphora_id,
                )

    # Steps

    def _directory(self, amphora_id: AmphoraId) -> PlaceDirectory:
        memory = self._settings.memory_dir
        has_memory = memory is not None and memory.is_dir()
        return PlaceDirectory(self._amphorae, amphora_id, memory if has_memory else None)

    def _find_command(self) -> list[str]:
        """The agent's words with its program as a path. Raises Retry saying what to install."""
        search_path = f"{os.environ.get('PATH', os.defpath)}:{_SYSTEM_DIRECTORIES}"
        if shutil.which(self._settings.balancer, path=search_path) is None:
            raise Retry(
                f"{self._settings.balancer} is not installed; install haproxy: apt-get install haproxy",
                after=MISSING_AFTER_S,
                code="haproxy-missing",
            )
        program = shutil.which(self._settings.agent_command[0], path=search_path)
        words = self._settings.agent_command[1:]
        runs_module = program == sys.executable and words[-2:] == ("-m", _AGENT_MODULE)
        if program is None or (runs_module and importlib.util.find_spec(_AGENT_MODULE) is None):
            raise Retry(
                f"the agent cannot be started by {' '.join(self._settings.agent_command)!r}; "
                "install it: pip install frontinus-amphora",
                after=MISSING_AFTER_S,
                code="agent-missing",
            )
        return [program, *words]

    def _examine(self) -> Iterator[Finding]:
        try:
            command = self._find_command()
        except Retry as missing:
            yield trouble("agent", missing.reason, "install what is missing")
        else:
            yield fine("agent", " ".join(command))
        search_path = f"{os.environ.get('PATH', os.defpath)}:{_SYSTEM_DIRECTORIES}"
        memory = self._settings.memory_dir
        if memory is None or not memory.is_dir():
            yield warning(
                "memory", f"there is no {memory}: private keys lie on the disk", "mount a tmpfs and set memory_dir"
            )
        balancer = shutil.which(self._settings.balancer, path=search_path)
        if balancer is not None:
            yield version_of("haproxy", [balancer, "-v"], r"HAProxy version (\S+)", (2, 4))
        nginx = shutil.which("nginx", path=search_path)
        if nginx is None:
            yield warning("nginx", "not installed: no UDP listeners", "apt-get install nginx-light libnginx-mod-stream")
        else:
            yield version_of("nginx", [nginx, "-v"], r"nginx/(\S+)", (1, 18))
        lowest = _first_port_for_anybody()
        if os.geteuid() != 0 and lowest > 80:
            yield warning(
                "privileges",
                f"listeners below port {lowest} need root",
                "run as root, or: sysctl net.ipv4.ip_unprivileged_port_start=80",
            )
        else:
            yield fine("privileges", "listeners may have any port" if os.geteuid() == 0 else f"ports from {lowest} on")

    def _find_agent(self, amphora_id: AmphoraId, directory: PlaceDirectory, *, is_new: bool) -> Process | None:
        """The living agent of the place, if there is one; written down if it was not."""
        agent = directory.read_agent()
        if agent is not None and is_alive(agent, amphora_id, self._state_dir):
            return agent
        if is_new:
            return None
        # Whoever built it may have died between starting the agent and writing it down.
        agent = _agent_among(self._census.take().get(amphora_id, ()), directory)
        if agent is not None:
            directory.write_agent(agent)
        return agent

    def _start_agent(self, amphora_id: AmphoraId, directory: PlaceDirectory, command: list[str]) -> Process:
        environment = {key: value for key, value in os.environ.items() if key in _HANDED_ON or key.startswith("LC_")}
        environment[AMPHORA_VARIABLE] = amphora_id
        environment[STATE_DIR_VARIABLE] = str(self._state_dir)
        words = self._enter(amphora_id, [*command, "--config", str(directory.config)])
        pid = os.posix_spawn(
            words[0],
            words,
            environment,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(directory.log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
            setsigmask=(),
            setsigdef=_DEFAULT_SIGNALS,
        )
        with self._children_lock:
            self._children[amphora_id] = pid
        # Not before its environment can be read is it known to everybody who looks for it.
        owner_of(pid, self._state_dir)
        # A child that nobody waited for keeps its pid, so this is its start time even if it has died already; 0, which
        # no process has, then says so.
        return Process(pid, start_time(pid) or 0)

    def _reap(self, amphora_id: AmphoraId) -> None:
        """Ask for the exit status of the agent if it was our child, so that it does not stay a zombie."""
        with self._children_lock:
            pid = self._children.get(amphora_id)
            if pid is None:
                return
            try:
                ended, _status = os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:  # somebody ignores SIGCHLD, and the kernel reaped it
                ended = pid
            if ended:
                del self._children[amphora_id]

    def _sees_balancer(self, amphora_id: AmphoraId, directory: PlaceDirectory, agent: Process) -> bool:
        """Whether a balancer runs, without looking at every process: by the agent's children and the pid files."""
        for pid in (*children(agent.pid), *directory.pids_written_inside()):
            if self._is_balancer(pid) and owner_of(pid, self._state_dir) == amphora_id:
                return start_time(pid) is not None
        return False

    def _is_balancer(self, pid: int) -> bool:
        return name(pid) in (Path(self._settings.balancer).name[:15], "nginx")

    def _describe(self, amphora_id: AmphoraId, state: PlaceState, balancing: bool | None) -> Place:
        directory = self._directory(amphora_id)
        return Place(
            amphora_id=amphora_id,
            state=state,
            compute_id=amphora_id,
            management_address=self._address(amphora_id, directory),
            host=socket.gethostname(),
            balancing=balancing,
            attached=self._attached(amphora_id, directory),
        )

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


def _agent_among(processes: tuple[Process, ...], directory: PlaceDirectory) -> Process | None:
    """The agent is who was started with the place's configuration; the oldest, since a child that is about to become
    another program looks like its parent."""
    agents = [process for process in processes if str(directory.config) in arguments(process.pid)]
    return min(agents, key=lambda process: process.started, default=None)


def _first_port_for_anybody() -> int:
    return int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
