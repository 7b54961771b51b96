"""Flavors, availability zones and their profiles over HTTP, all four by one table."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest

from frontinus.api.app import create_app
from frontinus.api.settings import ApiSettings
from frontinus.model.capabilities import Capabilities
from frontinus.model.errors import Invalid, Retry
from frontinus.model.offers import AVAILABILITY_ZONE_KEYS, FLAVOR_KEYS
from frontinus.testing.fake_network import FakeNetwork

from tests.integration.api.world import UNKNOWN, World


@dataclass(frozen=True)
class Trade:
    """One of the two: a flavor or a zone, with its profile."""

    profiles: str
    profile: str
    data: str
    profile_links: str
    offers: str
    offer: str
    reference: str
    offer_links: str
    good: dict[str, object]

    @property
    def profiles_key(self) -> str:
        return "availability_zone_profiles" if self.offer == "availability_zone" else self.profiles

    @property
    def offers_key(self) -> str:
        return "availability_zones" if self.offer == "availability_zone" else self.offers

    def key(self, shown: Any) -> str:
        return str(shown["name"] if self.offer == "availability_zone" else shown["id"])


FLAVORS = Trade(
    profiles="flavorprofiles",
    profile="flavorprofile",
    data="flavor_data",
    profile_links="flavorprofile_links",
    offers="flavors",
    offer="flavor",
    reference="flavor_profile_id",
    offer_links="flavors_links",
    good={"loadbalancer_topology": "ACTIVE_STANDBY"},
)
ZONES = Trade(
    profiles="availabilityzoneprofiles",
    profile="availability_zone_profile",
    data="availability_zone_data",
    profile_links="availability_zone_profile_links",
    offers="availabilityzones",
    offer="availability_zone",
    reference="availability_zone_profile_id",
    offer_links="availability_zones_links",
    good={"valid_vip_networks": ["n1"]},
)
both = pytest.mark.parametrize("trade", [FLAVORS, ZONES], ids=lambda x: x.offers)


async def a_profile(world: World, trade: Trade, **data: object) -> Any:
    values = {"name": "p", "provider_name": "amphora", trade.data: json.dumps(data or trade.good)}
    return await world.make(trade.profile, **values)


async def an_offer(world: World, trade: Trade, profile_id: str, name: str = "gold", **values: object) -> Any:
    return await world.make(trade.offer, name=name, **{trade.reference: profile_id}, **values)


@pytest.mark.engines
@both
async def test_life_of_a_profile_and_of_what_stands_on_it(world: World, trade: Trade) -> None:
    profile = await a_profile(world, trade)
    assert profile == {
        "id": profile["id"],
        "name": "p",
        "provider_name": "amphora",
        trade.data: json.dumps(trade.good),
    }
    where = f"{trade.profiles}/{profile['id']}"
    assert (await world.call("GET", where)).one(trade.profile) == profile
    listed = (await world.call("GET", trade.profiles)).json
    assert listed == {trade.profiles_key: [profile], trade.profile_links: []}

    offer = await an_offer(world, trade, profile["id"])
    shown = {"name": "gold", "description": "", "enabled": True, trade.reference: profile["id"]}
    assert {key: value for key, value in offer.items() if key != "id"} == shown
    there = f"{trade.offers}/{trade.key(offer)}"
    assert (await world.call("GET", there)).one(trade.offer) == offer
    changed = (await world.call("PUT", there, {trade.offer: {"enabled": "no", "description": "d"}})).one(trade.offer)
    assert changed == offer | {"enabled": False, "description": "d"}
    listed = (await world.call("GET", trade.offers)).json
    assert listed == {trade.offers_key: [changed], trade.offer_links: []}

    assert (await world.call("DELETE", where)).status == 409, "it is used"
    assert (await world.call("DELETE", there)).status == 204
    assert (await world.call("GET", there)).status == 404
    assert (await world.call("DELETE", there)).status == 404
    assert (await world.call("DELETE", where)).status == 204
    assert (await world.call("GET", where)).status == 404
    assert (await world.call("PUT", where, {trade.profile: {"name": "x"}})).status == 404


@both
async def test_lists_are_filtered_sorted_paged_and_cut(world: World, trade: Trade) -> None:
    first, second = await a_profile(world, trade), await a_profile(world, trade)
    for name, profile in (("silver", first), ("gold", second), ("bronze", first)):
        await an_offer(world, trade, profile["id"], name, enabled=name != "gold")

    async def listed(query: str) -> list[str]:
        return [x["name"] for x in next(iter((await world.call("GET", f"{trade.offers}?{query}")).json.values()))]

    assert await listed("") == ["silver", "gold", "bronze"]
    assert await listed("sort=name") == ["bronze", "gold", "silver"]
    assert await listed(f"{trade.reference}={first['id']}") == ["silver", "bronze"]
    assert await listed("enabled=false") == ["gold"]
    assert await listed("name=gold&description=") == ["gold"]
    gold = next(iter((await world.call("GET", f"{trade.offers}?name=gold")).json.values()))[0]
    assert await listed(f"limit=1&marker={trade.key(gold)}") == ["bronze"]
    picked = (await world.call("GET", f"{trade.offers}?fields=name&name=gold")).json
    assert next(iter(picked.values())) == [{"name": "gold"}]
    assert (await world.call("GET", f"{trade.offers}?created_at=2026-01-31T12:00:00")).status == 400


@both
async def test_names_of_offers_are_unique_and_those_of_profiles_are_not(world: World, trade: Trade) -> None:
    profile = await a_profile(world, trade)
    await a_profile(world, trade)
    await an_offer(world, trade, profile["id"])
    again = await world.call("POST", trade.offers, {trade.offer: {"name": "gold", trade.reference: profile["id"]}})
    assert again.status == 409
    if trade is FLAVORS:
        other = await an_offer(world, trade, profile["id"], "silver")
        renamed = await world.call("PUT", f"flavors/{other['id']}", {"flavor": {"name": "gold"}})
        assert renamed.status == 409
        assert (await world.call("PUT", f"flavors/{other['id']}", {"flavor": {"name": "silver"}})).status == 200


@both
async def test_a_profile_in_use_keeps_what_it_means(world: World, trade: Trade) -> None:
    profile = await a_profile(world, trade)
    where = f"{trade.profiles}/{profile['id']}"

    async def change(**values: object) -> int:
        return (await world.call("PUT", where, {trade.profile: values})).status

    assert await change(**{trade.data: "{}"}) == 200
    assert await change(provider_name="octavia") == 200
    await an_offer(world, trade, profile["id"])
    assert await change(**{trade.data: json.dumps(trade.good)}) == 409
    assert await change(provider_name="amphora") == 409
    assert await change(name="another", provider_name="octavia", **{trade.data: "{}"}) == 200
    shown = (await world.call("GET", where)).one(trade.profile)
    assert (shown["name"], shown["provider_name"], shown[trade.data]) == ("another", "octavia", "{}")


@pytest.mark.parametrize(
    "trade, text, status",
    [
        pytest.param(FLAVORS, "gold", 400, id="no JSON"),
        pytest.param(FLAVORS, "[]", 400, id="a list"),
        pytest.param(FLAVORS, "", 400, id="empty"),
        pytest.param(FLAVORS, '{"a":' * 5000, 400, id="too long"),
        pytest.param(FLAVORS, '{"a":' * 800, 400, id="deep"),
        pytest.param(FLAVORS, '{"speed": 9}', 501, id="unknown key"),
        pytest.param(FLAVORS, '{"loadbalancer_topology": "TRIPLE"}', 501, id="no topology"),
        pytest.param(FLAVORS, '{"sriov_vip": "yes"}', 501, id="no boolean"),
        pytest.param(FLAVORS, '{"compute_flavor": null}', 501, id="null"),
        pytest.param(FLAVORS, '{"compute_flavor": "m1", "amp_image_tag": "t", "sriov_vip": false}', 201, id="flavor"),
        pytest.param(ZONES, "{", 400, id="no JSON zone"),
        pytest.param(ZONES, '{"valid_vip_networks": "n1"}', 501, id="networks are a list"),
        pytest.param(ZONES, '{"planet": "mars"}', 501, id="unknown key of a zone"),
        pytest.param(ZONES, '{"compute_zone": "a", "volume_zone": "b", "management_network": "c"}', 201, id="zone"),
    ],
)
async def test_data_are_judged_when_a_profile_is_written(world: World, trade: Trade, text: str, status: int) -> None:
    values = {"name": "p", "provider_name": "amphora", trade.data: text}
    answer = await world.call("POST", trade.profiles, {trade.profile: values})
    assert answer.status == status, answer.body
    if status != 201:
        assert trade.data in answer.fault
    profile = await a_profile(world, trade)
    answer = await world.call("PUT", f"{trade.profiles}/{profile['id']}", {trade.profile: {trade.data: text}})
    assert answer.status == (200 if status == 201 else status), answer.body


class OneManaged(FakeNetwork):
    """Has one network by which amphorae can be managed, called `there`, unless it cannot be asked."""

    is_away = False

    async def require_management_network(self, id_or_name: str, field: str) -> None:
        if self.is_away:
            raise Retry("neutron cannot be asked", after=5.0)
        if id_or_name != "there":
            raise Invalid(field, f"no network {id_or_name!r}")


async def test_a_zone_promises_no_network_for_management_that_is_not_there(world: World) -> None:
    network = OneManaged()
    world.app = create_app(world.store, network, ApiSettings(), world.clock)

    def body(name: str) -> dict[str, Any]:
        data = json.dumps({"compute_zone": "a", "management_network": name})
        return {ZONES.profile: {"name": "p", "provider_name": "amphora", ZONES.data: data}}

    refused = await world.call("POST", ZONES.profiles, body("elsewhere"))
    assert (refused.status, "availability_zone_data.management_network" in refused.fault) == (400, True), refused.fault
    made = (await world.call("POST", ZONES.profiles, body("there"))).one(ZONES.profile)
    where = f"{ZONES.profiles}/{made['id']}"
    assert (await world.call("PUT", where, body("elsewhere"))).status == 400
    network.is_away = True
    assert (await world.call("POST", ZONES.profiles, body("there"))).status == 503
    assert (await world.call("PUT", where, {ZONES.profile: {"name": "q"}})).status == 200, "its data are as they were"
    assert (await world.call("GET", where)).one(ZONES.profile)[ZONES.data] == made[ZONES.data]
    assert len((await world.call("GET", ZONES.profiles)).json[ZONES.profiles_key]) == 1

    await world.register(Capabilities(availability_zone_keys=frozenset({"compute_zone"})), provider="plain")
    plain = body("there")
    plain[ZONES.profile]["provider_name"] = "plain"
    assert (await world.call("POST", ZONES.profiles, plain)).status == 501, "a driver without the feature is not asked"


@both
async def test_a_provider_must_be_enabled_and_take_the_key(world: World, trade: Trade) -> None:
    values = {"name": "p", "provider_name": "nobody", trade.data: "{}"}
    answer = await world.call("POST", trade.profiles, {trade.profile: values})
    assert answer.status == 400
    assert "provider_name" in answer.fault
    await world.register(Capabilities(flavor_keys=frozenset(), availability_zone_keys=frozenset()), provider="plain")
    values = {"name": "p", "provider_name": "plain", trade.data: json.dumps(trade.good)}
    answer = await world.call("POST", trade.profiles, {trade.profile: values})
    assert answer.status == 501
    assert next(iter(trade.good)) in answer.fault


@both
async def test_an_offer_needs_a_profile_that_is_there(world: World, trade: Trade) -> None:
    answer = await world.call("POST", trade.offers, {trade.offer: {"name": "gold", trade.reference: UNKNOWN}})
    assert answer.status == 400
    assert trade.reference in answer.fault
    assert (await world.call("POST", trade.offers, {trade.offer: {"name": "gold"}})).status == 400
    profile = await a_profile(world, trade)
    offer = await an_offer(world, trade, profile["id"])
    other = await a_profile(world, trade)
    where = f"{trade.offers}/{trade.key(offer)}"
    assert (await world.call("PUT", where, {trade.offer: {trade.reference: other["id"]}})).status == 400


@pytest.mark.parametrize("name", ["", " ", "a/b", "..", "zone.json"])
async def test_a_zone_has_a_name_that_can_stand_in_a_path(world: World, name: str) -> None:
    profile = await a_profile(world, ZONES)
    values = {"name": name, ZONES.reference: profile["id"]}
    answer = await world.call("POST", "availabilityzones", {"availability_zone": values})
    assert answer.status == 400
    assert "availability_zone.name" in answer.fault


async def test_a_providers_keys_are_listed(world: World) -> None:
    for word, keys in (
        ("flavor_capabilities", FLAVOR_KEYS),
        ("availability_zone_capabilities", AVAILABILITY_ZONE_KEYS),
    ):
        where = f"providers/amphora/{word}"
        shown = (await world.call("GET", where)).one(word)
        assert {x["name"]: x["description"] for x in shown} == keys
        some = next(iter(keys))
        assert (await world.call("GET", f"{where}?name={some}&fields=name")).one(word) == [{"name": some}]
        assert (await world.call("GET", f"{where}?description=x")).one(word) == []
        assert (await world.call("GET", f"{where}?colour=x")).status == 400
        assert (await world.call("GET", f"providers/nobody/{word}")).status == 400
    assert (await world.call("GET", "providers/amphora")).status in (404, 405)
    await world.register(Capabilities(), provider="plain")
    shown = (await world.call("GET", "providers/plain/flavor_capabilities")).one("flavor_capabilities")
    assert [x["name"] for x in shown] == ["loadbalancer_topology"]


@both
async def test_who_has_not_seen_the_last_change_may_not_edit(world: World, trade: Trade) -> None:
    profile = await a_profile(world, trade)
    where = f"{trade.profiles}/{profile['id']}"
    seen = (await world.call("GET", where)).headers["etag"]
    assert (await world.call("PUT", where, {trade.profile: {"name": "new"}}, {"If-Match": seen})).status == 200
    assert (await world.call("PUT", where, {trade.profile: {"name": "x"}}, {"If-Match": seen})).status == 412
    assert (await world.call("DELETE", where, headers={"If-Match": seen})).status == 412
