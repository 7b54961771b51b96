"""A process that is the host of thousands of amphorae: `python -m frontinus.testing.simulated.host DIRECTORY ADDRESS PORT`.

One socket serves them all: a controller names the amphora that it means in the TLS handshake (SNI), and is shown that
one's certificate. What a compute driver does with places goes over a Unix socket in DIRECTORY. It ends with its standard
input, so that nothing is left of it when whoever started it dies. Next: compute.py, fleet.py."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import os
import random
import re
import signal
import socket
import ssl
import sys
import time
from collections import OrderedDict, defaultdict
from collections.abc import Mapping
from pathlib import Path

import msgspec
import uvloop

from frontinus.model.ids import AmphoraId, LoadBalancerId
from frontinus.testing.simulated.agent import Answer, Boot, Nonsense, Order, Record, SimulatedAgent
from frontinus.testing.simulated.http import Connection, NamedTls, TlsConnection

KEPT_CONTEXTS = 20_000
"""TLS contexts that are kept: one takes a millisecond to make, which a real agent does when it starts, and 26 KB."""

SHORTEST_PAUSE_S = 0.002

_PLACE = re.compile("/places/([0-9a-f-]{36})")


class Building(msgspec.Struct):
    load_balancer_id: LoadBalancerId
    files: Mapping[str, bytes]


class Standing(msgspec.Struct):
    """A place, as the control socket tells it."""

    amphora_id: AmphoraId
    stopped: bool
    balancing: bool


class Ordering(msgspec.Struct):
    """An order to these amphorae; to all that are there now and will be, where none is named."""

    order: Order
    amphorae: list[AmphoraId] | None = None


class Host:
    """Owned by the event loop: everything."""

    def __init__(self, directory: Path, address: str, port: int) -> None:
        self._socket = socket_of(directory, address)
        self._address, self._port = address, port
        self._agents: dict[str, SimulatedAgent] = {}
        self._order = Order()
        self._contexts: OrderedDict[str, tuple[tuple[bytes, bytes], ssl.SSLContext]] = OrderedDict()
        self._connections: defaultdict[str, set[TlsConnection]] = defaultdict(set)
        self._due: list[tuple[float, str]] = []
        self._front = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._front.verify_mode = ssl.CERT_REQUIRED
        self._front.minimum_version = ssl.TLSVersion.TLSv1_2
        self._front.sslobject_class = NamedTls
        self._front.sni_callback = self._choose

    async def run(self) -> None:
        """Serve until standard input ends, or a signal comes."""
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, stop.set)
        reader = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        ended = asyncio.create_task(reader.read())
        ended.add_done_callback(lambda _: stop.set())
        agents = await loop.create_server(
            lambda: TlsConnection(self._respond, self._front, self._forget), self._address, self._port, backlog=4096
        )
        control = await loop.create_unix_server(lambda: Connection(self._control), str(self._socket))
        beating = asyncio.create_task(self._beat())
        await stop.wait()
        for task in (beating, ended):
            task.cancel()
        agents.close()
        control.close()
        self._socket.unlink(missing_ok=True)

    # Agents

    def _choose(self, tls: ssl.SSLSocket | ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> int | None:
        agent = self._agents.get(name or "")
        if agent is None or not agent.is_reachable or not isinstance(tls, NamedTls):
            return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        tls.amphora_id = agent.amphora_id
        tls.context = self._context_of(agent)
        return None

    def _context_of(self, agent: SimulatedAgent) -> ssl.SSLContext:
        made_of, context = self._contexts.get(agent.amphora_id, (None, None))
        if context is None or made_of is not agent.identity:
            context = _context(*agent.identity)
            self._contexts[agent.amphora_id] = (agent.identity, context)
            while len(self._contexts) > KEPT_CONTEXTS:
                self._contexts.popitem(last=False)
        self._contexts.move_to_end(agent.amphora_id)
        return context

    def _respond(self, connection: Connection, method: str, path: str, body: bytes) -> Answer:
        assert isinstance(connection, TlsConnection)  # noqa: S101 - made by run
        agent = self._agents.get(connection.tls.amphora_id)
        if agent is None:
            return Answer(500, b"{}")
        self._connections[agent.amphora_id].add(connection)
        if not _is_called(connection.tls, agent.boot.controller):
            return Answer(403, b'{"message": "the client is not the controller"}')
        return agent.answer(method, path, body)

    def _forget(self, connection: TlsConnection) -> None:
        of_agent = self._connections.get(connection.tls.amphora_id)
        if of_agent is not None:
            of_agent.discard(connection)
            if not of_agent:
                del self._connections[connection.tls.amphora_id]

    def _break_off(self, amphora_id: str) -> None:
        for connection in tuple(self._connections.get(amphora_id, ())):
            connection.abort()

    # Places

    def _control(self, _: Connection, method: str, path: str, body: bytes) -> Answer:
        try:
            if match := _PLACE.fullmatch(path):
                return self._place(method, AmphoraId(match[1]), body)
            if (method, path) == ("GET", "/places"):
                return _json(200, list(self._agents))
            if (method, path) == ("GET", "/report"):
                records: dict[str, Record] = {x.amphora_id: x.record for x in self._agents.values()}
                return _json(200, records)
            if (method, path) == ("POST", "/orders"):
                self._obey(msgspec.json.decode(body, type=Ordering))
                return _json(200, {})
        except (Nonsense, msgspec.MsgspecError) as error:
            return _json(400, {"message": str(error)})
        return _json(404, {"message": f"{method} {path}"})

    def _place(self, method: str, amphora_id: AmphoraId, body: bytes) -> Answer:
        agent = self._agents.get(amphora_id)
        if method == "DELETE":
            if agent is not None:
                del self._agents[amphora_id]
                self._contexts.pop(amphora_id, None)
                self._break_off(amphora_id)
            return _json(200, {})
        if method == "PUT":
            agent = self._build(agent, amphora_id, msgspec.json.decode(body, type=Building))
        if agent is None:
            return _json(404, {"message": "there is no such place"})
        is_balancing = agent.text is not None and not agent.order.stopped
        return _json(200, Standing(amphora_id=amphora_id, stopped=agent.order.stopped, balancing=is_balancing))

    def _build(self, agent: SimulatedAgent | None, amphora_id: AmphoraId, asked: Building) -> SimulatedAgent:
        boot = Boot.read(asked.files)
        if agent is None:
            agent = SimulatedAgent(amphora_id, asked.load_balancer_id, boot, time.time_ns(), self._order)
            self._agents[amphora_id] = agent
            heapq.heappush(self._due, (time.monotonic(), amphora_id))
        elif agent.order.stopped:
            agent.order = msgspec.structs.replace(agent.order, stopped=False)
            agent.start(boot, time.time_ns())
        return agent

    def _obey(self, asked: Ordering) -> None:
        if asked.amphorae is None:
            self._order = asked.order
        for amphora_id in tuple(self._agents) if asked.amphorae is None else asked.amphorae:
            agent = self._agents.get(amphora_id)
            if agent is not None:
                agent.order = asked.order
                if not agent.is_reachable:
                    self._break_off(amphora_id)

    # Heartbeats

    async def _beat(self) -> None:
        """Each agent's first at once, the others an interval apart; what was missed is left out, as agents do."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            while True:
                now = time.monotonic()
                while self._due and self._due[0][0] <= now:
                    _, amphora_id = heapq.heappop(self._due)
                    agent = self._agents.get(amphora_id)
                    if agent is None:
                        continue
                    if agent.is_heard:
                        _send(sender, agent)
                    # Spread a little, so that those that were built together do not stay together.
                    pause = agent.boot.interval * random.uniform(0.9, 1.1)
                    heapq.heappush(self._due, (now + pause, amphora_id))
                until = self._due[0][0] - time.monotonic() if self._due else 0.1
                await asyncio.sleep(min(max(until, SHORTEST_PAUSE_S), 0.1))


def socket_of(directory: Path, address: str) -> Path:
    """Where the host with this address takes what a compute driver says."""
    return directory / f"{address}.sock"


def _send(sender: socket.socket, agent: SimulatedAgent) -> None:
    datagram, destinations = agent.datagram(), agent.boot.destinations
    # The buffer is full, or nobody listens there: lost, as datagrams may be.
    with contextlib.suppress(BlockingIOError, ConnectionRefusedError):
        sender.sendto(datagram, destinations[agent.beats.sequence % len(destinations)])


def _context(certificate: bytes, client_ca: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cadata=client_ca.decode())
    # OpenSSL reads keys from files only: one that has no name, in memory.
    file = os.memfd_create("certificate")
    try:
        os.write(file, certificate)
        context.load_cert_chain(f"/proc/self/fd/{file}")
    finally:
        os.close(file)
    return context


def _is_called(tls: ssl.SSLObject, name: str) -> bool:
    certificate = tls.getpeercert() or {}
    return ("DNS", name) in certificate.get("subjectAltName", ())


def _json(status: int, content: object) -> Answer:
    return Answer(status, msgspec.json.encode(content))


if __name__ == "__main__":
    uvloop.run(Host(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])).run())
