"""`frontinus openstack check` against real services: it tells what is so, as openstacksdk shows it; what is missing is found, one
thing at a time; and what it tries is gone afterwards, whenever it is interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml
from keystoneauth1.session import TCPKeepAliveAdapter
from openstack.connection import Connection

from frontinus.cli.openstack import trying
from frontinus.drivers.compute.nova.settings import NovaSettings
from frontinus.drivers.network.neutron.driver import NeutronSettings
from frontinus.drivers.openstack.cloud import Cloud, in_this_thread
from frontinus.drivers.openstack.settings import OpenStackSettings
from frontinus.model.findings import Grade

from tests import openstack_lab
from tests.acceptance.openstack_cli import Cli
from tests.acceptance.support import COMMAND, Installation, free_port

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
]


_NUMBERS = ("api.bind_port", "driver_options.nova.volume_size_gib")


@dataclass
class Site:
    """`look` is an administrator's own connection, by which tests see what is really there; `word` marks what is made."""

    look: Connection
    word: str
    project_id: str
    image_owner: str
    directory: Path

    @property
    def identity(self) -> Any:
        """Its proxy; of which of the two versions, types don't tell."""
        return self.look.identity

    def config(self, **changes: str) -> str:
        """One with which everything is in order; `changes` by the name of the setting, `gone` leaves one out."""
        values = {
            "openstack.cloud": openstack_lab.OURS,
            "openstack.installation": self.word,
            "drivers.compute": "nova",
            "drivers.network": "neutron",
            "drivers.secret": "barbican",
            "api.auth": "keystone",
            "api.bind_port": str(free_port()),
            "api.keystone.cloud": openstack_lab.OURS,
            "driver_options.nova.flavor": "lb.tiny",
            "driver_options.nova.image_tag": "fake-image",
            "driver_options.nova.image_owner": self.image_owner,
            "driver_options.haproxy.heartbeat_destinations": '["10.64.0.1:5555"]',
        } | changes
        return "".join(
            f"{key} = {value if value[0] == '[' or key in _NUMBERS else json.dumps(value)}\n"
            for key, value in values.items()
        )

    def check(self, *words: str, **changes: str) -> tuple[int, list[dict[str, Any]]]:
        file = self.directory / "check.toml"
        file.write_text(self.config(**changes))
        command = [*COMMAND, "openstack", "check", "--json", "--config", str(file), *words]
        command += ["--state-dir", str(self.directory / "none")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert "Traceback" not in done.stderr, done.stderr
        assert "ostpass" not in done.stdout + done.stderr
        findings: list[dict[str, Any]] = json.loads(done.stdout)
        assert all(bool(x["advice"]) is (x["grade"] != "ok") for x in findings), findings
        return done.returncode, findings

    def left(self) -> list[str]:
        """Of tries, anywhere."""
        name = f"frontinus-{self.word}-try"
        ports = [x.id for x in self.look.network.ports(name=name)]
        groups = [x.id for x in self.look.network.security_groups(name=name)]
        server_groups = [x.id for x in self.look.compute.server_groups(all_projects=True) if x.name == name]
        return ports + groups + server_groups


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    look = openstack_lab.connect(openstack_lab.ADMIN)
    ours = openstack_lab.connect(openstack_lab.OURS)
    owner = next(x.owner for x in look.image.images(tag="fake-image"))
    project_id = ours.session.get_project_id()
    assert project_id
    yield Site(look, f"t{uuid4().hex[:8]}", project_id, owner, tmp_path)
    ours.close()
    look.close()


def told(findings: list[dict[str, Any]], grade: str) -> str:
    return "\n".join(f"{x['subject']}: {x['told']}" for x in findings if x["grade"] == grade)


def test_what_is_in_order_is_told_as_it_is(site: Site) -> None:
    status, findings = site.check()
    assert (status, told(findings, "trouble")) == (0, "")
    fine = told(findings, "ok")
    network = site.look.network.find_network("lb-mgmt-net", ignore_missing=False)
    subnet = site.look.network.get_subnet(network.subnet_ids[0])
    flavor = site.look.compute.find_flavor("lb.tiny", ignore_missing=False)
    hosts = [x for x in site.look.compute.services(binary="nova-compute") if (x.status, x.state) == ("enabled", "up")]
    for fact in (
        "keystone: logged in as lbaas, project service",
        "keystone: has the roles load-balancer_*",
        f"nova: flavor lb.tiny: {flavor.vcpus} vCPU, {flavor.ram} MiB",
        f"nova: {len(hosts)} hosts take servers",
        "glance: amphorae are made from image placeholder",
        f"neutron: the management network lb-mgmt-net is there: {subnet.cidr}",
        "barbican: answers",
    ):
        assert fact in fine, f"{fact!r} is not in\n{fine}"


@pytest.mark.parametrize(
    "setting, value, subject, word",
    [
        ("driver_options.nova.flavor", "huge", "nova", "flavor 'huge'"),
        ("driver_options.nova.image_tag", "no-such-tag", "glance", "no image"),
        ("driver_options.nova.image_owner", "0" * 32, "glance", "has the tag"),
        ("driver_options.nova.key_name", "nobody", "nova", "key pair"),
        ("driver_options.nova.availability_zone", "moon", "nova", "zone 'moon' does not exist"),
        ("driver_options.nova.volume_size_gib", "5", "nova", "no block storage"),
        ("driver_options.neutron.management_network", "none", "neutron", "no network 'none'"),
        ("driver_options.neutron.management_security_groups", f'["{uuid4()}"]', "neutron", "no security group"),
        ("driver_options.haproxy.heartbeat_destinations", '["127.0.0.1:5555"]', "heartbeats", "127.0.0.1"),
        ("api.keystone.cloud", openstack_lab.TENANT, "keystone", "cannot be validated"),
        ("openstack.cloud", "nobody", "settings", "clouds.yaml"),
    ],
)
def test_what_is_missing_is_found(site: Site, setting: str, value: str, subject: str, word: str) -> None:
    status, findings = site.check(**{setting: value})
    found = [x for x in findings if x["grade"] == "trouble"]
    assert (status, [x["subject"] for x in found]) == (1, [subject]), told(findings, "trouble")
    assert word in found[0]["told"]


def test_a_tenants_account_is_told_what_it_may_not(site: Site) -> None:
    """As whom nobody would run it: an account without any right of a service."""
    status, findings = site.check("--try", **{"openstack.cloud": openstack_lab.TENANT})
    troubles = told(findings, "trouble")
    assert status == 1
    assert "neutron: our account may not make ports with an address" in troubles, troubles
    assert "how many hosts there are" in told(findings, "warning")
    assert site.left() == []


@pytest.mark.parametrize(
    "quota, limit, word",
    [
        pytest.param("ram", 600, "room for 2 more amphorae (ram: 0 of 600 used)", id="memory"),
        pytest.param("server_groups", 3, "room for 3 more load balancers (server_groups: 0 of 3 used)", id="groups"),
    ],
)
def test_a_quota_that_ends_soon_is_told(site: Site, quota: str, limit: int, word: str) -> None:
    """In a project of its own, so that nobody else's servers count."""
    look, identity = site.look, site.identity
    project = identity.create_project(name=f"quota-{site.word}", domain_id="default")
    user = identity.create_user(name=f"quota-{site.word}", password=f"pw-{site.word}", domain_id="default")
    admin = identity.find_role("admin")
    try:
        identity.assign_project_role_to_user(project, user, admin)
        response = look.compute.put(f"/os-quota-sets/{project.id}", json={"quota_set": {quota: limit}})
        assert response.status_code == 200, response.text
        clouds = site.directory / "clouds.yaml"
        auth: Any = look.session.auth
        entry = {
            "auth": {
                "auth_url": auth.auth_url,
                "username": user.name,
                "password": f"pw-{site.word}",
                "project_name": project.name,
                "user_domain_name": "Default",
                "project_domain_name": "Default",
            },
            "region_name": "RegionOne",
        }
        clouds.write_text(json.dumps({"clouds": {"own": entry}}))
        before = os.environ["OS_CLIENT_CONFIG_FILE"]
        os.environ["OS_CLIENT_CONFIG_FILE"] = str(clouds)
        try:
            status, findings = site.check(**{"openstack.cloud": "own", "api.keystone.cloud": "own"})
        finally:
            os.environ["OS_CLIENT_CONFIG_FILE"] = before
        assert (status, word in told(findings, "warning")) == (0, True), findings
    finally:
        identity.delete_user(user)
        identity.delete_project(project)


def test_a_try_shows_rights_and_leaves_nothing(site: Site) -> None:
    status, findings = site.check("--try", "--os-cloud", openstack_lab.TENANT)
    fine = told(findings, "ok")
    assert (status, told(findings, "trouble")) == (0, "")
    for what in ("security groups with rules", "address pairs of their own", "in a tenant's project", "server groups"):
        assert what in fine, fine
    assert site.left() == []


class _Interrupting(TCPKeepAliveAdapter):
    """Ctrl-C comes with the request of this number: before it is sent, or when it has been carried out and the answer is
    on its way. `made` counts."""

    def __init__(self, at: int, *, carried_out: bool) -> None:
        super().__init__()
        self.at, self.carried_out, self.made = at, carried_out, 0

    def send(self, *words: Any, **named: Any) -> Any:
        self.made += 1
        if self.made == self.at and not self.carried_out:
            signal.raise_signal(signal.SIGINT)
        answer = super().send(*words, **named)
        if self.made == self.at and self.carried_out:
            signal.raise_signal(signal.SIGINT)
        return answer


def _try(site: Site, adapter: _Interrupting) -> list[Grade]:
    cloud = Cloud(OpenStackSettings(cloud=openstack_lab.OURS, installation=site.word), openstack_lab.over(adapter))
    tenant = openstack_lab.connect(openstack_lab.TENANT).session.get_project_id()
    with in_this_thread():
        return [x.grade for x in trying.tried(cloud, NovaSettings(flavor="lb.tiny"), NeutronSettings(), tenant)]


@pytest.mark.parametrize("carried_out", [pytest.param(False, id="before"), pytest.param(True, id="after it arrived")])
def test_a_try_that_is_interrupted_anywhere_leaves_nothing(site: Site, carried_out: bool) -> None:
    at, ends = 1, []
    while True:
        adapter = _Interrupting(at, carried_out=carried_out)
        try:
            ends.append(set(_try(site, adapter)))
        except KeyboardInterrupt:
            ends.append(set())
        assert site.left() == [], f"interrupted at request {at}"
        if adapter.made < at:
            break
        at += 1
    # At first it ends at once; while what was made is removed, Ctrl-C is put off, and all is told.
    assert ends[0] == set()
    assert ends[-2:] == [{Grade.OK}, {Grade.OK}]


def test_what_a_kill_has_left_goes_with_the_next_try(site: Site) -> None:
    site.look.network.create_security_group(
        name=f"frontinus-{site.word}-try", description=f"frontinus:{site.word}:try", project_id=site.project_id
    )
    other = site.look.network.create_security_group(name=f"frontinus-{site.word}-try", description="somebody else's")
    try:
        status, _ = site.check("--try")
        assert (status, site.left()) == (0, [other.id])
    finally:
        site.look.network.delete_security_group(other.id)


def test_a_tenant_finds_the_api_by_the_catalogue(site: Site) -> None:
    """In a region of its own, so that nobody else who uses this Keystone finds it."""
    region = f"region-{site.word}"
    site.identity.create_region(id=region)
    # The client looks names of networks up, so that service must be there too.
    there = next(x for x in site.identity.endpoints() if "17096" in x.url and x.interface == "public")
    site.identity.create_endpoint(service_id=there.service_id, interface="public", url=there.url, region_id=region)
    config = site.config(**{"drivers.compute": "noop", "drivers.network": "noop", "drivers.secret": "noop"})
    config = "\n".join(x for x in config.splitlines() if not x.startswith("driver_options"))
    installation = Installation(site.directory / "state", f'{config}\ndrivers.amphora = "noop"\n')
    installation.start()

    def command(*words: str) -> str:
        file = str(site.directory / "frontinus.toml")
        typed = [*COMMAND, "openstack", *words, "--region", region, "--config", file]
        done = subprocess.run(typed, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done
        return done.stdout

    def found() -> set[tuple[str, str]]:
        ids = {x.id for x in site.identity.services(type="load-balancer")}
        endpoints = site.identity.endpoints()
        return {(x.interface, x.url) for x in endpoints if x.region_id == region and x.service_id in ids}

    clouds = yaml.safe_load(openstack_lab.clouds_file().read_text())["clouds"]
    (site.directory / "clouds.yaml").write_text(
        json.dumps({"clouds": {"tenant": {**clouds[openstack_lab.TENANT], "region_name": region}}})
    )
    tenant = Cli({"OS_CLIENT_CONFIG_FILE": str(site.directory / "clouds.yaml"), "OS_CLOUD": "tenant"})
    try:
        command("register", "--url", installation.endpoint, "--os-cloud", openstack_lab.ADMIN)
        assert found() == {(x, installation.endpoint) for x in ("public", "internal", "admin")}
        assert tenant.ask("list") == []
        assert {"amphora", "octavia"} <= {x["name"] for x in tenant.ask("provider", "list")}
        command("unregister", "--os-cloud", openstack_lab.ADMIN)
        assert found() == set()
        anew = tenant.type("list")
        assert (anew.returncode, "load-balancer" in anew.stderr) == (1, True), anew
    finally:
        tenant.close()
        installation.remove()
        for endpoint in list(site.identity.endpoints()):
            if endpoint.region_id == region:
                site.identity.delete_endpoint(endpoint)
        site.identity.delete_region(region)
