"""What an operator offers to choose from: flavors and availability zones, and the profiles that say what they stand for.

A profile holds its data as the text that was given, because that is what clients read back; `read_flavor_data` and
`read_availability_zone_data` judge it and turn it into values. Whether a driver honours a key is for its capabilities
to say, when a load balancer asks for it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, ClassVar, TypeVar

import msgspec

from frontinus.model.enums import Kind, Topology
from frontinus.model.errors import Invalid, Unsupported
from frontinus.model.ids import AvailabilityZoneProfileId, FlavorId, FlavorProfileId
from frontinus.model.placement import BY_FLAVOR, BY_ZONE, Placement

T = TypeVar("T")

MAX_DATA = 4096


class FlavorProfile(msgspec.Struct, frozen=True, kw_only=True):
    """What a flavor stands for. Several may have one name."""

    kind: ClassVar[Kind] = Kind.FLAVOR_PROFILE

    id: FlavorProfileId
    name: str
    provider_name: str
    flavor_data: str
    created_at: datetime


class Flavor(msgspec.Struct, frozen=True, kw_only=True):
    kind: ClassVar[Kind] = Kind.FLAVOR

    id: FlavorId
    name: str
    description: str = ""
    enabled: bool = True
    flavor_profile_id: FlavorProfileId
    created_at: datetime


class AvailabilityZoneProfile(msgspec.Struct, frozen=True, kw_only=True):
    """What an availability zone stands for. Several may have one name."""

    kind: ClassVar[Kind] = Kind.AVAILABILITY_ZONE_PROFILE

    id: AvailabilityZoneProfileId
    name: str
    provider_name: str
    availability_zone_data: str
    created_at: datetime


class AvailabilityZone(msgspec.Struct, frozen=True, kw_only=True):
    """Known by its name, which never changes; it has no id."""

    kind: ClassVar[Kind] = Kind.AVAILABILITY_ZONE

    name: str
    description: str = ""
    enabled: bool = True
    availability_zone_profile_id: AvailabilityZoneProfileId
    created_at: datetime


class FlavorData(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every key that flavor data can have (behaviours.yaml flavor_data_amphora); None: not said."""

    loadbalancer_topology: Topology | None = None
    compute_flavor: str | None = None
    amp_image_tag: str | None = None
    sriov_vip: bool | None = None
    allow_member_sriov: bool | None = None
    # Ours: how large an amphora is.
    threads: Annotated[int, msgspec.Meta(ge=1, le=64)] | None = None
    max_connections: Annotated[int, msgspec.Meta(ge=100, le=10_000_000)] | None = None
    max_memory: Annotated[int, msgspec.Meta(ge=32, le=1_048_576)] | None = None  # MiB


class AvailabilityZoneData(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every key that availability zone data can have (behaviours.yaml availability_zone_data_amphora)."""

    compute_zone: str | None = None
    volume_zone: str | None = None
    management_network: str | None = None
    valid_vip_networks: tuple[str, ...] | None = None


FLAVOR_KEYS: dict[str, str] = {
    "loadbalancer_topology": "How many amphorae a load balancer has: SINGLE, or ACTIVE_STANDBY for two.",
    "compute_flavor": "The compute flavor of the amphorae.",
    "amp_image_tag": "The tag of the image that the amphorae are made of.",
    "sriov_vip": "Whether the VIP's port is an SR-IOV virtual function.",
    "allow_member_sriov": "Whether members may be reached through SR-IOV ports.",
    "threads": "How many threads, and so how many cores at most, an amphora balances with: from 1 to 64.",
    "max_connections": "How many connections an amphora carries at most: from 100 to 10,000,000.",
    "max_memory": "How many MiB of memory the balancer of an amphora takes at most: from 32 to 1,048,576, "
    "and 9 more for each thread after the first.",
}
"""Every key of flavor data, with what it is for."""

AVAILABILITY_ZONE_KEYS: dict[str, str] = {
    "compute_zone": "The compute availability zone of the amphorae.",
    "volume_zone": "The volume availability zone of the amphorae.",
    "management_network": "The network through which the amphorae are managed.",
    "valid_vip_networks": "The networks on which VIPs may be.",
}
"""Every key of availability zone data, with what it is for."""


def read_flavor_data(text: str, field: str) -> FlavorData:
    """Raises Invalid for what is no JSON object, Unsupported for a key or a value that no provider knows."""
    return _read(text, field, FlavorData)


def read_availability_zone_data(text: str, field: str) -> AvailabilityZoneData:
    """As `read_flavor_data`."""
    return _read(text, field, AvailabilityZoneData)


def read_object(text: str, field: str) -> dict[str, Any]:
    """Data in words that are not ours. Raises Invalid for what is no JSON object."""
    try:
        document = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise Invalid(field, "must be a text that holds a JSON object") from error
    if not isinstance(document, dict):
        raise Invalid(field, "must be a text that holds a JSON object")
    return document


def networks_named(text: str) -> tuple[str, ...] | None:
    """Where VIPs may be by the data of a third party's availability zone; None where it does not say."""
    named = read_object(text, "availability_zone").get("valid_vip_networks")
    is_list = isinstance(named, list) and all(isinstance(x, str) for x in named)
    return tuple(named) if isinstance(named, list) and is_list else None


def placement_of(flavor: FlavorData, zone: AvailabilityZoneData) -> Placement | None:
    """What the two say of how amphorae are made; None where neither says anything, as for most load balancers."""
    words = {name: getattr(flavor, name) for name in BY_FLAVOR} | {name: getattr(zone, name) for name in BY_ZONE}
    placement = Placement(**words)
    return placement if placement.asked else None


def asked_keys(data: FlavorData | AvailabilityZoneData) -> dict[str, Any]:
    """What the data asks for beyond what every driver does anyway."""
    return {key: value for key, value in msgspec.structs.asdict(data).items() if value not in (None, False)}


def _read(text: str, field: str, wanted: type[T]) -> T:
    document = read_object(text, field)
    for key, value in document.items():
        if value is None:
            raise Unsupported(field, f"{key!r} must not be null")
    try:
        return msgspec.convert(document, wanted)
    except msgspec.ValidationError as error:
        raise Unsupported(field, f"no provider understands it: {error}") from error
