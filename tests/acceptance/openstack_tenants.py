"""A Frontinus whose drivers ask the lab's real Nova, Neutron, Glance, Barbican and Keystone, and projects that use it.

Amphorae are servers on the lab's fake hosts: everything around them is real, and nothing runs in them, so the amphora
driver is `noop`, and nobody waits for heartbeats. All of it is under names of this run's own, and gone after it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import yaml
from openstack.connection import Connection

from frontinus.model.certificates import Certificate

from tests import openstack_lab
from tests.acceptance.openstack_cli import Cli, Tried
from tests.acceptance.support import Installation, until

PASSWORD = "of-this-run"
ROLES = ("member", "creator", "reader", "load-balancer_member")
SETTLED_S, GONE_S = 600, 600


@dataclass
class Answer:
    """Of the API: its status, its document, and what it says went wrong."""

    status: int
    body: Any

    @property
    def told(self) -> str:
        return str(self.body.get("faultstring", self.body)) if isinstance(self.body, dict) else ""

    def one(self, key: str) -> Any:
        assert self.status in (200, 201), (self.status, self.body)
        return self.body[key]


@dataclass
class Project:
    """`cloud` is its user's own connection, with a token for this project alone; `login` is how he types."""

    name: str
    id: str
    user_id: str
    cloud: Connection
    login: Mapping[str, str]
    network_id: str = ""
    subnet_ids: list[str] = field(default_factory=list)

    # What it does with Frontinus, by openstacksdk

    def call(self, method: str, path: str, body: object = None) -> Answer:
        words: dict[str, Any] = {} if body is None else {"json": body}
        response = self.cloud.load_balancer.request(f"/lbaas/{path}", method, **words)
        return Answer(response.status_code, response.json() if response.content else None)

    def create(self, collection: str, key: str, **attributes: object) -> Any:
        return self.call("POST", collection, {key: attributes}).one(key)

    def load_balancer(self, load_balancer_id: str) -> Any:
        return self.call("GET", f"loadbalancers/{load_balancer_id}").one("loadbalancer")

    def settled(self, load_balancer_id: str, timeout: float = SETTLED_S) -> Any:
        def shown() -> Any:
            found = self.load_balancer(load_balancer_id)
            return found if found["provisioning_status"] == "ACTIVE" else None

        try:
            return until(shown, timeout, f"load balancer {load_balancer_id} does not become ACTIVE", pause=0.3)
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.load_balancer(load_balancer_id)}") from error

    def gone(self, load_balancer_id: str, timeout: float = GONE_S) -> None:
        path = f"loadbalancers/{load_balancer_id}"
        until(lambda: self.call("GET", path).status == 404, timeout, f"{path} is not deleted", pause=0.3)

    def clear(self) -> None:
        """Its load balancers are gone."""
        found = self.call("GET", "loadbalancers").one("loadbalancers")
        for shown in found:
            assert self.call("DELETE", f"loadbalancers/{shown['id']}?cascade=true").status == 204
        for shown in found:
            self.gone(shown["id"])

    def cli(self, endpoint: str) -> Cli:
        return Cli({**self.login, "OS_LOAD_BALANCER_ENDPOINT_OVERRIDE": endpoint}, Tried())

    # What it has beside

    def make_network(self, *cidrs: str) -> None:
        self.network_id = self.cloud.network.create_network(name=self.name).id
        for cidr in cidrs:
            made = self.cloud.network.create_subnet(network_id=self.network_id, cidr=cidr, ip_version=4)
            self.subnet_ids.append(made.id)

    def secret(self, payload: bytes) -> str:
        """Nobody but the project may read it."""
        keys = self.cloud.key_manager
        reference: str = keys.post("/secrets", json={"name": self.name}).json()["secret_ref"]
        kind = "text/plain" if payload.startswith(b"-----") else "application/octet-stream"
        stored = keys.put(path_of(reference), data=payload, headers={"Content-Type": kind})
        assert stored.status_code == 204, stored.text
        return reference

    def container(self, certificate: Certificate) -> str:
        parts = {
            "certificate": certificate.certificate,
            "private_key": certificate.private_key,
            "intermediates": b"".join(certificate.intermediates),
        }
        refs = [{"name": k, "secret_ref": self.secret(x)} for k, x in parts.items() if x]
        body = {"name": self.name, "type": "certificate", "secret_refs": refs}
        answer = self.cloud.key_manager.post("/containers", json=body)
        return str(answer.json()["container_ref"])

    def let_read(self, reference: str, *user_ids: str) -> None:
        """Its ACL names these users, and no others."""
        body = {"read": {"users": list(user_ids), "project-access": True}}
        answer = self.cloud.key_manager.put(f"{path_of(reference)}/acl", json=body)
        assert answer.status_code == 200, answer.text

    def secrets(self) -> dict[str, Any]:
        """Every secret and container, with who may read it and who is registered as using it."""
        keys, found = self.cloud.key_manager, {}
        for collection, key in (("secrets", "secret_ref"), ("containers", "container_ref")):
            for shown in keys.get(f"/{collection}", params={"limit": "200"}).json()[collection]:
                path = path_of(shown[key])
                users = keys.get(f"{path}/consumers", headers={"OpenStack-API-Version": "key-manager 1.1"}).json()
                acl = keys.get(f"{path}/acl").json().get("read", {})
                found[path] = {
                    "status": shown.get("status"),
                    "consumers": sorted(_plain(x) for x in users["consumers"]),
                    "readers": sorted(acl.get("users", ())),
                    "project-access": acl.get("project-access", True),
                }
        return found

    def drop(self) -> None:
        """Everything that it has but itself."""
        for path in sorted(self.secrets()):  # containers before the secrets in them
            self.cloud.key_manager.delete(path)


@dataclass
class Site:
    """`admin` sees everything, past Frontinus."""

    word: str
    admin: Connection
    account: str
    """Id of the user as whom Frontinus works."""

    clouds: Path
    frontinus: Installation
    projects: list[Project] = field(default_factory=list)

    def project(self, name: str) -> Project:
        """A new one, with a user."""
        identity: Any = self.admin.identity  # its type is of either version of the API
        name = f"{self.word}-{name}"
        made = identity.create_project(name=name, domain_id="default")
        user = identity.create_user(name=name, password=PASSWORD, domain_id="default", default_project_id=made.id)
        roles = {x.name: x for x in identity.roles()}
        for role in ROLES:
            identity.assign_project_role_to_user(made, user, roles[role])
        auth = {
            "auth_url": self.admin.config.config["auth"]["auth_url"],
            "username": name,
            "password": PASSWORD,
            "project_name": name,
            "user_domain_name": "Default",
            "project_domain_name": "Default",
        }
        cloud = Connection(auth=auth, region_name="RegionOne", load_balancer_endpoint_override=self.frontinus.endpoint)
        login = {f"OS_{key.upper()}": value for key, value in auth.items()} | {"OS_REGION_NAME": "RegionOne"}
        self.projects.append(Project(name, made.id, user.id, cloud, login))
        return self.projects[-1]

    def left(self) -> list[str]:
        """Whatever stands in Nova and Neutron under the installation's name."""
        network = self.admin.network
        ports = [x for x in network.ports() if self.word in f"{x.description} {' '.join(x.tags)}"]
        groups = [x for x in network.security_groups() if self.word in (x.description or "")]
        servers = list(self.admin.compute.servers(all_projects=True, tags=f"frontinus-{self.word}"))
        server_groups = [x for x in self.admin.compute.server_groups(all_projects=True) if self.word in x.name]
        return [f"{x.name} {x.id}" for x in (*ports, *groups, *servers, *server_groups)]

    def remove_projects(self) -> None:
        network: Any = self.admin.network
        identity: Any = self.admin.identity
        for project in self.projects:
            project.drop()
            project.cloud.close()
            for port in list(network.ports(project_id=project.id)):
                if not port.device_owner.startswith("network:"):
                    network.delete_port(port.id)
            for owned in list(network.networks(project_id=project.id)):
                network.delete_network(owned.id)
            for policy in list(network.qos_policies(project_id=project.id)):
                network.delete_qos_policy(policy.id)
            for group in list(network.security_groups(project_id=project.id)):
                network.delete_security_group(group.id)
            identity.delete_user(project.user_id)
            identity.delete_project(project.id)


@contextmanager
def frontinus_on_openstack(
    directory: Path, overrides: Mapping[str, str] | None = None, settings: str = ""
) -> Iterator[Site]:
    """`overrides` are further words of clouds.yaml for Frontinus' account, `auth_url` among them; `settings` further tables
    of its configuration. What it leaves in the cloud fails the test."""
    lab = openstack_lab.clouds_file()
    admin, ours = openstack_lab.connect(openstack_lab.ADMIN), openstack_lab.connect(openstack_lab.OURS)
    word, account = f"t{uuid4().hex[:8]}", ours.session.get_user_id()
    assert account
    entry = yaml.safe_load(lab.read_text())["clouds"][openstack_lab.OURS]
    further = dict(overrides or {})
    entry["auth"]["auth_url"] = further.pop("auth_url", entry["auth"]["auth_url"])
    clouds = directory / "clouds.yaml"
    clouds.write_text(json.dumps({"clouds": {"frontinus": {**entry, **further}}}))
    image = next(iter(admin.image.images(tag="fake-image")))
    config = f"""
        [drivers]
        amphora = "noop"
        compute = "nova"
        network = "neutron"
        secret = "barbican"
        [openstack]
        installation = "{word}"
        timeout = 60
        [driver_options.nova]
        flavor = "lb.tiny"
        image_tag = "fake-image"
        image_owner = "{image.owner}"
        [api]
        auth = "keystone"
        [api.keystone]
        cloud = "frontinus"
        timeout = 30
        [controller]
        spares = 0
        witness_interval = 3600
        sweep_interval = 10
        orphan_grace = 60
        [health]
        silence_deadline = 3600
        """
    wrapper = ("env", f"OS_CLIENT_CONFIG_FILE={clouds}")
    frontinus = Installation(directory / "state", _merged(config, settings), wrapper)
    site = Site(word, admin, account, clouds, frontinus)
    with ExitStack() as stack:
        stack.callback(site.remove_projects)
        stack.callback(frontinus.stop)
        frontinus.start()
        yield site
        for project in site.projects:
            project.clear()
        until(lambda: not site.left(), GONE_S, "something is left", pause=2)


def path_of(reference: str) -> str:
    return "/" + "/".join(reference.rsplit("/", 2)[1:])


def _plain(consumer: Mapping[str, Any]) -> str:
    return json.dumps({k: v for k, v in consumer.items() if k not in ("created", "updated")}, sort_keys=True)


def _merged(config: str, settings: str) -> str:
    """`settings` has tables that `config` has: what stands in a table there goes into the one here."""
    lines = [x.strip() for x in config.splitlines() if x.strip()]
    table = ""
    for line in (x.strip() for x in settings.splitlines() if x.strip()):
        if line.startswith("["):
            table = line
            if table not in lines:
                lines.append(table)
            continue
        key = line.partition("=")[0].strip()
        start = lines.index(table) + 1
        end = next((n for n in range(start, len(lines)) if lines[n].startswith("[")), len(lines))
        lines[start:end] = [x for x in lines[start:end] if x.partition("=")[0].strip() != key] + [line]
    return "\n".join(lines) + "\n"
