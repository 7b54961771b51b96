"""Every case of tests/golden renders to exactly the text that lies beside it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from frontinus.drivers.amphora.haproxy.render import render
from frontinus.drivers.amphora.haproxy.settings import HaproxySettings

from tests.golden.cases import CASES, tree_of

SETTINGS = HaproxySettings(state_dir=Path("/nowhere"))


def test_there_are_cases() -> None:
    assert len(CASES) >= 5


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case(case: Path) -> None:
    text = render(tree_of(case), SETTINGS).text
    expected = case / "haproxy.cfg"
    if os.environ.get("GOLDEN") == "write":
        expected.write_text(text)
    assert text == expected.read_text()
