"""One world per test: nothing of it is left when the test is over."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from frontinus.drivers.amphora.haproxy.driver import HaproxyDriver
from frontinus.drivers.amphora.nginx.driver import NginxDriver

from tests.integration.drivers.world import World, until


@pytest.fixture
def driver_class() -> type[HaproxyDriver | NginxDriver]:
    """Whose world it is; a module may have another."""
    return HaproxyDriver


@pytest.fixture
async def world(tmp_path: Path, driver_class: type[HaproxyDriver | NginxDriver]) -> AsyncIterator[World]:
    made = World(tmp_path, driver_class)
    made.start_agent()
    try:
        yield await made.answering()
    finally:
        await made.close()
        await until(lambda: not made.haproxy_pids() and not made.nginx_pids())
