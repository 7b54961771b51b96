"""What dies comes back behind the same VIP, what is edited disturbs nothing, and nothing is left behind. Run by
test_sandbox.py. One installation for all stories, each with load balancers of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from frontinus.drivers.network.bridge.records import Records

from tests.integration.netns.hosts import Host, Installation, installation, ip, ip_json, processes_of

AGENT, BALANCER = "python", "haproxy"


class Town:
    """Networks, a client and members, all of which outlive the load balancers of the stories."""

    def __init__(self, frontinus: Installation) -> None:
        self.frontinus = frontinus
        self.subnets = {}
        for network, cidr in (("front", "10.20.0.0/24"), ("back", "10.30.0.0/24"), ("deep", "10.40.0.0/24")):
            frontinus.command("network", "create", network)
            self.subnets[network] = frontinus.command("network", "subnet", "create", network, cidr)
        self.bridges = {
            name: frontinus.command("network", "show", name).split("bridge")[1].split()[0] for name in self.subnets
        }
        self.client = Host("client", self.bridges["front"], "10.20.0.2/24")
        self.other = Host("other", self.bridges["front"], "10.20.0.3/24")
        self.one = Host("one", self.bridges["back"], "10.30.0.2/24")
        self.two = Host("two", self.bridges["deep"], "10.40.0.2/24")
        self.hosts = (self.client, self.other, self.one, self.two)
        for host in (self.one, self.two):
            host.serve(8080)

    def member(self, host: Host, port: int = 8080) -> dict[str, Any]:
        network, address = ("back", "10.30.0.2") if host is self.one else ("deep", "10.40.0.2")
        return {"address": address, "protocol_port": port, "subnet_id": self.subnets[network]}

    def create(
        self, vip: str, *members: Host, protocol: str = "HTTP", member_port: int = 8080, **listener: object
    ) -> dict[str, Any]:
        pool = {
            "name": "pool",
            "protocol": protocol,
            "lb_algorithm": "ROUND_ROBIN",
            "members": [self.member(x, member_port) for x in members],
        }
        front = {"name": "front", "protocol": protocol, "protocol_port": 80, "default_pool": pool, **listener}
        body = {"loadbalancer": {"vip_subnet_id": self.subnets["front"], "vip_address": vip, "listeners": [front]}}
        made = dict(self.frontinus.call("POST", "/v2.0/lbaas/loadbalancers", body)["loadbalancer"])
        return self.frontinus.settled(made["id"])

    def delete(self, load_balancer_id: str) -> None:
        amphora = self.frontinus.amphora(load_balancer_id)
        self.frontinus.call("DELETE", f"/v2.0/lbaas/loadbalancers/{load_balancer_id}?cascade=true")
        self.frontinus.until(
            lambda: not self.frontinus.call("GET", f"/v2.0/octavia/amphorae?id={amphora['id']}")["amphorae"],
            "the amphora has gone",
        )

    def assert_tidy(self) -> None:
        """Nothing is left but what the town is made of."""
        links = {x["ifname"] for x in ip_json("link", "show")}
        assert links == {"lo", *(f"to-{x.name}" for x in self.hosts), *self.bridges.values()}
        assert {x.name for x in Path("/run/netns").iterdir()} == {x.name for x in self.hosts}


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    with installation(tmp_path_factory.mktemp("state")) as frontinus:
        made = Town(frontinus)
        frontinus.start()
        yield made


@contextmanager
def asking(host: Host, url: str) -> Iterator[list[tuple[float, str | None]]]:
    """Ask without end, about every 20 ms: when, and what came back (None: nothing did)."""
    answers: list[tuple[float, str | None]] = []
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            try:
                answers.append((time.monotonic(), host.get(url, timeout=0.5)))
            except OSError:
                answers.append((time.monotonic(), None))
            time.sleep(0.02)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield answers
    finally:
        over.set()
        thread.join()


def killed(amphora_id: str, *programs: str) -> None:
    """SIGKILL for every process of the amphora whose name begins like one of these; all of them if none is named."""
    for pid, name in processes_of(amphora_id).items():
        if not programs or name.startswith(programs):
            os.kill(pid, signal.SIGKILL)


def balancer_dies(town: Town, amphora: dict[str, Any]) -> None:
    killed(amphora["id"], BALANCER)


def agent_dies(town: Town, amphora: dict[str, Any]) -> None:
    killed(amphora["id"], AGENT)


def namespace_dies(town: Town, amphora: dict[str, Any]) -> None:
    (name,) = [x.name for x in Path("/run/netns").iterdir() if amphora["id"] in x.name]
    killed(amphora["id"])
    ip("netns", "delete", name)


def name_of_the_namespace_goes(town: Town, amphora: dict[str, Any]) -> None:
    (name,) = [x.name for x in Path("/run/netns").iterdir() if amphora["id"] in x.name]
    ip("netns", "delete", name)


def management_link_goes(town: Town, amphora: dict[str, Any]) -> None:
    ip("link", "delete", link_with(town, amphora["lb_network_ip"]))


def vip_link_goes(town: Town, amphora: dict[str, Any]) -> None:
    ip("link", "delete", link_with(town, amphora["vrrp_ip"]))


def link_with(town: Town, address: str) -> str:
    """The host's end of the port that has the address."""
    ports = Records(town.frontinus.state_dir / "networks").read().ports.values()
    (found,) = [x.port.link for x in ports if any(y.address == address for y in x.port.addresses)]
    return found


@pytest.mark.parametrize(
    "blow,within",
    [
        (balancer_dies, 2.0),
        (agent_dies, 0.5),
        (namespace_dies, 10.0),
        (name_of_the_namespace_goes, 0.5),
        (management_link_goes, 0.5),
        (vip_link_goes, 25.0),
    ],
)
def test_traffic_returns_behind_the_same_vip(town: Town, blow: Any, within: float) -> None:
    made = town.create("10.20.0.10", town.one)
    amphora = town.frontinus.amphora(made["id"])
    with asking(town.client, "http://10.20.0.10/") as answers:
        town.frontinus.until(lambda: sum(x == "one" for _, x in answers) > 5, "traffic before")
        began = time.monotonic()
        blow(town, amphora)
        struck = len(answers)
        town.frontinus.until(
            lambda: len(answers) > struck + 20 and all(x == "one" for _, x in answers[-10:]), "traffic after", within=40
        )
        town.frontinus.settled(made["id"])
        # It is calm again: heard, and with an agent that takes changes.
        town.frontinus.call(
            "PUT", f"/v2.0/lbaas/pools/{made['pools'][0]['id']}", {"pool": {"lb_algorithm": "LEAST_CONNECTIONS"}}
        )
        town.frontinus.settled(made["id"])
    failed = [at for at, x in answers if at > began and x is None]
    lost = max(failed) - began if failed else 0.0
    assert lost < within
    town.delete(made["id"])
    town.assert_tidy()


def test_members_come_and_go_on_new_networks_without_a_lost_request(town: Town) -> None:
    made = town.create("10.20.0.11", town.one)
    pool, frontinus = made["pools"][0]["id"], town.frontinus
    amphora = frontinus.amphora(made["id"])
    with asking(town.client, "http://10.20.0.11/") as answers:
        for _ in range(3):
            member = frontinus.call("POST", f"/v2.0/lbaas/pools/{pool}/members", {"member": town.member(town.two)})
            frontinus.settled(made["id"])
            frontinus.until(lambda: "two" in {x for _, x in answers[-6:]}, "the new member answers")
            frontinus.call("DELETE", f"/v2.0/lbaas/pools/{pool}/members/{member['member']['id']}")
            frontinus.settled(made["id"])
            frontinus.until(lambda: {x for _, x in answers[-6:]} == {"one"}, "it does not any more")
    assert [at for at, x in answers if x is None] == []
    assert frontinus.amphora(made["id"])["id"] == amphora["id"]
    town.delete(made["id"])
    town.assert_tidy()


def test_ports_open_and_shut_with_their_listeners(town: Town) -> None:
    made = town.create("10.20.0.12", town.one, allowed_cidrs=["10.20.0.2/32"])
    frontinus, listener = town.frontinus, made["listeners"][0]["id"]
    assert town.client.get("http://10.20.0.12/") == "one"
    assert not town.other.reaches("10.20.0.12", 80)
    path = f"/v2.0/lbaas/listeners/{listener}"
    frontinus.call("PUT", path, {"listener": {"allowed_cidrs": ["10.20.0.3/32"]}})
    frontinus.settled(made["id"])
    assert town.other.get("http://10.20.0.12/") == "one"
    assert not town.client.reaches("10.20.0.12", 80)
    more = {"listener": {"protocol": "TCP", "protocol_port": 81, "loadbalancer_id": made["id"]}}
    second = frontinus.call("POST", "/v2.0/lbaas/listeners", more)["listener"]
    frontinus.settled(made["id"])
    assert town.client.reaches("10.20.0.12", 81)
    frontinus.call("DELETE", f"/v2.0/lbaas/listeners/{second['id']}")
    frontinus.settled(made["id"])
    assert not town.client.reaches("10.20.0.12", 81)
    town.delete(made["id"])


def test_datagrams_reach_members_by_the_vip(town: Town) -> None:
    made = town.create("10.20.0.13", town.one, town.two, protocol="UDP")
    answers = {town.client.ask_datagram("10.20.0.13", 80, "who?") for _ in range(8)}
    assert answers == {"one", "two"}
    assert town.client.ask_datagram("10.20.0.13", 81, "who?") is None
    town.delete(made["id"])


def test_a_member_gets_more_connections_than_the_amphora_has_ports(town: Town) -> None:
    """Where the client ends each, so that the amphora keeps the port that it came to the member from for a minute."""

    class Greeting(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.sendall(b"hello")
            self.request.recv(1)  # until the other side ends it

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = daemon_threads = True
        request_queue_size = 100

    def is_greeted() -> bool:
        with socket.create_connection(("10.20.0.16", 80), timeout=3) as connection:
            return connection.recv(5) == b"hello"

    server = town.one.within(lambda: Server(("10.30.0.2", 8081), Greeting))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    made = town.create("10.20.0.16", town.one, protocol="TCP", member_port=8081)
    amphora = town.frontinus.amphora(made["id"])
    (name,) = [x.name for x in Path("/run/netns").iterdir() if amphora["id"] in x.name]
    ip("netns", "exec", name, "sysctl", "-q", "-w", "net.ipv4.ip_local_port_range=50000 50099")
    greeted = 0
    for _ in range(6):
        greeted += sum(town.client.within(is_greeted) for _ in range(50))
        time.sleep(1.1)  # a port is not given to two within a second
    assert greeted == 300
    server.shutdown()
    server.server_close()
    town.delete(made["id"])


def test_who_fails_over_is_found_at_once(town: Town) -> None:
    """Clients need not wait for their caches to expire: the new amphora announces the VIP."""
    made = town.create("10.20.0.14", town.one)
    assert town.client.get("http://10.20.0.14/") == "one"
    before = town.frontinus.amphora(made["id"])
    town.frontinus.call("PUT", f"/v2.0/lbaas/loadbalancers/{made['id']}/failover")
    town.frontinus.until(
        lambda: [
            x["id"]
            for x in town.frontinus.call("GET", f"/v2.0/octavia/amphorae?loadbalancer_id={made['id']}")["amphorae"]
            if x["status"] == "ALLOCATED" and x["id"] != before["id"]
        ],
        "another amphora",
    )
    town.frontinus.settled(made["id"])
    assert town.client.get("http://10.20.0.14/", timeout=1) == "one"
    town.delete(made["id"])
    town.assert_tidy()


def test_the_control_plane_comes_back_to_what_runs(town: Town) -> None:
    made = town.create("10.20.0.15", town.one)
    amphora = town.frontinus.amphora(made["id"])
    with asking(town.client, "http://10.20.0.15/") as answers:
        town.frontinus.stop()
        town.frontinus.start()
        town.frontinus.settled(made["id"])
    assert [at for at, x in answers if x is None] == []
    assert town.frontinus.amphora(made["id"])["id"] == amphora["id"]
    town.delete(made["id"])
    town.assert_tidy()


def _answers(client: Host, url: str, name: str) -> bool:
    return client.get(url, timeout=1) == name


def test_a_machine_that_restarts_has_everything_back(town: Town) -> None:
    """Nothing but the state directory is left: no process, namespace, bridge, filter, nor keys in memory."""
    made = town.create("10.20.0.17", town.one, town.two)
    before = town.frontinus.amphora(made["id"])
    town.frontinus.crash()
    killed(before["id"])
    for name in [x.name for x in Path("/run/netns").iterdir() if before["id"] in x.name]:
        ip("netns", "delete", name)
    hosts = {f"to-{x.name}" for x in town.hosts}
    for link in [x["ifname"] for x in ip_json("link", "show") if x["ifname"] not in ("lo", *hosts)]:
        subprocess.run(
            ["ip", "link", "delete", link], check=False, capture_output=True
        )  # its peer may have taken it along
    subprocess.run(["nft", "flush", "ruleset"], check=True)
    for keys in Path("/dev/shm").glob(f"frontinus-{before['id']}"):
        shutil.rmtree(keys)
    town.frontinus.start()
    began = time.monotonic()
    for host, network in ((town.client, "front"), (town.other, "front"), (town.one, "back"), (town.two, "deep")):
        town.frontinus.until(Path(f"/sys/class/net/{town.bridges[network]}").exists, f"the bridge of {network}")
        ip("link", "set", f"to-{host.name}", "master", town.bridges[network], "up")
    for name in ("one", "two"):
        town.frontinus.until(partial(_answers, town.client, "http://10.20.0.17/", name), f"{name} answers")
    print(f"restarted to served: {time.monotonic() - began:.1f} s")  # noqa: T201 - pytest -rP shows it
    town.frontinus.settled(made["id"])
    town.delete(made["id"])
    town.assert_tidy()


def test_the_openstack_client_makes_and_shows_it_all(town: Town) -> None:
    def openstack(*words: str) -> Any:
        options = ["--os-auth-type", "none", "--os-endpoint", "http://127.0.0.1:9876", "loadbalancer"]
        command = [str(Path(sys.executable).with_name("openstack")), *options, *words, "-f", "json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    vip = ["--vip-subnet-id", town.subnets["front"], "--vip-address", "10.20.0.16"]
    made = openstack("create", "--name", "shop", *vip, "--wait")
    openstack("listener", "create", "--name", "web", "--protocol", "HTTP", "--protocol-port", "80", "shop", "--wait")
    pool = ["--listener", "web", "--protocol", "HTTP", "--lb-algorithm", "ROUND_ROBIN"]
    openstack("pool", "create", "--name", "web", *pool, "--wait")
    member = ["--address", "10.30.0.2", "--protocol-port", "8080", "--subnet-id", town.subnets["back"]]
    openstack("member", "create", *member, "web", "--wait")
    assert town.client.get("http://10.20.0.16/") == "one"
    (row,) = openstack("amphora", "list", "--loadbalancer", made["id"])
    shown = openstack("amphora", "show", row["id"])
    assert (shown["ha_ip"], shown["vrrp_interface"]) == ("10.20.0.16", "eth1")
    assert shown["vrrp_ip"].startswith("10.20.0.")
    assert shown["vrrp_port_id"]
    town.delete(made["id"])
    town.assert_tidy()
