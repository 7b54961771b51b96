"""Hosts of simulated amphorae for a test or a bench: start them, give orders, read what came, stop them."""

from __future__ import annotations

import http.client
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Self

import msgspec

from frontinus.model.ids import AmphoraId
from frontinus.testing.simulated.agent import Order, Record
from frontinus.testing.simulated.host import Ordering, socket_of

START_TIMEOUT_S = 20.0
MOST_DATA = 1 << 30

ENTRY_POINTS = """\
[frontinus.compute_drivers]
simulated = frontinus.testing.simulated.compute:SimulatedCompute
"""


class SimulatedFleet:
    """`hosts` processes on loopback addresses of their own, all at `agent_port`. As a context manager it is started, and
    gone at the end."""

    def __init__(self, hosts: int = 1, agent_port: int = 9443) -> None:
        self.agent_port = agent_port
        self.directory = Path(tempfile.mkdtemp(prefix="frontinus-simulated-"))
        block = f"127.{random.randint(192, 254)}.{random.randint(1, 254)}"
        self.addresses = tuple(f"{block}.{number + 1}" for number in range(hosts))
        self.processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """All hosts answer when it returns. They know nothing of what ran before. Raises RuntimeError."""
        self.announce(self.directory / "installed", ENTRY_POINTS)
        for address in self.addresses:
            words = [sys.executable, "-m", "frontinus.testing.simulated.host", str(self.directory), address]
            with (self.directory / f"{address}.log").open("ab") as log:
                process = subprocess.Popen(
                    [*words, str(self.agent_port)], stdin=subprocess.PIPE, stdout=log, stderr=log
                )
            self.processes.append(process)
        deadline = time.monotonic() + START_TIMEOUT_S
        for address, process in zip(self.addresses, self.processes, strict=True):
            while not self._answers(address):
                if process.poll() is not None or time.monotonic() > deadline:
                    said = (self.directory / f"{address}.log").read_text()
                    self.stop()
                    raise RuntimeError(f"the host {address} did not start: {said[-2000:]}")
                time.sleep(0.02)

    def stop(self) -> None:
        """Nothing is left of them."""
        for process in self.processes:
            process.kill()
            process.wait()
            if process.stdin is not None:
                process.stdin.close()
        self.processes.clear()
        shutil.rmtree(self.directory, ignore_errors=True)

    @staticmethod
    def announce(directory: Path, entry_points: str) -> None:
        """Make the directory one that, in PYTHONPATH, offers these entry points, as an installed distribution would."""
        metadata = directory / "frontinus_simulated-0.dist-info"
        metadata.mkdir(parents=True, exist_ok=True)
        (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: frontinus-simulated\nVersion: 0\n")
        (metadata / "entry_points.txt").write_text(entry_points)

    def environment(self) -> Mapping[str, str]:
        """What a process needs in its environment to find the compute driver."""
        return {"PYTHONPATH": str(self.directory / "installed")}

    def settings(self) -> str:
        """TOML for the file of an installation: this compute driver, and where its hosts are. What it leaves open is
        `agent_port` in the table of the amphora driver."""
        hosts = ", ".join(f'"{address}"' for address in self.addresses)
        return (
            '[drivers]\ncompute = "simulated"\nallow_experimental = ["simulated"]\n'
            f'[driver_options.simulated]\ndirectory = "{self.directory}"\nhosts = [{hosts}]\n'
        )

    def order(self, order: Order, amphorae: Iterable[AmphoraId] | None = None) -> None:
        """From now on these behave so; without any named, all that are there and all that will be."""
        body = Ordering(order=order, amphorae=None if amphorae is None else list(amphorae))
        for address in self.addresses:
            self._ask(address, "POST", "/orders", msgspec.json.encode(body))

    def report(self) -> dict[AmphoraId, Record]:
        """What came to each amphora that is there now."""
        found: dict[AmphoraId, Record] = {}
        for address in self.addresses:
            found |= msgspec.json.decode(self._ask(address, "GET", "/report"), type=dict[AmphoraId, Record])
        return found

    def _answers(self, address: str) -> bool:
        try:
            self._ask(address, "GET", "/places")
        except OSError:
            return False
        return True

    def _ask(self, address: str, method: str, path: str, body: bytes = b"") -> bytes:
        connection = _UnixConnection(socket_of(self.directory, address))
        try:
            connection.request(method, path, body)
            response = connection.getresponse()
            content = response.read(MOST_DATA)
        finally:
            connection.close()
        if response.status != 200:
            raise RuntimeError(f"{address} answers {response.status} to {method} {path}: {content[:500]!r}")
        return content


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("host", timeout=30)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))
