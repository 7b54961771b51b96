"""`Idempotency-Key`: a create that is sent again gets the answer of the first, and makes no second object.

A key counts for one project and one operation with its path. The first request reserves it, and its answer is kept in
the transaction that makes the object (commits.py), so it is the answer whoever is killed, whenever. Who comes while the first
is under way waits for it. What fails reserves nothing. Follows draft-ietf-httpapi-idempotency-key-header: another
request under the same key is 422, one that is still under way 409. Why so: docs/design/0005-sending-a-create-again.md.

Requests without the header never get here."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256

import msgspec
import structlog
from starlette.datastructures import Headers
from starlette.responses import Response

from frontinus.api.calls import Call, Reservation
from frontinus.api.errors import JSON_TYPE, HttpError
from frontinus.api.requests import decode
from frontinus.api.routing import Operation
from frontinus.model.errors import FrontinusError, Invalid
from frontinus.model.ids import new_id
from frontinus.store import idempotency
from frontinus.store.engine import Transaction
from frontinus.store.idempotency import Kept, UnderWay

log = structlog.get_logger(__name__)

HEADER = "Idempotency-Key"
REPLAYED_HEADER = "Idempotent-Replayed"

KEPT_FOR = timedelta(hours=24)
"""How long an answer is kept. Clients retry for minutes; a day outlives their queues and our outages."""

HELD_FOR = timedelta(seconds=10)
"""How long a reservation holds unless it is renewed, which it is while its request is worked on. So long retries of a
request whose process was killed before its commit are put off."""

RENEWED_EVERY = timedelta(seconds=3)
"""One lost renewal does not lose the reservation, nor do two."""

_SHORTEST_POLL_S, _LONGEST_POLL_S = 0.02, 0.25

_KEY = re.compile(r"[\x21\x23-\x7e][\x20\x21\x23-\x7e]{0,253}[\x21\x23-\x7e]|[\x21\x23-\x7e]")
"""1 to 255 printable characters of ASCII without quotes."""


async def answer_once(call: Call, operation: Operation) -> Response:
    """The answer of the first request under this key: by the handler, or as it was kept.

    Raises Invalid for a key that is none, HttpError 422 for another request under the key and 409 when the first one is
    still under way; whatever the handler raises gives the key back."""
    key = _digest(call.identity.project_id or "", operation.id, *call.params.values(), _read_key(call.headers))
    fingerprint = _fingerprint(call.body)
    reservation = Reservation(key=key, owner=new_id())
    found = await _reserve(call, reservation, fingerprint)
    if found is not None:
        return _replay(found)
    renewing = asyncio.create_task(_renew(call, reservation))
    try:
        response = await operation.handler(replace(call, reservation=reservation))
        if not reservation.kept:
            await call.api.store.transact(lambda tx: keep_answer(tx, call, reservation, response))
    except BaseException:  # also when cancelled: another request may try
        try:
            await call.api.store.transact(lambda tx: idempotency.release(tx, key, owner=reservation.owner))
        except FrontinusError as error:
            # It runs out by itself; what went wrong first is what the caller shall read.
            log.warning("idempotency key not released", reason=str(error))
        raise
    finally:
        renewing.cancel()
    return response


async def _renew(call: Call, reservation: Reservation) -> None:
    """Hold the reservation until cancelled. Most requests end before the first time."""
    while True:
        await asyncio.sleep(RENEWED_EVERY.total_seconds())
        until = call.api.clock() + HELD_FOR
        try:
            await call.api.store.transact(
                lambda tx, until=until: idempotency.extend(  # type: ignore[misc]
                    tx, reservation.key, owner=reservation.owner, until=until
                )
            )
        except FrontinusError as error:
            # If it ran out and somebody else has it, the answer is not kept, and nothing is made twice.
            log.warning("idempotency key not renewed", reason=str(error))


def keep_answer(tx: Transaction, call: Call, reservation: Reservation, response: Response) -> None:
    """Make the answer part of the transaction. Raises HttpError 409, so that the transaction fails, when the reservation
    ran out and somebody else has it."""
    kept = idempotency.keep(
        tx,
        reservation.key,
        owner=reservation.owner,
        status=response.status_code,
        etag=response.headers.get("etag"),
        body=bytes(response.body),
        until=call.api.clock() + KEPT_FOR,
    )
    if not kept:
        raise _under_way()
    reservation.kept = True


async def _reserve(call: Call, reservation: Reservation, fingerprint: str) -> Kept | None:
    """None once the key is ours, or the answer of who had it."""
    api = call.api
    deadline = asyncio.get_running_loop().time() + api.settings.idempotency_wait.total_seconds()
    pause = _SHORTEST_POLL_S

    def reserve(tx: Transaction) -> Kept | UnderWay | None:
        now = api.clock()
        return idempotency.reserve(
            tx,
            reservation.key,
            fingerprint=fingerprint,
            owner=reservation.owner,
            now=now,
            until=now + HELD_FOR,
        )

    while True:
        found = await api.store.transact(reserve)
        if found is not None and found.fingerprint != fingerprint:
            raise HttpError(
                422,
                f"{HEADER}: was sent before with another body; give each request a key of its own, new ones a new one",
            )
        if found is None or isinstance(found, Kept):
            return found
        if asyncio.get_running_loop().time() >= deadline:
            raise _under_way()
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LONGEST_POLL_S)


def _under_way() -> HttpError:
    return HttpError(
        409,
        f"{HEADER}: another request with this key is under way; send it again to get its answer",
        {"Retry-After": "1"},
    )


def _replay(found: Kept) -> Response:
    headers = {REPLAYED_HEADER: "true"}
    if found.etag is not None:
        headers["ETag"] = found.etag
    return Response(found.body, found.status, headers, JSON_TYPE if found.body else None)


def _read_key(headers: Headers) -> str:
    """The key, with or without the quotes that the draft has around it."""
    given = headers.getlist(HEADER)
    if len(given) > 1:
        raise Invalid(HEADER, "can be given only once")
    key = given[0].strip()
    if len(key) >= 2 and key[0] == key[-1] == '"':
        key = key[1:-1]
    if _KEY.fullmatch(key) is None:
        raise Invalid(HEADER, "must be 1 to 255 printable characters of ASCII, as a UUID")
    return key


def _fingerprint(body: bytes) -> str:
    """The same for bodies that mean the same. Raises Invalid for what is no JSON."""
    document = decode(body)
    try:
        text = msgspec.json.encode(document, order="deterministic")
    except UnicodeEncodeError:
        text = body  # half of a surrogate pair: the handler refuses it, naming the attribute
    return sha256(text).hexdigest()


def _digest(*parts: str) -> str:
    return sha256(msgspec.json.encode(parts)).hexdigest()
