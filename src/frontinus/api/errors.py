"""From errors to answers: the one place where an error gets an HTTP status, and our words get their wire spelling.

Every error body has the service form {faultcode, faultstring, debuginfo} (behaviours.yaml errors.service_body), but for
401, whose body is that of identity services."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import msgspec
from starlette.responses import Response

from frontinus.model.errors import (
    CallerError,
    Conflict,
    FrontinusError,
    Immutable,
    Invalid,
    NotFound,
    OverQuota,
    Rejected,
    Retry,
    Unsupported,
)

JSON_TYPE = "application/json"


class HttpError(FrontinusError):
    """Something about the request itself: its path, its method, its media types, its size."""

    def __init__(self, status: int, reason: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.headers = dict(headers or {})


class Unauthenticated(HttpError):
    """401, with the challenge that says how to come back (RFC 9110 section 11.6.1)."""

    def __init__(self, reason: str, challenge: str) -> None:
        super().__init__(401, reason, {"WWW-Authenticate": challenge})


class Forbidden(HttpError):
    """403: policy does not allow it."""

    def __init__(self, reason: str) -> None:
        super().__init__(403, reason)


_STATUS: tuple[tuple[type[FrontinusError], int], ...] = (
    (Invalid, 400),
    (NotFound, 404),
    (Conflict, 409),
    (Immutable, 409),
    (OverQuota, 403),
    (Unsupported, 501),
    (Rejected, 400),
    (Retry, 503),
)


def status_of(error: FrontinusError) -> int:
    """What an error is answered with; 500 for what is not the caller's fault and will not pass by waiting."""
    if isinstance(error, HttpError):
        return error.status
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def answer_error(error: FrontinusError) -> Response:
    if isinstance(error, Unauthenticated):
        return _challenge(error)
    status = status_of(error)
    headers = dict(error.headers) if isinstance(error, HttpError) else {}
    if isinstance(error, Retry):
        headers["Retry-After"] = str(max(1, math.ceil(error.after)))
    return fault_response(status, _message(error), headers)


def fault_response(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """The service body. What no text encoding can carry (half of a surrogate pair) is written as an escape."""
    body = {
        "faultcode": "Client" if status < 500 else "Server",
        "faultstring": message.encode("utf-8", "backslashreplace").decode(),
        "debuginfo": None,
    }
    return Response(msgspec.json.encode(body), status, headers, JSON_TYPE)


def _challenge(error: Unauthenticated) -> Response:
    """The body that OpenStack's identity middleware has, which differs from all others (behaviours.yaml errors.auth_body)."""
    body = {"error": {"code": 401, "title": "Unauthorized", "message": str(error)}}
    return Response(msgspec.json.encode(body), 401, error.headers, JSON_TYPE)


_WIRE_WORDS = {
    "load_balancer": "loadbalancer",
    "load_balancer_id": "loadbalancer_id",
    "health_monitor": "healthmonitor",
    "health_monitor_id": "healthmonitor_id",
    "l7_policy": "l7policy",
    "l7_policies": "l7policies",
    "l7_rule": "rule",
    "l7_rules": "rules",
}
_OUR_WORD = re.compile(r"[a-z0-9_]+")


def on_the_wire(field: str) -> str:
    """A dotted path of our words in the spelling of the wire. Paths that are on the wire already stay as they are."""
    return _OUR_WORD.sub(lambda found: _WIRE_WORDS.get(found[0], found[0]), field)


def _message(error: FrontinusError) -> str:
    if isinstance(error, CallerError | Rejected) and error.field:
        return f"{on_the_wire(error.field)}: {error.reason}"
    return str(error)
