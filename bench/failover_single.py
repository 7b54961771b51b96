"""From a death in an amphora that stands alone to traffic restored, as a client sees it that asks every 5 ms; over a whole
`frontinus up`, for an amphora that is a directory of processes, a namespace or a virtual machine, without and with a spare.

A round is one death of each kind, so that HAProxy's deaths are of different amphorae (an agent waits before it starts
again what dies again and again). The gap is the longest time between two answers around a death. Goals (issue 5): HAProxy
below 500 ms, the whole amphora below 5 s. `netns` and `qemu` need root, and run in a sandbox that ends with them; `qemu`
needs the image (make image), and reaches into a guest by a file of its own in the RAM disk (places/reaper.py).

Usage: python bench/failover_single.py [ROUNDS] [--place process|netns|qemu] [--spare] [KIND ...]"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from common import print_result, summary
from failover import Client, asking

from frontinus.model.ports import link_name

from tests.acceptance.support import COMMAND, Installation, backend, free_port, until
from tests.integration.netns.hosts import Host, ip
from tests.integration.netns.test_sandbox import PREPARE, UNSHARE
from tests.integration.places import reaper

GOAL_MS: dict[str, int | None] = {"haproxy": 500, "agent": None, "link": None, "amphora": 5000}
KINDS = {
    "process": ("haproxy", "agent", "amphora"),
    "netns": ("haproxy", "agent", "link", "amphora"),
    "qemu": ("haproxy", "agent", "link", "amphora"),
}
IN_GUEST = {"haproxy": reaper.HAPROXY, "agent": reaper.AGENT}
IMAGE = Path(__file__).parents[1] / ".cache" / "image"
IN_SANDBOX = "FRONTINUS_BENCH_SANDBOX"
EVERY_MS = {"qemu": 50}
"""How often the client asks, where that is not every 5 ms: an emulated machine does not take 200 connections a second."""
PATIENCE_S = 150.0
AGENT_PORT = 9443
SETTLED = "load balancer settled"
CALM_S = 0.9
"""Nothing may fail any more in this time after a death is over."""
SOURCES = range(20, 36)
"""Last bytes of the addresses of clients whose members are to be remembered."""
VIP, CLIENT, MEMBERS = "10.20.0.150", "10.20.0.2", ("10.20.0.11", "10.20.0.12")


class Scene:
    """An installation with one load balancer, and what can be killed of it."""

    def __init__(
        self,
        place: str,
        installation: Installation,
        load_balancer: dict[str, Any],
        port: int,
        client: Host | None,
        *,
        spare: bool,
    ) -> None:
        self.place, self.spare = place, spare
        self._address, self._client = (str(load_balancer["vip_address"]), port), client
        self._sources = [("127.0.0.{}" if client is None else "10.20.0.{}").format(x) for x in SOURCES]
        self._installation, self._api = installation, installation.api()
        self.id = str(load_balancer["id"])
        self._spares_taken = 0
        self._settlings = 0

    def amphora(self) -> dict[str, Any]:
        """The one that serves, as soon as one does."""
        return dict(until(lambda: self._serving()[:1], PATIENCE_S, "none serves")[0])

    def pids(self, amphora_id: str, of: Callable[[str], bool] = lambda _: True) -> list[int]:
        """Its processes whose command line is such."""
        mark = f"FRONTINUS_AMPHORA_ID={amphora_id}"
        running = self._installation.amphora_processes()
        return [x.pid for x in running if mark in x.environment and of(x.command)]

    def kill(self, what: str, amphora: dict[str, Any]) -> float:
        """Have it die by force; when."""
        self._settlings = self._log().count(SETTLED)
        match what:
            case "haproxy" | "agent" if self.place == "qemu":
                moment = time.monotonic()
                assert reaper.kill(self._machine(amphora), IN_GUEST[what])
                return moment
            case "haproxy":
                return _sigkill(self.pids(amphora["id"], _is_haproxy))
            case "agent":
                return _sigkill(self.pids(amphora["id"], _is_agent))
            case "link":
                moment = time.monotonic()
                ip("link", "delete", link_name(amphora["vrrp_port_id"]))
                return moment
            case "amphora" if self.place == "qemu":
                return _sigkill([int((self._machine(amphora) / "qemu.pid").read_text())])
            case "amphora":
                moment = _sigkill(self.pids(amphora["id"]))
                for name in Path("/run/netns").glob(f"*{amphora['id']}") if self.place == "netns" else ():
                    ip("netns", "delete", name.name)
                return moment
            case _:
                raise ValueError(what)

    def await_recovery(self, what: str, before: dict[str, Any]) -> None:
        """Until what died is there again, by itself or by another in its place."""
        match what:
            case "amphora":
                self._spares_taken += 1
                until(lambda: self._serving_since(before), PATIENCE_S, "it is not replaced")
            case "agent" if self.place == "qemu":
                # Starting takes seconds there; what dies meanwhile would be a second death at a time.
                until(lambda: _listens(before["lb_network_ip"]), PATIENCE_S, "no agent", pause=0.2)
            case "agent":
                until(lambda: self.pids(self.amphora()["id"], _is_agent), PATIENCE_S, "no agent")
        if what in ("link", "amphora"):
            # Traffic is back before the controller is done. One that speaks with a machine that dies that very moment waits
            # for its answer first, which would be a second death at a time, too.
            until(lambda: self._log().count(SETTLED) > self._settlings, PATIENCE_S, "it is not settled", pause=0.1)
        self._api.settled(self.id, PATIENCE_S)

    def await_spare(self) -> None:
        if self.spare:
            until(lambda: self._spares_made() > self._spares_taken, PATIENCE_S, "there is no spare amphora", pause=0.1)

    def members(self) -> dict[str, str]:
        """Which member answers each of some clients, who are told apart by their addresses. Asked in any order: what was
        forgotten must not come out right because the turn is the same."""

        def ask(source: str) -> str:
            with socket.create_connection(self._address, 10, (source, 0)) as connection:
                connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
                answer = b"".join(iter(lambda: connection.recv(4096), b""))
            return answer.rpartition(b"\r\n")[2].decode()

        def ask_all() -> dict[str, str]:
            return {x: ask(x) for x in random.sample(self._sources, len(self._sources))}

        return ask_all() if self._client is None else self._client.within(ask_all)

    def connections(self) -> int:
        return int(self._api.get(f"/v2/lbaas/loadbalancers/{self.id}/stats")[1]["stats"]["total_connections"])

    def _machine(self, amphora: dict[str, Any]) -> Path:
        return self._installation.state_dir / "machines" / str(amphora["id"])

    def _serving_since(self, before: dict[str, Any]) -> bool:
        return any(x["id"] != before["id"] for x in self._serving())

    def _serving(self) -> list[dict[str, Any]]:
        amphorae = self._api.get(f"/v2/octavia/amphorae?loadbalancer_id={self.id}")[1]["amphorae"]
        return [x for x in amphorae if x["status"] == "ALLOCATED"]

    def _spares_made(self) -> int:
        return self._log().count("spare amphora ready")

    def _log(self) -> str:
        return (self._installation.state_dir.parent / "up.log").read_text(errors="replace")


def _listens(address: str) -> bool:
    """Whether an agent does, at this address."""
    try:
        with socket.create_connection((address, AGENT_PORT), 1):
            return True
    except OSError:
        return False


def _is_haproxy(command: str) -> bool:
    return Path(command.split(" ", 1)[0]).name == "haproxy"


def _is_agent(command: str) -> bool:
    return "frontinus_amphora" in command


def _sigkill(pids: list[int]) -> float:
    assert pids
    moment = time.monotonic()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    return moment


@contextmanager
def scene(place: str, *, spare: bool) -> Iterator[tuple[Scene, Client]]:
    """Everything set up, serving and asked; taken away afterwards."""
    config = f"[controller]\nspares = {int(spare)}\n"
    if place != "process":
        config += f'[drivers]\ncompute = "{place}"\nnetwork = "bridge"\n'
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="frontinus-bench-")))
        if place == "qemu":
            image, program = reaper.with_reaper(IMAGE, directory / "image")
            config += f'[driver_options.qemu]\nimage = "{image}"\nprogram = "{program}"\n'
        made = Installation(directory / "state", config)
        pool = {"session_persistence": {"type": "SOURCE_IP"}}
        if place == "process":
            stack.callback(made.remove)
            made.start()
            members = [stack.enter_context(backend(f"member-{n}")) for n in (1, 2)]
            port, host = free_port(), None
            load_balancer = made.api().web_load_balancer(members, port, **pool)
        else:
            subnet, host = _make_network(made)
            stack.callback(made.remove)
            made.start()
            port = 80
            load_balancer = made.api().create(
                "loadbalancers",
                "loadbalancer",
                vip_subnet_id=subnet,
                vip_address=VIP,
                listeners=[{"protocol": "HTTP", "protocol_port": port, "default_pool": _pool(pool)}],
            )
        made.api().settled(load_balancer["id"], PATIENCE_S)
        client = stack.enter_context(
            asking("client" if host else "", load_balancer["vip_address"], port, EVERY_MS.get(place, 5))
        )
        yield Scene(place, made, load_balancer, port, host, spare=spare), client


def _pool(more: dict[str, Any]) -> dict[str, Any]:
    members = [{"address": x, "protocol_port": 8080} for x in MEMBERS]
    return {"name": "web", "protocol": "HTTP", "lb_algorithm": "ROUND_ROBIN", "members": members, **more}


def _make_network(made: Installation) -> tuple[str, Host]:
    """A network with a client and the members on it: the id of its subnet, and the client."""

    def frontinus(*words: str) -> str:
        options = ["--config", str(made.state_dir.parent / "frontinus.toml"), "--state-dir", str(made.state_dir)]
        done = subprocess.run([*COMMAND, *words, *options], check=True, capture_output=True, text=True)
        return done.stdout.strip()

    frontinus("network", "create", "front")
    pool = ("--pool", "10.20.0.100-10.20.0.200")  # or an amphora could be given a member's address
    subnet = frontinus("network", "subnet", "create", *pool, "front", "10.20.0.0/24")
    bridge = json.loads(frontinus("network", "list", "--json"))[0]["bridge"]
    client = Host("client", bridge, f"{CLIENT}/24", *(f"10.20.0.{x}/24" for x in SOURCES))
    for number, address in enumerate(MEMBERS, 1):
        Host(f"member-{number}", bridge, f"{address}/24").serve(8080)
    return subnet, client


def main(rounds: int, place: str, kinds: tuple[str, ...], *, spare: bool) -> None:
    taken: dict[str, list[float]] = {kind: [] for kind in kinds}
    remembered = dict.fromkeys(kinds, 0)
    counted: list[int] = []
    with scene(place, spare=spare) as (there, client):
        for _ in range(rounds):
            for kind in kinds:
                there.await_spare()
                client.await_answer(time.monotonic() + CALM_S / 4)
                before, members = there.amphora(), there.members()
                counted.append(there.connections())
                killed = there.kill(kind, before)
                there.await_recovery(kind, before)
                client.await_answer(time.monotonic() + CALM_S, PATIENCE_S)
                taken[kind].append(client.gap(killed))
                remembered[kind] += len(members.items() & there.members().items())
                print(f"{kind}: {taken[kind][-1]:.3f} s", file=sys.stderr, flush=True)
        until(lambda: there.connections() > counted[-1], 30, "nothing is counted any more")
    assert counted == sorted(counted), f"counters went back: {counted}"
    asked = f"of {rounds * len(SOURCES)}"
    found = {
        kind: {**summary(taken[kind]), "goal_ms": GOAL_MS[kind], "sessions_kept": f"{remembered[kind]} {asked}"}
        for kind in kinds
    }
    print_result("failover_single", place=place, spare=spare, **found, answers=len(client.answers))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("rounds", nargs="?", type=int, default=20)
    parser.add_argument("--place", choices=sorted(KINDS), default="process")
    parser.add_argument("--spare", action="store_true")
    parser.add_argument("kinds", nargs="*", metavar="KIND")
    arguments = parser.parse_intermixed_args()
    if arguments.place != "process" and IN_SANDBOX not in os.environ:
        again = ("sh", "-c", PREPARE, "sh", sys.executable, *sys.argv)
        os.execvpe(UNSHARE[0], [*UNSHARE, *again], {**os.environ, IN_SANDBOX: "yes"})
    main(arguments.rounds, arguments.place, tuple(arguments.kinds) or KINDS[arguments.place], spare=arguments.spare)
