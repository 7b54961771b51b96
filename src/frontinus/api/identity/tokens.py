"""Static bearer tokens from the configuration, for installations without OpenStack."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable

from starlette.datastructures import Headers

from frontinus.api.errors import Unauthenticated
from frontinus.api.identity.interface import Identity, presented_token
from frontinus.api.identity.settings import StaticToken
from frontinus.model.errors import Invalid
from frontinus.model.ids import ProjectId

CHALLENGE = 'Bearer realm="frontinus"'
HASHED = "sha256:"
_DIGEST = re.compile(r"[0-9a-f]{64}")
_PLAIN = re.compile(r"[\x21-\x7e]{16,1024}")
MAX_PROJECT_ID = 36


class TokenAuthentication:
    """Every token is compared as a digest and in constant time, and all of them each time: how long an answer takes says
    nothing about them. A plain SHA-256 is enough, since tokens are random and not made by people."""

    def __init__(self, tokens: Iterable[StaticToken]) -> None:
        """Raises Invalid naming the token's number, never its text."""
        self._known: list[tuple[bytes, Identity]] = []
        for number, token in enumerate(tokens):
            path = f"api.tokens[{number}]"
            digest = _digest(token, path)
            if any(hmac.compare_digest(digest, known) for known, _ in self._known):
                raise Invalid(f"{path}.token", "is the same as an earlier one")
            self._known.append((digest, _identity(token, path)))
        if not self._known:
            raise Invalid("api.tokens", 'auth is "token", and there is none: add a table [[api.tokens]]')

    async def authenticate(self, headers: Headers) -> Identity:
        token = presented_token(headers)
        if token is None:
            raise Unauthenticated("send a token in X-Auth-Token or Authorization: Bearer", CHALLENGE)
        presented = hashlib.sha256(token.encode()).digest()
        found = None
        for digest, identity in self._known:
            if hmac.compare_digest(digest, presented):
                found = identity
        if found is None:
            raise Unauthenticated("the token is not known here", CHALLENGE)
        return found

    async def close(self) -> None:
        """Nothing is held."""


def _digest(token: StaticToken, path: str) -> bytes:
    text = token.token.reveal()
    if text.startswith(HASHED):
        digest = text.removeprefix(HASHED).lower()
        if not _DIGEST.fullmatch(digest):
            raise Invalid(f"{path}.token", "must have 64 hexadecimal digits after sha256:")
        return bytes.fromhex(digest)
    if not _PLAIN.fullmatch(text):
        raise Invalid(f"{path}.token", "must be 16 to 1024 characters of ASCII without blanks; make one at random")
    return hashlib.sha256(text.encode()).digest()


def _identity(token: StaticToken, path: str) -> Identity:
    if not token.project_id or len(token.project_id) > MAX_PROJECT_ID:
        raise Invalid(f"{path}.project_id", f"must have 1 to {MAX_PROJECT_ID} characters")
    if not token.roles or not all(token.roles):
        raise Invalid(f"{path}.roles", "must name at least one role, and none of them empty")
    return Identity(
        project_id=ProjectId(token.project_id), user_id=token.user_id or token.project_id, roles=token.roles
    )
