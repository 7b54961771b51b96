"""One request on its way to a handler, and what handlers answer with.

Reads what HTTP says about a request (media types, size, query) and refuses what the contract refuses before any handler
runs. Knows no resource. Next: routing.py."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import parse_qsl

import msgspec
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from frontinus.api.errors import JSON_TYPE, HttpError
from frontinus.api.identity.interface import Authenticator, Identity
from frontinus.api.ports import Clock, SecretReader, VipAllocator
from frontinus.api.settings import ApiSettings
from frontinus.model.errors import Invalid
from frontinus.model.ids import ProjectId
from frontinus.store.engine import Store


@dataclass(frozen=True)
class Api:
    """What every handler works with."""

    store: Store
    network: VipAllocator
    settings: ApiSettings
    clock: Clock
    authenticator: Authenticator
    secrets: SecretReader | None = None
    """None: references are taken as they are, and are looked at when they are carried out."""


@dataclass
class Reservation:
    """An Idempotency-Key that one request holds, by its digest. `kept` is set once its answer is part of a transaction."""

    key: str
    owner: str
    kept: bool = False


@dataclass(frozen=True)
class Call:
    """A request that was routed. `params` are the variable parts of its path, `query` its arguments in order, `base` the
    scheme, host and prefix that the client used, `path` what followed."""

    api: Api
    identity: Identity
    headers: Headers
    params: Mapping[str, str]
    query: tuple[tuple[str, str], ...]
    body: bytes
    base: str
    path: str
    restricted_to: ProjectId | None = None
    """The only project that a list may show; None is no restriction. Policy says so, whatever was asked for."""
    dry_run: bool = False
    """Whether nothing is to be done, only told."""
    reservation: Reservation | None = None
    """The Idempotency-Key under which the request is answered."""

    def argument(self, name: str) -> str | None:
        """The last value of a query argument."""
        return next((value for key, value in reversed(self.query) if key == name), None)

    def arguments(self, name: str) -> list[str]:
        """All values of a query argument."""
        return [value for key, value in self.query if key == name]


Handler: TypeAlias = Callable[[Call], Awaitable[Response]]


def json_response(content: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(content), status, media_type=JSON_TYPE)


def empty_response(status: int) -> Response:
    return Response(b"", status)


_MAX_QUERY_ARGUMENTS = 1000


def read_query(query_string: bytes) -> tuple[tuple[str, str], ...]:
    """The arguments in order. Raises Invalid for what cannot be a value anywhere."""
    if not query_string:
        return ()
    try:
        text = query_string.decode("ascii")
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=_MAX_QUERY_ARGUMENTS, errors="strict")
    except ValueError as error:
        raise Invalid("", "the query string cannot be read: it is too long or not UTF-8 in percent encoding") from error
    for name, value in pairs:
        if "\0" in name or "\0" in value:
            raise Invalid(name.replace("\0", ""), "contains the character U+0000, which is not allowed")
    return tuple(pairs)


def refuse_unknown_arguments(query: Iterable[tuple[str, str]], known: frozenset[str]) -> None:
    for name, _ in query:
        if name not in known:
            raise Invalid(name[:80], "is not a known query argument here")


_LOW_QUALITY = re.compile(r";\s*q\s*=\s*0(\.0*)?\s*(;|$)")


def check_accept(headers: Headers) -> None:
    """Raise HttpError 406 where JSON would not be accepted. No header, an empty one and wildcards accept it."""
    accept = headers.get("accept")
    if not accept or accept == "*/*":
        return
    for part in accept.split(","):
        media_range = part.split(";", 1)[0].strip().lower()
        if media_range in (JSON_TYPE, "application/*", "*/*", "*", "text/javascript") and not _LOW_QUALITY.search(part):
            return
    raise HttpError(406, "answers are application/json, which the Accept header excludes")


_FORM_TYPES = frozenset({"application/x-www-form-urlencoded", "multipart/form-data"})


def check_content_type(headers: Headers, body: bytes) -> None:
    """Raise what the contract answers to bodies that do not say that they are JSON."""
    content_type = headers.get("content-type")
    if content_type is None:
        if body:
            raise Invalid("Content-Type", f"is missing; send {JSON_TYPE}")
        return
    media_type = content_type.split(";", 1)[0].strip().lower()
    if media_type in _FORM_TYPES:
        raise Invalid("", "the body must be JSON, not a form")
    if media_type not in (JSON_TYPE, "text/javascript"):
        raise HttpError(415, f"the body must be {JSON_TYPE}")


async def read_body(request: Request, limit: int) -> bytes:
    """The whole body. Raises HttpError 413 as soon as it is certain that it is too long."""
    length = request.headers.get("content-length")
    if length is not None and length.isdecimal() and int(length) > limit:
        raise HttpError(413, f"the body is larger than {limit} bytes")
    parts: list[bytes] = []
    size = 0
    try:
        async for part in request.stream():
            size += len(part)
            if size > limit:
                raise HttpError(413, f"the body is larger than {limit} bytes")
            parts.append(part)
    except ClientDisconnect as error:
        raise HttpError(400, "the client went away before its request was complete") from error
    return b"".join(parts)


def base_url(request: Request, prefix: str, settings: ApiSettings) -> str:
    """Scheme, host and prefix as the client sees them."""
    if settings.api_base_uri is not None:
        return settings.api_base_uri.rstrip("/")
    scheme = request.scope.get("scheme", "http")
    host = request.headers.get("host")
    if not host:
        server = request.scope.get("server") or (settings.bind_host, settings.bind_port)
        host = f"{server[0]}:{server[1]}"
    return f"{scheme}://{host}{prefix}"
