"""`frontinus receipt LOAD_BALANCER`: what is live where. Next: model/receipts.py."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec

from frontinus.cli.on_store import run
from frontinus.cli.output import say, table
from frontinus.model.cohorts import CohortName
from frontinus.model.errors import NotFound
from frontinus.model.ids import LoadBalancerId
from frontinus.model.receipts import Live, receipts_of
from frontinus.model.tree import LoadBalancerTree
from frontinus.store import cohorts, trees
from frontinus.store.engine import Store, Transaction

NOT_AS_WANTED = 3


def show(file: Path | None, overrides: dict[str, object], load_balancer: str, *, as_json: bool) -> int:
    """Exit status 0 when what is live is what is wanted, 3 when not, 1 when there is no such load balancer."""
    load_balancer_id = LoadBalancerId(load_balancer)
    status = 0

    async def work(store: Store) -> None:
        nonlocal status

        def read(tx: Transaction) -> tuple[LoadBalancerTree | None, CohortName | None]:
            return trees.read_tree(tx, load_balancer_id), cohorts.of(tx, load_balancer_id)

        tree, cohort = await store.read(read)
        if tree is None:
            raise NotFound("", f"there is no load balancer {load_balancer}")
        found = receipts_of(tree, cohort)
        status = 0 if found and all(x.as_wanted for x in found) else NOT_AS_WANTED
        if as_json:
            say(json.dumps(_record(tree, cohort, found), indent=2))
        else:
            _tell(tree, cohort, found)

    return run(file, overrides, work) or status


def _record(tree: LoadBalancerTree, cohort: CohortName | None, found: tuple[Live, ...]) -> dict[str, object]:
    return {
        "load_balancer_id": tree.id,
        "generation": tree.load_balancer.generation,
        "applied_generation": tree.load_balancer.applied_generation,
        "driver": None if cohort is None else cohort.driver,
        "driver_version": None if cohort is None else cohort.driver_version,
        "receipts": msgspec.to_builtins(found),
    }


def _tell(tree: LoadBalancerTree, cohort: CohortName | None, found: tuple[Live, ...]) -> None:
    load_balancer = tree.load_balancer
    say(f"load balancer  {tree.id} {load_balancer.name}")
    say(f"wanted         generation {load_balancer.generation}, {load_balancer.applied_generation} is carried out")
    say(f"served by      {cohort or 'no cohort yet'}")
    say("")
    titles = ("amphora", "role", "generation", "digest", "driver", "agent", "balancer", "since", "as wanted")
    table(titles, [_line(x) for x in found])


def _line(live: Live) -> tuple[str, ...]:
    if live.since is None:
        return (live.amphora_id, live.role, "-", "-", "-", "-", "-", "-", "no: nothing was acknowledged yet")
    driver = f"{live.driver or ''} {live.driver_version}".strip()
    return (
        live.amphora_id,
        live.role,
        str(live.generation),
        (live.digest or "")[:12],
        driver if live.current_driver else f"{driver} (earlier)",
        live.amphora_version or "-",
        live.balancer_version or "-",
        live.since.isoformat(timespec="seconds"),
        "yes" if live.as_wanted else "no",
    )
