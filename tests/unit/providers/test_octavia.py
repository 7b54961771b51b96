"""What a driver of octavia-lib is handed, what its errors become, and the sockets by which it speaks."""

from __future__ import annotations

import asyncio
import json
from hashlib import sha1
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from octavia_lib.api.drivers import data_models, driver_lib, exceptions, provider_base

from frontinus.drivers.provider.octavia import OctaviaProvider, foreign_of
from frontinus.drivers.provider.sockets import LOOKUP, STATISTICS, STATUS, DriverAgent
from frontinus.drivers.provider.views import view
from frontinus.model.capabilities import Foreign
from frontinus.model.certificates import Authorities, Revocations, Secrets
from frontinus.model.enums import ClientAuthentication, ListenerProtocol
from frontinus.model.errors import Conflict, FrontinusError, Retry, Unsupported
from frontinus.model.offer_questions import Offered, OfferQuestion, Verdict
from frontinus.model.provider_calls import failover_of, next_call
from frontinus.model.tree import LoadBalancerTree
from frontinus.testing.certificates import TestAuthority

from tests.unit.providers.test_provider_calls import WHOLE, walk


class Takes(provider_base.ProviderDriver):  # type: ignore[misc]
    """Notes every call."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, tuple[Any, ...]]] = []

    def __getattribute__(self, name: str) -> Any:
        if name.startswith(("loadbalancer_", "listener_", "pool_", "member_", "health_", "l7", "create_vip")):
            return lambda *arguments: self.taken.append((name, arguments))
        return super().__getattribute__(name)


async def test_a_driver_is_handed_octavias_models() -> None:
    driver = Takes()
    provider = OctaviaProvider("exam", driver, "1")
    for call in walk(None, WHOLE):
        await provider.call(call)
    taken = dict(driver.taken)
    load_balancer = WHOLE.load_balancer
    assert [name for name, _ in driver.taken][:3] == ["create_vip_port", "loadbalancer_create", "pool_create"]
    _id, _project, vip, additional = taken["create_vip_port"]
    assert (vip["vip_address"], additional) == (load_balancer.vip.address, [])
    (made,) = taken["loadbalancer_create"]
    assert isinstance(made, data_models.LoadBalancer)
    assert (made.loadbalancer_id, made.listeners, made.flavor) == (load_balancer.id, data_models.Unset, {})
    (listener,) = taken["listener_create"]
    assert (listener.protocol, listener.l7policies, listener.default_pool) == ("HTTP", [], None)
    pool_id, members = taken["member_batch_update"]
    assert (pool_id, {x.member_id for x in members}) == (WHOLE.pools[0].id, {x.id for x in WHOLE.members})


async def test_an_update_has_the_whole_old_object_and_what_is_new() -> None:
    driver = Takes()
    wanted = replace(WHOLE, pools=(replace(WHOLE.pools[0], name="other"),))
    for call in walk(WHOLE, wanted):
        await OctaviaProvider("exam", driver, "1").call(call)
    ((name, (old, new)),) = driver.taken
    assert name == "pool_update"
    assert {x.member_id for x in old.members} == {x.id for x in WHOLE.members}
    assert isinstance(old.healthmonitor, data_models.HealthMonitor)
    assert new.to_dict() == {"pool_id": WHOLE.pools[0].id, "name": "other"}


async def test_a_driver_is_handed_certificates_and_not_only_their_names() -> None:
    authority = TestAuthority()
    site, other, client = (
        authority.issue("www.example.org"),
        authority.issue("b.example.org"),
        authority.issue("client"),
    )
    secrets = Secrets(
        certificates={"site": site, "other": other, "client": client},
        authorities={"ca": Authorities(certificates=(authority.pem,))},
        revocations={"crl": Revocations(lists=(authority.revoke(other),))},
    )
    listener = replace(
        WHOLE.listeners[0],
        protocol=ListenerProtocol.TERMINATED_HTTPS,
        default_tls_container_ref="site",
        sni_container_refs=("other",),
        client_ca_tls_container_ref="ca",
        client_crl_container_ref="crl",
        client_authentication=ClientAuthentication.MANDATORY,
        tls_versions=("TLSv1.2", "TLSv1.3"),
        hsts_max_age=300,
    )
    pool = replace(WHOLE.pools[0], tls_enabled=True, tls_container_ref="client", ca_tls_container_ref="ca")
    wanted = replace(WHOLE, listeners=(listener,), pools=(pool,))
    driver = Takes()
    provider = OctaviaProvider("exam", driver, "1")
    for call in walk(None, wanted):
        await provider.call(call, secrets)
    taken = dict(driver.taken)
    (made,) = taken["listener_create"]
    assert made.default_tls_container_data == {
        "id": sha1(site.certificate).hexdigest(),
        "primary_cn": "www.example.org",
        "certificate": site.certificate.decode(),
        "private_key": site.private_key.decode(),
        "passphrase": None,
        "intermediates": [x.decode() for x in site.intermediates],
    }
    assert [x["primary_cn"] for x in made.sni_container_data] == ["b.example.org"]
    assert made.client_ca_tls_container_data == authority.pem.decode()
    assert made.client_crl_container_data.startswith("-----BEGIN X509 CRL-----")
    assert (made.client_authentication, made.tls_versions, made.hsts_max_age) == (
        "MANDATORY",
        ["TLSv1.2", "TLSv1.3"],
        300,
    )
    (with_tls,) = taken["pool_create"]
    assert with_tls.tls_container_data["private_key"] == client.private_key.decode()
    assert with_tls.ca_tls_container_data == authority.pem.decode()

    driver.taken.clear()
    renewed = replace(wanted, listeners=(replace(listener, default_tls_container_ref="other"),))
    for call in walk(wanted, renewed):
        await provider.call(call, secrets)
    ((_, (old, new)),) = driver.taken
    assert old.default_tls_container_data["primary_cn"] == "www.example.org"
    assert {"default_tls_container_ref", "default_tls_container_data", "listener_id"} == {
        x for x, value in vars(new).items() if value is not data_models.Unset and not x.startswith("_")
    }


async def test_a_cascade_has_the_tree() -> None:
    driver = Takes()
    for call in walk(WHOLE, None):
        await OctaviaProvider("exam", driver, "1").call(call)
    ((name, (gone, cascade)),) = driver.taken
    assert (name, cascade) == ("loadbalancer_delete", True)
    assert gone.listeners[0].default_pool.members[0].address == WHOLE.members[0].address


@pytest.mark.parametrize(
    "raised, expected, told",
    [
        pytest.param(
            exceptions.UnsupportedOptionError(user_fault_string="no UDP", operator_fault_string="x"),
            Unsupported,
            "no UDP",
            id="unsupported option",
        ),
        pytest.param(
            exceptions.NotImplementedError(user_fault_string="no L7", operator_fault_string="x"),
            Unsupported,
            "no L7",
            id="not implemented",
        ),
        pytest.param(NotImplementedError(), Unsupported, "does not do", id="Python's own"),
        pytest.param(
            exceptions.Conflict(user_fault_string="taken", operator_fault_string="x"), Conflict, "taken", id="conflict"
        ),
        pytest.param(
            exceptions.DriverError(user_fault_string="on fire", operator_fault_string="x"), Retry, "on fire", id="error"
        ),
        pytest.param(ZeroDivisionError("division"), Retry, "division", id="a bug of the driver's"),
    ],
)
async def test_what_a_driver_raises_names_the_object(
    raised: Exception, expected: type[FrontinusError], told: str
) -> None:
    class Refuses(provider_base.ProviderDriver):  # type: ignore[misc]
        def loadbalancer_delete(self, loadbalancer: Any, cascade: bool = False) -> None:
            raise raised

    call = next_call(WHOLE, None)
    assert call is not None
    with pytest.raises(expected) as caught:
        await OctaviaProvider("exam", Refuses(), "1").call(call)
    assert told in str(caught.value)
    assert caught.value.subject is not None
    assert caught.value.subject.id == WHOLE.id


async def test_the_library_of_drivers_speaks_to_our_sockets(tmp_path: Path) -> None:
    heard: list[dict[str, Any]] = []

    async def status(request: dict[str, Any]) -> dict[str, Any]:
        heard.append(request)
        bad = request.get("pools") == [{"id": "bad"}]
        return {"status_code": 500, "fault_string": "no such pool"} if bad else {"status_code": 200}

    async def lookup(request: dict[str, Any]) -> Any:
        pool = WHOLE.pools[0]
        return view(pool, WHOLE).to_dict(recurse=True, render_unsets=True) if request["id"] == pool.id else {}

    agent = DriverAgent(tmp_path / "agent", {STATUS: status, STATISTICS: status, LOOKUP: lookup})
    await agent.start()
    try:
        library = await asyncio.to_thread(driver_lib.DriverLibrary, *agent.paths)
        report = {"loadbalancers": [{"id": "x" * 70_000, "provisioning_status": "ACTIVE"}]}
        await asyncio.to_thread(library.update_loadbalancer_status, report)
        assert heard == [report]
        with pytest.raises(exceptions.UpdateStatusError):
            await asyncio.to_thread(library.update_loadbalancer_status, {"pools": [{"id": "bad"}]})
        pool = await asyncio.to_thread(library.get_pool, WHOLE.pools[0].id)
        assert (pool.pool_id, pool.members[0]["address"]) == (WHOLE.pools[0].id, WHOLE.members[0].address)
        assert await asyncio.to_thread(library.get_pool, "unknown") is None
    finally:
        await agent.close()
    assert list((tmp_path / "agent").iterdir()) == []


@pytest.mark.parametrize(
    "sent", [b"", b"5\n{}", b"x\n{}", b"-1\n", b"2\n[]", b"99999999999999\n", b"3\n{x}"], ids=lambda x: repr(x[:12])
)
async def test_nonsense_is_not_answered_and_ends_nothing(tmp_path: Path, sent: bytes) -> None:
    async def answer(request: dict[str, Any]) -> dict[str, Any]:
        return {"status_code": 200}

    agent = DriverAgent(tmp_path / "agent", {STATUS: answer})
    await agent.start()
    try:
        assert await _exchange(agent.paths[0], sent) == b""
        good = json.dumps({"members": []}).encode()
        assert (await _exchange(agent.paths[0], b"%d\n%b" % (len(good), good))).endswith(b'{"status_code": 200}')
    finally:
        await agent.close()


async def _exchange(path: str, sent: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(sent)
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    return answer


class Choosy(Takes):
    """Has flavors, and no availability zones; fails over."""

    def get_supported_flavor_metadata(self) -> dict[str, str]:
        return {"size": "How large."}

    def validate_flavor(self, flavor_metadata: dict[str, Any]) -> None:
        if flavor_metadata.get("size") == "broken":
            raise exceptions.DriverError(user_fault_string="no answer from the appliance", operator_fault_string="x")
        if set(flavor_metadata) != {"size"}:
            raise exceptions.UnsupportedOptionError(user_fault_string="only size", operator_fault_string="x")

    def loadbalancer_failover(self, loadbalancer_id: str) -> None:
        """Taken down, as all calls are."""


class Mute(provider_base.ProviderDriver):  # type: ignore[misc]
    """Does nothing of its own, and breaks when it is asked what it takes."""

    def get_supported_flavor_metadata(self) -> dict[str, str]:
        raise RuntimeError("not today")


@pytest.mark.parametrize(
    "driver,foreign",
    [
        pytest.param(Choosy(), Foreign(flavor_words={"size": "How large."}, fails_over=True), id="some"),
        pytest.param(Mute(), Foreign(), id="nothing"),
        pytest.param(object(), Foreign(), id="not even the methods"),
    ],
)
def test_a_driver_is_asked_what_it_takes(driver: object, foreign: Foreign) -> None:
    assert foreign == foreign_of(driver)


@pytest.mark.parametrize(
    "verdict,words,question",
    [
        pytest.param(Verdict.TAKEN, "", OfferQuestion(flavor={"size": 1}), id="taken"),
        pytest.param(Verdict.UNSUPPORTED, "only size", OfferQuestion(flavor={"speed": 1}), id="in its words"),
        pytest.param(
            Verdict.TROUBLE, "no answer from the appliance", OfferQuestion(flavor={"size": "broken"}), id="in trouble"
        ),
        pytest.param(
            Verdict.UNSUPPORTED, "This provider does not support", OfferQuestion(zone={"place": 1}), id="no zones"
        ),
        pytest.param(Verdict.TAKEN, "", OfferQuestion(), id="about neither"),
    ],
)
async def test_a_driver_judges_offers(verdict: Verdict, words: str, question: OfferQuestion) -> None:
    answer = await OctaviaProvider("exam", Choosy(), "1").judge(question)
    assert (answer.verdict, words in answer.words) == (verdict, True), answer


async def test_a_whole_load_balancer_is_told_its_flavor_and_zone_and_a_difference_is_not() -> None:
    driver = Takes()
    provider, offered = OctaviaProvider("exam", driver, "1"), Offered(flavor={"size": 2}, zone={"place": "b"})
    alone = LoadBalancerTree(load_balancer=WHOLE.load_balancer)
    renamed = replace(alone, load_balancer=replace(alone.load_balancer, name="other"))
    for settled, wanted in ((None, alone), (alone, renamed), (alone, None)):
        call = next_call(settled, wanted)
        assert call is not None
        await provider.call(call, offered=offered)
    taken = dict(driver.taken)
    (made,), (old, new), (gone,) = (taken[f"loadbalancer_{x}"] for x in ("create", "update", "delete"))
    for whole in (made, old, gone):
        assert (whole.flavor, whole.availability_zone) == ({"size": 2}, {"place": "b"})
    assert new.to_dict() == {"loadbalancer_id": alone.load_balancer.id, "name": "other"}


async def test_a_failover_names_the_load_balancer() -> None:
    driver = Takes()
    await OctaviaProvider("exam", driver, "1").call(failover_of(WHOLE))
    assert driver.taken == [("loadbalancer_failover", (WHOLE.load_balancer.id,))]
