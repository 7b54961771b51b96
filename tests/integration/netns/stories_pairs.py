"""Pairs on networks of their own: what fails, who takes over, what the tenant and the operator see, and what is left.
Run by test_sandbox.py."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any, Self

from tests.integration.netns.hosts import Host, Installation, installation, ip_json, processes_of

NUMBERS = itertools.count()
VIP, VIP_6 = "10.20.0.10", "fd20::10"
CLIENT = "10.20.0.202"
MEMBERS = ("10.20.0.203", "10.20.0.204")


TAKEOVER_S, REPAIR_S = 1.0, 2.0
"""The longest time without an answer when the other takes over, and while a new amphora starts beside it, on a machine with ten
times as many busy processes as cores; docs/performance.md has the figures."""


class Pair:
    """A load balancer with a pair, on one network with its client; the members answer with their names."""

    def __init__(self, frontinus: Installation, **pool: object) -> None:
        self.frontinus = frontinus
        frontinus.command("network", "create", "front")
        (front,) = json.loads(frontinus.command("network", "list", "--json"))
        bridge = str(front["bridge"])
        subnets = [
            frontinus.command("network", "subnet", "create", "--pool", given, "front", cidr)
            for cidr, given in (("10.20.0.0/24", "10.20.0.10-10.20.0.99"), ("fd20::/64", "fd20::10-fd20::99"))
        ]
        number = next(NUMBERS)  # hosts stay until the machine of the stories goes
        self.client = Host(f"client-{number}", bridge, f"{CLIENT}/24", "fd20::202/64")
        self.members = [Host(f"member{x}-{number}", bridge, f"{address}/24") for x, address in enumerate(MEMBERS)]
        for member in self.members:
            member.serve(8080)
        frontinus.start()
        self.id = self._create(subnets, pool)
        frontinus.settled(self.id)
        frontinus.until(lambda: self.master() is not None, "one has the VIP")

    def _create(self, subnets: list[str], pool: dict[str, object]) -> str:
        call = self.frontinus.call
        profile = {
            "name": "pair",
            "provider_name": "amphora",
            "flavor_data": '{"loadbalancer_topology": "ACTIVE_STANDBY"}',
        }
        profile_id = call("POST", "/v2/lbaas/flavorprofiles", {"flavorprofile": profile})["flavorprofile"]["id"]
        flavor = {"name": "pair", "flavor_profile_id": profile_id, "enabled": True}
        flavor_id = call("POST", "/v2/lbaas/flavors", {"flavor": flavor})["flavor"]["id"]
        members = [{"address": address, "protocol_port": 8080} for address in MEMBERS]
        return str(
            call(
                "POST",
                "/v2/lbaas/loadbalancers",
                {
                    "loadbalancer": {
                        "flavor_id": flavor_id,
                        "vip_subnet_id": subnets[0],
                        "vip_address": VIP,
                        "additional_vips": [{"subnet_id": subnets[1], "ip_address": VIP_6}],
                        "listeners": [
                            {
                                "protocol": "HTTP",
                                "protocol_port": 80,
                                "default_pool": {
                                    "name": "web",
                                    "protocol": "HTTP",
                                    "lb_algorithm": "ROUND_ROBIN",
                                    "members": members,
                                    **pool,
                                },
                            }
                        ],
                    }
                },
            )["loadbalancer"]["id"]
        )

    def amphorae(self) -> list[dict[str, Any]]:
        return list(self.frontinus.call("GET", f"/v2/octavia/amphorae?loadbalancer_id={self.id}")["amphorae"])

    def role(self, role: str) -> dict[str, Any]:
        (one,) = (x for x in self.amphorae() if x["role"] == role)
        return one

    def holders(self) -> list[str]:
        """Amphorae in whose namespace the VIP is."""
        return [x["id"] for x in self.amphorae() if holds(x["id"], VIP)]

    def master(self) -> str | None:
        """Who has the VIP; None while nobody has, or two have."""
        holders = self.holders()
        return holders[0] if len(holders) == 1 else None

    def whole(self) -> bool:
        """Both serve, one has the VIP, and the load balancer is ACTIVE."""
        statuses = sorted((x["role"], x["status"]) for x in self.amphorae())
        settled = self.frontinus.load_balancer(self.id)["provisioning_status"] == "ACTIVE"
        return settled and statuses == [("BACKUP", "ALLOCATED"), ("MASTER", "ALLOCATED")] and self.master() is not None

    def remembered(self, client: str) -> str | None:
        """The member that the stick tables of all amphorae remember for this client; None while they do not agree."""
        known = {member_of(self.frontinus, x["id"], client) for x in self.amphorae()}
        return known.pop() if len(known) == 1 else None

    def connections(self) -> int:
        return int(self.frontinus.call("GET", f"/v2/lbaas/loadbalancers/{self.id}/stats")["stats"]["total_connections"])


class Asking:
    """A client that asks without a pause, and notes when it was answered."""

    def __init__(self, client: Host, url: str) -> None:
        self.moments: list[float] = []
        self.said: list[str] = []
        self.failures: list[tuple[float, str]] = []
        self._client, self._url = client, url
        self._ending = threading.Event()
        self._thread = threading.Thread(target=lambda: client.within(self._ask))
        self._thread.start()

    def _ask(self) -> None:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        while not self._ending.wait(0.005):
            try:
                with opener.open(self._url, timeout=0.1) as answer:
                    self.said.append(answer.read().decode())
            except (OSError, http.client.HTTPException) as error:  # also an answer that was cut
                self.failures.append((time.monotonic(), str(error)))
                continue
            self.moments.append(time.monotonic())

    def gap(self, since: float) -> float:
        """The longest time without an answer, from the last one before `since` until now."""
        moments = [*self.moments, time.monotonic()]
        first = max(x for x, moment in enumerate(moments) if moment <= since)
        return max(later - earlier for earlier, later in zip(moments[first:], moments[first + 1 :], strict=False))

    def tale(self, since: float) -> list[str]:
        """When it was answered, and when in vain, and why, from then on: the first of each kind in a row."""
        told = sorted([(x, "answered") for x in self.moments] + self.failures)
        told = [(x, what) for x, what in told if x > since]
        return [f"{x - since:.3f} {what}" for n, (x, what) in enumerate(told) if n == 0 or told[n - 1][1] != what]

    def turns(self, since: float) -> list[str]:
        """When another member answered than before, from then on."""
        told = list(zip(self.moments, self.said, strict=False))
        return [f"{x - since:.3f} {said}" for n, (x, said) in enumerate(told) if n == 0 or told[n - 1][1] != said]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()


def holds(amphora_id: str, address: str) -> bool:
    """Whether the address is there; an amphora that goes this very moment has none."""
    for row in ip_json("netns", "list"):
        if row["name"].endswith(amphora_id):
            words = ("ip", "-n", row["name"], "-o", "address", "show", "to", address)
            return bool(subprocess.run(words, capture_output=True, check=False).stdout)
    return False


def member_of(frontinus: Installation, amphora_id: str, client: str) -> str | None:
    """Which member its stick tables remember for this client, by the name that counts."""
    (path,) = (frontinus.state_dir / "amphorae" / amphora_id).glob("*.sock")

    def ask(command: str) -> str:
        descriptor = os.open(path.parent, os.O_PATH)  # a socket's path must be short
        try:
            with socket.socket(socket.AF_UNIX) as asking:
                asking.connect(f"/proc/self/fd/{descriptor}/{path.name}")
                asking.sendall(f"{command}\n".encode())
                return asking.makefile().read()
        finally:
            os.close(descriptor)

    dumps = "".join(ask(f"show table {name}") for name in re.findall(r"# table: (\S+),", ask("show table")))
    found = re.search(rf"key=\S*{re.escape(client)} .*server_key=(\S+)", dumps)
    return None if found is None else found[1]


def knows(frontinus: Installation, amphora_id: str, client: str) -> bool:
    """Whether its stick tables remember this client."""
    return member_of(frontinus, amphora_id, client) is not None


def kill(amphora_id: str, *programs: str) -> float:
    """SIGKILL; all that it runs when no program is named. When. All are stopped first: one that still ran could start another."""
    moment = time.monotonic()
    held: set[int] = set()
    while found := {x for x, name in processes_of(amphora_id).items() if not programs or name in programs} - held:
        for pid in found:
            os.kill(pid, signal.SIGSTOP)
        held |= found
    assert held
    for pid in held:
        os.kill(pid, signal.SIGKILL)
    return moment


def lose(pair: Pair, asking: Asking, *programs: str) -> str:
    """Kill these of the amphora that has the VIP, or all that it runs, and see the other one take over; whom."""
    frontinus, counted = pair.frontinus, pair.connections()
    frontinus.until(lambda: all(knows(frontinus, x["id"], CLIENT) for x in pair.amphorae()), "both know the client")
    victim = pair.master()
    assert victim is not None
    killed = kill(victim, *programs)
    frontinus.until(lambda: set(pair.holders()) - {victim}, "the other has the VIP")
    taken = time.monotonic() - killed
    frontinus.until(lambda: pair.master() not in (None, victim), "the other alone has the VIP")
    answered = len(asking.said)
    frontinus.until(lambda: len(asking.said) > answered + 10, "it answers")
    assert len(set(asking.said)) == 1, (
        f"the client's member was known to each: {asking.turns(killed)} {asking.tale(killed)}"
    )
    assert asking.gap(killed) < TAKEOVER_S, f"the other had the VIP after {taken:.2f} s: {asking.tale(killed)}"
    frontinus.until(pair.whole, "both serve", 30)
    assert asking.gap(killed) < REPAIR_S, f"the other had the VIP after {taken:.2f} s: {asking.tale(killed)}"
    frontinus.until(lambda: pair.connections() > counted, "connections are counted, and never fewer")
    return victim


def test_a_pair_loses_one_process_after_the_other_and_an_amphora(tmp_path: Path) -> None:
    with installation(tmp_path) as frontinus:
        pair = Pair(frontinus, session_persistence={"type": "SOURCE_IP"})
        one, two = pair.role("MASTER"), pair.role("BACKUP")
        assert (one["vrrp_priority"], two["vrrp_priority"]) == (100, 90)
        for each in (one, two):
            assert (each["vrrp_id"], each["ha_ip"], each["status"]) == (1, VIP, "ALLOCATED")
            assert each["vrrp_interface"] == "eth1"
        assert one["vrrp_ip"] != two["vrrp_ip"]
        assert pair.client.get(f"http://[{VIP_6}]/").startswith("member")
        assert not pair.client.reaches(two["vrrp_ip"], 1025), "stick tables are the peer's alone"

        with Asking(pair.client, f"http://{VIP}/") as asking:
            frontinus.until(lambda: len(asking.moments) > 50, "the client is answered")
            lose(pair, asking, "haproxy")
            lose(pair, asking, "keepalived")
            gone = lose(pair, asking)
            # Until it has been silent for long enough its row says that it serves, as the peer does: whole, and not yet so.
            frontinus.until(
                lambda: gone not in {x["id"] for x in pair.amphorae()} and pair.whole(), "it is replaced", 30
            )
        assert pair.client.get(f"http://[{VIP_6}]/").startswith("member")
        members = frontinus.call("GET", "/v2/lbaas/loadbalancers/" + pair.id + "/status")["statuses"]
        assert members["loadbalancer"]["operating_status"] == "ONLINE"


def test_a_failover_that_is_asked_for_costs_little(tmp_path: Path) -> None:
    with installation(tmp_path) as frontinus:
        pair = Pair(frontinus)
        before = {x["id"] for x in pair.amphorae()}
        with Asking(pair.client, f"http://{VIP}/") as asking:
            frontinus.until(lambda: len(asking.moments) > 20, "the client is answered")
            began = time.monotonic()
            frontinus.call("PUT", f"/v2/lbaas/loadbalancers/{pair.id}/failover")
            frontinus.until(
                lambda: before.isdisjoint(x["id"] for x in pair.amphorae()) and pair.whole(), "both are new", 40
            )
            assert asking.gap(began) < REPAIR_S  # its connections end first (stories_upgrades.py)
        victim = pair.role("BACKUP")["id"]
        frontinus.call("PUT", f"/v2/octavia/amphorae/{victim}/failover")
        frontinus.until(lambda: victim not in {x["id"] for x in pair.amphorae()} and pair.whole(), "it is new", 30)


def test_both_dead_are_replaced(tmp_path: Path) -> None:
    with installation(tmp_path) as frontinus:
        pair = Pair(frontinus)
        before = {x["id"] for x in pair.amphorae()}
        for amphora_id in before:
            kill(amphora_id)
        frontinus.until(lambda: before.isdisjoint(x["id"] for x in pair.amphorae()) and pair.whole(), "both new", 60)
        frontinus.until(lambda: pair.client.get(f"http://{VIP}/").startswith("member"), "it serves")


def test_a_reload_forgets_no_client(tmp_path: Path) -> None:
    """Two workers and two amphorae teach each other, and the worker that begins knows nobody: whom it gives another member in
    its first milliseconds has his own again after that."""
    with installation(tmp_path) as frontinus:
        pair = Pair(frontinus, session_persistence={"type": "SOURCE_IP"})
        pair.client.get(f"http://{VIP}/")
        frontinus.until(lambda: pair.remembered(CLIENT) is not None, "both know the client")
        known = pair.remembered(CLIENT)
        with Asking(pair.client, f"http://{VIP}/") as one, Asking(pair.client, f"http://{VIP}/") as two:
            for number in range(10):
                asked = len(one.said) + len(two.said)
                frontinus.until(lambda asked=asked: len(one.said) + len(two.said) > asked + 200, "clients are answered")  # type: ignore[misc]
                listener = {"protocol": "HTTP", "protocol_port": 90 + number, "loadbalancer_id": pair.id}
                frontinus.call("POST", "/v2/lbaas/listeners", {"listener": listener})
                frontinus.settled(pair.id)
                frontinus.until(lambda: pair.remembered(CLIENT) == known, f"both know the client's member: {number}", 2)
