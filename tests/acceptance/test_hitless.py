"""Every kind of change under constant load: no request and no connection is lost, and what needs no reload has none."""

from __future__ import annotations

import urllib.request
from collections import Counter

import pytest

from tests.acceptance.hitless import KINDS, Stage
from tests.acceptance.support import Installation, report


@pytest.mark.parametrize(
    "times",
    [
        pytest.param(2, id="twice", marks=pytest.mark.timeout(400)),
        pytest.param(20, id="20 times", marks=[pytest.mark.long, pytest.mark.timeout(2400)]),
    ],
)
def test_no_change_costs_a_request(installation: Installation, times: int) -> None:
    wrong: list[str] = []
    with Stage(installation) as stage:
        for kind in KINDS:
            if kind.optional and not stage.offers(kind):
                report(f"{kind.name}: not offered by the driver")
                continue
            before = stage.load.total
            made = [stage.make(kind, turn) for turn in range(times)]
            stage.load.more(20)
            actions = Counter(x.action for x in made)
            report(
                f"{kind.name}: {dict(actions)}, in effect after {max(x.effect_s for x in made) * 1000:.0f} ms at most, "
                f"{stage.load.total - before} requests"
            )
            if actions.keys() != {kind.action}:
                wrong.append(f"{kind.name}: {dict(actions)} instead of {kind.action}")
            assert stage.errors == [], kind.name
    with urllib.request.urlopen(f"{installation.endpoint}/metrics") as answer:
        told = answer.read().decode()
    for name in (
        'frontinus_controller_pushes_total{action="runtime"}',
        'frontinus_controller_pushes_total{action="reload"}',
        "frontinus_health_datagrams_accepted_total",
        "frontinus_api_requests_total{",
    ):
        assert name in told, name
    report(f"{stage.load.total} requests, {stage.long_lived.echoes} echoes, {stage.load.reopened} connections reopened")
    assert stage.errors == []
    assert wrong == []
