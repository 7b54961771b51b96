"""`frontinus sweep list | delete`: what a controller's sweeper sees, told; and its deletions, asked for.

Works beside running controllers or without any, on a host where a controller could run: what local drivers made is seen where
it is. Next: controller/sweeper.py."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from frontinus.cli import on_store
from frontinus.cli.output import complain, say, settings_or_exit, start_logging, table
from frontinus.controller.hands import Hands
from frontinus.controller.sweep_plan import Orphan, Survey
from frontinus.controller.sweeper import Sweeper
from frontinus.main import Drivers, require_schema
from frontinus.main import check as check_settings
from frontinus.model.belongings import Belonging, OwnerKind
from frontinus.store.clock import SharedClock
from frontinus.store.engine import Store

Work = Callable[[Sweeper, datetime], Awaitable[int]]


def list_(file: Path | None, overrides: dict[str, object], *, as_json: bool, only_orphans: bool) -> int:
    """Exit status 0."""

    async def work(sweeper: Sweeper, at: datetime) -> int:
        survey = await sweeper.look()
        if as_json:
            say(json.dumps(_record(survey, at, only_orphans=only_orphans), indent=2))
            return 0
        rows = [] if only_orphans else [_row(x, "yes") for x in survey.wanted]
        rows += [_row(x, _state(orphan, at)) for orphan in survey.orphans for x in orphan.belongings]
        if rows:
            table(("kind", "name", "of", "known by", "wanted"), rows)
        say(_summary(survey, at))
        return 0

    return _run(file, overrides, work)


def delete(file: Path | None, overrides: dict[str, object], *, as_json: bool, carry_out: bool) -> int:
    """Exit status 0, or 1 when something could not be deleted."""

    async def work(sweeper: Sweeper, at: datetime) -> int:
        survey = await sweeper.look()
        due = survey.due(at)
        gone = await sweeper.delete(due) if carry_out else ()
        if as_json:
            record = _record(survey, at, only_orphans=True)
            say(json.dumps({**record, "deleted": [x.owner.id for x in gone]}, indent=2))
        else:
            _tell_deletion(survey, at, due, gone, carry_out=carry_out)
        left = len(due) - len(gone) if carry_out else 0
        if left:
            complain(f"{left} orphans could not be deleted; the log says why")
        return 1 if left else 0

    return _run(file, overrides, work)


def _tell_deletion(
    survey: Survey, at: datetime, due: tuple[Orphan, ...], gone: tuple[Orphan, ...], *, carry_out: bool
) -> None:
    waiting = [x for x in survey.orphans if x not in due]
    shown = gone if carry_out else due
    for title, orphans in (("Deleted:" if carry_out else "Would be deleted:", shown), ("Not yet:", waiting)):
        if orphans:
            say(title)
        for orphan in orphans:
            say(f"  {_owner(orphan.belongings[0])}, {_state(orphan, at)}")
            for each in orphan.belongings:
                say(f"    {each.kind} {each.name} ({each.proof})")
    if not survey.orphans:
        say("Nothing is an orphan.")
    elif not carry_out and due:
        say("Nothing was deleted; with --yes it is.")


def _run(file: Path | None, overrides: dict[str, object], work: Work) -> int:
    status = 0
    settings = settings_or_exit(file, overrides)
    start_logging(settings.log)

    async def on(store: Store) -> None:
        nonlocal status
        check_settings(settings)
        require_schema(store)
        clock = SharedClock(store)
        await clock.measure()
        drivers = Drivers(settings, settings.health.bind_port)
        try:
            hands = Hands(
                store=store,
                amphora_driver=drivers.amphora,
                compute=drivers.compute,
                network=drivers.network,
                secret=drivers.secret,
                settings=settings.controller,
                now=clock,
            )
            status = await work(Sweeper(hands), clock())
        finally:
            await drivers.close()

    return on_store.run(file, overrides, on) or status


def _row(belonging: Belonging, wanted: str) -> tuple[str, ...]:
    return (belonging.kind.value, belonging.name, _owner(belonging), belonging.proof, wanted)


def _owner(belonging: Belonging) -> str:
    owner = belonging.owner
    return "nobody" if owner.kind is OwnerKind.NOBODY else f"{owner.kind.replace('_', ' ')} {owner.id}"


def _state(orphan: Orphan, at: datetime) -> str:
    since = f"no, since {orphan.since.isoformat(timespec='seconds')}"
    left = (orphan.until - at).total_seconds()
    return since if left <= 0 else f"{since}; may be deleted in {left:.0f} s"


def _summary(survey: Survey, at: datetime) -> str:
    things = sum(len(x.belongings) for x in survey.orphans)
    told = f"{len(survey.wanted)} things are wanted, {things} are not"
    if not survey.orphans:
        return f"{told}."
    told += f": {len(survey.orphans)} orphans, {len(survey.due(at))} of them past their grace."
    held = len(survey.held)
    if not held:
        return f"{told} Controllers delete those."
    if survey.is_believed:
        projects = sorted({x.tenant for y in survey.held for x in y.belongings if x.tenant is not None})
        return (
            f"{told} Controllers delete those, but for {held} in project {', '.join(projects)}: too many to be believed, and "
            "its users can mark ports of theirs as we do. If they are ours: `frontinus sweep delete --yes`."
        )
    return (
        f"{told} These are too many to be believed, and controllers leave them alone: is this the right database? "
        "If it is: `frontinus sweep delete --yes`."
    )


def _record(survey: Survey, at: datetime, *, only_orphans: bool) -> dict[str, Any]:
    held = {x.owner for x in survey.held}
    record: dict[str, Any] = {
        "orphans": [
            {
                "owner_kind": x.owner.kind.value,
                "owner_id": x.owner.id,
                "since": x.since.isoformat(),
                "until": x.until.isoformat(),
                "is_due": x.until <= at,
                "is_held": x.owner in held,
                "belongings": [_thing(y) for y in x.belongings],
            }
            for x in survey.orphans
        ],
        "is_believed": survey.is_believed,
    }
    if not only_orphans:
        record["wanted"] = [
            _thing(x) | {"owner_kind": x.owner.kind.value, "owner_id": x.owner.id} for x in survey.wanted
        ]
    return record


def _thing(belonging: Belonging) -> dict[str, str]:
    return {"kind": belonging.kind.value, "name": belonging.name, "proof": belonging.proof}
