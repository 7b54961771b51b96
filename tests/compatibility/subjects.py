"""The agents that are tried: ours of today, ours of the repository's past, and the genuine one of the octavia package.

Each is an amphora that one driver, today's, commands; where it listens and what it is called differ, nothing else. Our past
agents come out of the history by `git archive`; a clone without it cannot try them, and says so."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from msgspec.structs import replace

from frontinus.drivers.amphora.agent.authority import Authority
from frontinus.drivers.amphora.haproxy.driver import HaproxyDriver
from frontinus.drivers.amphora.haproxy.settings import HaproxySettings
from frontinus.model.ids import PortId
from frontinus.model.tree import Amphora, LoadBalancer, Vip

from tests.integration.drivers.world import MEMBERS, VIP, World
from tests.octavia import genuine
from tests.unit.drivers.trees import AMPHORA, a_load_balancer, an_amphora

REPOSITORY = Path(__file__).parents[2]
TODAY, OCTAVIA = "today", "octavia 19.0.0"


@dataclass(frozen=True)
class Past:
    """An agent of the history: what it would be called, the commit that has it, and what the next one learnt."""

    name: str
    commit: str
    lacks: str


PAST = (
    Past("amphora-0.1", "45f3ef2", "files beside the configuration: certificates"),
    Past("amphora-0.2", "535dcd4", "nginx, for UDP"),
    Past("amphora-0.3", "0bc79cf", "values of lists that change while HAProxy runs"),
    Past("amphora-0.4", "cad3899", "interfaces and keepalived"),
    Past("amphora-0.5", "f04ad3a", "another identity"),
    Past("amphora-0.6", "4f3052f", "UDP by LVS"),
)


class Subject(ABC):
    """One of them, running. `amphora` is its row."""

    name: str
    vip: str
    members: str
    driver: HaproxyDriver
    amphora: Amphora
    heartbeats: socket.socket

    @property
    def load_balancer(self) -> LoadBalancer:
        vip = Vip(address=self.vip, subnet_id=genuine.SUBNET, network_id=genuine.NETWORK, port_id=PortId("p"))
        return replace(a_load_balancer(), vip=vip)

    @abstractmethod
    async def close(self) -> None: ...

    @abstractmethod
    def log(self) -> str:
        """What the agent said last."""


class Ours(Subject):
    """An agent of ours, of today or from a directory with its source."""

    vip, members = VIP, MEMBERS

    def __init__(self, name: str, directory: Path, source: Path | None = None) -> None:
        self.name = name
        self._world = World(directory)
        with _sources(source):
            self._world.start_agent()
        assert isinstance(self._world.driver, HaproxyDriver)
        self.driver, self.amphora, self.heartbeats = self._world.driver, self._world.amphora, self._world.heartbeats

    def log(self) -> str:
        return (self._world.place / "agent.log").read_text()[-2_000:]

    async def close(self) -> None:
        await self._world.close()


class Genuine(Subject):
    name, vip, members = OCTAVIA, f"{genuine.VIPS}.200", f"{genuine.VIPS}.1"

    def __init__(self, directory: Path) -> None:
        genuine.lay_networks()
        self.heartbeats = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.heartbeats.bind((f"{genuine.MANAGEMENT}.1", 0))
        self.heartbeats.setblocking(False)
        settings = HaproxySettings(state_dir=directory, accept_plain=True, plain_heartbeat_key="a shared key")
        self.driver = HaproxyDriver(settings)
        authority = Authority.open(settings.authority_directory)
        self._agent = genuine.GenuineAmphora(
            AMPHORA,
            1,
            directory / "amphora",
            server=authority.issue_server(AMPHORA, timedelta(days=30)),
            client_ca=authority.bundle,
            key="a shared key",
            receivers=f"{genuine.MANAGEMENT}.1:{self.heartbeats.getsockname()[1]}",
        )
        self._agent.start()
        self.amphora = an_amphora(
            self._agent.address, created_at=datetime.now(UTC), speaks_plain=True, ports=(self._agent.port,)
        )

    def log(self) -> str:
        return self._agent.log[-2_000:]

    async def close(self) -> None:
        await self.driver.close()
        self._agent.stop()
        self.heartbeats.close()


def source_of(past: Past, directory: Path) -> Path:
    """The agent's source as it was then. Raises LookupError: the clone has no such history."""
    done = subprocess.run(
        ["git", "archive", past.commit, "amphora/src"], cwd=REPOSITORY, capture_output=True, check=False
    )
    if done.returncode:
        raise LookupError(f"{past.commit} is not in this clone's history: git fetch --unshallow")
    subprocess.run(["tar", "-x", "-C", directory], input=done.stdout, check=True)
    return directory / "amphora/src"


@contextmanager
def _sources(source: Path | None) -> Iterator[None]:
    """Python processes started meanwhile take packages from there first."""
    before = os.environ.get("PYTHONPATH")
    if source is not None:
        os.environ["PYTHONPATH"] = str(source)
        shown = subprocess.run(
            [sys.executable, "-c", "import frontinus_amphora; print(frontinus_amphora.__file__)"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert shown.startswith(str(source)), shown
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("PYTHONPATH", None)
        else:
            os.environ["PYTHONPATH"] = before
