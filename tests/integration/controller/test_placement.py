"""Of what and where amphorae are made follows the flavor and the zone of their load balancer, for its whole life."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from frontinus.model.enums import ProvisioningStatus, Topology
from frontinus.model.placement import UNSPECIFIED, Placement
from frontinus.model.ports import PortPurpose

from tests.integration.controller.world import World

pytestmark = pytest.mark.integration

LARGE = Placement(compute_flavor="large", amp_image_tag="tested", compute_zone="east")
ELSEWHERE = "5b0c7b5e-0000-4000-8000-000000000013"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path, has_ports=True)
    await made.register()
    yield made
    await made.store.close()


async def test_every_amphora_of_a_pair_and_every_successor_is_made_so(world: World) -> None:
    wanted = replace(LARGE, management_network=ELSEWHERE)
    load_balancer_id = await world.create(80, topology=Topology.ACTIVE_STANDBY, placement=wanted)
    plain = await world.create(80)
    await world.converge()
    first = {x.id for x in (await world.tree_of(load_balancer_id)).amphorae}
    await world.store.transact(lambda tx: world.ask_for_failover(tx, load_balancer_id))
    await world.converge()
    tree = await world.tree_of(load_balancer_id)
    assert len(tree.amphorae) == 2
    assert not first & {x.id for x in tree.amphorae}
    for amphora in tree.amphorae:
        assert world.places[amphora.id].placement == wanted
        assert (amphora.compute_flavor, amphora.compute_zone) == ("large", "east")
        (management,) = [x for x in amphora.ports if x.purpose is PortPurpose.MANAGEMENT]
        assert management.network_id == ELSEWHERE
    (other,) = (await world.tree_of(plain)).amphorae
    assert world.places[other.id].placement == UNSPECIFIED
    assert all(x.network_id != ELSEWHERE for x in other.ports)


async def test_what_is_not_there_yet_is_a_fault_that_heals(world: World) -> None:
    world.hands.compute.lacks.add("large")  # type: ignore[attr-defined]
    load_balancer_id = await world.create(80, placement=LARGE)
    for _ in range(20):
        await world.turn()
    waiting = (await world.tree_of(load_balancer_id)).load_balancer
    assert waiting.fault is not None
    assert waiting.fault.code == "no-flavor"
    assert "large" in waiting.fault.message
    assert not world.places
    world.hands.compute.lacks.clear()  # type: ignore[attr-defined]
    await world.converge()
    assert (await world.tree_of(load_balancer_id)).load_balancer.provisioning_status is ProvisioningStatus.ACTIVE


async def test_controllers_with_other_drivers_wait_and_build_nothing_else(world: World) -> None:
    """They were restarted with a compute driver that cannot honour what was promised."""
    load_balancer_id = await world.create(80, placement=replace(LARGE, volume_zone="cinder-1"))
    for _ in range(20):
        await world.turn()
    waiting = (await world.tree_of(load_balancer_id)).load_balancer
    assert waiting.fault is not None
    assert waiting.fault.code == "placement-refused"
    assert "volume_zone 'cinder-1'" in waiting.fault.message
    assert not world.places
