"""deletion_protection: a load balancer that nobody deletes by accident. What hangs on it is not protected."""

from __future__ import annotations

import pytest

from tests.integration.api.world import SUBNET_ID, World


@pytest.mark.parametrize("arguments", ["", "?cascade=true"])
async def test_a_protected_load_balancer_is_deleted_only_after_it_was_freed(world: World, arguments: str) -> None:
    load_balancer = await world.load_balancer(deletion_protection=True)
    path = f"loadbalancers/{load_balancer}"
    refused = await world.call("DELETE", path + arguments)
    assert refused.status == 409
    assert "loadbalancer.deletion_protection" in refused.fault
    assert (await world.call("GET", path)).one("loadbalancer")["provisioning_status"] == "PENDING_CREATE"
    freed = await world.call("PUT", path, {"loadbalancer": {"deletion_protection": False}})
    assert freed.one("loadbalancer")["deletion_protection"] is False
    assert (await world.call("DELETE", path + arguments)).status == 204


async def test_what_hangs_on_a_protected_load_balancer_can_be_deleted(world: World) -> None:
    load_balancer = await world.load_balancer(deletion_protection=True)
    pool = await world.pool(load_balancer)
    listener = await world.listener(load_balancer, default_pool_id=pool)
    assert (await world.call("DELETE", f"listeners/{listener}")).status == 204
    assert (await world.call("DELETE", f"pools/{pool}")).status == 204


async def test_it_is_off_by_default_and_null_means_off(world: World) -> None:
    plain = await world.make("loadbalancer", vip_subnet_id=SUBNET_ID)
    null = await world.make("loadbalancer", vip_subnet_id=SUBNET_ID, deletion_protection=None)
    assert [plain["deletion_protection"], null["deletion_protection"]] == [False, False]
    path = f"loadbalancers/{plain['id']}"
    assert (await world.call("PUT", path, {"loadbalancer": {"name": "x"}})).one("loadbalancer")["name"] == "x"
    assert (await world.call("DELETE", path)).status == 204


@pytest.mark.parametrize("value", ["maybe", 2, [], {}])
async def test_what_is_no_boolean_is_refused_by_name(world: World, value: object) -> None:
    body = {"loadbalancer": {"vip_subnet_id": SUBNET_ID, "deletion_protection": value}}
    refused = await world.call("POST", "loadbalancers", body)
    assert refused.status == 400
    assert "deletion_protection" in refused.fault


async def test_lists_can_be_filtered_and_sorted_by_it_and_fields_can_leave_it_out(world: World) -> None:
    free = await world.load_balancer()
    protected = await world.load_balancer(deletion_protection=True)
    found = (await world.call("GET", "loadbalancers?deletion_protection=true")).json["loadbalancers"]
    assert [x["id"] for x in found] == [protected]
    ordered = (await world.call("GET", "loadbalancers?sort=deletion_protection:desc&fields=id")).json["loadbalancers"]
    assert ordered == [{"id": protected}, {"id": free}]
