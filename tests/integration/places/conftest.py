"""A machine on which nothing of a test's state directory runs when the test is over."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.places.machine import naming


@pytest.fixture
def state_dir(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    left = naming(f"FRONTINUS_STATE_DIR={tmp_path}")
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    if left:
        pytest.fail(f"processes of the test still ran: {sorted(left)}")
