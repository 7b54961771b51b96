"""What an edit adds, and which limits that concerns."""

from __future__ import annotations

import pytest

from frontinus.model.enums import Kind
from frontinus.model.quotas import limited, new_objects

pytestmark = pytest.mark.unit

OLD = (Kind.MEMBER, "old", False)
NEW = (Kind.MEMBER, "new", False)
LEAVING = (Kind.MEMBER, "old", True)


@pytest.mark.parametrize(
    "before, after, expected",
    [
        pytest.param([OLD], [OLD], {}, id="nothing"),
        pytest.param([OLD], [OLD, NEW], {Kind.MEMBER: 1}, id="one more"),
        pytest.param([OLD], [LEAVING, NEW], {}, id="one for another"),
        pytest.param([OLD], [LEAVING], {}, id="one less"),
        pytest.param([LEAVING], [LEAVING, NEW], {Kind.MEMBER: 1}, id="one that left before makes no room"),
        pytest.param([], [NEW, (Kind.POOL, "p", False)], {Kind.MEMBER: 1, Kind.POOL: 1}, id="two kinds"),
    ],
)
def test_new_objects(
    before: list[tuple[Kind, str, bool]], after: list[tuple[Kind, str, bool]], expected: dict[Kind, int]
) -> None:
    assert new_objects(before, after) == expected


def test_only_limits_that_could_be_reached_concern() -> None:
    limits = {Kind.MEMBER: 0, Kind.POOL: -1, Kind.LISTENER: 5}
    assert limited(limits, {Kind.MEMBER: 1, Kind.POOL: 1}) == {Kind.MEMBER: 0}
