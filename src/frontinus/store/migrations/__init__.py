"""The migrations, packaged with the code that needs them, and the one function that runs them.

env.py is what Alembic loads; versions/ holds one module per step, each of which is never changed once released."""

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
    """Run the missing steps inside the transaction that the connection is in. Nothing happens if none is missing.

    Raises Bug if the database was made by a newer version."""
    try:
        command.upgrade(configuration(connection), "head")
    except CommandError as error:
        raise Bug(f"the database's schema is not one that this version knows: {error}") from error
