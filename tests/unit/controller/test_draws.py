"""However many there are, few look each time; and of few, all do."""

from __future__ import annotations

import pytest

from frontinus.controller.draws import LOOKS, Draws

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    "controllers, expected",
    [
        pytest.param(1, 1, id="alone"),
        pytest.param(2, 2, id="of two both"),
        pytest.param(100, LOOKS, id="of a hundred as many as of two"),
    ],
)
def test_how_many_look(controllers: int, expected: float) -> None:
    each = [Draws() for _ in range(controllers)]
    for x in each:
        x.among(controllers)
    turns = 20_000 // controllers
    looks = sum(x.is_drawn() for x in each for _ in range(turns))
    assert looks / turns == pytest.approx(expected, rel=0.25)
