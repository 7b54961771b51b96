"""A fresh API with static tokens. The database is migrated once."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from frontinus.store.engine import Store


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("migrated") / "frontinus.sqlite"
    store = Store.open(f"sqlite:///{file}")
    store.upgrade()
    asyncio.run(store.close())
    return file


@pytest.fixture
def database(migrated: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(migrated, tmp_path / "frontinus.sqlite"))
