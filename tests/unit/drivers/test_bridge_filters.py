"""What the bridge lets through to a port, as rules of nftables. Whether nftables takes them and what they do to traffic is
seen in tests/integration/netns/."""

from __future__ import annotations

import pytest

from frontinus.drivers.network.bridge.filters import guard
from frontinus.model.ports import AllowedTraffic, TrafficProtocol

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    "allowed,expected",
    [
        pytest.param(AllowedTraffic(TrafficProtocol.TCP, 80), "tcp dport 80 accept", id="from anywhere"),
        pytest.param(
            AllowedTraffic(TrafficProtocol.UDP, 53, "10.0.0.0/8"), "ip saddr 10.0.0.0/8 udp dport 53 accept", id="IPv4"
        ),
        pytest.param(
            AllowedTraffic(TrafficProtocol.TCP, 80, "fd00::/8"), "ip6 saddr fd00::/8 tcp dport 80 accept", id="IPv6"
        ),
        pytest.param(
            AllowedTraffic(TrafficProtocol.VRRP, None, "10.0.0.9/32"),
            "ip saddr 10.0.0.9/32 meta l4proto 112 accept",
            id="the other one of a pair",
        ),
        pytest.param(AllowedTraffic(TrafficProtocol.SCTP, None), "meta l4proto sctp accept", id="every port"),
    ],
)
def test_what_is_allowed_is_let_in_before_all_else_is_dropped(allowed: AllowedTraffic, expected: str) -> None:
    lines = guard("t", "fr1", (allowed,)).splitlines()
    rules = [x.removeprefix("add rule bridge t to_fr1 ") for x in lines if x.startswith("add rule bridge t to_fr1 ")]
    assert rules[-2:] == [expected, "drop"]


def test_a_source_that_is_no_network_reaches_no_script() -> None:
    with pytest.raises(ValueError, match="does not appear to be"):
        guard("t", "fr1", (AllowedTraffic(TrafficProtocol.TCP, 80, "10.0.0.0/8 accept; flush ruleset"),))
