"""Profile data: JSON objects with known keys of known types; what is wrong with it decides whose fault it is."""

from __future__ import annotations

import msgspec
import pytest

from frontinus.model.enums import Topology
from frontinus.model.errors import CallerError, Invalid, Unsupported
from frontinus.model.offers import (
    AVAILABILITY_ZONE_KEYS,
    FLAVOR_KEYS,
    AvailabilityZoneData,
    FlavorData,
    asked_keys,
    read_availability_zone_data,
    read_flavor_data,
)

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    "text, expected",
    [
        pytest.param("{}", FlavorData(), id="nothing said"),
        pytest.param(
            '{"loadbalancer_topology": "ACTIVE_STANDBY", "sriov_vip": false}',
            FlavorData(loadbalancer_topology=Topology.ACTIVE_STANDBY, sriov_vip=False),
            id="two keys",
        ),
    ],
)
def test_flavor_data_is_read(text: str, expected: FlavorData) -> None:
    assert read_flavor_data(text, "f") == expected


@pytest.mark.parametrize(
    "text, error",
    [
        pytest.param("", Invalid, id="empty"),
        pytest.param("no", Invalid, id="no JSON"),
        pytest.param("[1]", Invalid, id="a list"),
        pytest.param('"x"', Invalid, id="a string"),
        pytest.param("[" * 4000, Invalid, id="deep"),
        pytest.param('{"colour": "red"}', Unsupported, id="unknown key"),
        pytest.param('{"loadbalancer_topology": "TRIPLE"}', Unsupported, id="unknown topology"),
        pytest.param('{"loadbalancer_topology": null}', Unsupported, id="null"),
        pytest.param('{"sriov_vip": "yes"}', Unsupported, id="wrong type"),
        pytest.param('{"compute_flavor": 7}', Unsupported, id="number for text"),
        pytest.param('{"threads": 0}', Unsupported, id="no thread"),
        pytest.param('{"threads": 65}', Unsupported, id="more threads than HAProxy has"),
        pytest.param('{"threads": true}', Unsupported, id="a truth for a number"),
        pytest.param('{"max_connections": "many"}', Unsupported, id="text for a number"),
        pytest.param('{"max_memory": 31}', Unsupported, id="less memory than HAProxy starts with"),
        pytest.param('{"max_memory": 268435456}', Unsupported, id="bytes for MiB"),
        pytest.param('{"max_connections": 99}', Unsupported, id="fewer than HAProxy starts with"),
    ],
)
def test_flavor_data_is_refused(text: str, error: type[CallerError]) -> None:
    with pytest.raises(error) as caught:
        read_flavor_data(text, "flavor_data")
    assert caught.value.field == "flavor_data"


def test_zone_data_is_read_and_refused() -> None:
    assert read_availability_zone_data('{"valid_vip_networks": ["a", "b"]}', "f").valid_vip_networks == ("a", "b")
    with pytest.raises(Unsupported):
        read_availability_zone_data('{"loadbalancer_topology": "SINGLE"}', "f")


def test_every_key_is_described() -> None:
    assert {x.name for x in msgspec.structs.fields(FlavorData)} == set(FLAVOR_KEYS)
    assert {x.name for x in msgspec.structs.fields(AvailabilityZoneData)} == set(AVAILABILITY_ZONE_KEYS)


def test_what_every_driver_does_anyway_is_not_asked_for() -> None:
    data = read_flavor_data('{"sriov_vip": false, "compute_flavor": "big"}', "f")
    assert asked_keys(data) == {"compute_flavor": "big"}
