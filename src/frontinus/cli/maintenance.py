"""`frontinus maintenance …` and `frontinus status`: what holds replacements, and what is going on.

Works on the database, beside running processes or without any: a mark is obeyed by every controller from its next look."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

from frontinus.cli.on_store import run
from frontinus.cli.output import say
from frontinus.model.errors import Invalid, NotFound
from frontinus.model.maintenance import Mark, MarkScope
from frontinus.model.receivers import Receiver
from frontinus.store import health, maintenance, receivers, replacements
from frontinus.store.engine import Store, Transaction
from frontinus.store.health import FleetMember
from frontinus.store.replacements import Turn

_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def on(
    file: Path | None, overrides: dict[str, object], scope: MarkScope, target: str, reason: str, lasting: str | None
) -> int:
    """Exit status 0 when the mark is set."""

    async def work(store: Store) -> None:
        now = datetime.now(UTC)
        until = None if lasting is None else now + duration(lasting)
        mark = Mark(scope=scope, target=target, reason=reason, created_at=now, until=until)

        def write(tx: Transaction) -> int:
            covered = maintenance.count_covered(tx, mark)
            if covered == 0 and scope in (MarkScope.AMPHORA, MarkScope.LOAD_BALANCER):
                raise NotFound(scope.replace("_", " "), f"{target} has no amphora here")
            maintenance.put(tx, mark)
            return covered

        covered = await store.transact(write)
        say(f"Maintenance of {mark.in_words()}: {covered} amphorae are not replaced meanwhile.")

    return run(file, overrides, work)


def off(file: Path | None, overrides: dict[str, object], scope: MarkScope, target: str) -> int:
    """Exit status 0 when the mark is taken off, 1 when there was none."""

    async def work(store: Store) -> None:
        await store.transact(lambda tx: maintenance.remove(tx, scope, target))
        say("The mark is taken off; amphorae that died meanwhile are replaced now.")

    return run(file, overrides, work)


def list_(file: Path | None, overrides: dict[str, object]) -> int:
    """Exit status 0, and a line for each mark that holds."""

    async def work(store: Store) -> None:
        now = datetime.now(UTC)
        holding = [x for x in await store.read(maintenance.marks) if x.holds(now)]
        for mark in holding:
            say(f"{mark.in_words()}; since {mark.created_at.isoformat(timespec='seconds')}")
        if not holding:
            say("Nothing is under maintenance.")

    return run(file, overrides, work)


def show_status(file: Path | None, overrides: dict[str, object]) -> int:
    """Exit status 0, or 1 when something needs a person: no receiver is there, or one brakes."""
    status = 0

    async def work(store: Store) -> None:
        nonlocal status
        now = datetime.now(UTC)

        def read(tx: Transaction) -> tuple[list[Receiver], list[FleetMember], list[Mark], list[Turn]]:
            return receivers.all_receivers(tx), health.fleet(tx), maintenance.marks(tx), replacements.turns(tx, now)

        ears, fleet, marks, turns = await store.read(read)
        status = tell_status(ears, fleet, marks, turns, now)

    return run(file, overrides, work) or status


def tell_status(
    ears: list[Receiver], fleet: list[FleetMember], marks: list[Mark], turns: list[Turn], now: datetime
) -> int:
    """Say how things stand; 1 when a person should look."""
    alive = [x for x in ears if x.is_alive(now)]
    for ear in alive:
        brake = (
            f"BRAKED: {ear.silent} of {ear.watched} are silent at once, so that nobody is suspected. Look at the way that "
            "heartbeats take; it releases by itself"
            if ear.braked
            else f"{ear.silent} of {ear.watched} silent"
        )
        say(f"receiver  {ear.host} UDP {ear.port}, since {ear.started_at.isoformat(timespec='seconds')}: {brake}")
    if not alive:
        say("receiver  NONE is running: silence is not noticed, and nothing is replaced because of it")
    suspects = [x for x in fleet if x.suspected_at is not None]
    say(f"amphorae  {len(fleet)} are meant to be heard, {len(suspects)} of them are suspected")
    for suspect in suspects:
        since = "" if suspect.suspected_at is None else suspect.suspected_at.isoformat(timespec="seconds")
        say(f"suspect   amphora {suspect.amphora_id} of load balancer {suspect.load_balancer_id}, since {since}")
    for turn in turns:
        since = turn.taken_at.isoformat(timespec="seconds")
        say(f"replaced  an amphora of load balancer {turn.load_balancer_id}, since {since}")
    for mark in marks:
        if mark.holds(now):
            say(f"mark      {mark.in_words()}")
    return int(not alive or any(x.braked for x in alive))


def duration(text: str) -> timedelta:
    """From `90`, `90s`, `30m`, `2h` or `1d`. Raises Invalid."""
    found = re.fullmatch(r"(\d{1,6})([smhd]?)", text.strip())
    if found is None or int(found[1]) == 0:
        raise Invalid("--for", f"{text!r} is no duration; write as 30m, 2h or 1d")
    return timedelta(seconds=int(found[1]) * _UNITS[found[2] or "s"])
