"""A pair of virtual machines whose kernels carry datagrams (LVS): when the one that serves dies, the other goes on, and
knows which client was with which member. Run by test_sandbox.py."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any, Self

import pytest

from frontinus.model.ports import link_name

from tests.acceptance.support import report
from tests.integration.netns.hosts import Host, Installation, installation, ip_json
from tests.integration.netns.shop import IMAGE, MEMBERS, VIP, Shop

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

# Where the processor is emulated and busy, a machine may not get it for a third of a second, and is not dead for that.
OPTIONS = f"""default_topology = "ACTIVE_STANDBY"
[driver_options.haproxy]
vrrp_advert_interval = 0.4
[controller]
spares = 0
[driver_options.qemu]
image = "{IMAGE}"
"""
SOURCES = tuple(f"10.20.0.{last}" for last in range(20, 32))
BY_CLIENT, BY_SESSION = 5300, 5301
"""Ports of the listeners: one remembers clients, the other sends each session of a client's to a member of its own."""

FIRST_PORT = 40_000
TOLD_WITHIN_S = 5.0
"""The kernel gathers what it tells its peer for two seconds at most, and looks once a second."""

TOLD_AGAIN_WITHIN_S = 15.0
"""net.ipv4.vs.sync_refresh_period is ten: a peer that was not there has heard of what goes on by then."""


class Clients:
    """Ask from many addresses, again and again; and note who answered whom."""

    def __init__(self, host: Host) -> None:
        self.answers: list[tuple[float, tuple[int, str], str]] = []
        self._host = host
        self._ending = threading.Event()
        self._thread = threading.Thread(target=lambda: host.within(self._ask))

    def _ask(self) -> None:
        while not self._ending.is_set():
            for number, source in enumerate(SOURCES):
                for port, own in ((BY_CLIENT, 0), (BY_SESSION, FIRST_PORT + number)):
                    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
                        asking.bind((source, own))
                        asking.settimeout(0.1)
                        asking.sendto(b"who", (VIP, port))
                        try:
                            name = asking.recv(2048).decode()
                        except OSError:
                            continue
                    self.answers.append((time.monotonic(), (port, source), name))

    def members(self, since: float = 0.0) -> dict[tuple[int, str], set[str]]:
        """Who has answered each of them, by the port that it asked."""
        found: dict[tuple[int, str], set[str]] = defaultdict(set)
        for moment, asker, name in list(self.answers):
            if moment > since:
                found[asker].add(name)
        return dict(found)

    def all_answered(self, since: float) -> bool:
        return len(self.members(since)) == 2 * len(SOURCES)

    def gap(self, since: float) -> float:
        """The longest time without an answer to anybody, from the last one before `since`."""
        moments = [moment for moment, _, _ in list(self.answers)]
        first = max(x for x, moment in enumerate(moments) if moment <= since)
        return max(later - earlier for earlier, later in zip(moments[first:], moments[first + 1 :], strict=False))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()


def listener(port: int, **pool: Any) -> dict[str, Any]:
    members = [{"address": each, "protocol_port": 8080} for each in MEMBERS]
    wanted = {"name": f"of-{port}", "protocol": "UDP", "lb_algorithm": "ROUND_ROBIN", "members": members, **pool}
    return {"name": f"at-{port}", "protocol": "UDP", "protocol_port": port, "default_pool": wanted}


def amphorae(frontinus: Installation, load_balancer_id: str) -> list[dict[str, Any]]:
    return list(frontinus.call("GET", f"/v2.0/octavia/amphorae?loadbalancer_id={load_balancer_id}")["amphorae"])


def sessions(frontinus: Installation, amphora: dict[str, Any]) -> int:
    """How many it carries, as it says."""
    rows = frontinus.call("GET", f"/v2.0/octavia/amphorae/{amphora['id']}/stats")["amphora_stats"]
    return sum(int(row["active_connections"]) for row in rows)


def is_whole(frontinus: Installation, load_balancer_id: str) -> bool:
    statuses = sorted((x["role"], x["status"]) for x in amphorae(frontinus, load_balancer_id))
    settled = frontinus.load_balancer(load_balancer_id)["provisioning_status"] == "ACTIVE"
    return settled and statuses == [("BACKUP", "ALLOCATED"), ("MASTER", "ALLOCATED")]


def holder(frontinus: Installation, load_balancer_id: str, client: Host) -> dict[str, Any] | None:
    """The amphora from whose side the client sees the VIP's MAC."""
    seen = ip_json("-n", client.name, "neighbour", "show", VIP)
    for amphora in amphorae(frontinus, load_balancer_id) if seen else ():
        if seen[0].get("lladdr") in macs_behind(link_name(amphora["vrrp_port_id"])):
            return amphora
    return None


def macs_behind(link: str) -> set[str]:
    """What a bridge has learnt by this link; nothing when there is none."""
    done = subprocess.run(["bridge", "-json", "fdb", "show", "dev", link], capture_output=True, check=False)
    return {str(x["mac"]) for x in json.loads(done.stdout or "[]")}


def kill_holder(frontinus: Installation, load_balancer_id: str, client: Host) -> tuple[str, float]:
    """SIGKILL the machine that serves; which, and when."""
    serving = holder(frontinus, load_balancer_id, client)
    assert serving is not None
    pid = int((frontinus.state_dir / "machines" / serving["id"] / "qemu.pid").read_text())
    moment = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    return str(serving["id"]), moment


def test_clients_stay_with_their_members_whoever_carries_them(tmp_path: Path) -> None:
    with installation(tmp_path, "qemu", OPTIONS) as frontinus:
        shop = Shop(frontinus, *(f"{each}/24" for each in SOURCES))
        persistence = {"type": "SOURCE_IP", "persistence_timeout": 600}
        wanted = [listener(BY_CLIENT, session_persistence=persistence), listener(BY_SESSION)]
        made = shop.create(listeners=wanted)
        frontinus.until(lambda: is_whole(frontinus, made), "both serve", 240)
        with Clients(shop.client) as clients:
            frontinus.until(lambda: clients.all_answered(0), "everybody is answered", 30)
            told = time.monotonic() + TOLD_WITHIN_S
            frontinus.until(lambda: time.monotonic() > told, "the peer was told")
            before = clients.members()
            assert {len(names) for names in before.values()} == {1}
            assert {name for (port, _), (name,) in before.items() if port == BY_CLIENT} == {"member-0", "member-1"}

            serving = holder(frontinus, made, shop.client)
            assert serving is not None
            frontinus.until(lambda: sessions(frontinus, serving) > 0, "its sessions are counted")
            (other,) = (x for x in amphorae(frontinus, made) if x["id"] != serving["id"])
            assert sessions(frontinus, other) == 0, "copies are counted"

            first, killed = kill_holder(frontinus, made, shop.client)
            frontinus.until(lambda: clients.all_answered(killed), "everybody is answered again", 30)
            assert before == clients.members(killed)
            report(f"machine killed to answered by its peer: {clients.gap(killed):.2f} s")

            # The replacement was told by nobody when the sessions began, but while they go on.
            frontinus.until(lambda: is_whole(frontinus, made), "the pair is whole again", 240)
            assert first not in {x["id"] for x in amphorae(frontinus, made)}
            told = time.monotonic() + TOLD_AGAIN_WITHIN_S
            frontinus.until(lambda: time.monotonic() > told, "the new peer was told")
            second, killed = kill_holder(frontinus, made, shop.client)
            assert second != first
            frontinus.until(lambda: clients.all_answered(killed), "everybody is answered again", 30)
            assert before == clients.members(killed)
            report(f"its peer killed to answered by the replacement: {clients.gap(killed):.2f} s")
        assert before == clients.members(), "somebody was with another member in between"
