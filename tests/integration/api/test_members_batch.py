"""PUT on a pool's members: those of the request come, change or stay; the others go unless it is additive."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.api.world import World


async def pool_with_two(world: World) -> str:
    pool_id = await world.pool(await world.load_balancer())
    await world.member(pool_id, name="one", address="192.0.2.1", weight=9, backup=True, tags=["t"], monitor_port=81)
    await world.member(pool_id, name="two", address="192.0.2.2")
    return pool_id


async def members(world: World, pool_id: str) -> dict[str, Any]:
    found = (await world.call("GET", f"pools/{pool_id}/members")).json["members"]
    return {f"{x['address']}:{x['protocol_port']}": x for x in found}


async def put(world: World, pool_id: str, *wanted: dict[str, Any], query: str = "") -> int:
    return (await world.call("PUT", f"pools/{pool_id}/members{query}", {"members": list(wanted)})).status


async def test_request_is_the_whole_list(world: World) -> None:
    pool_id = await pool_with_two(world)
    assert (
        await put(
            world, pool_id, {"address": "192.0.2.2", "protocol_port": 80}, {"address": "192.0.2.3", "protocol_port": 80}
        )
        == 202
    )
    found = await members(world, pool_id)
    assert {key: x["provisioning_status"] for key, x in found.items()} == {
        "192.0.2.1:80": "PENDING_DELETE",
        "192.0.2.2:80": "PENDING_CREATE",
        "192.0.2.3:80": "PENDING_CREATE",
    }


async def test_additive_request_removes_nothing(world: World) -> None:
    pool_id = await pool_with_two(world)
    assert await put(world, pool_id, {"address": "192.0.2.3", "protocol_port": 80}, query="?additive_only=True") == 202
    found = await members(world, pool_id)
    assert len(found) == 3
    assert "PENDING_DELETE" not in {x["provisioning_status"] for x in found.values()}


async def test_what_is_left_out_of_a_known_member_goes_back_to_its_default(world: World) -> None:
    pool_id = await pool_with_two(world)
    assert await put(world, pool_id, {"address": "192.0.2.1", "protocol_port": 80}) == 202
    one = (await members(world, pool_id))["192.0.2.1:80"]
    assert (one["weight"], one["backup"], one["monitor_port"]) == (1, False, None)
    assert (one["name"], one["tags"]) == ("one", ["t"])


@pytest.mark.parametrize(
    "twice, status",
    [
        pytest.param({"address": "192.0.2.1", "protocol_port": 80}, 400, id="known member"),
        pytest.param({"address": "192.0.2.9", "protocol_port": 80}, 409, id="new member"),
    ],
)
async def test_member_named_twice(world: World, twice: dict[str, Any], status: int) -> None:
    pool_id = await pool_with_two(world)
    assert await put(world, pool_id, twice, twice) == status
    assert len(await members(world, pool_id)) == 2


async def test_one_wrong_member_leaves_all_as_they_are(world: World) -> None:
    pool_id = await pool_with_two(world)
    answer = await world.call(
        "PUT",
        f"pools/{pool_id}/members",
        {
            "members": [
                {"address": "192.0.2.3", "protocol_port": 80},
                {"address": "192.0.2.4", "protocol_port": 80, "weight": 257},
            ]
        },
    )
    assert answer.status == 400
    assert answer.fault.startswith("members[1].weight")
    assert len(await members(world, pool_id)) == 2


@pytest.mark.parametrize("body", [{"members": None}, {}, {"members": {}}, {"members": [{"id": "x"}]}])
async def test_what_is_no_batch(world: World, body: Any) -> None:
    pool_id = await pool_with_two(world)
    assert (await world.call("PUT", f"pools/{pool_id}/members", body)).status == 400


async def test_empty_batch_on_an_empty_pool_moves_nothing(world: World) -> None:
    load_balancer_id = await world.load_balancer()
    pool_id = await world.pool(load_balancer_id)
    before = await world.tree(load_balancer_id)
    assert await put(world, pool_id) == 202
    assert await world.tree(load_balancer_id) == before


async def test_empty_batch_empties_the_pool(world: World) -> None:
    pool_id = await pool_with_two(world)
    assert await put(world, pool_id) == 202
    assert {x["provisioning_status"] for x in (await members(world, pool_id)).values()} == {"PENDING_DELETE"}


async def test_thousand_members_in_one_request(world: World) -> None:
    load_balancer_id = await world.load_balancer()
    pool_id = await world.pool(load_balancer_id)
    wanted = [{"address": f"10.0.{n // 250}.{n % 250 + 1}", "protocol_port": 80} for n in range(1000)]
    assert await put(world, pool_id, *wanted) == 202
    tree = await world.tree(load_balancer_id)
    assert len(tree.members) == 1000
    assert await put(world, pool_id, *wanted[:10]) == 202
    assert len((await world.tree(load_balancer_id)).wanted().members) == 10
