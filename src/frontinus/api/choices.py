"""What a new load balancer gets by its choices: provider and topology, by flavor and zone, and where its VIPs may be.

Reads the offers, judges them, and returns values; the network is not asked here. Raises Invalid and Unsupported, naming the
attribute."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from frontinus.api.requests import Asked
from frontinus.api.settings import ApiSettings
from frontinus.model.capabilities import Capabilities, refuse_small_memory
from frontinus.model.enums import Kind, Topology, VnicType
from frontinus.model.errors import Invalid, Unsupported
from frontinus.model.ids import FlavorId, NetworkId
from frontinus.model.network import VipRequest
from frontinus.model.offers import (
    AvailabilityZone,
    AvailabilityZoneData,
    AvailabilityZoneProfile,
    Flavor,
    FlavorData,
    FlavorProfile,
    asked_keys,
    networks_named,
    placement_of,
    read_availability_zone_data,
    read_flavor_data,
    read_object,
)
from frontinus.model.tree import LoadBalancer
from frontinus.store import listing, offers
from frontinus.store.engine import Transaction

_FIELD = "load_balancer"
_NO_FLAVOR, _NO_ZONE = FlavorData(), AvailabilityZoneData()


class Choices(msgspec.Struct, frozen=True, kw_only=True):
    """What was chosen, read: the provider's name, the topology where the flavor names none, and the data of flavor and zone
    (nothing said where none was)."""

    provider: str
    topology: Topology = Topology.SINGLE
    flavor: FlavorData = _NO_FLAVOR
    zone: AvailabilityZoneData = _NO_ZONE

    def applied(self, load_balancer: LoadBalancer) -> LoadBalancer:
        """The load balancer as it is by its flavor."""
        return msgspec.structs.replace(
            load_balancer,
            provider=self.provider,
            topology=self.flavor.loadbalancer_topology or self.topology,
            vip_vnic_type=VnicType.DIRECT if self.flavor.sriov_vip else VnicType.NORMAL,
            threads=self.flavor.threads,
            max_connections=self.flavor.max_connections,
            max_memory=self.flavor.max_memory,
            placement=placement_of(self.flavor, self.zone),
        )

    def require(self, capabilities: Capabilities) -> None:
        """Raise Unsupported for data that the provider does not honour (any more: a profile may be older than it)."""
        for field, data, honoured in (
            ("flavor_id", self.flavor, capabilities.flavor_keys),
            ("availability_zone", self.zone, capabilities.availability_zone_keys),
        ):
            for key in asked_keys(data):
                if key not in honoured:
                    raise Unsupported(f"{_FIELD}.{field}", f"it asks for {key}, which this provider does not offer")
        refuse_small_memory(self.flavor, capabilities, f"{_FIELD}.flavor_id")


def read_choices(
    tx: Transaction, settings: ApiSettings, asked: Asked, is_foreign: Callable[[str], bool] = lambda _: False
) -> Choices:
    """By flavor first, then what was asked for, then the default (DESIGN section 2). `is_foreign` says of a provider whether it
    is a third party's. Raises Invalid for a flavor or zone that is not there or is switched off, and for a provider that
    contradicts either."""
    provider: str | None = asked.extra.get("provider")
    flavor_id, zone_name = asked.values["flavor_id"], asked.values["availability_zone"]
    flavor_text, zone_text = "{}", "{}"
    if flavor_id is not None:
        profile = _flavor_profile(tx, FlavorId(flavor_id))
        provider = _agreed(settings, provider, profile.provider_name, "flavor")
        flavor_text = profile.flavor_data
    provider = provider or settings.default_provider
    if zone_name is not None:
        zone_profile = _zone_profile(tx, zone_name)
        _agreed(settings, provider, zone_profile.provider_name, "availability zone")
        zone_text = zone_profile.availability_zone_data
    if (flavor_id is not None or zone_name is not None) and is_foreign(provider):
        # Its words are its own, and it is handed them; but where VIPs may be, the API sees to.
        flavor, zone = _NO_FLAVOR, AvailabilityZoneData(valid_vip_networks=networks_named(zone_text))
    else:
        flavor = read_flavor_data(flavor_text, f"{_FIELD}.flavor_id")
        zone = read_availability_zone_data(zone_text, f"{_FIELD}.availability_zone")
    return Choices(provider=provider, topology=settings.default_topology, flavor=flavor, zone=zone)


def hold_choices(tx: Transaction, load_balancer: LoadBalancer) -> None:
    """Keep flavor and zone there until the load balancer is written. Raises Invalid for what was removed meanwhile."""
    for kind, key, field in (
        (Kind.FLAVOR, load_balancer.flavor_id, "flavor_id"),
        (Kind.AVAILABILITY_ZONE, load_balancer.availability_zone, "availability_zone"),
    ):
        if key is not None and not offers.hold(tx, kind, key):
            raise Invalid(f"{_FIELD}.{field}", f"there is no {kind.replace('_', ' ')} {key[:80]!r}")


def allows_sriov_members(tx: Transaction, load_balancer: LoadBalancer) -> bool:
    """Whether its flavor lets members be reached through SR-IOV ports. A flavor in use keeps its data."""
    if load_balancer.flavor_id is None:
        return False
    profile = _flavor_profile(tx, FlavorId(load_balancer.flavor_id), in_use=True)
    return read_object(profile.flavor_data, f"{_FIELD}.flavor_id").get("allow_member_sriov") is True


def refuse_switched_off_vip(request: VipRequest, settings: ApiSettings) -> None:
    """Raise Invalid for a way to name a VIP that this installation does not offer."""
    named = {
        "vip_port_id": request.port_id,
        "vip_network_id": request.network_id,
        "vip_subnet_id": request.subnet_id,
        "additional_vips.port_id": next((x.port_id for x in request.additional if x.port_id), None),
    }
    allowed = {
        "vip_port_id": settings.allow_vip_port_id,
        "vip_network_id": settings.allow_vip_network_id,
        "vip_subnet_id": settings.allow_vip_subnet_id,
        "additional_vips.port_id": settings.allow_vip_port_id,
    }
    for field, value in named.items():
        if value is not None and not allowed[field]:
            raise Invalid(f"{_FIELD}.{field}", "this installation does not let users name it")


def refuse_network(network_id: NetworkId, choices: Choices, settings: ApiSettings) -> None:
    """Raise Invalid for a network on which no VIP may be: by the zone, or else by the settings."""
    allowed = choices.zone.valid_vip_networks
    if allowed is None:
        allowed = settings.valid_vip_networks or None
    is_outside = allowed is not None and network_id not in allowed
    if is_outside or network_id in settings.denylist_vip_networks:
        raise Invalid(f"{_FIELD}.vip_network_id", f"VIPs may not be on network {network_id}")


def _agreed(settings: ApiSettings, asked: str | None, offered: str, what: str) -> str:
    """The name that was asked for, if it stands for the provider of an offer; that provider's where none was."""
    if asked is not None and settings.served_by(asked) != settings.served_by(offered):
        raise Invalid(f"{_FIELD}.provider", f"the {what} is for the provider {offered}, not for {asked[:80]}")
    return asked or offered


def _flavor_profile(tx: Transaction, flavor_id: FlavorId, *, in_use: bool = False) -> FlavorProfile:
    found = listing.get_flavor(tx, flavor_id)
    field = f"{_FIELD}.flavor_id"
    if found is None:
        raise Invalid(field, f"there is no flavor {flavor_id}")
    flavor: Flavor = found.value
    if not flavor.enabled and not in_use:
        raise Invalid(field, f"the flavor {flavor.name} is disabled")
    profile = listing.get_flavor_profile(tx, flavor.flavor_profile_id)
    if profile is None:
        raise Invalid(field, f"the flavor {flavor.name} has lost its profile")
    return profile.value


def _zone_profile(tx: Transaction, name: str) -> AvailabilityZoneProfile:
    found = listing.get_availability_zone(tx, name)
    field = f"{_FIELD}.availability_zone"
    if found is None:
        raise Invalid(field, f"there is no availability zone {name[:80]!r}")
    zone: AvailabilityZone = found.value
    if not zone.enabled:
        raise Invalid(field, f"the availability zone {zone.name} is disabled")
    profile = listing.get_availability_zone_profile(tx, zone.availability_zone_profile_id)
    if profile is None:
        raise Invalid(field, f"the availability zone {zone.name} has lost its profile")
    return profile.value
