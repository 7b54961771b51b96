"""A rollout over many simulated amphorae (real mutual TLS, real controllers, PostgreSQL): how long, and what is pushed twice.

    bench/rollout.py [--amphorae 10000] [--controllers 2] [--database postgresql|mariadb]

All-out there and back; then again with every controller of the new version killed in the middle and others started; then with
a canary and at most N at once. CPU time is told of the controllers, the database and the simulated amphorae apart: in life
the last two have machines of their own. Making the fleet takes longer than rolling it out and is not counted."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from common import cpu_of_all, cpu_seconds, print_result
from msgspec.structs import replace
from sqlalchemy import func, select

from frontinus.controller.settings import ControllerSettings
from frontinus.drivers.amphora.haproxy.driver import HaproxyDriver
from frontinus.drivers.network.noop import NoopNetwork
from frontinus.model.cohorts import CohortName
from frontinus.model.ids import SubnetId
from frontinus.model.network import VipRequest
from frontinus.model.rollouts import MoveState, Rollout, RolloutState
from frontinus.store import controllers, rollouts, trees
from frontinus.store.engine import Store, Transaction
from frontinus.store.schema import load_balancer
from frontinus.store.statement import Statement
from frontinus.testing.simulated.fleet import SimulatedFleet

from tests.acceptance.support import COMMAND, free_port
from tests.integration.store.world import a_tree
from tests.servers import Server, serving

ANOTHER = [sys.executable, str(Path(__file__).parent.parent / "tests" / "acceptance" / "another_version.py")]
OLD, NEW = HaproxyDriver.version, "9.0.0"
OVER = (RolloutState.FINISHED, RolloutState.ROLLED_BACK, RolloutState.HALTED, RolloutState.ABORTED)


_LEFT = Statement(select(func.count()).select_from(load_balancer).where(load_balancer.c.due_at.is_not(None)))
_ACTIVE = Statement(
    select(func.count()).select_from(load_balancer).where(load_balancer.c.provisioning_status == "ACTIVE")
)


@dataclass(frozen=True)
class Cpu:
    """CPU seconds of each part so far."""

    controllers: float
    database: float
    amphorae: float

    def since(self, before: Cpu, pushes: int) -> dict[str, object]:
        parts = {
            "controllers": self.controllers - before.controllers,
            "database": self.database - before.database,
            "amphorae": self.amphorae - before.amphorae,
        }
        return {
            "cpu_seconds": {name: round(x, 1) for name, x in parts.items()},
            "cpu_ms_per_push": {name: round(1000 * x / max(pushes, 1), 2) for name, x in parts.items()},
        }


class Stage:
    """An installation on a database server whose amphorae are simulated."""

    def __init__(self, directory: Path, server: Server, fleet: SimulatedFleet, concurrency: int) -> None:
        self.directory, self.fleet, self.server = directory, fleet, server
        url = server.make_database("rollout")
        self.store = Store.open(url)
        self.controllers: list[subprocess.Popen[bytes]] = []
        self._ended_cpu = 0.0
        self._config = directory / "bench.toml"
        self._config.write_text(
            f'database = "{url}"\nstate_dir = "{directory / "state"}"\n[log]\nlevel = "warning"\n'
            # Nobody hears these amphorae, so compute would be asked about each of them again and again.
            f"[controller]\nconcurrency = {concurrency}\nwitness_interval = 3600\n"
            + _with_drivers(fleet.settings())
            + f"[driver_options.haproxy]\nagent_port = {fleet.agent_port}\nheartbeat_destinations = []\n"
        )

    def command(self, *words: str, version: str = OLD) -> list[str]:
        program = [*ANOTHER, version, "tuned"] if version != OLD else COMMAND
        return [*program, *words, "--config", str(self._config)]

    def run(self, *words: str) -> str:
        done = subprocess.run(
            self.command(*words), text=True, capture_output=True, env=self._environment(), check=False
        )
        if done.returncode:
            raise SystemExit(f"{words}: {done.stdout}{done.stderr}")
        return done.stdout.strip()

    async def start(self, version: str, count: int) -> list[subprocess.Popen[bytes]]:
        """So many controllers of a version, which are there when it returns."""
        fresh = [self._start(version) for _ in range(count)]
        pids = {x.pid for x in fresh}
        for _ in range(600):
            if pids <= {x.pid for x in await self.store.read(controllers.running)}:
                return fresh
            await asyncio.sleep(0.1)
        raise SystemExit(
            f"no controller registers: {(self.directory / f'controller-{version}.log').read_text()[-2000:]}"
        )

    def _start(self, version: str) -> subprocess.Popen[bytes]:
        with (self.directory / f"controller-{version}.log").open("ab") as log:
            words = self.command("controller", version=version)
            process = subprocess.Popen(words, stdout=log, stderr=log, env=self._environment())
        self.controllers.append(process)
        return process

    def end(self, processes: list[subprocess.Popen[bytes]], number: signal.Signals) -> None:
        for process in processes:
            self._ended_cpu += cpu_seconds(process.pid)
            process.send_signal(number)
        for process in processes:
            process.wait()
            self.controllers.remove(process)

    def cpu(self) -> Cpu:
        return Cpu(
            controllers=self._ended_cpu + sum(cpu_seconds(x.pid) for x in self.controllers),
            database=0.0 if self.server.process is None else cpu_of_all(self.server.process.pid),
            amphorae=sum(cpu_seconds(x.pid) for x in self.fleet.processes),
        )

    def _environment(self) -> dict[str, str]:
        return {**os.environ, **self.fleet.environment()}

    async def settled(self, count: int) -> None:
        """Wait until every load balancer is ACTIVE and nobody has anything to do."""
        while (await self.store.read(_left)) or (await self.store.read(_active)) < count:  # noqa: ASYNC110 - of others
            await asyncio.sleep(0.5)


def _with_drivers(settings: str) -> str:
    more = 'network = "noop"\n' + ("" if "allow_experimental" in settings else 'allow_experimental = ["simulated"]\n')
    return settings.replace("[drivers]\n", f"[drivers]\n{more}")


def _left(tx: Transaction) -> int:
    return tx.rows(_LEFT, {})[0][0]


def _active(tx: Transaction) -> int:
    return tx.rows(_ACTIVE, {})[0][0]


async def make(stage: Stage, count: int) -> None:
    """Load balancers of one listener, one pool and two members, and the amphorae for them."""
    network = NoopNetwork()
    cohort = CohortName(HaproxyDriver.name, OLD)
    for start in range(0, count, 100):  # a transaction must end within 20 s on a busy machine too
        made = []
        for _ in range(min(100, count - start)):
            tree = a_tree()
            allocated = await network.allocate_vip(tree.id, tree.load_balancer.project_id, VipRequest(subnet_id=SUBNET))
            made.append(replace(tree, load_balancer=replace(tree.load_balancer, vip=allocated.vip)))

        def write(tx: Transaction, made: list = made) -> None:  # type: ignore[type-arg]
            for tree in made:
                trees.create_tree(tx, tree, cohort)

        await stage.store.transact(write)
    await stage.settled(count)


SUBNET = SubnetId("00000000-0000-4000-8000-000000000001")


async def over(stage: Stage) -> Rollout:
    """The youngest rollout, when it is over."""
    while True:
        (rollout,) = await stage.store.read(partial(rollouts.latest, most=1))
        if rollout.state in OVER:
            return rollout
        await asyncio.sleep(0.1)


def pushes(stage: Stage) -> tuple[int, int]:
    """How many configurations the amphorae took, and how many came a second time."""
    records = stage.fleet.report().values()
    return sum(x.pushes for x in records), sum(x.repeats for x in records)


async def timed(stage: Stage, *words: str, kill: list[subprocess.Popen[bytes]] | None = None) -> dict[str, object]:
    """A rollout from the command to its end. `kill`: these controllers, when a third has passed, and others in their place."""
    before, cpu, began = pushes(stage), stage.cpu(), time.monotonic()
    stage.run("rollout", *words)
    if kill is not None:
        await _third_passed(stage)
        stage.end(kill, signal.SIGKILL)
        await stage.start(NEW, len(kill))
    rollout = await over(stage)
    took, spent = time.monotonic() - began, stage.cpu()
    after = pushes(stage)
    return {
        "state": rollout.state.value,
        **({"reason": rollout.reason} if rollout.reason else {}),
        "seconds": round(took, 1),
        "pushes": after[0] - before[0],
        "repeated": after[1] - before[1],
        **spent.since(cpu, after[0] - before[0]),
    }


async def _third_passed(stage: Stage) -> None:
    (rollout,) = await stage.store.read(partial(rollouts.latest, most=1))
    while True:
        counts = await stage.store.read(partial(rollouts.counts, rollout_id=rollout.id))
        if counts.get(MoveState.PASSED, 0) >= sum(counts.values()) / 3:
            return
        await asyncio.sleep(0.05)


async def measure(stage: Stage, count: int, at_once: int, each: int) -> None:
    stage.run("db", "upgrade")
    began, cpu = time.monotonic(), stage.cpu()
    await stage.start(OLD, each)
    await make(stage, count)
    made = {"seconds": round(time.monotonic() - began, 1), **stage.cpu().since(cpu, count)}
    figures: dict[str, object] = {"made": made}
    print(figures, file=sys.stderr)
    new = await stage.start(NEW, each)
    await asyncio.sleep(5)  # what follows a start is over: nobody has anything to do
    all_out = ("start", "--all-out", "--no-heartbeats", "--to", NEW)
    waves = ("--canary", "10", "--canary-soak", "5", "--at-once", str(at_once), "--soak", "0", "--no-heartbeats")
    for name, words, kill in (
        ("all_out", all_out, None),
        ("back", ("rollback",), None),
        ("killed_in_the_middle", all_out, new),
        ("back_again", ("rollback",), None),
        ("with_canary", ("start", *waves, "--to", NEW), None),
    ):
        figures[name] = await timed(stage, *words, kill=kill)
        print({name: figures[name]}, file=sys.stderr)
        await stage.settled(count)
    await stage.store.close()
    print_result("rollout", amphorae=count, controllers=each, at_once=at_once, goal_all_out_s=60, **figures)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--amphorae", type=int, default=10_000)
    parser.add_argument("--at-once", type=int, default=200)
    parser.add_argument("--controllers", type=int, default=2, help="of each version")
    parser.add_argument("--concurrency", type=int, default=ControllerSettings.concurrency)
    parser.add_argument("--hosts", type=int, default=2, help="processes of amphorae; each has a limit of open files")
    parser.add_argument("--database", default="postgresql")
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="frontinus-bench-") as directory,
        serving(given.database) as server,
        SimulatedFleet(given.hosts, free_port()) as fleet,
    ):
        stage = Stage(Path(directory), server, fleet, given.concurrency)
        try:
            asyncio.run(measure(stage, given.amphorae, given.at_once, given.controllers))
        finally:
            stage.end(list(stage.controllers), signal.SIGTERM)


if __name__ == "__main__":
    main()
