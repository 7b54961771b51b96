"""The attributes of what an operator offers: flavors, availability zones, and the profiles of both."""

from __future__ import annotations

from frontinus.api.fields.rows import REQUIRED, Field, Resource, Rule, read_only, stored
from frontinus.api.wire_types import Boolean, Text, Uuid
from frontinus.model.enums import Kind
from frontinus.model.offers import MAX_DATA

FLAVORS_SINCE, ZONES_SINCE = "2.6", "2.14"


def _offer_rows(profile: str, what: str, since: str) -> tuple[Field, ...]:
    """What a flavor and a zone have besides a name."""
    return (
        stored(
            "description",
            Text(prose=True),
            "Words for people.",
            create=Rule("", ""),
            nested=None,
            update=Rule(null=""),
            since=since,
        ),
        stored(
            "enabled",
            Boolean(),
            "Whether new load balancers may ask for it.",
            create=Rule(True),
            nested=None,
            update=Rule(),
            since=since,
        ),
        stored(profile, Uuid(), f"What the {what} stands for.", create=Rule(REQUIRED), nested=None, since=since),
    )


def _profile_rows(data: str, keys: str, since: str) -> tuple[Field, ...]:
    """What both kinds of profile have besides a name."""
    return (
        stored(
            "provider_name",
            Text(),
            "The provider that it is for.",
            create=Rule(REQUIRED),
            nested=None,
            update=Rule(),
            since=since,
        ),
        stored(
            data,
            Text(MAX_DATA, prose=True),
            f"A text that holds a JSON object. The keys that a provider takes: {keys}.",
            create=Rule(REQUIRED),
            nested=None,
            update=Rule(),
            since=since,
        ),
    )


FLAVOR_PROFILE = Resource(
    kind=Kind.FLAVOR_PROFILE,
    item_key="flavorprofile",
    collection_key="flavorprofiles",
    links="flavorprofile_links",
    fields=(
        read_only("id", Uuid(), "Given by the server.", since=FLAVORS_SINCE),
        stored(
            "name",
            Text(),
            "A name; need not be unique.",
            create=Rule(REQUIRED, ""),
            nested=None,
            update=Rule(),
            since=FLAVORS_SINCE,
        ),
        *_profile_rows("flavor_data", "GET …/providers/{provider}/flavor_capabilities", FLAVORS_SINCE),
    ),
)

FLAVOR = Resource(
    kind=Kind.FLAVOR,
    item_key="flavor",
    collection_key="flavors",
    fields=(
        read_only("id", Uuid(), "Given by the server.", since=FLAVORS_SINCE),
        stored(
            "name",
            Text(),
            "A name that no other flavor has.",
            create=Rule(REQUIRED, ""),
            nested=None,
            update=Rule(null=""),
            since=FLAVORS_SINCE,
        ),
        *_offer_rows("flavor_profile_id", "flavor", FLAVORS_SINCE),
    ),
)

AVAILABILITY_ZONE_PROFILE = Resource(
    kind=Kind.AVAILABILITY_ZONE_PROFILE,
    item_key="availability_zone_profile",
    collection_key="availability_zone_profiles",
    links="availability_zone_profile_links",
    path="availabilityzoneprofiles",
    fields=(
        read_only("id", Uuid(), "Given by the server.", since=ZONES_SINCE),
        stored(
            "name",
            Text(),
            "A name; need not be unique.",
            create=Rule(REQUIRED),
            nested=None,
            update=Rule(),
            since=ZONES_SINCE,
        ),
        *_profile_rows(
            "availability_zone_data", "GET …/providers/{provider}/availability_zone_capabilities", ZONES_SINCE
        ),
    ),
)

AVAILABILITY_ZONE = Resource(
    kind=Kind.AVAILABILITY_ZONE,
    item_key="availability_zone",
    collection_key="availability_zones",
    path="availabilityzones",
    fields=(
        stored(
            "name",
            Text(),
            "What it is known by; no other zone has it, and it never changes.",
            create=Rule(REQUIRED),
            nested=None,
            since=ZONES_SINCE,
        ),
        *_offer_rows("availability_zone_profile_id", "zone", ZONES_SINCE),
    ),
)
