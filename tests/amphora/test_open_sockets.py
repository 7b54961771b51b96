"""What the agent reads of sockets must not cost more than a small share of the processor, however many there are."""

import itertools
import time

import pytest

from frontinus_amphora.open_sockets import REST, Seldom

pytestmark = pytest.mark.unit


def test_an_answer_that_costs_much_is_kept_for_a_while() -> None:
    turns = itertools.count()

    def burn() -> int:
        began = time.thread_time()
        while time.thread_time() - began < 0.01:
            pass
        return next(turns)

    answer = Seldom(burn)
    began = time.monotonic()
    assert answer() == 0
    while answer() == 0:
        assert time.monotonic() - began < 10, "never asked anew"
        time.sleep(0.005)
    assert time.monotonic() - began >= 0.01 * REST


def test_an_answer_that_costs_nothing_is_fresh() -> None:
    turns = itertools.count()
    answer = Seldom(lambda: next(turns))
    seen = {answer()}
    while len(seen) < 10:
        time.sleep(0.01)
        seen.add(answer())
    assert seen == set(range(10))
