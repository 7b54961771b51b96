"""Who asks. One small interface; today there is one answer to it: whoever the headers name, and always administrator.

Never decides what somebody may do."""

from __future__ import annotations

from typing import Protocol

import msgspec
from starlette.datastructures import Headers

from frontinus.model.errors import Invalid
from frontinus.model.ids import ProjectId

MAX_PROJECT_ID = 36


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """The caller: their project, and whether they may do everything."""

    project_id: ProjectId
    user_id: str | None = None
    roles: tuple[str, ...] = ()
    is_admin: bool = False


class Authenticator(Protocol):
    async def authenticate(self, headers: Headers) -> Identity:
        """The caller behind a request. Raises HttpError 401 when there is no telling."""


class NoAuthentication:
    """Asks nobody. The identity headers are read if present (behaviours.yaml http.noauth_mode)."""

    def __init__(self, default_project_id: ProjectId) -> None:
        self._default_project_id = default_project_id

    async def authenticate(self, headers: Headers) -> Identity:
        project_id = headers.get("x-project-id") or self._default_project_id
        if len(project_id) > MAX_PROJECT_ID:
            raise Invalid("X-Project-Id", f"is longer than {MAX_PROJECT_ID} characters")
        roles = tuple(x.strip() for x in headers.get("x-roles", "").split(",") if x.strip())
        return Identity(project_id=ProjectId(project_id), user_id=headers.get("x-user-id"), roles=roles, is_admin=True)
