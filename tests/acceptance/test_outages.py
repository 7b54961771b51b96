"""Each service of OpenStack goes away under a running Frontinus, in each way in which services do: requests that need it are
answered with 503 and its name, others go on; what is under way gets a fault that names it, and heals by itself when the
service is back; nothing is made twice and nothing is left.

    pytest -rP tests/acceptance/test_outages.py

prints what happened. Between Frontinus and each real service stands a proxy of this test's (troubled_service.py)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest

from frontinus.testing.certificates import TestAuthority

from tests import openstack_lab
from tests.acceptance.openstack_tenants import Project, Site, frontinus_on_openstack
from tests.acceptance.support import report, until
from tests.acceptance.troubled_service import Trouble, TroubledService

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(3600),
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning", "ignore::DeprecationWarning"),
]

SETTINGS = """
[openstack]
timeout = 30
retries = 0
breaker_threshold = 3
breaker_pause = 2
[controller]
retry_budget = 4
outage_budget = 4
backoff_cap = 2
[api.keystone]
timeout = 15
staleness = 20
"""
"""On a busy machine the lab's services take seconds for an answer."""

ENDPOINTS = {
    "keystone": ("identity", "3", "/v3"),
    "nova": ("compute", "2", "/v2.1"),
    "neutron": ("network", "2", "/v2.0"),
    "glance": ("image", "2", "/v2"),
    "barbican": ("key_manager", "1", "/v1"),
}
"""How openstacksdk calls the service; version and path, so that it does not ask who would tell it the real address."""
AWAY = [x for x in Trouble if x is not Trouble.NONE]
FAULT_S, HEALED_S, SWEPT_S = 150, 300, 240
PENDING_OR_ERROR = ("PENDING_CREATE", "PENDING_UPDATE", "PENDING_DELETE", "ERROR")


@dataclass
class World:
    site: Site
    project: Project
    services: dict[str, TroubledService]
    certificate: str

    def create(self, **more: object) -> tuple[str, str]:
        """Its id, or an empty one and what was answered instead."""
        answer = self.project.call(
            "POST", "loadbalancers", {"loadbalancer": {"vip_subnet_id": self.project.subnet_ids[0], **more}}
        )
        if answer.status != 201:
            return "", f"{answer.status} {answer.told}"
        return str(answer.body["loadbalancer"]["id"]), ""

    def made(self, **more: object) -> str:
        """Its id. What is busy for a moment is asked again, as a client does that is told so."""
        return until(lambda: self.create(**more)[0], FAULT_S, "no load balancer can be made", pause=1)

    def servers(self, load_balancer_id: str) -> list[str]:
        """Of the load balancer, by Nova."""
        found = self.site.admin.compute.servers(all_projects=True, tags=f"frontinus-{self.site.word}")
        return [x.id for x in found if x.metadata.get("frontinus_load_balancer") == load_balancer_id]

    def nothing_is_left(self) -> None:
        """What was made for a request that was told that it was not is swept, after the grace."""
        until(lambda: not self.site.left(), SWEPT_S, "something is left", pause=2)

    def waits_for(self, load_balancer_id: str, service: str) -> Any:
        """The load balancer as soon as its fault says that this service is what it waits for, and it is ERROR meanwhile."""

        def seen() -> Any:
            shown = self.project.load_balancer(load_balancer_id)
            fault = shown.get("fault")
            is_it = fault and fault["code"] == f"{service}-unavailable" and shown["provisioning_status"] == "ERROR"
            return shown if is_it else None

        return until(seen, FAULT_S, f"{load_balancer_id} does not say that it waits for {service}", pause=0.3)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    openstack_lab.clouds_file()
    host = urlsplit(str(openstack_lab.connect(openstack_lab.ADMIN).config.config["auth"]["auth_url"])).hostname or ""
    with ExitStack() as stack:
        services = {
            name: stack.enter_context(TroubledService(host, port)) for name, port in openstack_lab.SERVICES.items()
        }
        overrides = {f"{x}_endpoint_override": services[name].url + path for name, (x, _, path) in ENDPOINTS.items()}
        overrides |= {f"{x}_api_version": version for x, version, _ in ENDPOINTS.values()}
        overrides["auth_url"] = f"{services['keystone'].url}/v3"
        directory = tmp_path_factory.mktemp("openstack")
        site = stack.enter_context(frontinus_on_openstack(directory, overrides, SETTINGS))
        for service in services.values():
            stack.callback(service.be, Trouble.NONE)
        project = site.project("t")
        project.make_network("10.75.0.0/24")
        yield World(site, project, services, project.container(TestAuthority().issue("www.example.org")))


@pytest.fixture
def pair(world: World) -> tuple[str, str]:
    """Two load balancers that are served: one to be changed, one to be deleted."""
    listener = {
        "protocol": "TERMINATED_HTTPS",
        "protocol_port": 443,
        "default_tls_container_ref": world.certificate,
    }
    made = [world.made(listeners=[listener]), world.made()]
    for each in made:
        world.project.settled(each)
    return made[0], made[1]


@dataclass(frozen=True)
class Needs:
    """What cannot go on without a service. The others do."""

    service: str
    create: str
    """`answered 503`, or `waits`, or `goes on`."""
    change: str
    """Of a listener, by its port: amphorae are plugged and pushed anew."""
    delete: str


NEEDS = [
    Needs("nova", create="waits", change="waits", delete="waits"),
    Needs("glance", create="waits", change="goes on", delete="goes on"),
    Needs("neutron", create="answered 503", change="waits", delete="waits"),
    Needs("barbican", create="goes on", change="waits", delete="goes on"),
]


@pytest.mark.parametrize("needs", NEEDS, ids=lambda x: x.service)
def test_an_outage_becomes_a_fault_that_heals(world: World, pair: tuple[str, str], needs: Needs) -> None:
    """Away in each way, one after the other. What was made in one round is deleted in the next."""
    project, service = world.project, world.services[needs.service]
    changed, doomed = pair
    for number, trouble in enumerate(AWAY):
        met = service.asked
        service.be(trouble)
        began = time.monotonic()
        try:
            new, refusal = world.create(name="new")
            assert (new == "") == (needs.create == "answered 503"), refusal
            if refusal:
                assert (refusal[:3], needs.service in refusal) == ("503", True), refusal
            listener = project.create(
                "listeners", "listener", loadbalancer_id=changed, protocol="HTTP", protocol_port=80 + number
            )
            assert project.call("DELETE", f"loadbalancers/{doomed}").status == 204
            for what, load_balancer_id in (("create", new), ("change", changed), ("delete", doomed)):
                if getattr(needs, what) == "waits":
                    shown = world.waits_for(load_balancer_id, needs.service)
                    report(f"{needs.service} {trouble}: {what} waits: {shown['fault']['message']}")
            if needs.create == "goes on":
                project.settled(new)
            if needs.change == "goes on":
                project.settled(changed)
            if needs.delete == "goes on":
                project.gone(doomed)
            _require_served(world, needs, trouble)
            away = time.monotonic() - began
        finally:
            service.be(Trouble.NONE)
        back = time.monotonic()
        for each in (changed, *([new] if new else [])):
            assert project.settled(each, HEALED_S).get("fault") is None
        project.gone(doomed, HEALED_S)
        report(
            f"{needs.service} {trouble} for {away:.0f} s ({service.asked - met} requests met it); {time.monotonic() - back:.1f} s "
            f"after its return all was as asked{'; a create meanwhile: ' + refusal if refusal else ''}"
        )
        shown = project.call("GET", f"listeners/{listener['id']}").one("listener")
        assert (shown["provisioning_status"], shown.get("fault")) == ("ACTIVE", None)
        for each in (changed, *([new] if new else [])):
            assert len(world.servers(each)) == 1, "one server, however often it was asked for"
        assert world.servers(doomed) == []
        doomed = new or world.made(name="new")
        project.settled(doomed)
    project.clear()
    world.nothing_is_left()


def _require_served(world: World, needs: Needs, trouble: Trouble) -> None:
    """What does not need the service is answered meanwhile, and long before anybody's time-out."""
    began = time.monotonic()
    assert world.project.call("GET", "loadbalancers").status == 200
    assert world.project.call("GET", "listeners").status == 200
    assert time.monotonic() - began < 10
    if needs.service == "barbican":
        wish = {"protocol": "TERMINATED_HTTPS", "protocol_port": 443, "default_tls_container_ref": world.certificate}
        new, refusal = world.create(listeners=[wish])
        assert new == ""
        assert (refusal[:3], "barbican" in refusal) == ("503", True), refusal
        report(f"barbican {trouble}: a create with a certificate: {refusal}")


@pytest.mark.parametrize("trouble", AWAY, ids=str)
def test_tokens_that_keystone_knows_are_known_while_it_is_away(
    world: World, pair: tuple[str, str], trouble: Trouble
) -> None:
    """And whoever comes anew is told when to come again. Our own account has a token: what is under way goes on."""
    project, keystone = world.project, world.services["keystone"]
    stranger = world.site.project(f"s{len(world.site.projects)}")
    assert project.call("GET", "loadbalancers").status == 200
    keystone.be(trouble)
    try:
        assert project.call("DELETE", f"loadbalancers/{pair[1]}").status == 204
        response = stranger.cloud.load_balancer.get("/lbaas/loadbalancers")
        told = response.json()["faultstring"]
        assert (response.status_code, "Keystone" in told) == (503, True), told
        assert int(response.headers["Retry-After"]) > 0
        report(f"keystone {trouble}: a new token: {response.status_code} {told}")
        until(lambda: not world.servers(pair[1]), HEALED_S, "the delete does not go on", pause=0.5)
        until(
            lambda: project.call("GET", "loadbalancers").status == 503,
            60,
            "what Keystone said is gone by for ever",
            pause=1,
        )
        report(f"keystone {trouble}: a known token is known for api.keystone.staleness, then 503")
    finally:
        keystone.be(Trouble.NONE)
    until(lambda: stranger.call("GET", "loadbalancers").status == 200, 30, "the stranger is not let in", pause=0.3)
    project.gone(pair[1])


def test_a_start_while_keystone_is_away(world: World, pair: tuple[str, str]) -> None:
    """No token of ours, none of anybody's: work waits for Keystone, by that name, and goes on when it is back."""
    project, keystone, frontinus = world.project, world.services["keystone"], world.site.frontinus
    nova = world.services["nova"]
    nova.be(Trouble.REFUSES)
    new, _ = world.create(name="new")
    assert project.call("DELETE", f"loadbalancers/{pair[1]}").status == 204
    frontinus.kill()
    log = frontinus.state_dir.parent / "up.log"
    before = log.stat().st_size  # tests before this one had Keystone away too
    keystone.be(Trouble.REFUSES)
    nova.be(Trouble.NONE)
    try:
        frontinus.start(expect=False)
        until(
            lambda: b"code=keystone-unavailable" in log.read_bytes()[before:],
            FAULT_S,
            f"nobody waits for keystone:\n{frontinus.log()}",
            pause=0.5,
        )
    finally:
        keystone.be(Trouble.NONE)
    until(lambda: project.call("GET", "loadbalancers").status == 200, 60, "the API does not come back", pause=0.3)
    project.gone(pair[1], HEALED_S)
    assert project.settled(new, HEALED_S).get("fault") is None
    assert len(world.servers(new)) == 1
    report("started while Keystone was away: the faults said keystone-unavailable, and healed")
