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


def test_what_a_database_lacks_is_told_in_order_with_its_purpose() -> None:
    every = migrations.missing_after(None)
    assert every is not None
    assert [x[:4] for x in every] == [x.name[:4] for x in sorted(VERSIONS.glob("[0-9]*.py"))]
    assert every[1:] == migrations.missing_after("0001")
    assert every[0] == "0001 The first schema."
    assert migrations.missing_after(every[-1][:4]) == ()


def test_a_step_that_is_not_known_is_of_a_newer_version() -> None:
    assert migrations.missing_after("9999") is None


@pytest.mark.parametrize("file", sorted(VERSIONS.glob("[0-9]*.py")), ids=lambda x: x.stem)
def test_an_index_on_a_table_that_is_in_use_is_made_online(file: Path) -> None:
    text = file.read_text()
    made_here = set(re.findall(r'op\.create_table\(\s*"(\w+)"', text))
    indexed = set(re.findall(r'op\.create_index\(\s*[^,]+,\s*"(\w+)"', text))
    assert indexed <= made_here
