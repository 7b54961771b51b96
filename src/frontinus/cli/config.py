"""`frontinus config check` and `frontinus db upgrade`."""

from __future__ import annotations

from pathlib import Path

from frontinus.cli.output import complain, say, settings_or_exit
from frontinus.model.errors import FrontinusError
from frontinus.settings import describe
from frontinus.store.engine import Store


def check(file: Path | None, overrides: dict[str, object]) -> int:
    """Exit status 0 and the effective settings, or 2 with what is wrong."""
    for key, value in describe(settings_or_exit(file, overrides)):
        say(f"{key} = {value}")
    return 0


def upgrade(file: Path | None, overrides: dict[str, object]) -> int:
    """Exit status 0 when the schema is of this version."""
    settings = settings_or_exit(file, overrides)
    try:
        Store.open(settings.database_url).upgrade()
    except (FrontinusError, OSError) as error:
        complain(str(error))
        return 1
    say("The database is up to date.")
    return 0
