"""A pair is replaced under clients who never pause, and none of them notices: because its agents are too old for what the
tenant asks for, or because an operator asks. What is seen is printed, in lines that begin with `seen:`. Run by test_sandbox.py."""

from __future__ import annotations

import http.client
import socket
import sqlite3
import sys
import threading
import time
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import pytest

from tests.compatibility.subjects import PAST, Past, source_of
from tests.integration.netns.hosts import Host, Installation, installation, processes_of
from tests.integration.netns.stories_pairs import CLIENT, MEMBERS, VIP, Pair

LATEST_S = 5.0
"""How long a client waits for anything: what takes longer is a failure. Who asks for a connection at the worst moment asks again
after one second, and after three; the rest is the machine's."""


class Client(ABC):
    """A thread of a host that asks without a pause."""

    def __init__(self, host: Host) -> None:
        self.moments: list[float] = []
        self.said: list[str] = []
        self.failures: list[tuple[float, str]] = []
        self._ending = threading.Event()
        self._thread = threading.Thread(target=lambda: host.within(self._work))

    @abstractmethod
    def ask(self) -> str:
        """One question; what was answered. Raises OSError, HTTPException."""

    def _work(self) -> None:
        while not self._ending.is_set():
            try:
                self.said.append(self.ask())
            except (OSError, http.client.HTTPException) as error:
                self.failures.append((time.monotonic(), repr(error)))
                continue
            self.moments.append(time.monotonic())

    def longest_pause(self, since: float) -> float:
        moments = [*(x for x in self.moments if x >= since), time.monotonic()]
        return max(later - earlier for earlier, later in zip([since, *moments], moments, strict=False))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()
        self.close()

    def close(self) -> None:  # noqa: B027 - as a rule there is nothing open
        """Nothing is open any more."""


class NewEachTime(Client):
    """A connection for each request."""

    def __init__(self, host: Host, path: str = "/", pause: float = 0.005) -> None:
        super().__init__(host)
        self._url, self._pause = f"http://{VIP}{path}", pause
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def ask(self) -> str:
        time.sleep(self._pause)
        with self._opener.open(self._url, timeout=LATEST_S) as answer:
            return str(answer.read().decode())


class Kept(Client):
    """One connection as long as the server keeps it, as browsers and pools of connections have it; nothing is sent twice."""

    def __init__(self, host: Host, pause: float) -> None:
        super().__init__(host)
        self._pause = pause
        self._connection = http.client.HTTPConnection(VIP, timeout=LATEST_S)
        self.opened = 0

    def ask(self) -> str:
        time.sleep(self._pause)
        if self._connection.sock is None:
            self._connection.connect()
            self.opened += 1
        try:
            self._connection.request("GET", "/")
            return self._connection.getresponse().read().decode()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            raise

    def close(self) -> None:
        self._connection.close()


class Conversation(Client):
    """TCP: twenty lines there and back in a connection, in half a second."""

    def ask(self) -> str:
        with socket.create_connection((VIP, 81), timeout=LATEST_S) as talking:
            for number in range(20):
                line = f"line {number}\n".encode()
                talking.sendall(line)
                heard = b""
                while len(heard) < len(line):
                    part = talking.recv(4096)
                    if not part:
                        raise ConnectionError(f"closed in the midst of a conversation, at line {number}")
                    heard += part
                assert heard == line
                time.sleep(0.025)
        return "echo"


def tell(line: str) -> None:
    print(f"seen: {line}")  # noqa: T201 - the figures


def cut_connections(host: Host) -> dict[str, int]:
    """The kernel's count of connections of this host that a reset ended, and that were refused."""

    def read() -> dict[str, int]:
        names, values = (x.split() for x in Path("/proc/thread-self/net/snmp").read_text().splitlines() if "Tcp:" in x)
        counted = dict(zip(names[1:], map(int, values[1:]), strict=True))
        return {x: counted[x] for x in ("EstabResets", "AttemptFails")}

    return host.within(read)


class Watched:
    """All clients at once, and what they saw since."""

    def __init__(self, pair: Pair) -> None:
        host = pair.client
        self._pair = pair
        self.clients: dict[str, Client] = {
            "new connections": NewEachTime(host),
            "kept connection": Kept(host, 0.002),
            "connection idle for 0.7 s at a time": Kept(host, 0.7),
            "answers that take 0.4 s": NewEachTime(host, "/after/0.4"),
            "conversations over TCP": Conversation(host),
        }
        self.began = 0.0

    @contextmanager
    def asking(self) -> Iterator[Self]:
        with ExitStack() as stack:
            for client in self.clients.values():
                stack.enter_context(client)
            self.go_on()
            self.cut = cut_connections(self._pair.client)
            self.began = time.monotonic()
            yield self

    def go_on(self, times: int = 3) -> None:
        """Every one of them is answered again."""
        before = {x: len(client.moments) for x, client in self.clients.items()}
        self._pair.frontinus.until(
            lambda: all(len(client.moments) >= before[x] + times for x, client in self.clients.items()),
            f"all are answered: {[(x, client.failures[-1:]) for x, client in self.clients.items()]}",
        )

    def assert_unharmed(self, what: str) -> None:
        took = time.monotonic() - self.began
        cut = {x: count - self.cut[x] for x, count in cut_connections(self._pair.client).items()}
        tell(f"{what} in {took:.1f} s; connections reset {cut['EstabResets']}, refused {cut['AttemptFails']}")
        for name, client in self.clients.items():
            answered = sum(x >= self.began for x in client.moments)
            pause = client.longest_pause(self.began)
            tell(f"  {name}: {answered} answered, {len(client.failures)} failed, longest pause {pause:.2f} s")
        assert {x: client.failures for x, client in self.clients.items() if client.failures} == {}
        assert cut == {"EstabResets": 0, "AttemptFails": 0}

    def assert_known_to(self, member: str) -> None:
        """The stick table was handed on, to each amphora that came. While a worker begins it knows nobody yet."""
        said = [x for client in self.clients.values() if not isinstance(client, Conversation) for x in client.said]
        strays = len(said) - said.count(member)
        tell(
            f"  {strays} of {len(said)} answers by another than the client's member, which is known to the new amphorae"
        )
        assert {self._pair.client.get(f"http://{VIP}/") for _ in range(5)} == {member}
        self._pair.frontinus.until(lambda: self._pair.remembered(CLIENT) is not None, "both know the client")


def a_pair(frontinus: Installation, **pool: object) -> Pair:
    """With a TCP listener beside HTTP."""
    pair = Pair(frontinus, **pool)
    for member in pair.members:
        member.echo(8081)
    of = {"loadbalancer_id": pair.id, "protocol": "TCP"}
    pool_id = frontinus.call("POST", "/v2/lbaas/pools", {"pool": {**of, "lb_algorithm": "ROUND_ROBIN"}})["pool"]["id"]
    members = [{"address": x, "protocol_port": 8081} for x in MEMBERS]
    frontinus.call("PUT", f"/v2/lbaas/pools/{pool_id}/members", {"members": members})
    listener = {**of, "protocol_port": 81, "default_pool_id": pool_id}
    frontinus.call("POST", "/v2/lbaas/listeners", {"listener": listener})
    frontinus.settled(pair.id)
    return pair


def replaced(pair: Pair, before: dict[str, str]) -> Callable[[], bool]:
    """Whether both are, one after the other: what was left of them is kept in `seen`."""
    seen = list[frozenset[str]]()

    def done() -> bool:
        there = {x["id"] for x in pair.amphorae()}
        left = frozenset(role for role, amphora_id in before.items() if amphora_id in there)
        if left not in seen:
            seen.append(left)
        if left or not pair.whole():
            return False
        assert seen[-2:] == [frozenset({"MASTER"}), frozenset()], f"the BACKUP goes first, then the MASTER: {seen}"
        return True

    return done


def agent_of(source: Path, directory: Path) -> Path:
    """A program that is the agent of this source."""
    program = directory / "agent-of-the-past"
    program.write_text(f'#!/bin/sh\nPYTHONPATH={source} exec {sys.executable} -P -m frontinus_amphora "$@"\n')
    program.chmod(0o755)
    return program


def runs_from(amphora_id: str, source: Path) -> bool:
    """Whether an amphora's agent is of this source."""
    environments = [Path(f"/proc/{pid}/environ").read_bytes() for pid in processes_of(amphora_id)]
    return any(f"PYTHONPATH={source}\0".encode() in x for x in environments)


def ask_for_datagrams(pair: Pair) -> None:
    listener = {"protocol": "UDP", "protocol_port": 82, "loadbalancer_id": pair.id}
    pair.frontinus.call("POST", "/v2/lbaas/listeners", {"listener": listener})


def ask_for_a_limit_of_memory(pair: Pair) -> None:
    """Its flavor has one, since the restart; the next change of anything needs it."""
    (listener,) = (x for x in listeners(pair) if x["protocol"] == "HTTP")
    change = {"listener": {"timeout_client_data": 40_000}}
    pair.frontinus.call("PUT", f"/v2/lbaas/listeners/{listener['id']}", change)


def listeners(pair: Pair) -> list[dict[str, Any]]:
    return list(pair.frontinus.call("GET", f"/v2/lbaas/listeners?loadbalancer_id={pair.id}")["listeners"])


def limit_memory(frontinus: Installation) -> None:
    """No tenant can: a flavor is for good, and before today no agent would have been given one with this."""
    database = sqlite3.connect(frontinus.state_dir / "frontinus.sqlite")
    with database:
        database.execute("UPDATE load_balancer SET max_memory = 512")
    database.close()


NEEDS: dict[str, Callable[[Pair], None]] = {
    "amphora-0.5": ask_for_datagrams,
    "amphora-0.6": ask_for_a_limit_of_memory,
}
"""What each cannot do, of those that know pairs."""


@pytest.mark.parametrize("past", [pytest.param(x, id=x.name) for x in PAST if x.name in NEEDS])
def test_an_older_pair_is_upgraded_by_a_push(past: Past, tmp_path: Path) -> None:
    """Agents of the past, today's control plane, and a change that those agents cannot carry."""
    source = source_of(past, tmp_path)
    theirs = f'[driver_options.netns]\nagent_command = ["{agent_of(source, tmp_path)}"]\n'
    with installation(tmp_path / "state", more=theirs) as frontinus:
        pair = a_pair(frontinus, session_persistence={"type": "SOURCE_IP"})
        before = {x["role"]: x["id"] for x in pair.amphorae()}
        assert all(runs_from(x, source) for x in before.values())
        watched = Watched(pair)
        known = pair.client.get(f"http://{VIP}/")
        with watched.asking():
            frontinus.stop()  # the upgrade: amphorae go on
            frontinus.config.write_text(frontinus.config.read_text().removesuffix(theirs))
            if NEEDS[past.name] is ask_for_a_limit_of_memory:
                limit_memory(frontinus)
            frontinus.start()
            frontinus.until(pair.whole, "both serve")
            watched.go_on()
            assert {x["role"]: x["id"] for x in pair.amphorae()} == before, "nothing is replaced before there is a need"
            began = time.monotonic()
            NEEDS[past.name](pair)
            frontinus.until(replaced(pair, before), "both are new", 90)
            took = time.monotonic() - began
            watched.go_on()
        watched.assert_unharmed(f"{past.name}, upgraded (both amphorae new after {took:.1f} s)")
        assert not any(runs_from(x["id"], source) for x in pair.amphorae())
        watched.assert_known_to(known)


@pytest.mark.parametrize("of", ["load balancer", "amphora"])
def test_a_failover_that_is_asked_for_fails_no_request(of: str, tmp_path: Path) -> None:
    """Of a pair in health: of all of it, and of the amphora that has the VIP."""
    with installation(tmp_path) as frontinus:
        pair = a_pair(frontinus, session_persistence={"type": "SOURCE_IP"})
        before = {x["role"]: x["id"] for x in pair.amphorae()}
        watched = Watched(pair)
        known = pair.client.get(f"http://{VIP}/")
        with watched.asking():
            if of == "load balancer":
                frontinus.call("PUT", f"/v2/lbaas/loadbalancers/{pair.id}/failover")
                frontinus.until(replaced(pair, before), "both are new", 60)
            else:
                victim = pair.master()
                frontinus.call("PUT", f"/v2/octavia/amphorae/{victim}/failover")
                frontinus.until(
                    lambda: victim not in {x["id"] for x in pair.amphorae()} and pair.whole(), "it is new", 30
                )
            watched.go_on()
        watched.assert_unharmed(f"failover of the {of}")
        watched.assert_known_to(known)


def test_what_lasts_too_long_is_closed_and_not_reset(tmp_path: Path) -> None:
    """A connection that is open for longer than an amphora waits ends in good order."""
    theirs = "[driver_options.haproxy]\ndrain_timeout = 1\ndrain_pause = 0.3\n"
    with installation(tmp_path, more=theirs) as frontinus:
        pair = a_pair(frontinus)
        victim = pair.master()

        cut = cut_connections(pair.client)
        with pair.client.within(lambda: socket.create_connection((VIP, 81), timeout=20)) as talking:
            talking.sendall(b"hello\n")
            assert talking.recv(4096) == b"hello\n"
            frontinus.call("PUT", f"/v2/octavia/amphorae/{victim}/failover")
            assert talking.recv(4096) == b"", "an orderly end"
        assert cut_connections(pair.client) == cut
        frontinus.until(lambda: victim not in {x["id"] for x in pair.amphorae()} and pair.whole(), "it is new", 30)
