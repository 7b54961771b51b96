"""`frontinus controller list | show | drain | resume`: the cohorts, who serves them, and which of them take new load balancers.

Controllers see what is written here with their next keep-alive. Next: store/cohorts.py, controller/membership.py."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from frontinus.cli.on_store import run
from frontinus.cli.output import say, table
from frontinus.model import capabilities
from frontinus.model.capabilities import Capabilities
from frontinus.model.cohorts import SILENT_AFTER, Cohort, CohortName, CohortState, heir
from frontinus.model.errors import CallerError, Conflict, NotFound
from frontinus.model.ids import LoadBalancerId
from frontinus.model.tree import LoadBalancerTree
from frontinus.store import cohorts, controllers, trees
from frontinus.store.controllers import Controller
from frontinus.store.engine import Store, Transaction

AT_ONCE = 100


class _Fleet(msgspec.Struct, frozen=True):
    """Everything that the commands tell, read at once."""

    cohorts: tuple[Cohort, ...]
    counts: dict[CohortName, int]
    running: tuple[Controller, ...]

    def of(self, name: CohortName) -> list[Controller]:
        """The controllers of a cohort, one row for each process."""
        seen = {(x.host, x.pid): x for x in self.running if x.cohort == name}
        return list(seen.values())


def _read(tx: Transaction) -> _Fleet:
    return _Fleet(tuple(cohorts.all_cohorts(tx)), cohorts.count_load_balancers(tx), tuple(controllers.running(tx)))


def list_(file: Path | None, overrides: dict[str, object], *, as_json: bool) -> int:
    """A line for each cohort."""

    async def work(store: Store) -> None:
        fleet, now = await store.read(_read), datetime.now(UTC)
        if as_json:
            say(json.dumps([_record(x, fleet, now) for x in fleet.cohorts], indent=2))
            return
        if not fleet.cohorts:
            say("No controller was ever registered.")
            return
        lines = [
            (
                x.driver,
                x.driver_version,
                _state(x, now),
                str(fleet.counts.get(x.name, 0)),
                str(sum(_lives(y, now) for y in fleet.of(x.name))),
                x.first_seen_at.isoformat(timespec="seconds"),
            )
            for x in fleet.cohorts
        ]
        table(("driver", "version", "state", "load balancers", "controllers", "first seen"), lines)

    return run(file, overrides, work)


def show(file: Path | None, overrides: dict[str, object], driver: str, version: str, *, as_json: bool) -> int:
    """One cohort with its controllers. Exit status 1 if there is none."""

    async def work(store: Store) -> None:
        fleet, now = await store.read(_read), datetime.now(UTC)
        cohort = _find(fleet.cohorts, CohortName(driver, version))
        record = _record(cohort, fleet, now)
        if as_json:
            say(json.dumps(record, indent=2))
            return
        for key, value in record.items():
            if key != "controllers":
                say(f"{key.replace('_', ' '):<16} {', '.join(value) if isinstance(value, list) else value}")
        lines = [(x["host"], str(x["pid"]), x["started_at"], x["seen_at"]) for x in record["controllers"]]
        if lines:
            say("")
            table(("host", "process", "started", "last seen"), lines)

    return run(file, overrides, work)


def drain(file: Path | None, overrides: dict[str, object], driver: str, version: str, *, moves: bool) -> int:
    """Have a cohort take nothing new, and with `moves` give what it has to another one. Exit status 1 if there is no such
    cohort, or nowhere to move to."""
    name = CohortName(driver, version)

    async def work(store: Store) -> None:
        now = datetime.now(UTC)
        fleet = await store.read(_read)
        _find(fleet.cohorts, name)
        others = [x for x in fleet.cohorts if x.name != name]
        takers = [x for x in others if x.state is CohortState.ACTIVE]
        target = heir(takers, driver, now)
        if moves and target is None:
            raise Conflict(
                "", f"there is no other active cohort of driver {driver} whose controllers run; start one first"
            )
        await store.transact(lambda tx: cohorts.set_state(tx, name, CohortState.DRAINING, now))
        if moves and target is not None:
            await _move_all(store, name, target)
        left = (await store.read(cohorts.count_load_balancers)).get(name, 0)
        say(f"{name} drains: {left} load balancers are left. Its controllers end when there are none.")
        if not any(driver == x.driver for x in takers):
            say(f"No other cohort of driver {driver} takes new load balancers: creates are refused until one does.")

    return run(file, overrides, work)


def resume(file: Path | None, overrides: dict[str, object], driver: str, version: str) -> int:
    """Have a cohort take new load balancers again. Exit status 1 if there is none."""
    name = CohortName(driver, version)

    async def work(store: Store) -> None:
        await store.transact(lambda tx: cohorts.set_state(tx, name, CohortState.ACTIVE, datetime.now(UTC)))
        say(f"{name} is active.")

    return run(file, overrides, work)


async def _move_all(store: Store, name: CohortName, target: Cohort) -> None:
    """Give every load balancer that the target can carry to it, in parts; say which stay, and why."""
    after: LoadBalancerId | None = None
    moved = 0
    while True:

        def part(tx: Transaction, after: LoadBalancerId | None = after) -> tuple[list[LoadBalancerId], dict[str, str]]:
            ids = cohorts.load_balancers_of(tx, name, after, AT_ONCE)
            found = trees.read_trees(tx, ids)
            staying = {x: reason for x, tree in found.items() if (reason := _cannot(tree, target.capabilities))}
            cohorts.move(tx, [x for x in found if x not in staying], target.name, datetime.now(UTC))
            return ids, {str(x): reason for x, reason in staying.items()}

        ids, staying = await store.transact(part)
        moved += len(ids) - len(staying)
        for load_balancer_id, reason in staying.items():
            say(f"stays  {load_balancer_id}: {reason}")
        if len(ids) < AT_ONCE:
            break
        after = ids[-1]
    say(f"{moved} load balancers are moved to {target.name}.")


def _cannot(tree: LoadBalancerTree, able: Capabilities) -> str | None:
    """Why a driver cannot carry a load balancer; None if it can."""
    if tree.load_balancer.delete_requested:
        return None
    try:
        capabilities.require(tree.wanted(), able)
    except CallerError as error:
        return str(error)
    return None


def _find(known: tuple[Cohort, ...], name: CohortName) -> Cohort:
    for cohort in known:
        if cohort.name == name:
            return cohort
    there = ", ".join(str(x.name) for x in known) or "none"
    raise NotFound("", f"there is no cohort {name}; known: {there}")


def _lives(controller: Controller, now: datetime) -> bool:
    return controller.seen_at > now - SILENT_AFTER


def _state(cohort: Cohort, now: datetime) -> str:
    return cohort.state.value if cohort.is_served(now) else f"{cohort.state.value}, unserved"


def _record(cohort: Cohort, fleet: _Fleet, now: datetime) -> dict[str, Any]:
    return {
        "driver": cohort.driver,
        "version": cohort.driver_version,
        "state": cohort.state.value,
        "served": cohort.is_served(now),
        "load_balancers": fleet.counts.get(cohort.name, 0),
        "providers": list(cohort.providers),
        "config_digest": cohort.config_digest,
        "first_seen_at": cohort.first_seen_at.isoformat(timespec="seconds"),
        "state_since": cohort.changed_at.isoformat(timespec="seconds"),
        "controllers": [
            {
                "host": x.host,
                "pid": x.pid,
                "lives": _lives(x, now),
                "started_at": x.started_at.isoformat(timespec="seconds"),
                "seen_at": x.seen_at.isoformat(timespec="seconds"),
            }
            for x in fleet.of(cohort.name)
        ],
    }
