"""Load balancers on virtual machines, from the API to the answer: HTTP, TLS and UDP, boots measured, a machine stopped on
purpose, and one that dies. Run by test_sandbox.py."""

from __future__ import annotations

import json
import os
import signal
import ssl
import time
from pathlib import Path
from typing import Any
from urllib.request import HTTPSHandler, build_opener

import pytest

from frontinus.drivers.compute.qemu.qmp import monitor
from frontinus.testing.certificates import TestAuthority, bundle

from tests.integration.netns.hosts import Host, Installation, installation

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

IMAGE = Path(__file__).parents[3] / ".cache" / "image"
OPTIONS = f"""
[controller]
spares = 0
[driver_options.qemu]
image = "{IMAGE}"
"""
VIP = "10.20.0.150"
MEMBERS = ("10.20.0.11", "10.20.0.12")


def listener(protocol: str, port: int, pool_protocol: str, **more: Any) -> dict[str, Any]:
    return {
        "name": protocol.lower(),
        "protocol": protocol,
        "protocol_port": port,
        "default_pool": {
            "name": protocol.lower(),
            "protocol": pool_protocol,
            "lb_algorithm": "ROUND_ROBIN",
            "members": [{"address": each, "protocol_port": 8080} for each in MEMBERS],
        },
        **more,
    }


def answers(client: Host, authority: str) -> dict[str, set[str | None]]:
    """Who answers over each protocol, in some tries."""
    trust = ssl.create_default_context(cadata=authority)

    def over_tls() -> str:
        with build_opener(HTTPSHandler(context=trust)).open(f"https://{VIP}/", timeout=5) as answer:
            return str(answer.read().decode())

    return {
        "http": {client.get(f"http://{VIP}/", timeout=5) for _ in range(4)},
        "tls": {client.within(over_tls) for _ in range(4)},
        "udp": {client.ask_datagram(VIP, 5300, "who") for _ in range(4)},
    }


def cpu_of(machine: Path) -> float:
    """Seconds of CPU that the machine has used."""
    fields = Path(f"/proc/{(machine / 'qemu.pid').read_text().strip()}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def machine_of(frontinus: Installation, load_balancer_id: str) -> Path:
    return frontinus.state_dir / "machines" / str(frontinus.amphora(load_balancer_id)["id"])


def test_a_machine_serves_http_tls_and_udp(tmp_path: Path) -> None:
    issuer = TestAuthority()
    (tmp_path / "site.pem").write_bytes(bundle(issuer.issue(VIP)))
    with installation(tmp_path, "qemu", OPTIONS) as frontinus:
        frontinus.command("network", "create", "front")
        pool = ("--pool", "10.20.0.100-10.20.0.200")  # or an amphora could be given a member's address
        subnet = frontinus.command("network", "subnet", "create", *pool, "front", "10.20.0.0/24")
        bridge = json.loads(frontinus.command("network", "list", "--json"))[0]["bridge"]
        client = Host("client", bridge, "10.20.0.2/24")
        for number, address in enumerate(MEMBERS):
            Host(f"member-{number}", bridge, f"{address}/24").serve(8080)
        everybody = {"member-0", "member-1"}
        reference = frontinus.command("secret", "store", "--name", "site", str(tmp_path / "site.pem"))
        frontinus.start()
        asked = time.monotonic()
        made = frontinus.call(
            "POST",
            "/v2.0/lbaas/loadbalancers",
            {
                "loadbalancer": {
                    "name": "shop",
                    "vip_subnet_id": subnet,
                    "vip_address": VIP,
                    "listeners": [
                        listener("HTTP", 80, "HTTP"),
                        listener("TERMINATED_HTTPS", 443, "HTTP", default_tls_container_ref=reference),
                        listener("UDP", 5300, "UDP"),
                    ],
                }
            },
        )["loadbalancer"]
        frontinus.settled(made["id"], 120)
        used = cpu_of(machine_of(frontinus, made["id"]))
        print(f"created to ACTIVE: {time.monotonic() - asked:.1f} s, {used:.1f} s of CPU")  # noqa: T201 - pytest -rP shows it
        expected = {"http": everybody, "tls": everybody, "udp": everybody}
        assert answers(client, issuer.pem.decode()) == expected

        # Stopped on purpose: nothing is torn down, and it serves again when it is started again.
        first = machine_of(frontinus, made["id"])
        with monitor(first, "qmp", 5) as qemu:
            qemu.ask("stop")
        time.sleep(10)  # far longer than the silence after which a dead one is replaced
        assert machine_of(frontinus, made["id"]) == first
        with monitor(first, "qmp", 5) as qemu:
            qemu.ask("cont")
        frontinus.until(lambda: answers(client, issuer.pem.decode()) == expected, "it serves again", 30)

        # Started anew by itself: it has lost everything, and is filled again, or another takes its place.
        with monitor(first, "qmp", 5) as qemu:
            qemu.ask("system_reset")
        frontinus.until(lambda: not client.reaches(VIP, 80), "it is away", 30)
        frontinus.until(lambda: answers(client, issuer.pem.decode()) == expected, "it serves again", 120)
        frontinus.settled(made["id"], 60)
        first = machine_of(frontinus, made["id"])

        # Killed: another one takes its place.
        killed = time.monotonic()
        os.kill(int((first / "qemu.pid").read_text()), signal.SIGKILL)
        frontinus.until(lambda: machine_of(frontinus, made["id"]) != first, "another machine", 30)
        frontinus.settled(made["id"], 120)
        print(f"killed to served by another: {time.monotonic() - killed:.1f} s")  # noqa: T201 - likewise
        assert answers(client, issuer.pem.decode()) == expected
        assert not first.exists()

        frontinus.call("DELETE", f"/v2.0/lbaas/loadbalancers/{made['id']}?cascade=true")
        frontinus.until(lambda: not frontinus.call("GET", "/v2.0/octavia/amphorae")["amphorae"], "it is gone")
        assert list((tmp_path / "machines").iterdir()) == []
