"""Whatever dies, whenever: four controllers, two hundred load balancers, a death every second. Figures: `pytest -rP`.

Thirty seconds for each engine; FRONTINUS_KILL_SECONDS=300 is the whole of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.acceptance.kill_suite import KillSuite
from tests.acceptance.support import report
from tests.servers import Mariadb, Postgresql, Server

SECONDS = float(os.environ.get("FRONTINUS_KILL_SECONDS", "30"))
LONGEST_RESUMPTION_S = 10.0

pytestmark = [pytest.mark.long, pytest.mark.alone, pytest.mark.timeout(SECONDS * 2 + 300)]


@pytest.fixture(params=[pytest.param(Postgresql, id="postgresql"), pytest.param(Mariadb, id="mariadb")])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    made: Server = request.param()
    try:
        made.prepare()
        made.start()
        yield made
    finally:
        made.remove()


def test_everything_is_served_or_gone_and_nothing_is_left(server: Server, tmp_path: Path) -> None:
    outcome = KillSuite(tmp_path, server, SECONDS).run()
    report(f"{server.name}, {SECONDS:.0f} s: {asdict(outcome)}")
    assert outcome.troubles == []
    assert outcome.kills["database"] == 2
    assert outcome.resumed > 0, "no controller was killed that held anything"
    assert outcome.longest_resumption_s <= LONGEST_RESUMPTION_S
