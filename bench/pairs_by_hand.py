"""A pair of amphorae without a controller: two agents in namespaces that are made here, and what the driver renders for
each pushed to them. What a takeover takes is theirs alone."""

from __future__ import annotations

import http.server
import os
import signal
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

from frontinus.drivers.amphora.haproxy.driver import HaproxyDriver
from frontinus.drivers.amphora.haproxy.settings import HaproxySettings
from frontinus.model.enums import (
    AmphoraRole,
    AmphoraStatus,
    LbAlgorithm,
    ListenerProtocol,
    PoolProtocol,
    SessionPersistenceType,
    Topology,
)
from frontinus.model.ids import (
    AmphoraId,
    ListenerId,
    LoadBalancerId,
    MemberId,
    NetworkId,
    PoolId,
    PortId,
    ProjectId,
    SubnetId,
    new_id,
)
from frontinus.model.tree import (
    Amphora,
    Listener,
    LoadBalancer,
    LoadBalancerTree,
    Member,
    Pool,
    SessionPersistence,
    Vip,
)

from tests.amphora.lab import PREFIX, Host, Lab, ip
from tests.amphora.world import Amphora as Place
from tests.amphora.world import Ears, SentFile, make_pki, wait_for

VIP = f"{PREFIX}100"
PROJECT = ProjectId("bench")


class Answering(http.server.BaseHTTPRequestHandler):
    """A member: it says its name."""

    def do_GET(self) -> None:
        body = f"member-{self.server.server_address[1]}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Members(http.server.ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """Amphorae die amid a request here."""


class PairByHand:
    """`holder` is who has the VIP now."""

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="frontinus-bench-")
        root = Path(self._directory.name)
        self.lab = Lab("one", "two", "client", "members")
        self._driver = HaproxyDriver(HaproxySettings(state_dir=root))
        self._names = ("one", "two")
        pki = make_pki(root)
        hosts = [self.lab.hosts[name] for name in self._names]
        self._places = [Place(pki, namespace=x.name, ears=lambda x=x: x.run(Ears)) for x in hosts]
        self._members = [self.lab.hosts["members"].run(Members, ("0.0.0.0", port), Answering) for port in (8001, 8002)]
        for member in self._members:
            threading.Thread(target=member.serve_forever, daemon=True).start()
        self._tree = _tree([AmphoraId(x.id) for x in self._places], self.lab)
        for number in (0, 1):
            self._places[number].start()
            self._push(number)
        wait_for(lambda: self.holder() is not None)

    @property
    def client(self) -> str:
        return self.lab.hosts["client"].name

    def holder(self) -> int | None:
        """The number of the one that has the VIP; None while none or both have it."""
        holding = [x for x in (0, 1) if self._host(x).holds(VIP)]
        return holding[0] if len(holding) == 1 else None

    def pids(self, number: int, program: str) -> list[int]:
        found = []
        for pid in sorted(self._places[number].haproxies()):
            try:
                if Path(f"/proc/{pid}/comm").read_text().strip() == program:
                    found.append(pid)
            except OSError:
                continue
        return found

    def kill(self, number: int, what: str) -> float:
        """Have something of this amphora die by force; when."""
        place = self._places[number]
        match what:
            case "haproxy" | "keepalived":
                pids = self.pids(number, what)
                moment = time.monotonic()
                for pid in pids:
                    os.kill(pid, signal.SIGKILL)
            case "agent":
                moment = time.monotonic()
                place.kill()
            case "amphora":
                assert place.process is not None
                pids = [place.process.pid, *place.haproxies()]
                # The cable first: a namespace that goes takes its links with it, and nobody in it says farewell.
                moment = time.monotonic()
                ip("-n", self.lab.switch, "link", "del", f"port-{self._names[number]}")
                for pid in pids:
                    os.kill(pid, signal.SIGKILL)
                place.process.wait()
            case "link":
                moment = time.monotonic()
                self.lab.unplug(self._names[number])
            case _:
                raise ValueError(what)
        return moment

    def heal(self, number: int, what: str) -> None:
        """Bring back what died, and wait until both serve and one has the VIP."""
        place = self._places[number]
        match what:
            case "agent":
                place.start()
            case "amphora":
                self.lab.wire(self._names[number])
                place.start()
                self._push(number)
            case "link":
                self.lab.plug(self._names[number])
        wait_for(lambda: self.pids(number, "haproxy") and len(self.pids(number, "keepalived")) == 2)
        wait_for(lambda: self.holder() is not None)
        moment = time.monotonic()
        wait_for(lambda: time.monotonic() - moment > 1.5)
        assert self.holder() is not None

    def ask_haproxy(self, number: int, command: str) -> str:
        """What its runtime socket answers."""
        import socket

        path = self._places[number].base
        with socket.socket(socket.AF_UNIX) as connection:
            descriptor = os.open(path, os.O_PATH)
            try:
                connection.connect(f"/proc/self/fd/{descriptor}/{self._tree.id}.sock")
            finally:
                os.close(descriptor)
            connection.sendall(f"{command}\n".encode())
            said = b""
            while part := connection.recv(65536):
                said += part
        return said.decode()

    def close(self) -> None:
        for member in self._members:
            member.shutdown()
            member.server_close()
        for place in self._places:
            place.close()
        self.lab.close()
        self._directory.cleanup()

    def _host(self, number: int) -> Host:
        return self.lab.hosts[self._names[number]]

    def _push(self, number: int) -> None:
        place = self._places[number]
        rendered = self._driver.render(self._tree, self._tree.amphorae[number])
        files = tuple(SentFile(x.name, x.content, x.private) for x in rendered.files)
        controller = place.controller()
        answer = self._host(number).run(controller.apply, self._tree.id, rendered.text, files=files)
        assert answer.status == 200, answer.body


def _tree(amphorae: list[AmphoraId], lab: Lab) -> LoadBalancerTree:
    now = datetime.now(UTC)
    load_balancer_id, pool_id = LoadBalancerId(new_id()), PoolId(new_id())
    common = {"load_balancer_id": load_balancer_id, "project_id": PROJECT, "created_at": now}
    subnet_id = SubnetId(new_id())
    vip = Vip(address=VIP, subnet_id=subnet_id, network_id=NetworkId(new_id()), port_id=PortId(new_id()))
    return LoadBalancerTree(
        load_balancer=LoadBalancer(
            id=load_balancer_id, project_id=PROJECT, vip=vip, topology=Topology.ACTIVE_STANDBY, created_at=now
        ),
        listeners=(
            Listener(
                id=ListenerId(new_id()),
                protocol=ListenerProtocol.HTTP,
                protocol_port=80,
                default_pool_id=pool_id,
                **common,
            ),
        ),
        pools=(
            Pool(
                id=pool_id,
                protocol=PoolProtocol.HTTP,
                lb_algorithm=LbAlgorithm.ROUND_ROBIN,
                session_persistence=SessionPersistence(type=SessionPersistenceType.SOURCE_IP),
                **common,
            ),
        ),
        members=tuple(
            Member(
                id=MemberId(new_id()),
                pool_id=pool_id,
                address=lab.hosts["members"].address,
                protocol_port=port,
                **common,
            )
            for port in (8001, 8002)
        ),
        amphorae=tuple(
            Amphora(
                id=amphora_id,
                role=role,
                status=AmphoraStatus.ALLOCATED,
                vrrp_address=lab.hosts[name].address,
                vrrp_interface="eth1",
                **common,
            )
            for amphora_id, role, name in zip(
                amphorae, (AmphoraRole.MASTER, AmphoraRole.BACKUP), ("one", "two"), strict=True
            )
        ),
    )
