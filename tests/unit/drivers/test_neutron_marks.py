"""Ports in tenants' projects that bear our marks: whoever's they are, no more is believed of them than their owners could write."""

from __future__ import annotations

from typing import Any

import pytest

from frontinus.model.belongings import BelongingKind
from frontinus.model.ids import AmphoraId, LoadBalancerId, new_id
from frontinus.model.network import VipRequest
from frontinus.model.ports import PortPurpose, PortRequest

from tests.unit.drivers.little_neutron import FIRST, NETWORK, OURS, THEIRS, MemoryNeutron

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    "marks",
    [
        pytest.param({"tags": ["frontinus-frontinus", f"lb-{new_id()}"]}, id="tags"),
        pytest.param(
            {"description": "frontinus:frontinus:vip", "device_owner": "Octavia", "device_id": f"lb-{new_id()}"},
            id="as on one that we made",
        ),
    ],
)
async def test_a_port_that_its_owner_marks_as_ours_is_told_as_his(marks: dict[str, Any]) -> None:
    little, load_balancer_id, amphora_id = MemoryNeutron(), LoadBalancerId(new_id()), AmphoraId(new_id())
    driver = little.driver()
    await driver.allocate_vip(load_balancer_id, THEIRS, VipRequest(subnet_id=FIRST))
    await driver.create_port(
        PortRequest(
            amphora_id=amphora_id,
            load_balancer_id=load_balancer_id,
            project_id=THEIRS,
            purpose=PortPurpose.VIP,
            network_id=NETWORK,
            subnet_ids=(FIRST,),
        )
    )
    plain = {"name": "", "description": "", "device_id": "", "device_owner": "", "tags": [], "fixed_ips": []}
    little.ports["forged"] = {**plain, "id": "forged", "project_id": "mallory", **marks}
    told = {(x.kind, x.load_balancer_id or x.amphora_id): x.tenant for x in await driver.list_belongings()}
    assert told.pop((BelongingKind.ADDRESS, load_balancer_id)) == THEIRS
    assert told.pop((BelongingKind.PORT, amphora_id)) is None
    assert list(told.values()) == ["mallory"]
    assert {x["project_id"] for x in little.ports.values()} == {OURS, THEIRS, "mallory"}
    await driver.close()
