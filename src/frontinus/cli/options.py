"""Options that several commands have. Nothing heavy may be imported here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click

STATE_DIR = click.option(
    "--state-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Directory of the database, keys and amphorae. Default: /var/lib/frontinus for root, else below ~/.local/state.",
)
CONFIG = click.option(
    "--config", type=click.Path(path_type=Path, dir_okay=False), help="Settings in TOML; see `frontinus config check`."
)
JSON = click.option("--json", "as_json", is_flag=True, help="As JSON.")


def overrides(state_dir: Path | None, **tables: Mapping[str, object]) -> dict[str, object]:
    """What the options say over the settings file; `tables` are its tables, with None for what nobody said."""
    said: dict[str, object] = {} if state_dir is None else {"state_dir": str(state_dir)}
    for name, values in tables.items():
        if given := {key: value for key, value in values.items() if value is not None}:
            said[name] = given
    return said
