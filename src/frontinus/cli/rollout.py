"""`frontinus rollout …`: fix a template on the whole fleet, in waves, watched, and undone if it goes wrong.

Works on the database: a rollout is rows, and controllers move it on, whether anybody watches or not. What only a driver of
the new version knows is asked of its controllers, as dry runs are (rollout_preview.py)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import msgspec

from frontinus.cli.ca import WHAT_NEXT, authority_of, progress_of
from frontinus.cli.output import complain, in_words, say, settings_or_exit, table
from frontinus.cli.rollout_preview import PlanOfLoadBalancer, plan_all, tell_plan
from frontinus.model.cohorts import Cohort, CohortState, newest
from frontinus.model.errors import Conflict, FrontinusError, Invalid, NotFound
from frontinus.model.ids import LoadBalancerId, new_id
from frontinus.model.rollouts import (
    ALL_AT_ONCE,
    ENDED,
    IN_FLIGHT,
    Gates,
    Move,
    MoveState,
    Rollout,
    RolloutId,
    RolloutKind,
    RolloutState,
    Selection,
    Waves,
    in_turn,
    time_left,
)
from frontinus.settings import Settings
from frontinus.store import cohorts, profiles, rollouts
from frontinus.store.engine import Store, Transaction

LOOK_S = 0.5
MOST_LISTED = 50
MOST_TOLD = 10

Work = Callable[[Store, Settings], Awaitable[int]]


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What a person asks a rollout for. Without `version` a rollout of the driver goes to the newest that runs."""

    kind: RolloutKind
    driver: str | None
    version: str | None
    selection: Selection
    waves: Waves = Waves()
    gates: Gates = Gates()


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Where a wish leads today: the version, and the load balancers in their turns."""

    driver: str
    version: str
    selection: Selection
    """That of the wish, with the flavor by its id."""

    load_balancer_ids: tuple[LoadBalancerId, ...]
    there_already: int


def run(file: Path | None, overrides: dict[str, object], work: Work) -> int:
    """Exit status of the work; 1 when something is in the way, 2 for what can never be."""
    settings = settings_or_exit(file, overrides)
    if not settings.database and not (settings.state_dir / "frontinus.sqlite").exists():
        complain(f"{settings.state_dir} holds no database; start `frontinus up` once, or name another --state-dir")
        return 1

    async def whole() -> int:
        store = Store.open(settings.database_url)
        try:
            return await work(store, settings)
        finally:
            await store.close()

    try:
        return asyncio.run(whole())
    except Invalid as error:
        complain(str(error))
        return 2
    except (FrontinusError, OSError, ValueError) as error:
        complain(in_words(error))
        return 1
    except KeyboardInterrupt:
        complain("not watched any more; a rollout that was started goes on (`frontinus rollout watch`)")
        return 130


def plan(wish: Wish, most: int, *, as_json: bool) -> Work:
    """Say what a rollout would do to each load balancer. Changes nothing."""

    async def work(store: Store, settings: Settings) -> int:
        now = datetime.now(UTC)
        target = await store.read(partial(_target, wish=wish, settings=settings, now=now))
        looked_at = target.load_balancer_ids[:most]
        if wish.kind is RolloutKind.DRIVER:
            plans = await plan_all(store, target.driver, target.version, looked_at)
        else:
            action = "replace" if wish.kind is RolloutKind.IMAGE else "unchanged"
            plans = [PlanOfLoadBalancer(load_balancer_id=x, action=action) for x in looked_at]
        if as_json:
            said = {
                "driver": target.driver,
                "version": target.version,
                "load_balancers": len(target.load_balancer_ids),
                "there_already": target.there_already,
                "plans": plans,
            }
            say(msgspec.json.format(msgspec.json.encode(said)).decode())
            return 0
        say(f"{_words(wish, target)}: {len(target.load_balancer_ids)} load balancers ({wish.selection.in_words()})")
        if not target.load_balancer_ids:
            say(_nothing(wish, target))
        elif target.there_already:
            say(f"{target.there_already} more are there already, and are left alone.")
        tell_plan(plans, len(target.load_balancer_ids))
        if wish.kind in (RolloutKind.CERTIFICATES, RolloutKind.AUTHORITY):
            say("Each amphora is given another certificate; what it carries is not touched.")
        return 0

    return work


def start(wish: Wish, *, watching: bool) -> Work:
    """Begin a rollout; its id is printed. Controllers move it on."""

    async def work(store: Store, settings: Settings) -> int:
        now = datetime.now(UTC)
        rollout_id = RolloutId(new_id())

        def write(tx: Transaction) -> tuple[Rollout, Target]:
            target = _target(tx, wish, settings, now)
            rollout = Rollout(
                id=rollout_id,
                kind=wish.kind,
                driver=target.driver,
                target=target.version,
                selection=target.selection,
                waves=wish.waves,
                gates=wish.gates,
                state=RolloutState.PAUSED if wish.kind is RolloutKind.AUTHORITY else RolloutState.RUNNING,
                in_canary=wish.waves.canary > 0,
                wave_since=now,
                created_at=now,
                active_driver=target.driver,
            )
            if target.load_balancer_ids or wish.kind is RolloutKind.AUTHORITY:  # that takes its step for nobody, too
                rollouts.add(tx, rollout, target.load_balancer_ids)
            return rollout, target

        rollout, target = await store.transact(write)
        if wish.kind is RolloutKind.AUTHORITY:
            await _step(store, settings, rollout)
        elif not target.load_balancer_ids:
            say(_nothing(wish, target))
            return 0
        say(rollout.id)
        if watching:
            return await _watch(store, rollout.id)
        return 0

    return work


async def _step(store: Store, settings: Settings, rollout: Rollout) -> None:
    """Let the authority take its step, now that the rollout keeps others from bringing it to all amphorae at once, and let
    the rollout run. A step that has not reached everybody is gone on with."""
    authority = authority_of(settings)
    every, others = await progress_of(store, settings, authority).look(authority.digest)
    if others:
        complain(f"{every - others} of {every} amphorae are at phase {authority.phase!s}: it goes to the others first")
    else:
        complain(WHAT_NEXT[authority.phase])
        authority.advance()
    await store.transact(lambda tx: rollouts.change_state(tx, rollout, RolloutState.RUNNING, "", datetime.now(UTC)))


def list_(*, as_json: bool) -> Work:
    """Say which rollouts there were, the youngest first."""

    async def work(store: Store, _settings: Settings) -> int:
        found = await store.read(partial(rollouts.latest, most=MOST_LISTED))
        if as_json:
            say(msgspec.json.format(msgspec.json.encode(found)).decode())
            return 0
        if not found:
            say("There was no rollout yet.")
            return 0
        rows = [
            (
                x.id,
                f"{x.created_at:%Y-%m-%d %H:%M:%S}",
                x.state.value,
                x.in_words() + (f": {x.reason}" if x.reason else ""),
            )
            for x in found
        ]
        table(("rollout", "started", "state", "what"), rows)
        return 0

    return work


def show(rollout_id: str | None, *, as_json: bool) -> Work:
    """Say how a rollout stands, and what became of whom it did not go well with."""

    async def work(store: Store, _settings: Settings) -> int:
        rollout = await store.read(partial(_named, rollout_id=rollout_id))
        moves = await store.read(partial(rollouts.moves, rollout_id=rollout.id))
        if as_json:
            say(msgspec.json.format(msgspec.json.encode({"rollout": rollout, "load_balancers": moves})).decode())
            return 0
        waves, gates = rollout.waves, rollout.gates
        at_once = "all" if waves.at_once == ALL_AT_ONCE else f"{waves.at_once}"
        say(f"rollout   {rollout.id}: {rollout.in_words()}")
        say(f"to whom   {rollout.selection.in_words()}: {len(moves)} load balancers")
        say(
            f"waves     {waves.canary} first, watched for {_seconds(waves.canary_soak)}; then {at_once} at a time, each "
            f"watched for {_seconds(waves.soak)}"
        )
        rate = "not looked at" if gates.error_rate is None else f"above {gates.error_rate:.1%}"
        say(
            f"gates     no receipt within {_seconds(gates.patience)}; heartbeats: {'yes' if gates.heartbeats else 'no'}; "
            f"error rate: {rate}; failures allowed: {gates.most_failures}"
        )
        say(f"state     {_state(rollout)}")
        say(f"so far    {_so_far(_counted(moves))}")
        for move in [x for x in moves if x.reason][:MOST_TOLD]:
            say(f"{move.state:<10}load balancer {move.load_balancer_id}: {move.reason}")
        return 0

    return work


def watch(rollout_id: str | None) -> Work:
    """Say how far it is until it is over or halted; exit status 1 unless it is finished or rolled back."""

    async def work(store: Store, _settings: Settings) -> int:
        rollout = await store.read(partial(_named, rollout_id=rollout_id))
        return await _watch(store, rollout.id)

    return work


def pause(rollout_id: str | None) -> Work:
    """Move no further load balancer. What was moved is under way to its amphorae all the same."""
    return _change(rollout_id, RolloutState.PAUSED, "by an operator")


def abort(rollout_id: str | None) -> Work:
    """End it where it is: who was moved stays, who was not is left alone."""
    return _change(rollout_id, RolloutState.ABORTED, "by an operator")


def resume(rollout_id: str | None, *, accept: bool) -> Work:
    """Go on. Who failed is judged once more, or with `accept` taken as it is."""

    async def work(store: Store, _settings: Settings) -> int:
        now = datetime.now(UTC)

        def write(tx: Transaction) -> Rollout | None:
            rollout = _named(tx, rollout_id)
            if rollout.state is RolloutState.RUNNING:
                return None
            changed = rollouts.change_state(tx, rollout, RolloutState.RUNNING, "", now)
            rollouts.look_anew(tx, rollout.id, now, failed_too=not accept)
            return changed

        changed = await store.transact(write)
        say("It runs already." if changed is None else f"{changed.id} goes on.")
        return 0

    return work


def rollback(rollout_id: str | None, *, watching: bool) -> Work:
    """Have everything that was moved served again by the version that served it before."""

    async def work(store: Store, _settings: Settings) -> int:
        now = datetime.now(UTC)

        def write(tx: Transaction) -> tuple[Rollout, set[str]]:
            rollout = _named(tx, rollout_id)
            if rollout.kind is not RolloutKind.DRIVER:
                raise Conflict(
                    "rollout",
                    f"it gave {rollout.in_words()}, which cannot be taken back: "
                    + (
                        "set compute's image back and start another rollout of the image"
                        if rollout.kind is RolloutKind.IMAGE
                        else "a certificate that was replaced is nobody's any more"
                    ),
                )
            versions = rollouts.versions_before(tx, rollout.id)
            _require_served(tx, rollout, versions, now)
            return rollouts.change_state(tx, rollout, RolloutState.ROLLING_BACK, rollout.reason, now), versions

        rollout, versions = await store.transact(write)
        say(f"{rollout.id} is rolled back to {rollout.driver} {', '.join(sorted(versions)) or '(nothing was moved)'}.")
        say(
            f"New load balancers still go to the newest version: `frontinus controller drain {rollout.driver} "
            f"{rollout.target}` keeps them from it."
        )
        return await _watch(store, rollout.id) if watching else 0

    return work


def at_once(text: str) -> int:
    """From `50`, or `all`. Raises Invalid."""
    if text == "all":
        return ALL_AT_ONCE
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise Invalid("--at-once", f"{text!r} is no number of load balancers; write as 50, or all")
    return int(text)


def _change(rollout_id: str | None, to: RolloutState, reason: str) -> Work:
    async def work(store: Store, _settings: Settings) -> int:
        now = datetime.now(UTC)

        def write(tx: Transaction) -> tuple[Rollout, str]:
            rollout = _named(tx, rollout_id)
            if rollout.state is to:
                return rollout, " already"
            return rollouts.change_state(tx, rollout, to, reason, now), ""

        changed, already = await store.transact(write)
        say(f"{changed.id} is {changed.state}{already}.")
        return 0

    return work


def _named(tx: Transaction, rollout_id: str | None) -> Rollout:
    """The rollout with this id or beginning of one, or the youngest. Raises NotFound, Conflict."""
    latest = rollouts.latest(tx, MOST_LISTED)
    if rollout_id is None:
        if not latest:
            raise NotFound("rollout", "there was none yet")
        return latest[0]
    found = [x for x in latest if x.id.startswith(rollout_id)]
    if len(found) > 1:
        raise Conflict("rollout", f"{len(found)} rollouts have ids that begin with {rollout_id}")
    return found[0] if found else rollouts.get(tx, RolloutId(rollout_id))


def _target(tx: Transaction, wish: Wish, settings: Settings, now: datetime) -> Target:
    """Raises Invalid for a driver or version that no controller has."""
    driver = wish.driver or settings.drivers.amphora
    if wish.kind is RolloutKind.AUTHORITY:
        if wish.selection != Selection():
            raise Invalid("--authority", "each step is for every amphora: no --flavor, --project, --tag or --percent")
        if driver != settings.drivers.amphora:
            raise Invalid("--driver", f"the authority here is that of {settings.drivers.amphora}")
        authority_of(settings)
    known = [x for x in cohorts.all_cohorts(tx) if x.driver == driver]
    if not known:
        raise Invalid("--driver", f"no controller of driver {driver!r} was ever registered")
    version = ""
    if wish.kind is RolloutKind.DRIVER:
        version = _version(wish, known, now)
    selection = wish.selection
    if selection.flavor_id is not None:
        flavor_id = profiles.find_flavor(tx, selection.flavor_id)
        if flavor_id is None:
            raise Invalid("--flavor", f"there is no flavor {selection.flavor_id!r}")
        selection = msgspec.structs.replace(selection, flavor_id=flavor_id)
    found = rollouts.candidates(tx, driver, selection)
    turns = in_turn(((x.load_balancer_id, x.troubled) for x in found), wish.selection.percent)
    there = {x.load_balancer_id for x in found if wish.kind is RolloutKind.DRIVER and x.driver_version == version}
    return Target(
        driver=driver,
        version=version,
        selection=selection,
        load_balancer_ids=tuple(x for x in turns if x not in there),
        there_already=sum(x in there for x in turns),
    )


def _version(wish: Wish, known: list[Cohort], now: datetime) -> str:
    served = [x for x in known if x.is_served(now)]
    running = ", ".join(x.driver_version for x in served) or "none"
    if wish.version is None:
        newest_there = newest([x for x in served if x.state is CohortState.ACTIVE])
        if newest_there is None:
            raise Invalid("--to", f"no controller of driver {known[0].driver} runs that takes load balancers")
        return newest_there.driver_version
    if all(x.driver_version != wish.version for x in served):
        raise Invalid(
            "--to", f"no controller of {known[0].driver} {wish.version} runs; start one first (running: {running})"
        )
    return wish.version


def _require_served(tx: Transaction, rollout: Rollout, versions: set[str], now: datetime) -> None:
    running = {x.driver_version for x in cohorts.all_cohorts(tx) if x.driver == rollout.driver and x.is_served(now)}
    missing = sorted(versions - running)
    if missing:
        raise Conflict(
            "rollout",
            f"it cannot be rolled back yet: no controller of {rollout.driver} {', '.join(missing)} runs. Install that version "
            "again beside the new one, on any host, start `frontinus controller` from it, and repeat this command",
        )


async def _watch(store: Store, rollout_id: RolloutId) -> int:
    told = ""
    while True:
        rollout, counts = await store.read(lambda tx: (rollouts.get(tx, rollout_id), rollouts.counts(tx, rollout_id)))
        now = datetime.now(UTC)
        line = f"{_state(rollout)}  {_so_far(counts)}"
        left = time_left(counts, rollout, now)
        if line != told:
            say(f"{now:%H:%M:%S}  {line}" + ("" if left is None else f"; about {_roughly(left)} left"))
            told = line
        if rollout.state in (*ENDED, RolloutState.HALTED):
            if rollout.state is RolloutState.HALTED:
                say("Look, and then `frontinus rollout rollback`, `resume` or `abort`.")
            return int(rollout.state not in (RolloutState.FINISHED, RolloutState.ROLLED_BACK))
        await asyncio.sleep(LOOK_S)


def _counted(moves: list[Move]) -> dict[MoveState, int]:
    return {state: sum(x.state is state for x in moves) for state in MoveState}


def _so_far(counts: dict[MoveState, int]) -> str:
    total = sum(counts.values())
    under_way = sum(counts.get(x, 0) for x in IN_FLIGHT)
    parts = [f"{counts.get(MoveState.PASSED, 0)} of {total} passed", f"{under_way} under way"]
    others = (MoveState.WAITING, MoveState.FAILED, MoveState.GONE, MoveState.RETURNING, MoveState.RETURNED)
    return ", ".join([*parts, *(f"{counts[x]} {x}" for x in others if counts.get(x))])


def _state(rollout: Rollout) -> str:
    wave = " (canary)" if rollout.in_canary and rollout.state is RolloutState.RUNNING else ""
    return f"{rollout.state}{wave}" + (f": {rollout.reason}" if rollout.reason else "")


def _seconds(span: timedelta) -> str:
    seconds = span.total_seconds()
    return f"{seconds:.3g} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _nothing(wish: Wish, target: Target) -> str:
    """Why nobody is meant, and what an operator may have meant."""
    if not target.there_already:
        return f"Nothing to do: {target.driver} has no load balancer that is meant ({target.selection.in_words()})."
    told = f"Nothing to do: {target.driver} {target.version} serves all {target.there_already} that are meant already."
    if wish.version is None:
        told += " To go to another version start a controller of it first; --certificates and --image need none."
    return told


def _roughly(span: timedelta) -> str:
    return _seconds(timedelta(seconds=max(1, round(span.total_seconds()))))


def _words(wish: Wish, target: Target) -> str:
    match wish.kind:
        case RolloutKind.DRIVER:
            return f"To {target.driver} {target.version}"
        case RolloutKind.CERTIFICATES:
            return f"Fresh certificates for amphorae of {target.driver}"
        case RolloutKind.AUTHORITY:
            return f"The next step of the authority of {target.driver}"
        case RolloutKind.IMAGE:
            return f"Amphorae of {target.driver} from the current image"
