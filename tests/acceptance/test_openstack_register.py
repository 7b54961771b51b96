"""`frontinus openstack register` and `unregister` against a real Keystone: what they did is looked up with openstacksdk, and the
unmodified client finds the API by the catalogue alone."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openstack
import pytest

from frontinus.cli.openstack.judging import ROLES

from tests.acceptance.keystone_cloud import PASSWORD, Keystone, frontinus_behind, keystone_server
from tests.acceptance.openstack_cli import Cli
from tests.acceptance.support import COMMAND

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
]

URL, OTHER_URL = "http://lb.example.org:9876", "http://lb.example.org:443"
INTERFACES = ("public", "internal", "admin")


@dataclass
class World:
    keystone: Keystone
    directory: Path

    def __post_init__(self) -> None:
        clouds = {
            name: {
                "auth": {
                    "auth_url": self.keystone.url,
                    "username": user,
                    "password": password,
                    "project_name": self.keystone.homes[user],
                    "user_domain_name": "Default",
                    "project_domain_name": "Default",
                },
                "region_name": "RegionOne",
            }
            for name, user, password in (
                ("admin", "admin", PASSWORD),
                ("tenant", "alice", PASSWORD),
                ("typo", "admin", "S3cr3t-typo"),
            )
        }
        (self.directory / "clouds.yaml").write_text(json.dumps({"clouds": clouds}))
        (self.directory / "frontinus.toml").write_text('[openstack]\ncloud = "admin"\n')

    def type(self, *words: str) -> subprocess.CompletedProcess[str]:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("OS_")}
        done = subprocess.run(
            [*COMMAND, "openstack", *words, "--config", str(self.directory / "frontinus.toml")],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=environment | {"OS_CLIENT_CONFIG_FILE": str(self.directory / "clouds.yaml")},
        )
        assert "Traceback" not in done.stderr, done.stderr
        assert PASSWORD not in done.stdout + done.stderr
        assert "S3cr3t" not in done.stdout + done.stderr
        return done

    def order(self, *words: str) -> list[dict[str, Any]]:
        done = self.type(*words, "--json")
        assert done.returncode == 0, done
        found: list[dict[str, Any]] = json.loads(done.stdout)
        return found

    def refused(self, status: int, *words: str) -> str:
        done = self.type(*words)
        assert done.returncode == status, done
        return done.stderr

    def seen(self) -> tuple[set[tuple[str, str]], set[str]]:
        """(interface, URL) of what is enabled in the region, and the names of services of our type."""
        os.environ["OS_CLIENT_CONFIG_FILE"] = str(self.directory / "clouds.yaml")
        with openstack.connect(cloud="admin") as look:
            identity: Any = look.identity
            services = list(identity.services(type="load-balancer"))
            ids = {x.id for x in services}
            endpoints = [x for x in identity.endpoints() if x.service_id in ids and x.region_id == "RegionOne"]
            return {(x.interface, x.url) for x in endpoints if x.is_enabled}, {x.name for x in services}

    def roles(self) -> set[str]:
        return {x["name"] for x in self.keystone.order("GET", "/roles")["roles"]}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    before = os.environ.get("OS_CLIENT_CONFIG_FILE")
    with keystone_server(tmp_path) as keystone:
        keystone.add_user("alice", "one", "member", "reader")
        keystone.add_user("frontinus", "service", "service")
        yield World(keystone, tmp_path)
    os.environ.pop("OS_CLIENT_CONFIG_FILE", None)
    if before is not None:
        os.environ["OS_CLIENT_CONFIG_FILE"] = before


def everywhere(url: str) -> set[tuple[str, str]]:
    return {(x, url) for x in INTERFACES}


def test_the_whole_life_of_an_entry(world: World, tmp_path: Path) -> None:
    register = ("register", "--url", URL)

    assert set(ROLES) & world.roles() == set(), "the test would not show that roles are made"
    would = world.order(*register, "--dry-run")
    assert world.seen() == (set(), set())
    assert set(ROLES) & world.roles() == set()
    made = world.order(*register)
    assert [x["action"] for x in made] == [x["action"] for x in would]
    assert world.seen() == (everywhere(URL), {"frontinus"})
    assert set(ROLES) <= world.roles()
    assert world.order(*register) == []

    changed = world.order("register", "--url", URL, "--internal-url", OTHER_URL, "--name", "octavia")
    assert {x["action"] for x in changed} == {"change-service", "change-endpoint"}
    assert world.seen() == ({("public", URL), ("internal", OTHER_URL), ("admin", OTHER_URL)}, {"octavia"})

    assert "administrator" in world.refused(1, *register, "--os-cloud", "tenant")
    assert "administrator" in world.refused(1, *register, "--os-cloud", "typo")
    assert "clouds.yaml" in world.refused(2, *register, "--os-cloud", "nobody")
    assert "RegionOne" in world.refused(2, *register, "--region", "Nowhere")
    assert "password" in world.refused(2, "register", "--url", "http://a:S3cr3t@lb")
    assert world.seen()[0] == {("public", URL), ("internal", OTHER_URL), ("admin", OTHER_URL)}

    behind = tmp_path / "behind"
    behind.mkdir()
    with frontinus_behind(world.keystone, behind) as api:
        # `publish` of the fixture has put another service there: by hand, as an operator may have done.
        assert f"public {api.endpoint}" in world.refused(1, "register", "--url", api.endpoint)
        replaced = world.order("register", "--url", api.endpoint, "--replace")
        assert [x["url"] for x in replaced if x["action"] == "switch-off-endpoint"] == [api.endpoint]
        assert world.seen()[0] == everywhere(api.endpoint)
        tenant = Cli(world.keystone.login("alice"))
        try:
            assert tenant.ask("list") == []
            assert {"amphora", "octavia"} <= {x["name"] for x in tenant.ask("provider", "list")}
        finally:
            tenant.close()

    assert {x["action"] for x in world.order("unregister", "--dry-run")} == {"remove-endpoint", "remove-service"}
    assert world.seen()[0] == everywhere(api.endpoint)
    told = world.type("unregister").stdout
    assert "openstack endpoint set --enable" in told, "it does not say what --replace has left switched off"
    assert world.seen()[0] == set()
    assert world.order("unregister") == []
    assert set(ROLES) <= world.roles()
