"""A haproxy that may have so much memory and no more: by the kernel's word, over reloads, and under more clients than fit."""

import hashlib
import os
import signal
import socket
import uuid
from pathlib import Path

import pytest

from tests.amphora.world import ADDRESS, Amphora, Crowd, Member, free_port, get, is_alive, serves, wait_for

pytestmark = pytest.mark.integration

LISTENER, POOL, ONE = (str(uuid.UUID(int=number)) for number in (1, 3, 11))
MIB = 1 << 20


def limits(amphora: Amphora) -> dict[int, str]:
    """Pid -> its soft limit, of master and workers."""
    found = {}
    for pid in amphora.haproxies():
        for line in Path(f"/proc/{pid}/limits").read_text().splitlines():
            if line.startswith("Max data size"):
                found[pid] = line.split()[3]
    return found


def data_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmData:"))


def sized(amphora: Amphora, port: int, member: int, mebibytes: int | None, threads: int = 1, more: str = "") -> str:
    text = amphora.render({LISTENER: port}, {ONE: member}, pool_id=POOL, more=more).replace(
        "nbthread 1", f"nbthread {threads}"
    )
    return (
        text
        if mebibytes is None
        else text.replace("global\n", f"global\n    setenv FRONTINUS_MAX_MEMORY {mebibytes}\n", 1)
    )


def test_the_limit_is_there_from_the_start_and_follows_the_text(amphora: Amphora, members: list[Member]) -> None:
    """A limit that comes, changes or goes costs no request; a reload inherits it."""
    port = free_port()
    controller = amphora.controller()
    before = sized(amphora, port, members[0].port, 64)
    assert controller.apply(amphora.load_balancer_id, before).json["action"] == "start"
    assert set(limits(amphora).values()) == {str(64 * MIB)}
    master = controller.state(amphora.load_balancer_id)["pid"]
    with Crowd(port) as crowd:
        for mebibytes, seen in ((96, str(96 * MIB)), (48, str(48 * MIB)), (None, "unlimited"), (64, str(64 * MIB))):
            text = sized(amphora, port, members[0].port, mebibytes)
            base = hashlib.sha256(before.encode()).hexdigest()
            answer = controller.apply(amphora.load_balancer_id, text, base=base, reload=True)
            assert answer.json["action"] == "reload"
            wait_for(lambda: controller.state(amphora.load_balancer_id)["workers"] == 1, 30)
            assert set(limits(amphora).values()) == {seen}
            before = text
    assert crowd.failures == []
    assert controller.state(amphora.load_balancer_id)["pid"] == master


def test_what_does_not_fit_is_refused_and_what_ran_runs_on(amphora: Amphora, members: list[Member]) -> None:
    port = free_port()
    controller = amphora.controller()
    first = sized(amphora, port, members[0].port, 64)
    controller.apply(amphora.load_balancer_id, first)
    before = limits(amphora)
    for text in (sized(amphora, port, members[0].port, 1), sized(amphora, port, members[0].port, 64, threads=8)):
        base = hashlib.sha256(first.encode()).hexdigest()
        answer = controller.apply(amphora.load_balancer_id, text, base=base, reload=True)
        assert answer.status == 400
        assert "max_memory: " in answer.json["details"], answer.json
        assert get(port) == "one"
        assert (limits(amphora), controller.apply(amphora.load_balancer_id, first).json["action"]) == (
            before,
            "unchanged",
        )


def test_a_dead_worker_comes_back_with_its_limit(amphora: Amphora, members: list[Member]) -> None:
    port = free_port()
    controller = amphora.controller()
    controller.apply(amphora.load_balancer_id, sized(amphora, port, members[0].port, 64))
    old = controller.state(amphora.load_balancer_id)["pid"]
    amphora.kill()
    amphora.start()
    assert set(limits(amphora).values()) == {str(64 * MIB)}
    os.kill(old, signal.SIGKILL)
    controller = amphora.controller()
    wait_for(lambda: controller.state(amphora.load_balancer_id)["pid"] not in (None, old))
    wait_for(lambda: serves(port) == "one")
    assert set(limits(amphora).values()) == {str(64 * MIB)}


def test_more_clients_than_fit_do_not_kill_it(amphora: Amphora, members: list[Member]) -> None:
    """Each holds a buffer of what it asks. Some are turned away; the worker stays within its memory, lives, and serves.

    It takes until their time is up: so a driver lets no more in than have room (drivers/amphora/haproxy/memory.py)."""
    port = free_port()
    controller = amphora.controller()
    wait = "    tcp-request inspect-delay 2s\n    http-request wait-for-body time 2s at-least 16000\n"
    text = (
        sized(amphora, port, members[0].port, 32, more=wait)
        .replace("maxconn 500", "maxconn 3000")
        .replace(" 20s\n", " 2s\n")
    )
    controller.apply(amphora.load_balancer_id, text)
    (worker,) = (pid for pid in limits(amphora) if pid != controller.state(amphora.load_balancer_id)["pid"])
    clients = []
    try:
        for _ in range(1500):
            client = socket.create_connection((ADDRESS, port), 5)
            client.setblocking(False)
            clients.append(client)
            client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 30000\r\n\r\n" + b"x" * 8_000)
        wait_for(lambda: data_kib(worker) > 30 * 1024)
        assert data_kib(worker) <= 32 * 1024
        assert is_alive(worker)
    finally:
        for client in clients:
            client.close()
    wait_for(lambda: serves(port) == "one", 30)
    assert is_alive(worker)
