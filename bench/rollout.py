"""A rollout over many simulated amphorae (real mutual TLS, real controllers, PostgreSQL): how long, and what is pushed twice.

    bench/rollout.py [--amphorae 10000] [--database postgresql|mariadb]

All-out there and back with one controller of each version; then again with that controller killed in the middle and another
one started; then with a canary and at most N at once. Making the fleet takes much longer than rolling it out and is not
counted."""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from common import cpu_seconds, print_result
from msgspec.structs import replace
from sqlalchemy import func, select

from frontinus.drivers.amphora.haproxy.driver import HaproxyDriver
from frontinus.drivers.network.noop import NoopNetwork
from frontinus.model.cohorts import CohortName
from frontinus.model.ids import SubnetId
from frontinus.model.network import VipRequest
from frontinus.model.rollouts import MoveState, Rollout, RolloutState
from frontinus.store import cohorts, rollouts, trees
from frontinus.store.engine import Store, Transaction
from frontinus.store.schema import load_balancer
from frontinus.store.statement import Statement
from frontinus.testing.simulated.fleet import SimulatedFleet

from tests.acceptance.support import COMMAND, free_port
from tests.integration.store.world import a_tree
from tests.servers import serving

ANOTHER = [sys.executable, str(Path(__file__).parent.parent / "tests" / "acceptance" / "another_version.py")]
OLD, NEW = HaproxyDriver.version, "9.0.0"
OVER = (RolloutState.FINISHED, RolloutState.ROLLED_BACK, RolloutState.HALTED, RolloutState.ABORTED)


_LEFT = Statement(select(func.count()).select_from(load_balancer).where(load_balancer.c.due_at.is_not(None)))
_ACTIVE = Statement(
    select(func.count()).select_from(load_balancer).where(load_balancer.c.provisioning_status == "ACTIVE")
)


class Stage:
    """An installation on a database server whose amphorae are simulated."""

    def __init__(self, directory: Path, url: str, fleet: SimulatedFleet, concurrency: int) -> None:
        self.directory, self.fleet, self.url = directory, fleet, url
        self.store = Store.open(url)
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

    def start(self, version: str) -> subprocess.Popen[bytes]:
        profile = os.environ.get("PROFILE_DIR")
        words = self.command("controller", version=version)
        if profile and version == NEW:
            words = [words[0], "-m", "cProfile", "-o", f"{profile}/{version}.prof", *words[1:]]
        with (self.directory / f"controller-{version}.log").open("ab") as log:
            return subprocess.Popen(words, stdout=log, stderr=log, env=self._environment())

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


@contextmanager
def controller(stage: Stage, version: str) -> Iterator[subprocess.Popen[bytes]]:
    process = stage.start(version)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


async def make(stage: Stage, count: int) -> None:
    """Load balancers of one listener, one pool and two members, and the amphorae for them."""
    network = NoopNetwork()
    cohort = CohortName(HaproxyDriver.name, OLD)
    for start in range(0, count, 500):
        made = []
        for _ in range(min(500, count - start)):
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


async def timed(stage: Stage, pid: int, *words: str) -> dict[str, object]:
    before, cpu, began = pushes(stage), cpu_seconds(pid), time.monotonic()
    stage.run("rollout", *words)
    rollout = await over(stage)
    took = time.monotonic() - began
    after = pushes(stage)
    return {
        "state": rollout.state.value,
        **({"reason": rollout.reason} if rollout.reason else {}),
        "seconds": round(took, 1),
        "controller_cpu_seconds": round(cpu_seconds(pid) - cpu, 1),
        "pushes": after[0] - before[0],
        "repeated": after[1] - before[1],
    }


async def killed(stage: Stage, first: subprocess.Popen[bytes], count: int) -> dict[str, object]:
    """All-out, with the controller that does it killed when a third has passed, and another one in its place."""
    before, began = pushes(stage), time.monotonic()
    stage.run("rollout", "start", "--all-out", "--no-heartbeats", "--to", NEW)
    (rollout,) = await stage.store.read(partial(rollouts.latest, most=1))
    passed = 0
    while passed < count / 3:
        await asyncio.sleep(0.05)
        passed = (await stage.store.read(partial(rollouts.counts, rollout_id=rollout.id))).get(MoveState.PASSED, 0)
    first.kill()
    first.wait()
    with controller(stage, NEW):
        rollout = await over(stage)
        took = time.monotonic() - began
        await stage.settled(count)
    after = pushes(stage)
    return {
        "state": rollout.state.value,
        **({"reason": rollout.reason} if rollout.reason else {}),
        "seconds": round(took, 1),
        "pushes": after[0] - before[0],
        "repeated": after[1] - before[1],
    }


async def measure(stage: Stage, count: int, at_once: int) -> None:
    stage.run("db", "upgrade")
    began = time.monotonic()
    with ExitStack() as stack:
        old = stack.enter_context(controller(stage, OLD))
        await _known(stage, OLD)
        await make(stage, count)
        made = time.monotonic() - began
        print(f"made in {made:.0f} s", file=sys.stderr)
        new = stack.enter_context(controller(stage, NEW))
        await _known(stage, NEW)
        # What follows a creation is over: nobody has anything to do.
        await asyncio.sleep(5)
        figures: dict[str, object] = {"made_in_s": round(made, 1)}
        figures["all_out"] = await timed(stage, new.pid, "start", "--all-out", "--no-heartbeats", "--to", NEW)
        print(figures, file=sys.stderr)
        figures["back"] = await timed(stage, old.pid, "rollback")
        print(figures, file=sys.stderr)
        figures["killed_in_the_middle"] = await killed(stage, new, count)
        print(figures, file=sys.stderr)
        stack.enter_context(controller(stage, NEW))
        await _known(stage, NEW)
        stage.run("rollout", "rollback", "--watch")
        waves = ("--canary", "10", "--canary-soak", "5", "--at-once", str(at_once), "--soak", "0", "--no-heartbeats")
        figures["with_canary"] = await timed(stage, old.pid, "start", *waves, "--to", NEW)
    await stage.store.close()
    print_result("rollout", amphorae=count, at_once=at_once, goal_all_out_s=60, **figures)


async def _known(stage: Stage, version: str) -> None:
    for _ in range(300):
        found = await stage.store.read(cohorts.all_cohorts)
        if any(x.driver_version == version and x.alive_at is not None for x in found):
            return
        await asyncio.sleep(0.1)
    raise SystemExit(f"no controller registers: {(stage.directory / f'controller-{version}.log').read_text()[-2000:]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--amphorae", type=int, default=10_000)
    parser.add_argument("--at-once", type=int, default=200)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--hosts", type=int, default=1)
    parser.add_argument("--database", default="postgresql")
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="frontinus-bench-") as directory,
        serving(given.database) as server,
        SimulatedFleet(given.hosts, free_port()) as fleet,
    ):
        stage = Stage(Path(directory), server.make_database("rollout"), fleet, given.concurrency)
        asyncio.run(measure(stage, given.amphorae, given.at_once))


if __name__ == "__main__":
    main()
