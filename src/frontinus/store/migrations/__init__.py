"""The migrations, packaged with the code that needs them, and the one function that runs them.

env.py is what Alembic loads; versions/ holds one module per step, each of which is never changed once released."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy.engine import Connection

from frontinus.model.errors import Bug


def configuration(connection: Connection) -> Config:
    """Alembic's configuration for this database; the connection decides everything else."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def upgrade_to_head(connection: Connection) -> None:
    """Run the missing steps inside the transaction that the connection is in. Nothing happens if none is missing.

    Raises Bug if the database was made by a newer version."""
    try:
        command.upgrade(configuration(connection), "head")
    except CommandError as error:
        raise Bug(f"the database's schema is not one that this version knows: {error}") from error


def missing_steps(connection: Connection) -> tuple[str, ...] | None:
    """The steps that the database lacks, the next one first; None when a newer version of Frontinus has upgraded it."""
    config = configuration(connection)
    config.attributes.pop("connection")
    scripts = ScriptDirectory.from_config(config)
    reached = MigrationContext.configure(connection).get_current_revision()
    if reached is not None and reached not in {script.revision for script in scripts.walk_revisions()}:
        return None
    missing: list[str] = []
    for script in scripts.walk_revisions():  # from the newest on
        if script.revision == reached:
            break
        missing.append(f"{script.revision} {script.doc}")
    return tuple(reversed(missing))
