from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from frontinus.store.engine import Store


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Store]:
    opened = Store.open(database_url)
    yield opened
    await opened.close()
