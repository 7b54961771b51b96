"""`frontinus rollout …`: the commands and their options; what they do is in rollout.py, imported when one runs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from frontinus.cli.options import CONFIG, JSON, STATE_DIR, overrides

WHICH = click.argument("rollout_id", required=False, metavar="[ROLLOUT]")
WATCH = click.option("--watch", "watching", is_flag=True, help="Say how far it is until it is over.")


@click.group()
def rollout() -> None:
    """Change many load balancers, in waves: a new version of the driver, certificates, the authority, amphorae from
    another image.

    Controllers move a rollout on; it halts by itself on the first bad sign, and goes on when a controller dies. ROLLOUT is an
    id or its beginning; without one it is the youngest."""


_WISH = (
    click.option("--to", "version", metavar="VERSION", help="Version of the driver. Default: the newest that runs."),
    click.option("--certificates", is_flag=True, help="Instead: give amphorae fresh certificates."),
    click.option(
        "--authority",
        is_flag=True,
        help="Instead: take the next step of a change of the authority; three make it whole.",
    ),
    click.option("--image", is_flag=True, help="Instead: replace amphorae by such of the current image."),
    click.option("--driver", help="Whose load balancers. Default: drivers.amphora of the settings."),
    click.option("--flavor", help="Only load balancers of this flavor, by its name or id."),
    click.option("--project", help="Only load balancers of this project, by its id."),
    click.option("--tag", help="Only load balancers with this tag."),
    click.option(
        "--percent",
        type=click.FloatRange(0, 100, min_open=True),
        default=100.0,
        show_default=True,
        help="Only so many of them, always the same ones.",
    ),
)
_PACE = (
    click.option("--canary", type=click.IntRange(0), default=1, show_default=True, help="So many go first."),
    click.option("--canary-soak", type=click.FloatRange(0), default=30.0, show_default=True, help="Seconds."),
    click.option("--at-once", default="50", show_default=True, metavar="N|all", help="Then at most so many at a time."),
    click.option("--soak", type=click.FloatRange(0), default=5.0, show_default=True, help="Seconds to watch each."),
    click.option("--all-out", is_flag=True, help="As --canary 0 --at-once all --soak 0."),
    click.option(
        "--patience", type=click.FloatRange(1), default=60.0, show_default=True, help="Seconds for a receipt."
    ),
    click.option("--no-heartbeats", is_flag=True, help="Do not wait for heartbeats, nor look at operating statuses."),
    click.option(
        "--error-rate",
        type=click.FloatRange(0, 1),
        default=0.05,
        show_default=True,
        help="The greatest part of the requests of a load balancer that may be errors; 1: not looked at.",
    ),
    click.option(
        "--most-failures", type=click.IntRange(0), default=0, show_default=True, help="So many halt nothing yet."
    ),
)


def _options(options: tuple[Any, ...]) -> Callable[[Any], Any]:
    def put_on(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return put_on


def _wish(given: dict[str, Any]) -> Any:
    from frontinus.cli.rollout import Wish
    from frontinus.model.rollouts import RolloutKind, Selection

    asked = [x for x in ("version", "certificates", "authority", "image") if given[x]]
    if len(asked) > 1:
        raise click.UsageError("a rollout is of one thing: --to, --certificates, --authority or --image")
    kinds = {str(x): x for x in (RolloutKind.CERTIFICATES, RolloutKind.AUTHORITY, RolloutKind.IMAGE)}
    kind = kinds.get("".join(asked), RolloutKind.DRIVER)
    return Wish(
        kind=kind,
        driver=given["driver"],
        version=given["version"],
        selection=Selection(
            flavor_id=given["flavor"], project_id=given["project"], tag=given["tag"], percent=given["percent"]
        ),
    )


@rollout.command("plan")
@STATE_DIR
@CONFIG
@_options(_WISH)
@click.option("--most", type=click.IntRange(1), default=200, show_default=True, help="Look at so many load balancers.")
@JSON
def rollout_plan(state_dir: Path | None, config: Path | None, most: int, as_json: bool, **given: Any) -> None:
    """Say which load balancers are a push (with a reload or not), which need other amphorae, and what differs.

    Changes nothing. Controllers of both versions must run for the difference to be told."""
    from frontinus.cli import rollout as command

    raise SystemExit(command.run(config, overrides(state_dir), command.plan(_wish(given), most, as_json=as_json)))


@rollout.command("start")
@STATE_DIR
@CONFIG
@_options(_WISH)
@_options(_PACE)
@WATCH
def rollout_start(
    state_dir: Path | None,
    config: Path | None,
    canary: int,
    canary_soak: float,
    at_once: str,
    soak: float,
    all_out: bool,
    patience: float,
    no_heartbeats: bool,
    error_rate: float,
    most_failures: int,
    watching: bool,
    **given: Any,
) -> None:
    """Begin, and print the rollout's id."""
    from msgspec.structs import replace

    from frontinus.cli import rollout as command
    from frontinus.model.errors import Invalid
    from frontinus.model.rollouts import ALL_AT_ONCE, Gates, Waves

    try:
        number = command.at_once(at_once)
    except Invalid as error:
        raise click.UsageError(str(error)) from error
    nothing = timedelta(0)
    waves = (
        Waves(canary=0, canary_soak=nothing, at_once=ALL_AT_ONCE, soak=nothing)
        if all_out
        else Waves(
            canary=canary,
            canary_soak=timedelta(seconds=canary_soak),
            at_once=number,
            soak=timedelta(seconds=soak),
        )
    )
    gates = Gates(
        patience=timedelta(seconds=patience),
        heartbeats=not no_heartbeats,
        error_rate=None if error_rate >= 1 else error_rate,
        most_failures=most_failures,
    )
    wish = replace(_wish(given), waves=waves, gates=gates)
    raise SystemExit(command.run(config, overrides(state_dir), command.start(wish, watching=watching)))


@rollout.command("list")
@STATE_DIR
@CONFIG
@JSON
def rollout_list(state_dir: Path | None, config: Path | None, as_json: bool) -> None:
    """Show the rollouts, the youngest first."""
    from frontinus.cli import rollout as command

    raise SystemExit(command.run(config, overrides(state_dir), command.list_(as_json=as_json)))


@rollout.command("show")
@STATE_DIR
@CONFIG
@JSON
@WHICH
def rollout_show(state_dir: Path | None, config: Path | None, as_json: bool, rollout_id: str | None) -> None:
    """Show how a rollout stands, and what became of whom it did not go well with."""
    from frontinus.cli import rollout as command

    raise SystemExit(command.run(config, overrides(state_dir), command.show(rollout_id, as_json=as_json)))


@rollout.command("watch")
@STATE_DIR
@CONFIG
@WHICH
def rollout_watch(state_dir: Path | None, config: Path | None, rollout_id: str | None) -> None:
    """Say how far it is, and how long it will take, until it is over or halts.

    Exit status 0 when it is finished or rolled back, else 1. It goes on whether it is watched or not."""
    from frontinus.cli import rollout as command

    raise SystemExit(command.run(config, overrides(state_dir), command.watch(rollout_id)))


@rollout.command("pause")
@STATE_DIR
@CONFIG
@WHICH
def rollout_pause(state_dir: Path | None, config: Path | None, rollout_id: str | None) -> None:
    """Move no further load balancer until it is resumed."""
    from frontinus.cli import rollout as command

    raise SystemExit(command.run(config, overrides(state_dir), command.pause(rollout_id)))


@rollout.command("resume")
@STATE_DIR
@CONFIG
@click.option("--accept", is_flag=True, help="Take those that failed as they are; else they are judged once more.")
@WHICH
def rollout_resume(state_dir: Path | None, config: Path | None, accept: bool, rollout_id: str | None) -> None:
    """Go on with one that was paused or has halted."""
    from frontinus.cli import rollout as command

    raise SystemExit(command.run(config, overrides(state_dir), command.resume(rollout_id, accept=accept)))


@rollout.command("abort")
@STATE_DIR
@CONFIG
@WHICH
def rollout_abort(state_dir: Path | None, config: Path | None, rollout_id: str | None) -> None:
    """End it where it is: who was moved stays moved, who was not is left alone."""
    from frontinus.cli import rollout as command

    raise SystemExit(command.run(config, overrides(state_dir), command.abort(rollout_id)))


@rollout.command("rollback")
@STATE_DIR
@CONFIG
@WATCH
@WHICH
def rollout_rollback(state_dir: Path | None, config: Path | None, watching: bool, rollout_id: str | None) -> None:
    """Give what was moved back to the version that served it before, all at once.

    Controllers of that version must run."""
    from frontinus.cli import rollout as command

    raise SystemExit(command.run(config, overrides(state_dir), command.rollback(rollout_id, watching=watching)))
