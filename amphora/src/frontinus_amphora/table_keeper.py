"""What stick tables learnt, kept where the death of haproxy does not reach it: by a second haproxy, the table keeper.

It has no frontend, only a place among the peers, on a socket beside the runtime socket. A configuration that wants one
names it as a peer (agent-extension.md, Stick tables). haproxy tells it of each entry within milliseconds; one that starts
asks it for all of them. It is a process of its own, so the agent's death does not reach it either. Nothing waits for it
and nothing fails with it: without a keeper sessions are lost when haproxy dies, and not before.
docs/design/0026-stick-tables-outlive-haproxy.md weighs the ways. Next: load_balancer.py.
"""

import contextlib
import os
import select
import shutil
import time
from collections.abc import Callable, Iterator

from frontinus_amphora import files, haproxy_cli, haproxy_text, processes
from frontinus_amphora.child_service import ChildService
from frontinus_amphora.detached import Detached
from frontinus_amphora.errors import ServiceFailed
from frontinus_amphora.log import log
from frontinus_amphora.restarts import Restarts
from frontinus_amphora.service import Places

KEEPER = "keeper"
"""Its name among the peers."""

PROGRAM = "table-keeper"
"""What `ps` calls it, by a link to haproxy: who looks for haproxy, or ends it by name, means the one that serves."""

SWIFT = "httpclient.ssl.verify"
"""A line of the global section that spares haproxy reading the system's authorities, if its version knows it."""

PATIENCE = 2.0
GLANCE = 0.002  # seconds between two looks while waiting


def keeper_text(text: str, socket: str, own_peer: str, user: str) -> str | None:
    """The keeper's configuration for haproxy's; None when that wants none. Pure.

    `own_peer` is haproxy's name among the peers; `user` may speak to the socket, empty: whoever runs the keeper."""
    found = []
    swift = f"    {SWIFT} none\n" if haproxy_text.global_word(text, SWIFT) == "none" else ""
    for kind, name, lines in haproxy_text.sections(text):
        if kind == "peers" and ["server", KEEPER, f"unix@{socket}"] in lines:
            owner = f" user {user}" if user else ""
            found += [
                f"peers {name}",
                f"    bind unix@{socket} mode 600{owner}",
                f"    server {KEEPER}",
                # A peer needs an address. This one connects to us; nobody is where we would connect to it.
                f"    server {own_peer} unix@{socket}.none",
                # What no rule refers to stores nothing unless it is said.
                *(f"    {' '.join(words)} store server_id,server_key" for words in lines if words[0] == "table"),
            ]
    return f"global\n    maxconn 20\n    nbthread 1\n{swift}\n" + "\n".join(found) + "\n" if found else None


class Keeper(Detached):
    """The process. See detached.Detached."""

    program = PROGRAM

    def __init__(self, places: Places, command: Callable[[], str], extra: Callable[[str], tuple[str, ...]]) -> None:
        """`command` is haproxy's program; `extra`, of the text, are words after the configuration file."""
        super().__init__(places.keeper_record, places.keeper_output)
        self._places = places
        self._program = command
        self._extra = extra

    def start(self) -> None:
        """Start it from the file on disk; haproxy can speak to it when this returns. Raises ServiceFailed."""
        self._end_strays()
        files.remove(self._places.keeper_socket)
        pid = self._spawn(self._command())
        if not self._hold(pid):
            processes.reap(pid)
            raise ServiceFailed("the table keeper ended", self._tail())
        deadline = time.monotonic() + PATIENCE
        while not self._listens():
            if self.pid() is None or time.monotonic() > deadline:
                said = self._tail()
                self.stop(at_once=True)
                raise ServiceFailed("the table keeper does not start", said)
            select.select([], [], [], GLANCE)

    def stop(self, *, at_once: bool = True) -> None:
        """At once: it has nothing to finish."""
        super().stop(at_once=at_once)
        files.remove(self._places.keeper_socket)

    def _command(self) -> list[str]:
        config = self._places.keeper_config
        program = shutil.which(self._program())
        link = f"{self._places.directory}/{PROGRAM}"
        if program is not None:
            with contextlib.suppress(OSError):
                files.remove(link)
                os.symlink(program, link)
                program = link
        text = (files.read(config) or b"").decode()
        return [program or self._program(), "-db", "-L", KEEPER, "-f", config, *self._extra(text)]

    def _listens(self) -> bool:
        try:
            haproxy_cli.connect(self._places.keeper_socket, PATIENCE).close()
        except OSError:
            return False
        return True

    def _candidates(self) -> list[int]:
        recorded = self._recorded()
        return [recorded] if recorded is not None and processes.names(recorded, self._places.keeper_config) else []

    def _stray_pids(self) -> Iterator[int]:
        return processes.naming(self._places.keeper_config)


class KeptHaproxy(ChildService):
    """haproxy with a keeper beside it, where its configuration wants one. See service.Service."""

    def __init__(
        self,
        places: Places,
        argv: Callable[[], tuple[str, ...]],
        own_peer: str,
        extra: Callable[[str], tuple[str, ...]],
        socket_user: str,
        timeout: float,
        old_workers_mib: float,
    ) -> None:
        super().__init__(places, lambda: (*argv(), "-L", own_peer), extra, timeout, old_workers_mib)
        self._own_peer = own_peer
        self._socket_user = socket_user
        self._keeper = Keeper(places, lambda: argv()[0], extra)
        self._restarts = Restarts()
        self._keeper_due: float | None = None

    def adopt(self) -> int | None:
        pid = super().adopt()
        if self._keeper.adopt() is None:
            if pid is not None:
                self._keeper_due = time.monotonic()
        else:
            self._restarts.started(time.monotonic())
        return pid

    def start(self) -> None:
        self._follow()  # before haproxy, which asks for what it learnt as soon as it runs, and a second time much later
        super().start()

    def reload(self) -> None:
        self._follow()
        try:
            super().reload()
        except ServiceFailed:
            self._keeper_due = time.monotonic()  # the file of before is put back
            raise

    def stop(self, *, at_once: bool = False) -> None:
        """A haproxy that hangs leaves what it learnt to its successor."""
        super().stop(at_once=at_once)
        if not at_once:
            self._keeper_due = None
            self._drop_keeper()

    def attend(self) -> float | None:
        if self._keeper.has_died():
            self._keeper_due = self._restarts.next(time.monotonic())
            log("table keeper died", restart_in=max(0.0, self._keeper_due - time.monotonic()))
        if self._keeper_due is not None and time.monotonic() >= self._keeper_due:
            self._follow()
        return self._keeper_due

    def descriptors(self) -> dict[int, str]:
        return {**super().descriptors(), **self._keeper.descriptors()}

    def drain_output(self) -> str:
        self._keeper.drain_output()  # its own words mean nothing to anybody; they are kept for when it does not start
        return super().drain_output()

    def close(self) -> None:
        self._keeper.close()
        super().close()

    def _follow(self) -> None:
        """Have the keeper that the text on disk wants. One that runs as it should is left alone, with what it knows."""
        self._keeper_due = None
        wanted = keeper_text(self._text(), self._places.keeper_socket, self._own_peer, self._socket_user)
        config = self._places.keeper_config
        try:
            if wanted is None:
                self._drop_keeper()
                return
            if files.read(config) == wanted.encode() and self._keeper.pid() is not None:
                return
            self._keeper.stop()
            files.write_atomically(config, wanted.encode())
            self._keeper.start()
            self._restarts.started(time.monotonic())
        except (ServiceFailed, OSError) as error:
            log("table keeper not started", error=str(error)[-500:])
            self._keeper_due = self._restarts.next(time.monotonic())

    def _drop_keeper(self) -> None:
        if files.read(self._places.keeper_config) is not None:
            self._keeper.stop()
            files.remove(self._places.keeper_config)
