"""HTTP/1.1 on a connection of asyncio, plain or behind TLS of our own: small, because there are thousands of them.

asyncio's own TLS takes 256 KB of buffer for each connection; 10,000 kept ones would be 2.5 GB. Next: host.py."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Any

import httptools

from frontinus.testing.simulated.agent import Answer

_READ = 256 * 1024
_REASONS = {200: "OK", 202: "Accepted", 400: "Bad Request", 404: "Not Found", 409: "Conflict"}

Respond = Callable[["Connection", str, str, bytes], Answer]
"""Given the connection, method, path and body."""


class Connection(asyncio.Protocol):
    """One client. Requests are answered in the order in which they come."""

    def __init__(self, respond: Respond) -> None:
        self._respond = respond
        self._parser = httptools.HttpRequestParser(self)
        self._path, self._body = b"", b""
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._take(data)

    def abort(self) -> None:
        self.transport.abort()

    def _take(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.transport.close()

    def _give(self, data: bytes) -> None:
        self.transport.write(data)

    # What the parser calls

    def on_url(self, url: bytes) -> None:
        self._path += url

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        method, path, body = self._parser.get_method().decode(), self._path.decode(), self._body
        self._path = self._body = b""
        answer = self._respond(self, method, path, body)
        if answer.delay:
            asyncio.get_running_loop().call_later(answer.delay, self._send, answer)
        else:
            self._send(answer)

    def _send(self, answer: Answer) -> None:
        kind = "text/plain; charset=utf-8" if answer.is_text else "application/json"
        head = (
            f"HTTP/1.1 {answer.status} {_REASONS.get(answer.status, 'Trouble')}\r\nContent-Type: {kind}\r\n"
            f"Content-Length: {len(answer.body)}\r\n\r\n"
        )
        if not self.transport.is_closing():
            self._give(head.encode() + answer.body)


class NamedTls(ssl.SSLObject):
    """Knows which amphora its client asked for."""

    amphora_id: str = ""


class TlsConnection(Connection):
    """The same behind TLS, with the client's certificate asked for. `context` is one whose `sslobject_class` is NamedTls."""

    def __init__(self, respond: Respond, context: ssl.SSLContext, closed: Callable[[TlsConnection], None]) -> None:
        super().__init__(respond)
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(self._in, self._out, server_side=True)
        assert isinstance(tls, NamedTls)  # noqa: S101 - what the caller promised
        self.tls = tls
        self._is_open = False
        self._closed = closed

    def connection_lost(self, error: Exception | None) -> None:
        self._closed(self)

    def data_received(self, data: bytes) -> None:
        self._in.write(data)
        try:
            if not self._is_open:
                self.tls.do_handshake()
                self._is_open = True
            while received := self.tls.read(_READ):
                self._take(received)
            self.transport.close()  # the client said goodbye
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:
            self._flush()  # tells the client why
            self.transport.close()
            return
        self._flush()

    def _give(self, data: bytes) -> None:
        self.tls.write(data)
        self._flush()

    def _flush(self) -> None:
        if self._out.pending and not self.transport.is_closing():
            self.transport.write(self._out.read())
