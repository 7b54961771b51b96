"""Of many who hear a wake-up few look at once, and nobody who is alone hesitates."""

from __future__ import annotations

from datetime import timedelta

import pytest

from frontinus.controller.hesitation import EACH, Hesitation

pytestmark = pytest.mark.unit

FIRST, LONGEST = timedelta(milliseconds=4), timedelta(milliseconds=500)


def after(looks: str, *, among: int = 100) -> float:
    """The longest of many pauses after these looks: `+` found something, `-` nothing."""
    hesitation = Hesitation(FIRST, LONGEST)
    hesitation.among(among)
    for look in looks:
        hesitation.found(anything=look == "+")
    return max(hesitation.pause() for _ in range(2_000)) * 1000


@pytest.mark.parametrize(
    "longest_ms, looks, among",
    [
        pytest.param(0, "", 100, id="before the first look"),
        pytest.param(4, "-", 100, id="once in vain"),
        pytest.param(16, "---", 100, id="doubles"),
        pytest.param(500, "-" * 20, 100, id="has an end"),
        pytest.param(0, "-" * 20 + "+", 100, id="who found something hesitates no more"),
        pytest.param(4, "---+-", 100, id="and begins anew"),
        pytest.param(0, "-" * 20, 1, id="alone"),
        pytest.param(EACH / timedelta(milliseconds=1) * 3, "-" * 20, 4, id="of few"),
    ],
)
def test_how_long(longest_ms: float, looks: str, among: int) -> None:
    assert after(looks, among=among) == pytest.approx(longest_ms, rel=0.05)


def test_of_many_one_is_soon_there() -> None:
    crowd = [Hesitation(FIRST, LONGEST) for _ in range(100)]
    for each in crowd:
        each.among(len(crowd))
        for _ in range(20):
            each.found(anything=False)
    assert min(each.pause() for each in crowd) < 0.1
