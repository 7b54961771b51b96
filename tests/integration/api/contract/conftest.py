"""A ledger for each test that examines a part of the contract; it is closed, and judged, when the test has ended."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from tests.integration.api.contract.ledger import Ledger


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--by-area", action="store_true", help="count the contract's facts by area (make contract-report)")


@pytest.fixture
def ledger(request: pytest.FixtureRequest) -> Ledger:
    """Its area is what the test is called: `attributes of pool` for `test_attributes[pool]`."""
    item = request.node
    name = item.originalname.removeprefix("test_").replace("_", " ")
    params = item.callspec.params if hasattr(item, "callspec") else {}
    subjects = [value for what, value in params.items() if what != "engine"]
    return Ledger(" of ".join([name, *subjects]))


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, Any, Any]:
    result = yield
    ledger = pyfuncitem.funcargs.get("ledger")
    if isinstance(ledger, Ledger):
        by_area = pyfuncitem.config.getoption("--by-area", default=False)
        ledger.close(lambda name, value: pyfuncitem.user_properties.append((name, value)), by_area=by_area)
    return result
