"""Which tier a test is of is said once: by the folder that it lies in (unit, integration, acceptance)."""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent
TIERS = frozenset({"unit", "integration", "acceptance"})


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for tier in TIERS.intersection(item.path.relative_to(HERE).parts):
            item.add_marker(tier)
