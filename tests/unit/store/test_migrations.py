"""The migrations are one line, numbered without a gap: two that were written at the same time, or one that was lost in a
merge, show before anybody's database meets them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from frontinus.store import migrations

pytestmark = pytest.mark.unit

VERSIONS = Path(migrations.__file__).parent / "versions"


def written(name: str, text: str) -> str | None:
    found = re.search(rf'^{name}: str \| None = "(\d+)"$|^{name}: str = "(\d+)"$', text, re.MULTILINE)
    return None if found is None else found[1] or found[2]


def test_each_step_follows_the_one_before() -> None:
    files = sorted(VERSIONS.glob("[0-9]*.py"))
    steps = [
        (file.name[:4], written("revision", text), written("down_revision", text))
        for file in files
        for text in (file.read_text(),)
    ]
    numbers = [f"{number:04}" for number in range(1, len(files) + 1)]
    assert steps == list(zip(numbers, numbers, [None, *numbers[:-1]], strict=True))
