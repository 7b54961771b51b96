"""Nobody is asked: whoever the headers name, and always administrator. For loopback."""

from __future__ import annotations

from starlette.datastructures import Headers

from frontinus.api.identity.interface import Identity
from frontinus.model.errors import Invalid
from frontinus.model.ids import ProjectId

MAX_PROJECT_ID = 36


class NoAuthentication:
    """The identity headers are read if present (behaviours.yaml http.noauth_mode)."""

    def __init__(self, default_project_id: ProjectId) -> None:
        self._default_project_id = default_project_id

    async def authenticate(self, headers: Headers) -> Identity:
        project_id = headers.get("x-project-id") or self._default_project_id
        if len(project_id) > MAX_PROJECT_ID:
            raise Invalid("X-Project-Id", f"is longer than {MAX_PROJECT_ID} characters")
        roles = tuple(x.strip() for x in headers.get("x-roles", "").split(",") if x.strip())
        return Identity(project_id=ProjectId(project_id), user_id=headers.get("x-user-id"), roles=roles, is_admin=True)

    async def close(self) -> None:
        """Nothing is held."""
