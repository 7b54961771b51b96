"""Pauses grow, are capped and spread; one cause keeps its beginning."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from frontinus.controller.backoff import budget_of, continued, is_reported_as_error, pause
from frontinus.controller.settings import ControllerSettings
from frontinus.model.enums import FaultPhase
from frontinus.model.tree import Fault

pytestmark = pytest.mark.unit

NOW = datetime(2026, 1, 2, tzinfo=UTC)
BASE, CAP = timedelta(seconds=1), timedelta(seconds=30)
FAULT = Fault(code="x", phase=FaultPhase.APPLY, message="m", since=NOW)


@pytest.mark.parametrize(
    "attempts,seconds",
    [(1, 1), (2, 2), (3, 4), (5, 16), (6, 30), (1000, 30)],
)
def test_pause_doubles_up_to_the_cap(attempts: int, seconds: int) -> None:
    assert pause(attempts, BASE, CAP, 0.5) == timedelta(seconds=seconds)


def test_jitter_spreads_a_fifth_each_way() -> None:
    assert pause(1, BASE, CAP, 0.0) == timedelta(seconds=0.8)
    assert pause(1, BASE, CAP, 1.0) == timedelta(seconds=1.2)


def test_same_cause_keeps_its_beginning_and_counts() -> None:
    later = replace(FAULT, since=NOW + CAP)
    assert continued(later, FAULT) == replace(FAULT, attempts=2)


def test_causes_that_take_turns_are_one_trouble() -> None:
    """Else a load balancer that fails now here, now there would stay PENDING for ever."""
    later = replace(FAULT, code="y", since=NOW + CAP)
    assert continued(later, FAULT) == replace(FAULT, code="y", attempts=2)


def test_new_trouble_starts_anew() -> None:
    later = replace(FAULT, code="y", since=NOW + CAP)
    assert continued(later, None) == later
    assert continued(later, replace(FAULT, permanent=True)) == later
    assert continued(later, replace(FAULT, object_id="of a listener")) == later


def test_error_is_said_when_the_budget_is_spent_or_waiting_is_useless() -> None:
    budget = timedelta(seconds=8)
    assert not is_reported_as_error(FAULT, NOW + timedelta(seconds=7), budget)
    assert is_reported_as_error(FAULT, NOW + budget, budget)
    assert is_reported_as_error(replace(FAULT, permanent=True), NOW, budget)


def test_an_outage_is_given_longer_whatever_trouble_is_met_after_it() -> None:
    settings = ControllerSettings(retry_budget=timedelta(seconds=8), outage_budget=timedelta(minutes=5))
    away = replace(FAULT, code="nova-unavailable", outage=True)
    after = continued(replace(FAULT, code="nova-busy", since=NOW + CAP), away)
    assert after.since == NOW
    assert [budget_of(x, settings) for x in (FAULT, away, after)] == [
        settings.retry_budget,
        settings.outage_budget,
        settings.outage_budget,
    ]


def test_an_outage_is_never_given_less() -> None:
    settings = ControllerSettings(outage_budget=timedelta(0))
    assert budget_of(replace(FAULT, outage=True), settings) == settings.retry_budget
