"""Death and return: of the agent, which haproxy outlives, and of haproxy, which the agent restores."""

import contextlib
import hashlib
import http.client
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from frontinus_amphora import hang, haproxy_text

from tests.amphora.world import ADDRESS, Amphora, Crowd, Member, free_port, get, is_alive, serves, wait_for

pytestmark = pytest.mark.integration

LISTENER, POOL, ONE, TWO = (str(uuid.UUID(int=number)) for number in (1, 3, 11, 12))


def running(amphora: Amphora, member: Member) -> tuple[int, str, int]:
    """Port, configuration and master pid of a haproxy that serves."""
    port = free_port()
    text = amphora.render({LISTENER: port}, {ONE: member.port}, pool_id=POOL)
    controller = amphora.controller()
    assert controller.apply(amphora.load_balancer_id, text).status == 200
    return port, text, controller.state(amphora.load_balancer_id)["pid"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_agent_dies_and_adopts_haproxy(amphora: Amphora, members: list[Member], number: signal.Signals) -> None:
    port, text, pid = running(amphora, members[0])
    with Crowd(port) as crowd:
        amphora.kill(number)
        answered = crowd.answers
        wait_for(lambda: crowd.answers > answered + 20)
        amphora.start()
        assert amphora.controller().state(amphora.load_balancer_id)["pid"] == pid
        answer = amphora.controller().apply(amphora.load_balancer_id, text + "# new\n", base=digest(text), reload=True)
        assert (answer.status, answer.json["action"]) == (200, "reload")
    assert crowd.failures == []
    assert amphora.controller().state(amphora.load_balancer_id)["pid"] == pid


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("adopted", [False, True], ids=["own child", "adopted"])
@pytest.mark.parametrize("victim", ["master", "worker"])
def test_killed_haproxy_is_back_within_half_a_second(
    amphora: Amphora, members: list[Member], victim: str, adopted: bool
) -> None:
    port, _text, pid = running(amphora, members[0])
    if adopted:
        amphora.kill()
        amphora.start()
    controller = amphora.controller()
    if victim == "worker":
        victim_pid = next(each for each in amphora.haproxies() if each != pid)
    else:
        victim_pid = pid
    # Loaded machines are slow at starting a process at all, so one of three tries is enough to keep the promise.
    took = []
    for _ in range(3):
        began = time.monotonic()
        os.kill(victim_pid, signal.SIGKILL)
        wait_for_end(victim_pid)
        wait_for(lambda: serves(port))
        took.append(time.monotonic() - began)
        new_pid = wait_for(lambda: controller.state(amphora.load_balancer_id)["pid"])
        assert new_pid != pid
        wait_for(lambda: len(amphora.haproxies()) == 2)
        pid = new_pid
        victim_pid = pid if victim == "master" else next(each for each in amphora.haproxies() if each != pid)
        if took[-1] < 0.5:
            break
    assert min(took) < 0.5, took


def wait_for_end(pid: int) -> None:
    wait_for(lambda: not is_alive(pid))


def test_haproxy_that_died_while_the_agent_was_away_is_started(amphora: Amphora, members: list[Member]) -> None:
    port, text, pid = running(amphora, members[0])
    amphora.kill()
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: serves(port) is None)
    amphora.start()
    wait_for(lambda: serves(port))
    state = amphora.controller().state(amphora.load_balancer_id)
    assert (digest(text), True) == (state["digest"], state["running"])


def test_haproxy_stopped_on_purpose_stays_stopped(amphora: Amphora, members: list[Member]) -> None:
    port, _text, _pid = running(amphora, members[0])
    controller = amphora.controller()
    assert controller.call("PUT", f"/1.0/loadbalancer/{amphora.load_balancer_id}/stop").status == 202
    assert amphora.haproxies() == []
    amphora.kill()
    amphora.start()
    controller = amphora.controller()
    assert controller.state(amphora.load_balancer_id)["running"] is False
    assert controller.call("PUT", f"/1.0/loadbalancer/{amphora.load_balancer_id}/START").status == 202
    assert get(port) == "one"


def test_haproxy_that_crashes_again_and_again_is_not_started_without_pause(
    amphora: Amphora, members: list[Member]
) -> None:
    port, _text, _pid = running(amphora, members[0])
    config = amphora.base / amphora.load_balancer_id / "haproxy.cfg"
    good = config.read_text()
    config.write_text("nonsense\n")
    os.kill(wait_for(amphora.haproxies)[0], signal.SIGKILL)
    wait_for(lambda: amphora.log.read_text().count("haproxy not restarted") >= 4)
    began = time.monotonic()
    wait_for(lambda: amphora.log.read_text().count("haproxy not restarted") >= 6)
    assert time.monotonic() - began > 0.5
    config.write_text(good)
    wait_for(lambda: serves(port), 20)


def test_change_interrupted_between_swap_and_reload_is_finished(amphora: Amphora, members: list[Member]) -> None:
    port, text, pid = running(amphora, members[0])
    amphora.kill()
    directory = amphora.base / amphora.load_balancer_id
    (directory / "haproxy.cfg.last").write_text(text)
    (directory / "haproxy.cfg").write_text(text.replace(str(members[0].port), str(members[1].port)))
    (directory / "agent.json").write_text('{"wanted": "running", "unloaded": "apply", "removing": []}')
    amphora.start()
    assert get(port) == "two"
    assert amphora.controller().state(amphora.load_balancer_id)["pid"] == pid


def test_haproxy_bears_the_marks_of_its_amphora(amphora: Amphora, members: list[Member]) -> None:
    _port, _text, pid = running(amphora, members[0])
    assert f"FRONTINUS_AMPHORA_ID={amphora.id}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    assert os.getsid(pid) == pid


def test_secrets_are_for_the_owner_alone(amphora: Amphora, members: list[Member]) -> None:
    running(amphora, members[0])
    controller = amphora.controller()
    controller.call("PUT", f"/1.0/loadbalancer/{amphora.load_balancer_id}/certificates/a.pem", "secret")
    for root in (amphora.base, amphora.certificates):
        for path in [root, *root.rglob("*")]:
            # The group of haproxy's user may pass through the place, to a socket, and list nothing.
            hidden = 0o067 if path == amphora.base else 0o077
            assert path.is_symlink() or path.lstat().st_mode & hidden == 0 or path.name.endswith(".pid"), path


def test_memory_of_agent_and_haproxy_is_never_dumped(amphora: Amphora, members: list[Member]) -> None:
    """A core file would hold private keys."""
    text = amphora.render({LISTENER: free_port()}, {ONE: members[0].port}, pool_id=POOL)
    amphora.controller().apply(amphora.load_balancer_id, text)
    assert amphora.process is not None
    for pid in (amphora.process.pid, *amphora.haproxies()):
        limits = Path(f"/proc/{pid}/limits").read_text().splitlines()
        (line,) = [line for line in limits if line.startswith("Max core file size")]
        assert line.split()[4:6] in (["1", "1"], ["0", "0"]), pid


def test_health_survives_a_reload(new_amphora: Callable[..., Amphora], members: list[Member]) -> None:
    """A member known to be down is still down just after a reload; one ordered to rest is what the file says."""
    amphora = new_amphora()
    port, dead = free_port(), free_port()
    backend = f"{POOL}:{LISTENER}"
    servers = {ONE: members[0].port, TWO: dead}
    text = amphora.render({LISTENER: port}, servers, pool_id=POOL, server_options="check inter 100ms fall 1")
    controller = amphora.controller()
    controller.apply(amphora.load_balancer_id, text)
    wait_for(lambda: statuses(amphora, backend)[TWO] == "DOWN")
    slower = text.replace("inter 100ms", "inter 60s") + "# slower\n"
    commands = (f"set server {backend}/{ONE} state maint",)
    answer = controller.apply(amphora.load_balancer_id, slower, base=digest(text), commands=commands, reload=True)
    assert (answer.status, answer.json["action"]) == (200, "reload")
    found = statuses(amphora, backend)
    assert found[TWO] == "DOWN"
    assert found[ONE].startswith("UP")


def statuses(amphora: Amphora, backend: str) -> dict[str, str]:
    from frontinus_amphora.encoding import parse_statistics
    from frontinus_amphora.haproxy_cli import ask

    assert amphora.process is not None
    answer = ask(f"/proc/{amphora.process.pid}/cwd/{amphora.load_balancer_id}.sock", "show stat -1 7 -1")
    return parse_statistics(answer).pools[backend].members


def test_agent_killed_at_any_moment_of_a_change(amphora: Amphora, members: list[Member]) -> None:
    """No request fails, one haproxy is left, and asking again brings the change about."""
    lb = amphora.load_balancer_id
    port, before, pid = running(amphora, members[0])
    with Crowd(port, kept=2, fresh=1) as crowd:
        for moment in range(0, 130, 20):
            text = before.partition("# ")[0] + f"# {moment}\n"
            asking = threading.Thread(target=ask_in_vain, args=(amphora, lb, text, digest(before)))
            asking.start()
            time.sleep(moment / 1000)  # the moment of death is what is tried here
            amphora.kill()
            asking.join()
            amphora.start()
            answer = amphora.controller().apply(lb, text, reload=True)
            assert answer.status == 200, (moment, answer)
            state = amphora.controller().state(lb)
            assert (state["digest"], state["pid"]) == (digest(text), pid)
            before = text
    assert crowd.failures == []


def ask_in_vain(amphora: Amphora, load_balancer_id: str, text: str, base: str) -> None:
    with contextlib.suppress(OSError, http.client.HTTPException):
        amphora.controller().apply(load_balancer_id, text, base=base, reload=True)


def beats(amphora: Amphora, count: int) -> None:
    """Wait for so many heartbeats, each of which asked haproxy: an agent that were to restart it would have begun."""
    amphora.ears.drain()
    for _ in range(count):
        amphora.ears.next(5)


def workers(amphora: Amphora, master: int) -> list[int]:
    return [each for each in amphora.haproxies() if each != master]


@pytest.mark.parametrize("victim", ["worker", pytest.param("master and worker", marks=pytest.mark.long)])
def test_hung_haproxy_is_restarted(new_amphora: Callable[..., Amphora], members: list[Member], victim: str) -> None:
    amphora = new_amphora(extra="hang_timeout = 1.5")
    port, text, pid = running(amphora, members[0])
    for each in workers(amphora, pid):
        os.kill(each, signal.SIGSTOP)
    if victim != "worker":
        os.kill(pid, signal.SIGSTOP)
    assert serves(port, timeout=0.3) is None
    amphora.ears.drain()
    wait_for(lambda: serves(port, timeout=0.3) == "one", 20)
    assert len(amphora.haproxies()) == 2
    state = amphora.controller().state(amphora.load_balancer_id)
    assert (state["digest"], state["running"]) == (digest(text), True)
    assert state["pid"] != pid
    assert "haproxy hangs" in amphora.log.read_text()


def test_the_agent_beats_on_while_haproxy_hangs(new_amphora: Callable[..., Amphora], members: list[Member]) -> None:
    """Who hears nothing of an amphora for three seconds suspects it."""
    amphora = new_amphora(extra="hang_timeout = 60")
    _port, _text, pid = running(amphora, members[0])
    for each in workers(amphora, pid):
        os.kill(each, signal.SIGSTOP)
    amphora.ears.drain()
    for _ in range(3):
        amphora.ears.next(2.5)


@pytest.mark.long
def test_haproxy_that_was_stopped_for_a_moment_is_left_alone(
    new_amphora: Callable[..., Amphora], members: list[Member]
) -> None:
    amphora = new_amphora(extra="hang_timeout = 8")
    port, _text, pid = running(amphora, members[0])
    (worker,) = workers(amphora, pid)
    os.kill(worker, signal.SIGSTOP)
    beats(amphora, 3)  # each of them waits for haproxy's answer in vain
    os.kill(worker, signal.SIGCONT)
    assert wait_for(lambda: serves(port)) == "one"
    beats(amphora, 3)
    assert sorted(amphora.haproxies()) == sorted([pid, worker])


def test_a_listener_at_its_limit_does_not_hang(new_amphora: Callable[..., Amphora], members: list[Member]) -> None:
    """Its connections wait in the kernel's queue, as those of a hung haproxy do; its socket answers."""
    amphora = new_amphora(extra="hang_timeout = 0.5")
    port = free_port()
    text = amphora.render({LISTENER: port}, {ONE: members[0].port}, pool_id=POOL, more="    maxconn 1\n")
    controller = amphora.controller()
    assert controller.apply(amphora.load_balancer_id, text).status == 200
    pid = controller.state(amphora.load_balancer_id)["pid"]
    slow = threading.Thread(target=lambda: get(port, "/slow", 20))
    slow.start()
    assert members[0].waiting.wait(5)
    with socket.create_connection((ADDRESS, port)):
        bind = haproxy_text.Bind("", ADDRESS, port)
        wait_for(lambda: hang.waiting(bind) == 1)
        assert not hang.accepts([bind])
        beats(amphora, 5)
        assert controller.state(amphora.load_balancer_id)["pid"] == pid
    members[0].release.set()
    slow.join()
    assert "haproxy hangs" not in amphora.log.read_text()
