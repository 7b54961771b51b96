"""Who may do what does not depend on the engine: SQLite only."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def database_url(database: Path) -> str:
    return f"sqlite:///{database}"
