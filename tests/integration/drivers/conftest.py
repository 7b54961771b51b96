"""One world per test: nothing of it is left when the test is over."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.drivers.world import World, until


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    made.start_agent()
    try:
        yield await made.answering()
    finally:
        await made.close()
        await until(lambda: not made.haproxy_pids() and not made.nginx_pids())
