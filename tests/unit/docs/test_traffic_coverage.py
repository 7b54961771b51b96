"""docs/traffic-coverage.md is what the traffic suite says of itself, and no row of the contract is forgotten."""

from __future__ import annotations

from tests.acceptance.traffic.report import PAGE, page


def test_every_row_is_told() -> None:
    assert page() == PAGE.read_text(), "run: make traffic-report"
