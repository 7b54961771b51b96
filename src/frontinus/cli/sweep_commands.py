"""`frontinus sweep …`: the commands and their options; what they do is in sweep.py, imported when one runs."""

from __future__ import annotations

from pathlib import Path

import click

from frontinus.cli.options import CONFIG, JSON, STATE_DIR, overrides


@click.group()
def sweep() -> None:
    """What stands outside under our names: processes, namespaces, machines, addresses, ports, certificates."""


@sweep.command("list")
@STATE_DIR
@CONFIG
@JSON
@click.option("--orphans", is_flag=True, help="Only what is nobody's.")
def sweep_list(state_dir: Path | None, config: Path | None, as_json: bool, orphans: bool) -> None:
    """Show everything that is ours outside, how that is known, and what of it is nobody's.

    Deletes nothing. The grace of an orphan (controller.orphan_grace) begins when it is first seen, by this or a controller."""
    from frontinus.cli import sweep as command

    raise SystemExit(command.list_(config, overrides(state_dir), as_json=as_json, only_orphans=orphans))


@sweep.command("delete")
@STATE_DIR
@CONFIG
@JSON
@click.option("--dry-run/--yes", default=True, help="Only tell (the default), or do it.")
def sweep_delete(state_dir: Path | None, config: Path | None, as_json: bool, dry_run: bool) -> None:
    """Delete what is nobody's and was for the whole grace; first only tell what that is.

    Controllers do it by themselves, but for orphans that are too many to be believed: those wait for this. Exit status 1
    when one could not be deleted."""
    from frontinus.cli import sweep as command

    raise SystemExit(command.delete(config, overrides(state_dir), as_json=as_json, carry_out=not dry_run))
