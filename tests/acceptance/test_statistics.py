"""What the API tells of traffic is what was sent, byte for byte, whatever dies in between; and it never goes back."""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, Self

import pytest

from tests.acceptance.support import Api, Backend, Installation, free_port, report, until

pytestmark = pytest.mark.long

GROWING = ("bytes_in", "bytes_out", "total_connections")
REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


class Traffic:
    """Requests through a TCP listener, where HAProxy's bytes are the wire's; what was sent and heard is counted."""

    def __init__(self, host: str, port: int) -> None:
        self._address = (host, port)
        self.sent = dict.fromkeys(GROWING, 0)

    def send(self, count: int) -> None:
        for _ in range(count):
            heard = 0
            with socket.create_connection(self._address, 5) as connection:
                connection.sendall(REQUEST)
                while part := connection.recv(65_536):
                    heard += len(part)
            assert heard > 0
            self.sent["bytes_in"] += len(REQUEST)
            self.sent["bytes_out"] += heard
            self.sent["total_connections"] += 1


class Watcher:
    """Looks at the statistics all the time, and remembers every step back."""

    def __init__(self, api: Api, paths: tuple[str, ...]) -> None:
        self._api = api
        self._paths = paths
        self.backward: list[str] = []
        self.looks = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        before: dict[str, dict[str, int]] = {}
        while not self._stop.wait(0.05):
            for path in self._paths:
                try:
                    now: dict[str, int] = self._api.show(f"{path}/stats", "stats")
                except (OSError, AssertionError):
                    continue  # the control plane is down at this moment
                last = before.get(path, now)
                self.backward += [
                    f"{path} {name}: {last[name]} -> {now[name]}" for name in GROWING if now[name] < last[name]
                ]
                before[path] = now
                self.looks += 1

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)


def haproxy_pids(installation: Installation) -> list[int]:
    return [x.pid for x in installation.amphora_processes() if re.match(r"\S*haproxy ", x.command)]


def kill_haproxy(installation: Installation) -> None:
    pids = haproxy_pids(installation)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    until(lambda: (seen := haproxy_pids(installation)) and not set(seen) & set(pids), 20, "haproxy does not come back")


def agents(installation: Installation) -> list[int]:
    return [x.pid for x in installation.amphora_processes() if "frontinus_amphora" in x.command]


def kill_agent(installation: Installation) -> None:
    before = agents(installation)
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    until(lambda: (now := agents(installation)) and not set(now) & set(before), 30, "the agent is not started again")


def kill_amphora(installation: Installation) -> None:
    before = installation.amphora_ids()
    installation.kill_amphorae()
    until(lambda: (now := installation.amphora_ids()) and not now & before, 30, "no replacement comes")


def restart_control_plane(installation: Installation) -> None:
    installation.kill()
    installation.start()


def test_totals_are_what_was_sent_whatever_dies(installation: Installation, api: Api, backends: list[Backend]) -> None:
    port = free_port()
    load_balancer = api.create("loadbalancers", "loadbalancer", vip_subnet_id=api.subnet_id())
    load_balancer_id = load_balancer["id"]
    listener = api.create("listeners", "listener", loadbalancer_id=load_balancer_id, protocol="TCP", protocol_port=port)
    pool = api.create("pools", "pool", listener_id=listener["id"], protocol="TCP", lb_algorithm="ROUND_ROBIN")
    for server in backends:
        api.create(f"pools/{pool['id']}/members", "member", address="127.0.0.1", protocol_port=server.port)
    api.settled(load_balancer_id)
    paths = (f"listeners/{listener['id']}", f"loadbalancers/{load_balancer_id}")
    traffic = Traffic(load_balancer["vip_address"], port)

    def told(path: str) -> dict[str, int]:
        stats: dict[str, Any] = api.show(f"{path}/stats", "stats")
        return {name: stats[name] for name in GROWING}

    def all_is_told(what: str) -> None:
        until(
            lambda: [told(path) for path in paths] == [traffic.sent] * 2,
            15,
            f"after {what}: told {[told(path) for path in paths]}, sent {traffic.sent}",
            pause=0.1,
        )

    def reload(_: Installation) -> None:
        api.update(f"listeners/{listener['id']}", "listener", timeout_client_data=40_000 + int(time.monotonic()))
        api.settled(load_balancer_id)

    def disable_and_enable(_: Installation) -> None:
        for up in (False, True):
            api.update(f"listeners/{listener['id']}", "listener", admin_state_up=up)
            api.settled(load_balancer_id)

    def fail_over(_: Installation) -> None:
        before = installation.amphora_ids()
        status, answer = api.call("PUT", f"/v2/lbaas/loadbalancers/{load_balancer_id}/failover")
        assert status == 202, answer
        until(lambda: (now := installation.amphora_ids()) and not now & before, 30, "no replacement comes")

    events: tuple[tuple[str, Callable[[Installation], None]], ...] = (
        ("a reload", reload),
        ("a disabled listener", disable_and_enable),
        ("HAProxy's death", kill_haproxy),
        ("the agent's death", kill_agent),
        ("the control plane's death", restart_control_plane),
        ("a failover", fail_over),
        ("the amphora's death", kill_amphora),
    )

    def serves() -> bool:
        try:
            traffic.send(1)
        except (OSError, AssertionError):
            return False
        return True

    with Watcher(api, paths) as watcher:
        traffic.send(20)
        all_is_told("the first requests")
        for what, event in events:
            event(installation)
            until(serves, 20, f"after {what}: it does not serve", pause=0.05)
            traffic.send(10)
            all_is_told(what)
            api.settled(load_balancer_id)
    report(f"{traffic.sent}; {watcher.looks} looks")
    assert watcher.backward == []
