"""What OpenStack's services say, or do not say, becomes a fault that heals; nothing of openstacksdk's gets out."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
import requests
from keystoneauth1 import exceptions as keystone
from openstack import exceptions as sdk

from frontinus.drivers.openstack.cloud import Cloud, require_whole
from frontinus.drivers.openstack.settings import OpenStackSettings
from frontinus.drivers.openstack.trouble import Refused, is_outage, told
from frontinus.model.breaker import Breaker
from frontinus.model.errors import Bug, Invalid, Retry
from frontinus.store.engine import Store, Transaction

pytestmark = pytest.mark.unit


def answered(status: int, body: object = None) -> Exception:
    """What openstacksdk raises for such an answer."""
    response = requests.Response()
    response.status_code = status
    response._content = json.dumps(body).encode() if body is not None else b"<html>words for people</html>"
    response.headers["content-type"] = "application/json" if body is not None else "text/html"
    response.request = requests.Request("GET", "http://neutron.example/v2.0/ports").prepare()
    try:
        sdk.raise_from_response(response)
    except sdk.HttpException as error:
        return error
    raise AssertionError(status)


NEUTRON_CONFLICT = {"NeutronError": {"type": "IpAddressAlreadyAllocated", "message": "It is in use.", "detail": ""}}
NOVA_FAILURE = {"computeFault": {"code": 500, "message": "Failed to attach network adapter device to 0b9b34a6"}}
NOVA_OUTAGE = {
    "computeFault": {"code": 500, "message": "Unexpected API Error. Please report this. <class 'DBConnectionError'>"}
}


@pytest.mark.parametrize(
    "code,outage,error",
    [
        pytest.param("neutron-unavailable", True, keystone.ConnectFailure("refused"), id="nobody listens"),
        pytest.param("neutron-unavailable", True, keystone.ConnectTimeout("late"), id="no answer in time"),
        pytest.param("neutron-unavailable", True, keystone.SSLError("foreign"), id="a certificate that nobody trusts"),
        pytest.param("neutron-unavailable", True, keystone.EndpointNotFound("none"), id="not in the catalogue"),
        pytest.param("neutron-unavailable", True, keystone.ServiceUnavailable("503"), id="keystone is out of order"),
        pytest.param("neutron-unavailable", True, answered(500), id="500"),
        pytest.param("neutron-unavailable", True, answered(500, NOVA_OUTAGE), id="500 without a reason"),
        pytest.param("neutron-failed", False, answered(500, NOVA_FAILURE), id="one thing cannot be done"),
        pytest.param("neutron-unavailable", True, answered(503, {"message": "later"}), id="503"),
        pytest.param("neutron-unavailable", False, answered(429), id="too many questions"),
        pytest.param("neutron-unavailable", True, requests.ConnectionError("cut"), id="the connection is cut"),
        pytest.param("neutron-forbidden", False, keystone.Unauthorized("who"), id="keystone does not know the account"),
        pytest.param("neutron-forbidden", False, answered(403, {"message": "policy"}), id="the account may not"),
        pytest.param("neutron-refused", False, answered(409, NEUTRON_CONFLICT), id="refused"),
        pytest.param("neutron-refused", False, answered(404), id="refused in words for people"),
        pytest.param(
            "neutron-refused", False, answered(403, {"x": {"message": "Quota exceeded"}}), id="a quota is used up"
        ),
    ],
)
def test_trouble_is_a_fault_that_heals(code: str, outage: bool, error: Exception) -> None:
    ours = told("network", error)
    assert code == ours.code
    assert ours.after > 0
    assert outage == is_outage(error)


def test_a_tenant_is_not_told_where_services_are() -> None:
    at = "http://10.1.2.3:9696/v2.0/ports"
    for error in (keystone.ConnectFailure(f"Unable to establish connection to {at}"), requests.ReadTimeout(at)):
        assert told("network", error).reason == "neutron cannot be asked: it does not answer; it is asked again"
    assert "it answers 503" in told("network", answered(503, {"message": at})).reason
    assert "http" in str(answered(403)), "openstacksdk says where it was"
    assert "http" not in told("network", answered(403)).reason


def test_a_refusal_keeps_the_services_own_word() -> None:
    refused = told("network", answered(409, NEUTRON_CONFLICT))
    assert isinstance(refused, Refused)
    assert (refused.status, refused.kind, refused.detail) == (409, "IpAddressAlreadyAllocated", "It is in use.")


def test_what_one_failure_is_about_is_told() -> None:
    told_of = told("compute", answered(500, NOVA_FAILURE))
    assert (
        told_of.reason == "nova failed at this: Failed to attach network adapter device to 0b9b34a6; it is asked again"
    )
    assert "DBConnectionError" not in told("compute", answered(500, NOVA_OUTAGE)).reason


def test_a_refusal_of_barbican_is_told_in_its_words() -> None:
    refused = told("key_manager", answered(400, {"code": 400, "title": "Bad Request", "description": "No such form."}))
    assert refused.reason == "barbican refused: No such form."


def empty_answer(status: int, headers: dict[str, str]) -> requests.Response:
    response = requests.Response()
    response.status_code, response._content = status, b""
    response.headers.update(headers)
    return response


@pytest.mark.parametrize(
    "status,headers",
    [
        pytest.param(200, {"Content-Type": "application/json"}, id="before its length"),
        pytest.param(201, {}, id="after its status"),
    ],
)
def test_an_answer_that_was_cut_in_its_head_is_no_empty_one(status: int, headers: dict[str, str]) -> None:
    with pytest.raises(requests.ConnectionError) as cut:
        require_whole(empty_answer(status, headers))
    assert told("network", cut.value).code == "neutron-unavailable"


@pytest.mark.parametrize(
    "status,headers",
    [
        pytest.param(200, {"Content-Length": "0"}, id="by its length"),
        pytest.param(202, {"Transfer-Encoding": "chunked"}, id="in chunks"),
        pytest.param(204, {}, id="by its status"),
    ],
)
def test_an_answer_that_says_that_it_is_empty_is_whole(status: int, headers: dict[str, str]) -> None:
    require_whole(empty_answer(status, headers))


def test_the_breaker_leaves_a_failing_service_alone_and_lets_one_try() -> None:
    breaker = Breaker(threshold=2, pause=10)
    breaker.failed(now=0)
    assert breaker.refusal(now=0) is None
    breaker.failed(now=1)
    assert breaker.refusal(now=2) == 9
    assert breaker.refusal(now=11) is None, "after the pause one tries"
    assert breaker.refusal(now=12) == 9, "and no other meanwhile"
    breaker.succeeded()
    assert breaker.refusal(now=12) is None


def test_a_failure_now_and_then_opens_no_breaker() -> None:
    breaker = Breaker(threshold=2, pause=10)
    for now in range(10):
        breaker.failed(now)
        breaker.succeeded()
    assert breaker.refusal(now=10) is None


@pytest.fixture
def unreachable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Cloud]:
    """A cloud whose Keystone is a port at which nobody listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    auth = {"auth_url": f"http://127.0.0.1:{port}/v3", "username": "u", "password": "p", "project_name": "p"}
    entry = {"auth": auth | {"user_domain_name": "Default", "project_domain_name": "Default"}, "region_name": "One"}
    (tmp_path / "clouds.yaml").write_text(json.dumps({"clouds": {"frontinus": entry}}))
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(tmp_path / "clouds.yaml"))
    return lambda: Cloud(OpenStackSettings(retries=0, breaker_threshold=2, breaker_pause=timedelta(seconds=60)))


async def test_an_unreachable_cloud_is_asked_twice_and_then_left_alone(unreachable: Callable[[], Cloud]) -> None:
    """And it is Keystone who is told of, since nobody came to ask Neutron."""
    cloud = unreachable()
    try:
        for words in ("cannot be asked", "cannot be asked", "is left alone"):
            with pytest.raises(Retry, match=f"^keystone.*{words}") as raised:
                await cloud.ask("network", lambda network: list(network.ports()))
            assert raised.value.code == "keystone-unavailable"
    finally:
        await cloud.close()


async def test_no_service_is_asked_where_a_transaction_could_be_open(
    unreachable: Callable[[], Cloud], tmp_path: Path
) -> None:
    """A transaction is a plain function of a thread in which no service can be asked; and it must be one."""
    cloud, store = unreachable(), Store.open(f"sqlite:///{tmp_path / 'db'}")

    async def asks(_: Transaction) -> object:
        return await cloud.ask("network", lambda network: network)

    try:
        with pytest.raises(Bug, match=r"outside of Cloud\.run"):
            await store.read(lambda _: cloud.call("network", lambda network: network))
        for way in (store.read, store.transact):
            with pytest.raises(Bug, match="plain function"):
                _ = await way(asks)
    finally:
        await cloud.close()
        await store.close()


async def test_a_cloud_that_clouds_yaml_does_not_have_is_invalid(unreachable: Callable[[], Cloud]) -> None:
    with pytest.raises(Invalid, match="nowhere") as raised:
        Cloud(OpenStackSettings(cloud="nowhere"))
    assert raised.value.field == "openstack.cloud"


@pytest.mark.parametrize(
    "field,settings",
    [
        pytest.param("cloud", OpenStackSettings(cloud=""), id="no cloud"),
        pytest.param("installation", OpenStackSettings(installation="Über,all"), id="a word that no tag can be"),
        pytest.param("timeout", OpenStackSettings(timeout=timedelta(0)), id="no time"),
        pytest.param("retries", OpenStackSettings(retries=11), id="retries without end"),
        pytest.param("breaker_threshold", OpenStackSettings(breaker_threshold=-1), id="fewer than no failures"),
    ],
)
def test_settings_that_cannot_be_are_named(field: str, settings: OpenStackSettings) -> None:
    with pytest.raises(Invalid) as raised:
        settings.check()
    assert raised.value.field == f"openstack.{field}"
