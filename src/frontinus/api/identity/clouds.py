"""One entry of clouds.yaml, as OpenStack's clients read it: which Keystone, as whom, and by whom its certificate is signed.

The API must not import openstacksdk, which drivers read the same entry with, so that what both need is written down here a
second time; a test reads every form of it both ways. What only openstacksdk can read is refused by its name, never ignored.
Raises Invalid naming the setting. Next: login.py."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import yaml

from frontinus.model.errors import Invalid

SETTING = "api.keystone.cloud"

_AUTH_TYPES = frozenset({"password", "v3password", "v3applicationcredential"})

_SPELLED_OTHERWISE = {
    "project_id": ("tenant-id", "tenant_id", "project-id", "project_id"),
    "project_name": ("tenant-name", "tenant_name", "project-name", "project_name"),
    "domain_id": ("domain-id", "domain_id"),
    "domain_name": ("domain-name", "domain_name"),
    "user_domain_id": ("user-domain-id", "user_domain_id"),
    "user_domain_name": ("user-domain-name", "user_domain_name"),
    "project_domain_id": ("project-domain-id", "project_domain_id"),
    "project_domain_name": ("project-domain-name", "project_domain_name"),
}
"""What may stand in `auth` or beside it, and how; the last one goes before the others."""

_OF_LOGIN = (
    "auth_url",
    "username",
    "user_id",
    "password",
    "application_credential_id",
    "application_credential_name",
    "application_credential_secret",
    "default_domain_id",
    "default_domain_name",
)
"""What may stand beside `auth` too."""

_DOMAINS = ("domain_id", "domain_name", "default_domain_id", "default_domain_name")
"""One for user and project, where they have none of their own."""

_BEYOND = ("token", "trust_id", "passcode", "system_scope")
"""Ways to log in that only openstacksdk has."""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    auth: Mapping[str, str]
    verify: bool = True
    """Whether Keystone's certificate is checked at all."""

    ca_file: Path | None = None

    def __repr__(self) -> str:  # there are passwords in it
        return "Entry(...)"


def read_entry(name: str) -> Entry:
    """What clouds.yaml, secure.yaml beside it, and a profile that it names say together."""
    file, clouds = _first("clouds", "OS_CLIENT_CONFIG_FILE", "clouds")
    if file is None:
        raise Invalid(SETTING, "there is no clouds.yaml; set OS_CLIENT_CONFIG_FILE to where it is")
    _, secure = _first("secure", "OS_CLIENT_SECURE_FILE", "clouds")
    entry = clouds.get(name)
    if not isinstance(entry, dict):
        raise Invalid(SETTING, f"{file} has no cloud {name!r}")
    private = secure.get(name)
    entry = _joined(entry, private if isinstance(private, dict) else {})
    entry = _joined(_profile(entry, name), entry)
    auth = _auth(entry, name)
    ca_file, verify = entry.get("cacert"), entry.get("verify", True)
    return Entry(
        auth=auth,
        verify=not _is_true(entry.get("insecure")) and (verify is None or _is_true(verify)),
        ca_file=Path(str(ca_file)).expanduser() if ca_file else None,
    )


def _auth(entry: Mapping[str, Any], name: str) -> dict[str, str]:
    kind = entry.get("auth_type", entry.get("auth_plugin"))
    if kind is not None and kind not in _AUTH_TYPES:
        raise Invalid(
            SETTING, f"cloud {name!r} has auth_type {kind!r}; the API logs in by one of {_listed(_AUTH_TYPES)}"
        )
    auth = _texts(entry.get("auth"))
    beside = _texts({x: y for x, y in entry.items() if not isinstance(y, dict | list | bool)})
    for key, spellings in _SPELLED_OTHERWISE.items():
        # What stands in `auth` goes before what stands beside it.
        found = [held.pop(x) for held in (beside, auth) for x in spellings if x in held]
        if found:
            auth[key] = found[-1]
    for key in _OF_LOGIN:
        if key in beside:
            auth.setdefault(key, beside[key])
    for one in _DOMAINS:
        value = auth.pop(one, None)
        for whose in ("user_domain", "project_domain"):
            if value is not None and not auth.keys() & {f"{whose}_id", f"{whose}_name"}:
                auth[f"{whose}_{one.rpartition('_')[2]}"] = value
    beyond = [x for x in _BEYOND if x in auth or x in beside]
    if beyond:
        raise Invalid(SETTING, f"cloud {name!r} has {beyond[0]}, by which the API does not log in")
    if not auth:
        raise Invalid(SETTING, f"cloud {name!r} has no `auth`")
    return auth


def _profile(entry: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """What the entry is built on: a profile of clouds-public.yaml."""
    profile = entry.get("profile", entry.get("cloud"))
    if not profile:
        return {}
    _, public = _first("clouds-public", None, "public-clouds")
    found = public.get(profile)
    if not isinstance(found, dict):
        raise Invalid(
            SETTING,
            f"cloud {name!r} has profile {profile!r}, which is in no clouds-public.yaml; those that openstacksdk brings "
            "are not read by the API: write auth_url into the entry, and take the profile out",
        )
    return found


def _first(stem: str, variable: str | None, key: str) -> tuple[Path | None, Mapping[str, Any]]:
    """The first file of this name that there is, and what stands in it under `key`."""
    for file in _places(stem, variable):
        if not file.is_file():
            continue
        try:
            document = yaml.safe_load(file.read_text("utf-8"))  # JSON is YAML too
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            # What stands in the file is secret, and YAML errors quote it.
            raise Invalid(SETTING, f"{file} cannot be read: {type(error).__name__}") from None
        found = document.get(key) if isinstance(document, dict) else None
        return file, found if isinstance(found, dict) else {}
    return None, {}


def _places(stem: str, variable: str | None) -> Iterator[Path]:
    """Where OpenStack's clients look, in their order."""
    named = os.environ.get(variable) if variable else None
    if named:
        yield Path(named)
    home = Path.home() / ".config"
    own = Path(os.environ.get("XDG_CONFIG_HOME") or home)
    site = [Path(x) for x in (os.environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(os.pathsep) if x]
    folders = (Path.cwd(), *(x / "openstack" for x in (own, home, *site)), Path("/etc/openstack"))
    yield from (folder / f"{stem}{suffix}" for folder in folders for suffix in (".yaml", ".yml", ".json"))


def _joined(first: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    joined = {**first, **over}
    if isinstance(first.get("auth"), dict) and isinstance(over.get("auth"), dict):
        joined["auth"] = {**first["auth"], **over["auth"]}
    return joined


def _texts(values: object) -> dict[str, str]:
    return {str(x): str(y) for x, y in values.items() if y is not None} if isinstance(values, dict) else {}


def _is_true(value: object) -> bool:
    return value if isinstance(value, bool) else str(value).lower() == "true"


def _listed(words: frozenset[str]) -> str:
    return ", ".join(sorted(words))
