"""`drivers.amphora = "nginx"`: the same API, another amphora, from the first call to nothing left."""

from __future__ import annotations

import socket
from pathlib import Path

from tests.acceptance.support import Backend, Installation, ask, free_port, serving, spread, until


def nginxes(state_dir: Path) -> list[int]:
    """Living nginx processes that print to a file of this installation: they write over their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                output, name = (entry / "fd" / "2").readlink(), (entry / "comm").read_text().strip()
            except OSError:
                continue
            if name == "nginx" and str(output).startswith(f"{state_dir}/"):
                found.append(int(entry.name))
    return found


def test_an_installation_with_the_nginx_driver(tmp_path: Path, backends: list[Backend]) -> None:
    installation = Installation(tmp_path / "state", '[drivers]\namphora = "nginx"\n')
    installation.start()
    try:
        api = installation.api()
        port = free_port()
        made = api.web_load_balancer(backends, port)
        vip, pool_id = made["vip_address"], made["pools"][0]["id"]
        serving(vip, port)
        assert api.settled(made["id"])["provisioning_status"] == "ACTIVE"
        assert len(nginxes(installation.state_dir)) == 2
        assert set(spread(vip, port, 6)) == {x.name for x in backends}

        # What nginx cannot is refused, and named.
        monitor = {"type": "HTTP", "delay": 5, "timeout": 3, "max_retries": 3, "pool_id": pool_id}
        status, body = api.call("POST", "/v2/lbaas/healthmonitors", {"healthmonitor": monitor})
        assert (status, "type" in body["faultstring"]) == (501, True), body
        persistence = {"session_persistence": {"type": "HTTP_COOKIE"}}
        status, body = api.call("PUT", f"/v2/lbaas/pools/{pool_id}", {"pool": persistence})
        assert (status, "session_persistence" in body["faultstring"]) == (501, True), body
        assert api.settled(made["id"])["provisioning_status"] == "ACTIVE"

        # A UDP listener joins on the same port.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as member:
            member.bind(("127.0.0.1", 0))
            member.settimeout(5)
            pool = api.create("pools", "pool", loadbalancer_id=made["id"], protocol="UDP", lb_algorithm="ROUND_ROBIN")
            at = member.getsockname()[1]
            api.create(f"pools/{pool['id']}/members", "member", address="127.0.0.1", protocol_port=at)
            api.create(
                "listeners",
                "listener",
                loadbalancer_id=made["id"],
                protocol="UDP",
                protocol_port=port,
                default_pool_id=pool["id"],
            )
            assert api.settled(made["id"])["provisioning_status"] == "ACTIVE"
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.settimeout(5)
                client.connect((vip, port))
                client.send(b"hello")
                content, sender = member.recvfrom(100)
                member.sendto(content.upper(), sender)
                assert client.recv(100) == b"HELLO"
        until(lambda: api.load_balancer(made["id"])["operating_status"] == "ONLINE", 10, "not ONLINE")

        # nginx outlives the control plane, and goes with its load balancer.
        running = nginxes(installation.state_dir)
        installation.kill()
        assert ask(vip, port)[0] == 200
        installation.start()
        assert set(running) & set(nginxes(installation.state_dir))
        api.delete(f"loadbalancers/{made['id']}?cascade=true")
        api.gone(f"loadbalancers/{made['id']}")
        assert nginxes(installation.state_dir) == []
    finally:
        installation.remove()
    assert nginxes(installation.state_dir) == []
