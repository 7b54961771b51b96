"""Hand what stick tables learnt from the haproxy worker that goes to the one that comes.

haproxy's own way, a peers section with itself in it, teaches nothing in a worker's first five seconds, and later only when
the new worker has served for up to half a second. Here the old worker is held by a connection to its runtime socket, which
keeps it from ending: it is asked before the reload, the new one is told at once, and then what the old one learnt up to
its last connection follows. Commands: haproxy management guide 9.3 (show table, set table, prompt). Next: load_balancer.py.
"""

import re
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import NamedTuple, Self

from frontinus_amphora import haproxy_cli, haproxy_text
from frontinus_amphora.haproxy_cli import HaproxySilent
from frontinus_amphora.log import log

PROMPT = b"\n> "
PATIENCE = 8.0
"""Seconds for one dump, and for telling all of it; haproxy cuts the connection that is held after ten. A hundred thousand
entries take one and three. What is not told by then is learnt anew."""

ROUNDS, SETTLES_IN = 8, 0.02
"""How often it is looked whether those that teach each other agree, and seconds between two looks."""

MOST_LOOKED_AT = 10_000
"""Of more entries the dumps alone take long, and are looked at once."""

LONGEST_LINE = 12_000
"""haproxy takes a line of at most one buffer, 16 KiB unless it was built otherwise."""

# A key goes into a command, and may be a client's words where a configuration says so: nothing passes that could end one.
_ENTRY = re.compile(r"^0x\S+ key=([0-9A-Za-z:._-]+) use=\d+ .*\bserver_id=(\d+)(?: server_key=(\S+))?", re.MULTILINE)
_TELLABLE = ("ip", "ipv6", "string", "integer")
"""Types of tables that `set table` can write to; keys of others are not text."""


class Server(NamedTuple):
    """`name` is empty where an entry has none, as while it was only told. Where it has one, it counts, and not the id."""

    id: str
    name: str = ""

    def agrees(self, other: Self) -> bool:
        return self.id == other.id and (not self.name or not other.name or self.name == other.name)


Learnt = dict[tuple[str, str], Server]
"""Table and key -> a server."""


def tables(text: str) -> dict[str, tuple[str, ...]]:
    """Name and type of each table of the text that remembers servers, can be told, and is kept by a worker that goes: those
    of backends it empties at once."""
    found = {}
    for kind, section, lines in haproxy_text.sections(text):
        for words in lines if kind == "peers" else ():
            if words[0] == "table" and words[2:3] == ["type"] and words[3:4] and words[3] in _TELLABLE:
                found[f"{section}/{words[1]}"] = tuple(words[3 : 6 if words[4:5] == ["len"] else 4])
    return found


def others(text: str) -> frozenset[tuple[str, ...]]:
    """Who else learns what its tables do: peers that have an address."""
    sections = haproxy_text.sections(text)
    return frozenset(
        tuple(x) for kind, _, lines in sections if kind == "peers" for x in lines if x[0] == "server" and len(x) > 2
    )


class Handover:
    """From the worker that answers at `path` now to the one that answers there later. Used by one thread, as a context:
    while it is open, the worker of now does not end."""

    def __init__(self, path: str, before: str, after: str) -> None:
        """`before` and `after` are the texts of both; tables of one name and type in both are handed over."""
        old = tables(before)
        self._path = path
        self._names = sorted(name for name, kind in tables(after).items() if old.get(name) == kind)
        self._held: socket.socket | None = None
        self._told: Learnt = {}

    def __enter__(self) -> Self:
        if self._names:
            try:
                self._held = haproxy_cli.connect(self._path, PATIENCE)
                self._command("prompt")
                self._told = self._dump()
            except OSError as error:
                self._lost(error)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._held is not None:
            self._held.close()

    @property
    def knows_anybody(self) -> bool:
        return bool(self._told)

    def finish(self) -> None:
        """The new worker answers: tell it everything, then whom the old one, which may have served until a moment ago, met since.

        In its first milliseconds the new one knows nobody. A client who came then was given another member, and in a pair the
        old worker, the peer and by them the new one again are taught so: that is put right on both, until both agree."""
        if self._held is None:
            return
        try:
            tell(self._path, self._told)
            for _ in range(ROUNDS if len(self._told) <= MOST_LOOKED_AT else 1):
                met, last = self._read(self._ask_new), self._dump()
                strays, taught = self._strays(met), self._strays(last)
                self._forget(self._ask_new, strays)
                self._forget(self._command, taught)
                for command in _settings(taught):
                    self._command(command)
                known = self._told.keys() | met.keys()
                tell(self._path, strays | {key: server for key, server in last.items() if key not in known})
                if not strays and not taught:
                    return
                time.sleep(SETTLES_IN)
        except OSError as error:
            self._lost(error)

    def _dump(self) -> Learnt:
        """What the old worker knows."""
        return self._read(self._command)

    def _read(self, ask: Callable[[str], str]) -> Learnt:
        return {
            (name, key): server
            for name in self._names
            for key, server in entries(ask(f"show table {name} data.server_id gt 0"))
        }

    def _strays(self, learnt: Learnt) -> Learnt:
        """Who had another server when the reload began; that one."""
        told = self._told
        return {key: told[key] for key, server in learnt.items() if key in told and not server.agrees(told[key])}

    def _forget(self, ask: Callable[[str], str], learnt: Learnt) -> None:
        """An entry has the server's name beside its id, which counts more and cannot be set."""
        for name, key in learnt:
            ask(f"clear table {name} key {key}")

    def _ask_new(self, command: str) -> str:
        return haproxy_cli.ask(self._path, command, PATIENCE)

    def _command(self, command: str) -> str:
        """Ask over the connection that is held. Raises OSError."""
        if self._held is None:
            raise HaproxySilent("nothing is held")
        deadline = time.monotonic() + PATIENCE
        self._held.sendall(f"{command}\n".encode())
        answer = bytearray()
        while not answer.endswith(PROMPT):
            self._held.settimeout(max(0.001, deadline - time.monotonic()))
            part = self._held.recv(65536)
            if not part:
                raise HaproxySilent("haproxy closed the connection")
            answer += part
        return answer.decode("utf-8", "replace")

    def _lost(self, error: OSError) -> None:
        log("stick tables not handed over", path=self._path, error=str(error))
        if self._held is not None:
            self._held.close()
            self._held = None


def entries(dump: str) -> list[tuple[str, Server]]:
    """Key and server of each entry that `show table` printed."""
    found = ((x[1], Server(x[2], (x[3] or "").removeprefix("-"))) for x in _ENTRY.finditer(dump))
    return [(key, server) for key, server in found if server.id != "0"]


def tell(path: str, learnt: Mapping[tuple[str, str], Server]) -> None:
    """Write these entries into the tables of the worker that answers at `path`. Raises OSError, also when it takes long."""
    deadline = time.monotonic() + PATIENCE
    for line in _lines(_settings(learnt)):
        haproxy_cli.ask(path, line, max(0.001, deadline - time.monotonic()))


def _settings(learnt: Mapping[tuple[str, str], Server]) -> Iterator[str]:
    return (f"set table {name} key {key} data.server_id {server.id}" for (name, key), server in learnt.items())


def _lines(commands: Iterable[str]) -> Iterator[str]:
    line = ""
    for command in commands:
        if line and len(line) + len(command) >= LONGEST_LINE:
            yield line
            line = ""
        line = f"{line};{command}" if line else command
    if line:
        yield line
