"""The driver `barbican` with the real Barbican of the lab: it keeps every promise of its interface, what it does is looked
up with openstacksdk behind its back, and its death between any two calls leaves no consumer behind."""

from __future__ import annotations

import socket
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    pkcs7,
    pkcs12,
)
from keystoneauth1.session import TCPKeepAliveAdapter
from msgspec.structs import replace
from openstack.connection import Connection

from frontinus.cli.adopt_secrets import register, sort_by_readable
from frontinus.drivers.amphora.noop import NoopAmphoraDriver
from frontinus.drivers.openstack.settings import OpenStackSettings
from frontinus.drivers.secret.barbican.driver import BarbicanSecrets, BarbicanSettings
from frontinus.model.certificates import Certificate, SecretConsumer
from frontinus.model.enums import ClientAuthentication, ListenerProtocol
from frontinus.model.errors import Invalid, Retry
from frontinus.model.ids import LoadBalancerId, ProjectId, new_id
from frontinus.model.network import Tenant
from frontinus.model.secrets import Secret
from frontinus.model.tree import LoadBalancerTree
from frontinus.testing.certificates import TestAuthority
from frontinus.testing.exam import Check
from frontinus.testing.exam_trees import plain_tree
from frontinus.testing.faults import Killed
from frontinus.testing.secret_conformance import CHECKS, SecretBench

from tests import openstack_lab
from tests.openstack_lab import Deadly, over

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
        return self.container_of(parts_in("pem", certificate), readable=readable)

    def container_of(self, parts: Mapping[str, bytes], *, readable: bool = True) -> str:
        refs = [{"name": k, "secret_ref": self.secret(x, readable=readable)} for k, x in parts.items() if x]
        body = {"name": self.installation, "type": "certificate", "secret_refs": refs}
        reference: str = self.look.key_manager.post("/containers", json=body).json()["container_ref"]
        self.made.append(reference)
        if readable:
            self.allow(reference)
        return reference

    def allow(self, reference: str, *users: str) -> None:
        self.write_acl(reference, self.account, *users)

    def write_acl(self, reference: str, *users: str, project_access: bool = True) -> None:
        body = {"read": {"users": list(users), "project-access": project_access}}
        assert self.look.key_manager.put(f"{path(reference)}/acl", json=body).status_code == 200

    def acl(self, reference: str) -> Any:
        return self.look.key_manager.get(f"{path(reference)}/acl").json()["read"]

    def readers(self, reference: str) -> set[str]:
        return set(self.acl(reference).get("users", ()))

    def deny(self, reference: str) -> None:
        assert self.look.key_manager.delete(f"{path(reference)}/acl").status_code == 200

    def delete(self, reference: str) -> None:
        self.look.key_manager.delete(path(reference))

    def consumers(self, reference: str) -> list[dict[str, str]]:
        headers = {"OpenStack-API-Version": "key-manager 1.1"}
        answer = self.look.key_manager.get(f"{path(reference)}/consumers", headers=headers)
        hidden = {"created", "updated", "status"}
        return [{k: v for k, v in x.items() if k not in hidden} for x in answer.json()["consumers"]]

    def parts_of(self, container: str) -> list[str]:
        return [str(x["secret_ref"]) for x in self.look.key_manager.get(path(container)).json()["secret_refs"]]

    def certificate_in(self, container: str) -> str:
        shown = self.look.key_manager.get(path(container)).json()
        return next(str(x["secret_ref"]) for x in shown["secret_refs"] if x["name"] == "certificate")


def path(reference: str) -> str:
    return "/" + "/".join(reference.rsplit("/", 2)[1:])


def parts_in(form: str, certificate: Certificate) -> dict[str, bytes]:
    """The secrets of a certificate container."""
    leaf, key, chain = certificate.certificate, certificate.private_key, certificate.intermediates
    intermediates = [x509.load_pem_x509_certificate(x) for x in chain]
    encoding = Encoding.DER if form.endswith("der") else Encoding.PEM
    if encoding is Encoding.DER:
        leaf = x509.load_pem_x509_certificate(leaf).public_bytes(encoding)
        key = load_pem_private_key(key, None).private_bytes(encoding, PrivateFormat.PKCS8, NoEncryption())
    if form.startswith("pkcs7"):
        together = pkcs7.serialize_certificates(intermediates, encoding)
    else:
        together = b"".join(x.public_bytes(encoding) for x in intermediates)
    return {"certificate": leaf, "private_key": key, "intermediates": together}


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


@pytest.mark.parametrize("kind", ["container", "secret"])
async def test_whoever_may_write_the_acl_lets_our_account_in_by_naming_it(
    site: Site, driver: BarbicanSecrets, certificate: Certificate, kind: str
) -> None:
    """As with Octavia: nobody types `openstack acl user add`. What the ACL said before, it says still."""
    if kind == "container":
        reference = site.container(certificate, readable=False)
        places = [reference, *site.parts_of(reference)]
    else:
        reference = site.secret(pkcs12_of(certificate), readable=False)
        places = [reference]
    friend = uuid4().hex
    site.write_acl(places[-1], friend)
    await name(driver, site, reference)
    assert [site.readers(x) for x in places] == [{site.account}] * (len(places) - 1) + [{site.account, friend}]
    assert (await driver.certificate(reference, site.project_id)).certificate == certificate.certificate


async def test_a_private_secret_stays_private_to_its_creator_and_us(
    site: Site, driver: BarbicanSecrets, certificate: Certificate
) -> None:
    hidden = site.secret(pkcs12_of(certificate), readable=False)
    site.write_acl(hidden, project_access=False)
    await name(driver, site, hidden)
    assert site.acl(hidden)["project-access"] is False
    assert site.readers(hidden) == {site.account}


async def test_what_a_stranger_may_read_and_not_write_the_acl_of_needs_the_owner(
    site: Site, driver: BarbicanSecrets, certificate: Certificate
) -> None:
    reference = site.secret(pkcs12_of(certificate), readable=False)
    stranger = openstack_lab.connect(openstack_lab.ADMIN)
    token, project_id, user_id = (
        stranger.session.get_token(),
        stranger.session.get_project_id(),
        stranger.session.get_user_id(),
    )
    assert token
    assert project_id
    assert user_id
    tenant = Tenant(project_id=ProjectId(project_id), token=Secret(token))
    asked = tenant, LoadBalancerId(new_id()), {reference: "listener.default_tls_container_ref"}
    site.write_acl(reference, user_id)
    with pytest.raises(Invalid, match=r"listener.default_tls_container_ref.*openstack acl user add"):
        await driver.require_access(*asked)
    assert site.readers(reference) == {user_id}
    site.allow(reference, user_id)
    await driver.require_access(*asked)
    assert (await driver.certificate(reference, tenant.project_id)).certificate == certificate.certificate


async def test_what_barbican_will_not_do_is_told_of_the_field(site: Site, driver: BarbicanSecrets) -> None:
    """A secret without content: 404 of its payload; and one that Barbican cannot show in any form."""
    empty: str = site.look.key_manager.post("/secrets", json={"name": site.installation}).json()["secret_ref"]
    site.made.append(empty)
    with pytest.raises(Invalid, match=r"^listener.a_ref"):
        await name(driver, site, empty)


async def test_access_that_is_taken_back_is_noticed(
    site: Site, driver: BarbicanSecrets, certificate: Certificate
) -> None:
    hidden = site.secret(pkcs12_of(certificate))
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


@pytest.mark.parametrize("form", ["der", "pkcs7 pem", "pkcs7 der", "base64 pkcs12"])
async def test_every_form_in_which_clients_store_is_read(
    site: Site, driver: BarbicanSecrets, certificate: Certificate, form: str
) -> None:
    if form == "base64 pkcs12":
        reference = site.secret(b64encode(pkcs12_of(certificate)))
    else:
        reference = site.container_of(parts_in(form, certificate))
    await name(driver, site, reference)
    found = await driver.certificate(reference, site.project_id)
    assert (found.certificate, found.intermediates) == (certificate.certificate, certificate.intermediates)


async def test_adoption_looks_without_a_record_of_ours_and_then_makes_one(
    site: Site, driver: BarbicanSecrets, certificate: Certificate
) -> None:
    reference, authorities, hidden = (
        site.secret(pkcs12_of(certificate)),
        site.secret(TestAuthority().pem),
        site.secret(pkcs12_of(certificate), readable=False),
    )
    good = tree_with(
        site,
        default_tls_container_ref=reference,
        client_ca_tls_container_ref=authorities,
        client_authentication=ClientAuthentication.MANDATORY,
    )
    others = [tree_with(site, default_tls_container_ref=x) for x in (authorities, hidden)]
    readable, left = await sort_by_readable([good, *others], driver)
    assert readable == [good]
    assert [x.id for x in left] == [x.id for x in others]
    assert ["holds no private key" in left[0].reason, "openstack acl user add" in left[1].reason] == [True, True]
    assert [site.consumers(x) for x in (reference, authorities, hidden)] == [[], [], []]
    for _ in range(2):
        await register(good, driver)
    assert [len(site.consumers(x)) for x in (reference, authorities, hidden)] == [1, 1, 0]
    assert (await driver.certificate(reference, site.project_id)).certificate == certificate.certificate


def tree_with(site: Site, **references: str) -> LoadBalancerTree:
    """A load balancer of the site's project with one listener that uses these."""
    tree = plain_tree(NoopAmphoraDriver.capabilities, "192.0.2.1", 443)
    return replace(
        tree,
        load_balancer=replace(tree.load_balancer, project_id=site.project_id),
        listeners=tuple(replace(x, protocol=ListenerProtocol.TERMINATED_HTTPS, **references) for x in tree.listeners),
    )


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


async def test_death_between_any_two_calls_leaves_no_consumer(
    site: Site, driver: BarbicanSecrets, certificate: Certificate
) -> None:
    """And lets in nobody but us: from a user's naming it, by which its ACL and those of its parts name us, to its end."""
    container = site.container(certificate, readable=False)
    leaf, places = site.certificate_in(container), [container, *site.parts_of(container)]

    async def live(mortal: BarbicanSecrets) -> None:
        for reference in places:
            site.deny(reference)
        consumer = consumer_of(site, container)
        await mortal.require_access(site.tenant, consumer.load_balancer_id, {container: "listener.a_ref"})
        await mortal.register(consumer)
        await mortal.unregister(consumer)

    counting = Deadly(0)
    whole = BarbicanSecrets(site.settings(), over(counting))
    await live(whole)
    await whole.close()
    deaths = 0
    for fatal in range(1, counting.made + 1):
        victim = BarbicanSecrets(site.settings(), over(Deadly(fatal)))
        try:
            await live(victim)
        except Killed:
            deaths += 1
        await victim.close()
        assert all(site.readers(x) <= {site.account} for x in places)
        await name(driver, site, container)
        assert [site.readers(x) for x in places] == [{site.account}] * len(places), f"after call {fatal}"
        # What another controller sees and takes away, since no load balancer uses it.
        for consumer in await driver.list_consumers():
            await driver.unregister(consumer)
        assert (site.consumers(container), site.consumers(leaf)) == ([], [])
    assert deaths == counting.made >= 6 + 2 * len(places), "an ACL is read and written"


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

    driver = BarbicanSecrets(site.settings(), over(Cut()))
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
