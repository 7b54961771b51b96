"""HTTP/1.1 as far as the controller speaks it: a request with Content-Length in, an answer out, connections kept.

Written here, and not taken from http.server, because its imports cost 3 MB in every amphora. It knows no route and no
TLS: bytes only. Chunked bodies are refused (the contract says that they are not used). Next: server.py, routes.py.
"""

import json
import time
from collections.abc import Mapping
from typing import NamedTuple, Protocol

LARGEST_HEAD = 16384
LARGEST_BODY = 32 << 20  # a thousand certificates with their chains are 10 MB
TIME = "frontinus-time"
REASONS = {
    200: "OK",
    202: "Accepted",
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    409: "Conflict",
    411: "Length Required",
    412: "Precondition Failed",
    413: "Request Entity Too Large",
    422: "Unprocessable Entity",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
    505: "HTTP Version Not Supported",
}


class Refused(Exception):
    """The request cannot be read; answer with `status` and close."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Closed(Exception):
    """The peer ended the connection, or said nothing for too long, between two requests."""


class Request(NamedTuple):
    method: str
    path: str  # without the query, slashes at the start collapsed
    body: bytes
    keep: bool  # the connection
    fence: int = 0  # what the query names, if anything
    time: str = ""  # what the header Frontinus-Time says it is


class Response(NamedTuple):
    status: int
    body: bytes
    content_type: str = "application/json"
    etag: str | None = None


class Connection(Protocol):
    """What is needed of a socket."""

    def recv(self, size: int, /) -> bytes: ...
    def sendall(self, data: bytes, /) -> None: ...
    def settimeout(self, value: float | None, /) -> None: ...


def answer(status: int, body: Mapping[str, object], etag: str | None = None) -> Response:
    return Response(status, json.dumps(body).encode(), etag=etag)


def default_error(status: int, text: str) -> Response:
    """The contract's error_body_default."""
    return answer(status, {"error": f"{status} {REASONS.get(status, 'Error')}: {text}", "http_code": status})


def encode(response: Response, keep: bool) -> bytes:
    head = [
        f"HTTP/1.1 {response.status} {REASONS.get(response.status, 'Unknown')}",
        f"Content-Type: {response.content_type}",
        f"Content-Length: {len(response.body)}",
    ]
    if response.etag is not None:
        head.append(f"ETag: {response.etag}")  # bare, by contract
    if not keep:
        head.append("Connection: close")
    return "\r\n".join(head).encode() + b"\r\n\r\n" + response.body


class Reader:
    """Reads requests from one connection; owned by the connection's thread."""

    def __init__(self, connection: Connection, idle_timeout: float, request_timeout: float) -> None:
        self._connection = connection
        self._idle_timeout = idle_timeout
        self._request_timeout = request_timeout
        self._buffer = bytearray()

    def read(self) -> Request:
        """The next request. Raises Closed between requests, Refused (then the connection must be closed) in one."""
        if not self._buffer:
            self._connection.settimeout(self._idle_timeout)
            try:
                self._buffer += self._connection.recv(65536)
            except OSError as error:
                raise Closed from error
            if not self._buffer:
                raise Closed
        deadline = time.monotonic() + self._request_timeout
        head = self._read_head(deadline)
        lines = head.decode("latin-1").split("\r\n")
        words = lines[0].split(" ")
        if len(words) != 3 or not words[0].isalpha():
            raise Refused(400, "not an HTTP request")
        if words[2] not in ("HTTP/1.1", "HTTP/1.0"):
            raise Refused(505, "HTTP/1.1 is spoken here")
        headers: dict[str, str] = {}
        for line in lines[1:]:
            name, separator, value = line.partition(":")
            name = name.lower()
            if not separator or not name or name != name.strip():
                raise Refused(400, "malformed header")
            if name == "content-length" and headers.get(name, value.strip()) != value.strip():
                raise Refused(400, "two lengths")
            headers[name] = value.strip()
        body = self._read_body(headers, deadline)
        tokens = {word.strip().lower() for word in headers.get("connection", "").split(",")}
        keep = "close" not in tokens and (words[2] == "HTTP/1.1" or "keep-alive" in tokens)
        path, _, query = words[1].partition("?")
        fence = query.removeprefix("fence=")
        number = int(fence) if fence != query and fence.isdecimal() and len(fence) < 20 else 0
        path = "/" + path.lstrip("/") if path.startswith("/") else path
        return Request(words[0].upper(), path, body, keep, number, headers.get(TIME, ""))

    def discard(self, seconds: float) -> None:
        """Let a refused request's rest go by for a while, so that the answer is read before the connection is reset."""
        deadline = time.monotonic() + seconds
        try:
            while time.monotonic() < deadline:
                self._connection.settimeout(max(0.01, deadline - time.monotonic()))
                if not self._connection.recv(65536):
                    return
        except OSError:
            return

    def _read_head(self, deadline: float) -> bytes:
        while True:
            end = self._buffer.find(b"\r\n\r\n")
            if 0 <= end <= LARGEST_HEAD:
                head = bytes(self._buffer[:end])
                del self._buffer[: end + 4]
                return head.lstrip(b"\r\n")
            if len(self._buffer) > LARGEST_HEAD:
                raise Refused(431, "header too large")
            self._more(deadline)

    def _read_body(self, headers: Mapping[str, str], deadline: float) -> bytes:
        if "transfer-encoding" in headers:
            raise Refused(411, "chunked bodies are not taken")
        text = headers.get("content-length", "0")
        if not (text.isascii() and text.isdecimal()):
            raise Refused(400, "malformed Content-Length")
        length = int(text) if len(text) < 20 else LARGEST_BODY + 1
        if length > LARGEST_BODY:
            raise Refused(413, f"a body may have {LARGEST_BODY} bytes")
        if length > len(self._buffer) and headers.get("expect", "").lower() == "100-continue":
            self._connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        while len(self._buffer) < length:
            self._more(deadline)
        body = bytes(self._buffer[:length])
        del self._buffer[:length]
        return body

    def _more(self, deadline: float) -> None:
        self._connection.settimeout(max(0.001, deadline - time.monotonic()))
        try:
            part = self._connection.recv(65536)
        except TimeoutError as error:
            raise Refused(408, "too slow") from error
        except OSError as error:
            raise Closed from error
        if not part:
            raise Closed
        self._buffer += part
