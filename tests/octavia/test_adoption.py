"""Adoption, against the real thing: the database that octavia's own programs made, and its genuine agent. Needs root."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.octavia import genuine


@pytest.mark.long
@pytest.mark.timeout(420)
@pytest.mark.parametrize("story", ["story_adoption.py", "story_pairs.py::test_a_pair", "story_pairs.py::test_killed"])
def test_an_octavia_is_taken_over(story: str) -> None:
    file, _, name = story.partition("::")
    words = ("-k", name) if name else ()
    done = genuine.run("-m", "pytest", "-q", "-p", "no:xdist", str(Path(__file__).parent / file), *words, seconds=400)
    assert done.returncode == 0, f"{done.stdout[-20_000:]}\n{done.stderr[-5_000:]}"
