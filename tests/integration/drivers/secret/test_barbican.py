"""The driver `barbican` with the real Barbican of the lab: it keeps every promise of its interface, what it does is looked
up with openstacksdk behind its back, and its death between any two calls leaves no consumer behind."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import NoEncryption, load_pem_private_key, pkcs12
from keystoneauth1.session import TCPKeepAliveAdapter
from openstack.connection import Connection

from frontinus.drivers.openstack.cloud import open_connection
from frontinus.drivers.openstack.settings import OpenStackSettings
from frontinus.drivers.secret.barbican.driver import BarbicanSecrets, BarbicanSettings
from frontinus.model.certificates import Certificate, SecretConsumer
from frontinus.model.errors import Invalid, Retry
from frontinus.model.ids import LoadBalancerId, ProjectId, new_id
from frontinus.model.network import Tenant
from frontinus.model.secrets import Secret
from frontinus.testing.certificates import TestAuthority
from frontinus.testing.exam import Check
from frontinus.testing.faults import Killed
from frontinus.testing.secret_conformance import CHECKS, SecretBench

from tests import openstack_lab

pytestmark = [
    pytest.mark.integration,
    pytest.mark.long,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
]


@dataclass
class Site:
    """A tenant's secrets. `look` is his own connection, by which tests see what is really there."""

    look: Connection
    account: str
    """Id of the user as whom the driver works."""

    project_id: ProjectId
    installation: str = field(default_factory=lambda: f"t{uuid4().hex[:8]}")
    made: list[str] = field(default_factory=list)

    def driver(self) -> BarbicanSecrets:
        return BarbicanSecrets(self.settings())

    def settings(self) -> BarbicanSettings:
        cloud = OpenStackSettings(cloud=openstack_lab.OURS, installation=self.installation)
        return BarbicanSettings(watch_interval=timedelta(milliseconds=1), openstack=cloud)

    @property
    def tenant(self) -> Tenant:
        token = self.look.session.get_token()
        assert token
        return Tenant(project_id=self.project_id, token=Secret(token))

    def secret(self, payload: bytes, *, readable: bool = True) -> str:
        made = self.look.key_manager.post("/secrets", json={"name": self.installation})
        reference: str = made.json()["secret_ref"]
        self.made.append(reference)
        kind = "text/plain" if payload.startswith(b"-----") else "application/octet-stream"
        stored = self.look.key_manager.put(path(reference), data=payload, headers={"Content-Type": kind})
        assert stored.status_code == 204, stored.text
        if readable:
            self.allow(reference)
        return reference

    def container(self, certificate: Certificate, *, readable: bool = True) -> str:
        parts = {
            "certificate": certificate.certificate,
            "private_key": certificate.private_key,
            "intermediates": b"".join(certificate.intermediates),
        }
        refs = [{"name": k, "secret_ref": self.secret(x, readable=readable)} for k, x in parts.items() if x]
        body = {"name": self.installation, "type": "certificate", "secret_refs": refs}
        reference: str = self.look.key_manager.post("/containers", json=body).json()["container_ref"]
        self.made.append(reference)
        if readable:
            self.allow(reference)
        return reference

    def allow(self, reference: str, *users: str) -> None:
        body = {"read": {"users": [self.account, *users], "project-access": True}}
        answer = self.look.key_manager.put(f"{path(reference)}/acl", json=body)
        assert answer.status_code == 200, answer.text

    def deny(self, reference: str) -> None:
        assert self.look.key_manager.delete(f"{path(reference)}/acl").status_code == 200

    def delete(self, reference: str) -> None:
        self.look.key_manager.delete(path(reference))

    def consumers(self, reference: str) -> list[dict[str, str]]:
        headers = {"OpenStack-API-Version": "key-manager 1.1"}
        answer = self.look.key_manager.get(f"{path(reference)}/consumers", headers=headers)
        hidden = {"created", "updated", "status"}
        return [{k: v for k, v in x.items() if k not in hidden} for x in answer.json()["consumers"]]

    def certificate_in(self, container: str) -> str:
        shown = self.look.key_manager.get(path(container)).json()
        return next(str(x["secret_ref"]) for x in shown["secret_refs"] if x["name"] == "certificate")


def path(reference: str) -> str:
    return "/" + "/".join(reference.rsplit("/", 2)[1:])


def pkcs12_of(certificate: Certificate) -> bytes:
    key = load_pem_private_key(certificate.private_key, password=None)
    leaf, *others = (x509.load_pem_x509_certificate(x) for x in (certificate.certificate, *certificate.intermediates))
    return pkcs12.serialize_key_and_certificates(b"www", key, leaf, others, NoEncryption())  # type: ignore[arg-type]


@pytest.fixture
def site() -> Iterator[Site]:
    look = openstack_lab.connect(openstack_lab.TENANT)
    account = openstack_lab.connect(openstack_lab.OURS).session.get_user_id()
    project_id = look.session.get_project_id()
    assert account
    assert project_id
    made = Site(look, account, ProjectId(project_id))
    yield made
    for reference in reversed(made.made):
        made.delete(reference)


@pytest.fixture
async def driver(site: Site) -> AsyncIterator[BarbicanSecrets]:
    made = site.driver()
    yield made
    await made.close()


@pytest.fixture
def certificate() -> Certificate:
    return TestAuthority("leaf's", parent=TestAuthority("root")).issue("www.example.org")


def consumer_of(site: Site, reference: str) -> SecretConsumer:
    return SecretConsumer(reference=reference, project_id=site.project_id, load_balancer_id=LoadBalancerId(new_id()))


async def name(driver: BarbicanSecrets, site: Site, *references: str) -> LoadBalancerId:
    """What the API does when a user names them."""
    load_balancer_id = LoadBalancerId(new_id())
    await driver.require_access(site.tenant, load_balancer_id, dict.fromkeys(references, "listener.a_ref"))
    return load_balancer_id


@pytest.mark.parametrize("kind", ["container", "pkcs12"])
async def test_it_keeps_the_promises(site: Site, driver: BarbicanSecrets, kind: str) -> None:
    authority = TestAuthority()
    good = authority.issue("www.example.org")
    reference = site.container(good) if kind == "container" else site.secret(pkcs12_of(good))
    authorities, lists = site.secret(authority.pem), site.secret(authority.revoke())
    broken = (site.secret(b"-----BEGIN CERTIFICATE-----\nnothing"), site.secret(b"\x30\x82nothing"))
    await name(driver, site, reference, authorities, lists, *broken)
    bench = SecretBench(
        factory=site.driver,
        reference=reference,
        project_id=site.project_id,
        authorities=authorities,
        revocations=lists,
        broken=broken,
    )
    for check in CHECKS:
        assert isinstance(check, Check)
        await check.run(bench)


@pytest.mark.parametrize("kind", ["container", "pkcs12", "pem"])
async def test_what_was_stored_is_read(
    site: Site, driver: BarbicanSecrets, certificate: Certificate, kind: str
) -> None:
    if kind == "container":
        reference = site.container(certificate)
    else:
        whole = certificate.certificate + certificate.private_key + b"".join(certificate.intermediates)
        reference = site.secret(pkcs12_of(certificate) if kind == "pkcs12" else whole)
    await name(driver, site, reference)
    found = await driver.certificate(reference, site.project_id)
    assert found.certificate == certificate.certificate
    assert found.intermediates == certificate.intermediates
    assert found.expires_at is not None


async def test_a_consumer_is_there_while_it_is_used(
    site: Site, driver: BarbicanSecrets, certificate: Certificate
) -> None:
    container, secret = site.container(certificate), site.secret(pkcs12_of(certificate))
    load_balancer_id = await name(driver, site, container, secret)
    await driver.require_access(site.tenant, load_balancer_id, {container: "again", secret: "again"})
    service = f"frontinus-{site.installation}/{site.project_id}"
    url = f"lbaas://{site.installation}/{site.project_id}/loadbalancer/{load_balancer_id}"
    assert site.consumers(container) == [{"name": "frontinus", "URL": url}]
    mark = {"service": service, "resource_type": "LOADBALANCER", "resource_id": load_balancer_id}
    assert site.consumers(secret) == [mark]
    registered = await driver.list_consumers()
    assert {x.reference for x in registered} == {container, secret}
    for consumer in registered * 2:
        await driver.unregister(consumer)
    assert [site.consumers(x) for x in (container, secret, site.certificate_in(container))] == [[], [], []]
    assert await driver.list_consumers() == ()
    with pytest.raises(Invalid, match="no user of this project"):
        await driver.certificate(secret, site.project_id)


async def test_what_the_acl_does_not_allow_is_not_read(
    site: Site, driver: BarbicanSecrets, certificate: Certificate
) -> None:
    hidden = site.secret(pkcs12_of(certificate), readable=False)
    with pytest.raises(Invalid, match=r"listener.a_ref.*openstack acl user add"):
        await name(driver, site, hidden)
    site.allow(hidden)
    await name(driver, site, hidden)
    await driver.changes()
    site.deny(hidden)
    assert hidden in await driver.changes()
    with pytest.raises(Invalid, match="openstack acl user add"):
        await driver.certificate(hidden, site.project_id)
    site.allow(hidden)
    assert hidden in await driver.changes()
    assert (await driver.certificate(hidden, site.project_id)).certificate == certificate.certificate
    site.delete(hidden)
    assert hidden in await driver.changes()
    with pytest.raises(Invalid, match="no such secret"):
        await driver.certificate(hidden, site.project_id)


async def test_a_stranger_who_knows_the_url_may_not_name_it(
    site: Site, driver: BarbicanSecrets, certificate: Certificate
) -> None:
    """Although the owner lets our account read it: a user of another project is asked for with his own token."""
    reference = site.container(certificate)
    stranger = openstack_lab.connect(openstack_lab.ADMIN)
    token, project_id = stranger.session.get_token(), stranger.session.get_project_id()
    assert token
    assert project_id
    tenant = Tenant(project_id=ProjectId(project_id), token=Secret(token))
    with pytest.raises(Invalid, match="may not read it"):
        await driver.require_access(tenant, LoadBalancerId(new_id()), {reference: "listener.default_tls_container_ref"})
    with pytest.raises(Invalid):
        await driver.certificate(reference, tenant.project_id)
    assert site.consumers(reference) == []


async def test_a_token_that_is_none_is_told(site: Site, driver: BarbicanSecrets, certificate: Certificate) -> None:
    reference = site.secret(pkcs12_of(certificate))
    for token, told in ((Secret("nonsense"), "does not accept the token"), (None, "api.auth")):
        tenant = Tenant(project_id=site.project_id, token=token)
        with pytest.raises(Invalid, match=told):
            await driver.require_access(tenant, LoadBalancerId(new_id()), {reference: "listener.a_ref"})


class _Deadly(TCPKeepAliveAdapter):
    """Its user dies just before the request of this number; 0: never. `made` counts."""

    def __init__(self, fatal: int) -> None:
        super().__init__()
        self.fatal, self.made = fatal, 0

    def send(self, *words: Any, **named: Any) -> Any:
        self.made += 1
        if self.made == self.fatal:
            raise Killed
        return super().send(*words, **named)


def dying_driver(site: Site, deadly: _Deadly) -> BarbicanSecrets:
    def connect(settings: OpenStackSettings) -> Connection:
        connection = open_connection(settings)
        sending: Any = connection.session.session
        sending.mount("http://", deadly)
        return connection

    return BarbicanSecrets(site.settings(), connect)


async def test_death_between_any_two_calls_leaves_no_consumer(
    site: Site, driver: BarbicanSecrets, certificate: Certificate
) -> None:
    container = site.container(certificate)
    leaf = site.certificate_in(container)

    async def live(mortal: BarbicanSecrets) -> None:
        consumer = consumer_of(site, container)
        await mortal.register(consumer)
        await mortal.unregister(consumer)

    counting = _Deadly(0)
    whole = dying_driver(site, counting)
    await live(whole)
    await whole.close()
    deaths = 0
    for fatal in range(1, counting.made + 1):
        victim = dying_driver(site, _Deadly(fatal))
        try:
            await live(victim)
        except Killed:
            deaths += 1
        await victim.close()
        # What another controller sees and takes away, since no load balancer uses it.
        for consumer in await driver.list_consumers():
            await driver.unregister(consumer)
        assert (site.consumers(container), site.consumers(leaf)) == ([], [])
    assert deaths == counting.made >= 6


async def test_an_outage_heals(site: Site, certificate: Certificate) -> None:
    """Barbican answers nobody, and then does."""
    reference = site.secret(pkcs12_of(certificate))
    away = [True]

    class Cut(TCPKeepAliveAdapter):
        def send(self, request: Any, *words: Any, **named: Any) -> Any:
            if away[0] and f":{openstack_lab.SERVICES['barbican']}" in request.url:
                with socket.socket() as unheard:
                    unheard.bind(("127.0.0.1", 0))
                    port = unheard.getsockname()[1]
                request.url = f"http://127.0.0.1:{port}/"
            return super().send(request, *words, **named)

    def connect(settings: OpenStackSettings) -> Connection:
        connection = open_connection(settings)
        sending: Any = connection.session.session
        sending.mount("http://", Cut())
        return connection

    driver = BarbicanSecrets(site.settings(), connect)
    try:
        for question in (driver.certificate(reference, site.project_id), driver.list_consumers(), driver.changes()):
            with pytest.raises(Retry) as told:
                await question
            assert told.value.code == "barbican-unavailable"
        away[0] = False
        await name(driver, site, reference)
        assert (await driver.certificate(reference, site.project_id)).certificate == certificate.certificate
    finally:
        await driver.close()
