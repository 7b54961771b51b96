"""A whole Frontinus on the lab's OpenStack: API, controller and health receiver in processes of their own on a PostgreSQL,
compute `nova`, network `neutron`, secret `barbican`, identity `keystone`; servers run the image that `make image` builds.

What a test looks at it sees with openstacksdk, past Frontinus, or as the tenant, with the `openstack` command."""

from __future__ import annotations

import http.client
import os
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar
from uuid import uuid4

import yaml
from openstack.connection import Connection

from frontinus.testing.certificates import TestAuthority

from tests import openstack_lab
from tests.acceptance.openstack_cli import Cli
from tests.acceptance.support import COMMAND, PENDING, ask, free_port, report, until
from tests.integration.netns.hosts import Host, ip

_T = TypeVar("_T")
IMAGE = Path(__file__).parents[2] / ".cache" / "image"
FLAVOR, PUBLIC, TENANTS = "lb.tiny", "public-subnet", "tenant-subnet"
NETWORK = os.environ.get("OST_NET", "10.64")
CONTROLLERS, MEMBERS = f"{NETWORK}.0.1", f"{NETWORK}.1.1"
"""This host on the management network, and on the public one."""

NEIGHBOURS = "test:neighbour"
"""Who has the ports of our own machines on Neutron's networks."""

CONFIG = """\
database = "{database}"
[drivers]
compute = "nova"
network = "neutron"
secret = "barbican"
[api]
auth = "keystone"
[api.keystone]
cloud = "{cloud}"
timeout = 30
[health]
bind_host = "{controllers}"
bind_port = {health_port}
[controller]
spares = {spares}
[openstack]
cloud = "{cloud}"
installation = "{installation}"
timeout = 60
[driver_options.nova]
flavor = "{flavor}"
image_tag = "{image_tag}"
"""


class Times:
    """How long steps take."""

    def __init__(self) -> None:
        self.taken: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.taken[name] = time.monotonic() - began
        report(f"{self.taken[name]:7.1f} s  {name}")


@dataclass
class OnOpenStack:
    """`ours` and `admin` see what there is, past Frontinus; `tenant` is whose load balancers are."""

    directory: Path
    database: str
    spares: int = 0
    more: str = ""
    installation: str = field(default_factory=lambda: f"t{uuid4().hex[:8]}")
    api_port: int = field(default_factory=free_port)
    health_port: int = field(default_factory=free_port)
    image_id: str = ""
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = yaml.safe_load(openstack_lab.clouds_file(level=2).read_text())
        for cloud in known["clouds"].values():
            cloud["load_balancer_endpoint_override"] = self.endpoint
        self.clouds = self.directory / "clouds.yaml"
        self.clouds.write_text(yaml.safe_dump(known))
        names = (openstack_lab.ADMIN, openstack_lab.OURS, openstack_lab.TENANT)
        self.admin, self.ours, self.tenant = map(openstack_lab.connect, names)
        self.cli = Cli({"OS_CLIENT_CONFIG_FILE": str(self.clouds), "OS_CLOUD": openstack_lab.TENANT})
        self.operator = Cli({"OS_CLIENT_CONFIG_FILE": str(self.clouds), "OS_CLOUD": openstack_lab.ADMIN})

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.api_port}"

    # Frontinus

    def __enter__(self) -> Self:
        settings = CONFIG.format(
            database=self.database,
            cloud=openstack_lab.OURS,
            controllers=CONTROLLERS,
            health_port=self.health_port,
            spares=self.spares,
            installation=self.installation,
            flavor=FLAVOR,
            image_tag=self.installation,
        )
        (self.directory / "frontinus.toml").write_text(settings + self.more)
        with ExitStack() as begun:
            begun.callback(self.__exit__)
            self.image_id = upload_image(self.ours, self.installation)
            subprocess.run(self._command("db", "upgrade"), check=True, timeout=120)
            self.start("api", "--port", str(self.api_port))
            self.start("controller")
            self.start("health")
            until(self._answers, 60, f"the API does not answer: {self.directory}/log")
            begun.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for cli in (self.cli, self.operator):
            cli.close()
        # Of a test that failed half-way; one that went well has looked that there is nothing.
        for server in self.servers():
            self.ours.compute.delete_server(server.id, force=True)
        for server in self.servers():
            self.ours.compute.wait_for_delete(server, wait=180)
        for port in self.ports():
            self.admin.network.delete_port(port.id)
        for group in self.groups():
            self.ours.compute.delete_server_group(group.id)
        for security_group in self.security_groups():
            self.admin.network.delete_security_group(security_group.id)
        if self.image_id:
            self.ours.image.delete_image(self.image_id)

    def start(self, *words: str) -> None:
        with (self.directory / "log").open("ab") as log:
            self.processes[words[0]] = subprocess.Popen(
                self._command(*words), env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def command(self, *words: str) -> str:
        done = subprocess.run(
            self._command(*words), env=self._environment, text=True, capture_output=True, timeout=120, check=False
        )
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def _command(self, *words: str) -> list[str]:
        where = ["--config", str(self.directory / "frontinus.toml"), "--state-dir", str(self.directory / "state")]
        return [*COMMAND, *words, *where]

    @property
    def _environment(self) -> dict[str, str]:
        others = {key: value for key, value in os.environ.items() if not key.startswith("OS_")}
        return {**others, "OS_CLIENT_CONFIG_FILE": str(self.clouds)}

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.api_port, timeout=5)
        try:
            connection.request("GET", "/")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    # What is in OpenStack

    def servers(self) -> list[Any]:
        return list(self.ours.compute.servers(tags=f"frontinus-{self.installation}"))

    def groups(self) -> list[Any]:
        return [x for x in self.ours.compute.server_groups() if self.installation in x.name]

    def ports(self) -> list[Any]:
        found = [x for x in self.admin.network.ports() if x.device_owner != NEIGHBOURS]
        return [x for x in found if self.installation in f"{x.name} {x.description} {x.tags}"]

    def ports_on(self, subnet: str) -> list[str]:
        """Names of those that have an address on this subnet."""
        subnet_id = self.subnet(subnet).id
        return [x.name for x in self.ports() if any(y["subnet_id"] == subnet_id for y in x.fixed_ips)]

    def security_groups(self) -> list[Any]:
        found = self.admin.network.security_groups()
        return [x for x in found if self.installation in f"{x.name} {x.description} {x.tags}"]

    def console(self, server_id: str) -> str:
        return str(self.ours.compute.get_server_console_output(server_id)["output"])

    # What a tenant has and does

    def subnet(self, name: str) -> Any:
        return self.admin.network.find_subnet(name, ignore_missing=False)

    def load_balancer(self, name: str) -> dict[str, Any]:
        return dict(self.cli.ask("show", name))

    def settled(self, name: str, within: float = 300) -> dict[str, Any]:
        """When it is not PENDING any more, which must be ACTIVE."""

        def shown() -> dict[str, Any]:
            found = self.load_balancer(name)
            return {} if found["provisioning_status"] in PENDING else found

        found = until(shown, within, f"load balancer {name} stays PENDING:\n{self.log()}", pause=0.5)
        assert found["provisioning_status"] == "ACTIVE", (found, self.log())
        return found

    def amphorae(self, name: str) -> dict[str, dict[str, Any]]:
        """By role."""
        found = self.operator.ask("amphora", "list", "--loadbalancer", self.load_balancer(name)["id"])
        return {x["role"]: x for x in found}

    def certificate(self, authority: TestAuthority, address: str) -> str:
        """A container of the tenant's, which our account may read."""
        made = authority.issue(address)
        ours = self.ours.session.get_user_id()
        secrets = self.tenant.key_manager
        refs = {}
        for name, content in (("certificate", made.certificate), ("private_key", made.private_key)):
            reference = secrets.post("/secrets", json={"name": self.installation}).json()["secret_ref"]
            secrets.put(_path(reference), data=content, headers={"Content-Type": "text/plain"})
            refs[name] = reference
        body = {
            "name": self.installation,
            "type": "certificate",
            "secret_refs": [{"name": name, "secret_ref": reference} for name, reference in refs.items()],
        }
        container: str = secrets.post("/containers", json=body).json()["container_ref"]
        for reference in (*refs.values(), container):
            allowed = secrets.put(f"{_path(reference)}/acl", json={"read": {"users": [ours], "project-access": True}})
            assert allowed.status_code == 200, allowed.text
        return container

    def consumers(self, container: str) -> list[Any]:
        return list(self.tenant.key_manager.get(f"{_path(container)}").json()["consumers"])

    def log(self) -> str:
        return (self.directory / "log").read_text(errors="replace")[-6000:]


class Neighbour(Host):
    """Another machine on a network of Neutron's: a namespace with a port that the lab's agent binds. It answers HTTP and
    datagrams on port 8080 with its name."""

    def __init__(self, admin: Connection, name: str, subnet_id: str) -> None:
        self.name, self._admin = name, admin
        subnet = admin.network.get_subnet(subnet_id)
        self._port = admin.network.create_port(
            name=name,
            network_id=subnet.network_id,
            fixed_ips=[{"subnet_id": subnet_id}],
            binding_host_id="tcg1",
            device_owner=NEIGHBOURS,  # of one that is "compute:", Nova would hang it on the bridge
            is_port_security_enabled=False,
        )
        self.address: str = self._port.fixed_ips[0]["ip_address"]
        tap = f"tap{self._port.id[:11]}"
        ip("netns", "add", name)
        ip("-n", name, "link", "set", "lo", "up")
        ip("link", "add", tap, "netns", "ostack", "type", "veth", "peer", "name", "eth0", "netns", name)
        ip("-n", name, "link", "set", "eth0", "address", self._port.mac_address, "mtu", "1450", "up")
        ip("-n", name, "address", "add", f"{self.address}/{subnet.cidr.partition('/')[2]}", "dev", "eth0")
        ip("-n", "ostack", "link", "set", tap, "up")
        self.serve(8080)

    def remove(self) -> None:
        ip("netns", "delete", self.name)
        self._admin.network.delete_port(self._port.id)


class Here(Host):
    """This host, which is on the public network."""

    def __init__(self) -> None:
        self.name = "here"

    def within(self, work: Callable[[], _T]) -> _T:
        return work()


def over_tls(address: str, authority: TestAuthority, port: int = 443) -> str:
    """Who answers."""
    context = ssl.create_default_context(cadata=authority.pem.decode())
    return ask(address, port, context=context)[1]


def upload_image(ours: Connection, tag: str) -> str:
    """The image that `make image` has built, as an operator uploads it; its id."""
    made = ours.image.create_image(
        name=tag,
        data=(IMAGE / "amphora.qcow2").read_bytes(),
        disk_format="qcow2",
        container_format="bare",
        tags=[tag],
        min_disk=1,
        img_hv_type="qemu",  # so that the lab's Nova chooses a host that is none of its fakes
        hw_rng_model="virtio",
        validate_checksum=False,
    )
    return str(made.id)


def qemu_of(server_id: str) -> int:
    """The process in which a server runs."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"qemu-system" in words[0] and server_id.encode() in words:
                return int(entry.name)
    raise AssertionError(f"no QEMU runs server {server_id}")


def _path(reference: str) -> str:
    return "/" + "/".join(reference.rsplit("/", 2)[1:])
