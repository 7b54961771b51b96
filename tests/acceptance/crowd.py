"""Backends and the constant load before them, in a process of their own: what is measured beside it does not wait for
their interpreter. hitless.py asks for them; what they are is support.py's and `LongLived`."""

from __future__ import annotations

import multiprocessing
import socket
import ssl
import threading
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, Self

from tests.acceptance.support import Load, backend, until

BACKENDS = 4


class LongLived:
    """Connections that were HTTP once and say something every now and then, each to hear it back."""

    def __init__(self, host: str, ports: tuple[int, ...], *, each: int = 2, pause: float = 0.02) -> None:
        self.errors: list[str] = []
        self.echoes = 0
        self._pause = pause
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._talk, args=(host, port), daemon=True) for port in ports for _ in range(each)
        ]
        self._count = threading.Lock()

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        until(lambda: self.echoes >= 3 * len(self._threads) or self.errors, 10, "long-lived connections do not begin")
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(15)

    def _talk(self, host: str, port: int) -> None:
        try:
            with socket.create_connection((host, port), 10) as connection:
                connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    head += self._hear(connection)
                if b" 101 " not in head.splitlines()[0]:
                    raise ConnectionError(f"no upgrade: {head!r}")
                number = 0
                while not self._stop.wait(self._pause):
                    said = b"%06d" % number
                    connection.sendall(said)
                    heard = b""
                    while len(heard) < len(said):
                        heard += self._hear(connection)
                    if heard != said:
                        raise ConnectionError(f"said {said!r}, heard {heard!r}")
                    number += 1
                    with self._count:
                        self.echoes += 1
        except OSError as error:
            self.errors.append(f"long-lived on port {port}: {error!r}")

    @staticmethod
    def _hear(connection: socket.socket) -> bytes:
        part = connection.recv(4096)
        if not part:
            raise ConnectionError("closed")
        return part


class DatagramMembers:
    """Two that say back what they get: one at once, one after 20 ms. Use as a context."""

    AFTER = (0.0, 0.02)

    def __init__(self) -> None:
        self._sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in self.AFTER]
        for each in self._sockets:
            each.bind(("127.0.0.1", 0))
        self.ports = [int(each.getsockname()[1]) for each in self._sockets]

    def __enter__(self) -> Self:
        for each, after in zip(self._sockets, self.AFTER, strict=True):
            threading.Thread(target=self._serve, args=(each, after), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._sockets:
            each.close()

    @staticmethod
    def _serve(each: socket.socket, after: float) -> None:
        with suppress(OSError):  # closed
            while True:
                content, sender = each.recvfrom(1000)
                if after:
                    threading.Timer(after, lambda to=sender, said=content: each.sendto(said, to)).start()
                else:
                    each.sendto(content, sender)


class Askers:
    """Clients that ask by datagrams, each time from a new socket, and must hear their own question within two seconds."""

    def __init__(self, host: str, port: int, *, clients: int = 3, pause: float = 0.004) -> None:
        self.errors: list[str] = []
        self.answers = 0
        self._pause = pause
        self._stop = threading.Event()
        self._count = threading.Lock()
        self._threads = [threading.Thread(target=self._ask, args=(host, port), daemon=True) for _ in range(clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(15)

    def _ask(self, host: str, port: int) -> None:
        number = 0
        while not self._stop.wait(self._pause):
            number += 1
            said = b"%06d" % number
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.settimeout(2)
                client.connect((host, port))
                try:
                    client.send(said)
                    heard = client.recv(100)
                except OSError as error:
                    self.errors.append(f"datagrams: {error!r}")
                    continue
            if heard != said:
                self.errors.append(f"datagrams: said {said!r}, heard {heard!r}")
            with self._count:
                self.answers += 1


@dataclass(frozen=True)
class Told:
    """What the crowd met until now."""

    requests: int
    echoes: int
    datagrams: int
    reopened: int
    errors: list[str] = field(default_factory=list)


class Crowd:
    """Backends at once; the load when `begin` says before what. Use as a context."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_run, args=(theirs,), daemon=True)
        self._theirs = theirs

    def __enter__(self) -> Self:
        self._process.start()
        self._theirs.close()  # so that the end of the process ends our waiting
        self.ports: list[int]
        self.datagram_ports: list[int]
        self.ports, self.datagram_ports = self._pipe.recv()
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.close()
        self._process.join(30)
        self._process.kill()

    def begin(self, host: str, *, web_port: int, tls_port: int, tcp_port: int, udp_port: int) -> None:
        """Two clients on kept connections and two with new ones, two more over TLS, four long-lived connections, three
        that ask by datagrams."""
        self._ask((host, web_port, tls_port, tcp_port, udp_port))

    def told(self) -> Told:
        told = self._ask("told")
        assert isinstance(told, Told)
        return told

    def more(self, count: int, timeout: float = 20) -> Told:
        """Wait until so many further requests were answered, or something went wrong; what was met until then."""
        aim = self.told().requests + count

        def enough() -> Told | None:
            told = self.told()
            return told if told.requests >= aim or told.errors else None

        told = until(enough, timeout, "the load does not go on", pause=0.02)
        assert told is not None
        return told

    def _ask(self, question: object) -> object:
        self._pipe.send(question)
        answer = self._pipe.recv()
        if isinstance(answer, BaseException):
            raise answer
        return answer


def _run(pipe: Connection) -> None:
    """The other process: answers until the pipe is closed."""
    load: list[Any] = []
    with ExitStack() as stack:
        backends = [stack.enter_context(backend(f"backend-{n}")) for n in range(1, BACKENDS + 1)]
        pipe.send(([x.port for x in backends], stack.enter_context(DatagramMembers()).ports))
        while True:
            try:
                question = pipe.recv()
            except EOFError:
                return
            if question == "told":
                pipe.send(_told(*load))
                continue
            host, web_port, tls_port, tcp_port, udp_port = question
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            web = Load(host, web_port, pause=0.004)
            tls = Load(host, tls_port, kept=1, fresh=1, pause=0.02, context=context)
            long_lived = LongLived(host, (web_port, tcp_port))
            try:
                load = [stack.enter_context(x) for x in (web, tls, long_lived, Askers(host, udp_port))]
                pipe.send(None)
            except AssertionError as error:
                pipe.send(error)


def _told(web: Load, tls: Load, long_lived: LongLived, askers: Askers) -> Told:
    return Told(
        requests=web.total + tls.total,
        echoes=long_lived.echoes,
        datagrams=askers.answers,
        reopened=web.reopened + tls.reopened,
        errors=[*web.errors, *(f"TLS: {x}" for x in tls.errors), *long_lived.errors, *askers.errors],
    )
