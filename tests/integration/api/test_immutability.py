"""What stands still for whom: what is being deleted for everybody, what is under way for who is strict, and what somebody
else has changed for who said what he had seen. Over every operation that writes."""

from __future__ import annotations

import pytest

from frontinus.api.settings import ApiSettings, Immutability
from frontinus.model.enums import AmphoraStatus, ProvisioningStatus
from frontinus.model.ids import LoadBalancerId
from frontinus.store import rows, trees

from tests.integration.api.world import World
from tests.integration.api.writes import AMPHORA, WRITING, bodies, whole

_WITHOUT_A_TREE = ("quota", "flavor", "flavorprofile", "availability_zone", "availability_zone_profile")
IN_A_TREE = [
    x.id
    for x in WRITING
    if x.id.partition(".")[0] not in _WITHOUT_A_TREE and x.id not in ("loadbalancer.create", "amphora.delete")
]
NAMING = [x.id for x in WRITING if x.method != "POST" and x.id != "amphora.delete"]


async def ask(world: World, operation: str, ids: dict[str, str], headers: dict[str, str] | None = None) -> int:
    asked = next(x for x in WRITING if x.id == operation)
    cascade = "?cascade=true" if operation == "loadbalancer.delete" else ""
    answer = await world.call(asked.method, f"{asked.path.format(**ids)}{cascade}", bodies(ids).get(operation), headers)
    return answer.status


@pytest.mark.parametrize("immutable", Immutability)
@pytest.mark.parametrize("operation", [x for x in IN_A_TREE if x != "amphora.config"])
async def test_nothing_of_what_is_being_deleted_can_be_changed(
    world: World, database_url: str, operation: str, immutable: Immutability
) -> None:
    ids = await whole(world)
    if operation == "healthmonitor.create":  # else its pool has one, which is a conflict of another kind
        ids["pool"] = await world.pool(ids["load_balancer"])
        await world.settle(ids["load_balancer"])
    other = await World.open(database_url, None, ApiSettings(immutable=immutable))
    assert await ask(other, "loadbalancer.delete", ids) == 204
    assert await ask(other, operation, ids) == 409
    await world.settle(ids["load_balancer"], ProvisioningStatus.ERROR)
    assert await ask(other, operation, ids) == 409, "a deletion that is in trouble is a deletion"
    await other.close()


@pytest.mark.parametrize("operation", [x for x in IN_A_TREE if x != "amphora.config"])
async def test_who_is_strict_has_nothing_changed_while_something_is_under_way(
    world: World, database_url: str, operation: str
) -> None:
    ids = await whole(world)
    if operation == "healthmonitor.create":
        ids["pool"] = await world.pool(ids["load_balancer"])
        await world.settle(ids["load_balancer"])
    strict = await World.open(database_url, None, ApiSettings(immutable=Immutability.STRICT))
    assert await ask(strict, "loadbalancer.update", ids) == 200
    assert await ask(strict, operation, ids) == 409
    await world.settle(ids["load_balancer"])
    expected = next(x for x in WRITING if x.id == operation).success
    assert await ask(strict, operation, ids) == expected
    await strict.close()


@pytest.mark.parametrize("operation", NAMING)
async def test_every_object_that_a_path_names_can_be_meant_as_it_was_seen(world: World, operation: str) -> None:
    """`If-Match` is honoured by every PUT and DELETE: with another tag nothing is done."""
    ids = await whole(world)
    assert await ask(world, operation, ids, {"If-Match": '"another.tag"'}) == 412
    path = next(x for x in WRITING if x.id == operation).path.format(**ids)
    for ending in ("/failover", "/config", "/members"):
        path = path.removesuffix(ending)
    seen = (await world.call("GET", path)).headers["etag"]
    expected = next(x for x in WRITING if x.id == operation).success
    assert await ask(world, operation, ids, {"If-Match": seen}) == expected


async def test_an_amphora_s_status_is_a_report_and_refuses_no_removal(world: World) -> None:
    ids = await whole(world)
    path = f"/v2/octavia/amphorae/{ids['amphora']}"
    seen = (await world.call("GET", path)).headers["etag"]
    tree = await world.tree(ids["load_balancer"])
    (amphora,) = tree.amphorae
    assert tree.id == LoadBalancerId(ids["load_balancer"])
    update = trees.update_of(rows.AMPHORA, ("status",))
    await world.store.transact(lambda tx: tx.run(update, {"status": AmphoraStatus.ERROR.value, "which": amphora.id}))
    assert (await world.call("DELETE", path, headers={"If-Match": '"another.tag"'})).status == 412
    assert (await world.call("DELETE", path, headers={"If-Match": seen})).status == 204
    assert amphora.id == AMPHORA
