"""Run the migrations that are missing, with Alembic, of which env.py is the entry.

Where the engine has transactions for tables, each step is one of its own: what it locks is free again before the next one
waits for anything, while everybody goes on to work (docs/operations.md)."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
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
    """Run the missing steps. On a connection that is in a transaction they are part of it. Nothing happens if none is
    missing; what another try did is not done again.

    Raises Bug if the database was made by a newer version."""
    try:
        command.upgrade(configuration(connection), "head")
    except CommandError as error:
        raise Bug(f"the database's schema is not one that this version knows: {error}") from error
