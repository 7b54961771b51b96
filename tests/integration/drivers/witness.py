"""A member that remembers how it was spoken to: in which PROXY header, in which TLS, with which words.

What balancers say is compared by it, so it remembers what would be said to any member alike, and leaves ports of clients
out. It answers every request of HTTP/1 with its name, in clear or in TLS, as it is asked."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from frontinus.testing.certificates import TestAuthority, bundle

from tests.integration.drivers.world import MEMBERS

TRAFFIC = "/traffic"
"""What clients ask for. Everything else is a check."""


class Heard(NamedTuple):
    """One request, or what was heard of a connection without any. `tls`: version, name asked for, protocol agreed on, who the client is."""

    preamble: str
    tls: tuple[str, str, str, str] | None
    words: str

    @property
    def is_traffic(self) -> bool:
        return TRAFFIC in self.words.partition("\r\n")[0]


class Identity:
    """The certificate of all witnesses; and whose clients they believe."""

    def __init__(self, directory: Path, authority: TestAuthority, name: str) -> None:
        file = directory / "witness.pem"
        file.write_bytes(bundle(authority.issue(name)))

        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(file)
        self.context.load_verify_locations(cadata=authority.pem.decode())
        self.context.verify_mode = ssl.CERT_OPTIONAL
        self.context.set_alpn_protocols(["http/1.1"])
        self.context.sni_callback = _note
        self.context.num_tickets = 0  # each connection shows all of itself


_asked = threading.local()
"""The name that the client asks for whose handshake this thread is in."""


def _note(_socket: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
    _asked.name = name or ""


class Witness:
    """`heard` and `connections` (those that had traffic) are since the last `forget`."""

    def __init__(self, name: str, identity: Identity, address: str = MEMBERS, port: int = 0) -> None:
        self.name = name
        self.address = address
        self.heard: set[Heard] = set()
        self.connections = 0
        self._identity = identity
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._listening = socket.create_server((address, port), family=family, backlog=512)
        self.port: int = self._listening.getsockname()[1]
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def forget(self) -> None:
        self.heard = set()
        self.connections = 0

    @property
    def checks(self) -> set[Heard]:
        return {x for x in self.heard if not x.is_traffic}

    @property
    def traffic(self) -> set[Heard]:
        return {x for x in self.heard if x.is_traffic}

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._listening.close()
        for connection in tuple(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            connection.settimeout(30)
            self._open.add(connection)
            self._threads = [x for x in self._threads if x.is_alive()]
            self._threads.append(threading.Thread(target=self._serve, args=(connection,), daemon=True))
            self._threads[-1].start()

    def _serve(self, plain: socket.socket) -> None:
        connection, preamble, tls = plain, "", None
        try:
            with contextlib.suppress(OSError):
                preamble = _preamble(plain).replace(str(self.port), "here")
                if plain.recv(1, socket.MSG_PEEK) == b"\x16":
                    connection = self._identity.context.wrap_socket(plain, server_side=True)
                    self._open.add(connection)
                    tls = _described(connection)
            had_traffic = False
            said_nothing = True
            for words in _requests(connection):
                said_nothing = False
                heard = Heard(preamble, tls, words)
                self.connections += heard.is_traffic and not had_traffic
                had_traffic |= heard.is_traffic
                self.heard.add(heard)
                body = self.name.encode()
                answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
                with contextlib.suppress(OSError):
                    connection.sendall(answer)
            if said_nothing and (preamble or tls):
                self.heard.add(Heard(preamble, tls, ""))
        finally:
            self._open -= {plain, connection}
            connection.close()
            plain.close()


def _preamble(plain: socket.socket) -> str:
    """The PROXY header, if there is one, without the client's port."""
    first = plain.recv(1, socket.MSG_PEEK)
    if first == b"P":
        line = b""
        while not line.endswith(b"\r\n") and (byte := plain.recv(1)):
            line += byte
        return re.sub(r" \d+ (\d+)\r\n$", r" * \1", line.decode())
    if first == b"\r":
        head = plain.recv(16, socket.MSG_WAITALL)
        version, family, length = struct.unpack(">BBH", head[12:])
        addresses = plain.recv(length, socket.MSG_WAITALL)
        if version == 0x20:
            return "LOCAL"
        size = 4 if family == 0x11 else 16
        return f"PROXY {addresses[: 2 * size].hex()} * {int.from_bytes(addresses[2 * size + 2 : 2 * size + 4])}"
    return ""


def _described(connection: ssl.SSLSocket) -> tuple[str, str, str, str]:
    certificate = connection.getpeercert() or {}
    subject: object = certificate.get("subject", "")
    return (
        connection.version() or "",
        _asked.name,
        connection.selected_alpn_protocol() or "",
        str(subject),
    )


def _requests(connection: socket.socket) -> Iterator[str]:
    """Heads of requests, until the other side has no more."""
    received = b""
    while True:
        while b"\r\n\r\n" not in received:
            try:
                part = connection.recv(65536)
            except OSError:
                return
            if not part:
                return
            received += part
        head, _, received = received.partition(b"\r\n\r\n")
        yield head.decode("latin-1")
