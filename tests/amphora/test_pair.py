"""Two amphorae with one virtual address, each in a namespace of its own: who has it, and how soon the other takes it.

The client sees it all: it connects every 5 ms, and each amphora answers with its own name."""

import os
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.amphora.lab import PREFIX, PREFIX_6, Asker, Host, Lab, ip
from tests.amphora.test_heartbeat import beat_where
from tests.amphora.world import Amphora, Controller, Ears, Pki, SentFile, is_alive, wait_for

VIP, VIP_6 = f"{PREFIX}100", f"{PREFIX_6}100"
PROCESS_S, HOST_S = 0.3, 0.8  # bounds on a busy machine; docs/performance.md has the figures


class Half:
    """One amphora of a pair."""

    def __init__(self, pki: Pki, name: str, host: Host, peer: Host, priority: int, load_balancer_id: str) -> None:
        self.name, self.host, self.peer, self.priority = name, host, peer, priority
        self.load_balancer_id = load_balancer_id
        self.amphora = Amphora(pki, namespace=host.name, ears=lambda: host.run(Ears))
        self.amphora.start()
        self.controller: Controller = self.amphora.controller()

    def text(self) -> str:
        return f"""global
    stats socket unix@{self.load_balancer_id}.sock mode 600 level admin expose-fd listeners
defaults
    mode http
    timeout connect 2s
    timeout client 20s
    timeout server 20s
frontend {uuid.uuid5(uuid.NAMESPACE_DNS, "listener")}
    bind {VIP}:80
    bind [{VIP_6}]:80
    http-request return status 200 content-type text/plain string {self.name}
"""

    def keepalived(self, peer: str | None = None) -> str:
        return f"""global_defs {{
    vrrp_version 3
}}
vrrp_instance pair {{
    state BACKUP
    nopreempt
    accept
    interface eth1
    virtual_router_id 1
    priority {self.priority}
    advert_int 0.1
    check_unicast_src
    unicast_src_ip {self.host.address}
    unicast_peer {{
        {peer or self.peer.address}
    }}
    virtual_ipaddress {{
        {VIP}/32 dev eth1
    }}
    virtual_ipaddress_excluded {{
        {VIP_6}/128 dev eth1
    }}
    track_file {{
        balancers
    }}
}}
"""

    def push(self, keepalived: str | None = None) -> str:
        files = (SentFile("keepalived.conf", (keepalived or self.keepalived()).encode(), private=False),)
        answer = self.host.run(self.controller.apply, self.load_balancer_id, self.text(), files=files)
        assert answer.status == 200, answer.body
        return str(answer.json["action"])

    def holds(self) -> bool:
        return self.host.holds(VIP)

    def pids(self, program: str) -> list[int]:
        """Of those that run here, parents first."""
        found = []
        for pid in sorted(self.amphora.haproxies()):
            try:
                if Path(f"/proc/{pid}/comm").read_text().strip() == program:
                    found.append(pid)
            except OSError:
                continue
        return found

    def kill(self, program: str, number: int = signal.SIGKILL) -> float:
        """Signal all its processes; when."""
        pids = self.pids(program)
        assert pids
        moment = time.monotonic()
        for pid in pids:
            os.kill(pid, number)
        return moment


class Pair:
    def __init__(self, pki: Pki) -> None:
        self.lab = Lab("one", "two", "client")
        one, two = self.lab.hosts["one"], self.lab.hosts["two"]
        load_balancer_id = str(uuid.uuid4())
        self.one = Half(pki, "one", one, two, 254, load_balancer_id)
        self.two = Half(pki, "two", two, one, 253, load_balancer_id)
        self.asker: Asker | None = None

    def serve(self) -> Asker:
        """Push to both, and have the client ask, until the first is the one that answers."""
        assert self.one.push() == "start"
        wait_for(self.one.holds)
        assert self.two.push() == "start"
        self.asker = Asker(self.lab.hosts["client"], VIP, 80)
        wait_for(lambda: self.asker is not None and self.asker.last() == "one")
        assert not self.two.holds()
        return self.asker

    def close(self) -> None:
        if self.asker is not None:
            self.asker.close()
        for half in (self.one, self.two):
            half.amphora.close()
        self.lab.close()


@pytest.fixture
def pair(pki: Pki) -> Iterator[Pair]:
    made = Pair(pki)
    yield made
    made.close()


def test_the_peer_takes_over_when_haproxy_dies_and_keeps_the_address(pair: Pair) -> None:
    """The agent tells keepalived before it restarts haproxy; the old master's return moves nothing; each beat says who
    serves."""
    asker = pair.serve()
    beat_where(pair.one.amphora.ears, lambda content: content.get("active") is True)
    beat_where(pair.two.amphora.ears, lambda content: content.get("active") is False)
    died = pair.one.kill("haproxy")
    wait_for(lambda: asker.last() == "two")
    wait_for(lambda: pair.one.pids("haproxy"))
    wait_for(lambda: (pair.one.amphora.base / "vrrp" / "fault").read_text() == "0\n")
    moment = time.monotonic()
    wait_for(lambda: time.monotonic() - moment > 0.5 or asker.last() == "one")
    assert asker.last() == "two"
    assert (pair.one.holds(), pair.two.holds()) == (False, True)
    assert asker.gap(died) < PROCESS_S
    beat_where(pair.one.amphora.ears, lambda content: content.get("active") is False)
    beat_where(pair.two.amphora.ears, lambda content: content.get("active") is True)
    assert pair.two.host.holds(VIP_6)
    assert not pair.one.host.holds(VIP_6)


@pytest.mark.long
def test_haproxy_does_not_start_again_before_the_address_has_left(pair: Pair) -> None:
    """It knows none of the clients that still come to it, and would teach the peer other members for them."""
    asker = pair.serve()
    pair.one.kill("keepalived", signal.SIGSTOP)
    try:
        died = pair.one.kill("haproxy")
        wait_for(lambda: pair.one.pids("haproxy"))
        assert time.monotonic() - died > 0.29, "0.3 s are waited for a keepalived that does nothing"
    finally:
        pair.one.kill("keepalived", signal.SIGCONT)
    wait_for(lambda: asker.last() == "two")


@pytest.mark.long
def test_where_the_peer_is_dead_the_address_stays_while_haproxy_is_started_again(pair: Pair) -> None:
    asker = pair.serve()
    die(pair.two, pair.lab)
    died = pair.one.kill("haproxy")
    wait_for(lambda: pair.one.pids("haproxy"))
    wait_for(lambda: asker.answers[-1].at > died)
    moment = time.monotonic()
    wait_for(lambda: time.monotonic() - moment > 1.0)
    assert asker.gap(died) < HOST_S
    assert asker.last() == "one"
    said = pair.one.amphora.log.read_text()
    assert "keepalived not told yet" in said
    assert "keepalived told" not in said.partition("keepalived not told yet")[2]


@pytest.mark.long
def test_where_haproxy_does_not_start_again_a_peer_that_comes_finds_the_address_free(pair: Pair) -> None:
    asker = pair.serve()
    pids = die(pair.two, pair.lab)
    assert pids
    config = pair.one.amphora.base / pair.one.load_balancer_id / "haproxy.cfg"
    good = config.read_text()
    config.write_text("nonsense\n")
    pair.one.kill("haproxy")
    fault = pair.one.amphora.base / "vrrp" / "fault"
    wait_for(lambda: fault.read_text() == "1\n")
    wait_for(lambda: not pair.one.holds())
    pair.lab.wire("two")
    pair.two.amphora.start()
    pair.two.controller = pair.two.amphora.controller()
    pair.two.push()
    wait_for(lambda: asker.last() == "two")
    config.write_text(good)
    wait_for(lambda: fault.read_text() == "0\n", 20.0)
    assert (pair.one.holds(), pair.two.holds()) == (False, True)


def die(half: Half, lab: Lab) -> list[int]:
    """The whole amphora at once, with its link: nobody in it says farewell. What it ran."""
    process = half.amphora.process
    assert process is not None
    pids = [process.pid, *half.amphora.haproxies()]
    ip("-n", lab.switch, "link", "del", f"port-{half.name}")
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    process.wait()
    return pids


def test_the_same_again_changes_nothing_and_another_peer_reloads(pair: Pair) -> None:
    asker = pair.serve()
    keepalived = pair.one.pids("keepalived")
    assert pair.one.push() == "unchanged"
    moment = time.monotonic()
    assert pair.one.push(pair.one.keepalived(f"{PREFIX}77")) == "reload"
    assert pair.one.push() == "reload"
    assert pair.one.pids("keepalived") == keepalived
    wait_for(lambda: asker.answers[-1].at > moment)
    assert asker.gap(moment) < PROCESS_S
    assert pair.one.holds()


def test_a_text_that_keepalived_refuses_changes_nothing(pair: Pair) -> None:
    pair.serve()
    files = (SentFile("keepalived.conf", b"vrrp_instance pair {\n  nonsense 1\n}\n", private=False),)
    answer = pair.one.host.run(pair.one.controller.apply, pair.one.load_balancer_id, pair.one.text(), files=files)
    assert answer.status == 400
    assert "nonsense" in answer.json["details"]
    assert pair.one.push() == "unchanged"
    assert pair.one.holds()


def test_deletion_gives_the_address_to_the_peer_first(pair: Pair) -> None:
    asker = pair.serve()
    moment = time.monotonic()
    answer = pair.one.host.run(pair.one.controller.call, "DELETE", f"/1.0/listeners/{pair.one.load_balancer_id}")
    assert answer.status == 200
    wait_for(lambda: asker.last() == "two")
    assert asker.gap(moment) < PROCESS_S
    assert not pair.one.pids("keepalived")
    assert not (pair.one.amphora.base / "vrrp").exists()


@pytest.mark.long
@pytest.mark.parametrize("whole", [True, False], ids=["both processes", "the parent alone"])
def test_keepalived_killed_costs_nothing_and_comes_back(pair: Pair, whole: bool) -> None:
    asker = pair.serve()
    pids = pair.one.pids("keepalived")
    moment = time.monotonic()
    for pid in pids if whole else pids[:1]:
        os.kill(pid, signal.SIGKILL)
    for file in ("octavia-keepalived.pid", "vrrp.pid"):
        (pair.one.amphora.base / "vrrp" / file).write_text("1\n")  # its number is somebody else's meanwhile
    wait_for(lambda: not any(is_alive(pid) for pid in pids))
    wait_for(lambda: len(pair.one.pids("keepalived")) == 2)
    wait_for(lambda: pair.one.holds() is not pair.two.holds())
    wait_for(lambda: time.monotonic() - moment > 2.0)
    assert asker.gap(moment) < PROCESS_S
    assert (pair.one.holds(), pair.two.holds()) == (False, True)


@pytest.mark.long
def test_an_agent_that_dies_moves_nothing_and_is_followed_by_one_that_adopts(pair: Pair) -> None:
    asker = pair.serve()
    before = pair.one.pids("keepalived")
    moment = time.monotonic()
    pair.one.amphora.kill()
    pair.one.amphora.start()
    assert pair.one.pids("keepalived") == before
    pair.one.controller = pair.one.amphora.controller()
    assert pair.one.push() == "unchanged"
    assert asker.last() == "one"
    assert asker.gap(moment) < PROCESS_S
    died = pair.one.kill("haproxy")  # the adopted one is watched as before
    wait_for(lambda: asker.last() == "two")
    assert asker.gap(died) < PROCESS_S


@pytest.mark.long
def test_a_haproxy_that_hangs_gives_the_address_away(pair: Pair) -> None:
    asker = pair.serve()
    pair.one.kill("haproxy", signal.SIGSTOP)
    wait_for(lambda: asker.last() == "two")
    wait_for(lambda: (pair.one.amphora.base / "vrrp" / "fault").read_text() == "0\n", 20.0)  # it was restarted
    assert pair.two.holds()


@pytest.mark.long
@pytest.mark.parametrize("what", ["cable", "interface"])
def test_a_link_that_goes_down_moves_the_address_and_its_return_does_not(pair: Pair, what: str) -> None:
    asker = pair.serve()
    moment = time.monotonic()
    if what == "cable":
        pair.lab.unplug("one")
    else:
        ip("-n", pair.one.host.name, "link", "set", "eth1", "down")
    wait_for(lambda: asker.last() == "two")
    assert asker.gap(moment) < HOST_S
    if what == "cable":
        pair.lab.plug("one")
    else:
        ip("-n", pair.one.host.name, "link", "set", "eth1", "up")
    wait_for(lambda: not pair.one.holds())
    moment = time.monotonic()
    wait_for(lambda: time.monotonic() - moment > 1.0)
    assert asker.last() == "two"
    assert asker.gap(moment) < PROCESS_S


@pytest.mark.long
def test_adverts_from_a_stranger_are_not_believed(pair: Pair) -> None:
    """A tenant's host on the VIP's network says that it is the master; it is not the peer."""
    pair.serve()
    stranger = pair.lab.hosts["client"]
    config = pair.one.amphora.directory / "stranger.conf"
    text = pair.two.keepalived()  # as if it spoke to the first
    for said, lie in (
        ("state BACKUP\n    nopreempt", "state MASTER"),
        ("priority 253", "priority 255"),
        (f"unicast_src_ip {pair.two.host.address}", f"unicast_src_ip {stranger.address}"),
        (f"{VIP}/32 dev eth1", f"{VIP}/32 dev lo"),  # it lies, and does not even serve
        (f"{VIP_6}/128 dev eth1", f"{VIP_6}/128 dev lo"),
        ("    track_file {\n        balancers\n    }\n", ""),
    ):
        assert said in text
        text = text.replace(said, lie)
    config.write_text(text)
    words = ["-n", "-P", "-l", "-f", str(config), "-p", f"{config}.p", "-r", f"{config}.r"]
    moment = time.monotonic()
    with subprocess.Popen(["ip", "netns", "exec", stranger.name, "keepalived", *words], stderr=-3, stdout=-3) as liar:
        try:
            wait_for(lambda: stranger.holds(VIP))
            wait_for(lambda: time.monotonic() - moment > 2.0)
            assert (pair.one.holds(), pair.two.holds()) == (True, False)
            assert pair.one.pids("keepalived")
        finally:
            liar.terminate()


def test_the_plain_protocol_uploads_starts_and_stops(pair: Pair) -> None:
    half = pair.one
    text = half.keepalived()
    call = half.controller.call
    answer = half.host.run(call, "PUT", "/1.0/vrrp/upload", text)
    assert (answer.status, answer.json) == (200, {"message": "OK"})
    assert len(answer.headers["ETag"].strip('"')) == 32
    assert (half.amphora.base / "vrrp" / "octavia-keepalived.conf").read_text() == text
    assert half.host.run(call, "PUT", "/1.0/vrrp/nonsense").status == 400
    assert half.host.run(call, "PUT", "/1.0/vrrp/start").status == 202
    wait_for(half.holds)
    assert half.host.run(call, "PUT", "/1.0/vrrp/start").status == 202  # executed as reload
    assert half.host.run(call, "PUT", "/1.0/vrrp/stop").status == 202
    assert not half.holds()
    assert half.host.run(call, "GET", "/1.0/info").json["keepalived_version"].startswith("2.")
