"""What is remembered of Keystone's answers and for how long, and what an outage does. Keystone is played by a small server,
so that it can be made to fail; test_keystone.py asks a real one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from starlette.datastructures import Headers

from frontinus.api.errors import Unauthenticated
from frontinus.api.identity.keystone import KeystoneAuthentication
from frontinus.api.identity.login import find_login
from frontinus.api.identity.settings import KeystoneSettings
from frontinus.model.errors import Invalid, Retry
from frontinus.model.secrets import Secret

pytestmark = pytest.mark.integration

NOON = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)


class Keystone:
    """Knows `alice`. Counts what it is asked."""

    def __init__(self) -> None:
        self.known = {"alice"}
        self.own = "service-1"
        self.asked = 0
        self.logins = 0
        self.status = 200
        self.body: str | None = None
        self.hold: asyncio.Event | None = None
        self.reached = asyncio.Event()
        self.expires_at = NOON + timedelta(hours=1)

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/v3/auth/tokens", self.log_in)
        app.router.add_get("/v3/auth/tokens", self.validate)
        return app

    async def log_in(self, request: web.Request) -> web.Response:
        self.logins += 1
        auth = (await request.json())["auth"]
        if auth["identity"]["password"]["user"]["password"] != "right":
            return web.Response(status=401)
        return web.json_response(self.token(), status=201, headers={"X-Subject-Token": self.own})

    async def validate(self, request: web.Request) -> web.Response:
        self.asked += 1
        self.reached.set()
        if self.hold is not None:
            await self.hold.wait()
        if request.headers["X-Auth-Token"] != self.own:
            return web.Response(status=401)
        if self.status != 200:
            return web.Response(status=self.status)
        if self.body is not None:
            return web.Response(text=self.body)
        if request.headers["X-Subject-Token"] not in self.known:
            return web.Response(status=404)
        return web.json_response(self.token())

    def token(self) -> object:
        return {
            "token": {
                "user": {"id": "u1"},
                "project": {"id": "p1"},
                "roles": [{"id": "r", "name": "member"}],
                "expires_at": self.expires_at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            }
        }


class Asker:
    """The authenticator against that Keystone, with clocks that stand still."""

    def __init__(self, url: str, password: str = "right", max_cached: int = 10) -> None:
        self.time = 0.0
        settings = KeystoneSettings(
            auth_url=url,
            username="frontinus",
            password=Secret(password),
            project_name="service",
            staleness=timedelta(seconds=60),
            refusal_staleness=timedelta(seconds=10),
            max_cached=max_cached,
            timeout=timedelta(seconds=10),
        )
        self.authenticator = KeystoneAuthentication(
            settings, lambda: NOON + timedelta(seconds=self.time), lambda: self.time
        )

    async def ask(self, token: str) -> str:
        """The caller's project, or how it was refused."""
        try:
            identity = await self.authenticator.authenticate(Headers({"x-auth-token": token}))
        except Unauthenticated:
            return "401"
        except Retry:
            return "503"
        return str(identity.project_id)


@pytest.fixture
async def keystone() -> AsyncIterator[tuple[Keystone, TestServer]]:
    played = Keystone()
    server = TestServer(played.app())
    await server.start_server()
    yield played, server
    await server.close()


@pytest.fixture
async def asker(keystone: tuple[Keystone, TestServer]) -> AsyncIterator[Asker]:
    made = Asker(str(keystone[1].make_url("")))
    yield made
    await made.authenticator.close()


async def test_an_answer_is_gone_by_until_it_is_stale(keystone: tuple[Keystone, TestServer], asker: Asker) -> None:
    played, _ = keystone
    assert [await asker.ask("alice") for _ in range(3)] == ["p1"] * 3
    assert (played.asked, played.logins) == (1, 1)
    played.known.clear()  # revoked
    asker.time = 59.9
    assert await asker.ask("alice") == "p1"
    asker.time = 60
    assert await asker.ask("alice") == "401"
    assert played.asked == 2


async def test_a_refusal_is_gone_by_for_its_own_time(keystone: tuple[Keystone, TestServer], asker: Asker) -> None:
    played, _ = keystone
    assert [await asker.ask("bob") for _ in range(3)] == ["401"] * 3
    assert played.asked == 1
    played.known.add("bob")
    asker.time = 10
    assert await asker.ask("bob") == "p1"


async def test_a_remembered_token_ends_when_it_says(keystone: tuple[Keystone, TestServer], asker: Asker) -> None:
    keystone[0].expires_at = NOON + timedelta(seconds=30)
    assert await asker.ask("alice") == "p1"
    asker.time = 30
    assert await asker.ask("alice") == "401"


async def test_an_outage_is_503_for_strangers_and_nothing_for_the_known_until_stale(
    keystone: tuple[Keystone, TestServer], asker: Asker
) -> None:
    played, server = keystone
    assert await asker.ask("alice") == "p1"
    await server.close()
    assert await asker.ask("bob") == "503"
    asker.time = 59.9
    assert await asker.ask("alice") == "p1"
    asker.time = 60
    assert await asker.ask("alice") == "503"
    assert played.asked == 1


@pytest.mark.parametrize("status", [500, 502, 503, 403, 302])
async def test_whatever_is_no_answer_is_503_and_is_not_remembered(
    keystone: tuple[Keystone, TestServer], asker: Asker, status: int
) -> None:
    played, _ = keystone
    played.status = status
    assert await asker.ask("alice") == "503"
    played.status = 200
    assert await asker.ask("alice") == "p1"


@pytest.mark.parametrize("body", ["", "{}", "[]", '{"token": {}}', "x" * 3_000_000, '{"token": {"user": 1}}'])
async def test_nonsense_is_503(keystone: tuple[Keystone, TestServer], asker: Asker, body: str) -> None:
    keystone[0].body = body
    assert await asker.ask("alice") == "503"


async def test_a_service_token_that_was_revoked_is_made_anew(
    keystone: tuple[Keystone, TestServer], asker: Asker
) -> None:
    played, _ = keystone
    assert await asker.ask("alice") == "p1"
    played.own = "service-2"
    assert await asker.ask("bob") == "401"
    assert played.logins == 2


async def test_a_wrong_password_of_the_service_is_503(keystone: tuple[Keystone, TestServer]) -> None:
    asker = Asker(str(keystone[1].make_url("")), password="wrong")
    assert await asker.ask("alice") == "503"
    await asker.authenticator.close()


async def test_requests_that_come_together_ask_once_even_if_the_first_goes_away(
    keystone: tuple[Keystone, TestServer], asker: Asker
) -> None:
    played, _ = keystone
    played.hold = asyncio.Event()
    waiting = [asyncio.create_task(asker.ask("alice")) for _ in range(20)]
    async with asyncio.timeout(10):
        await played.reached.wait()
    waiting[0].cancel()
    played.hold.set()
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(answers[0], asyncio.CancelledError)
    assert answers[1:] == ["p1"] * 19
    assert (played.asked, played.logins) == (1, 1)


async def test_a_flood_of_bad_tokens_does_not_push_out_the_good_ones(
    keystone: tuple[Keystone, TestServer], asker: Asker
) -> None:
    played, _ = keystone
    assert await asker.ask("alice") == "p1"
    assert {await asker.ask(f"guess-{n}") for n in range(50)} == {"401"}
    asked = played.asked
    assert await asker.ask("alice") == "p1"
    assert played.asked == asked
    assert await asker.ask("guess-0") == "401"
    assert played.asked == asked + 1, "only the last ten refusals are remembered"


async def test_a_keystone_that_hangs_is_left_alone_and_tried_again(
    keystone: tuple[Keystone, TestServer], asker: Asker
) -> None:
    """Who is known goes on; strangers do not wait for it, each for the whole time-out."""
    played, _ = keystone
    assert await asker.ask("alice") == "p1"
    played.known |= {"bob", "carol"}
    played.status = 504
    assert [await asker.ask(f"stranger-{n}") for n in range(3)] == ["503"] * 3
    asked, played.status, played.hold = played.asked, 200, asyncio.Event()  # whoever asks now would hang
    async with asyncio.timeout(5):
        assert await asker.ask("bob") == "503"
        assert await asker.ask("alice") == "p1"
    assert played.asked == asked, "it is not asked"

    asker.time += 5
    trying = asyncio.create_task(asker.ask("bob"))
    while played.asked == asked:  # noqa: ASYNC110 - the other side counts
        await asyncio.sleep(0)
    async with asyncio.timeout(5):
        assert await asker.ask("carol") == "503", "one tries at a time"
    played.hold.set()
    assert await trying == "p1"
    played.hold = None
    assert await asker.ask("carol") == "p1"


async def test_a_keystone_that_does_not_answer_is_left_alone(
    asker: Asker, keystone: tuple[Keystone, TestServer]
) -> None:
    played, server = keystone
    await server.close()
    assert [await asker.ask(f"stranger-{n}") for n in range(3)] == ["503"] * 3
    with pytest.raises(Retry, match="left alone for 5 s"):
        await asker.authenticator.authenticate(Headers({"x-auth-token": "alice"}))
    assert (played.asked, played.logins) == (0, 0)


async def test_nobody_shuts_the_others_out_by_tokens_that_keystone_chokes_on(
    keystone: tuple[Keystone, TestServer], asker: Asker
) -> None:
    played, _ = keystone
    played.status = 500
    assert [await asker.ask(f"choke-{n}") for n in range(10)] == ["503"] * 10
    played.status = 200
    assert await asker.ask("alice") == "p1"


@pytest.mark.parametrize("token", ["", "two words", "line\nfeed", "caf\u00e9", "x" * 20_000])
async def test_what_cannot_be_a_token_is_not_sent_on(
    keystone: tuple[Keystone, TestServer], asker: Asker, token: str
) -> None:
    assert await asker.ask(token) == "401"
    assert (keystone[0].asked, keystone[0].logins) == (0, 0)


def test_credentials_come_from_clouds_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "clouds.yaml"
    file.write_text(
        "clouds:\n  here:\n    cacert: /ca.pem\n    auth: {auth_url: 'http://k:5000/', username: u, password: p1,"
        " project_name: service}\n  empty: {}\n"
    )
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(file))
    login = find_login(KeystoneSettings(cloud="here"))
    assert (login.auth_url, login.ca_file) == ("http://k:5000/v3", Path("/ca.pem"))
    assert '"password":"p1"' in login.request.reveal()
    assert '"password":"p2"' in find_login(KeystoneSettings(cloud="here", password=Secret("p2"))).request.reveal()
    for cloud, told in (("empty", "has no `auth`"), ("absent", "has no cloud")):
        with pytest.raises(Invalid, match=told) as refusal:
            find_login(KeystoneSettings(cloud=cloud))
        assert refusal.value.field == "api.keystone.cloud"
    file.write_text("clouds: [p1")
    with pytest.raises(Invalid, match="cannot be read") as refusal:
        find_login(KeystoneSettings(cloud="here"))
    assert "p1" not in str(refusal.value)
    with pytest.raises(Invalid) as refusal:
        find_login(KeystoneSettings(auth_url="http://k:5000", username="u", password=Secret("p")))
    assert refusal.value.field == "api.keystone.project_name"
