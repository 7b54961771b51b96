from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from frontinus.store.engine import Store


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "state" / "frontinus.sqlite"


@pytest.fixture
async def store(database: Path) -> AsyncIterator[Store]:
    opened = Store.open(f"sqlite:///{database}")
    opened.upgrade()
    yield opened
    await opened.close()
