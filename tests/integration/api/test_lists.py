"""Lists: filters, order, pages, links, chosen attributes (behaviours.yaml listing)."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from frontinus.api.settings import ApiSettings
from frontinus.store import schema
from frontinus.store.statement import Statement

from tests.integration.api.world import EVERYTHING, UNKNOWN, World


async def names(world: World, query: str = "") -> list[str]:
    answer = await world.call("GET", f"loadbalancers{query}")
    assert answer.status == 200, answer.body
    return [x["name"] for x in answer.json["loadbalancers"]]


async def five(world: World) -> list[str]:
    """Load balancers a to e, in that order."""
    tags = {"a": ["red", "big"], "b": ["red"], "c": ["blue", "big"], "d": [], "e": ["red", "blue", "big"]}
    return [await world.load_balancer(name=x, tags=tags[x], admin_state_up=x != "d") for x in "abcde"]


@pytest.mark.parametrize(
    "query, expected",
    [
        ("", "abcde"),
        ("?name=c", "c"),
        ("?name=C", ""),
        ("?admin_state_up=false", "d"),
        ("?admin_state_up=perhaps", "d"),
        ("?admin_state_up=True&name=d", ""),
        ("?provisioning_status=PENDING_CREATE", "abcde"),
        ("?provisioning_status=NONSENSE", ""),
        ("?provider=amphora", "abcde"),
        ("?vip_vnic_type=normal", "abcde"),
        ("?vip_vnic_type=direct", ""),
        ("?topology=SINGLE", "abcde"),
        ("?project_id=default", "abcde"),
        ("?project_id=another", ""),
        ("?vip_address=198.51.100.250", ""),
        ("?created_at=2026-01-31T12:00:00", ""),
        ("?flavor_id=x", ""),
        ("?tags=red", "abe"),
        ("?tags=red,big", "ae"),
        ("?tags=red&tags=big", "ae"),
        ("?tags-any=blue,big", "ace"),
        ("?not-tags=red,big", "bcd"),
        ("?not-tags-any=red,blue", "d"),
        ("?tags=big&not-tags-any=blue", "a"),
        ("?tags=red&name=b", "b"),
        ("?tags-any=" + ",".join(f"t{n}" for n in range(99)) + ",blue", "ce"),
        ("?tags=" + ",".join(["red"] * 200), "abe"),
        ("?sort=name:desc", "edcba"),
        ("?sort=admin_state_up:asc,name:DESC", "decba"),
        ("?sort_key=name&sort_dir=desc", "edcba"),
        ("?sort_key=admin_state_up,name&sort_dir=desc", "abced"),
        ("?sort=name:desc&sort_key=name&sort_dir=asc", "edcba"),
        ("?limit=2", "ab"),
        ("?limit=0", "abcde"),
        ("?limit=-1", "abcde"),
        ("?limit=infinite", "abcde"),
        ("?limit=2&sort=name:desc", "ed"),
        ("?fields=name&limit=1", "a"),
    ],
)
async def test_what_is_asked_for_comes(world: World, query: str, expected: str) -> None:
    await five(world)
    assert "".join(await names(world, query)) == expected


@pytest.mark.parametrize(
    "query",
    [
        "colour=red",
        "tenant_id=default",
        "listeners=x",
        "name=a&name=b",
        "limit=many",
        # An engine takes so many conditions, but not always in a moment; and some more than that it refuses.
        "tags=" + ",".join(f"t{n}" for n in range(101)),
        "tags-any=" + ",".join(f"t{n}" for n in range(60)) + "&not-tags=" + ",".join(f"t{n}" for n in range(41)),
        "limit=None",
        "marker=nothing",
        "sort=colour",
        "sort=name:sideways",
        "sort_key=colour",
        "sort_key=name&sort_dir=up",
        "sort=listeners",
        "created_at=yesterday",
    ],
)
async def test_what_cannot_be_asked_is_refused(world: World, query: str) -> None:
    await five(world)
    answer = await world.call("GET", f"loadbalancers?{query}")
    assert answer.status == 400
    assert answer.fault


@pytest.mark.parametrize(
    "path, query",
    [
        ("listeners", "loadbalancers=x"),
        ("pools", "listener_id=x"),
        ("healthmonitors", "pools=x"),
        ("l7policies", "rules=x"),
    ],
)
async def test_relations_are_no_filters(world: World, path: str, query: str) -> None:
    assert (await world.call("GET", f"{path}?{query}")).status == 400


def followed(answer: Any, rel: str) -> str | None:
    links = {x["rel"]: x["href"] for x in answer.json["loadbalancers_links"]}
    href = links.get(rel)
    if href is None:
        return None
    parts = urlsplit(href)
    assert (parts.scheme, parts.netloc, parts.path) == ("http", "lb.example:9876", "/v2/lbaas/loadbalancers")
    return f"loadbalancers?{parts.query}"


async def test_pages_lead_to_each_other_both_ways(world: World) -> None:
    await five(world)
    where: str | None = "loadbalancers?limit=2&sort=name:desc&admin_state_up=true"
    seen: list[list[str]] = []
    last = ""
    while where is not None:
        answer = await world.call("GET", where)
        page = [x["name"] for x in answer.json["loadbalancers"]]
        if page:
            last = where
            seen.append(page)
        where = followed(answer, "next")
    assert seen == [["e", "c"], ["b", "a"]]
    back = followed(await world.call("GET", last), "previous")
    assert back is not None
    assert [x["name"] for x in (await world.call("GET", back)).json["loadbalancers"]] == ["e", "c"]


async def test_first_page_has_no_previous_and_an_unlimited_one_no_next(world: World) -> None:
    await five(world)
    assert followed(await world.call("GET", "loadbalancers?limit=2"), "previous") is None
    assert (await world.call("GET", "loadbalancers?limit=0")).json["loadbalancers_links"] == []
    assert (await world.call("GET", "loadbalancers")).json["loadbalancers_links"] == []


async def test_links_keep_every_argument(world: World) -> None:
    await five(world)
    href = followed(
        await world.call("GET", "loadbalancers?limit=1&tags=red&fields=id&fields=name&sort_key=name&sort_dir=desc"),
        "next",
    )
    assert href is not None
    kept = parse_qsl(urlsplit(href).query)
    assert kept[:5] == [
        ("tags", "red"),
        ("fields", "id"),
        ("fields", "name"),
        ("sort_key", "name"),
        ("sort_dir", "desc"),
    ]


async def test_page_is_never_longer_than_the_operator_allows(database_url: str) -> None:
    world = await World.open(database_url, EVERYTHING, ApiSettings(pagination_max_limit=2))
    await five(world)
    for query in ("", "?limit=4"):
        answer = await world.call("GET", f"loadbalancers{query}")
        assert len(answer.json["loadbalancers"]) == 2
        assert followed(answer, "next")
    await world.close()


async def test_chosen_attributes(world: World) -> None:
    load_balancer_id = await world.load_balancer(name="x")

    async def keys(query: str) -> set[str]:
        listed = (await world.call("GET", f"loadbalancers?{query}")).json["loadbalancers"][0]
        shown = (await world.call("GET", f"loadbalancers/{load_balancer_id}?{query}")).one("loadbalancer")
        assert listed == shown
        return set(listed)

    assert await keys("fields=id&fields=name") == {"id", "name"}
    assert await keys("fields=project_id") == {"project_id"}
    assert await keys("fields=tenant_id") == set()
    assert await keys("fields=id,name") == set()
    assert await keys("fields=colour&fields=id") == {"id"}


async def test_children_are_found_by_what_they_belong_to(world: World) -> None:
    one, other = await world.load_balancer(), await world.load_balancer()
    listener_id = await world.listener(one)
    pool_id = await world.pool(one, listener_id=listener_id)
    monitor_id = await world.health_monitor(pool_id)
    policy = await world.make("l7policy", listener_id=listener_id, action="REJECT")
    await world.pool(other)

    async def ids(path: str) -> list[str]:
        answer = await world.call("GET", path)
        assert answer.status == 200, answer.body
        return [x["id"] for x in answer.json[path.partition("?")[0]]]

    assert await ids(f"listeners?loadbalancer_id={one}") == [listener_id]
    assert await ids(f"listeners?loadbalancer_id={other}") == []
    assert await ids(f"pools?loadbalancer_id={one}") == [pool_id]
    assert await ids(f"pools?healthmonitor_id={monitor_id}") == [pool_id]
    assert await ids(f"pools?healthmonitor_id={UNKNOWN}") == []
    assert await ids(f"listeners?default_pool_id={pool_id}") == [listener_id]
    assert await ids(f"healthmonitors?pool_id={pool_id}") == [monitor_id]
    assert await ids(f"l7policies?listener_id={listener_id}") == [policy["id"]]
    assert await ids("healthmonitors?delay=3&type=HTTP") == [monitor_id]


async def test_what_only_a_newer_version_understands_is_listed_as_it_is(world: World) -> None:
    """It hides nothing beside it."""
    load_balancer_id = await world.load_balancer()
    ids = [await world.listener(load_balancer_id, protocol_port=port) for port in (80, 81)]
    table = schema.listener
    newer = Statement(table.update().where(table.c.id == ids[0]).values(protocol="QUIC", fault="{"))
    await world.store.transact(lambda tx: tx.run(newer, {}))
    listed = await world.call("GET", "listeners?sort_key=protocol_port")
    assert (listed.status, [x["protocol"] for x in listed.json["listeners"]]) == (200, ["QUIC", "HTTP"])
    shown = await world.call("GET", f"listeners/{ids[0]}")
    assert (shown.status, shown.json["listener"]["protocol"]) == (200, "QUIC")
