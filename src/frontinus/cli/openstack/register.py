"""`frontinus openstack register` and `unregister`: our entry in Keystone's catalogue, and the roles of tenants.

Looks, has catalogue.py decide what remains, does it, and looks again until nothing remains; so it can be repeated, broken off
and gone on with. Nothing is decided here, and nothing of another service touched that catalogue.py does not name. Everything
blocks: a command has nothing else to do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from frontinus.cli.openstack import catalogue
from frontinus.cli.openstack.catalogue import Registered, Step
from frontinus.cli.openstack.seen import LOAD_BALANCER
from frontinus.cli.output import complain, in_words, say, settings_or_exit
from frontinus.drivers.openstack.cloud import Cloud, in_this_thread
from frontinus.drivers.openstack.trouble import Refused
from frontinus.model.errors import Conflict, FrontinusError, Invalid, Retry

_T = TypeVar("_T")
_ROUNDS = 4
"""One makes the service, one its endpoints, one looks; and one more in case somebody does the same."""


def register(
    file: Path | None,
    overrides: dict[str, object],
    *,
    as_cloud: str | None,
    region: str | None,
    urls: Mapping[str, str],
    name: str,
    replace: bool,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Exit status 0 when it is so now, 1 when that could not be, 2 for what cannot be asked for; what is wrong is said."""

    def remaining(there: Registered, own_region: str) -> tuple[Step, ...]:
        trimmed = {interface: url.rstrip("/") for interface, url in urls.items()}
        wish = catalogue.Wish(region=region or own_region, name=name, urls=trimmed)
        return catalogue.registration(there, wish, replace=replace)

    return _run(file, overrides, as_cloud, remaining, dry_run=dry_run, as_json=as_json)


def unregister(
    file: Path | None,
    overrides: dict[str, object],
    *,
    as_cloud: str | None,
    region: str | None,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Exit status as of `register`."""

    def remaining(there: Registered, own_region: str) -> tuple[Step, ...]:
        where = region or own_region
        steps = catalogue.withdrawal(there, where)
        for service, x in there.endpoints_of_others(where):
            if not x.enabled and not as_json:
                told = f"{x.interface} endpoint {x.url} of service {service.name or service.id} is switched off"
                noted.setdefault(x.id, f"{told}: openstack endpoint set --enable {x.id}")
        return steps

    noted: dict[str, str] = {}
    status = _run(file, overrides, as_cloud, remaining, dry_run=dry_run, as_json=as_json)
    for note in noted.values():
        say(note)
    return status


def _run(
    file: Path | None,
    overrides: dict[str, object],
    as_cloud: str | None,
    remaining: Callable[[Registered, str], tuple[Step, ...]],
    *,
    dry_run: bool,
    as_json: bool,
) -> int:
    settings = settings_or_exit(file, overrides).openstack
    cloud: Cloud | None = None
    done: list[Step] = []
    try:
        cloud = Cloud(settings if as_cloud is None else replace(settings, cloud=as_cloud))
        with in_this_thread():
            _carry_out(_Keystone(cloud), remaining, done, dry_run=dry_run, as_json=as_json)
    except Invalid as error:
        complain(str(error))
        return 2
    except FrontinusError as error:
        complain(_advised(error, cloud))
        return 1
    finally:
        if as_json:
            say(json.dumps([msgspec.to_builtins(x) for x in done], indent=2))
        if cloud is not None:
            asyncio.run(cloud.close())
    if not as_json:
        verb = "would be made" if dry_run else "made"
        say(f"{len(done)} changes {verb}" if done else "nothing to change")
    return 0


def _carry_out(
    keystone: _Keystone,
    remaining: Callable[[Registered, str], tuple[Step, ...]],
    done: list[Step],
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Each step that is done is said, and is in `done`. Raises FrontinusError."""
    region = keystone.region()
    for _ in range(_ROUNDS):
        steps = remaining(keystone.look(), region)
        for step in steps:
            if not dry_run and not keystone.carry_out(step):
                continue
            done.append(step)
            if not as_json:
                say(f"would {step.told}" if dry_run else f"done: {step.told}")
        if dry_run or not steps:
            return
    raise Conflict(
        LOAD_BALANCER, "somebody else changes the catalogue at the same time; look at it, and give the command again"
    )


def _advised(error: FrontinusError, cloud: Cloud | None) -> str:
    if isinstance(error, Retry) and error.code == "keystone-forbidden" and cloud is not None:
        return (
            f"the account of {cloud.settings.cloud!r} in clouds.yaml may not change Keystone's catalogue, or its password is "
            "wrong: name an administrator's entry by --os-cloud"
        )
    return in_words(error)


class _Keystone:
    """The identity API as far as it is needed here. Every method blocks, and raises Retry or Refused."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    def region(self) -> str:
        return self._cloud.region()

    def look(self) -> Registered:
        services = self._list("services", catalogue.Service, type=LOAD_BALANCER)
        endpoints = [x for each in services for x in self._list("endpoints", catalogue.Endpoint, service_id=each.id)]
        return Registered(
            services=tuple(services),
            endpoints=tuple(endpoints),
            roles=frozenset(str(x["name"]) for x in self._ask("GET", "/roles")["roles"]),
            regions=frozenset(str(x["id"]) for x in self._ask("GET", "/regions")["regions"]),
        )

    def carry_out(self, step: Step) -> bool:
        """Safe to repeat. Whether it is done; an endpoint of a service that has no id yet is not."""
        match step:
            case catalogue.MakeRole(name=name):
                self._create("roles", {"name": name})
            case catalogue.MakeService(name=name):
                words = {"type": LOAD_BALANCER, "name": name, "description": catalogue.DESCRIPTION, "enabled": True}
                self._create("services", words)
            case catalogue.ChangeService(id=id_, name=name):
                self._ask("PATCH", f"/services/{id_}", json={"service": {"name": name, "enabled": True}})
            case catalogue.MakeEndpoint(service_id=""):
                return False
            case catalogue.MakeEndpoint(service_id=service_id, interface=interface, region=region, url=url):
                where = {"service_id": service_id, "interface": interface, "region_id": region}
                self._create("endpoints", {**where, "url": url, "enabled": True})
            case catalogue.ChangeEndpoint(id=id_, url=url):
                self._ask("PATCH", f"/endpoints/{id_}", json={"endpoint": {"url": url, "enabled": True}})
            case catalogue.SwitchOff(id=id_):
                self._ask("PATCH", f"/endpoints/{id_}", json={"endpoint": {"enabled": False}})
            case catalogue.RemoveEndpoint(id=id_):
                self._cloud.delete("identity", f"/endpoints/{id_}")
            case catalogue.RemoveService(id=id_):
                self._cloud.delete("identity", f"/services/{id_}")
        return True

    def _create(self, collection: str, body: Mapping[str, object]) -> None:
        try:
            self._ask("POST", f"/{collection}", json={collection.removesuffix("s"): dict(body)})
        except Refused as refused:
            if refused.status != HTTPStatus.CONFLICT:  # somebody has just made it
                raise

    def _list(self, collection: str, kind: type[_T], **parameters: str) -> list[_T]:
        return msgspec.convert(self._ask("GET", f"/{collection}", params=parameters)[collection], list[kind])  # type: ignore[valid-type]

    def _ask(self, method: str, path: str, **words: Any) -> Any:
        return self._cloud.request("identity", method, path, **words)
