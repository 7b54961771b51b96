"""The kill suite: an installation in many processes on a database server, of which one dies every second.

    outcome = KillSuite(directory, server, seconds=300).run()

Controllers, APIs and health receivers get SIGKILL and are started again as a supervisor would; the database is killed
once and stopped once. Tenants go on meanwhile (churn.py). At the end everything they were promised is there, what they
deleted is gone, and nothing else is anywhere: `Outcome.troubles` says what is not so."""

from __future__ import annotations

import random
import re
import time
from dataclasses import dataclass, field
from pathlib import Path

from frontinus.testing.simulated.fleet import SimulatedFleet

from tests.acceptance import mixed_compute, watcher
from tests.acceptance.churn import Churn
from tests.acceptance.cpu import Cpu
from tests.acceptance.fleet import Fleet, Running
from tests.acceptance.support import ask, backend, processes, until
from tests.servers import Server

CONTROLLERS, APIS, RECEIVERS = 4, 2, 2
LOAD_BALANCERS = 200
ONE_IN = 20
RESTART_AFTER_S = 0.2
DATABASE_AWAY_S = 1.0
SWEEP_S = 4
SETTLE_S = 60.0

SETTINGS = f"""\
[controller]
sweep_interval = {SWEEP_S}
orphan_grace = {SWEEP_S}
[log]
json = true
"""


@dataclass
class Outcome:
    troubles: list[str] = field(default_factory=list)
    kills: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("api", "controller", "health", "database"), 0))
    answers: dict[str, int] = field(default_factory=dict)
    load_balancers: int = 0
    resumed: int = 0
    resumption_s: dict[str, float] = field(default_factory=dict)
    """Median, 90th and 99th percentile."""
    longest_resumption_s: float = 0.0
    longest_resumption: str = ""
    longest_waited_for: str = ""
    longest_wait_s: float = 0.0
    processors: str = ""
    longest_request_s: float = 0.0
    settled_after_s: float = 0.0
    swept: int = 0
    pushes: int = 0
    repeats: int = 0


@dataclass
class KillSuite:
    directory: Path
    server: Server
    seconds: float
    seed: int = 0

    def run(self) -> Outcome:
        outcome = Outcome()
        url = self.server.make_database("kills")
        with SimulatedFleet() as simulated, backend("kills") as web:
            fleet = Fleet(
                self.directory,
                url,
                SETTINGS + mixed_compute.settings_for(simulated, ONE_IN),
                RECEIVERS,
                mixed_compute.announce(simulated),
            )
            try:
                upgraded = fleet.run("db", "upgrade")
                assert upgraded.returncode == 0, upgraded.stderr
                fleet.start(apis=APIS, controllers=CONTROLLERS)
                self._kill_while_tenants_work(fleet, url, web.port, outcome)
                self._examine(fleet, simulated, url, outcome)
            finally:
                fleet.remove()
        return outcome

    def _kill_while_tenants_work(self, fleet: Fleet, url: str, member_port: int, outcome: Outcome) -> None:
        watching = watcher.Watcher(
            url, lambda: {x.process.pid for x in fleet.of("controller") if x.process.poll() is None}
        )
        self._churn = Churn([x.port for x in fleet.parts if x.is_api], LOAD_BALANCERS, member_port, seed=self.seed)
        watching.start()
        with Cpu({"FRONTINUS_STATE_DIR": str(fleet.state_dir)}) as cpu:
            self._churn.start()
            self._kill(fleet, watching, outcome)
            self._churn.stop()
            outcome.processors = str(cpu.shares())
        began = time.monotonic()
        while watching.waiting and time.monotonic() - began < SETTLE_S:
            time.sleep(0.1)
        watching.stop()
        if watching.waiting:
            outcome.troubles.append(f"{watching.waiting} load balancers were never taken over")
        _tell_resumptions(watching, outcome)
        outcome.longest_request_s = self._churn.longest_s
        outcome.answers = dict(self._churn.seen)
        outcome.troubles += [f"a tenant saw: {x}" for x in self._churn.complaints]

    def _kill(self, fleet: Fleet, watching: watcher.Watcher, outcome: Outcome) -> None:
        choice = random.Random(self.seed)
        database_at = [self.seconds / 3, self.seconds * 2 / 3]
        began = time.monotonic()
        turn = 0
        while (passed := time.monotonic() - began) < self.seconds:
            if database_at and passed >= database_at[0]:
                database_at.pop(0)
                self._restart_database(outcome, by_force=bool(database_at))
            victim = choice.choice(fleet.parts)
            if victim.process.poll() is None:
                self._kill_one(fleet, victim, watching, outcome)
            else:
                outcome.troubles.append(f"{victim.command} ended by itself with {victim.process.returncode}")
                fleet.start_again(victim)
            turn += 1
            time.sleep(max(0.0, began + turn - time.monotonic()))

    def _kill_one(self, fleet: Fleet, victim: Running, watching: watcher.Watcher, outcome: Outcome) -> None:
        pid = victim.process.pid
        fleet.kill(victim)
        watching.killed(pid)
        outcome.kills[victim.command[0]] += 1
        time.sleep(RESTART_AFTER_S)
        fleet.start_again(victim)

    def _restart_database(self, outcome: Outcome, *, by_force: bool) -> None:
        if by_force:
            self.server.kill()
        else:
            self.server.stop()
        time.sleep(DATABASE_AWAY_S)
        self.server.start()
        outcome.kills["database"] += 1

    # At the end

    def _examine(self, fleet: Fleet, simulated: SimulatedFleet, url: str, outcome: Outcome) -> None:
        began = time.monotonic()
        left: list[str] = ["not looked yet"]
        while left and time.monotonic() - began < SETTLE_S:
            left = self._unsettled(url)
            time.sleep(0.2)
        outcome.settled_after_s = time.monotonic() - began
        outcome.troubles += left
        began = time.monotonic()
        left = ["not looked yet"]
        while left and time.monotonic() - began < SETTLE_S:
            left = self._leaks(fleet, simulated, url)
            time.sleep(0.5)
        outcome.troubles += left
        load_balancers, recorded = watcher.state(url)
        outcome.load_balancers = len(load_balancers)
        outcome.troubles += self._wrong_contents(simulated, recorded)
        outcome.troubles += self._without_traffic(fleet, recorded)
        log = (fleet.directory / "fleet.log").read_text(errors="replace")
        outcome.swept = len(re.findall(r'"orphan deleted"', log))
        outcome.troubles += [f"in the log: {x[:1500]}" for x in _alarms(log)]
        records = simulated.report().values()
        outcome.pushes, outcome.repeats = sum(x.pushes for x in records), sum(x.repeats for x in records)

    def _unsettled(self, url: str) -> list[str]:
        load_balancers, _ = watcher.state(url)
        found = []
        for each in load_balancers:
            if each.status != "ACTIVE" or each.generation != each.applied_generation or each.is_due:
                found.append(f"not settled: {each}")
            if each.id not in self._churn.wanted:
                found.append(f"nobody wants it: {each}")
        missing = set(self._churn.wanted) - {x.id for x in load_balancers}
        return [*found, *(f"promised and not there: {x}" for x in missing)]

    def _leaks(self, fleet: Fleet, simulated: SimulatedFleet, url: str) -> list[str]:
        """What is outside and on no record, and the other way round."""
        load_balancers, recorded = watcher.state(url)
        wanted = {x.id for x in recorded}
        state = fleet.state_dir
        places = {x.name for x in (state / "amphorae").iterdir()} if (state / "amphorae").exists() else set()
        owners = {x.name for x in (state / "network" / "owners").iterdir()}
        vips = list((state / "network" / "vips").iterdir())
        memory = {
            x.name.removeprefix("frontinus-")
            for x in Path("/dev/shm").glob("frontinus-*")
            if x.name.removeprefix("frontinus-") in self._known_real
        }
        running = {
            word.removeprefix("FRONTINUS_AMPHORA_ID=")
            for process in _processes(fleet)
            for word in process
            if word.startswith("FRONTINUS_AMPHORA_ID=")
        }
        self._known_real |= places | running
        simulated_there = set(simulated.report())
        found = []
        if wanted != places | simulated_there:
            found.append(f"places: {(places | simulated_there) ^ wanted} too many or too few")
        if not running <= places or not memory <= places:
            found.append(f"processes or keys of no place: {(running | memory) - places}")
        if len(recorded) != len(load_balancers):
            found.append(f"{len(recorded)} amphorae of {len(load_balancers)} load balancers")
        if owners != {x.id for x in load_balancers} or len(vips) != len(owners):
            found.append(f"addresses: {owners ^ {x.id for x in load_balancers}}, {len(vips)} VIPs")
        return found

    _known_real: set[str] = field(default_factory=set)

    def _wrong_contents(self, simulated: SimulatedFleet, recorded: list[watcher.Recorded]) -> list[str]:
        """What an amphora runs is what its receipt says."""
        report = simulated.report()
        return [
            f"amphora {x.id} runs {digests[-1][:12] if digests else 'nothing'}, its receipt is {x.receipt}"
            for x in recorded
            if x.id in report
            for digests in (report[x.id].digests,)  # type: ignore[index]
            if not digests or digests[-1] not in (x.receipt or "")
        ]

    def _without_traffic(self, fleet: Fleet, recorded: list[watcher.Recorded]) -> list[str]:
        """The real ones serve."""
        found = []
        (part, *_) = fleet.apis()
        for each in recorded:
            if mixed_compute.is_real(each.id, ONE_IN):
                vip = part.load_balancer(each.load_balancer_id)["vip_address"]
                port = self._churn.wanted[each.load_balancer_id]
                try:
                    until(lambda vip=vip, port=port: ask(vip, port)[0] == 200, 5, "")  # type: ignore[misc]
                except AssertionError:
                    found.append(f"{each.load_balancer_id} does not serve: {ask(vip, port)}")
        return found


def _tell_resumptions(watching: watcher.Watcher, outcome: Outcome) -> None:
    resumptions = sorted(watching.resumptions, key=lambda x: x.waited)
    outcome.resumed = len(resumptions)
    outcome.longest_resumption = watching.longest
    outcome.longest_wait_s = round(watching.longest_wait_s, 2)
    if resumptions:
        at = {f"p{x}": resumptions[int(len(resumptions) * x / 100)].waited for x in (50, 90, 99)}
        outcome.resumption_s = {name: round(value, 2) for name, value in at.items()}
        longest = resumptions[-1]
        outcome.longest_resumption_s = longest.waited
        outcome.longest_waited_for = (
            f"{longest.leased:.1f} s for the end of the lease, {longest.crowded:.1f} s for a free place, "
            f"{longest.idle:.1f} s for one with a free place to come"
        )


def _processes(fleet: Fleet) -> list[frozenset[str]]:
    return [x.environment for x in processes(FRONTINUS_STATE_DIR=str(fleet.state_dir))]


def _alarms(log: str) -> list[str]:
    """What no process may say, whatever dies around it: it has a bug, or thinks so."""
    return [
        line
        for line in log.splitlines()
        if ('"level": "error"' in line or "Traceback" in line) and "database" not in line.lower()
    ]
