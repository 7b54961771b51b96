"""docs/install-openstack.md, carried out: its commands and files, in its order, in one shell, against real services, with real
guests.

What a test cannot have is replaced, and that is all of it: `substituted` and LEFT_OUT. The units are those of
packaging/systemd, started by systemctl.py; the two versions of the upgrade are two drivers (another_version.py)."""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests import openstack_lab
from tests.acceptance.follow import Follower, blocks
from tests.acceptance.support import free_port, until
from tests.servers import Server, serving

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(1800),
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
]

HERE = Path(__file__).parent
TOP = HERE.parents[1]
DOCUMENT = TOP / "docs" / "install-openstack.md"
LEFT_OUT = re.compile(
    r"^(?:apt-get|useradd|make image|python3 -m venv|\S+/bin/pip|chgrp|rm -r \S+/opt).*$", re.MULTILINE
)
"""Packages, users and directories of a host; they are here already, or must not be touched."""

PATIENCE_S = 400
"""For a server to start with an emulated processor."""

OWN = "frontinus"
"""Project and user that the document makes."""


@dataclass
class Site:
    follower: Follower
    directory: Path
    look: Any
    database: Server

    def tenant(self, *words: str) -> Any:
        """What `openstack loadbalancer` answers a tenant."""
        return json.loads(
            self.follower.run(
                f"OS_CLOUD={openstack_lab.TENANT} openstack loadbalancer {' '.join(words)} -f json", " ".join(words)
            )
        )

    def serves(self) -> bool:
        """Whether the member is reached through the VIP."""
        connection = http.client.HTTPConnection(self.vip, 80, timeout=5)
        try:
            connection.request("GET", "/frontinus-api.service")
            return b"Frontinus API" in connection.getresponse().read()
        except OSError:
            return False
        finally:
            connection.close()

    @property
    def vip(self) -> str:
        return str(self.tenant("show", "shop")["vip_address"])

    def servers(self) -> list[str]:
        project = self.look.identity.find_project(OWN, ignore_missing=False)
        return [x.id for x in self.look.compute.servers(all_projects=True, project_id=project.id)]


def substituted(directory: Path, database: Server, ports: dict[str, int]) -> dict[str, str]:
    """In this order."""
    client = f"--no-defaults --socket={database.directory}/socket -uroot"
    return {
        # The host, and its user.
        "/etc/frontinus": f"{directory}/etc/frontinus",
        "/etc/systemd/system": f"{directory}/etc/systemd/system",
        "/var/lib/frontinus": f"{directory}/var/lib/frontinus",
        "/var/backups/frontinus": f"{directory}/var/backups/frontinus",
        "/opt/frontinus": f"{directory}/opt/frontinus",
        "/usr/local/bin/frontinus": f"{directory}/bin/frontinus",
        "runuser -u frontinus -- ": "",
        " -o frontinus": "",
        " -g frontinus": "",
        "tar -C /": f"tar -C {directory}",
        "packaging/systemd/*.service": f"{directory}/units/*.service",
        # What is elsewhere in a lab.
        "mariadb -h db.example.org": f"mariadb {client}",
        "mariadb-dump -h db.example.org": f"mariadb-dump {client}",
        "db.example.org:3306": f"127.0.0.1:{database.port}",
        "http://lb.example.org:9876": f"http://127.0.0.1:{ports['api']}",
        "0.0.0.0": "127.0.0.1",
        "9876": f"{ports['api']}",
        "5555": f"{ports['health']}",
        "[health]\n": f"[health]\nbind_port = {ports['health']}\n",
        ".cache/image/": f"{TOP}/.cache/image/",
        # The lab has a management network already, so another one is made as the document says.
        "--provider-network-type flat --provider-physical-network mgmt lb-mgmt-net": "doc-mgmt-net",
        "--network lb-mgmt-net": "--network doc-mgmt-net",
        "lb-mgmt-subnet": "doc-mgmt-subnet",
        # Its hosts: one runs guests, three only say so; and memory is short.
        "--property hw_rng_model=virtio": "--property hw_rng_model=virtio --property img_hv_type=qemu",
        "--ram 512": "--ram 256",
        "spares = 2 ": "spares = 0 ",
        # Where this machine reaches VIPs and is a member itself.
        "tenant-subnet": "public-subnet",
        "10.64.10.50 --protocol-port 8080": f"10.64.1.1 --protocol-port {ports['member']}",
    }


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with host(tmp_path) as made:
        yield made


@contextmanager
def host(tmp_path: Path) -> Iterator[Site]:
    """What the document finds."""
    clouds = openstack_lab.clouds_file(level=2)
    look = openstack_lab.connect(openstack_lab.ADMIN)
    ports = {x: free_port() for x in ("api", "health", "member")}
    (tmp_path / "bin").mkdir()
    (tmp_path / "units").mkdir()
    (tmp_path / "etc/systemd/system").mkdir(parents=True)
    for unit in (TOP / "packaging/systemd").glob("*.service"):
        text = unit.read_text().replace("/opt/frontinus", f"{tmp_path}/opt/frontinus")
        (tmp_path / "units" / unit.name).write_text(text.replace("/etc/frontinus", f"{tmp_path}/etc/frontinus"))
    programs = {
        tmp_path / "opt/frontinus/0.1.0/bin/frontinus": f"{sys.executable} -m frontinus.cli.main",
        tmp_path / "opt/frontinus/0.2.0/bin/frontinus": f"{sys.executable} {HERE}/another_version.py 0.2.0 tuned",
        tmp_path / "bin/systemctl": f"UNITS={tmp_path}/etc/systemd/system {sys.executable} {HERE}/systemctl.py",
    }
    for file, command in programs.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f'#!/bin/sh\nPYTHONPATH={TOP} exec env {command} "$@"\n')
        file.chmod(0o755)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("OS_")}
    environment |= {
        "PATH": f"{tmp_path}/bin:{Path(sys.executable).parent}:{environment['PATH']}",
        "OS_CLIENT_CONFIG_FILE": str(clouds),
        "OS_CLOUD": openstack_lab.ADMIN,
    }
    with ExitStack() as stack:
        database = stack.enter_context(serving("mariadb"))
        database.query("DROP USER frontinus@'127.0.0.1'")  # the document makes its own
        _remove(look)
        stack.callback(_remove, look)
        words = ["--bind", "10.64.1.1", "--directory", str(tmp_path / "units"), str(ports["member"])]
        member = subprocess.Popen([sys.executable, "-m", "http.server", *words], stderr=subprocess.DEVNULL)
        stack.callback(member.wait)
        stack.callback(member.kill)
        units = {**environment, "UNITS": f"{tmp_path}/etc/systemd/system"}
        stop = [str(tmp_path / "bin/systemctl"), "stop", "frontinus-*"]
        stack.callback(lambda: subprocess.run(stop, env=units, check=False))
        follower = Follower(tmp_path, environment, substituted(tmp_path, database, ports), LEFT_OUT)
        stack.callback(follower.close)
        yield Site(follower, tmp_path, look, database)


def _remove(look: Any) -> None:
    """Whatever a run has left."""
    project = look.identity.find_project(OWN)
    for service in look.identity.services(type="load-balancer"):
        if service.description.startswith("Frontinus"):
            look.identity.delete_service(service)  # its endpoints with it
    for network in look.network.networks(name="doc-mgmt-net"):
        look.network.delete_network(network)
    if project is None:
        return
    servers = list(look.compute.servers(all_projects=True, project_id=project.id))
    for server in servers:
        look.compute.delete_server(server.id, force=True)
    for server in servers:
        look.compute.wait_for_delete(server, wait=180)
    for port in look.network.ports():
        if port.project_id == project.id or port.description.startswith(f"frontinus:{OWN}:"):
            look.network.delete_port(port.id)
    for group in look.network.security_groups(project_id=project.id):
        if group.name != "default":
            look.network.delete_security_group(group.id)
    for group in look.compute.server_groups(all_projects=True):
        if group.project_id == project.id:
            look.compute.delete_server_group(group.id)
    for image in look.image.images(owner=project.id, visibility="all"):
        look.image.delete_image(image.id)
    flavor = look.compute.find_flavor("amphora", get_extra_specs=False)
    if flavor is not None:
        look.compute.delete_flavor(flavor.id)
    user = look.identity.find_user(OWN)
    if user is not None:
        look.identity.delete_user(user)
    look.identity.delete_project(project)


def test_the_document_leads_to_a_load_balancer_through_an_upgrade_and_back_from_a_backup(site: Site) -> None:
    if not (TOP / ".cache/image/amphora.qcow2").exists():
        pytest.fail("this test needs the image of amphorae: make image")
    follower = site.follower
    server = ""
    for block in blocks(DOCUMENT):
        if block.kind == "as-tenant":
            follower.run(f"export OS_CLOUD={openstack_lab.TENANT}", "log in as a tenant")
        said = follower.carry_out(block)
        if block.kind == "as-tenant":
            follower.run(f"export OS_CLOUD={openstack_lab.ADMIN}", "log in as an administrator")
        if "mariadb-dump" in block.text:
            # What is done after the backup is undone by the restore, and nothing else is.
            site.tenant(
                "listener", "create", "--name", "late", "--protocol", "HTTP", "--protocol-port", "81", "shop", "--wait"
            )
        if "check --try" in block.text:
            assert re.search(r"^0 troubles, 1 warnings$", said, re.MULTILINE), said
            assert "has no load-balancer in region" in said
        if "openstack register" in block.text:
            assert re.search(r"^0 troubles, 0 warnings$", said, re.MULTILINE), said
        if "member create" in block.text:
            until(site.serves, 30, f"the first load balancer does not serve: {site.tenant('show', 'shop')}", 0.5)
            (server,) = site.servers()
        if "rollout start" in block.text:
            assert "finished" in said, said
            assert site.serves()
        if "systemctl start" in block.text:
            until(lambda: site.tenant("listener", "list")[1:] == [], 60, "the restore did not bring the backup back", 1)
            until(site.serves, 60, "nothing is served after the restore", 0.5)
    assert site.servers() == [server], "the amphora was replaced on the way"
    follower.run(f"OS_CLOUD={openstack_lab.TENANT} openstack loadbalancer delete --cascade --wait shop", "delete")
    assert site.servers() == []
