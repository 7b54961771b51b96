"""The security group of an amphora's port goes when the port went, whoever removed that."""

from __future__ import annotations

import pytest

from frontinus.drivers.network.neutron.driver import NeutronNetwork
from frontinus.model.belongings import BelongingKind, OwnerKind
from frontinus.model.ids import AmphoraId, LoadBalancerId, PortId, new_id
from frontinus.model.ports import Port, PortPurpose, PortRequest

from tests.unit.drivers.little_neutron import FIRST, NETWORK, THEIRS, MemoryNeutron

pytestmark = pytest.mark.unit

LOAD_BALANCER = LoadBalancerId(new_id())


async def a_port(driver: NeutronNetwork) -> Port:
    return await driver.create_port(
        PortRequest(
            amphora_id=AmphoraId(new_id()),
            load_balancer_id=LOAD_BALANCER,
            project_id=THEIRS,
            purpose=PortPurpose.VIP,
            network_id=NETWORK,
            subnet_ids=(FIRST,),
        )
    )


async def test_one_whose_port_somebody_removed_is_nobodys_and_is_discarded() -> None:
    little = MemoryNeutron()
    driver = little.driver()
    kept, lost = await a_port(driver), await a_port(driver)
    stranger = {"id": new_id(), "name": f"frontinus-{new_id()}", "description": "of an operator", "project_id": "ours"}
    little.groups[stranger["id"]] = stranger
    del little.ports[lost.id]
    (left,) = [x for x in await driver.list_belongings() if x.owner.kind is OwnerKind.NOBODY]
    assert (left.kind, left.name.split()[1]) == (BelongingKind.SECURITY_GROUP, f"frontinus-{lost.id}")
    await driver.discard(left)
    await driver.discard(left)
    assert {x["name"] for x in little.groups.values()} == {f"frontinus-{kept.id}", stranger["name"]}
    await driver.close()


async def test_one_whose_port_is_there_is_not_discarded() -> None:
    little = MemoryNeutron()
    driver = little.driver()
    port = await a_port(driver)
    gone = little.ports.pop(port.id)
    (left,) = [x for x in await driver.list_belongings() if x.owner.kind is OwnerKind.NOBODY]
    little.ports[port.id] = gone
    await driver.discard(left)
    assert len(little.groups) == 1
    await driver.close()


async def test_it_goes_with_a_port_that_was_removed_before() -> None:
    little = MemoryNeutron()
    driver = little.driver()
    port = await a_port(driver)
    del little.ports[port.id]
    await driver.delete_port(port.amphora_id, PortId(new_id()))
    assert len(little.groups) == 1
    await driver.delete_port(port.amphora_id, port.id)
    assert little.groups == {}
    await driver.close()


async def test_it_goes_with_all_that_is_its_load_balancers() -> None:
    little = MemoryNeutron()
    driver = little.driver()
    for _ in range(2):
        await a_port(driver)
    little.ports.popitem()
    await driver.release_owned(LOAD_BALANCER)
    assert (little.ports, little.groups) == ({}, {})
    await driver.close()


async def test_no_list_is_asked_for_whole() -> None:
    little = MemoryNeutron(most=2)
    driver = little.driver()
    ports = [await a_port(driver) for _ in range(5)]
    told = await driver.list_belongings()
    assert {x.amphora_id for x in told} == {x.amphora_id for x in ports}
    assert all(0 < asked["limit"] <= 500 for _, asked in little.lists)
    await driver.close()
