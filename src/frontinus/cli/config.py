"""`frontinus config check` and `frontinus db upgrade`."""

from __future__ import annotations

from pathlib import Path

from frontinus.cli.output import complain, in_words, say, settings_or_exit
from frontinus.main import check as check_settings
from frontinus.model.errors import FrontinusError, Invalid
from frontinus.settings import describe
from frontinus.store.engine import Store


def check(file: Path | None, overrides: dict[str, object]) -> int:
    """Exit status 0 and the effective settings, those of the drivers too, or 2 with what is wrong. What is found right
    here `frontinus up` takes, unless the machine stands against it (a port in use, a directory that is not ours)."""
    settings = settings_or_exit(file, overrides)
    try:
        of_drivers = check_settings(settings)
    except Invalid as error:
        complain(str(error))
        return 2
    for key, value in describe(settings):
        if key != "driver_options":
            say(f"{key} = {value}")
    for name, driver_settings in of_drivers.items():
        for key, value in describe(driver_settings, f"driver_options.{name}."):
            say(f"{key} = {value}")
    return 0


def upgrade(file: Path | None, overrides: dict[str, object], *, check: bool) -> int:
    """Exit status 0 when the schema is of this version, or newer; with `check`, 1 and what is missing otherwise."""
    settings = settings_or_exit(file, overrides)
    try:
        store = Store.open(settings.database_url)
        missing = store.missing_steps()
        if missing is None:
            say("The database was upgraded by a newer version of Frontinus.")
            return 0
        if check and missing:
            for step in missing:
                say(step)
            return 1
        store.upgrade()
    except (FrontinusError, OSError) as error:
        complain(in_words(error))
        return 1
    say("The database is up to date.")
    return 0
