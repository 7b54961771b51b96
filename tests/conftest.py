"""Which tier a test is of is said once: by the folder that it lies in (unit, integration, acceptance)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import hypothesis
import pytest
import structlog

# No test stops a clock by accident: on a crowded machine one example takes longer than another.
hypothesis.settings.register_profile("everywhere", deadline=None)
hypothesis.settings.load_profile("everywhere")

_configure = structlog.configure


def _configure_for_tests(**words: Any) -> None:
    """A logger that keeps what it was first configured with would not be heard by `capture_logs` in a later test."""
    _configure(**{**words, "cache_logger_on_first_use": False})


structlog.configure = cast(Any, _configure_for_tests)


@pytest.fixture(autouse=True)
def unconfigured_logs() -> Iterator[None]:
    """A command that was called in this process has set a level, which another test's events may be below."""
    yield
    structlog.reset_defaults()


HERE = Path(__file__).parent
TIERS = frozenset({"unit", "integration", "acceptance"})


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for tier in TIERS.intersection(item.path.relative_to(HERE).parts):
            item.add_marker(tier)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What tests counted with `record_property`, added up over all of them and all workers."""
    counted: Counter[str] = Counter()
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            counted.update({name: count for name, count in report.user_properties if isinstance(count, int)})
    for name, count in sorted(counted.items()):
        terminalreporter.write_line(f"{name}: {count}")
