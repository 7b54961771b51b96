"""docs/reference/api.md names every setting with its default, and every metric."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from prometheus_client import CollectorRegistry

from frontinus.api.metrics import ApiMetrics
from frontinus.api.settings import ApiSettings

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "api.md").read_text()


def test_every_setting_is_documented_with_its_default() -> None:
    for setting in fields(ApiSettings):
        line = next((x for x in PAGE.splitlines() if x.startswith(f"| `{setting.name}`")), None)
        assert line is not None, setting.name
        default = setting.default
        if default is None:
            continue
        shown = ", ".join(x.name for x in default) if isinstance(default, tuple) else str(default)
        assert f"[{shown.lower() if isinstance(default, bool) else shown}]" in line


def test_every_metric_is_documented() -> None:
    registry = CollectorRegistry()
    ApiMetrics(registry).count("x", 200, 0.1)
    names = {x.name.removesuffix("_created").removesuffix("_total") for x in registry.collect()}
    assert names
    assert all(f"`{name}" in PAGE for name in names)
