"""A reference to a secret is looked at when it is asked for: there, readable by the project, and of the right kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from frontinus.api.app import create_app
from frontinus.api.settings import ApiSettings
from frontinus.model.certificates import Authorities, Certificate, Revocations, SecretKind
from frontinus.model.errors import Invalid, Retry
from frontinus.model.ids import LoadBalancerId, ProjectId
from frontinus.model.network import Tenant
from frontinus.testing.certificates import TestAuthority
from frontinus.testing.fake_secret import FakeSecrets

from tests.integration.api.world import SUBNET_ID, Answer, World

pytestmark = pytest.mark.integration


@pytest.fixture
async def secrets(world: World) -> FakeSecrets:
    """A store, and a load balancer beside whose project another has secrets too."""
    made = FakeSecrets()
    world.app = create_app(world.store, world.network, ApiSettings(), world.clock, secrets=made)
    load_balancer = await world.make("loadbalancer", vip_subnet_id=SUBNET_ID)
    world.ids["lb"], project = load_balancer["id"], ProjectId(load_balancer["project_id"])
    authority = TestAuthority()
    made.store[project, "cert"] = authority.issue("www.example.org")
    made.store[project, "ca"] = Authorities(certificates=(authority.pem,))
    other, namesake = TestAuthority("another"), TestAuthority(authority.name)
    made.store[project, "crl"] = Revocations(lists=(authority.revoke(),))
    made.store[project, "other ca"] = Authorities(certificates=(other.pem,))
    made.store[project, "both ca"] = Authorities(certificates=(other.pem, authority.pem))
    made.store[project, "other crl"] = Revocations(lists=(other.revoke(),))
    made.store[project, "namesake crl"] = Revocations(lists=(namesake.revoke(),))
    made.store[project, "mixed crl"] = Revocations(lists=(authority.revoke(), other.revoke()))
    made.store[ProjectId("another"), "theirs"] = authority.issue("www.example.org")
    return made


@pytest.mark.parametrize(
    "fields, named",
    [
        pytest.param({}, None, id="right"),
        pytest.param({"sni_container_refs": ["cert"]}, None, id="right SNI"),
        pytest.param({"client_ca_tls_container_ref": "ca", "client_crl_container_ref": "crl"}, None, id="all kinds"),
        pytest.param({"default_tls_container_ref": "nowhere"}, "default_tls_container_ref", id="unknown"),
        pytest.param({"default_tls_container_ref": "theirs"}, "default_tls_container_ref", id="another project's"),
        pytest.param({"default_tls_container_ref": "ca"}, "default_tls_container_ref", id="no key"),
        pytest.param({"sni_container_refs": ["cert", "nowhere"]}, "sni_container_refs", id="second of a list"),
        pytest.param({"client_ca_tls_container_ref": "crl"}, "client_ca_tls_container_ref", id="no authority"),
        pytest.param(
            {"client_ca_tls_container_ref": "ca", "client_crl_container_ref": "ca"},
            "client_crl_container_ref",
            id="no list",
        ),
    ],
)
async def test_listener_references(
    world: World, secrets: FakeSecrets, fields: dict[str, object], named: str | None
) -> None:
    asked = {"protocol": "TERMINATED_HTTPS", "protocol_port": 443, "default_tls_container_ref": "cert", **fields}
    answer = await world.call("POST", "listeners", {"listener": {"loadbalancer_id": world.ids["lb"], **asked}})
    assert answer.status == (201 if named is None else 400), answer.body
    if named is not None:
        assert named in answer.fault
        assert "PRIVATE" not in answer.fault
    # The same over the whole tree in one call.
    whole = {"loadbalancer": {"vip_subnet_id": SUBNET_ID, "listeners": [asked]}}
    in_effect = named in (None, "default_tls_container_ref", "sni_container_refs")
    if in_effect:
        assert (await world.call("POST", "loadbalancers", whole)).status == (201 if named is None else 400)


async def test_an_update_is_looked_at_too(world: World, secrets: FakeSecrets) -> None:
    asked = {"protocol": "TERMINATED_HTTPS", "protocol_port": 443, "default_tls_container_ref": "cert"}
    listener = await world.make("listener", loadbalancer_id=world.ids["lb"], **asked)
    path = f"listeners/{listener['id']}"
    refused = await world.call("PUT", path, {"listener": {"default_tls_container_ref": "nowhere"}})
    assert refused.status == 400
    assert (await world.call("PUT", path, {"listener": {"name": "other"}})).status == 200
    secrets.store.clear()
    assert (await world.call("PUT", path, {"listener": {"name": "third"}})).status == 200, "it does not name the secret"


async def test_pool_references(world: World, secrets: FakeSecrets) -> None:
    pool = {"loadbalancer_id": world.ids["lb"], "protocol": "HTTP", "lb_algorithm": "ROUND_ROBIN", "tls_enabled": True}
    good = {"tls_container_ref": "cert", "ca_tls_container_ref": "ca", "crl_container_ref": "crl"}
    made = await world.call("POST", "pools", {"pool": {**pool, **good}})
    assert made.status == 201, made.body
    for field in good:
        answer = await world.call("POST", "pools", {"pool": {**pool, **good, field: "nowhere"}})
        assert (answer.status, field in answer.fault) == (400, True)


async def test_a_store_out_of_reach_is_503(world: World, secrets: FakeSecrets) -> None:
    secrets.faults.fail("secret", 1, error=Retry("the store sleeps", after=3))
    asked = {"protocol": "TERMINATED_HTTPS", "protocol_port": 443, "default_tls_container_ref": "cert"}
    answer = await world.call("POST", "listeners", {"listener": {"loadbalancer_id": world.ids["lb"], **asked}})
    assert answer.status == 503


@pytest.mark.parametrize(
    "authorities, lists, fits",
    [
        pytest.param("ca", "crl", True, id="its own"),
        pytest.param("both ca", "crl", True, id="one of two authorities"),
        pytest.param("both ca", "mixed crl", True, id="two of two"),
        pytest.param("cert", "crl", False, id="beside a certificate that it has signed"),
        pytest.param("ca", "other crl", False, id="another authority's"),
        pytest.param("ca", "namesake crl", False, id="of the same name, by another key"),
        pytest.param("ca", "mixed crl", False, id="one of two lists"),
    ],
)
@pytest.mark.parametrize("kind", ["listener", "pool"])
async def test_a_revocation_list_is_of_the_authority_beside_it(
    world: World, secrets: FakeSecrets, kind: str, authorities: str, lists: str, fits: bool
) -> None:
    """However the two come together: at once, one after the other, or in a whole tree."""
    if kind == "listener":
        asked: dict[str, Any] = {"protocol": "TERMINATED_HTTPS", "protocol_port": 443}
        asked["default_tls_container_ref"] = "cert"
        ca, crl = "client_ca_tls_container_ref", "client_crl_container_ref"
        asked["client_authentication"] = "MANDATORY"
    else:
        asked = {"protocol": "HTTP", "lb_algorithm": "ROUND_ROBIN", "tls_enabled": True}
        ca, crl = "ca_tls_container_ref", "crl_container_ref"
    beside = {"loadbalancer_id": world.ids["lb"]}

    def judge(answer: Answer, *, made: int) -> None:
        assert answer.status == (made if fits else 400), answer.body
        assert fits or f"{kind}.{crl}" in answer.fault, answer.fault

    judge(await world.call("POST", f"{kind}s", {kind: {**asked, **beside, ca: authorities, crl: lists}}), made=201)
    whole = {"vip_subnet_id": SUBNET_ID, f"{kind}s": [{**asked, "name": "x", ca: authorities, crl: lists}]}
    judge(await world.call("POST", "loadbalancers", {"loadbalancer": whole}), made=201)
    if kind == "listener":
        asked |= {"protocol_port": 444, "client_authentication": "NONE"}
    one = await world.make(kind, **asked, **beside)
    path = f"{kind}s/{one['id']}"
    judge(await world.call("PUT", path, {kind: {ca: authorities, crl: lists}}), made=200)
    assert (await world.call("PUT", path, {kind: {ca: authorities, crl: None}})).status == 200
    judge(await world.call("PUT", path, {kind: {crl: lists}}), made=200)


async def test_an_authority_may_not_be_taken_from_under_its_list(world: World, secrets: FakeSecrets) -> None:
    pool = {"protocol": "HTTP", "lb_algorithm": "ROUND_ROBIN", "ca_tls_container_ref": "ca", "crl_container_ref": "crl"}
    made = await world.make("pool", loadbalancer_id=world.ids["lb"], **pool)
    refused = await world.call("PUT", f"pools/{made['id']}", {"pool": {"ca_tls_container_ref": "other ca"}})
    assert (refused.status, "pool.crl_container_ref" in refused.fault) == (400, True), refused.body
    wider = await world.call("PUT", f"pools/{made['id']}", {"pool": {"ca_tls_container_ref": "both ca"}})
    assert wider.status == 200, wider.body


async def test_a_secret_that_is_named_a_thousand_times_is_read_once(world: World, secrets: FakeSecrets) -> None:
    asked = {"protocol": "TERMINATED_HTTPS", "protocol_port": 443, "sni_container_refs": ["cert"] * 1000}
    answer = await world.call("POST", "listeners", {"listener": {"loadbalancer_id": world.ids["lb"], **asked}})
    assert answer.status == 409
    assert secrets.faults.calls["secret"] == 1
    listeners = [{**asked, "protocol_port": port, "sni_container_refs": ["cert"]} for port in range(1, 101)]
    whole = {"loadbalancer": {"vip_subnet_id": SUBNET_ID, "listeners": listeners}}
    assert (await world.call("POST", "loadbalancers", whole)).status == 201
    assert secrets.faults.calls["secret"] == 2


class Selective(FakeSecrets):
    """Knows who may read what before it reads; `asked` is what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[Tenant, LoadBalancerId, dict[str, str]]] = []
        self.shown: list[str] = []

    async def shown_to(
        self, tenant: Tenant, kind: SecretKind, reference: str
    ) -> Certificate | Authorities | Revocations:
        self.shown.append(reference)
        return await super().shown_to(tenant, kind, reference)

    async def require_access(
        self, tenant: Tenant, load_balancer_id: LoadBalancerId, references: Mapping[str, str]
    ) -> None:
        self.asked.append((tenant, load_balancer_id, dict(references)))
        for reference, field in references.items():
            if reference == "hidden":
                raise Invalid(field, f"{reference}: the project may not read it")


async def test_the_store_is_asked_for_the_user_before_it_is_read(world: World, secrets: FakeSecrets) -> None:
    selective = Selective()
    selective.store = secrets.store
    world.app = create_app(world.store, world.network, ApiSettings(), world.clock, secrets=selective)
    asked = {"protocol": "TERMINATED_HTTPS", "protocol_port": 443, "default_tls_container_ref": "cert"}
    listener: dict[str, object] = {"loadbalancer_id": world.ids["lb"], **asked}
    refused = await world.call("POST", "listeners", {"listener": {**listener, "sni_container_refs": ["hidden"]}})
    assert refused.status == 400
    assert "sni_container_refs: hidden" in refused.fault
    made = await world.make("listener", **listener)
    tenant = Tenant(project_id=ProjectId(made["project_id"]))
    _, load_balancer_id, references = selective.asked[-1]
    assert (tenant, world.ids["lb"], ["cert"]) == (selective.asked[-1][0], load_balancer_id, list(references))


async def test_a_dry_run_lets_nobody_in(world: World, secrets: FakeSecrets) -> None:
    """The user is shown himself what he names, so that it is judged; what he does not name is read as ever."""
    selective = Selective()
    selective.store = secrets.store
    world.app = create_app(world.store, world.network, ApiSettings(), world.clock, secrets=selective)
    asked = {"protocol": "TERMINATED_HTTPS", "protocol_port": 443, "default_tls_container_ref": "cert"}
    listener: dict[str, object] = {"loadbalancer_id": world.ids["lb"], **asked}
    for path, body in (
        ("listeners", {"listener": listener}),
        ("loadbalancers", {"loadbalancer": {"vip_subnet_id": SUBNET_ID, "listeners": [asked]}}),
    ):
        tried = await world.call("POST", f"{path}?dry_run=true", body)
        assert tried.status == 200, tried.body
    assert (selective.asked, selective.shown) == ([], ["cert", "cert"])
    wrong = await world.call("POST", "listeners?dry_run=true", {"listener": {**listener, "sni_container_refs": ["ca"]}})
    assert (wrong.status, "sni_container_refs" in wrong.fault) == (400, True), wrong.body

    pool = {"protocol": "HTTP", "lb_algorithm": "ROUND_ROBIN", "ca_tls_container_ref": "ca"}
    made = await world.make("pool", loadbalancer_id=world.ids["lb"], **pool)
    selective.asked.clear()
    selective.shown.clear()
    tried = await world.call("PUT", f"pools/{made['id']}?dry_run=true", {"pool": {"crl_container_ref": "crl"}})
    assert tried.status == 200, tried.body
    assert (selective.asked, set(selective.shown)) == ([], {"crl"})
