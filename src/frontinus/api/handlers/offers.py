"""Flavors, availability zones and their profiles: create, update, delete; and what a provider takes in them.

The four kinds are one table: what differs is who an object is known by, what it stands on, and who judges its data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from msgspec.structs import replace
from starlette.responses import Response

from frontinus.api.asking import ask
from frontinus.api.calls import Call, Handler, empty_response, json_response
from frontinus.api.changes import not_found
from frontinus.api.commits import commit
from frontinus.api.dry_run import real_store
from frontinus.api.etags import object_response, require_match
from frontinus.api.fields import AVAILABILITY_ZONE, AVAILABILITY_ZONE_PROFILE, FLAVOR, FLAVOR_PROFILE, Resource
from frontinus.api.placing import capabilities_of, place
from frontinus.api.reading import FIELDS, SOURCES
from frontinus.api.rendering import render
from frontinus.api.requests import Operation, parse_body
from frontinus.api.written import Written
from frontinus.model.capabilities import Capabilities, Foreign, refuse_small_memory
from frontinus.model.cohorts import CohortName
from frontinus.model.enums import Kind
from frontinus.model.errors import Conflict, Invalid, Retry, Unsupported
from frontinus.model.ids import AvailabilityZoneProfileId, FlavorId, FlavorProfileId, new_id
from frontinus.model.offer_questions import OfferQuestion, Verdict
from frontinus.model.offers import (
    AVAILABILITY_ZONE_KEYS,
    FLAVOR_KEYS,
    AvailabilityZone,
    AvailabilityZoneData,
    AvailabilityZoneProfile,
    Flavor,
    FlavorData,
    FlavorProfile,
    asked_keys,
    read_availability_zone_data,
    read_flavor_data,
    read_object,
)
from frontinus.model.placement import MANAGEMENT_NETWORK
from frontinus.store import offers, previews
from frontinus.store.engine import Transaction
from frontinus.store.offers import Offer


class _Profiles(msgspec.Struct, frozen=True):
    """How the data of one kind of profile are judged: by us, or, of a third-party provider, by its driver."""

    field: str
    read: Callable[[str, str], FlavorData | AvailabilityZoneData]
    taken: Callable[[Capabilities], frozenset[str]]
    foreign_words: Callable[[Foreign], dict[str, str] | None]
    question: Callable[[dict[str, Any]], OfferQuestion]


class _Trade(msgspec.Struct, frozen=True):
    """What one kind of offer is made of. `stands_on` is the kind of its profile, and the attribute that names it."""

    resource: Resource
    make: Callable[..., Any]
    new_key: Mapping[str, Callable[[], str]]
    stands_on: tuple[Kind, str] | None = None
    data: _Profiles | None = None


_FLAVOR_DATA = _Profiles(
    "flavor_data",
    read_flavor_data,
    lambda x: x.flavor_keys,
    lambda x: x.flavor_words,
    lambda x: OfferQuestion(flavor=x),
)
_ZONE_DATA = _Profiles(
    "availability_zone_data",
    read_availability_zone_data,
    lambda x: x.availability_zone_keys,
    lambda x: x.zone_words,
    lambda x: OfferQuestion(zone=x),
)

_TRADES: Mapping[Kind, _Trade] = {
    Kind.FLAVOR_PROFILE: _Trade(
        FLAVOR_PROFILE, FlavorProfile, {"id": lambda: FlavorProfileId(new_id())}, data=_FLAVOR_DATA
    ),
    Kind.FLAVOR: _Trade(
        FLAVOR, Flavor, {"id": lambda: FlavorId(new_id())}, stands_on=(Kind.FLAVOR_PROFILE, "flavor_profile_id")
    ),
    Kind.AVAILABILITY_ZONE_PROFILE: _Trade(
        AVAILABILITY_ZONE_PROFILE,
        AvailabilityZoneProfile,
        {"id": lambda: AvailabilityZoneProfileId(new_id())},
        data=_ZONE_DATA,
    ),
    Kind.AVAILABILITY_ZONE: _Trade(
        AVAILABILITY_ZONE,
        AvailabilityZone,
        {},
        stands_on=(Kind.AVAILABILITY_ZONE_PROFILE, "availability_zone_profile_id"),
    ),
}


def create(kind: Kind) -> Handler:
    """The handler of POST."""
    trade = _TRADES[kind]

    async def create_offer(call: Call) -> Response:
        asked = parse_body(trade.resource, Operation.CREATE, call.body)
        if kind is Kind.AVAILABILITY_ZONE:
            _require_addressable(asked.values["name"], f"{asked.path}.name")
        keys = {name: make() for name, make in trade.new_key.items()}
        offer = trade.make(created_at=call.api.clock(), **keys, **asked.values)
        await _ask_drivers(call, trade, offer, asked.path)

        def work(tx: Transaction) -> Response:
            _judge(tx, call, trade, offer, asked.path)
            offers.add(tx, offer)
            return object_response(trade.resource, render(trade.resource, offer, {}), 201)

        return await commit(call, work)

    return create_offer


def update(kind: Kind) -> Handler:
    """The handler of PUT. What flavors or zones stand on keeps its provider and its data (409)."""
    trade = _TRADES[kind]

    async def update_offer(call: Call) -> Response:
        asked = parse_body(trade.resource, Operation.UPDATE, call.body)
        key = call.params[kind]
        if trade.data is not None:
            known = await call.api.store.read(lambda tx: SOURCES[kind].get(tx, key))
            if known is not None:
                wanted = replace(known.value, **asked.values)
                if _means_another(trade.data, known.value, wanted):
                    await _ask_drivers(call, trade, wanted, asked.path)

        def work(tx: Transaction) -> Response:
            # Held first, so that nobody begins to stand on it meanwhile.
            found = SOURCES[kind].get(tx, key) if offers.hold(tx, kind, key) else None
            if found is None:
                raise not_found(kind, key)
            before = found.value
            after: Offer = replace(before, **asked.values)
            if trade.data is not None and _means_another(trade.data, before, after):
                _judge(tx, call, trade, after, asked.path)
                user = offers.user_of(tx, kind, key)
                if user is not None:
                    raise Conflict(kind, f"{key} is used by {user}; only its name can be changed")
            require_match(call.headers, render(trade.resource, before, {}))
            offers.change(tx, before, after)
            return object_response(trade.resource, render(trade.resource, after, {}))

        return await commit(call, work)

    return update_offer


def delete(kind: Kind) -> Handler:
    """The handler of DELETE. What is used stays (409)."""
    resource = _TRADES[kind].resource

    async def delete_offer(call: Call) -> Response:
        key = call.params[kind]

        def work(tx: Transaction) -> Written:
            found = SOURCES[kind].get(tx, key)
            shown = {} if found is None else render(resource, found.value, {})
            if found is not None:
                require_match(call.headers, shown)
            offers.remove(tx, kind, key)
            return Written(answer=empty_response(204), shown=lambda: {resource.item_key: shown})

        return await commit(call, work)

    return delete_offer


async def list_flavor_capabilities(call: Call) -> Response:
    """The keys of flavor data that a provider takes."""
    return await _list_keys(call, "flavor_capabilities", FLAVOR_KEYS, _FLAVOR_DATA)


async def list_availability_zone_capabilities(call: Call) -> Response:
    """The keys of availability zone data that a provider takes."""
    return await _list_keys(call, "availability_zone_capabilities", AVAILABILITY_ZONE_KEYS, _ZONE_DATA)


async def _list_keys(call: Call, collection: str, described: Mapping[str, str], data: _Profiles) -> Response:
    api, provider = call.api, call.params["provider"]
    found = await api.store.read(lambda tx: capabilities_of(tx, api, provider, "provider"))
    if found.foreign is None:
        known = {key: words for key, words in described.items() if key in data.taken(found)}
    else:
        known = data.foreign_words(found.foreign) or {}
    shown = [{"name": key, "description": words} for key, words in known.items()]
    for name in ("name", "description"):
        wanted = call.argument(name)
        if wanted is not None:
            shown = [x for x in shown if x[name] == wanted]
    picked = call.arguments(FIELDS)
    if picked:
        shown = [{key: value for key, value in x.items() if key in picked} for x in shown]
    return json_response({collection: shown})


async def _ask_drivers(call: Call, trade: _Trade, offer: Any, path: str) -> None:
    """What is not for us to judge, before anything is written: the network driver knows whether the network for management is
    there, and a third-party provider's driver judges all of its data. Raises Invalid, Unsupported with the driver's words, and
    Retry while one cannot be asked."""
    if trade.data is None:
        return
    api, provider, field = call.api, offer.provider_name, f"{path}.{trade.data.field}"
    text = getattr(offer, trade.data.field)
    offered = await api.store.read(lambda tx: capabilities_of(tx, api, provider, f"{path}.provider_name"))
    if offered.foreign is None:
        known = trade.data.read(text, field)
        network = known.management_network if isinstance(known, AvailabilityZoneData) else None
        if network is not None and MANAGEMENT_NETWORK in offered.availability_zone_keys:
            await api.network.require_management_network(network, f"{field}.{MANAGEMENT_NETWORK}")
        return
    data = read_object(text, field)
    if not data:
        return

    def cohort(tx: Transaction) -> CohortName | None:
        return place(tx, api, provider)[1]

    question = trade.data.question(data)
    answer = await ask(call, real_store(call), provider, question, previews.offer_answer_to, cohort_of=cohort)
    if answer is None:
        reason = (
            f"whether the provider {provider} takes this only its driver can say, and its process does not answer; see that "
            f"`frontinus controller --provider {api.settings.served_by(provider)}` runs"
        )
        raise Retry(reason, after=5.0)
    if answer.verdict is Verdict.UNSUPPORTED:
        raise Unsupported(field, answer.words)
    if answer.verdict is Verdict.TROUBLE:
        raise Retry(
            f"the driver of the provider {provider} could not say whether it takes this: {answer.words}", after=5.0
        )


def _judge(tx: Transaction, call: Call, trade: _Trade, offer: Any, path: str) -> None:
    """Raise Invalid for a provider that is not enabled, data that are no JSON object, or a profile that is not there;
    Unsupported for data that the provider does not take."""
    if trade.data is not None:
        field = f"{path}.{trade.data.field}"
        published = capabilities_of(tx, call.api, offer.provider_name, f"{path}.provider_name")
        if published.foreign is not None:
            read_object(getattr(offer, trade.data.field), field)
            return
        data = trade.data.read(getattr(offer, trade.data.field), field)
        for key in asked_keys(data):
            if key not in trade.data.taken(published):
                raise Unsupported(field, f"the provider {offer.provider_name} does not take {key!r}")
        if isinstance(data, FlavorData):
            refuse_small_memory(data, published, field)
    if trade.stands_on is not None:
        kind, attribute = trade.stands_on
        profile_id = getattr(offer, attribute)
        if not offers.hold(tx, kind, profile_id):
            raise Invalid(f"{path}.{attribute}", f"there is no {kind.replace('_', ' ')} {profile_id}")


def _means_another(data: _Profiles, before: Any, after: Any) -> bool:
    return any(getattr(before, x) != getattr(after, x) for x in ("provider_name", data.field))


def _require_addressable(name: str, field: str) -> None:
    """A zone is known by its name in paths, where not every text can stand. Raises Invalid."""
    if not name.strip() or name in (".", "..") or "/" in name or name.endswith(".json"):
        raise Invalid(field, "must be a name that can stand in a path: not empty, no slash, not ending in .json")
