"""Decide what is to be changed in Keystone so that clients find Frontinus in a region: values in, steps out. Pure.

We have a service of our own, known by its description, and change and remove what belongs to it and nothing else. Another's service
of the same type keeps its endpoints: in another region they stand beside ours; in ours it is a conflict, and with `replace`
they are switched off, which `openstack endpoint set --enable` takes back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeAlias
from urllib.parse import urlsplit

import msgspec

from frontinus.cli.openstack.judging import ROLES
from frontinus.cli.openstack.seen import INTERFACES, LOAD_BALANCER
from frontinus.model.errors import Conflict, Invalid

MARK = "Frontinus"
DESCRIPTION = f"{MARK}: load balancing as a service"
"""What our service begins with, and has."""


class Service(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    name: str = ""
    description: str = ""
    enabled: bool = True

    @property
    def is_ours(self) -> bool:
        return self.description.startswith(MARK)


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    service_id: str
    interface: str
    url: str
    region_id: str | None = None
    enabled: bool = True


class Registered(msgspec.Struct, frozen=True, kw_only=True):
    """What Keystone has: services of our type, their endpoints, every role and region."""

    services: tuple[Service, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    roles: frozenset[str] = frozenset()
    regions: frozenset[str] = frozenset()

    @property
    def own(self) -> Service | None:
        """Of two that were made at the same moment everybody takes the same."""
        return min((x for x in self.services if x.is_ours), key=lambda x: x.id, default=None)

    def endpoints_of_ours(self, region: str | None = None) -> list[Endpoint]:
        """In one region, or in all."""
        ids = {x.id for x in self.services if x.is_ours}
        return [x for x in self.endpoints if x.service_id in ids and region in (None, x.region_id)]

    def endpoints_of_others(self, region: str) -> list[tuple[Service, Endpoint]]:
        """Also such as are switched off."""
        others = {x.id: x for x in self.services if not x.is_ours}
        return [(others[x.service_id], x) for x in self.endpoints if x.service_id in others and x.region_id == region]


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    region: str
    name: str
    urls: Mapping[str, str]
    """By interface."""


class _Step(msgspec.Struct, frozen=True, kw_only=True, tag_field="action"):
    """One change. Each has `told`: what it does, as an order."""


class MakeRole(_Step, tag="make-role", frozen=True, kw_only=True):
    name: str

    @property
    def told(self) -> str:
        return f"make role {self.name}"


class MakeService(_Step, tag="make-service", frozen=True, kw_only=True):
    name: str

    @property
    def told(self) -> str:
        return f"make service {self.name} of type {LOAD_BALANCER}"


class ChangeService(_Step, tag="change-service", frozen=True, kw_only=True):
    id: str
    was: str
    name: str

    @property
    def told(self) -> str:
        renamed = f"call it {self.name}" if self.was != self.name else "switch it on"
        return f"change service {self.was}: {renamed}"


class MakeEndpoint(_Step, tag="make-endpoint", frozen=True, kw_only=True):
    service_id: str
    interface: str
    region: str
    url: str

    @property
    def told(self) -> str:
        return f"make {self.interface} endpoint {self.url} in {self.region}"


class ChangeEndpoint(_Step, tag="change-endpoint", frozen=True, kw_only=True):
    id: str
    interface: str
    was: str
    url: str

    @property
    def told(self) -> str:
        changed = f"{self.was} becomes {self.url}" if self.was != self.url else f"switch {self.url} on"
        return f"change {self.interface} endpoint: {changed}"


class RemoveEndpoint(_Step, tag="remove-endpoint", frozen=True, kw_only=True):
    id: str
    interface: str
    url: str

    @property
    def told(self) -> str:
        return f"remove {self.interface} endpoint {self.url}"


class SwitchOff(_Step, tag="switch-off-endpoint", frozen=True, kw_only=True):
    id: str
    service: str
    interface: str
    url: str

    @property
    def told(self) -> str:
        return (
            f"switch off {self.interface} endpoint {self.url} of service {self.service} "
            f"(back: openstack endpoint set --enable {self.id})"
        )


class RemoveService(_Step, tag="remove-service", frozen=True, kw_only=True):
    id: str
    name: str

    @property
    def told(self) -> str:
        return f"remove service {self.name}"


Step: TypeAlias = (
    MakeRole | MakeService | ChangeService | MakeEndpoint | ChangeEndpoint | RemoveEndpoint | SwitchOff | RemoveService
)


def registration(there: Registered, wish: Wish, *, replace: bool) -> tuple[Step, ...]:
    """What remains to be done; nothing when it is as it should be. As long as our service is not made only what comes before
    its endpoints: they need its id. Raises Invalid naming the option that cannot be, and Conflict when another is registered in the region."""
    for interface in INTERFACES:
        _check_url(interface, wish.urls[interface])
    _check_region(there, wish.region)
    others = [(service, x) for service, x in there.endpoints_of_others(wish.region) if x.enabled and service.enabled]
    if others and not replace:
        told = "; ".join(f"{x.interface} {x.url} of service {service.name or service.id}" for service, x in others)
        raise Conflict(
            LOAD_BALANCER,
            f"region {wish.region} has another {LOAD_BALANCER} service: {told}. Clients would find either. Take it out "
            "yourself, or give --replace: its endpoints in this region are switched off then, and named so that you can "
            "switch them on again",
        )
    return tuple(_registration(there, wish, others))


def _registration(there: Registered, wish: Wish, others: list[tuple[Service, Endpoint]]) -> Iterator[Step]:
    yield from (MakeRole(name=x) for x in ROLES if x not in there.roles)
    own = there.own
    if own is None:
        yield MakeService(name=wish.name)
    elif own.name != wish.name or not own.enabled:
        yield ChangeService(id=own.id, was=own.name, name=wish.name)
    ours = there.endpoints_of_ours(wish.region)
    for interface in INTERFACES:
        url = wish.urls[interface]
        # Ours come first where our service is twice, and there of the same URL.
        found = sorted(
            (x for x in ours if x.interface == interface),
            key=lambda x: (own is None or x.service_id != own.id, x.url != url, x.id),
        )
        if not found or own is None or found[0].service_id != own.id:
            yield MakeEndpoint(
                service_id="" if own is None else own.id, interface=interface, region=wish.region, url=url
            )
            doomed = found
        else:
            if found[0].url != url or not found[0].enabled:
                yield ChangeEndpoint(id=found[0].id, interface=interface, was=found[0].url, url=url)
            doomed = found[1:]
        yield from (RemoveEndpoint(id=x.id, interface=interface, url=x.url) for x in doomed)
    # Last: until ours are there, clients find the other.
    for service, x in others:
        yield SwitchOff(id=x.id, service=service.name or service.id, interface=x.interface, url=x.url)


def withdrawal(there: Registered, region: str) -> tuple[Step, ...]:
    """Raises Invalid for a region that there is not."""
    _check_region(there, region)
    doomed = there.endpoints_of_ours(region)
    steps: list[Step] = [RemoveEndpoint(id=x.id, interface=x.interface, url=x.url) for x in doomed]
    kept = {x.service_id for x in there.endpoints_of_ours() if x.region_id != region}
    steps += [RemoveService(id=x.id, name=x.name) for x in there.services if x.is_ours and x.id not in kept]
    return tuple(steps)


def _check_region(there: Registered, region: str) -> None:
    if not region:
        raise Invalid("--region", f"clouds.yaml names none; Keystone has {_listed(there)}")
    if region not in there.regions:
        raise Invalid("--region", f"Keystone has no region {region!r}; it has {_listed(there)}")


def _listed(there: Registered) -> str:
    return ", ".join(sorted(there.regions)) or "none"


def _check_url(interface: str, url: str) -> None:
    option = "--url" if interface == "public" else f"--{interface}-url"
    try:
        parts = urlsplit(url)
        port_is_one = parts.port is None or parts.port > 0
    except ValueError as error:
        raise Invalid(option, f"is no URL: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_is_one:
        raise Invalid(option, f"must be like http://lb.example.org:9876, not {url!r}")
    if parts.username is not None or parts.password is not None:
        raise Invalid(option, "must not hold a user or a password: everybody reads the catalogue")
    if parts.query or parts.fragment or url.endswith(("?", "#")):
        raise Invalid(option, "must end with the host, its port or a path")
    if parts.path.rstrip("/").rpartition("/")[2] in ("v2", "v2.0"):
        raise Invalid(option, "must not end with a version: clients add it")
