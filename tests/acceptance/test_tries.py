"""What a dry run foretells is what then happens; a create that is sent again after a kill makes nothing twice."""

from __future__ import annotations

import contextlib
import http.client
import re
import threading
import time
from typing import Any
from uuid import uuid4

import pytest

from tests.acceptance.support import Api, Backend, Installation, free_port, report, serving


def configuration(installation: Installation) -> list[str]:
    """What the one amphora runs."""
    (file,) = (installation.state_dir / "amphorae").rglob("haproxy.cfg")
    return file.read_text().splitlines()


def workers(installation: Installation) -> set[int]:
    return {x.pid for x in installation.amphora_processes() if "haproxy " in x.command}


def patched(lines: list[str], diff: str) -> list[str]:
    """The lines with a unified diff applied to them."""
    result: list[str] = []
    position = 0
    for line in diff.splitlines()[2:]:
        if line.startswith("@@ -"):
            start, _, length = line.split(" ")[1][1:].partition(",")
            begin = int(start) - (0 if length == "0" else 1)
            result += lines[position:begin]
            position = begin
        elif line[0] in " -":
            assert lines[position] == line[1:]
            position += 1
        if line[0] in " +":
            result.append(line[1:])
    return [*result, *lines[position:]]


def anonymous(lines: list[str]) -> list[str]:
    """Without the ids that each new member gets, and what follows from them."""
    return sorted(re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}| id [0-9]+", "ID", x) for x in lines)


def test_a_dry_run_foretells_what_haproxy_gets(installation: Installation, api: Api, backends: list[Backend]) -> None:
    port = free_port()
    load_balancer = api.web_load_balancer(backends, port)
    serving(load_balancer["vip_address"], port)
    api.settled(load_balancer["id"])
    pool, listener = load_balancer["pools"][0], load_balancer["listeners"][0]
    members = f"pools/{pool['id']}/members"
    changes: list[tuple[str, str, str, Any]] = [
        ("runtime", "PUT", f"{members}/{pool['members'][0]['id']}", {"member": {"weight": 7}}),
        ("runtime", "POST", members, {"member": {"address": "127.0.0.1", "protocol_port": backends[0].port + 1}}),
        ("runtime", "DELETE", f"{members}/{pool['members'][1]['id']}", None),
        ("reload", "PUT", f"listeners/{listener['id']}", {"listener": {"timeout_client_data": 7000}}),
        ("unchanged", "PUT", f"listeners/{listener['id']}", {"listener": {"name": "a word for people"}}),
        ("stop", "PUT", f"listeners/{listener['id']}", {"listener": {"admin_state_up": False}}),
    ]
    took: list[float] = []
    for expected, method, path, body in changes:
        before, running = configuration(installation), workers(installation)
        started = time.monotonic()
        status, tried = api.call(method, f"/v2/lbaas/{path}?dry_run=true", body)
        took.append(time.monotonic() - started)
        assert status == 200, tried
        told = tried["dry_run"]
        assert (told["preview"], told["action"], told["faults"]) == ("complete", expected, []), told
        assert (configuration(installation), workers(installation)) == (before, running)
        assert api.load_balancer(load_balancer["id"])["provisioning_status"] == "ACTIVE"
        (amphora,) = told["amphorae"]
        status, _ = api.call(method, f"/v2/lbaas/{path}", body)
        assert status in (200, 201, 204)
        assert api.settled(load_balancer["id"])["provisioning_status"] == "ACTIVE"
        if expected != "stop":
            after = configuration(installation)
            assert anonymous(after) == anonymous(patched(before, amphora["diff"]))
            assert (workers(installation) == running) == (expected != "reload")
    report(f"dry runs took {min(took) * 1000:.0f} to {max(took) * 1000:.0f} ms")


def test_a_dry_run_of_a_whole_tree_makes_nothing(installation: Installation, api: Api) -> None:
    tree = {
        "vip_subnet_id": api.subnet_id(),
        "listeners": [{"protocol": "HTTP", "protocol_port": free_port(), "default_pool": {"name": "p"}}],
        "pools": [{"name": "p", "protocol": "HTTP", "lb_algorithm": "ROUND_ROBIN"}],
    }
    status, tried = api.call("POST", "/v2/lbaas/loadbalancers?dry_run=true", {"loadbalancer": tree})
    assert (status, tried["dry_run"]["action"]) == (200, "start"), tried
    assert f"+    bind {tried['loadbalancer']['vip_address']}:" in tried["dry_run"]["amphorae"][0]["diff"]
    assert api.get("/v2/lbaas/loadbalancers")[1]["loadbalancers"] == []
    assert installation.amphora_processes() == []
    assert not list((installation.state_dir / "network" / "vips").glob("*"))


@pytest.mark.parametrize("after_ms", [10, *(pytest.param(x, marks=pytest.mark.long) for x in (0, 5, 20, 40))])
def test_a_create_that_a_kill_cut_off_can_be_sent_again(installation: Installation, api: Api, after_ms: int) -> None:
    """The kill comes before, in, or after the create; whichever it was, there is one load balancer in the end."""
    key = {"Idempotency-Key": f'"{uuid4()}"'}
    body = {"loadbalancer": {"name": "once", "vip_subnet_id": api.subnet_id()}}

    def send() -> tuple[int, Any]:
        return api.call("POST", "/v2/lbaas/loadbalancers", body, key)

    def send_into_the_dark() -> None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            send()

    first = threading.Thread(target=send_into_the_dark)
    first.start()
    time.sleep(after_ms / 1000)  # when it is killed is what the test varies; there is no fact to wait for
    installation.kill()
    first.join()
    installation.start()
    before = api.get("/v2/lbaas/loadbalancers")[1]["loadbalancers"]
    status, answer = send()
    assert status == 201, answer
    listed = api.get("/v2/lbaas/loadbalancers")[1]["loadbalancers"]
    assert [x["id"] for x in listed] == [answer["loadbalancer"]["id"]]
    assert before in ([], listed) or before[0]["id"] == listed[0]["id"]
    report(f"killed {after_ms} ms after it was sent: {'after' if before else 'before'} the commit")
