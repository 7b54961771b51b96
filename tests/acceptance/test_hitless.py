"""Every kind of change under constant load: no request and no connection is lost, and what needs no reload has none."""

from __future__ import annotations

import urllib.request
from collections import Counter

import pytest

from tests.acceptance.hitless import KINDS, Stage
from tests.acceptance.support import Installation, report

pytestmark = pytest.mark.alone


@pytest.mark.parametrize(
    "times",
    [
        pytest.param(1, id="once", marks=pytest.mark.timeout(400)),
        pytest.param(20, id="20 times", marks=[pytest.mark.long, pytest.mark.timeout(2400)]),
    ],
)
def test_no_change_costs_a_request(installation: Installation, times: int) -> None:
    """Once, but for what has to be taken back."""
    wrong: list[str] = []
    with Stage(installation) as stage:
        for kind in KINDS:
            made = [stage.make(kind, turn) for turn in range(max(times, 1 + kind.taken_back))]
            told = stage.crowd.more(20)
            actions = Counter(x.action for x in made)
            effects = [x.effect_s * 1000 for x in made if x.effect_s is not None]
            report(f"{kind.name}: {dict(actions)}, in effect after {max(effects, default=0):.0f} ms at most")
            if actions.keys() != {kind.action}:
                wrong.append(f"{kind.name}: {dict(actions)} instead of {kind.action}")
            elif len(effects) != (0 if kind.action == "none" else len(made)):
                wrong.append(f"{kind.name}: {len(effects)} of {len(made)} were seen in the data plane")
            assert told.errors == [], kind.name
        told = stage.crowd.told()
    with urllib.request.urlopen(f"{installation.endpoint}/metrics") as answer:
        metrics = answer.read().decode()
    for name in (
        'frontinus_controller_pushes_total{action="runtime"}',
        'frontinus_controller_pushes_total{action="reload"}',
        "frontinus_health_datagrams_accepted_total",
        "frontinus_api_requests_total{",
    ):
        assert name in metrics, name
    met = f"{told.requests} requests, {told.echoes} echoes, {told.datagrams} answers by datagrams"
    report(f"{met}, {told.reopened} connections reopened")
    assert wrong == []
