"""What arrives at a controller's health receiver."""

import hashlib
import hmac
import json
import os
import signal
import struct
import threading
import time
import uuid
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from tests.amphora.world import MEMBER_ADDRESS, Amphora, Ears, Member, free_port, get, serves, wait_for

pytestmark = pytest.mark.integration

LISTENER, POOL, ONE, TWO = (str(uuid.UUID(int=number)) for number in (1, 3, 11, 12))
BACKEND = f"{POOL}:{LISTENER}"
KEY = b"insecure"


class Beat(NamedTuple):
    amphora_id: str
    boot: int
    sequence: int
    content: Any


def next_beat(ears: Ears) -> Beat:
    packet = ears.next()
    assert packet[:4] == b"FRH1"
    assert hmac.digest(KEY, packet[:-32], "sha256") == packet[-32:]
    boot, sequence = struct.unpack(">QQ", packet[20:36])
    content = json.loads(zlib.decompress(packet[36:-32]))
    assert (content["ver"], content["seq"]) == (2, sequence)
    return Beat(str(uuid.UUID(bytes=packet[4:20])), boot, sequence, content)


def beat_where(ears: Ears, condition: Callable[[Any], object], timeout: float = 10.0) -> Any:
    deadline = time.monotonic() + timeout
    content = None
    while time.monotonic() < deadline:
        content = next_beat(ears).content
        if condition(content):
            return content
    raise AssertionError(f"no such beat: {content}")


def members_of(content: Any) -> Any:
    return content["pools"].get(BACKEND, {}).get("members", {})


def test_first_beat_comes_at_the_start_and_turns_only_grow(amphora: Amphora) -> None:
    first, second = next_beat(amphora.ears), next_beat(amphora.ears)
    assert (amphora.id, 0, {}) == (first.amphora_id, first.sequence, first.content["listeners"])
    assert (first.boot, 1) == (second.boot, second.sequence)
    amphora.kill()
    amphora.ears.drain()
    amphora.start()
    later = next_beat(amphora.ears)
    assert later.boot > first.boot
    assert later.sequence == 0


def test_beats_follow_apply_and_status_at_once(new_amphora: Callable[..., Amphora], members: list[Member]) -> None:
    """The interval is an hour, so every beat after the first is an extra one."""
    amphora = new_amphora(beat="heartbeat_format = envelope\nheartbeat_interval = 3600")
    next_beat(amphora.ears)
    port = free_port()
    text = amphora.render(
        {LISTENER: port},
        {ONE: members[0].port, TWO: members[1].port},
        pool_id=POOL,
        server_options="check inter 100ms fall 1 rise 1",
        weights={TWO: 0},
    )
    amphora.controller().apply(amphora.load_balancer_id, text)
    content = beat_where(amphora.ears, lambda content: members_of(content) == {ONE: "UP", TWO: "DRAIN"})
    assert content["listeners"][LISTENER]["status"] == "OPEN"
    members[0].close()
    content = beat_where(amphora.ears, lambda content: members_of(content)[ONE] == "DOWN")
    assert content["pools"][BACKEND]["status"] == "DOWN"  # haproxy: none is left that takes new work
    members[0].__init__("one", members[0].port)  # type: ignore[misc]  # it comes back
    beat_where(amphora.ears, lambda content: members_of(content)[ONE] == "UP")


def test_counters_never_go_back(amphora: Amphora, members: list[Member]) -> None:
    port = free_port()
    text = amphora.render({LISTENER: port}, {ONE: members[0].port}, pool_id=POOL)
    controller = amphora.controller()
    controller.apply(amphora.load_balancer_id, text)

    def ask(times: int) -> None:
        for _ in range(times):
            get(port)

    def totconns(least: int) -> int:
        content = beat_where(
            amphora.ears,
            lambda content: (
                content["listeners"].get(LISTENER, {"stats": {"totconns": -1}})["stats"]["totconns"] >= least
            ),
        )
        return int(content["listeners"][LISTENER]["stats"]["totconns"])

    ask(5)
    assert totconns(5) == 5
    ask(3)
    answer = controller.apply(
        amphora.load_balancer_id, text + "# 2\n", base=hashlib.sha256(text.encode()).hexdigest(), reload=True
    )
    assert answer.json["action"] == "reload"
    ask(2)
    assert totconns(10) == 10
    os.kill(controller.state(amphora.load_balancer_id)["pid"], signal.SIGKILL)
    wait_for(lambda: controller.state(amphora.load_balancer_id)["running"])
    before = totconns(10)
    wait_for(lambda: serves(port))
    ask(2)
    assert totconns(before + 2) >= before + 2
    counted = totconns(before + 2)
    amphora.kill(signal.SIGTERM)
    amphora.ears.drain()
    amphora.start()
    assert totconns(counted) >= counted


def test_plain_beats_carry_increments(new_amphora: Callable[..., Amphora], members: list[Member]) -> None:
    amphora = new_amphora(beat="heartbeat_format = plain")
    port = free_port()
    text = amphora.render({LISTENER: port}, {ONE: members[0].port}, pool_id=POOL)
    amphora.controller().apply(amphora.load_balancer_id, text)
    for _ in range(7):
        get(port)
    total, content = 0, {}
    while total < 7:
        packet = amphora.ears.next()
        assert hmac.new(KEY, packet[:-64], hashlib.sha256).hexdigest().encode() == packet[-64:]
        content = json.loads(zlib.decompress(packet[:-64]))
        assert (3, amphora.id) == (content["ver"], content["id"])
        total += content["listeners"].get(LISTENER, {"stats": {"totconns": 0}})["stats"]["totconns"]
    assert total == 7
    assert members_of(content) == {ONE: "no check"}


def test_controllers_take_turns(new_amphora: Callable[..., Amphora]) -> None:
    amphora = new_amphora()
    other = Ears()
    try:
        text = amphora.text.replace("controller_ip_port_list = ", f"controller_ip_port_list = 127.0.0.1:{other.port}, ")
        text = text.replace("heartbeat_interval = 0.5", "heartbeat_interval = 0.05")
        assert amphora.controller().call("PUT", "/1.0/config", text).status == 202
        first = next_beat(other).sequence
        sequences = [next_beat(other).sequence for _ in range(3)]
        assert sequences == [first + 2, first + 4, first + 6]
    finally:
        other.close()


def test_server_being_removed_is_not_reported(amphora: Amphora, members: list[Member]) -> None:
    port = free_port()
    one = amphora.render({LISTENER: port}, {ONE: members[0].port}, pool_id=POOL)
    none = amphora.render({LISTENER: port}, {}, pool_id=POOL)
    controller = amphora.controller()
    controller.apply(amphora.load_balancer_id, none)
    digests = [hashlib.sha256(text.encode()).hexdigest() for text in (none, one)]
    add = (
        f"add server {BACKEND}/{ONE} {MEMBER_ADDRESS}:{members[0].port}",
        f"enable server {BACKEND}/{ONE}",
    )
    assert controller.apply(amphora.load_balancer_id, one, base=digests[0], commands=add).json["action"] == "runtime"
    beat_where(amphora.ears, lambda content: members_of(content) == {ONE: "no check"})
    slow = threading.Thread(target=lambda: get(port, "/slow", 20))
    slow.start()
    assert members[0].waiting.wait(5)
    remove = (f"disable server {BACKEND}/{ONE}", f"del server {BACKEND}/{ONE}")
    controller.apply(amphora.load_balancer_id, none, base=digests[1], commands=remove)
    assert controller.state(amphora.load_balancer_id)["removing"] == [f"{BACKEND}/{ONE}"]
    beat_where(amphora.ears, lambda content: members_of(content) == {})
    members[0].release.set()
    slow.join()


def test_a_beat_that_no_datagram_holds_comes_in_parts(amphora: Amphora, members: list[Member]) -> None:
    servers = {str(uuid.uuid4()): members[0].port for _ in range(4_000)}
    text = amphora.render({LISTENER: free_port()}, servers, pool_id=POOL)
    assert amphora.controller().apply(amphora.load_balancer_id, text).status == 200
    seen: dict[tuple[int, int], dict[int, Any]] = {}
    while True:
        packet = amphora.ears.next()
        if packet[:4] != b"FRH2":
            continue
        assert hmac.digest(KEY, packet[:-32], "sha256") == packet[-32:]
        boot, sequence, part, parts = struct.unpack(">QQHH", packet[20:40])
        told = seen.setdefault((boot, sequence), {})
        told[part] = json.loads(zlib.decompress(packet[40:-32]))
        if len(told) == parts:
            break
    assert parts > 1
    assert {name for content in told.values() for name in members_of(content)} == servers.keys()
    assert [content["listeners"][LISTENER]["status"] for content in told.values() if content["listeners"]] == ["OPEN"]
