"""nginx for datagrams is replaced without losing an answer, and whatever kills the agent meanwhile."""

import contextlib
import os
import select
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import pytest

from frontinus_amphora import datagram_sockets, open_sockets, processes, relay_service
from frontinus_amphora.errors import ServiceFailed
from frontinus_amphora.nginx_service import Program
from frontinus_amphora.open_sockets import Spot
from frontinus_amphora.relay_service import MOST_OLD, RelayService, Wanted

from tests.amphora.world import ADDRESS, MEMBER_ADDRESS, free_port, is_alive, wait_for

pytestmark = pytest.mark.integration

PROGRAM = Program("/usr/sbin/nginx")
STEPS = ("relay_service.py", "datagram_sockets.py", "detached.py")
PATIENCE = 1.0


class SlowMember:
    """Says back what it gets, `after` some seconds."""

    def __init__(self, after: float) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((MEMBER_ADDRESS, 0))
        self._socket.settimeout(0.005)
        self.port = int(self._socket.getsockname()[1])
        self._after = after
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        owed: list[tuple[float, bytes, tuple[str, int]]] = []
        while not self._ended.is_set():
            self._socket.settimeout(0.005 if owed else 0.05)
            with contextlib.suppress(TimeoutError):
                content, sender = self._socket.recvfrom(1000)
                owed.append((time.monotonic() + self._after, content, sender))
            while owed and owed[0][0] <= time.monotonic():
                _due, content, sender = owed.pop(0)
                self._socket.sendto(content, sender)


class Askers:
    """Clients that ask without pause, each time from a new socket. What got no answer in a second is lost."""

    def __init__(self, ports: list[int]) -> None:
        self.asked = 0
        self.lost: list[float] = []
        self._began = time.monotonic()
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(port,)) for port in ports]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, port: int) -> None:
        while not self._ended.is_set():
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.settimeout(PATIENCE)
                client.connect((ADDRESS, port))
                self.asked += 1
                try:
                    client.send(b"?")
                    client.recv(10)
                except OSError:
                    self.lost.append(time.monotonic() - self._began)


class Place:
    """One datagram service before one member, listening at two places."""

    def __init__(self, directory: Path, member: SlowMember) -> None:
        self.directory = directory
        self.member = member
        self.ports = [free_port(), free_port()]
        self.workers = 1
        self.write()

    def write(self, idle: str = "400ms", more: str = "") -> None:
        own = " reuseport" if self.workers > 1 else ""
        listens = "".join(f"    listen {ADDRESS}:{port} udp{own};\n" for port in self.ports)
        (self.directory / "it.conf").write_text(
            f"worker_processes {self.workers};\nerror_log stderr crit;\nevents {{ worker_connections 40000; }}\n"
            f"stream {{\n  server {{\n{listens}    proxy_pass {MEMBER_ADDRESS}:{self.member.port};\n"
            f"    proxy_timeout {idle}; {more}\n  }}\n}}\n"
        )

    def service(self) -> RelayService:
        """As a new agent has it."""
        return RelayService(
            lambda pid_file: PROGRAM.arguments(str(self.directory), str(self.directory / "it.conf"), pid_file),
            lambda: Wanted(tuple(Spot(ADDRESS, port) for port in self.ports), self.workers),
            str(self.directory / "service.json"),
            str(self.directory / "output"),
            str(self.directory / "it.pid"),
            5.0,
            0,
        )

    def masters(self) -> list[int]:
        return [x for x in processes.printing_to(str(self.directory / "output")) if processes.session(x) == x]

    def settle(self, service: RelayService) -> None:
        """Wait until the one that serves is alone, and all of the others is gone."""

        def is_alone() -> bool:
            service.tend()
            service.has_died()
            return self.masters() == [service.pid()]

        wait_for(is_alone, 10)
        assert sorted(service.spots()) == sorted(Spot(ADDRESS, port) for port in self.ports)
        wait_for(lambda: sockets_at(self.ports) == dict.fromkeys(self.ports, self.workers))
        assert len(list(self.directory.glob("it.pid.*"))) == 1


def sockets_at(ports: list[int]) -> dict[int, int]:
    """By the kernel's table, which may pass over one, or tell it twice, while others come and go."""
    found = dict.fromkeys(ports, 0)
    for _inode, own, _peer in open_sockets.table("udp"):
        if own.address == ADDRESS and own.port in found:
            found[own.port] += 1
    return found


@pytest.fixture
def new_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[float], Place]]:
    """A place over a member that answers after so many seconds."""
    monkeypatch.setattr(relay_service, "LOOK", 0.2)  # nobody here waits for nginx's log
    made: list[Place] = []

    def make(after: float) -> Place:
        made.append(Place(tmp_path, SlowMember(after)))
        return made[0]

    yield make
    for place in made:
        place.service().stop()
        place.member.stop()
        assert place.masters() == []


@pytest.mark.parametrize("after", [pytest.param(0.0, id="at once"), pytest.param(0.02, id="after 20 ms")])
def test_no_answer_is_lost_over_twenty_changes(new_place: Callable[[float], Place], after: float) -> None:
    place = new_place(after)
    service = place.service()
    service.start()
    askers = Askers(place.ports * 3)
    for _ in range(20):
        service.reload()
        assert len(place.masters()) <= 2 + MOST_OLD
        select.select([], [], [], 0.05)
    askers.stop()
    assert askers.lost == []
    assert askers.asked > 50
    place.settle(service)
    service.close()


def test_each_worker_has_sockets_of_its_own(new_place: Callable[[float], Place]) -> None:
    place = new_place(0.0)
    place.workers = 3
    place.write()
    service = place.service()
    service.start()
    askers = Askers(place.ports)
    for _ in range(5):
        service.reload()
    askers.stop()
    assert askers.lost == []
    place.settle(service)
    service.close()


def test_what_a_place_no_longer_has_is_refused_at_once(new_place: Callable[[float], Place]) -> None:
    """Though the old nginx lives while somebody has a session with it."""
    place = new_place(0.0)
    place.write(idle="5s")
    service = place.service()
    service.start()
    first, second = place.ports
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(PATIENCE)
        client.connect((ADDRESS, first))
        client.send(b"?")
        assert client.recv(10) == b"?"
        place.ports = [second]
        place.write()
        service.reload()
        client.send(b"?")
        with pytest.raises(ConnectionRefusedError):
            client.recv(10)
    assert len(place.masters()) == 2
    place.ports = [first, second]
    place.write()
    service.reload()
    wait_for(lambda: sockets_at(place.ports) == {first: 2, second: 3})
    service.close()


def test_what_another_holds_is_refused(new_place: Callable[[float], Place], tmp_path: Path) -> None:
    """Even if it would share with sockets of the same user, as another load balancer's do."""
    place = new_place(0.0)
    service = place.service()
    service.start()
    pid = service.pid()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind((ADDRESS, 0))
        place.ports.append(other.getsockname()[1])
        place.write()
        with pytest.raises(ServiceFailed) as refused:
            service.reload()
    assert f"{ADDRESS}:{place.ports.pop()} Address already in use" in str(refused.value)
    assert (pid, [pid]) == (service.pid(), place.masters())
    service.close()


def test_a_change_that_nginx_refuses_leaves_all_as_it_was(new_place: Callable[[float], Place]) -> None:
    place = new_place(0.0)
    service = place.service()
    service.start()
    pid = service.pid()
    askers = Askers(place.ports)
    place.write(more="no_such_thing;")
    with pytest.raises(ServiceFailed):
        service.reload()
    askers.stop()
    assert (askers.lost, service.pid()) == ([], pid)
    place.settle(service)
    service.close()


def test_what_comes_while_a_dead_one_is_replaced_waits(new_place: Callable[[float], Place]) -> None:
    place = new_place(0.0)
    service = place.service()
    service.start()
    pid = service.pid()
    assert pid is not None
    for victim in (pid, *(processes.children(pid) or ())):
        os.kill(victim, signal.SIGKILL)
    wait_for(lambda: not is_alive(pid))
    askers = Askers(place.ports)
    wait_for(lambda: askers.asked == 2)
    assert service.has_died()
    service.start()
    askers.stop()
    assert askers.lost == []
    service.close()


def kill_after(calls: int) -> Callable[[FrameType, str, object], None]:
    """A profile function that kills this process when it has called so many of the functions that make a change.

    But not between `bind` and `connect` of a new socket: what it gets until the kernel has closed it is lost (0008)."""
    left = calls

    def count(frame: FrameType, event: str, _argument: object) -> None:
        nonlocal left
        caller = frame.f_back.f_code.co_name if frame.f_back else ""
        if (
            event == "call"
            and frame.f_code.co_filename.endswith(STEPS)
            and (caller, frame.f_code.co_name) != ("make", "quieten")
        ):
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return count


def change_and_die(service: RelayService, calls: int) -> bool:
    """An agent that is killed amid a change; False when it finished before."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            sys.setprofile(kill_after(calls))
            service.reload()
            code = 0
        except BaseException:  # noqa: BLE001 - the child must not go on as if it were the test
            traceback.print_exc()
        finally:
            os._exit(code)
    service.close()  # ours was only a copy
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) in (0, -signal.SIGKILL)
    return os.WIFSIGNALED(status)


@pytest.mark.parametrize(
    "stride", [pytest.param(9, id="some"), pytest.param(1, id="every step", marks=pytest.mark.long)]
)
def test_an_agent_that_is_killed_amid_a_change_costs_no_answer(
    new_place: Callable[[float], Place], stride: int
) -> None:
    """After any of its calls; the next one finds who serves, changes again, and nothing is left over."""
    place = new_place(0.02)
    service = place.service()
    service.start()
    askers = Askers(place.ports * 2)
    calls, killed = 0, True
    while killed:
        killed = change_and_die(service, calls)
        service = place.service()
        assert service.adopt() is not None
        calls += stride
    service.reload()
    place.settle(service)
    askers.stop()
    assert calls > 40
    assert askers.lost == []
    service.close()


def test_an_agent_that_may_not_share_sockets_goes_on(
    new_place: Callable[[float], Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As under Yama, for one that is not root: it knows them by the kernel's tables alone."""
    place = new_place(0.0)
    service = place.service()
    service.start()
    pid = service.pid()
    service.close()
    monkeypatch.setattr(datagram_sockets, "held_by", lambda pid, pidfd: None)
    service = place.service()
    assert service.adopt() == pid
    service.reload()
    assert service.pid() != pid
    place.settle(service)
    askers = Askers(place.ports)
    service.reload()
    askers.stop()
    assert askers.lost == []
    place.settle(service)
    service.close()


def test_where_the_address_is_not_here_the_old_one_quits(
    new_place: Callable[[float], Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As at the one of a pair that stands by: the kernel connects no socket to an address that is elsewhere."""
    place = new_place(0.0)
    monkeypatch.setattr(datagram_sockets, "quieten", lambda each: False)
    service = place.service()
    service.start()
    service.reload()
    place.settle(service)
    service.close()
    service = place.service()
    assert service.adopt() is not None
    service.reload()
    place.settle(service)
    service.retire()
    wait_for(lambda: place.masters() == [] or service.has_died())
    service.close()
