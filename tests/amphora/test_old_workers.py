"""Old workers keep their connections: bounded by time, and by memory when it demands it, never by a number of reloads."""

import hashlib
import socket
import uuid
from collections.abc import Callable

import pytest

from frontinus_amphora.old_workers import OldWorker, to_end

from tests.amphora.world import ADDRESS, Amphora, Member, free_port, wait_for

LISTENER, POOL, ONE = (str(uuid.UUID(int=number)) for number in (1, 3, 11))


def old(*held: int) -> list[OldWorker]:
    return [OldWorker(100 + number, number, kib) for number, kib in enumerate(held)]


@pytest.mark.unit
@pytest.mark.parametrize(
    "held, limit, available, reserve, ended",
    [
        pytest.param((), 100, 0, 50, [], id="there are none"),
        pytest.param((10, 10, 10), 100, 60, 50, [], id="room enough"),
        pytest.param((40, 40, 40), 100, 60, 50, [100], id="they hold too much"),
        pytest.param((40, 40, 90), 100, 60, 50, [100, 101], id="oldest first, whatever they hold"),
        pytest.param((200,), 100, 60, 50, [100], id="one alone holds too much"),
        pytest.param((10, 10, 10), 100, 35, 50, [100, 101], id="others need the memory"),
        pytest.param((10, 10), 100, 0, 50, [100, 101], id="all must go"),
        pytest.param((5, 5), 100, 0, 50, [], id="others took it all, and their end would not help"),
        pytest.param((5, 5), 100, 43, 50, [100, 101], id="little, which is what lacks"),
    ],
)
def test_memory_demands(held: tuple[int, ...], limit: int, available: int, reserve: int, ended: list[int]) -> None:
    shuffled = sorted(old(*held), key=lambda worker: -worker.pid)
    assert [worker.pid for worker in to_end(shuffled, limit, available, reserve, worth_kib=16)] == ended


def reload(amphora: Amphora, text: str, number: int) -> str:
    base = hashlib.sha256(text.encode()).hexdigest()
    changed = f"{text.partition('# ')[0]}# {number}\n"
    answer = amphora.controller().apply(amphora.load_balancer_id, changed, base=base, reload=True)
    assert answer.json["action"] == "reload"
    return changed


def hold(port: int) -> socket.socket:
    """A connection whose answer takes long, as of a download: it stays in the worker that took it."""
    connection = socket.create_connection((ADDRESS, port), 5)
    connection.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
    return connection


def is_cut(connection: socket.socket) -> bool:
    connection.settimeout(0.05)
    try:
        return not connection.recv(4096).startswith(b"HTTP/1.1 200")
    except TimeoutError:
        return False
    except ConnectionResetError:
        return True


@pytest.mark.integration
def test_a_connection_outlives_many_reloads(amphora: Amphora, members: list[Member]) -> None:
    port = free_port()
    text = amphora.render({LISTENER: port}, {ONE: members[0].port}, pool_id=POOL)
    assert amphora.controller().apply(amphora.load_balancer_id, text).status == 200
    held = hold(port)
    for number in range(15):
        text = reload(amphora, text, number)
    assert not is_cut(held)
    members[0].release.set()
    held.settimeout(5)
    assert held.recv(4096).startswith(b"HTTP/1.1 200")
    held.close()
    wait_for(lambda: amphora.controller().state(amphora.load_balancer_id)["workers"] == 1)


@pytest.mark.integration
def test_the_oldest_end_when_they_hold_too_much(new_amphora: Callable[..., Amphora], members: list[Member]) -> None:
    """A worker holds some 3 MB here, so of four old ones two go."""
    amphora = new_amphora(extra="old_workers_memory = 8")
    port = free_port()
    text = amphora.render({LISTENER: port}, {ONE: members[0].port}, pool_id=POOL)
    assert amphora.controller().apply(amphora.load_balancer_id, text).status == 200
    held = []
    for number in range(4):
        held.append(hold(port))
        text = reload(amphora, text, number)
    wait_for(lambda: is_cut(held[0]))
    assert not is_cut(held[-1])
    members[0].release.set()
    assert "old haproxy worker ended for its memory" in amphora.log.read_text()
    for connection in held:
        connection.close()
