"""A world for the HAProxy driver: a real agent that runs a real HAProxy, members that answer, clients that ask."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from frontinus.drivers.amphora.agent.driver import AgentDriver
from frontinus.drivers.amphora.haproxy.driver import HaproxyDriver
from frontinus.drivers.amphora.interface import Applied
from frontinus.drivers.amphora.nginx.driver import NginxDriver
from frontinus.model.certificates import NO_SECRETS, Secrets
from frontinus.model.ids import AmphoraId
from frontinus.model.tree import Amphora, LoadBalancerTree

from tests.unit.drivers.trees import LOAD_BALANCER, an_amphora

VIP = "127.84.0.1"
MEMBERS = "127.84.0.2"
AGENT = "127.84.0.3"
CLIENTS = "127.84.1.{}"

HAPROXY = shutil.which("haproxy") or "/usr/sbin/haproxy"
"""Another version is examined by a PATH that begins with its directory (test_versions.py)."""


@cache
def haproxy_version() -> str:
    """Of HAPROXY, as agents tell it."""
    told = subprocess.run([HAPROXY, "-v"], capture_output=True, text=True, check=True).stdout
    return told.removeprefix("HAProxy version ").split(" ")[0]


def free_port(address: str = VIP) -> int:
    with socket.socket() as trial:
        trial.bind((address, 0))
        return int(trial.getsockname()[1])


async def until(fact: Callable[[], Awaitable[bool]] | Callable[[], bool], within: float = 10.0) -> None:
    """Wait for a fact; fail when it does not come."""
    deadline = time.monotonic() + within
    while True:
        seen = fact()
        if (await seen) if isinstance(seen, Awaitable) else seen:
            return
        assert time.monotonic() < deadline, f"not so within {within} s"
        await asyncio.sleep(0.01)


class Member:
    """A server that answers each HTTP request with its name, and remembers how connections began.

    `healthy` decides what it answers to /health; `delay` is how long each answer takes, in seconds."""

    def __init__(self, name: str, address: str = MEMBERS) -> None:
        self.name = name
        self.address = address
        self.healthy = True
        self.health_code = 200
        self.delay = 0.0
        self.cookie = ""  # what it sets with each answer
        self.requests: list[bytes] = []
        self.checks: list[bytes] = []
        self.preambles: list[str] = []
        self._server: asyncio.Server | None = None
        self._serving: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self.port = 0

    async def start(self) -> Member:
        self._server = await asyncio.start_server(self._begin, self.address, self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def stop(self) -> None:
        """Nothing listens any more, and every connection is cut."""
        if self._server is not None:
            self._server.close()
            self._server = None
            for task, writer in self._serving.items():
                writer.transport.abort()
                task.cancel()  # it may be waiting before its answer
            await asyncio.gather(*self._serving, return_exceptions=True)

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._serving[task] = writer
        task.add_done_callback(self._serving.pop)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                try:
                    preamble, head = await read_request(reader)
                except (asyncio.IncompleteReadError, ConnectionError):
                    return
                if preamble:
                    self.preambles.append(preamble)
                if b" /health" in head.split(b"\r\n")[0]:
                    self.checks.append(head)
                    status = self.health_code if self.healthy else 500
                    writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
                    await writer.drain()
                    return
                self.requests.append(head)
                if self.delay:
                    await asyncio.sleep(self.delay)
                body = self.name.encode()
                cookie = f"Set-Cookie: {self.cookie}\r\n".encode() if self.cookie else b""
                if b" /set?" in head:  # the cookie that the client named
                    cookie = b"Set-Cookie: %s\r\n" % head.partition(b" /set?")[2].partition(b" ")[0]
                writer.write(b"HTTP/1.1 200 OK\r\n%sContent-Length: %d\r\n\r\n%s" % (cookie, len(body), body))
                await writer.drain()
        except ConnectionError:
            return
        finally:
            await closed(writer)


@contextlib.asynccontextmanager
async def serving(
    handle: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[int]:
    """A member that speaks whatever `handle` speaks; its port. Its connections must end by themselves."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handle(reader, writer)
        finally:
            await closed(writer)

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(begin, MEMBERS, 0)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()
        await asyncio.gather(*tasks)


async def read_request(reader: asyncio.StreamReader) -> tuple[str, bytes]:
    """The PROXY protocol header, version 2 written as version 1 would be, if there is one; and the request's head."""
    head = await reader.readuntil(b"\r\n\r\n")
    if head.startswith(b"PROXY "):
        line, _, rest = head.partition(b"\r\n")
        return f"1 {line.decode()}", rest
    if head == b"\r\n\r\n":
        signature = head + await reader.readexactly(8)
        assert signature == b"\r\n\r\n\x00\r\nQUIT\n"
        version, family, length = struct.unpack(">BBH", await reader.readexactly(4))
        if version == 0x20:  # a health check: nobody is spoken for
            await reader.readexactly(length)
            return "2 LOCAL", await reader.readuntil(b"\r\n\r\n")
        assert (version, family) == (0x21, 0x11)
        source, target, source_port, port = struct.unpack(">4s4sHH", (await reader.readexactly(length))[:12])
        addresses = f"{socket.inet_ntoa(source)} {socket.inet_ntoa(target)} {source_port} {port}"
        return f"2 PROXY TCP4 {addresses}", await reader.readuntil(b"\r\n\r\n")
    return "", head


@dataclass
class Tally:
    """What clients got: names of members that answered, and everything that went wrong."""

    answers: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


async def ask(
    port: int,
    *,
    source: str | None = None,
    source_port: int = 0,
    path: str = "/",
    within: float = 5.0,
    address: str = VIP,
) -> str:
    """One request on a connection of its own; the member's name, or the status code when that is not 200."""
    async with asyncio.timeout(within):
        local = (source or "127.0.0.1", source_port) if source or source_port else None
        reader, writer = await asyncio.open_connection(address, port, local_addr=local)
        try:
            return await exchange(reader, writer, path)
        finally:
            await closed(writer)


async def closed(writer: asyncio.StreamWriter) -> None:
    """Close a connection, and wait until that is done; that the other side was quicker is fine."""
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str = "/") -> str:
    """One request on an open connection."""
    writer.write(f"GET {path} HTTP/1.1\r\nHost: here\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    status = int(head.split(b" ", 2)[1])
    length = 0
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            length = int(line.partition(b":")[2])
    body = await reader.readexactly(length)
    return body.decode() if status == 200 else str(status)


async def spread(port: int, count: int, address: str = VIP) -> Counter[str]:
    """Who answers `count` requests, each on a new connection."""
    return Counter([await ask(port, address=address) for _ in range(count)])


@contextlib.asynccontextmanager
async def crowd(port: int, clients: int = 6) -> AsyncIterator[Tally]:
    """Clients that ask all the time, half of them on kept connections, half on new ones; gives their Tally.

    A kept connection that was closed between two requests is opened anew, as HTTP clients do; one that is closed under
    a request is a failure."""
    tally = Tally()
    ended = asyncio.Event()

    async def keep_asking() -> None:
        connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        while not ended.is_set():
            try:
                if connection is not None and connection[0].at_eof():
                    await closed(connection[1])
                    connection = None
                if connection is None:
                    connection = await asyncio.open_connection(VIP, port)
                tally.answers[await exchange(*connection)] += 1
            except (OSError, EOFError) as error:
                tally.failures.append(repr(error))
                if connection is not None:
                    await closed(connection[1])
                connection = None
            await asyncio.sleep(0.001)
        if connection is not None:
            await closed(connection[1])

    async def ask_anew() -> None:
        while not ended.is_set():
            try:
                tally.answers[await ask(port)] += 1
            except (OSError, EOFError) as error:
                tally.failures.append(repr(error))
            await asyncio.sleep(0.002)

    tasks = [asyncio.create_task(keep_asking() if index % 2 else ask_anew()) for index in range(clients)]
    try:
        yield tally
    finally:
        ended.set()
        await asyncio.gather(*tasks)


class World:
    """One amphora: a place with an agent that is started and killed at will, and the driver that speaks to it."""

    def __init__(
        self, directory: Path, driver_class: type[HaproxyDriver | NginxDriver] = HaproxyDriver, **settings: Any
    ) -> None:
        """`settings` are of the driver, beside those that a world needs."""
        self.place = directory / "place"
        self.place.mkdir(mode=0o700)
        self.memory = Path(tempfile.mkdtemp(prefix="frontinus-test-", dir="/dev/shm"))
        self.heartbeats = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.heartbeats.bind((AGENT, 0))
        self.heartbeats.setblocking(False)
        self.settings: Any = driver_class.Settings(
            state_dir=directory,
            agent_port=free_port(AGENT),
            heartbeat_destinations=(f"{AGENT}:{self.heartbeats.getsockname()[1]}",),
            **{"haproxy_command": HAPROXY, **settings},
        )
        self.driver: AgentDriver = driver_class(self.settings)  # type: ignore[arg-type]  # its own settings
        self.amphora: Amphora = an_amphora(AGENT, created_at=datetime.now(UTC), balancer_version=haproxy_version())
        self.members: dict[str, Member] = {}
        self._agent: subprocess.Popen[bytes] | None = None

    def start_agent(self, files: Mapping[str, bytes] | None = None) -> None:
        """By these boot files, or by fresh ones."""
        for name, content in (files or self.driver.boot_files(self.amphora.id, AGENT).files).items():
            path = self.place / name
            path.touch(mode=0o600)
            content = content.replace(b"{place}", os.fsencode(self.place))
            path.write_bytes(content.replace(b"{memory}", os.fsencode(self.memory)))
        with (self.place / "agent.log").open("ab") as log:
            self._agent = subprocess.Popen(
                [sys.executable, "-m", "frontinus_amphora", "--config", str(self.place / "agent.conf")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    async def answering(self) -> World:
        async def answers() -> bool:
            with socket.socket() as trial:
                return trial.connect_ex((AGENT, self.settings.agent_port)) == 0

        await until(answers)
        return self

    def kill_agent(self) -> None:
        if self._agent is not None:
            self._agent.kill()
            self._agent.wait()
            self._agent = None

    async def apply(self, tree: LoadBalancerTree, secrets: Secrets = NO_SECRETS) -> Applied:
        return await self.driver.apply(self.amphora, tree, self.driver.render(tree, self.amphora, secrets))

    def heartbeat_key(self, amphora_id: AmphoraId) -> bytes:
        """With what its heartbeats are signed."""
        return self.driver._authority.heartbeat_key(amphora_id).encode()

    async def member(self, name: str) -> Member:
        self.members[name] = await Member(name).start()
        return self.members[name]

    def runtime(self, command: str) -> str:
        """Ask HAProxy itself."""
        return ask_haproxy(self.place / f"{LOAD_BALANCER}.sock", command)

    def haproxy_pids(self) -> list[int]:
        """Every HAProxy process of this place that serves, the master first."""
        return self._pids("haproxy")

    def keeper_pids(self) -> list[int]:
        """Every table keeper of this place."""
        return self._pids("table-keeper")

    def _pids(self, program: str) -> list[int]:
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                with contextlib.suppress(OSError):
                    if (
                        os.fsencode(self.place) in (entry / "cmdline").read_bytes()
                        and program == (entry / "comm").read_text().strip()
                    ):
                        found.append(int(entry.name))
        return sorted(found)

    def nginx_pids(self) -> list[int]:
        """Every nginx process of this place: it writes its title over its command line, and prints to a file here."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                with contextlib.suppress(OSError):
                    output = (entry / "fd" / "2").readlink()
                    if output.is_relative_to(self.place) and "nginx" in (entry / "comm").read_text():
                        found.append(int(entry.name))
        return found

    async def close(self) -> None:
        await self.driver.close()
        if self._agent is not None:
            self._agent.terminate()
            self._agent.wait(10)
        for pid in (*self.haproxy_pids(), *self.keeper_pids(), *self.nginx_pids()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for member in self.members.values():
            await member.stop()
        self.heartbeats.close()
        shutil.rmtree(self.memory, ignore_errors=True)


def ask_haproxy(path: Path, command: str) -> str:
    """The answer of a HAProxy runtime socket. One that a worker was to read, whose end came first, is asked again."""
    for _ in range(20):
        with contextlib.suppress(ConnectionError):
            return _ask_haproxy(path, command)
        time.sleep(0.05)
    return _ask_haproxy(path, command)


def _ask_haproxy(path: Path, command: str) -> str:
    """However deep in the file system it is."""
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(f"/proc/self/fd/{directory}/{path.name}")
            connection.sendall(f"{command}\n".encode())
            answer = b""
            while part := connection.recv(65536):
                answer += part
            return answer.decode()
    finally:
        os.close(directory)
