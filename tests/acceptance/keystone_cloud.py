"""A real Keystone with projects, users and roles, and a Frontinus in its catalog."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.acceptance.support import Installation

RUN_KEYSTONE = Path(__file__).parents[1] / "integration" / "identity" / "run_keystone.py"
PASSWORD = "pass word: \u00fc"


@dataclass
class Keystone:
    """A server that is asked over HTTP, as by everybody else."""

    process: subprocess.Popen[str]
    port: int
    projects: dict[str, str] = field(default_factory=dict)
    homes: dict[str, str] = field(default_factory=lambda: {"admin": "admin"})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v3"

    def call(self, method: str, path: str, body: object = None, **headers: str) -> tuple[Any, str]:
        """The answer's document, and the token that came with it."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            text = None if body is None else json.dumps(body)
            connection.request(method, f"/v3{path}", text, {"Content-Type": "application/json", **sent})
            response = connection.getresponse()
            data = response.read()
            assert response.status < 300, (method, path, response.status, data)
            return json.loads(data) if data else None, response.headers.get("X-Subject-Token", "")
        finally:
            connection.close()

    def order(self, method: str, path: str, body: object = None, **headers: str) -> Any:
        """As administrator."""
        return self.call(method, path, body, X_Auth_Token=self.token("admin"), **headers)[0]

    def token(self, user: str, *, scoped: bool = True) -> str:
        domain = {"name": "Default"}
        password = {"user": {"name": user, "domain": domain, "password": PASSWORD}}
        auth: dict[str, object] = {"identity": {"methods": ["password"], "password": password}}
        if scoped:
            auth["scope"] = {"project": {"name": self.homes[user], "domain": domain}}
        return self.call("POST", "/auth/tokens", {"auth": auth})[1]

    def login(self, user: str) -> Mapping[str, str]:
        """The environment in which the user types."""
        return {
            "OS_AUTH_URL": self.url,
            "OS_USERNAME": user,
            "OS_PASSWORD": PASSWORD,
            "OS_PROJECT_NAME": self.homes[user],
            "OS_USER_DOMAIN_NAME": "Default",
            "OS_PROJECT_DOMAIN_NAME": "Default",
            "OS_REGION_NAME": "RegionOne",
        }

    def add_user(self, name: str, project_name: str, *role_names: str) -> str:
        """A user with roles in a project; the project's id."""
        roles = {x["name"]: x["id"] for x in self.order("GET", "/roles")["roles"]}
        if project_name not in self.projects:
            body = {"project": {"name": project_name, "domain_id": "default"}}
            self.projects[project_name] = self.order("POST", "/projects", body)["project"]["id"]
        self.homes[name] = project_name
        body = {"user": {"name": name, "password": PASSWORD, "domain_id": "default"}}
        user = self.order("POST", "/users", body)["user"]["id"]
        for role in role_names:
            if role not in roles:
                roles[role] = self.order("POST", "/roles", {"role": {"name": role}})["role"]["id"]
            self.order("PUT", f"/projects/{self.projects[project_name]}/users/{user}/roles/{roles[role]}")
        return self.projects[project_name]

    def publish(self, endpoint: str) -> None:
        """The API in the catalog; the look-ups of subnets are answered by it too."""
        for kind in ("load-balancer", "network"):
            service = self.order("POST", "/services", {"service": {"name": f"frontinus-{kind}", "type": kind}})
            body = {
                "service_id": service["service"]["id"],
                "interface": "public",
                "url": endpoint,
                "region_id": "RegionOne",
            }
            self.order("POST", "/endpoints", {"endpoint": body})


@contextmanager
def keystone_server(directory: Path) -> Iterator[Keystone]:
    """A Keystone of one's own on a loopback port."""
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(RUN_KEYSTONE), str(directory), PASSWORD],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    assert process.stdout is not None
    try:
        port = process.stdout.readline().strip()
        assert port, (directory / "log").read_text()[-3000:]
        yield Keystone(process, int(port))
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@contextmanager
def frontinus_behind(keystone: Keystone, directory: Path, keystone_settings: str = "") -> Iterator[Installation]:
    """A Frontinus that asks this Keystone, and is in its catalog. Its amphorae are no real ones. The user `frontinus`
    must be there."""
    made = Installation(
        directory / "state",
        f"""
        [drivers]
        amphora = "noop"
        compute = "noop"
        [api]
        auth = "keystone"
        [api.keystone]
        auth_url = "{keystone.url.removesuffix("/v3")}"
        username = "frontinus"
        password = "{PASSWORD}"
        project_name = "service"
        timeout = 30
        {keystone_settings}
        """,
    )
    made.start()
    try:
        keystone.publish(made.endpoint)
        yield made
    finally:
        made.remove()
