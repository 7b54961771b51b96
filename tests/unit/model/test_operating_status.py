"""What a report changes of what is known."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from frontinus.model.heartbeat import CheckReport, Heartbeat, PoolReport
from frontinus.model.operating_status import changed_checks
from frontinus.model.tree import LastCheck

from tests.unit.drivers.trees import AMPHORA, a_member, a_pool, a_tree, number

NOW = datetime(2026, 11, 27, tzinfo=UTC)
MEMBER, POOL = number(30), number(20)
KNOWN = LastCheck(
    status="L7STS", code=503, text="Layer7 wrong status: Service Unavailable", since=NOW - timedelta(hours=1)
)


@pytest.mark.parametrize(
    "known, said, expected",
    [
        (None, ("L4CON", None, "refused"), LastCheck(status="L4CON", code=None, text="refused", since=NOW)),
        (KNOWN, ("L7STS", 503, KNOWN.text), "nothing"),
        (KNOWN, ("L7STS", 503, "Layer7 wrong status: 17 left"), "nothing"),
        (KNOWN, ("L7STS", 500, "x"), LastCheck(status="L7STS", code=500, text="x", since=NOW)),
        (KNOWN, None, None),
        (None, None, "nothing"),
    ],
    ids=["new", "the same", "other words for the same", "another code", "up again", "never down"],
)
def test_reasons_are_kept_while_they_hold(
    known: LastCheck | None, said: tuple[str, int | None, str] | None, expected: LastCheck | str | None
) -> None:
    """Or a member whose words differ each time would have a row written, and its `since` begun anew, with every check."""
    checks = {} if said is None else {MEMBER: CheckReport(status=said[0], code=said[1], text=said[2])}
    report = Heartbeat(
        amphora_id=AMPHORA,
        boot=1,
        sequence=1,
        incremental=False,
        listeners={},
        pools={POOL: PoolReport(status="DOWN", members={MEMBER: "DOWN"}, checks=checks)},
    )
    tree = a_tree(pools=[a_pool()], members=[a_member(last_check=known)])
    assert changed_checks(tree, report, NOW) == ({} if expected == "nothing" else {MEMBER: expected})
