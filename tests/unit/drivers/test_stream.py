"""Networks as nginx reads them."""

from __future__ import annotations

import pytest

from frontinus.drivers.amphora.agent.stream import networks


@pytest.mark.parametrize(
    "expected, cidrs",
    [
        pytest.param(("10.0.0.0/8",), ("10.1.2.3/8", "10.0.0.0/8"), id="each once, in its one form"),
        pytest.param(("10.0.0.0/8",), ("255.255.255.255/32", "10.0.0.0/8"), id="nginx refuses the broadcast address"),
        pytest.param((), ("255.255.255.255",), id="nobody comes from there"),
        pytest.param(("255.255.255.254/31", "2001:db8::/32"), ("255.255.255.254/31", "2001:db8::/32"), id="near it"),
    ],
)
def test_networks_are_those_that_nginx_takes(expected: tuple[str, ...], cidrs: tuple[str, ...]) -> None:
    assert networks(cidrs) == expected
