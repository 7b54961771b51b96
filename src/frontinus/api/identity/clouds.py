"""Where Keystone is and as whom it is asked: from the settings, and from clouds.yaml where they name an entry of it.

Only what is needed to log in is read; the file's form is openstacksdk's. Raises Invalid naming the setting."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
import yaml

from frontinus.api.identity.settings import KeystoneSettings
from frontinus.model.errors import Invalid
from frontinus.model.secrets import Secret

DEFAULT_DOMAIN = "Default"


class Login(msgspec.Struct, frozen=True, kw_only=True):
    """A URL ending in /v3, and the document that makes a token there."""

    auth_url: str
    request: Secret
    """JSON, as it is sent to /auth/tokens."""

    ca_file: Path | None


def find_login(settings: KeystoneSettings) -> Login:
    """The settings' own values first, then those of their cloud."""
    cloud, ca_file = _cloud(settings.cloud) if settings.cloud else ({}, None)

    def value(name: str, own: str, otherwise: str = "") -> str:
        found = own or cloud.get(name, "") or otherwise
        if not found:
            raise Invalid(
                f"api.keystone.{name}", "is needed: write it here, or name a cloud of clouds.yaml that has it"
            )
        return found

    url = value("auth_url", settings.auth_url).rstrip("/")
    if not url.startswith(("http://", "https://")):
        raise Invalid("api.keystone.auth_url", "must begin with http:// or https://")
    credential = settings.application_credential_id or cloud.get("application_credential_id", "")
    auth: dict[str, object]
    if credential:
        secret = value("application_credential_secret", settings.application_credential_secret.reveal())
        identity: dict[str, object] = {
            "methods": ["application_credential"],
            "application_credential": {"id": credential, "secret": secret},
        }
        auth = {"identity": identity}
    else:
        user_domain = value("user_domain_name", settings.user_domain_name, DEFAULT_DOMAIN)
        project_domain = value("project_domain_name", settings.project_domain_name, DEFAULT_DOMAIN)
        user = {
            "name": value("username", settings.username),
            "domain": {"name": user_domain},
            "password": value("password", settings.password.reveal()),
        }
        project = {"name": value("project_name", settings.project_name), "domain": {"name": project_domain}}
        auth = {
            "identity": {"methods": ["password"], "password": {"user": user}},
            "scope": {"project": project},
        }
    return Login(
        auth_url=url if url.endswith("/v3") else f"{url}/v3",
        request=Secret(msgspec.json.encode({"auth": auth}).decode()),
        ca_file=settings.ca_file or ca_file,
    )


def _cloud(name: str) -> tuple[Mapping[str, str], Path | None]:
    """The texts of an entry's `auth`, and its authorities."""
    for file in _places():
        if not file.is_file():
            continue
        try:
            document = yaml.safe_load(file.read_text("utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            # What stands in the file is secret, and YAML errors quote it.
            raise Invalid("api.keystone.cloud", f"{file} cannot be read: {type(error).__name__}") from None
        clouds = document.get("clouds") if isinstance(document, dict) else None
        entry = clouds.get(name) if isinstance(clouds, dict) else None
        if not isinstance(entry, dict) or not isinstance(entry.get("auth"), dict):
            raise Invalid("api.keystone.cloud", f"{file} has no cloud {name!r} with an `auth`")
        auth = {str(key): str(value) for key, value in entry["auth"].items() if value is not None}
        ca_file = entry.get("cacert")
        return auth, Path(str(ca_file)).expanduser() if ca_file else None
    raise Invalid("api.keystone.cloud", "there is no clouds.yaml; set OS_CLIENT_CONFIG_FILE to where it is")


def _places() -> Iterator[Path]:
    """Where OpenStack's clients look, in their order."""
    named = os.environ.get("OS_CLIENT_CONFIG_FILE")
    if named:
        yield Path(named)
        return
    own = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    yield from (folder / "clouds.yaml" for folder in (Path.cwd(), own / "openstack", Path("/etc/openstack")))
