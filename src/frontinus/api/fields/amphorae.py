"""The attributes of an amphora, which only administrators see and nobody sets.

What an amphora of Frontinus does not have (an image; on some networks a port of its own) is null, as it is in Octavia
before it is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from frontinus.api.fields.rows import Field, References, Resource, filter_only, read_only
from frontinus.api.wire_types import Address, Boolean, Choice, Integer, Moment, Text, Uuid, WireType
from frontinus.model.compatibility import VRRP_ID, VRRP_PRIORITY
from frontinus.model.enums import AmphoraRole, AmphoraStatus, Kind


def _always(wire: str, type_: WireType, value: object, doc: str, *, since: str = "2.0") -> Field:
    return Field(
        wire=wire,
        attribute=wire,
        type=type_,
        doc=doc,
        since=since,
        part=False,
        read=lambda _value, _: value,
        constant=value,
    )


def _of_load_balancer(wire: str, type_: WireType, doc: str) -> Field:
    def read(_value: Any, references: References) -> object:
        return next(iter(references.get(wire, ())), None)

    return _derived(wire, type_, doc, read)


def _derived(wire: str, type_: WireType, doc: str, read: Callable[[Any, References], object]) -> Field:
    return Field(wire=wire, attribute=wire, type=type_, doc=doc, part=False, read=read, column=wire)


AMPHORA = Resource(
    kind=Kind.AMPHORA,
    item_key="amphora",
    collection_key="amphorae",
    fields=(
        read_only("id", Uuid(), "Given by the controller."),
        read_only("loadbalancer_id", Uuid(), "The load balancer that it serves.", attribute="load_balancer_id"),
        read_only("compute_id", Text(), "What compute calls its place."),
        read_only("lb_network_ip", Address(), "Where its agent listens.", attribute="management_address"),
        read_only(
            "vrrp_ip",
            Address(),
            "Its own address on the VIP's network; null where the network driver makes no ports.",
            attribute="vrrp_address",
        ),
        _of_load_balancer("ha_ip", Address(), "The VIP."),
        read_only("vrrp_port_id", Uuid(), "The port of vrrp_ip."),
        _of_load_balancer("ha_port_id", Uuid(), "The port of the VIP."),
        read_only(
            "cert_expiration",
            Moment(),
            "Until when its agent's certificate is good; it is renewed when half of its time is over.",
            attribute="certificate_expires_at",
        ),
        _always("cert_busy", Boolean(), False, "Renewing a certificate keeps an amphora from nothing."),
        read_only("role", Choice(AmphoraRole), "STANDALONE, or MASTER or BACKUP in a pair."),
        read_only("status", Choice(AmphoraStatus), "How far it is; ALLOCATED means that it serves."),
        read_only("vrrp_interface", Text(), "What the amphora calls the interface of vrrp_ip."),
        _derived(
            "vrrp_id",
            Integer(),
            "The number of its VRRP group: 1 in a pair.",
            lambda value, _: VRRP_ID if value.role in VRRP_PRIORITY else None,
        ),
        _derived(
            "vrrp_priority",
            Integer(),
            "Who of a pair has the address: 100 for MASTER, 90 for BACKUP.",
            lambda value, _: VRRP_PRIORITY.get(value.role),
        ),
        read_only("cached_zone", Text(), "The compute availability zone that it is in.", attribute="compute_zone"),
        read_only("created_at", Moment(), "UTC."),
        read_only("updated_at", Moment(), "UTC; null until the first change."),
        read_only("image_id", Uuid(), "The image that it was made of.", since="2.1"),
        read_only("compute_flavor", Text(), "The compute flavor that it was made with.", since="2.3"),
        filter_only("project_id", "project_id", Text(36), "The project of its load balancer."),
    ),
)
