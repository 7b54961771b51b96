"""The page says what is so: every trial on every agent, once more. Needs root, the history and the octavia package."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.compatibility.subjects import PAST, REPOSITORY


@pytest.mark.long
@pytest.mark.timeout(1_200)
def test_every_agent_does_what_the_page_says() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.compatibility.report", "--check"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-8_000:]


def test_the_page_names_every_agent() -> None:
    page = (REPOSITORY / "docs/compatibility.md").read_text()
    assert [x.commit for x in PAST if f"| {x.name} | `{x.commit}` |" not in page] == []
    assert "**failed**" not in page
