"""A fresh API for each test. A 500 that nobody meant fails the test that met it, whatever else it looks at."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs

from tests.integration.api.world import World


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    with capture_logs() as logs:
        opened = await World.open(database_url)
        yield opened
        await opened.close()
    assert not [x for x in logs if x["event"] == "request met a bug"]
