"""Who asks. One small interface; beside this file is one module per way of finding out.

Never decides what somebody may do: that is policy/."""

from __future__ import annotations

import re
from typing import Protocol

import msgspec
from starlette.datastructures import Headers

from frontinus.model.ids import ProjectId


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """The caller. `project_id` is None for tokens without a project (unscoped, of a domain, of the system)."""

    project_id: ProjectId | None = None
    user_id: str | None = None
    roles: tuple[str, ...] = ()
    system_scope: str | None = None
    """`all` for a token of the whole installation."""

    domain_id: str | None = None
    """Domain that the token is for, where it is for one."""

    is_admin: bool = False
    """Whether nobody was asked, so that everything is allowed and no policy is looked at."""


class Authenticator(Protocol):
    async def authenticate(self, headers: Headers) -> Identity:
        """The caller behind a request. Raises Unauthenticated when there is no telling, Retry while the one who knows
        cannot be asked."""

    async def close(self) -> None:
        """Let go of connections. May be called twice."""


_BEARER = re.compile(r"bearer +(\S+)", re.IGNORECASE)
_TOKEN = re.compile(r"[\x21-\x7e]{1,16384}")


def presented_token(headers: Headers) -> str | None:
    """The token in X-Auth-Token or, where that is missing, in `Authorization: Bearer`. None also for what cannot be one."""
    token = headers.get("x-auth-token")
    if token is None:
        bearer = _BEARER.fullmatch(headers.get("authorization", ""))
        token = None if bearer is None else bearer[1]
    return token if token is not None and _TOKEN.fullmatch(token) else None
