"""Quotas of projects: show, defaults, set, reset. The list is reading.py's; that limits hold is changes.py's."""

from __future__ import annotations

from starlette.responses import Response

from frontinus.api.calls import Call, empty_response
from frontinus.api.changes import not_found
from frontinus.api.commits import commit
from frontinus.api.etags import object_response, require_match
from frontinus.api.fields import QUOTA
from frontinus.api.fields.quotas import KIND_OF
from frontinus.api.reading import select_attributes
from frontinus.api.rendering import Wire, render
from frontinus.api.requests import Operation, parse_body
from frontinus.api.written import Written
from frontinus.model.enums import Kind
from frontinus.model.errors import Invalid
from frontinus.model.ids import ProjectId
from frontinus.model.quotas import Quota
from frontinus.store import listing, quotas
from frontinus.store.engine import Transaction

_DEFAULTS = ProjectId("defaults")
_MAX_PROJECT_ID = 255


async def show(call: Call) -> Response:
    """A project without a record has the defaults; there is no 404."""
    shown = await call.api.store.read(lambda tx: _shown(tx, call, _project(call)))
    return object_response(QUOTA, shown, body=select_attributes(shown, call))


async def show_defaults(call: Call) -> Response:
    """The operator's defaults, under the project that was named or, in the clients' variant, `defaults`."""
    project_id = ProjectId(call.params.get(Kind.QUOTA, _DEFAULTS))
    shown = _render(call, Quota(project_id=project_id, created_at=call.api.clock()))
    return object_response(QUOTA, shown, body=select_attributes(shown, call))


async def update(call: Call) -> Response:
    """Set the limits that are named; null takes one back to the default."""
    asked = parse_body(QUOTA, Operation.UPDATE, call.body)
    project_id, now = _project(call), call.api.clock()
    if len(project_id) > _MAX_PROJECT_ID:
        raise Invalid("project_id", f"is longer than {_MAX_PROJECT_ID} characters")
    limits = {kind: asked.values[wire] for wire, kind in KIND_OF.items() if wire in asked.given}

    def work(tx: Transaction) -> Response:
        require_match(call.headers, _shown(tx, call, project_id))
        return object_response(QUOTA, _render(call, quotas.change(tx, project_id, limits, now)), 202)

    return await commit(call, work)


async def reset(call: Call) -> Response:
    """Let the defaults hold again."""
    project_id = _project(call)

    def work(tx: Transaction) -> Written:
        require_match(call.headers, _shown(tx, call, project_id))
        if not quotas.reset(tx, project_id):
            raise not_found(Kind.QUOTA, project_id)
        shown = _shown(tx, call, project_id)
        return Written(answer=empty_response(202), shown=lambda: {QUOTA.item_key: shown})

    return await commit(call, work)


def _shown(tx: Transaction, call: Call, project_id: ProjectId) -> Wire:
    found = listing.get_quota(tx, project_id)
    return _render(call, Quota(project_id=project_id, created_at=call.api.clock()) if found is None else found.value)


def _render(call: Call, quota: Quota) -> Wire:
    return render(QUOTA, quota.completed(call.api.settings.quotas.limits), {})


def _project(call: Call) -> ProjectId:
    """The project that the path names. Raises Invalid for what no engine can store."""
    project_id = call.params[Kind.QUOTA]
    if "\0" in project_id:
        raise Invalid("project_id", "contains the character U+0000, which is not allowed")
    return ProjectId(project_id)
