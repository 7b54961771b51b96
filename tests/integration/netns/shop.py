"""A shop on virtual machines: one load balancer with an HTTP, a TLS and a UDP listener, two members, and a client that
asks over each. For stories and benches that have a sandbox of their own (test_sandbox.py), and the image."""

from __future__ import annotations

import json
import re
import ssl
from pathlib import Path
from typing import Any
from urllib.request import HTTPSHandler, build_opener

from frontinus.testing.certificates import TestAuthority, bundle

from tests.integration.netns.hosts import Host, Installation

IMAGE = Path(__file__).parents[3] / ".cache" / "image"
VIP = "10.20.0.150"
MEMBERS = ("10.20.0.11", "10.20.0.12")
EVERYBODY: set[str | None] = {f"member-{number}" for number in range(len(MEMBERS))}
SERVED = {"http": EVERYBODY, "tls": EVERYBODY, "udp": EVERYBODY}
"""What `Shop.answers` gives when all is well."""


class Shop:
    """What stands around the load balancer; the installation is started when everything is there."""

    def __init__(self, frontinus: Installation, *sources: str) -> None:
        """`sources` are further addresses of the client."""
        self._frontinus = frontinus
        issuer = TestAuthority()
        site = frontinus.state_dir / "site.pem"
        site.write_bytes(bundle(issuer.issue(VIP)))
        self._trust = ssl.create_default_context(cadata=issuer.pem.decode())
        frontinus.command("network", "create", "front")
        pool = ("--pool", "10.20.0.100-10.20.0.200")  # or an amphora could be given a member's address
        self._subnet = frontinus.command("network", "subnet", "create", *pool, "front", "10.20.0.0/24")
        bridge = json.loads(frontinus.command("network", "list", "--json"))[0]["bridge"]
        self.client = Host("client", bridge, "10.20.0.2/24", *sources)
        for number, address in enumerate(MEMBERS):
            Host(f"member-{number}", bridge, f"{address}/24").serve(8080)
        self._certificate = frontinus.command("secret", "store", "--name", "site", str(site))
        frontinus.start()

    def create(self, **more: Any) -> str:
        """Ask for the load balancer; its id."""
        listeners = [
            _listener("HTTP", 80, "HTTP"),
            _listener("TERMINATED_HTTPS", 443, "HTTP", default_tls_container_ref=self._certificate),
            _listener("UDP", 5300, "UDP"),
        ]
        wanted = {"name": "shop", "vip_subnet_id": self._subnet, "vip_address": VIP, "listeners": listeners, **more}
        made = self._frontinus.call("POST", "/v2.0/lbaas/loadbalancers", {"loadbalancer": wanted})
        return str(made["loadbalancer"]["id"])

    def answers(self) -> dict[str, set[str | None]]:
        """Who answers over each protocol, in some tries."""

        def over_tls() -> str:
            with build_opener(HTTPSHandler(context=self._trust)).open(f"https://{VIP}/", timeout=5) as answer:
                return str(answer.read().decode())

        return {
            "http": {self.client.get(f"http://{VIP}/", timeout=5) for _ in range(4)},
            "tls": {self.client.within(over_tls) for _ in range(4)},
            "udp": {self.client.ask_datagram(VIP, 5300, "who") for _ in range(4)},
        }

    def machine(self, load_balancer_id: str) -> Path:
        """The directory of its machine; of the only one."""
        return self._frontinus.state_dir / "machines" / str(self._frontinus.amphora(load_balancer_id)["id"])


def agent_started_after(machine: Path) -> float:
    """Seconds from the start of the guest's clock to its agent's."""
    said = re.findall(r"agent starts uptime=([0-9.]+)", (machine / "console.log").read_text(errors="replace"))
    return float(said[0])


def _listener(protocol: str, port: int, pool_protocol: str, **more: Any) -> dict[str, Any]:
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
