"""docs/reference/api.md names every setting with its default, and every metric."""

from __future__ import annotations

from dataclasses import MISSING, fields
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from frontinus.api.identity.settings import KeystoneSettings, StaticToken
from frontinus.api.metrics import ApiMetrics
from frontinus.api.settings import ApiSettings, DefaultQuotas

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "api.md").read_text()


def test_every_setting_is_documented_with_its_default() -> None:
    for setting in fields(ApiSettings):
        line = next((x for x in PAGE.splitlines() if x.startswith(f"| `{setting.name}`")), None)
        assert line is not None, setting.name
        default = setting.default
        if default is None or default == () or default is MISSING or setting.name.endswith("_ciphers"):
            continue  # a list of ciphers is too long for a table
        if isinstance(default, timedelta):
            assert f"[{default.total_seconds():g}]" in line
            continue
        shown = (
            ", ".join(x if isinstance(x, str) else x.name for x in default)
            if isinstance(default, tuple)
            else str(default)
        )
        assert f"[{shown.lower() if isinstance(default, bool) else shown}]" in line


@pytest.mark.parametrize(
    "table,name", [(StaticToken, "tokens"), (KeystoneSettings, "keystone"), (DefaultQuotas, "quotas")]
)
def test_every_setting_of_a_table_is_documented_with_its_default(table: type[Any], name: str) -> None:
    for setting in fields(table):
        line = next((x for x in PAGE.splitlines() if x.startswith(f"| `{name}.{setting.name}`")), None)
        assert line is not None, setting.name
        default = setting.default
        if isinstance(default, timedelta):
            assert f"[{default.total_seconds():g}]" in line
        elif isinstance(default, int | tuple):
            assert f"[{', '.join(default) if isinstance(default, tuple) else default}]" in line


def test_every_metric_is_documented() -> None:
    registry = CollectorRegistry()
    metrics = ApiMetrics(registry)
    metrics.count("x", 200, 0.1)
    metrics.count_replay("x")
    names = {x.name.removesuffix("_created").removesuffix("_total") for x in registry.collect()}
    assert names
    assert all(f"`{name}" in PAGE for name in names)
