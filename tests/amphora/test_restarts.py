"""At once a few times, then after pauses that double; a long life lets all be forgotten."""

import pytest

from frontinus_amphora.restarts import CALM, FREE_RESTARTS, LONGEST_DELAY, Restarts

pytestmark = pytest.mark.unit


def pauses(restarts: Restarts, now: float, count: int) -> list[float]:
    """Of so many deaths in a row, between which nothing comes to live."""
    found = []
    for _ in range(count):
        due = restarts.next(now)
        found.append(round(due - now, 3))
        now = due
    return found


@pytest.mark.parametrize("lived", [0.5, CALM + 1, 1_000_000.0], ids=["a moment", "a while", "for long"])
def test_what_does_not_start_is_tried_less_and_less_often(lived: float) -> None:
    restarts = Restarts()
    restarts.started(5.0)
    found = pauses(restarts, 5.0 + lived, 12)
    assert found[: FREE_RESTARTS + 3] == [0.0] * FREE_RESTARTS + [0.1, 0.2, 0.4]
    assert found[-1] == LONGEST_DELAY


def test_a_long_life_and_a_purpose_forget_what_was() -> None:
    restarts = Restarts()
    assert pauses(restarts, 0.0, FREE_RESTARTS + 1)[-1] == 0.1
    restarts.started(100.0)
    assert restarts.next(100.0 + CALM - 1) > 100.0 + CALM - 1, "a short life is one more failure"
    restarts.started(200.0)
    assert restarts.next(200.0 + CALM + 1) == 200.0 + CALM + 1
    pauses(restarts, 300.0, 5)
    restarts.forget()
    assert restarts.next(400.0) == 400.0
