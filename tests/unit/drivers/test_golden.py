"""Every case of tests/golden renders to exactly the text that lies beside it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from frontinus.drivers.amphora.haproxy.patterns import is_of_patterns
from frontinus.drivers.amphora.haproxy.render import render
from frontinus.drivers.amphora.haproxy.settings import HaproxySettings

from tests.golden.cases import CASES, FILES, tree_of, version_of_case

SETTINGS = HaproxySettings(state_dir=Path("/nowhere"))


def test_there_are_cases() -> None:
    assert len(CASES) >= 5


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case(case: Path) -> None:
    rendered = render(tree_of(case), SETTINGS, version=version_of_case(case))
    files = {file.name: file.content for file in rendered.files if is_of_patterns(file.name)}
    expected, directory = case / "haproxy.cfg", case / FILES
    if os.environ.get("GOLDEN") == "write":
        expected.write_text(rendered.text)
        for path in directory.glob("*"):
            path.unlink()
        for name, content in files.items():
            directory.mkdir(exist_ok=True)
            (directory / name).write_bytes(content)
    assert rendered.text == expected.read_text()
    assert files == {path.name: path.read_bytes() for path in directory.glob("*")}
