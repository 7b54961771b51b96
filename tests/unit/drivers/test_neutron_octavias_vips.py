"""The VIPs of a load balancer that comes from an Octavia are on one port: it is held, and given back, as that."""

from __future__ import annotations

from typing import Any

import pytest

from frontinus.model.errors import Conflict
from frontinus.model.ids import LoadBalancerId, PortId, new_id
from frontinus.model.network import VipRequest
from frontinus.model.tree import AdditionalVip

from tests.unit.drivers.little_neutron import FIRST, NETWORK, SECOND, THEIRS, MemoryNeutron

pytestmark = pytest.mark.unit

LOAD_BALANCER = LoadBalancerId(new_id())
FIXED = [{"subnet_id": FIRST, "ip_address": "10.20.0.9"}, {"subnet_id": SECOND, "ip_address": "10.21.0.9"}]


def with_port(**words: Any) -> MemoryNeutron:
    little = MemoryNeutron()
    little.ports["octavias"] = {
        "id": "octavias",
        "name": f"octavia-lb-{LOAD_BALANCER}",
        "description": "",
        "network_id": NETWORK,
        "project_id": THEIRS,
        "device_id": f"lb-{LOAD_BALANCER}",
        "device_owner": "Octavia",
        "tags": [],
        "fixed_ips": FIXED,
        **words,
    }
    return little


def wish(address: str = "10.21.0.9", port_id: PortId | None = None) -> VipRequest:
    further = (AdditionalVip(address=address, subnet_id=SECOND, port_id=port_id),)
    return VipRequest(port_id=port_id, subnet_id=FIRST, address="10.20.0.9", additional=further)


@pytest.mark.parametrize(
    "words,port_id",
    [
        pytest.param({}, None, id="that Octavia made"),
        pytest.param(
            {"name": "mine", "device_id": "", "device_owner": ""}, PortId("octavias"), id="that the user brought"
        ),
    ],
)
async def test_all_of_them_are_held_by_the_one_port(words: dict[str, Any], port_id: PortId | None) -> None:
    little = with_port(**words)
    driver = little.driver()
    held = await driver.allocate_vip(LOAD_BALANCER, THEIRS, wish(port_id=port_id))
    assert [held.vip.address, *(x.address for x in held.additional)] == ["10.20.0.9", "10.21.0.9"]
    assert {held.vip.port_id, *(x.port_id for x in held.additional)} == {"octavias"} == set(little.ports)
    assert await driver.allocate_vip(LOAD_BALANCER, THEIRS, wish(port_id=port_id)) == held
    assert await driver.preview_vip(LOAD_BALANCER, THEIRS, wish(port_id=port_id)) == held
    await driver.release_vip(LOAD_BALANCER, held.vip, port_owned=held.port_owned, additional=held.additional)
    assert set(little.ports) == (set() if port_id is None else {"octavias"})
    assert await driver.list_owned() == ()
    await driver.close()


async def test_another_address_than_it_has_is_a_conflict() -> None:
    little = with_port()
    driver = little.driver()
    with pytest.raises(Conflict, match=r"has address 10\.20\.0\.9, 10\.21\.0\.9 already"):
        await driver.allocate_vip(LOAD_BALANCER, THEIRS, wish("10.21.0.10"))
    assert set(little.ports) == {"octavias"}
    await driver.close()


async def test_where_it_was_removed_each_vip_gets_a_port() -> None:
    little = with_port()
    driver = little.driver()
    little.ports.clear()
    held = await driver.allocate_vip(LOAD_BALANCER, THEIRS, wish())
    assert [held.vip.address, *(x.address for x in held.additional)] == ["10.20.0.9", "10.21.0.9"]
    assert {held.vip.port_id, *(x.port_id for x in held.additional)} == set(little.ports)
    assert len(little.ports) == 2
    await driver.close()
