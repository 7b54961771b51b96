"""Settings of who may call: static tokens, and the Keystone that is asked. Secrets in here do not print themselves."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from frontinus.model.secrets import Secret

_NO_SECRET = Secret()


@dataclass(frozen=True)
class StaticToken:
    """One caller of an API with `auth = "token"`: a table [[api.tokens]]."""

    token: Secret = _NO_SECRET
    """What the caller sends: itself, or `sha256:` and its SHA-256 in hexadecimal, so that the file does not tell it.
    At least 16 characters of ASCII without blanks."""

    project_id: str = ""
    """The caller's project."""

    user_id: str = ""
    """Who it is, for operator's policies; the project where nothing is said."""

    roles: tuple[str, ...] = ("member", "reader")
    """What policy goes by: `admin`, `member`, `reader`, or the load-balancer_* roles."""


@dataclass(frozen=True)
class KeystoneSettings:
    """Which Keystone validates tokens with `auth = "keystone"`, and as whom it is asked: a table [api.keystone]."""

    auth_url: str = ""
    """Keystone's URL, with or without /v3. Also told to callers who come without a token."""

    cloud: str = ""
    """Name of an entry in clouds.yaml (looked for where OpenStack's clients look) that has the URL and the credentials: a
    user's by name or id with a project, or an application credential; with secure.yaml, a profile of clouds-public.yaml,
    `cacert` and `verify`. What is written here beside it goes before it."""

    username: str = ""
    """Service user, who must be allowed to validate tokens (role `service` or `admin`)."""

    password: Secret = _NO_SECRET
    """Its password."""

    project_name: str = ""
    """Project that the service user works in."""

    user_domain_name: str = ""
    """Domain of the service user; `Default` where nothing is said."""

    project_domain_name: str = ""
    """Domain of its project; `Default` where nothing is said."""

    application_credential_id: str = ""
    """An application credential instead of user and project."""

    application_credential_secret: Secret = _NO_SECRET
    """Its secret."""

    ca_file: Path | None = None
    """Authorities that Keystone's certificate is checked against; by default those of the system."""

    staleness: timedelta = timedelta(seconds=60)
    """How long an answer of Keystone is gone by: so long a revoked token may work, and so long known callers outlive an
    outage of Keystone. 0 asks at every request."""

    refusal_staleness: timedelta = timedelta(seconds=10)
    """How long a refusal is gone by, so that a client that insists does not keep Keystone busy."""

    max_cached: int = 10_000
    """Most tokens to remember, accepted ones and refused ones each; the least recently used go first."""

    timeout: timedelta = timedelta(seconds=5)
    """How long Keystone may take for one answer before it counts as out of order (503)."""

    breaker_threshold: int = 3
    """After so many questions in a row without an answer (none in `timeout`, or 502, 503, 504) Keystone is not asked for a
    while, and who is not known already is answered 503 at once; 0: it always is."""

    breaker_pause: timedelta = timedelta(seconds=5)
    """For that long. Then one question tries, and its answer lets the others through."""
