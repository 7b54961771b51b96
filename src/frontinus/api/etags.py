"""Entity tags: what every object carries in the header ETag, and the conditions that clients make of it.

A tag has two halves. The first changes whenever what is *asked* of the object changes, the second whenever anything that
is shown of it changes, statuses and faults among it. `If-None-Match` looks at both, so nobody who polls is told that
nothing happened while something did; `If-Match` looks at the first, so an edit is not refused because a health check
flipped. Why: docs/design/0003-concurrent-edits.md."""

from __future__ import annotations

import re
from collections.abc import Iterator
from hashlib import blake2b

import msgspec
from starlette.datastructures import Headers
from starlette.responses import Response

from frontinus.api.calls import empty_response, json_response
from frontinus.api.errors import HttpError
from frontinus.api.fields import Resource
from frontinus.api.rendering import Wire

REPORTS = frozenset({"provisioning_status", "operating_status", "status", "fault", "last_check", "updated_at"})
"""Attributes that say how things are going, not what is asked. `updated_at` moves with either."""

_HALF_BYTES = 9  # 12 characters; tags guard against accidents, not against forgers
_TAG = re.compile(r'\s*(W/)?"([\x21\x23-\x7e]*)"\s*(?:,|$)')


def tag_of(shown: Wire) -> str:
    """The tag of an object as a show has it, quotes included."""
    asked = {name: value for name, value in shown.items() if name not in REPORTS}
    return f'"{_digest(asked)}.{_digest(shown)}"'


def object_response(resource: Resource, shown: Wire, status: int = 200, *, body: object = None) -> Response:
    """An object under its envelope, with its tag. `body` stands in for it where an answer shows it another way."""
    response = json_response({resource.item_key: shown if body is None else body}, status)
    response.headers["ETag"] = tag_of(shown)
    return response


def not_modified(headers: Headers, shown: Wire) -> Response | None:
    """304 for a GET whose sender has seen just this."""
    if "if-none-match" not in headers:
        return None
    tag = tag_of(shown)
    given = _combined(headers, "if-none-match")
    if given.strip() != "*" and tag.strip('"') not in (opaque for _, opaque in _tags(given)):
        return None
    response = empty_response(304)
    response.headers["ETag"] = tag
    return response


def require_match(headers: Headers, shown: Wire) -> None:
    """Raise HttpError 412 when the sender means an object of which something else was asked by now."""
    if "if-match" not in headers:
        return
    given = _combined(headers, "if-match")
    if given.strip() == "*":
        return
    tag = tag_of(shown)
    asked = _asked(tag.strip('"'))
    if not any(not weak and _asked(opaque) == asked for weak, opaque in _tags(given)):
        raise HttpError(
            412,
            "the object is not what If-Match says: it was changed since you read it; read it again, then decide",
            {"ETag": tag},
        )


def _digest(value: Wire) -> str:
    return blake2b(msgspec.json.encode(value), digest_size=_HALF_BYTES).hexdigest()


def _asked(opaque: str) -> str:
    return opaque.partition(".")[0]


def _combined(headers: Headers, name: str) -> str:
    return ",".join(headers.getlist(name))


def _tags(text: str) -> Iterator[tuple[bool, str]]:
    """Whether each is weak, and what stands between its quotes. What is no list of tags names none from there on."""
    position = 0
    while (found := _TAG.match(text, position)) is not None and position < len(text):
        yield found[1] is not None, found[2]
        position = found.end()
