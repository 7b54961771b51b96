"""What cannot be done is said on the object, with what to do, and heals when the cause goes."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.support import Api, Backend, Installation, free_port, serving, until


def test_port_in_use_is_a_fault_that_heals_and_the_other_listeners_serve(api: Api, backends: list[Backend]) -> None:
    free, taken = free_port(), free_port()
    load_balancer = api.web_load_balancer(backends, free)
    load_balancer_id, vip = load_balancer["id"], load_balancer["vip_address"]
    serving(vip, free)
    pool = load_balancer["pools"][0]["id"]
    with socket.socket() as thief:
        thief.bind((vip, taken))
        thief.listen()
        listener = api.create(
            "listeners",
            "listener",
            loadbalancer_id=load_balancer_id,
            protocol="HTTP",
            protocol_port=taken,
            default_pool_id=pool,
        )
        shown = until(
            lambda: api.show(f"listeners/{listener['id']}", "listener")["fault"], 15, "the listener shows no fault"
        )
        assert shown["code"] == "bind-refused"
        assert str(taken) in shown["message"]
        assert "another program" in shown["message"]
        assert api.show(f"listeners/{listener['id']}", "listener")["provisioning_status"] == "ERROR"
        assert api.settled(load_balancer_id)["fault"]["code"] == "bind-refused"
        serving(vip, free)
    serving(vip, taken)
    until(
        lambda: api.show(f"listeners/{listener['id']}", "listener")["provisioning_status"] == "ACTIVE",
        15,
        "the listener does not heal",
    )
    assert api.load_balancer(load_balancer_id)["fault"] is None


def test_low_port_that_may_not_be_bound_is_a_fault(tmp_path: Path, backends: list[Backend]) -> None:
    """Without the capability to bind ports below 1024, as an ordinary user is; root gives it away by setpriv(1)."""
    wrapper = ("setpriv", "--bounding-set", "-net_bind_service") if os.geteuid() == 0 else ()
    installation = Installation(tmp_path / "state", wrapper=wrapper)
    try:
        installation.start()
        api = installation.api()
        high = free_port()
        load_balancer = api.web_load_balancer(backends, high)
        low = api.create(
            "listeners", "listener", loadbalancer_id=load_balancer["id"], protocol="HTTP", protocol_port=81
        )
        fault = until(lambda: api.show(f"listeners/{low['id']}", "listener")["fault"], 15, "no fault is shown")
        assert fault["code"] == "bind-refused"
        assert "may not bind ports below 1024" in fault["message"]
        assert "ip_unprivileged_port_start" in fault["message"]
        serving(load_balancer["vip_address"], high)
        api.delete(f"listeners/{low['id']}")
        until(lambda: api.load_balancer(load_balancer["id"])["fault"] is None, 15, "the fault outlives its listener")
        assert api.settled(load_balancer["id"])["provisioning_status"] == "ACTIVE"
    finally:
        installation.remove()


def test_missing_haproxy_is_a_fault_that_heals(tmp_path: Path, backends: list[Backend]) -> None:
    """The installation is told to use an haproxy that is not there; then it comes."""
    haproxy = shutil.which("haproxy", path=os.environ["PATH"] + ":/usr/sbin")
    assert haproxy, "haproxy is not installed: make setup"
    missing = tmp_path / "haproxy"
    installation = Installation(
        tmp_path / "state",
        # Seconds until ERROR and between two tries, which are more by default, cost the test its time.
        f"[controller]\nretry_budget = 3\nbackoff_cap = 2\n"
        f'[driver_options.process]\nbalancer = "{missing}"\n[driver_options.haproxy]\nhaproxy_command = "{missing}"\n',
    )
    try:
        installation.start()
        api = installation.api()
        port = free_port()
        load_balancer = api.web_load_balancer(backends, port)
        fault = until(lambda: api.load_balancer(load_balancer["id"])["fault"], 15, "no fault is shown")
        assert fault["code"] == "haproxy-missing"
        assert "apt-get install haproxy" in fault["message"]
        assert fault["permanent"] is False
        until(
            lambda: api.load_balancer(load_balancer["id"])["provisioning_status"] == "ERROR",
            20,
            "a fault that lasts is not reported as ERROR",
        )
        missing.symlink_to(haproxy)
        serving(load_balancer["vip_address"], port, 40)
        until(lambda: api.load_balancer(load_balancer["id"])["provisioning_status"] == "ACTIVE", 20, "it does not heal")
        assert api.load_balancer(load_balancer["id"])["fault"] is None
    finally:
        installation.remove()


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """One for all who change nothing in it."""
    made = Installation(tmp_path_factory.mktemp("untouched") / "state")
    made.start()
    try:
        yield made
    finally:
        made.remove()


@pytest.mark.parametrize(
    "attributes,status",
    [
        pytest.param({"vip_address": "10.1.2.3"}, 400, id="address outside the subnet"),
        pytest.param({"vip_subnet_id": "4a3cfe37-0b7c-4b8e-9d4e-2f0d87a8f0f1"}, 400, id="unknown subnet"),
        pytest.param({"vip_subnet_id": "not-a-uuid"}, 400, id="malformed UUID"),
        pytest.param({"colour": "blue"}, 400, id="unknown attribute"),
        pytest.param({"name": "x" * 256}, 400, id="too long"),
        pytest.param({"provider": "nobody"}, 400, id="unknown provider"),
    ],
)
def test_refused_creates_change_nothing(untouched: Installation, attributes: dict[str, str], status: int) -> None:
    api = untouched.api()
    body = {"loadbalancer": {"vip_subnet_id": api.subnet_id(), **attributes}}
    answered, error = api.call("POST", "/v2/lbaas/loadbalancers", body)
    assert answered == status, error
    assert error["faultcode"] == "Client"
    assert error["faultstring"]
    assert api.show("loadbalancers", "loadbalancers") == []
    vips = untouched.state_dir / "network" / "vips"
    assert not vips.exists() or list(vips.iterdir()) == []
