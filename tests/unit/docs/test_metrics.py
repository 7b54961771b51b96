"""docs/reference/metrics.md tells every metric that there is, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from prometheus_client import CollectorRegistry

from frontinus.api.metrics import ApiMetrics
from frontinus.controller.metrics import ControllerMetrics
from frontinus.health.metrics import HealthMetrics
from frontinus.main import shared_clock
from frontinus.store.engine import Store

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "metrics.md"


def test_every_metric_is_told(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    ApiMetrics(registry), ControllerMetrics(registry), HealthMetrics(registry)
    shared_clock(Store.open(f"sqlite:///{tmp_path / 'unused'}"), registry)
    told = dict(re.findall(r"^\| `(frontinus_\w+)` \| (\w+) \|", PAGE.read_text(), re.MULTILINE))
    assert told == {family.name: family.type for family in registry.collect()}
