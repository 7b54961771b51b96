"""An installation in many processes: APIs, controllers and health receivers on one database server.

As support.py, it looks inside nothing: commands, HTTP, /proc."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.acceptance.support import COMMAND, Api, free_port, processes, until

CONFIG = """\
database = "{url}"
{settings}
"""
DESTINATIONS = """\
[driver_options.{driver}]
heartbeat_destinations = [{destinations}]
"""


@dataclass
class Running:
    """One part. `process` changes with each start."""

    command: tuple[str, ...]
    port: int
    process: subprocess.Popen[bytes]

    @property
    def is_api(self) -> bool:
        return self.command[0] == "api"


class Fleet:
    """Start it, kill single parts, start them again; `remove` leaves nothing."""

    def __init__(
        self,
        directory: Path,
        url: str,
        settings: str = "",
        receivers: int = 2,
        environment: Mapping[str, str] | None = None,
        drivers: Sequence[str] = ("haproxy",),
    ) -> None:
        """`settings` is further text of the configuration file, before the tables of the amphora `drivers`;
        `environment` is what the processes have in theirs besides ours."""
        self.directory = directory
        self._environment = {**os.environ, **(environment or {})}
        self.state_dir = directory / "state"
        self._config = directory / "fleet.toml"
        self._ports = [free_port() for _ in range(receivers)]
        destinations = ", ".join(f'"127.0.0.1:{port}"' for port in self._ports)
        told = "".join(DESTINATIONS.format(driver=driver, destinations=destinations) for driver in drivers)
        self._config.write_text(CONFIG.format(url=url, settings=settings) + told)
        self.parts: list[Running] = []

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command of `frontinus` on this configuration."""
        where = ["--config", str(self._config), "--state-dir", str(self.state_dir)]
        return subprocess.run(
            [*COMMAND, *arguments, *where],
            text=True,
            capture_output=True,
            timeout=90,
            check=False,
            env=self._environment,
        )

    def start(self, *, apis: int = 1, controllers: int = 1) -> None:
        """That many, and a health receiver for each port. The schema is there already."""
        for _ in range(apis):
            port = free_port()
            self._add(("api", "--port", str(port)), port)
        for _ in range(controllers):
            self.add_controller("haproxy")
        for port in self._ports:
            self._add(("health", "--port", str(port)), port)
        for api in self.apis():
            until(partial(self._knows_a_provider, api), 30, "no controller registers")

    def add_controller(self, driver: str) -> Running:
        self._add(("controller", "--driver", driver), 0)
        return self.parts[-1]

    def _knows_a_provider(self, api: Api) -> bool:
        # Not the list of providers, which has those that are configured whoever runs.
        return api.get("/v2/lbaas/providers/amphora/flavor_capabilities")[0] == 200

    def add(self, command: tuple[str, ...], port: int = 0) -> None:
        """One more part."""
        self._add(command, port)

    def _add(self, command: tuple[str, ...], port: int) -> None:
        self.parts.append(Running(command, port, self._spawn(command)))

    def _spawn(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        where = ["--config", str(self._config), "--state-dir", str(self.state_dir)]
        with (self.directory / "fleet.log").open("ab") as log:
            return subprocess.Popen(
                [*COMMAND, *command, *where],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=self._environment,
            )

    def answering(self, part: Running) -> Api:
        """The API of a part, when it answers."""

        def answers() -> bool:
            assert part.process.poll() is None, f"{part.command} ended:\n{self.log()}"
            with contextlib.suppress(OSError, http.client.HTTPException):
                return Api("127.0.0.1", part.port).get("/")[0] == 200
            return False

        until(answers, 30, f"{part.command} does not answer")
        return Api("127.0.0.1", part.port)

    def apis(self) -> list[Api]:
        return [self.answering(part) for part in self.parts if part.is_api]

    def of(self, name: str) -> list[Running]:
        return [part for part in self.parts if part.command[0] == name]

    def kill(self, part: Running) -> None:
        os.kill(part.process.pid, signal.SIGKILL)
        part.process.wait()

    def start_again(self, part: Running) -> None:
        part.process = self._spawn(part.command)

    def log(self) -> str:
        return (self.directory / "fleet.log").read_text(errors="replace")[-6000:]

    def remove(self) -> None:
        """Stop everything, and see that nothing is left."""
        for part in self.parts:
            if part.process.poll() is None:
                part.process.terminate()
        for part in self.parts:
            part.process.wait(20)
        done = self.run("down", "--purge")
        assert done.returncode == 0, done.stderr
        left = processes(FRONTINUS_STATE_DIR=str(self.state_dir))
        assert not left, f"processes left behind: {left}"
