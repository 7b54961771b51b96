"""Keys under which creates were sent, and what was answered: a retried create gets the first answer.

First a key is *reserved*, in a transaction of its own, so that every process sees who works on the request; then the
answer is *kept*, in the transaction that makes the object: there is never one without the other. A reservation whose owner
was killed runs out. What a key is a digest of, and what happens to who comes second, is the API's (api/idempotency.py)."""

from __future__ import annotations

from datetime import datetime
from functools import cache

import msgspec
from sqlalchemy import bindparam, delete, select, update

from frontinus.store.engine import Transaction
from frontinus.store.rows import to_microseconds
from frontinus.store.schema import idempotency_key
from frontinus.store.statement import Statement, Value, insert_if_absent, is_one_of, padded, padded_size

_t = idempotency_key.c
_COLUMNS = ("id", "fingerprint", "owner", "expires_at")

MOST_PURGED = 1024
"""Rows forgotten in one transaction: a bound on how long others wait for it."""

_OWN = (_t.id == bindparam("which"), _t.owner == bindparam("own"), _t.status.is_(None))

_INSERT = Statement(insert_if_absent(idempotency_key, _COLUMNS))
_SELECT = Statement(
    select(_t.fingerprint, _t.expires_at, _t.status, _t.etag, _t.body)
    .where(_t.id == bindparam("which"))
    .with_for_update()
)
_TAKE_OVER = Statement(
    update(idempotency_key)
    .where(_t.id == bindparam("which"))
    .values(
        fingerprint=bindparam("new_fingerprint"),
        owner=bindparam("new_owner"),
        expires_at=bindparam("until"),
        status=None,
        etag=None,
        body=None,
    )
)
_KEEP = Statement(
    update(idempotency_key)
    .where(*_OWN)
    .values(
        status=bindparam("new_status"),
        etag=bindparam("new_etag"),
        body=bindparam("new_body"),
        expires_at=bindparam("until"),
    )
)
_EXTEND = Statement(update(idempotency_key).where(*_OWN).values(expires_at=bindparam("until")))
_RELEASE = Statement(delete(idempotency_key).where(*_OWN))
_RELEASE_ALL = Statement(delete(idempotency_key).where(_t.status.is_(None)))
_SELECT_EXPIRED = Statement(
    select(_t.id).where(_t.expires_at <= bindparam("now")).order_by(_t.expires_at).limit(bindparam("most"))
)


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What was answered to the first request."""

    fingerprint: str
    status: int
    etag: str | None
    body: bytes


class UnderWay(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody works on the first request."""

    fingerprint: str


def reserve(
    tx: Transaction, key: str, *, fingerprint: str, owner: str, now: datetime, until: datetime
) -> Kept | UnderWay | None:
    """Reserve the key for `owner`: None if it is theirs now, else what became of who came first. Of two at the same time
    one gets it, whatever the engine; what has run out counts as not there."""
    mine: dict[str, Value] = {
        "id": key,
        "fingerprint": fingerprint,
        "owner": owner,
        "expires_at": to_microseconds(until),
    }
    if tx.run(_INSERT, mine) == 1:
        return None
    row = tx.row(_SELECT, {"which": key})
    if row is None:
        return UnderWay(fingerprint=fingerprint)  # given up just now; whoever asks again gets it
    known, expires_at, status, etag, body = row
    if expires_at <= to_microseconds(now):
        taken = {"new_fingerprint": fingerprint, "new_owner": owner, "until": mine["expires_at"]}
        tx.run(_TAKE_OVER, {"which": key, **taken})
        return None
    if status is None:
        return UnderWay(fingerprint=known)
    return Kept(fingerprint=known, status=status, etag=etag, body=(body or "").encode())


def keep(tx: Transaction, key: str, *, owner: str, status: int, etag: str | None, body: bytes, until: datetime) -> bool:
    """Keep the answer until then. False, and nothing kept, if the reservation is not the owner's any more: whoever calls
    must let the transaction fail."""
    answer: dict[str, Value] = {
        "new_status": status,
        "new_etag": etag,
        "new_body": body.decode(),
        "until": to_microseconds(until),
    }
    return tx.run(_KEEP, {"which": key, "own": owner, **answer}) == 1


def extend(tx: Transaction, key: str, *, owner: str, until: datetime) -> None:
    """Hold the reservation until then. Nothing happens if an answer was kept, or it is not the owner's."""
    tx.run(_EXTEND, {"which": key, "own": owner, "until": to_microseconds(until)})


def release(tx: Transaction, key: str, *, owner: str) -> None:
    """Let somebody else try under this key. Nothing happens if an answer was kept, or it is not the owner's."""
    tx.run(_RELEASE, {"which": key, "own": owner})


def release_all(tx: Transaction) -> int:
    """Give every key back under which somebody works; how many. Only for a caller who can prove that no other process
    lives, as leases.break_all: what a killed one left can be sent again at once."""
    return tx.run(_RELEASE_ALL, {})


def purge(tx: Transaction, now: datetime) -> int:
    """Forget at most MOST_PURGED keys whose time is over; how many it were."""
    found = [row[0] for row in tx.rows(_SELECT_EXPIRED, {"now": to_microseconds(now), "most": MOST_PURGED})]
    if not found:
        return 0
    size = padded_size(len(found))
    return tx.run(_delete(size), padded(found, size))


@cache
def _delete(size: int) -> Statement:
    return Statement(delete(idempotency_key).where(is_one_of(_t.id, size)))
