"""Which ids each of many controllers asks compute about, when nobody heard of them."""

from __future__ import annotations

import random
from datetime import timedelta

import pytest

from frontinus.controller.witness import LINKS_AT_A_LOOK, OVERLAP, links_at_a_look, share
from frontinus.model.ids import new_id


def holds(spans: tuple[tuple[str, str], ...], one: str) -> bool:
    return any(first <= one < end for first, end in spans)


@pytest.mark.parametrize("controllers", [1, 2])
def test_few_look_at_all(controllers: int) -> None:
    for drawn in (0.0, 0.4, 0.999999):
        assert all(holds(share(controllers, drawn), x) for x in (new_id(), "0" * 36, "f" * 36))


@pytest.mark.parametrize("drawn", [0.0, 0.3, 0.97, 0.98, 0.99, 0.9999999])
def test_each_of_many_looks_at_a_part(drawn: float) -> None:
    ids = [str(f"{x:02x}" + "8" * 34) for x in range(256)]
    assert sum(holds(share(100, drawn), x) for x in ids) == pytest.approx(256 * OVERLAP / 100, abs=1)


def test_whom_one_look_left_out_the_next_ones_find() -> None:
    drawn = random.Random(7)
    ids = {new_id() for _ in range(500)}
    for _ in range(8):
        for _ in range(100):
            spans = share(100, drawn.random())
            ids = {x for x in ids if not holds(spans, x)}
    assert ids == set()


@pytest.mark.parametrize(
    "most,per_second,controllers",
    [
        pytest.param(LINKS_AT_A_LOOK, None, 1, id="it costs nobody else anything"),
        pytest.param(30, 10.0, 1, id="alone"),
        pytest.param(15, 10.0, 2, id="two look each time"),
        pytest.param(15, 10.0, 100, id="of many two look each time"),
        pytest.param(1, 0.1, 100, id="seldom"),
    ],
)
def test_all_together_look_at_so_many_links(most: int, per_second: float | None, controllers: int) -> None:
    assert most == links_at_a_look(per_second, timedelta(seconds=3), controllers)
