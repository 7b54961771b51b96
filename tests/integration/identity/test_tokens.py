"""Static tokens: who is known, what strangers are told, and what the settings refuse."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from frontinus.api.identity.settings import KeystoneSettings, StaticToken
from frontinus.api.identity.tokens import TokenAuthentication
from frontinus.api.settings import ApiSettings, Authentication
from frontinus.model.errors import Invalid
from frontinus.model.secrets import Secret
from frontinus.settings import describe, load

from tests.acceptance.support import Installation
from tests.integration.api.world import World

pytestmark = pytest.mark.integration

PLAIN = "plain-token-0123456789"
HASHED = "hashed-token-0123456789"
TOKENS = (
    StaticToken(token=Secret(PLAIN), project_id="one"),
    StaticToken(token=Secret("sha256:" + hashlib.sha256(HASHED.encode()).hexdigest()), project_id="two"),
)
SETTINGS = ApiSettings(auth=Authentication.TOKEN, tokens=TOKENS)


@pytest.fixture
async def world(database_url: str) -> World:
    return await World.open(database_url, settings=SETTINGS)


@pytest.mark.parametrize("token", [PLAIN, HASHED])
@pytest.mark.parametrize("header,form", [("X-Auth-Token", "{}"), ("Authorization", "Bearer {}")])
async def test_a_known_token_opens(world: World, token: str, header: str, form: str) -> None:
    assert (await world.call("GET", "loadbalancers", headers={header: form.format(token)})).status == 200
    await world.close()


STRANGERS: list[dict[str, str | None]] = [
    {},
    {"X-Auth-Token": ""},
    {"X-Auth-Token": "unknown-token-0123456789"},
    {"X-Auth-Token": PLAIN[:-1]},
    {"X-Auth-Token": PLAIN.upper()},
    {"X-Auth-Token": TOKENS[1].token.reveal()},
    {"X-Auth-Token": "caf\u00e9"},
    {"Authorization": f"Basic {PLAIN}"},
    {"Authorization": PLAIN},
    {"X-Project-Id": "one", "X-Roles": "admin"},
]


@pytest.mark.parametrize("headers", STRANGERS, ids=str)
@pytest.mark.parametrize("path", ["loadbalancers", "/v2", "/nothing/here", "/docs", "/metrics", "//", "/healthcheck/"])
async def test_a_stranger_gets_401_before_anything_else(
    world: World, headers: dict[str, str | None], path: str
) -> None:
    answer = await world.call("GET", path, headers=headers)
    assert answer.status == 401
    assert set(answer.json) == {"error"}
    assert {key: answer.json["error"][key] for key in ("code", "title")} == {"code": 401, "title": "Unauthorized"}
    assert answer.json["error"]["message"]
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert PLAIN not in answer.body.decode()
    await world.close()


@pytest.mark.parametrize(
    "path,status", [("/", 200), ("/load-balancer/", 200), ("/healthcheck", 204), ("/load-balancer/healthcheck", 204)]
)
async def test_open_paths_are_open(world: World, path: str, status: int) -> None:
    assert (await world.call("GET", path)).status == status
    await world.close()


async def test_metrics_are_open_where_the_operator_says_so(database_url: str) -> None:
    world = await World.open(
        database_url, settings=ApiSettings(auth=Authentication.TOKEN, tokens=TOKENS, open_metrics=True)
    )
    answer = await world.call("GET", "/metrics")
    assert answer.status == 200
    assert (await world.call("GET", "loadbalancers")).status == 401
    assert b'operation="unauthenticated"' in (await world.call("GET", "/metrics")).body
    await world.close()


@pytest.mark.parametrize(
    "tokens,field",
    [
        pytest.param((), "api.tokens", id="none"),
        pytest.param((StaticToken(token=Secret("short"), project_id="p"),), "api.tokens[0].token", id="short"),
        pytest.param((StaticToken(project_id="p"),), "api.tokens[0].token", id="missing"),
        pytest.param(
            (StaticToken(token=Secret("sha256:12"), project_id="p"),), "api.tokens[0].token", id="half digest"
        ),
        pytest.param((StaticToken(token=Secret(PLAIN)),), "api.tokens[0].project_id", id="no project"),
        pytest.param(
            (StaticToken(token=Secret(PLAIN), project_id="p", roles=()),), "api.tokens[0].roles", id="no roles"
        ),
        pytest.param((TOKENS[0], TOKENS[0]), "api.tokens[1].token", id="twice"),
    ],
)
def test_tokens_that_cannot_work_are_refused_without_being_told(tokens: tuple[StaticToken, ...], field: str) -> None:
    with pytest.raises(Invalid) as refusal:
        TokenAuthentication(tokens)
    assert refusal.value.field == field
    assert PLAIN not in str(refusal.value)


def test_settings_come_from_the_file_and_secrets_are_not_shown(tmp_path: Path) -> None:
    file = tmp_path / "frontinus.toml"
    file.write_text(
        f'[api]\nauth = "token"\n[[api.tokens]]\ntoken = "{PLAIN}"\nproject_id = "p"\nroles = ["admin"]\n'
        '[api.keystone]\nauth_url = "https://keystone.example"\npassword = "keep-me-secret"\nstaleness = 30\n'
    )
    settings = load(file)
    assert settings.api.tokens == (StaticToken(token=Secret(PLAIN), project_id="p", roles=("admin",)),)
    assert settings.api.keystone.password.reveal() == "keep-me-secret"
    shown = str(describe(settings)) + repr(settings)
    assert PLAIN not in shown
    assert "keep-me-secret" not in shown
    file.write_text("[[api.tokens]]\ntokn = 'x'\n")
    with pytest.raises(Invalid, match="unknown setting"):
        load(file)


def test_a_secret_shows_only_whether_there_is_one() -> None:
    assert (str(Secret("x")), f"{Secret('x')}", repr(Secret())) == ("(secret)", "(secret)", "(none)")
    assert KeystoneSettings().password == Secret()


def test_openstack_command_with_a_static_token(tmp_path: Path) -> None:
    """A whole installation in this mode; clients need no identity service for it."""
    installation = Installation(
        tmp_path / "state",
        f'''
        [drivers]
        amphora = "noop"
        compute = "noop"
        [api]
        auth = "token"
        [[api.tokens]]
        token = "{PLAIN}"
        project_id = "shop"
        [[api.tokens]]
        token = "{HASHED}"
        project_id = "bakery"
        ''',
    )
    installation.start()
    try:
        assert openstack(installation, PLAIN, "create", "--name", "web", "--vip-subnet-id", "loopback")[0] == 0
        status, output = openstack(installation, PLAIN, "list", "-f", "value", "-c", "name", "-c", "project_id")
        assert (status, output.split()) == (0, ["web", "shop"])
        assert openstack(installation, HASHED, "list", "-f", "value", "-c", "name") == (0, "")
        assert openstack(installation, "unknown-token-0123456789", "list")[0] != 0
        log = (tmp_path / "up.log").read_text(errors="replace")
        assert PLAIN not in log
        assert HASHED not in log
    finally:
        installation.remove()


def openstack(installation: Installation, token: str, *words: str) -> tuple[int, str]:
    """Exit status and standard output of `openstack loadbalancer …`."""
    script = str(Path(sys.executable).with_name("openstack"))
    login = ["--os-auth-type", "admin_token", "--os-endpoint", installation.endpoint, "--os-token", token]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("OS_")}
    done = subprocess.run(
        [script, *login, "loadbalancer", *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment,
    )
    return done.returncode, done.stdout.strip()
