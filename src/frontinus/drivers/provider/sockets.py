"""The driver-agent sockets of octavia-lib, by which provider drivers report statuses and statistics and look objects up.

Framing: a decimal length, a newline, so many bytes of JSON; one request on each connection (contract/driver-lib.yaml,
wire_protocol). Who may connect the file system says: the directory is for our user alone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog

STATUS, STATISTICS, LOOKUP = "status.sock", "stats.sock", "get.sock"
REQUEST_S = 5.0
LARGEST_REQUEST = 64 * 1024 * 1024
_LONGEST_LENGTH = 12

Answer = Callable[[dict[str, Any]], Awaitable[Any]]

log = structlog.get_logger()


class DriverAgent:
    """Serves the three sockets in a directory. `answers` has what answers each, by the socket's name."""

    def __init__(self, directory: Path, answers: Mapping[str, Answer]) -> None:
        self._directory = directory
        self._answers = answers
        self._servers: list[asyncio.Server] = []

    @property
    def paths(self) -> tuple[str, str, str]:
        """Of status, statistics and lookups."""
        return (
            str(self._directory / STATUS),
            str(self._directory / STATISTICS),
            str(self._directory / LOOKUP),
        )

    async def start(self) -> None:
        """Bind. A socket that a dead process left is replaced. Raises OSError."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, answer in self._answers.items():
            path = self._directory / name
            path.unlink(missing_ok=True)
            self._servers.append(await asyncio.start_unix_server(self._serving(name, answer), path))
            path.chmod(0o600)

    async def close(self) -> None:
        for server in self._servers:
            server.close()
        for name in self._answers:
            (self._directory / name).unlink(missing_ok=True)

    def _serving(self, name: str, answer: Answer) -> Callable[..., Awaitable[None]]:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                async with asyncio.timeout(REQUEST_S):
                    request = await _read(reader)
                told = json.dumps(await answer(request)).encode()
                writer.write(b"%d\n%b" % (len(told), told))
                await writer.drain()
            except (OSError, EOFError, TimeoutError, ValueError) as error:
                # As the contract has it: whoever sends nonsense is not answered.
                log.warning("driver agent refused a request", socket=name, reason=f"{type(error).__name__}: {error}")
            except Exception:  # one request's trouble must not end the others
                log.exception("driver agent failed", socket=name)
            finally:
                writer.close()
                with suppress(OSError):
                    await writer.wait_closed()

        return serve


async def _read(reader: asyncio.StreamReader) -> dict[str, Any]:
    length = await reader.readuntil(b"\n")
    if len(length) > _LONGEST_LENGTH or not length.strip().isdigit() or int(length) > LARGEST_REQUEST:
        raise ValueError(f"{length[:_LONGEST_LENGTH]!r} is no length")
    request = json.loads(await reader.readexactly(int(length)))
    if not isinstance(request, dict):
        raise ValueError("not an object")  # noqa: TRY004 - nonsense from outside
    return request
