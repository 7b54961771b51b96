"""Fixtures of the acceptance tests: an installation that is always taken down, and checked to leave nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.acceptance.support import Api, Backend, Installation, backend


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    made = Installation(tmp_path / "state")
    made.start()
    try:
        yield made
    finally:
        made.remove()


@pytest.fixture
def api(installation: Installation) -> Api:
    return installation.api()


@pytest.fixture
def backends() -> Iterator[list[Backend]]:
    """Three web servers."""
    with ExitStack() as stack:
        yield [stack.enter_context(backend(f"backend-{n}")) for n in (1, 2, 3)]
