"""One conversation with a QEMU over its QMP socket (docs/interop/qmp-spec.rst of QEMU). Blocking; used in threads.

A socket's path has room for 107 bytes, and a state directory may be deep, so the way goes over an open directory."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Unanswered(OSError):
    """The machine's monitor is not there, does not answer in time, or answers nonsense."""


class Declined(Exception):
    """QEMU understood, and does not do it. The text is its own."""


class Monitor:
    """Belongs to one thread."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._heard = b""

    def ask(self, command: str, arguments: Mapping[str, object] | None = None) -> Any:
        """What it returns. Raises Declined, Unanswered."""
        request: dict[str, object] = {"execute": command}
        if arguments:
            request["arguments"] = arguments
        try:
            self._connection.sendall(json.dumps(request).encode() + b"\n")
        except OSError as error:
            raise Unanswered(f"the machine's monitor: {error}") from error
        while True:
            answer = self.hear()
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                raise Declined(str(answer["error"].get("desc", answer["error"])))

    def hear(self) -> dict[str, Any]:
        """The next message, an event or an answer."""
        try:
            while b"\n" not in self._heard:
                part = self._connection.recv(65_536)
                if not part:
                    raise Unanswered("the machine's monitor closed")
                self._heard += part
            message, self._heard = self._heard.split(b"\n", 1)
            value = json.loads(message)
        except Unanswered:
            raise
        except (OSError, ValueError) as error:
            raise Unanswered(f"the machine's monitor: {error}") from error
        if not isinstance(value, dict):
            raise Unanswered("the machine's monitor speaks no QMP")
        return value


@contextmanager
def monitor(directory: Path, name: str, patience: float) -> Iterator[Monitor]:
    """Talk to the QEMU whose socket this is. One at a time: others wait up to `patience` seconds. Raises Unanswered."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(patience)
    try:
        try:
            handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
            try:
                connection.connect(f"/proc/self/fd/{handle}/{name}")
            finally:
                os.close(handle)
        except OSError as error:
            raise Unanswered(f"the machine's monitor: {error}") from error
        talk = Monitor(connection)
        talk.hear()
        talk.ask("qmp_capabilities")
        yield talk
    finally:
        connection.close()
