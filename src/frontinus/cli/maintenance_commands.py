"""`frontinus maintenance …` and `status`: the commands and their options; what they do is in maintenance.py, imported when one
runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from frontinus.cli.options import CONFIG, STATE_DIR, overrides


@click.command()
@STATE_DIR
@CONFIG
def status(state_dir: Path | None, config: Path | None) -> None:
    """Show receivers, whether the brake is on, suspects, and what is being replaced."""
    from frontinus.cli import maintenance as command

    raise SystemExit(command.show_status(config, overrides(state_dir)))


@click.group()
def maintenance() -> None:
    """Marks under which no amphora is replaced, whatever falls silent. Changes of load balancers go on."""


TARGETS = (
    click.option("--amphora", "amphora", help="Of one amphora, by its id."),
    click.option("--load-balancer", "load_balancer", help="Of the amphorae of one load balancer, by its id."),
    click.option("--host", help="Of every amphora on a machine, by the name that compute gives it."),
    click.option("--installation", is_flag=True, help="Of everything."),
)


def _target_options(command: Any) -> Any:
    for option in reversed(TARGETS):
        command = option(command)
    return command


def _scope(**targets: str | bool | None) -> tuple[Any, str]:
    from frontinus.model.maintenance import MarkScope

    named = [(scope, target) for scope, target in targets.items() if target]
    if len(named) != 1:
        raise click.UsageError("name one of --amphora, --load-balancer, --host and --installation")
    ((scope, target),) = named
    return MarkScope(scope), "" if target is True else str(target)


@maintenance.command("on")
@STATE_DIR
@CONFIG
@_target_options
@click.option("--reason", required=True, help="Why, for whoever wonders later.")
@click.option("--for", "lasting", metavar="DURATION", help="As 30m, 2h or 1d. Until it is taken off otherwise.")
def maintenance_on(
    state_dir: Path | None, config: Path | None, reason: str, lasting: str | None, **targets: str | bool | None
) -> None:
    """Set a mark."""
    from frontinus.cli import maintenance as command

    scope, target = _scope(**targets)
    raise SystemExit(command.on(config, overrides(state_dir), scope, target, reason, lasting))


@maintenance.command("off")
@STATE_DIR
@CONFIG
@_target_options
def maintenance_off(state_dir: Path | None, config: Path | None, **targets: str | bool | None) -> None:
    """Take a mark off. What died under it is replaced then."""
    from frontinus.cli import maintenance as command

    scope, target = _scope(**targets)
    raise SystemExit(command.off(config, overrides(state_dir), scope, target))


@maintenance.command("list")
@STATE_DIR
@CONFIG
def maintenance_list(state_dir: Path | None, config: Path | None) -> None:
    """Show the marks that hold."""
    from frontinus.cli import maintenance as command

    raise SystemExit(command.list_(config, overrides(state_dir)))
