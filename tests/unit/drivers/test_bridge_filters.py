"""What the bridge lets through to a port, as rules of nftables. Whether nftables takes them and what they do to traffic is
seen in tests/integration/netns/."""

from __future__ import annotations

import pytest

from frontinus.drivers.network.bridge.filters import guard, only_as
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


def test_who_has_no_address_of_a_family_sends_none_of_it() -> None:
    rules = {x for x in only_as("t", "fr1", "02:00:00:00:00:01", ["10.0.0.5"]).splitlines() if "rule" in x}
    assert any("ip saddr { 10.0.0.5 } accept" in x for x in rules)
    assert any("ip6 saddr { fe80::ff:fe00:1 } accept" in x for x in rules)
    rules = {x for x in only_as("t", "fr1", "02:00:00:00:00:01", ["fd00::5"]).splitlines() if "rule" in x}
    assert not any(" ip saddr" in x or " arp saddr ip" in x for x in rules)


def test_an_address_that_is_none_reaches_no_script() -> None:
    with pytest.raises(ValueError, match="does not appear to be"):
        only_as("t", "fr1", "02:00:00:00:00:01", ["10.0.0.5 } accept; flush ruleset"])


def test_a_source_that_is_no_network_reaches_no_script() -> None:
    with pytest.raises(ValueError, match="does not appear to be"):
        guard("t", "fr1", (AllowedTraffic(TrafficProtocol.TCP, 80, "10.0.0.0/8 accept; flush ruleset"),))
