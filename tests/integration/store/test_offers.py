"""Flavors, zones and profiles: unique where they must be, kept while they are used."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from msgspec.structs import replace

from frontinus.model.enums import Kind, ProvisioningStatus
from frontinus.model.errors import Bug, Conflict, Invalid, NotFound
from frontinus.model.ids import AvailabilityZoneProfileId, FlavorId, FlavorProfileId, LoadBalancerId, new_id
from frontinus.model.offers import AvailabilityZone, AvailabilityZoneProfile, Flavor, FlavorProfile
from frontinus.store import listing, offers, profiles
from frontinus.store.engine import Store, Transaction
from frontinus.store.listing import Query

from tests.integration.store.world import NOW, a_tree, create

pytestmark = pytest.mark.integration


def a_profile(kind: Kind) -> Any:
    if kind is Kind.FLAVOR:
        return FlavorProfile(
            id=FlavorProfileId(new_id()), name="x", provider_name="amphora", flavor_data="{}", created_at=NOW
        )
    return AvailabilityZoneProfile(
        id=AvailabilityZoneProfileId(new_id()),
        name="x",
        provider_name="amphora",
        availability_zone_data="{}",
        created_at=NOW,
    )


def an_offer(profile: Any, name: str = "gold") -> Any:
    if isinstance(profile, FlavorProfile):
        return Flavor(id=FlavorId(new_id()), name=name, flavor_profile_id=profile.id, created_at=NOW)
    return AvailabilityZone(name=name, availability_zone_profile_id=profile.id, created_at=NOW)


BOTH = pytest.mark.parametrize("kind", [Kind.FLAVOR, Kind.AVAILABILITY_ZONE])


def key_of(offer: Any) -> str:
    return str(getattr(offer, listing.key_of(offer.kind)))


async def add(store: Store, *many: Any) -> None:
    def work(tx: Transaction) -> None:
        for each in many:
            offers.add(tx, each)

    await store.transact(work)


@BOTH
async def test_a_name_is_given_once(store: Store, kind: Kind) -> None:
    profile = a_profile(kind)
    await add(store, profile, replace(profile, id=new_id()), an_offer(profile), an_offer(profile, "iron"))
    with pytest.raises(Conflict) as caught:
        await add(store, an_offer(profile))
    assert caught.value.field == f"{kind}.name"


async def test_a_flavor_is_found_by_its_id_before_another_of_that_name(store: Store) -> None:
    profile, others = a_profile(Kind.FLAVOR), replace(a_profile(Kind.FLAVOR), flavor_data='{"compute_flavor": "big"}')
    gold = an_offer(profile)
    jester = an_offer(others, gold.id)
    await add(store, profile, others, jester, gold)
    cases = {gold.id: (gold.id, "{}"), "gold": (gold.id, "{}"), jester.id: (jester.id, others.flavor_data)}
    for which, (flavor_id, data) in cases.items():
        assert await store.read(partial(profiles.find_flavor, which=which)) == flavor_id
        assert await store.read(partial(profiles.flavor_data, which=which)) == data
    assert await store.read(partial(profiles.find_flavor, which="iron")) is None
    with pytest.raises(Invalid, match="iron"):
        await store.read(partial(profiles.flavor_data, which="iron"))


async def test_a_flavor_cannot_take_anothers_name_but_keeps_its_own(store: Store) -> None:
    profile = a_profile(Kind.FLAVOR)
    gold, iron = an_offer(profile), an_offer(profile, "iron")
    await add(store, profile, gold, iron)
    with pytest.raises(Conflict):
        await store.transact(lambda tx: offers.change(tx, iron, replace(iron, name="gold")))
    await store.transact(lambda tx: offers.change(tx, iron, replace(iron, description="heavy", enabled=False)))
    found = await store.read(lambda tx: listing.get_flavor(tx, iron.id))
    assert found is not None
    assert found.value == replace(iron, description="heavy", enabled=False)


@BOTH
async def test_what_is_used_stays(store: Store, kind: Kind) -> None:
    profile = a_profile(kind)
    offer = an_offer(profile)
    await add(store, profile, offer)
    tree = a_tree(listeners=0, pools=0, members=0)
    used = {"flavor_id": key_of(offer)} if kind is Kind.FLAVOR else {"availability_zone": key_of(offer)}
    deleted = replace(tree.load_balancer, provisioning_status=ProvisioningStatus.DELETED, **used)
    await create(store, replace(tree, load_balancer=deleted))
    assert await store.read(lambda tx: offers.user_of(tx, kind, key_of(offer))) is None
    serving = replace(tree.load_balancer, id=LoadBalancerId(new_id()), **used)
    await create(store, replace(tree, load_balancer=serving))
    with pytest.raises(Conflict) as caught:
        await store.transact(lambda tx: offers.remove(tx, kind, key_of(offer)))
    assert serving.id in caught.value.reason
    with pytest.raises(Conflict):
        await store.transact(lambda tx: offers.remove(tx, profile.kind, profile.id))


@BOTH
async def test_what_is_not_used_goes(store: Store, kind: Kind) -> None:
    profile = a_profile(kind)
    offer = an_offer(profile)
    await add(store, profile, offer)
    await store.transact(lambda tx: offers.remove(tx, kind, key_of(offer)))
    await store.transact(lambda tx: offers.remove(tx, profile.kind, profile.id))
    for gone in (offer, profile):
        with pytest.raises(NotFound):
            await store.transact(partial(offers.remove, kind=gone.kind, key=key_of(gone)))


@BOTH
async def test_the_database_itself_refuses_a_profile_that_is_not_there(store: Store, kind: Kind) -> None:
    with pytest.raises(Bug):
        await add(store, an_offer(a_profile(kind)))


async def test_zones_are_paged_by_name(store: Store) -> None:
    profile = a_profile(Kind.AVAILABILITY_ZONE)
    await add(store, profile, *(an_offer(profile, name) for name in "bca"))
    first = await store.read(lambda tx: listing.list_availability_zones(tx, Query(limit=2)))
    rest = await store.read(lambda tx: listing.list_availability_zones(tx, Query(limit=2, marker=first[-1].value.name)))
    assert [x.value.name for x in (*first, *rest)] == ["a", "b", "c"]
    disabled = await store.read(lambda tx: listing.list_availability_zones(tx, Query(filters=(("enabled", False),))))
    assert disabled == []
