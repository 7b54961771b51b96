"""Flavors and zones of third-party providers: their drivers judge what is written in them, asked through the store; and what
else of their load balancers the API does otherwise."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from frontinus.model.capabilities import Foreign
from frontinus.model.cohorts import CohortName
from frontinus.model.ids import ControllerId, LoadBalancerId
from frontinus.model.offer_questions import OfferAnswer, OfferQuestion, Verdict
from frontinus.store import previews, providers

from tests.integration.api.world import COHORT, EVERYTHING, World

ACME = replace(
    EVERYTHING,
    flavor_keys=frozenset(),
    foreign=Foreign(flavor_words={"size": "How large."}, zone_words=None, fails_over=True),
)


async def answering(world: World, given: OfferAnswer) -> list[OfferQuestion]:
    """What the provider's process was asked, once it has answered one question."""
    owner, cohort = ControllerId("acme's"), CohortName("driver of acme", COHORT.driver_version)
    while True:
        claimed = await world.store.transact(
            lambda tx: previews.claim_about_offers(tx, owner, cohort, world.clock(), 10)
        )
        for each in claimed:
            await world.store.transact(lambda tx, x=each.id: previews.answer(tx, x, owner, given))  # type: ignore[misc]
        if claimed:
            return [x.question for x in claimed]
        await asyncio.sleep(0.01)


def acme(data: str, name: str = "p") -> dict[str, object]:
    return {"flavorprofile": {"name": name, "provider_name": "acme", "flavor_data": data}}


@pytest.mark.parametrize(
    "status,told,given",
    [
        pytest.param(201, "", OfferAnswer(verdict=Verdict.TAKEN), id="taken"),
        pytest.param(501, "no size 9", OfferAnswer(verdict=Verdict.UNSUPPORTED, words="no size 9"), id="refused"),
        pytest.param(503, "on fire", OfferAnswer(verdict=Verdict.TROUBLE, words="on fire"), id="trouble"),
    ],
)
async def test_a_third_partys_driver_judges_its_flavors(
    world: World, status: int, told: str, given: OfferAnswer
) -> None:
    await world.register(ACME, provider="acme")
    listed = (await world.call("GET", "providers/acme/flavor_capabilities")).json["flavor_capabilities"]
    assert listed == [{"name": "size", "description": "How large."}]
    answer, asked = await asyncio.gather(
        world.call("POST", "flavorprofiles", acme('{"size": 9, "own": {"a": [1]}}')), answering(world, given)
    )
    assert (answer.status, told in answer.fault if status != 201 else True) == (status, True), answer.body
    assert asked == [OfferQuestion(flavor={"size": 9, "own": {"a": [1]}})]
    stored = (await world.call("GET", "flavorprofiles")).json["flavorprofiles"]
    assert len(stored) == (1 if status == 201 else 0)


async def test_what_a_third_partys_driver_cannot_be_asked_is_not_stored(world: World) -> None:
    await world.register(ACME, provider="acme")
    answer = await world.call("POST", "flavorprofiles", acme('{"size": 1}'))
    assert (answer.status, "controller --provider" in answer.fault) == (503, True), answer.body
    assert (await world.call("POST", "flavorprofiles", acme("{}"))).status == 201, "nothing is asked of it"
    assert (await world.call("POST", "flavorprofiles", acme("[]"))).status == 400


async def test_a_third_partys_flavor_is_asked_about_again_when_it_changes(world: World) -> None:
    await world.register(ACME, provider="acme")
    taken = OfferAnswer(verdict=Verdict.TAKEN)
    made, _ = await asyncio.gather(world.call("POST", "flavorprofiles", acme('{"size": 1}')), answering(world, taken))
    path = f"flavorprofiles/{made.one('flavorprofile')['id']}"
    assert (await world.call("PUT", path, {"flavorprofile": {"name": "n"}})).status == 200, "a name is no matter of it"
    changed, asked = await asyncio.gather(
        world.call("PUT", path, {"flavorprofile": {"flavor_data": '{"size": 2}'}}), answering(world, taken)
    )
    assert (changed.status, asked) == (200, [OfferQuestion(flavor={"size": 2})])


async def test_load_balancers_of_a_third_party_take_its_flavors_and_fail_over_if_it_can(world: World) -> None:
    await world.register(ACME, provider="acme")
    taken = OfferAnswer(verdict=Verdict.TAKEN)
    profile, _ = await asyncio.gather(
        world.call("POST", "flavorprofiles", acme('{"size": 1, "compute_flavor": 7}')), answering(world, taken)
    )
    flavor = await world.make("flavor", name="f", flavor_profile_id=profile.one("flavorprofile")["id"])
    load_balancer_id = await world.load_balancer(flavor_id=flavor["id"])
    made = (await world.tree(load_balancer_id)).load_balancer
    assert (made.provider, made.placement) == ("acme", None), "its words mean nothing here"
    pool = await world.pool(load_balancer_id)
    await world.member(pool)

    assert (await world.call("PUT", f"loadbalancers/{load_balancer_id}/failover")).status == 202
    asked = await world.store.read(lambda tx: providers.failover_requested_at(tx, LoadBalancerId(load_balancer_id)))
    assert asked == world.clock.now
    await world.register(replace(ACME, foreign=Foreign()), provider="acme")
    generation = (await world.tree(load_balancer_id)).load_balancer.generation
    refused = await world.call("PUT", f"loadbalancers/{load_balancer_id}/failover")
    assert (refused.status, "does no failovers" in refused.fault) == (501, True), refused.body
    assert (await world.tree(load_balancer_id)).load_balancer.generation == generation

    tried = await world.call("PUT", f"loadbalancers/{load_balancer_id}?dry_run=true", {"loadbalancer": {"name": "x"}})
    assert tried.json["dry_run"]["preview"] == "none", "nobody is waited for"
