"""nginx as the agent's second service: beside haproxy, instead of it, and through whatever befalls either."""

import contextlib
import json
import os
import re
import signal
import socket
import threading
import uuid
import zlib
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from frontinus_amphora.nginx_service import Program
from frontinus_amphora.queues import QueueWatch

from tests.amphora.world import (
    ADDRESS,
    MEMBER_ADDRESS,
    Amphora,
    Member,
    SentFile,
    digest_of,
    free_port,
    get,
    is_alive,
    serves,
    wait_for,
)

pytestmark = pytest.mark.integration

LISTENER, OTHER, POOL, ONE, TWO = (str(uuid.UUID(int=number)) for number in (1, 2, 3, 11, 12))


class DatagramMember:
    """Answers each datagram with its name, except those of a health check."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.heard: list[bytes] = []
        self.port = 0
        self._ended = threading.Event()
        self.start()

    def start(self) -> None:
        self._ended.clear()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((MEMBER_ADDRESS, self.port))
        self._socket.settimeout(0.02)
        self.port = int(self._socket.getsockname()[1])
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while not self._ended.is_set():
            with contextlib.suppress(TimeoutError):
                content, sender = self._socket.recvfrom(1000)
                if content != b"X":
                    self.heard.append(content)
                    self._socket.sendto(self.name.encode(), sender)


def ask(port: int, timeout: float = 2.0) -> str | None:
    """One datagram from a socket of its own; who answered."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(timeout)
        client.connect((ADDRESS, port))
        try:
            client.send(b"who?")
            return client.recv(100).decode()
        except OSError:
            return None


class Site:
    """A UDP listener before two members, as a driver would render it."""

    def __init__(self, amphora: Amphora, members: list[DatagramMember]) -> None:
        self.amphora = amphora
        self.lb = amphora.load_balancer_id
        self.members = members
        self.port = free_port()
        self.controller = amphora.controller()

    def files(self, port: int | None = None, *, checked: bool = False, more: str = "") -> tuple[SentFile, ...]:
        port = port or self.port
        servers = "".join(
            f"    server {MEMBER_ADDRESS}:{member.port} max_fails=0; # {POOL}/{name}\n"
            for name, member in zip((ONE, TWO), self.members, strict=True)
        )
        text = f"""error_log stderr crit;
events {{ worker_connections 100; }}
stream {{
  log_format it "{LISTENER} $bytes_sent $bytes_received 1 0";
  upstream pool {{
{servers}  }}
  server {{
    listen {ADDRESS}:{port} udp; proxy_pass pool; proxy_timeout 200ms; {more}
    access_log nginx.log it buffer=16k flush=100ms;
  }}
}}
"""
        check = {
            "kind": "UDP-CONNECT",
            "address": MEMBER_ADDRESS,
            "interval": 0.1,
            "timeout": 0.05,
            "rise": 1,
            "fall": 2,
        }
        outline = {
            "listeners": {LISTENER: {"binds": [[ADDRESS, port]], "datagrams": True, "pool": POOL}},
            "pools": {
                POOL: {
                    name: {"check": {**check, "port": member.port}} if checked else {}
                    for name, member in zip((ONE, TWO), self.members, strict=True)
                }
            },
        }
        return (
            SentFile("datagrams.conf", text.encode(), private=False),
            SentFile("datagrams.json", json.dumps(outline).encode(), private=False),
        )

    def apply(self, config: str, files: tuple[SentFile, ...]) -> str:
        answer = self.controller.apply(self.lb, config, files=files)
        assert answer.status == 200, answer.body
        return str(answer.json["action"])

    def spread(self) -> Counter[str | None]:
        return Counter(ask(self.port) for _ in range(8))

    def nginx_pid(self) -> int:
        return int(json.loads((self.amphora.base / self.lb / "nginx" / "datagrams.service.json").read_text())["pid"])

    def beat(self) -> Any:
        """What the next heartbeat says."""
        return json.loads(zlib.decompress(self.amphora.ears.next()[36:-32]))


@pytest.fixture
def site(amphora: Amphora) -> Iterator[Site]:
    members = [DatagramMember("one"), DatagramMember("two")]
    yield Site(amphora, members)
    for member in members:
        member.stop()


def test_nginx_alone_serves_datagrams(site: Site) -> None:
    assert site.apply("", site.files()) == "start"
    assert site.spread() == {"one": 4, "two": 4}
    assert site.apply("", site.files()) == "unchanged"
    state = site.controller.state(site.lb)
    assert (True, digest_of("", site.files()), None) == (state["running"], state["digest"], state["pid"])
    limits = Path(f"/proc/{site.nginx_pid()}/limits").read_text()
    assert re.search(r"Max core file size +1 ", limits)
    soft, hard = re.search(r"Max open files +(\d+) +(\d+)", limits).groups()  # type: ignore[union-attr]
    assert int(soft) == min(int(hard), 1 << 20)


def test_an_nginx_that_is_installed_later_is_found(tmp_path: Path) -> None:
    command = tmp_path / "nginx"
    program = Program(str(command))
    assert program.version() == ""
    words = "nginx version: nginx/9.8.7\\nconfigure arguments: --modules-path=/m --with-stream=dynamic"
    command.write_text(f"#!/bin/sh\nprintf '{words}\\n'\n")
    command.chmod(0o755)
    assert program.version() == "9.8.7"
    assert program.arguments("/d", "/c")[-1] == "load_module /m/ngx_stream_module.so; pid nginx.pid;"


def test_heartbeats_tell_statuses_and_counters(site: Site) -> None:
    site.apply("", site.files())
    site.spread()

    def counted() -> Any:
        said = site.beat()
        listener = said["listeners"].get(LISTENER)
        return said if listener and listener["stats"]["totconns"] == 8 else None

    said = wait_for(counted)
    listener = said["listeners"][LISTENER]
    assert listener["stats"].pop("since") > 0
    counters = {"tx": 24, "rx": 32, "conns": 0, "totconns": 8, "ereq": 0}
    assert listener == {"status": "OPEN", "stats": counters}
    assert said["pools"] == {POOL: {"status": "UP", "members": {ONE: "no check", TWO: "no check"}}}


def test_haproxy_and_nginx_share_a_port_number_and_change_apart(site: Site, members: list[Member]) -> None:
    plain = site.amphora.render({OTHER: site.port}, {ONE: members[0].port}, pool_id=POOL)
    assert site.apply(plain, site.files()) == "start"
    assert (get(site.port), site.spread()) == ("one", {"one": 4, "two": 4})
    haproxy, nginx = site.controller.state(site.lb)["pid"], site.nginx_pid()
    digest = digest_of(plain, site.files())
    other = site.files(more="proxy_requests 1;")
    answer = site.controller.apply(site.lb, plain, base=digest, files=other)
    assert (answer.status, answer.json["action"]) == (200, "reload")
    assert haproxy == site.controller.state(site.lb)["pid"]
    assert nginx != site.nginx_pid()
    nginx = site.nginx_pid()
    assert (get(site.port), site.spread()) == ("one", {"one": 4, "two": 4})
    assert site.apply("", other) == "stop"
    assert site.spread() == {"one": 4, "two": 4}
    assert site.apply(plain, ()) == "start"
    assert (get(site.port), ask(site.port, 0.2)) == ("one", None)
    wait_for(lambda: not is_alive(nginx))


def test_what_nginx_refuses_changes_nothing(site: Site) -> None:
    site.apply("", site.files())
    answer = site.controller.apply(site.lb, "", files=site.files(more="proxy_tmeout 1s;"))
    assert answer.status == 400
    assert 'unknown directive "proxy_tmeout" in datagrams.conf' in answer.json["details"]
    assert site.spread() == {"one": 4, "two": 4}
    assert digest_of("", site.files()) == site.controller.state(site.lb)["digest"]
    assert site.apply("", site.files()) == "unchanged"


def test_a_taken_port_is_told_by_listener(site: Site) -> None:
    site.apply("", site.files())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as holder:
        holder.bind((ADDRESS, 0))
        port = int(holder.getsockname()[1])
        answer = site.controller.apply(site.lb, "", files=site.files(port))
    assert answer.status == 422
    assert answer.json["binds"] == [{"frontend": LISTENER, "address": ADDRESS, "port": port, "errno": "EADDRINUSE"}]
    assert site.spread() == {"one": 4, "two": 4}


def test_an_address_that_is_not_here_is_told_by_listener(site: Site) -> None:
    """nginx's own check fails for it too, and says nothing of the text."""
    files = [each._replace(content=each.content.replace(ADDRESS.encode(), b"192.0.2.1")) for each in site.files()]
    answer = site.controller.apply(site.lb, "", files=tuple(files))
    assert answer.status == 422
    assert [(bind["frontend"], bind["errno"]) for bind in answer.json["binds"]] == [(LISTENER, "EADDRNOTAVAIL")]


def test_an_outline_is_needed(site: Site) -> None:
    answer = site.controller.apply(site.lb, "", files=site.files()[:1])
    assert (answer.status, answer.json["details"]) == (400, "datagrams.conf and datagrams.json come together")


def test_a_member_that_is_down_gets_nothing(site: Site) -> None:
    site.apply("", site.files(checked=True))
    assert site.spread() == {"one": 4, "two": 4}
    one, two = site.members
    two.stop()
    wait_for(lambda: site.beat()["pools"].get(POOL, {}).get("members", {}).get(TWO) == "DOWN")
    wait_for(lambda: f"{two.port} max_fails=0 down" in (site.amphora.base / f"{site.lb}.datagrams.conf").read_text())
    wait_for(lambda: site.spread() == {"one": 8})
    two.start()
    wait_for(lambda: site.spread() == {"one": 4, "two": 4})
    assert not any(content == b"X" for content in one.heard)


def test_nginx_outlives_its_agent_and_what_was_known_too(site: Site) -> None:
    site.apply("", site.files(checked=True))
    site.members[1].stop()
    wait_for(lambda: site.spread() == {"one": 8})
    pid = site.nginx_pid()
    site.amphora.kill()
    assert site.spread() == {"one": 8}
    site.amphora.start()
    site.controller = site.amphora.controller()
    assert site.spread() == {"one": 8}
    assert (pid, True) == (site.nginx_pid(), site.controller.state(site.lb)["running"])
    assert site.apply("", site.files(checked=True)) == "unchanged"
    site.members[1].start()
    wait_for(lambda: site.spread() == {"one": 4, "two": 4})


@pytest.mark.parametrize("victim", ["master", "worker"])
def test_a_killed_nginx_is_back_at_once(site: Site, victim: str) -> None:
    site.apply("", site.files())
    pid = site.nginx_pid()
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    os.kill(pid if victim == "master" else int(children[0]), signal.SIGKILL)
    wait_for(lambda: not is_alive(int(children[0])))
    wait_for(lambda: site.spread() == {"one": 4, "two": 4}, 3)


def test_one_that_died_with_its_agent_is_started(site: Site) -> None:
    site.apply("", site.files())
    site.amphora.kill()
    os.kill(site.nginx_pid(), signal.SIGKILL)
    site.amphora.start()
    wait_for(lambda: site.spread() == {"one": 4, "two": 4}, 5)


def test_a_wiped_place_finds_the_nginx_that_it_forgot(site: Site) -> None:
    """Nothing on disk tells of it, and it holds the port: the next push ends it and starts anew."""
    site.apply("", site.files())
    pid = site.nginx_pid()
    site.amphora.kill()
    for path in sorted(site.amphora.base.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    site.amphora.start()
    site.controller = site.amphora.controller()
    assert site.apply("", site.files()) == "start"
    assert not is_alive(pid)
    assert site.spread() == {"one": 4, "two": 4}


def test_old_workers_end_when_they_hold_too_much(new_amphora: Callable[..., Amphora]) -> None:
    """Sessions would keep each of them for a minute."""
    amphora = new_amphora(extra="old_workers_memory = 0.1")
    members = [DatagramMember("one"), DatagramMember("two")]
    site = Site(amphora, members)

    def files(more: str) -> tuple[SentFile, ...]:
        text, outline = site.files(more=more)
        return text._replace(content=text.content.replace(b"200ms", b"60s")), outline

    site.apply("", files(""))
    (worker,) = Path(f"/proc/{site.nginx_pid()}/task/{site.nginx_pid()}/children").read_text().split()
    assert site.spread() == {"one": 4, "two": 4}
    assert site.apply("", files("proxy_requests 1;")) == "reload"
    wait_for(lambda: not is_alive(int(worker)))
    assert site.spread() == {"one": 4, "two": 4}
    assert "old nginx worker ended for its memory" in amphora.log.read_text()
    for member in members:
        member.stop()


def test_deleting_leaves_nothing(site: Site) -> None:
    site.apply("", site.files())
    pid = site.nginx_pid()
    assert site.controller.call("DELETE", f"/1.0/listeners/{site.lb}").status == 200
    assert not is_alive(pid)
    assert [path for path in site.amphora.base.iterdir() if path.name.startswith(site.lb)] == []


def test_what_is_deleted_holds_nothing_of_the_agent(site: Site) -> None:
    """Neither descriptors nor threads, or an agent would run out of them over the years."""

    def held() -> tuple[int, int]:
        assert site.amphora.process is not None
        process = Path(f"/proc/{site.amphora.process.pid}")
        return len(list((process / "fd").iterdir())), len(list((process / "task").iterdir()))

    def come_and_go() -> None:
        site.apply("", site.files(checked=True))
        assert site.controller.call("DELETE", f"/1.0/listeners/{site.lb}").status == 200

    come_and_go()
    before = held()
    for _ in range(3):
        come_and_go()
    wait_for(lambda: held() == before)


def test_nginx_outlives_an_agent_that_was_killed_amid_a_swap_of_files(site: Site) -> None:
    site.apply("", site.files())
    pid = site.nginx_pid()
    site.amphora.kill()
    files = site.amphora.base / site.lb / "files"
    files.rename(f"{files}.old")
    site.amphora.start()
    site.controller = site.amphora.controller()
    assert (True, digest_of("", site.files())) == tuple(
        site.controller.state(site.lb)[key] for key in ("running", "digest")
    )
    assert (site.spread(), pid) == ({"one": 4, "two": 4}, site.nginx_pid())


def test_counters_are_never_counted_twice(site: Site) -> None:
    """The agent is killed between readings: what stands in the log is added to what was saved with it."""
    site.apply("", site.files())
    site.spread()
    log = site.amphora.base / site.lb / "nginx" / "nginx.log"
    wait_for(lambda: len(log.read_text().splitlines()) == 8)
    for _ in range(2):
        site.amphora.kill()
        site.amphora.ears.drain()
        site.amphora.start()
    site.amphora.ears.drain()
    wait_for(lambda: site.beat()["listeners"].get(LISTENER, {}).get("stats", {}).get("totconns") == 8)


def test_what_ran_last_is_started_when_what_came_after_it_cannot(site: Site) -> None:
    """A change failed, then agent and nginx died: on disk is what cannot run."""
    site.apply("", site.files())
    with socket.socket() as holder:
        holder.bind((ADDRESS, 0))
        holder.listen()
        taken = f"}} server {{ listen {ADDRESS}:{holder.getsockname()[1]}; return no;"  # `nginx -t` does not mind
        answer = site.controller.apply(site.lb, "", files=site.files(more=taken))
        assert (answer.status, site.spread()) == (500, {"one": 4, "two": 4})
        pid = site.nginx_pid()
        workers = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        site.amphora.kill()
        for each in (pid, *map(int, workers)):
            os.kill(each, signal.SIGKILL)
        site.amphora.start()
        wait_for(lambda: "nginx restarted" in site.amphora.log.read_text(), 15)
        assert site.spread() == {"one": 4, "two": 4}
        site.controller = site.amphora.controller()
        assert not site.controller.state(site.lb)["running"], "what was asked for does not"
    assert site.apply("", site.files()) in ("reload", "unchanged")
    assert site.spread() == {"one": 4, "two": 4}


@pytest.mark.parametrize("victim", ["master and worker", "worker"])
def test_an_nginx_that_hangs_is_restarted(new_amphora: Callable[..., Amphora], victim: str) -> None:
    """And what came meanwhile is answered."""
    amphora = new_amphora(extra="hang_timeout = 1")
    members = [DatagramMember("one"), DatagramMember("two")]
    site = Site(amphora, members)
    site.apply("", site.files())
    pid = site.nginx_pid()
    for _ in range(3):
        assert site.spread() == {"one": 4, "two": 4}
    hung = [int(x) for x in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    for each in [pid, *hung] if victim != "worker" else hung:
        os.kill(each, signal.SIGSTOP)
    assert ask(site.port, 8.0) in ("one", "two")
    wait_for(lambda: site.nginx_pid() != pid)
    assert "nginx hangs" in amphora.log.read_text()
    wait_for(lambda: not any(is_alive(each) for each in (pid, *hung)))
    assert site.spread() == {"one": 4, "two": 4}
    for member in members:
        member.stop()


def test_an_nginx_for_connections_that_hangs_is_restarted(
    new_amphora: Callable[..., Amphora], members: list[Member]
) -> None:
    amphora = new_amphora(extra="hang_timeout = 1")
    port, controller = free_port(), amphora.controller()
    text = f"""error_log stderr crit;
events {{ worker_connections 100; }}
stream {{ server {{ listen {ADDRESS}:{port}; proxy_pass {MEMBER_ADDRESS}:{members[0].port}; }} }}
"""
    outline = {"listeners": {LISTENER: {"binds": [[ADDRESS, port]], "datagrams": False}}, "pools": {}}
    files = (
        SentFile("nginx.conf", text.encode(), private=False),
        SentFile("nginx.json", json.dumps(outline).encode(), private=False),
    )
    assert controller.apply(amphora.load_balancer_id, "", files=files).json["action"] == "start"
    assert get(port) == "one"
    pid = int((amphora.base / amphora.load_balancer_id / "nginx" / "nginx.pid").read_text())
    (worker,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    os.kill(int(worker), signal.SIGSTOP)
    with socket.create_connection((ADDRESS, port)):  # taken by the kernel, and by nobody else
        wait_for(lambda: not is_alive(pid), 10)
    wait_for(lambda: serves(port) == "one", 5)


def test_what_is_slow_to_be_emptied_does_not_hang() -> None:
    watch = QueueWatch(1.0)
    looks: list[tuple[dict[Hashable, int], float]]
    looks = [({1: 5}, 0.0), ({1: 5}, 0.5), ({1: 4}, 1.0), ({1: 9}, 1.5), ({1: 9, 2: 1}, 2.0), ({1: 9, 2: 3}, 2.4)]
    assert [watch.look(waiting, now) for waiting, now in looks] == [False] * len(looks)
    assert watch.look({1: 10}, 2.6)
    watch.trust()
    assert not watch.look({}, 9.0)
    assert watch.due is None


def test_open_sessions_are_told(site: Site) -> None:
    """Those of an nginx that was replaced among them, while they last."""

    def lasting(more: str) -> tuple[SentFile, ...]:
        text, outline = site.files(more=more)
        return text._replace(content=text.content.replace(b"200ms", b"2s")), outline

    def told(count: int) -> bool:
        listener = site.beat()["listeners"].get(LISTENER)
        return bool(listener and listener["stats"]["conns"] == count)

    site.apply("", lasting(""))
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(3)]
        for count, more in (3, "proxy_requests 100;"), (6, "proxy_requests 200;"):
            for client in clients:
                client.sendto(b"who?", (ADDRESS, site.port))
            wait_for(partial(told, count))
            assert site.apply("", lasting(more)) == "reload"
    wait_for(partial(told, 0))
