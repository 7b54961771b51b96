"""Frontinus behind a real Keystone: two projects, their roles, and the unmodified `openstack` command with a password."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.keystone_cloud import Keystone, frontinus_behind, keystone_server
from tests.acceptance.support import Installation, until

pytestmark = [pytest.mark.integration, pytest.mark.beside, pytest.mark.timeout(240)]

STALENESS_S = 2
# Each with a project and roles there.
USERS = {
    "alice": ("one", ("member", "reader")),
    "rita": ("one", ("reader",)),
    "bob": ("two", ("member", "reader")),
    "otto": ("two", ("load-balancer_member",)),
    "frontinus": ("service", ("service",)),
}


@pytest.fixture(scope="module")
def keystone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keystone]:
    with keystone_server(tmp_path_factory.mktemp("keystone")) as made:
        for user, (project, roles) in USERS.items():
            made.add_user(user, project, *roles)
        yield made


@pytest.fixture(scope="module")
def installation(keystone: Keystone, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    staleness = f"staleness = {STALENESS_S}\nrefusal_staleness = 1"
    with frontinus_behind(keystone, tmp_path_factory.mktemp("frontinus"), staleness) as made:
        yield made


def ask(
    installation: Installation, token: str | None, method: str, path: str, body: object = None
) -> tuple[int, Any, str]:
    """Status, body, WWW-Authenticate."""
    connection = http.client.HTTPConnection("127.0.0.1", installation.api_port, timeout=60)
    try:
        headers = {} if token is None else {"X-Auth-Token": token}
        if body is not None:
            headers["Content-Type"] = "application/json"
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        response = connection.getresponse()
        data = response.read()
        return response.status, json.loads(data) if data else None, response.headers.get("WWW-Authenticate", "")
    finally:
        connection.close()


LOAD_BALANCERS = "/v2/lbaas/loadbalancers"


def create(installation: Installation, token: str, **values: object) -> tuple[int, Any]:
    subnet = ask(installation, token, "GET", "/v2.0/subnets")[1]["subnets"][0]["id"]
    status, body, _ = ask(
        installation, token, "POST", LOAD_BALANCERS, {"loadbalancer": {"vip_subnet_id": subnet, **values}}
    )
    return status, body


def test_roles_and_projects_are_those_of_keystone(keystone: Keystone, installation: Installation) -> None:
    alice, rita, bob, otto = (keystone.token(x) for x in ("alice", "rita", "bob", "otto"))
    status, body = create(installation, alice, name="of-alice")
    assert status == 201, body
    made = body["loadbalancer"]
    assert made["project_id"] == keystone.projects["one"]
    here = f"{LOAD_BALANCERS}/{made['id']}"
    assert [ask(installation, x, "GET", here)[0] for x in (alice, rita, bob, otto)] == [200, 200, 403, 403]
    changed = {"loadbalancer": {"name": "x"}}
    assert [ask(installation, x, "PUT", here, changed)[0] for x in (alice, rita, bob, otto)] == [200, 403, 403, 403]
    assert [create(installation, x)[0] for x in (rita, otto)] == [403, 403]
    assert create(installation, bob, project_id=keystone.projects["one"])[0] == 403
    assert ask(installation, bob, "GET", LOAD_BALANCERS)[1]["loadbalancers"] == []
    admin = keystone.token("admin")
    assert [x["id"] for x in ask(installation, admin, "GET", LOAD_BALANCERS)[1]["loadbalancers"]] == [made["id"]]
    unscoped = keystone.token("alice", scoped=False)
    assert ask(installation, unscoped, "GET", LOAD_BALANCERS)[0] == 403, "a token without a project has no list"
    assert ask(installation, bob, "DELETE", here)[0] == 403
    assert ask(installation, alice, "DELETE", here)[0] == 204


def test_strangers_are_sent_to_keystone(keystone: Keystone, installation: Installation) -> None:
    for token in (None, "not-a-token", "gAAAAABrBAsSWIYLMyhOYHthbsZQ5b523YpU7vG"):
        status, body, challenge = ask(installation, token, "GET", "/v2/nothing/here")
        assert (status, challenge) == (401, f'Keystone uri="{keystone.url}"')
        assert body["error"]["code"] == 401
    assert ask(installation, None, "GET", "/")[0] == 200


def test_a_revoked_token_works_no_longer_than_the_staleness(keystone: Keystone, installation: Installation) -> None:
    token = keystone.token("rita")
    assert ask(installation, token, "GET", LOAD_BALANCERS)[0] == 200
    keystone.order("DELETE", "/auth/tokens", X_Subject_Token=token)
    until(
        lambda: ask(installation, token, "GET", LOAD_BALANCERS)[0] == 401,
        STALENESS_S + 10,
        "a revoked token goes on working",
        pause=0.1,
    )


class Cli:
    """`openstack …`, as typed, by somebody who logs in with a password."""

    def __init__(self, keystone: Keystone, user: str) -> None:
        self._environment = {key: value for key, value in os.environ.items() if not key.startswith("OS_")}
        self._environment |= keystone.login(user)

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        script = str(Path(sys.executable).with_name("openstack"))
        return subprocess.run(
            [script, *words], capture_output=True, text=True, timeout=60, check=False, env=self._environment
        )

    def ask(self, *words: str) -> Any:
        done = self.run("loadbalancer", *words, "-f", "json")
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return json.loads(done.stdout)


def test_openstack_command_with_a_password(keystone: Keystone, installation: Installation) -> None:
    alice, bob = Cli(keystone, "alice"), Cli(keystone, "bob")
    made = alice.ask("create", "--name", "web", "--vip-subnet-id", "loopback")
    assert (made["name"], made["project_id"]) == ("web", keystone.projects["one"])
    assert alice.ask("pool", "create", "--protocol", "HTTP", "--lb-algorithm", "ROUND_ROBIN", "--loadbalancer", "web")
    assert [x["name"] for x in alice.ask("list")] == ["web"]
    assert bob.ask("list") == []
    refused = bob.run("loadbalancer", "show", made["id"])
    assert refused.returncode != 0
    assert "policy" in refused.stderr or "403" in refused.stderr, refused.stderr
    done = alice.run("loadbalancer", "delete", "--cascade", "web")
    assert done.returncode == 0, done.stderr


def test_zz_outage_of_keystone(keystone: Keystone, installation: Installation) -> None:
    """Last in this file, because it ends Keystone."""
    known, unknown = keystone.token("alice"), keystone.token("bob")
    keystone.process.kill()
    keystone.process.wait()
    status, body, _ = ask(installation, unknown, "GET", LOAD_BALANCERS)
    assert status == 503
    assert "Keystone" in body["faultstring"]
    until(
        lambda: ask(installation, known, "GET", LOAD_BALANCERS)[0] == 503,
        STALENESS_S + 10,
        "an answer of Keystone does not become stale",
        pause=0.1,
    )
    assert ask(installation, None, "GET", LOAD_BALANCERS)[0] == 401
