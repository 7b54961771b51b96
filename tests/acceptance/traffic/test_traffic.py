"""Everything that a tenant can write about a load balancer, made over the API and seen in real traffic.

Each test is a case of one of the groups; which rows of the contract it answers for is said there, and in
docs/traffic-coverage.md. What is left is refused."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.acceptance.support import report
from tests.acceptance.traffic.case import Case, Group
from tests.acceptance.traffic.elsewhere import LEFT
from tests.acceptance.traffic.groups import GROUPS
from tests.acceptance.traffic.report import summary
from tests.acceptance.traffic.stage import Theatre

pytestmark = [pytest.mark.alone, pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1:DeprecationWarning")]


@pytest.fixture(scope="module")
def theatre(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Theatre]:
    with Theatre(tmp_path_factory.mktemp("traffic")).opened() as opened:
        yield opened


@pytest.mark.parametrize(
    "group, case",
    [
        pytest.param(group, case, id=f"{group.name}: {case.name}", marks=[pytest.mark.long] if case.long else [])
        for group in GROUPS
        for case in group.cases
    ],
)
def test_traffic(theatre: Theatre, request: pytest.FixtureRequest, group: Group, case: Case) -> None:
    items = [x for x in request.session.items if isinstance(x, pytest.Function) and x.originalname == "test_traffic"]
    chosen = {id(x.callspec.params["case"]) for x in items}
    stage = theatre.stage(group, case, [x for x in group.cases if id(x) in chosen])
    theatre.run(lambda: case.prove(stage))


@pytest.mark.parametrize("row", LEFT)
def test_what_is_left_is_refused(theatre: Theatre, row: str) -> None:
    refusal = LEFT[row]
    status, body = theatre.refused(refusal)
    assert (status, refusal.field in body["faultstring"]) == (refusal.status, True), body


def test_no_row_is_forgotten() -> None:
    """And how many there are is said; `pytest -rP` shows it."""
    report(summary())
