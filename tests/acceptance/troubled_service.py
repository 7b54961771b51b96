"""A service between Frontinus and a real one, that can be away in all the ways in which services are."""

from __future__ import annotations

import contextlib
import socket
import threading
from enum import StrEnum
from typing import Self

_MOST = 1 << 16


class Trouble(StrEnum):
    NONE = "none"
    REFUSES = "refuses"
    """Nobody listens."""
    HANGS = "hangs"
    """Connections are taken, requests are read, and nothing is answered."""
    ANSWERS_500 = "answers 500"
    ANSWERS_503 = "answers 503"
    CUTS = "cuts its answers"
    """What is asked is done; of the answer one half comes, and then nothing."""


_WORDS = {Trouble.ANSWERS_500: "500 Internal Server Error", Trouble.ANSWERS_503: "503 Service Unavailable"}


class TroubledService:
    """Bytes are passed on as they are, so that whoever answers sees the address that was asked for. `asked` counts
    requests that met trouble. `trouble` may be set at any time: whatever was under way is cut."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._trouble = Trouble.NONE
        self._listening: socket.socket | None = None
        self.asked = 0
        self.port = 0
        self._listen()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def be(self, trouble: Trouble) -> None:
        with self._lock:
            self._trouble = trouble
            for each in self._open:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
            self._open.clear()
        if trouble is Trouble.REFUSES:
            self._deafen()
        elif self._listening is None:
            self._listen()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.be(Trouble.REFUSES)

    def _listen(self) -> None:
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", self.port))
        listening.listen(128)
        self.port = listening.getsockname()[1]
        self._listening = listening
        threading.Thread(target=self._accept, args=(listening,), daemon=True).start()

    def _deafen(self) -> None:
        if self._listening is not None:
            with contextlib.suppress(OSError):
                self._listening.shutdown(socket.SHUT_RDWR)  # wakes who waits in accept
            self._listening.close()
            self._listening = None

    def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                client, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with self._lock:
            trouble = self._trouble
            self._open.add(client)
        try:
            if trouble is Trouble.NONE:
                self._pass_on(client)
            else:
                request = _read_request(client)
                if request:
                    self._disappoint(client, request, trouble)
        except OSError:
            pass  # one of the two has gone: that is what this is for
        finally:
            with self._lock:
                self._open.discard(client)
            client.close()

    def _pass_on(self, client: socket.socket) -> None:
        with socket.create_connection(self._target, timeout=60) as service:
            service.settimeout(None)
            back = threading.Thread(target=_pump, args=(service, client), daemon=True)
            back.start()
            _pump(client, service)
            back.join()

    def _disappoint(self, client: socket.socket, request: bytes, trouble: Trouble) -> None:
        with self._lock:
            self.asked += 1
        if trouble is Trouble.HANGS:
            client.recv(1)  # until it gives up, or `be` ends it
        elif trouble is Trouble.CUTS:
            with socket.create_connection(self._target, timeout=60) as service:
                service.sendall(request)
                answer = service.recv(_MOST)  # headers at least: what was asked is done
                client.sendall(answer[: len(answer) // 2])
        else:
            body = b"<html>out of order</html>"
            head = f"HTTP/1.1 {_WORDS[trouble]}\r\nContent-Type: text/html\r\nContent-Length: {len(body)}\r\n"
            client.sendall(head.encode() + b"Connection: close\r\n\r\n" + body)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(_MOST):
            sink.sendall(data)
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def _read_request(client: socket.socket) -> bytes:
    """The whole of one, as requests sends it: with a Content-Length, if it has a body."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = client.recv(_MOST)
        if not more:
            return b""
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    length = next((int(x.split(b":")[1]) for x in head.split(b"\r\n") if x.lower().startswith(b"content-length:")), 0)
    while len(body) < length:
        more = client.recv(_MOST)
        if not more:
            return b""
        body += more
        data += more
    return data
