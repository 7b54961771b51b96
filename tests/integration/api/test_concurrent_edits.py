"""Two people at one object: tags on everything, 412 for who edits what he has not seen, 304 for who has seen it."""

from __future__ import annotations

import pytest

from frontinus.model.enums import ProvisioningStatus

from tests.integration.api.world import SUBNET_ID, World

pytestmark = pytest.mark.engines

KINDS = ("loadbalancer", "listener", "pool", "member", "healthmonitor", "l7policy", "rule")


async def one_of_each(world: World) -> dict[str, str]:
    """The path of one object of each kind, all in one tree."""
    load_balancer = await world.load_balancer()
    listener = await world.listener(load_balancer)
    pool = await world.pool(load_balancer)
    member = await world.member(pool)
    monitor = await world.health_monitor(pool)
    policy = (await world.make("l7policy", listener_id=listener, action="REJECT"))["id"]
    rule = (await world.make("rule", l7policy=policy, type="PATH", compare_type="EQUAL_TO", value="/"))["id"]
    world.ids["loadbalancer"] = load_balancer
    return {
        "loadbalancer": f"loadbalancers/{load_balancer}",
        "listener": f"listeners/{listener}",
        "pool": f"pools/{pool}",
        "member": f"pools/{pool}/members/{member}",
        "healthmonitor": f"healthmonitors/{monitor}",
        "l7policy": f"l7policies/{policy}",
        "rule": f"l7policies/{policy}/rules/{rule}",
    }


async def tag(world: World, path: str) -> str:
    answer = await world.call("GET", path)
    assert answer.status == 200
    return answer.headers["etag"]


@pytest.mark.parametrize("kind", KINDS)
async def test_an_edit_of_what_somebody_else_has_edited_is_412(world: World, kind: str) -> None:
    path = (await one_of_each(world))[kind]
    seen = await tag(world, path)
    first = await world.call("PUT", path, {kind: {"tags": ["mine"]}}, {"if-match": seen})
    assert first.status == 200
    second = await world.call("PUT", path, {kind: {"tags": ["late"]}}, {"if-match": seen})
    assert second.status == 412
    assert "If-Match" in second.fault
    assert (await world.call("GET", path)).one(kind)["tags"] == ["mine"]
    arguments = "?cascade=true" if kind == "loadbalancer" else ""
    assert (await world.call("DELETE", path + arguments, headers={"if-match": seen})).status == 412
    assert (await world.call("PUT", path, {kind: {"tags": []}}, {"if-match": second.headers["etag"]})).status == 200


@pytest.mark.parametrize("kind", KINDS)
async def test_the_answer_to_an_edit_carries_the_tag_of_the_next(world: World, kind: str) -> None:
    path = (await one_of_each(world))[kind]
    answer = await world.call("PUT", path, {kind: {"tags": ["a"]}})
    assert answer.headers["etag"] == await tag(world, path)
    arguments = "?cascade=true" if kind == "loadbalancer" else ""
    gone = await world.call("DELETE", path + arguments, headers={"if-match": answer.headers["etag"]})
    assert gone.status == 204


@pytest.mark.parametrize("kind", KINDS)
async def test_a_change_of_statuses_alone_refuses_no_edit_and_hides_from_no_poll(world: World, kind: str) -> None:
    path = (await one_of_each(world))[kind]
    seen = await tag(world, path)
    assert (await world.call("GET", path, headers={"if-none-match": seen})).status == 304
    await world.settle(world.ids["loadbalancer"], ProvisioningStatus.ACTIVE)
    now = await tag(world, path)
    assert now != seen
    assert (await world.call("GET", path, headers={"if-none-match": seen})).status == 200
    unchanged = await world.call("GET", path, headers={"if-none-match": f'"other", W/{now}'})
    assert (unchanged.status, unchanged.body, unchanged.headers["etag"]) == (304, b"", now)
    assert (await world.call("PUT", path, {kind: {"tags": ["a"]}}, {"if-match": seen})).status == 200


async def test_an_edit_elsewhere_in_the_tree_changes_no_tag_of_what_was_asked(world: World) -> None:
    paths = await one_of_each(world)
    before = {kind: await tag(world, path) for kind, path in paths.items()}
    assert (await world.call("PUT", paths["member"], {"member": {"weight": 7}})).status == 200
    for kind in set(KINDS) - {"member"}:
        answer = await world.call("PUT", paths[kind], {kind: {"tags": []}}, {"if-match": before[kind]})
        assert answer.status == 200, kind


async def test_a_create_answers_with_the_tag_that_a_show_has(world: World) -> None:
    answer = await world.call("POST", "loadbalancers", {"loadbalancer": {"vip_subnet_id": SUBNET_ID}})
    assert answer.headers["etag"] == await tag(world, f"loadbalancers/{answer.one('loadbalancer')['id']}")


@pytest.mark.parametrize(
    "given, status",
    [
        ("*", 200),
        ("{tag}", 200),
        ('"other", {tag}', 200),
        ("W/{tag}", 412),  # a weak tag never is a strong match
        ('"other"', 412),
        ("not a tag", 412),
        ("", 412),
    ],
)
async def test_conditions_are_read_as_http_has_them(world: World, given: str, status: int) -> None:
    path = f"loadbalancers/{await world.load_balancer()}"
    condition = given.replace("{tag}", await tag(world, path))
    answer = await world.call("PUT", path, {"loadbalancer": {"name": "new"}}, {"if-match": condition})
    assert answer.status == status


async def test_what_would_fail_anyway_says_so_before_the_condition(world: World) -> None:
    load_balancer = await world.load_balancer()
    path = f"loadbalancers/{load_balancer}"
    stale = {"if-match": '"stale"'}
    assert (await world.call("PUT", path, {"loadbalancer": {"name": 1}}, stale)).status == 400
    assert (await world.call("PUT", "loadbalancers/nothing", {"loadbalancer": {"name": "x"}}, stale)).status == 404
    assert (await world.call("DELETE", path)).status == 204
    assert (await world.call("PUT", path, {"loadbalancer": {"name": "x"}}, stale)).status == 409


async def test_a_batch_of_members_is_on_condition_of_the_pool(world: World) -> None:
    pool = await world.pool(await world.load_balancer())
    seen = await tag(world, f"pools/{pool}")
    await world.member(pool)
    batch: dict[str, list[object]] = {"members": []}
    assert (await world.call("PUT", f"pools/{pool}/members", batch, {"if-match": seen})).status == 412
    seen = await tag(world, f"pools/{pool}")
    assert (await world.call("PUT", f"pools/{pool}/members", batch, {"if-match": seen})).status == 202
