"""Adoption, against the real thing: the database that octavia's own programs made, and its genuine agent. Needs root."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.octavia import genuine


@pytest.mark.long
@pytest.mark.timeout(420)
def test_an_octavia_is_taken_over() -> None:
    done = genuine.run(
        "-m", "pytest", "-q", "-p", "no:xdist", str(Path(__file__).parent / "story_adoption.py"), seconds=400
    )
    assert done.returncode == 0, f"{done.stdout[-20_000:]}\n{done.stderr[-5_000:]}"
