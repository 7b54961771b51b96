"""Where Keystone is and as whom it is asked: from the settings, and from the entry of clouds.yaml that they name (clouds.py).

Raises Invalid naming the setting."""

from __future__ import annotations

from pathlib import Path

import msgspec

from frontinus.api.identity.clouds import Entry, read_entry
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
    verify: bool = True
    """Whether Keystone's certificate is checked; clouds.yaml may say that it is not."""


def find_login(settings: KeystoneSettings) -> Login:
    """The settings' own values first, then those of their cloud."""
    entry = read_entry(settings.cloud) if settings.cloud else Entry(auth={})
    cloud = entry.auth

    def value(name: str, own: str) -> str:
        found = own or cloud.get(name, "")
        if not found:
            raise Invalid(
                f"api.keystone.{name}", "is needed: write it here, or name a cloud of clouds.yaml that has it"
            )
        return found

    def domain(whose: str, own: str) -> dict[str, str]:
        if not own and f"{whose}_domain_id" in cloud:
            return {"id": cloud[f"{whose}_domain_id"]}
        return {"name": own or cloud.get(f"{whose}_domain_name", "") or DEFAULT_DOMAIN}

    def named(whose: str, key: str, own: str) -> dict[str, object]:
        """A user or project: by its id, which is of one domain only, or by its name in a domain."""
        if not own and f"{whose}_id" in cloud:
            return {"id": cloud[f"{whose}_id"]}
        own_domain = settings.user_domain_name if whose == "user" else settings.project_domain_name
        return {"name": value(key, own), "domain": domain(whose, own_domain)}

    url = value("auth_url", settings.auth_url).rstrip("/")
    if not url.startswith(("http://", "https://")):
        raise Invalid("api.keystone.auth_url", "must begin with http:// or https://")
    own_secret = settings.application_credential_secret.reveal()
    credential = settings.application_credential_id or cloud.get("application_credential_id", "")
    auth: dict[str, object]
    if credential or "application_credential_name" in cloud:
        known: dict[str, object] = {"secret": value("application_credential_secret", own_secret)}
        if credential:
            known["id"] = credential
        else:  # names are the user's
            known |= {
                "name": cloud["application_credential_name"],
                "user": named("user", "username", settings.username),
            }
        auth = {"identity": {"methods": ["application_credential"], "application_credential": known}}
    else:
        user = named("user", "username", settings.username) | {
            "password": value("password", settings.password.reveal())
        }
        auth = {
            "identity": {"methods": ["password"], "password": {"user": user}},
            "scope": {"project": named("project", "project_name", settings.project_name)},
        }
    return Login(
        auth_url=url if url.endswith("/v3") else f"{url}/v3",
        request=Secret(msgspec.json.encode({"auth": auth}).decode()),
        ca_file=settings.ca_file or entry.ca_file,
        verify=settings.ca_file is not None or entry.verify,
    )
