"""A virtual machine that balances: on two bridges of this host, with members and clients in namespaces on the second."""

from __future__ import annotations

import asyncio
import os
import resource
import secrets
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from uuid import NAMESPACE_URL, uuid5

from msgspec.structs import replace

from frontinus.drivers.amphora.haproxy.driver import HaproxyDriver
from frontinus.drivers.amphora.haproxy.settings import HaproxySettings
from frontinus.drivers.amphora.interface import Applied
from frontinus.drivers.compute.qemu.driver import QemuCompute, QemuSettings
from frontinus.model.boot import BootFiles
from frontinus.model.certificates import NO_SECRETS, Secrets
from frontinus.model.errors import Retry
from frontinus.model.heartbeat import Counters, Heartbeat
from frontinus.model.ids import NetworkId, PortId, SubnetId
from frontinus.model.ports import Port, PortAddress, PortPurpose
from frontinus.model.tree import Amphora, LoadBalancerTree

from tests.amphora.lab import Host, ip
from tests.integration.places import little_sctp
from tests.unit.drivers.trees import AMPHORA, LOAD_BALANCER, a_load_balancer, a_tree, an_amphora, number

IMAGE = Path(__file__).parents[3] / ".cache" / "image"
HERE, AGENT = (f"10.86.{os.getpid() % 250}.{last}" for last in (1, 2))
"""Of a network of this host, so that two processes that test need one each."""

PREFIX, LENGTH = "10.87.0.", 16
OWN, VIP = f"{PREFIX}5", f"{PREFIX}100"
MEMBERS = {"one": f"{PREFIX}11", "two": f"{PREFIX}12"}
CLIENT = f"{PREFIX}21"

SERVE = """
import socket, sys, threading
name = sys.argv[1].encode()
def http():
    server = socket.create_server(("0.0.0.0", 8080))
    while True:
        connection, _ = server.accept()
        try:
            connection.recv(4096)
            connection.sendall(b"HTTP/1.0 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n%s" % (len(name), name))
        except ConnectionError:
            pass  # an examination, which asks nothing and resets
        connection.close()
def long_answers():
    server = socket.create_server(("0.0.0.0", 8081), backlog=4096)
    while True:
        connection, _ = server.accept()
        connection.recv(4096)
        connection.sendall(b"HTTP/1.0 200 OK\\r\\nContent-Length: 6000\\r\\n\\r\\n" + 6000 * b"z")
        connection.close()
def udp():
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("0.0.0.0", 9000))
    while True:
        _, client = server.recvfrom(4096)
        server.sendto(name, client)
def port_of_client():
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("0.0.0.0", 9001))
    while True:
        _, client = server.recvfrom(4096)
        server.sendto(str(client[1]).encode(), client)
for service in sys.argv[2:]:
    threading.Thread(target=globals()[service]).start()
print("up", flush=True)
"""
"""A member that says its name over HTTP or UDP, or from which port it was asked."""


@dataclass
class MachineWorld:
    compute: QemuCompute
    driver: HaproxyDriver
    amphora: Amphora
    hosts: dict[str, Host]
    heartbeats: socket.socket
    booted_in: float
    services: dict[tuple[str, str], subprocess.Popen[bytes]] = field(default_factory=dict)

    async def apply(self, tree: LoadBalancerTree, with_secrets: Secrets = NO_SECRETS) -> Applied:
        return await self.driver.apply(self.amphora, tree, self.driver.render(tree, self.amphora, with_secrets))

    def ask_udp(self, port: int, *, source_port: int = 0, patience: float = 1.0) -> str:
        """Who answers a datagram from the client; empty when nobody does."""
        return self.hosts["client"].run(_ask_udp, port, source_port, patience)

    def names_by_udp(self, port: int, times: int) -> Counter[str]:
        return Counter(self.ask_udp(port) for _ in range(times))

    def clients_by_udp(self, port: int, clients: int) -> Counter[str]:
        """Who answers so many clients, one after the other, each of which asks once, from a port of its own."""
        return self.hosts["client"].run(_ask_udp_as_many, port, clients)

    def ask_sctp(self, port: int, own_port: int) -> str:
        """Who answers an association of the client; empty when nobody does."""
        return self.hosts["client"].run(little_sctp.ask, VIP, port, own_port, 2.0)

    def ask_http(self, port: int) -> bytes:
        return self.hosts["client"].run(_ask_http, port)

    def names_by_http(self, port: int, times: int) -> Counter[bytes]:
        """Who answers so many requests, each on a connection of its own."""
        return self.hosts["client"].run(_ask_http_often, port, times)

    def names_by_http_at_once(self, port: int, clients: int) -> Counter[bytes]:
        """Who answers so many clients that are there at the same time, until one is not answered."""
        return self.hosts["client"].run(_ask_http_at_once, port, clients)

    def lengths_by_http_read_late(self, port: int, clients: int) -> Counter[int]:
        """How much so many clients get, each of whom takes hardly anything before all have asked."""
        return self.hosts["client"].run(_ask_http_and_read_late, port, clients)

    @contextmanager
    def having(self, member: str, addresses: Iterable[str]) -> Iterator[None]:
        """While a member has these addresses too."""

        def each(verb: str) -> None:
            words = "".join(f"address {verb} {x}/{LENGTH} dev eth1\n" for x in addresses)
            subprocess.run(["ip", "-n", self.hosts[member].name, "-batch", "-"], input=words, text=True, check=True)

        each("add")
        try:
            yield
        finally:
            each("delete")

    def start(self, member: str, service: str) -> None:
        self.services[member, service] = _member(self.hosts[member], member, service)

    def stop(self, member: str, service: str) -> None:
        process = self.services.pop((member, service))
        process.kill()
        process.wait()

    def close(self) -> None:
        for member, service in list(self.services):
            self.stop(member, service)

    async def heartbeat(self) -> Heartbeat:
        """The next one that is sent."""
        with suppress(BlockingIOError):
            while True:
                self.heartbeats.recv(65_536)
        datagram = await asyncio.get_running_loop().sock_recv(self.heartbeats, 65_536)
        return self.driver.decode(datagram, datetime.now(UTC))

    async def until_member(self, pool: int, member: int, word: str) -> None:
        async with asyncio.timeout(20):
            while (await self.heartbeat()).pools[number(pool)].members[number(member)] != word:
                pass

    async def settled_counters(self, listener: int) -> Counters:
        """What is counted when nothing more comes: the same in four beats, since the kernel adds up every two seconds."""
        seen = [await self._counters(listener)]
        while len(seen) < 4 or len({(x.bytes_in, x.bytes_out, x.total_connections) for x in seen[-4:]}) > 1:
            seen.append(await self._counters(listener))
        return seen[-1]

    async def _counters(self, listener: int) -> Counters:
        return (await self.heartbeat()).listeners[number(listener)].counters


def _ask_udp(port: int, source_port: int, patience: float) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.bind(("0.0.0.0", source_port))
        asking.settimeout(patience)
        asking.sendto(b"who", (VIP, port))
        try:
            answer, source = asking.recvfrom(4096)
        except OSError:
            return ""
        assert source == (VIP, port)
        return answer.decode()


def _ask_udp_as_many(port: int, clients: int) -> Counter[str]:
    return Counter(_ask_udp(port, 20_000 + number, 1.0) for number in range(clients))


def _ask_http(port: int) -> bytes:
    with socket.create_connection((VIP, port), 5) as connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        answer = b""
        while part := connection.recv(4096):
            answer += part
        return answer.rpartition(b"\r\n\r\n")[2]


def _ask_http_at_once(port: int, clients: int) -> Counter[bytes]:
    """Nobody goes before all have been answered."""
    _have_files(clients)
    answers: Counter[bytes] = Counter()
    with ExitStack() as stack:
        for _ in range(clients):
            asking = stack.enter_context(socket.create_connection((VIP, port), 5))
            asking.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            try:
                answers[asking.recv(4096).rpartition(b"\r\n\r\n")[2]] += 1
            except TimeoutError:
                answers[b""] += 1
                break
    return answers


def _ask_http_and_read_late(port: int, clients: int) -> Counter[int]:
    _have_files(clients)
    lengths: Counter[int] = Counter()
    with ExitStack() as stack:
        waiting = []
        for _ in range(clients):
            asking = stack.enter_context(socket.socket())
            asking.settimeout(10)
            asking.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
            asking.connect((VIP, port))
            asking.sendall(b"GET / HTTP/1.0\r\n\r\n")
            waiting.append(asking)
        for asking in waiting:
            answer = b""
            with suppress(ConnectionResetError):
                while part := asking.recv(65_536):
                    answer += part
            lengths[len(answer.rpartition(b"\r\n\r\n")[2])] += 1
    return lengths


def _have_files(clients: int) -> None:
    """Of the process that tests."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, clients + 500), hard))


def _ask_http_often(port: int, times: int) -> Counter[bytes]:
    return Counter(_ask_http(port) for _ in range(times))


@asynccontextmanager
async def machine_world(
    state_dir: Path,
    *services: str,
    boot: BootFiles | None = None,
    amphora: Amphora | None = None,
    heartbeats_to: int = 0,
) -> AsyncIterator[MachineWorld]:
    """One that runs, is plugged, and has nothing to balance yet. Nothing of it is left afterwards. It starts by fresh boot files
    or by these, is on record as `amphora` says, and is heard at a port."""
    made = f"fm{secrets.token_hex(3)}"
    async with AsyncExitStack() as stack:
        bridges = [f"{made}m", f"{made}v"]
        for bridge in bridges:
            ip("link", "add", bridge, "up", "type", "bridge")
            stack.callback(ip, "link", "delete", bridge)
        ip("addr", "add", f"{HERE}/24", "dev", bridges[0])
        hosts = {}
        for number, (name, address) in enumerate({**MEMBERS, "client": CLIENT}.items()):
            hosts[name] = host = _host(f"{made}-{name}", f"{made}{number}", address, bridges[1])
            stack.callback(ip, "netns", "del", host.name)
            stack.callback(host.close)
        heartbeats = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        stack.callback(heartbeats.close)
        heartbeats.bind((HERE, heartbeats_to))
        heartbeats.setblocking(False)
        compute = QemuCompute(QemuSettings(state_dir=state_dir, image=IMAGE))
        stack.push_async_callback(compute.close)
        driver = HaproxyDriver(
            HaproxySettings(
                state_dir=state_dir,
                heartbeat_destinations=(f"{HERE}:{heartbeats.getsockname()[1]}",),
                network="own",
                datagram_balancer="lvs",
            )
        )
        stack.push_async_callback(driver.close)
        ports = (
            _port(PortPurpose.MANAGEMENT, AGENT, bridges[0]),
            _port(PortPurpose.VIP, OWN, bridges[1]),
        )
        began = time.monotonic()
        stack.push_async_callback(compute.destroy, AMPHORA)
        await compute.build(AMPHORA, LOAD_BALANCER, boot or driver.boot_files(AMPHORA, AGENT), ports[:1])
        amphora = replace(amphora or an_amphora(management_address=AGENT), ports=ports)
        tree = a_tree(a_load_balancer(VIP))
        await answering(driver, amphora, tree, state_dir)
        booted_in = time.monotonic() - began
        await compute.attach(AMPHORA, ports[1])
        await plugged(driver, amphora, tree)
        world = MachineWorld(compute, driver, amphora, hosts, heartbeats, booted_in)
        stack.callback(world.close)
        for name in MEMBERS:
            for service in services:
                world.start(name, service)
        yield world


async def answering(driver: HaproxyDriver, amphora: Amphora, tree: LoadBalancerTree, state_dir: Path) -> None:
    for _ in range(600):
        try:
            await driver.info(amphora, tree)
        except Retry:
            await asyncio.sleep(0.1)
        else:
            return
    console = state_dir / "machines" / AMPHORA / "console.log"
    raise AssertionError(f"the agent does not answer: {console.read_text(errors='replace')[-2000:]}")


async def plugged(driver: HaproxyDriver, amphora: Amphora, tree: LoadBalancerTree) -> None:
    """The guest sees a plugged interface when it gets to it."""
    for last in (*[False] * 50, True):
        try:
            await driver.plug(amphora, tree)
        except Retry:
            if last:
                raise
            await asyncio.sleep(0.1)
        else:
            return


def _host(name: str, link: str, address: str, bridge: str) -> Host:
    ip("netns", "add", name)
    ip("-n", name, "link", "set", "lo", "up")
    ip("link", "add", link, "type", "veth", "peer", "name", "eth1", "netns", name)
    ip("link", "set", link, "up", "master", bridge)
    ip("-n", name, "link", "set", "eth1", "up")
    ip("-n", name, "addr", "add", f"{address}/{LENGTH}", "dev", "eth1")
    return Host(name, int(address.rpartition(".")[2]))


def _member(host: Host, name: str, service: str) -> subprocess.Popen[bytes]:
    program = [sys.executable, "-S", "-c", SERVE, name, service]
    if service == "sctp":
        program = [sys.executable, "-S", little_sctp.__file__, name, "9001"]
    process = subprocess.Popen(["ip", "netns", "exec", host.name, *program], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout as said:
        assert said.readline() == b"up\n"
    return process


def _port(purpose: PortPurpose, address: str, bridge: str) -> Port:
    number = uuid5(NAMESPACE_URL, f"{bridge} {purpose}")
    return Port(
        id=PortId(str(number)),
        amphora_id=AMPHORA,
        purpose=purpose,
        network_id=NetworkId("n"),
        mac=f"02:{number.bytes[:5].hex(':')}",
        mtu=1500,
        addresses=(PortAddress(address=address, prefix_length=LENGTH, subnet_id=SubnetId("s")),),
        attachment=bridge,
    )
