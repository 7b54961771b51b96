"""A provider driver in the style of octavia-lib, unchanged, in a process of its own: examples/provider, installed by pip."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from frontinus.testing.certificates import TestAuthority, bundle

from tests.acceptance.fleet import Fleet
from tests.acceptance.support import COMMAND, Api, free_port, until
from tests.servers import Postgresql

EXAMPLE = Path(__file__).parents[2] / "examples" / "provider"


@pytest.fixture
def register(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of the registrar, which is installed as its vendor would have it."""
    shutil.copytree(EXAMPLE, tmp_path / "source")
    site = tmp_path / "site"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    command += ["--no-deps", "--no-build-isolation", "--target", str(site), str(tmp_path / "source")]
    subprocess.run(command, check=True, timeout=100)
    directory = tmp_path / "register"
    directory.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(site))
    monkeypatch.setenv("REGISTRAR_DIR", str(directory))
    return directory


@pytest.fixture
def fleet(tmp_path: Path, register: Path) -> Iterator[Fleet]:
    server = Postgresql()
    try:
        server.prepare()
        server.start()
        settings = f'[provider]\nsocket_dir = "{tmp_path / "s"}"\nreport_wait = 20\n[controller]\nbackoff_cap = 1\n'
        made = Fleet(tmp_path, server.make_database("providers"), settings)
        try:
            yield made
        finally:
            made.remove()
    finally:
        server.remove()


def calls(register: Path) -> list[str]:
    return [name for name, _told in taken(register)]


def taken(register: Path) -> list[tuple[str, Any]]:
    file = register / "calls.jsonl"
    return [tuple(json.loads(line)) for line in file.read_text().splitlines()] if file.exists() else []


def settled(api: Api, load_balancer_id: str) -> Any:
    return api.settled(load_balancer_id, timeout=30)


def offer(api: Api, flavor: dict[str, Any], zone: dict[str, Any]) -> tuple[str, str]:
    """The id of a flavor and the name of a zone of the registrar's, with these data."""
    words = {"name": "p", "provider_name": "registrar"}
    of_flavor = api.create("flavorprofiles", "flavorprofile", **words, flavor_data=json.dumps(flavor))
    of_zone = api.create(
        "availabilityzoneprofiles", "availability_zone_profile", **words, availability_zone_data=json.dumps(zone)
    )
    made = api.create("flavors", "flavor", name="copies", flavor_profile_id=of_flavor["id"])
    placed = api.create("availabilityzones", "availability_zone", name="b", availability_zone_profile_id=of_zone["id"])
    return made["id"], placed["name"]


@pytest.mark.beside
def test_a_provider_driver_is_run_unchanged(fleet: Fleet, register: Path) -> None:
    assert fleet.run("db", "upgrade").returncode == 0
    port = free_port()
    fleet.add(("api", "--port", str(port)), port)
    fleet.add(("controller", "--provider", "registrar"))
    (api,) = fleet.apis()
    known = "/v2/lbaas/providers/registrar/flavor_capabilities"
    until(lambda: api.get(known)[0] == 200, 40, "the provider does not register")

    # Its driver says what it takes in flavors and zones, and judges what is written in them.
    listed = api.show(known.removeprefix("/v2/lbaas/"), "flavor_capabilities")
    assert {x["name"] for x in listed} == {"copies", "paper"}
    flavor, zone = offer(api, {"copies": 2}, {"shelf": "b"})
    profile: dict[str, str] = {}
    for data, words in (({"size": 1}, "the registrar has no size"), ({"copies": "x"}, "copies must be a number")):
        profile = {"name": "p", "provider_name": "registrar", "flavor_data": json.dumps(data)}
        status, answer = api.call("POST", "/v2/lbaas/flavorprofiles", {"flavorprofile": profile})
        assert (status, words in answer["faultstring"]) == (501, True), answer
    (register / "fail").touch()
    status, answer = api.call(
        "POST", "/v2/lbaas/flavorprofiles", {"flavorprofile": {**profile, "flavor_data": '{"copies": 3}'}}
    )
    assert (status, "on fire" in answer["faultstring"]) == (503, True), answer
    (register / "fail").unlink()

    # One call for each change, one after another.
    made = api.create(
        "loadbalancers",
        "loadbalancer",
        name="first",
        flavor_id=flavor,
        availability_zone=zone,
        provider="registrar",
        vip_subnet_id=api.subnet_id(),
        listeners=[
            {
                "name": "front",
                "protocol": "TCP",
                "protocol_port": 80,
                "default_pool": {
                    "name": "back",
                    "protocol": "TCP",
                    "lb_algorithm": "SOURCE_IP_PORT",
                    "members": [{"address": f"192.0.2.{n}", "protocol_port": 80} for n in (1, 2)],
                },
            }
        ],
    )
    load_balancer_id, pool_id = made["id"], made["pools"][0]["id"]
    assert settled(api, load_balancer_id)["provisioning_status"] == "ACTIVE", fleet.log()
    assert calls(register) == ["loadbalancer_create", "pool_create", "listener_create", "member_batch_update"]
    told = dict(taken(register))
    assert told["loadbalancer_create"]["vip_address"] == made["vip_address"]
    assert told["loadbalancer_create"]["flavor"] == {"copies": 2}
    assert told["loadbalancer_create"]["availability_zone"] == {"shelf": "b"}
    assert told["listener_create"]["default_pool_id"] == pool_id
    assert {x["address"] for x in told["member_batch_update"]} == {"192.0.2.1", "192.0.2.2"}

    # Statuses and statistics come back through the sockets.
    until(lambda: api.load_balancer(load_balancer_id)["operating_status"] == "ONLINE", 10, "it is not ONLINE")
    statistics = f"loadbalancers/{load_balancer_id}/stats"
    until(lambda: api.show(statistics, "stats")["total_connections"] == 1_234, 10, "statistics do not come")

    # What the driver does not do is on the object that asked for it; the rest goes on.
    listener = api.create(
        "listeners", "listener", loadbalancer_id=load_balancer_id, protocol="UDP", protocol_port=53, name="datagrams"
    )
    assert settled(api, load_balancer_id)["provisioning_status"] == "ACTIVE"
    refused = api.show(f"listeners/{listener['id']}", "listener")
    assert refused["provisioning_status"] == "ERROR"
    assert "the registrar does no UDP" in refused["fault"]["message"], refused["fault"]
    api.delete(f"listeners/{listener['id']}")
    api.gone(f"listeners/{listener['id']}")
    assert settled(api, load_balancer_id)["fault"] is None

    # A listener that ends TLS is handed over with its certificate; one whose certificate cannot be read is left out.
    site = TestAuthority().issue("www.example.org")
    (register / "site.pem").write_bytes(bundle(site))
    stored = fleet.run("secret", "store", str(register / "site.pem"))
    assert stored.returncode == 0, stored.stderr
    secured = api.create(
        "listeners",
        "listener",
        loadbalancer_id=load_balancer_id,
        protocol="TERMINATED_HTTPS",
        protocol_port=443,
        default_tls_container_ref=stored.stdout.strip(),
    )
    assert settled(api, load_balancer_id)["provisioning_status"] == "ACTIVE", fleet.log()
    name, handed = taken(register)[-1]
    assert (name, handed["listener_id"]) == ("listener_create", secured["id"])
    assert handed["default_tls_container_data"]["primary_cn"] == "www.example.org"
    assert handed["default_tls_container_data"]["certificate"] == site.certificate.decode()

    # An error of the driver's is tried again, and heals.
    (register / "fail").touch()
    api.update(f"loadbalancers/{load_balancer_id}", "loadbalancer", name="second")

    def burns() -> bool:
        fault = api.load_balancer(load_balancer_id)["fault"]
        return bool(fault) and "on fire" in fault["message"]

    until(burns, 20, "the fault is not told")
    (register / "fail").unlink()
    until(lambda: api.load_balancer(load_balancer_id)["fault"] is None, 20, "it does not heal")
    assert settled(api, load_balancer_id)["provisioning_status"] == "ACTIVE"
    assert taken(register)[-1] == ("loadbalancer_update", {"loadbalancer_id": load_balancer_id, "name": "second"})

    # A failover is the driver's.
    before = len(calls(register))
    assert api.call("PUT", f"/v2/lbaas/loadbalancers/{load_balancer_id}/failover")[0] == 202
    assert settled(api, load_balancer_id)["provisioning_status"] == "ACTIVE", fleet.log()
    assert taken(register)[before:] == [("loadbalancer_failover", load_balancer_id)]

    # One that failed is told and not repeated; another one heals it.
    (register / "break").touch()
    assert api.call("PUT", f"/v2/lbaas/loadbalancers/{load_balancer_id}/failover")[0] == 202
    broken = settled(api, load_balancer_id)
    assert (broken["provisioning_status"], broken["fault"]["code"]) == ("ERROR", "failover-failed"), fleet.log()
    (register / "break").unlink()
    assert api.call("PUT", f"/v2/lbaas/loadbalancers/{load_balancer_id}/failover")[0] == 202
    assert settled(api, load_balancer_id)["provisioning_status"] == "ACTIVE", fleet.log()
    assert calls(register)[before:] == ["loadbalancer_failover"] * 3

    # Killed between a call and its report: another process makes the call again.
    (register / "silent").touch()
    before = len(calls(register))
    api.create(f"pools/{pool_id}/members", "member", address="192.0.2.3", protocol_port=80)
    until(lambda: len(calls(register)) > before, 20, "the call is not made")
    (controller,) = fleet.of("controller")
    fleet.kill(controller)
    (register / "silent").unlink()
    fleet.start_again(controller)
    assert settled(api, load_balancer_id)["provisioning_status"] == "ACTIVE"
    assert calls(register)[before:] == ["member_create", "member_create"]

    api.delete(f"loadbalancers/{load_balancer_id}?cascade=true")
    api.gone(f"loadbalancers/{load_balancer_id}", timeout=30)
    assert calls(register)[-1] == "loadbalancer_delete cascade"

    # Drained, and with nothing left to serve, the process ends by itself.
    assert fleet.run("controller", "drain", "provider:registrar", "1.0.0").returncode == 0
    assert controller.process.wait(30) == 0


def test_a_provider_needs_a_database_that_others_share(tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "controller", "--provider", "registrar", "--state-dir", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, "a process of its own" in done.stderr) == (2, True), done.stderr
