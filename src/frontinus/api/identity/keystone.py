"""Tokens that a Keystone knows (identity API v3), asked over HTTP and remembered for a bounded time.

What is remembered is bounded in age and in number. Refusals are remembered apart, so that no flood of bad tokens pushes
the good ones out. Requests with one unknown token that come together ask once. A Keystone that does not answer is left alone
for a while, so that not every request waits for it. Tokens are kept as digests only."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
import time
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any

import aiohttp
import msgspec
import structlog
from starlette.datastructures import Headers

from frontinus.api.errors import Unauthenticated
from frontinus.api.identity.interface import Identity, presented_token
from frontinus.api.identity.login import Login, find_login
from frontinus.api.identity.settings import KeystoneSettings
from frontinus.model.breaker import Breaker
from frontinus.model.errors import Invalid, Retry
from frontinus.model.ids import ProjectId

log = structlog.get_logger(__name__)

RETRY_AFTER_S = 5.0
_EARLY = timedelta(seconds=60)
"""How long before its end our own token is made anew, for clocks that differ."""

_MOST_BYTES = 1 << 20

_OUT_OF_ORDER = frozenset({HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT})
"""What counts like no answer. 500 does not: a token could be made for which Keystone answers that, and who sends it would shut
everybody else out."""


class _Named(msgspec.Struct):
    name: str


class _Known(msgspec.Struct):
    id: str


class _System(msgspec.Struct):
    all: bool = False


class _Token(msgspec.Struct):
    """What is read of a token (identity API v3, validate and show information for token)."""

    user: _Known
    expires_at: datetime
    roles: list[_Named] = []
    project: _Known | None = None
    domain: _Known | None = None
    system: _System | None = None


class _Answer(msgspec.Struct):
    token: _Token


class _Remembered(msgspec.Struct, frozen=True):
    """Keystone's answer, and when it was asked. No identity: it does not know the token."""

    identity: Identity | None
    asked_at: float
    expires_at: datetime | None


class KeystoneAuthentication:
    def __init__(
        self,
        settings: KeystoneSettings,
        now: Callable[[], datetime],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Asks nothing yet. Raises Invalid for settings with which nothing could be asked."""
        if settings.max_cached < 1:
            raise Invalid("api.keystone.max_cached", "must be at least 1")
        if settings.breaker_threshold < 0:
            raise Invalid("api.keystone.breaker_threshold", "must not be negative")
        self._breaker = Breaker(settings.breaker_threshold, settings.breaker_pause.total_seconds())
        self._settings = settings
        self._login: Login = find_login(settings)
        self._tls = _tls(self._login)
        self._challenge = f'Keystone uri="{self._login.auth_url}"'
        self._now = now
        self._monotonic = monotonic
        # Owned by the event loop's thread; no lock.
        self._accepted: OrderedDict[bytes, _Remembered] = OrderedDict()
        self._refused: OrderedDict[bytes, _Remembered] = OrderedDict()
        self._asking: dict[bytes, asyncio.Task[_Remembered]] = {}
        self._session: aiohttp.ClientSession | None = None
        self._own_token: tuple[str, datetime] | None = None
        self._logging_in: asyncio.Task[str] | None = None

    async def authenticate(self, headers: Headers) -> Identity:
        token = presented_token(headers)
        if token is None:
            raise Unauthenticated("The request you have made requires authentication.", self._challenge)
        key = hashlib.sha256(token.encode()).digest()
        found = self._recall(key)
        if found is None:
            found = await self._ask_once(key, token)
        if found.identity is None or (found.expires_at is not None and found.expires_at <= self._now()):
            raise Unauthenticated("The token is not valid, or not any more.", self._challenge)
        return found.identity

    async def close(self) -> None:
        pending = [*self._asking.values(), *([self._logging_in] if self._logging_in else [])]
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        if self._session is not None:
            await self._session.close()
            self._session = None

    # ------------------------------------------------------------ what is remembered

    def _recall(self, key: bytes) -> _Remembered | None:
        for known, staleness in (
            (self._accepted, self._settings.staleness),
            (self._refused, self._settings.refusal_staleness),
        ):
            found = known.get(key)
            if found is None:
                continue
            if self._monotonic() - found.asked_at < staleness.total_seconds():
                known.move_to_end(key)
                return found
            del known[key]
        return None

    def _remember(self, key: bytes, answer: _Remembered) -> None:
        known = self._refused if answer.identity is None else self._accepted
        known[key] = answer
        while len(known) > self._settings.max_cached:
            known.popitem(last=False)

    # ------------------------------------------------------------ asking

    async def _ask_once(self, key: bytes, token: str) -> _Remembered:
        """One question for all who wait for the same answer. It goes on when the first of them goes away."""
        task = self._asking.get(key)
        if task is None:
            task = asyncio.create_task(self._ask(key, token), name="keystone")
            self._asking[key] = task
            task.add_done_callback(lambda done: self._asked(key, done))
        return await asyncio.shield(task)

    def _asked(self, key: bytes, done: asyncio.Task[_Remembered]) -> None:
        del self._asking[key]
        _hear(done)

    async def _ask(self, key: bytes, token: str) -> _Remembered:
        asked_at = self._monotonic()  # the answer may be as old as the question
        status, body = await self._validate(token, await self._service_token())
        if status == HTTPStatus.UNAUTHORIZED:
            # Our own token was revoked, or Keystone's keys were changed: once more with a new one.
            self._own_token = None
            status, body = await self._validate(token, await self._service_token())
        if status == HTTPStatus.NOT_FOUND:
            answer = _Remembered(None, asked_at, None)
        elif status == HTTPStatus.OK:
            shown = _read(body).token
            answer = _Remembered(_identity(shown), asked_at, shown.expires_at)
        else:
            log.warning("keystone does not validate", status=status, auth_url=self._login.auth_url)
            raise _unavailable(f"it answered {status}, which its operator must look into")
        self._remember(key, answer)
        return answer

    async def _validate(self, token: str, own: str) -> tuple[int, bytes]:
        headers = {"X-Auth-Token": own, "X-Subject-Token": token}
        status, body, _ = await self._request("GET", "/auth/tokens?nocatalog", headers)
        return status, body

    async def _service_token(self) -> str:
        if self._own_token is not None and self._now() < self._own_token[1] - _EARLY:
            return self._own_token[0]
        if self._logging_in is None:
            self._logging_in = asyncio.create_task(self._log_in(), name="keystone login")
            self._logging_in.add_done_callback(self._logged_in)
        return await asyncio.shield(self._logging_in)

    def _logged_in(self, done: asyncio.Task[str]) -> None:
        self._logging_in = None
        _hear(done)

    async def _log_in(self) -> str:
        headers = {"Content-Type": "application/json"}
        request = self._login.request.reveal().encode()
        status, body, subject = await self._request("POST", "/auth/tokens?nocatalog", headers, request)
        if status != HTTPStatus.CREATED or not subject:
            log.error("keystone refuses the service user", status=status, auth_url=self._login.auth_url)
            raise _unavailable(f"it refuses our service user with {status}: see [api.keystone] in the configuration")
        self._own_token = (subject, _read(body).token.expires_at)
        return subject

    async def _request(
        self, method: str, path: str, headers: dict[str, str], data: bytes | None = None
    ) -> tuple[int, bytes, str]:
        """Status, body, and the token in the header. Raises Retry for every way of not getting an answer, and at once while
        Keystone is left alone."""
        wait = self._breaker.refusal(self._monotonic())
        if wait is not None:
            raise _unavailable(f"it has not answered; it is left alone for {wait:.0f} s", after=max(wait, 1.0))
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=self._settings.timeout.total_seconds())
            self._session = aiohttp.ClientSession(timeout=timeout)
        try:
            async with self._session.request(
                method, self._login.auth_url + path, headers=headers, data=data, ssl=self._tls, allow_redirects=False
            ) as response:
                body = await response.content.read(_MOST_BYTES)
                while not response.content.at_eof():
                    more = await response.content.read(_MOST_BYTES)
                    body += more
                    if len(body) > _MOST_BYTES:
                        raise _unavailable("its answer is too long to be one")
                if response.status in _OUT_OF_ORDER:
                    self._breaker.failed(self._monotonic())
                else:
                    self._breaker.succeeded()
                return response.status, body, response.headers.get("X-Subject-Token", "")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self._breaker.failed(self._monotonic())
            log.warning("keystone does not answer", auth_url=self._login.auth_url, reason=repr(error))
            raise _unavailable("it does not answer") from error


def _hear(done: asyncio.Task[Any]) -> None:
    """Whoever waited for it may have gone away; then its error is nobody's, and asyncio would complain."""
    if not done.cancelled():
        done.exception()


def _read(body: bytes) -> _Answer:
    try:
        answer = msgspec.json.decode(body, type=_Answer)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _unavailable("its answer cannot be read") from error
    if answer.token.expires_at.tzinfo is None:
        answer.token.expires_at = answer.token.expires_at.replace(tzinfo=UTC)
    return answer


def _identity(token: _Token) -> Identity:
    return Identity(
        project_id=None if token.project is None else ProjectId(token.project.id),
        user_id=token.user.id,
        roles=tuple(x.name for x in token.roles),
        system_scope="all" if token.system is not None and token.system.all else None,
        domain_id=None if token.domain is None else token.domain.id,
    )


def _unavailable(why: str, after: float = RETRY_AFTER_S) -> Retry:
    return Retry(f"tokens cannot be validated now: Keystone is asked, and {why}", after=after)


def _tls(login: Login) -> ssl.SSLContext | bool:
    if not login.verify:
        return False
    if login.ca_file is None:
        return True
    try:
        return ssl.create_default_context(cafile=str(login.ca_file))
    except (OSError, ssl.SSLError) as error:
        raise Invalid("api.keystone.ca_file", f"{login.ca_file} cannot be read as certificates: {error}") from error
