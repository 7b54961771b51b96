"""A fresh API for each test. A 500 that nobody meant fails the test that met it, whatever else it looks at."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from frontinus.store.engine import Store

from tests.integration.api.world import World


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Migrating takes longer than most tests, so it is done once and its outcome copied."""
    file = tmp_path_factory.mktemp("migrated") / "frontinus.sqlite"
    store = Store.open(f"sqlite:///{file}")
    store.upgrade()
    asyncio.run(store.close())
    return file


@pytest.fixture
def database(migrated: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(migrated, tmp_path / "frontinus.sqlite"))


@pytest.fixture
async def world(database: Path) -> AsyncIterator[World]:
    with capture_logs() as logs:
        opened = await World.open(database)
        yield opened
        await opened.close()
    assert not [x for x in logs if x["event"] == "request met a bug"]
