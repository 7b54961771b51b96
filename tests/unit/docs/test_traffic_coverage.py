"""docs/traffic-coverage.md is what the traffic suite says of itself, and no row of the contract is forgotten."""

from __future__ import annotations

from pathlib import Path

from tests.acceptance.traffic.elsewhere import IN_A_MACHINE, LEFT, MACHINE_TESTS
from tests.acceptance.traffic.report import PAGE, page


def test_every_row_is_told() -> None:
    assert page() == PAGE.read_text(), "run: make traffic-report"


def test_what_is_proved_in_a_machine_is_refused_here_and_has_its_test() -> None:
    text = (Path(__file__).parents[3] / MACHINE_TESTS).read_text()
    assert set(IN_A_MACHINE) <= set(LEFT)
    for test in {x for tests in IN_A_MACHINE.values() for x in tests}:
        assert f"async def {test}(" in text
