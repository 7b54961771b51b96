"""Changes of every kind under constant load cost no request."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack

import pytest

from tests.acceptance.support import (
    Api,
    Backend,
    Load,
    ask,
    backend,
    free_port,
    report,
    serving,
    spread,
    until,
)

pytestmark = pytest.mark.alone


def test_no_request_is_lost_while_members_and_listeners_change(api: Api, backends: list[Backend]) -> None:
    """Members added, removed, reweighted, drained and disabled, a health monitor and a listener added and removed."""
    port, second_port = free_port(), free_port()
    load_balancer = api.web_load_balancer(backends, port)
    load_balancer_id, vip = load_balancer["id"], load_balancer["vip_address"]
    (pool,) = load_balancer["pools"]
    members = f"pools/{pool['id']}/members"
    serving(vip, port)
    api.settled(load_balancer_id)
    took: dict[str, float] = {}

    def settle(what: str, started: float) -> None:
        shown = api.settled(load_balancer_id)
        assert shown["provisioning_status"] == "ACTIVE", (what, shown)
        took[what] = time.monotonic() - started

    with ExitStack() as stack, Load(vip, port) as load:
        load.more(50)
        for number in (4, 5, 6):
            fresh = stack.enter_context(backend(f"backend-{number}"))
            started = time.monotonic()
            member = api.create(members, "member", name=fresh.name, address="127.0.0.1", protocol_port=fresh.port)
            until(lambda fresh=fresh: fresh.answered.total(), 10, "the new member gets no request")  # type: ignore[misc]
            took[f"add {number}"] = time.monotonic() - started
            started = time.monotonic()
            api.update(f"{members}/{member['id']}", "member", weight=number * 10)
            settle(f"reweight {number}", started)
            load.more(50)
            started = time.monotonic()
            api.update(f"{members}/{member['id']}", "member", admin_state_up=False)
            settle(f"disable {number}", started)
            api.update(f"{members}/{member['id']}", "member", admin_state_up=True, weight=0)
            settle(f"drain {number}", started)
            api.update(f"{members}/{member['id']}", "member", weight=1)
            settle(f"undrain {number}", started)
            load.more(50)
            started = time.monotonic()
            api.delete(f"{members}/{member['id']}")
            settle(f"remove {number}", started)
            load.more(50)
        started = time.monotonic()
        monitor = api.create(
            "healthmonitors",
            "healthmonitor",
            pool_id=pool["id"],
            type="HTTP",
            delay=1,
            timeout=1,
            max_retries=1,
        )
        settle("add health monitor", started)
        load.more(50)
        started = time.monotonic()
        listener = api.create(
            "listeners",
            "listener",
            loadbalancer_id=load_balancer_id,
            protocol="HTTP",
            protocol_port=second_port,
            default_pool_id=pool["id"],
        )
        serving(vip, second_port)
        took["add listener"] = time.monotonic() - started
        settle("listener settled", started)
        load.more(50)
        api.delete(f"healthmonitors/{monitor['id']}")
        settle("remove health monitor", time.monotonic())
        api.delete(f"listeners/{listener['id']}")
        settle("remove listener", time.monotonic())
        load.more(50)
    for what, seconds in took.items():
        report(f"{what}: {seconds * 1000:.0f} ms")
    report(f"{load.total} requests, {len(load.errors)} errors, {load.reopened} kept connections opened again")
    assert load.errors == []


def test_weights_are_honoured(api: Api, backends: list[Backend]) -> None:
    port = free_port()
    load_balancer = api.web_load_balancer(backends, port)
    (pool,) = load_balancer["pools"]
    members = {x["name"]: x["id"] for x in api.show(f"pools/{pool['id']}/members", "members")}
    path = f"pools/{pool['id']}/members"
    api.update(f"{path}/{members['backend-1']}", "member", weight=3)
    api.update(f"{path}/{members['backend-3']}", "member", weight=0)
    api.settled(load_balancer["id"])
    seen = spread(load_balancer["vip_address"], port, 40)
    assert seen == {"backend-1": 30, "backend-2": 10}


def test_edits_in_a_row_need_no_waiting(api: Api, backends: list[Backend]) -> None:
    """Octavia answers 409 to the second; here all are accepted and one state comes of them."""
    port = free_port()
    load_balancer = api.create("loadbalancers", "loadbalancer", name="quick", vip_subnet_id=api.subnet_id())
    listener = api.create(
        "listeners", "listener", loadbalancer_id=load_balancer["id"], protocol="HTTP", protocol_port=port
    )
    pool = api.create("pools", "pool", listener_id=listener["id"], protocol="HTTP", lb_algorithm="ROUND_ROBIN")
    for server in backends:
        api.create(f"pools/{pool['id']}/members", "member", address="127.0.0.1", protocol_port=server.port)
    assert api.settled(load_balancer["id"])["provisioning_status"] == "ACTIVE"
    assert spread(load_balancer["vip_address"], port, 9) == {x.name: 3 for x in backends}


def test_dead_member_is_taken_out_and_shown(api: Api, backends: list[Backend]) -> None:
    port = free_port()
    load_balancer = api.web_load_balancer(backends, port, monitor=True)
    vip = load_balancer["vip_address"]
    (pool,) = load_balancer["pools"]

    def statuses() -> dict[str, str]:
        return {x["name"]: x["operating_status"] for x in api.show(f"pools/{pool['id']}/members", "members")}

    serving(vip, port)
    until(lambda: set(statuses().values()) == {"ONLINE"}, 15, "the members do not become ONLINE")
    backends[2].stop()
    until(lambda: statuses()["backend-3"] == "ERROR", 15, "the dead member is not noticed")
    reasons = {x["name"]: x["last_check"] for x in api.show(f"pools/{pool['id']}/members", "members")}
    assert (reasons["backend-1"], reasons["backend-3"]["status"]) == (None, "L4CON")
    assert set(spread(vip, port, 20)) == {"backend-1", "backend-2"}
    tree = api.show(f"loadbalancers/{load_balancer['id']}/status", "statuses")["loadbalancer"]
    until(
        lambda: api.load_balancer(load_balancer["id"])["operating_status"] == "DEGRADED",
        10,
        "the load balancer is not DEGRADED",
    )
    assert tree["listeners"][0]["pools"][0]["members"]
    until(
        lambda: api.show(f"loadbalancers/{load_balancer['id']}/stats", "stats")["total_connections"] >= 20,
        15,
        "the statistics do not arrive",
    )


def test_listener_at_its_connection_limit_is_degraded(api: Api, backends: list[Backend]) -> None:
    port = free_port()
    load_balancer = api.web_load_balancer(backends, port)
    vip = load_balancer["vip_address"]
    listener = load_balancer["listeners"][0]["id"]
    serving(vip, port)
    api.update(f"listeners/{listener}", "listener", connection_limit=2)
    api.settled(load_balancer["id"])

    def status() -> str:
        return str(api.show(f"listeners/{listener}", "listener")["operating_status"])

    until(lambda: status() == "ONLINE", 10, "the listener is not ONLINE")
    with socket.create_connection((vip, port)) as one, socket.create_connection((vip, port)) as two:
        for connection in (one, two):
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n")  # and the rest never comes
        until(lambda: status() == "DEGRADED", 10, "a full listener is not shown")
        assert ask(vip, port, timeout=0.5)[0] == 0, "a connection over the limit was served"
    until(lambda: status() == "ONLINE", 10, "the listener does not recover")
    assert ask(vip, port)[0] == 200
