"""One nginx of a load balancer: its file, its process, what it counted, and who of its members gets nothing now.

The configuration and its outline come complete from the driver (agent-extension.md); the agent adds the word `down` to
the servers of members that are down, and reloads when that changes. Whatever fails, what ran before still runs.
There are two (nginx_pair.py): one for connections, which reloads, and one for datagrams, which is replaced.
load_balancer.py decides when, and serialises calls; nothing of haproxy is known here.
"""

import hashlib
import json
import os
import re
import select
import time
from collections.abc import Callable, Hashable
from typing import NamedTuple

from frontinus_amphora import binds, files, open_sockets, processes
from frontinus_amphora.checks import Checks
from frontinus_amphora.encoding import Counters, ListenerRow, PoolRow
from frontinus_amphora.errors import AgentError, Invalid, ServiceFailed, Unsupported
from frontinus_amphora.haproxy_text import Bind
from frontinus_amphora.log import log
from frontinus_amphora.nginx_service import NginxService, Program
from frontinus_amphora.open_sockets import Spot
from frontinus_amphora.outline import (
    NOTHING,
    Outline,
    mark_down,
    parse_outline,
    pool_rows,
    resting,
    sessions_of_listeners,
)
from frontinus_amphora.queues import QueueWatch
from frontinus_amphora.relay_service import RelayService, Wanted
from frontinus_amphora.restarts import LONGEST_DELAY, Restarts

CHECK_TIMEOUT = 60.0
CONNECTIONS, DATAGRAMS = "nginx", "datagrams"  # names of the two, and of their files in a change (agent-extension.md)
SHARED = re.compile(r"^([ \t]*listen [^;\n]* udp) reuseport\b", re.MULTILINE)
GLANCES, GLANCE = 5, 0.002  # how often it is looked at the queues in one look, and seconds in between
GATHER = 0.02  # seconds; members of one machine go down together, and one reload does for all


class Pushed(NamedTuple):
    """What the driver sent: the text, and what it means."""

    text: str
    outline: Outline
    written: bytes  # the outline as it came


def read_pushed(stem: str) -> Pushed | None:
    """What the files `<stem>.conf` and `<stem>.json` make nginx do; None: nothing. Raises Invalid when they make no
    sense."""
    text, outline = (files.read(f"{stem}.{kind}") for kind in ("conf", "json"))
    if text is None and outline is None:
        return None
    name = os.path.basename(stem)
    if text is None or outline is None:
        raise Invalid("malformed body", f"{name}.conf and {name}.json come together")
    try:
        return Pushed(text.decode(), parse_outline(outline), outline)
    except UnicodeDecodeError as error:
        raise Invalid("malformed body", f"{name}.conf is not UTF-8") from error


class Nginx:
    """Guarded by its load balancer's lock, except for the methods marked *any thread*."""

    def __init__(
        self,
        load_balancer_id: str,
        base_path: str,
        name: str,
        program: Program,
        timeout: float,
        old_workers_mib: float,
        patience: float,
        changed: Callable[[], None],
        watched: Callable[[], None],
    ) -> None:
        """`name` is CONNECTIONS or DATAGRAMS; `changed` asks for a heartbeat; `watched` says that descriptors moved or
        something will fall due."""
        self.id = load_balancer_id
        self.name = name
        self.directory = f"{base_path}/{load_balancer_id}/nginx"
        # Relative paths in the text start where the file is, so it is where those of haproxy's texts start.
        self.config = f"{base_path}/{load_balancer_id}.{name}.conf"
        self._own = f"{self.directory}/{name}"  # what the names of our own files begin with
        self._base_path = base_path
        self._program = program
        self._changed = changed
        self._watched = watched
        self._service = self._make_service(timeout, old_workers_mib)
        self._checks = Checks(self._member_flipped)
        self._pushed: Pushed | None = None
        self._restarts = Restarts()
        self._queues = QueueWatch(patience)
        self._restart_at: float | None = None
        self._flip_at: float | None = None
        self._open_now = open_sockets.Seldom(self._count_open)

    # What is asked over REST

    def check(self, pushed: Pushed, trial: str | None = None) -> None:
        """Would nginx take this? `trial` is a directory that relative paths lead to the new files from.

        Raises Invalid with what nginx says, without our own paths; Unsupported when there is no such nginx here."""
        if not self._program.version():
            raise Unsupported("this configuration", f"nginx with its stream module ({self._program.command})")
        files.make_directory(self.directory)
        scratch = f"{trial or self._base_path}/{self.id}.{self.name}.conf.new"
        # The test binds, and with a socket for each worker it would join those that serve.
        files.write_atomically(scratch, SHARED.sub(r"\1", pushed.text).encode())
        # Its own name for the process id, or else the test would write over the running one's.
        argv = [*self._program.arguments(self.directory, scratch, "trial.pid"), "-t"]
        code, output = processes.run(argv, CHECK_TIMEOUT)
        files.remove(f"{self.directory}/trial.pid")
        if code != 0:
            os.replace(scratch, f"{self.config}.new-failed")
            raise Invalid(
                "Invalid request", output.replace(scratch, f"{self.name}.conf").replace(self.directory, "nginx")
            )
        files.remove(scratch)

    def refused_binds(self, outline: Outline, beside: Outline = NOTHING) -> list[binds.RefusedBind]:
        """Those places that the kernel would refuse; what our own nginx holds is not tried, nor what the one beside it
        does."""
        refused = self._refused_binds(outline, beside)
        if refused and self._service.pid() is None:
            # It may be an nginx of ours that nothing on disk tells of: whoever wiped the place left it running.
            files.make_directory(self.directory)
            self._service.stop()
            refused = self._refused_binds(outline, beside)
        return refused

    def _refused_binds(self, outline: Outline, beside: Outline) -> list[binds.RefusedBind]:
        refused: list[binds.RefusedBind] = []
        for datagrams in (False, True):
            wanted, ours, others = (each.binds(datagrams) for each in (outline, self.running(), beside))
            if datagrams:
                ours = [*ours, *(Bind("", *spot) for spot in self._service.spots())]
            refused += binds.refused_binds(wanted, [*ours, *others], datagrams=datagrams)
        return refused

    def follow(self, pushed: Pushed | None) -> str:
        """Run this; None: run nothing. What was done: unchanged, start, reload, stop.

        Raises ServiceFailed when nginx does not do it; then what ran before still runs."""
        before = self._pushed
        running = self._service.pid() is not None
        if pushed is None:
            if before is None and not running and self._restart_at is None:
                return "unchanged"
            self._forget()
            self._service.retire()
            self._watched()
            return "stop"
        if pushed == before and running and self._is_loaded():
            return "unchanged"
        files.make_directory(self.directory)
        known = _healths(files.read(self._healths_path())) if before is None else None
        self._checks.watch(pushed.outline.checks(), known)
        self._pushed = pushed
        try:
            self._run(self._effective(pushed))
            self._keep_proven(pushed)
        except (ServiceFailed, OSError):
            self._pushed = before
            self._checks.watch({} if before is None else before.outline.checks())
            if before is None:
                self.stop()
            elif self._service.has_died() or not running:
                self._restart_at = time.monotonic()
            raise
        finally:
            self._watched()
        return "reload" if running else "start"

    def stop(self) -> None:
        """Stop nginx, and keep it stopped."""
        self._forget()
        self._service.stop()
        self._watched()

    def _forget(self) -> None:
        self._pushed = None
        self._restart_at = self._flip_at = None
        self._checks.watch({})
        for path in (self.config, self._healths_path(), f"{self._own}.loaded", *self._proven_paths()):
            files.remove(path)

    def delete(self) -> None:
        """Leave nothing behind. Safe to repeat."""
        if os.path.isdir(self.directory):
            self.stop()
            self._service.close()
            files.remove(f"{self.config}.new-failed")

    def is_running(self) -> bool:
        """*Any thread.*"""
        return self._service.pid() is not None

    def has_fallen(self) -> bool:
        """*Any thread.* True while it should run and does not."""
        return self._pushed is not None and not self.is_running()

    def is_settled(self, pushed: Pushed | None) -> bool:
        """True when exactly this runs."""
        if pushed is None:
            return self._pushed is None and not self.is_running()
        return pushed == self._pushed and self.is_running() and self._is_loaded()

    # What the supervisor asks

    def resume(self, pushed: Pushed | None) -> None:
        """After a start of the agent: adopt the nginx that runs, or have the one started that should run."""
        pid = self._service.adopt()
        if pushed is None:
            if pid is not None:
                self.stop()
            return
        self._pushed = pushed
        self._checks.watch(pushed.outline.checks(), _healths(files.read(self._healths_path())))
        now = time.monotonic()
        if pid is None:
            self._restart_at = now
        else:
            log("nginx adopted", load_balancer_id=self.id, pid=pid)
            self._restarts.started(now)
            if not self._is_loaded():
                self._flip_at = now

    def descriptors(self) -> dict[int, str]:
        """*Any thread.*"""
        return self._service.descriptors()

    def heard(self) -> str:
        """*Any thread.* What nginx printed meanwhile."""
        return self._service.drain_output()

    def notice_death(self) -> None:
        """nginx may have died: if so, have it restarted, at once or after the back-off."""
        if self._service.has_died():
            now = time.monotonic()
            if self._pushed is not None:
                self._restart_at = self._restarts.next(now)
            log("nginx died", load_balancer_id=self.id, restart_in=max(0.0, (self._restart_at or now) - now))

    def attend(self) -> float | None:
        """Do what is due; the time (monotonic) when something will be due, None when nothing will."""
        now = time.monotonic()
        if self._restart_at is not None and now >= self._restart_at:
            self._restart()
        if self._flip_at is not None and now >= self._flip_at:
            self._flip()
        if self._queues.due is not None and now >= self._queues.due:
            self._look_whether_it_hangs()
        dues = (self._restart_at, self._flip_at, self._queues.due, self._service.tend())
        return min((due for due in dues if due is not None), default=None)

    def let_go(self) -> None:
        """The agent ends; nginx goes on."""
        self._checks.stop()
        if self._pushed is not None:
            self._save_healths()
        self._service.close()

    # What a heartbeat tells

    def running(self) -> Outline:
        """What runs now. *Any thread.*"""
        pushed = self._pushed
        return NOTHING if pushed is None or self._service.pid() is None else pushed.outline

    def rows(self) -> tuple[dict[str, ListenerRow], dict[str, PoolRow]]:
        """*Any thread.* The listeners and pools that nginx serves now; nothing when it does not run. Counters are told
        by the log (statistics.py)."""
        outline = self.running()
        if self._queues.due is None and any(self._waiting(outline).values()):
            self._queues.due = time.monotonic()
            self._watched()
        open_now = self._open_now()
        listeners = {name: ListenerRow("OPEN", open_now.get(name, 0), Counters()) for name in outline.listeners}
        return listeners, pool_rows(outline, self._checks.healths())

    # Smaller things

    def _count_open(self) -> dict[str, int]:
        """Connections, or sessions of datagrams, by listener."""
        pushed, outline = self._pushed, self.running()
        if pushed is None or not outline.listeners:
            return {}
        if self.name == DATAGRAMS:
            peers = {(spot.address, spot.port): count for spot, count in self._service.session_peers().items()}
            return sessions_of_listeners(pushed.text, outline, peers)
        counts = self._service.open_connections(outline.binds(datagrams=False))
        return {
            name: sum(counts.get(Spot(place.bind.address, place.bind.port), 0) for place in places)
            for name, places in outline.listeners.items()
        }

    def _waiting(self, outline: Outline) -> dict[Hashable, int]:
        return self._service.waiting(outline.binds(datagrams=self.name == DATAGRAMS))

    def _look_whether_it_hangs(self) -> None:
        """What waits for it must become less, at one of some glances."""
        if self._service.pid() is None:
            self._queues.trust()
            return
        seen: dict[Hashable, int] = {}
        for _ in range(GLANCES):
            before, seen = seen, self._waiting(self.running())
            if any(seen.get(queue, 0) < amount for queue, amount in before.items()):
                self._queues.trust()
                return
            select.select([], [], [], GLANCE)
        if self._queues.look(seen, time.monotonic()):
            log("nginx hangs", load_balancer_id=self.id, pid=self._service.pid())
            self._queues.trust()
            self._service.kill()

    def _member_flipped(self) -> None:
        self._flip_at = time.monotonic() + GATHER
        self._watched()

    def _flip(self) -> None:
        """Members came up or went down: have nginx know."""
        self._flip_at = None
        pushed = self._pushed
        if pushed is None or self._service.pid() is None:
            return  # a start takes it into account
        text = self._effective(pushed)
        if not self._is_loaded(text):
            began = time.monotonic()
            try:
                self._run(text)
            except (ServiceFailed, OSError) as error:
                log("member states not loaded", load_balancer_id=self.id, error=str(error)[-500:])
                self._flip_at = time.monotonic() + LONGEST_DELAY
            else:
                took = (time.monotonic() - began) * 1000
                log("member states loaded", load_balancer_id=self.id, took_ms=round(took, 1))
        self._changed()

    def _restart(self) -> None:
        pushed = self._pushed
        self._restart_at = None
        if pushed is None:
            return
        began = time.monotonic()
        try:
            self._run(self._effective(pushed))
        except (AgentError, OSError) as error:
            log("nginx not restarted", load_balancer_id=self.id, error=str(error)[-500:])
            proven = self._proven()
            if proven is not None and proven != pushed:
                self._pushed = proven  # so that the next push of the other one is not taken for what runs
                self._checks.watch(proven.outline.checks())
                self._restart_at = time.monotonic()
            else:
                self._restart_at = self._restarts.next(time.monotonic())
        else:
            log("nginx restarted", load_balancer_id=self.id, took_ms=round((time.monotonic() - began) * 1000, 1))
        self._watched()
        self._changed()

    def _run(self, text: str) -> None:
        """Have nginx run this text: reload it, or start it. A text that did not load is taken back from the disk."""
        before = files.read(self.config)
        files.write_atomically(self.config, text.encode(), durable=True)
        self._save_healths()
        try:
            if self._service.pid() is not None:
                self._service.reload()
            else:
                self._restart_at = None
                self._service.start()
                self._restarts.started(time.monotonic())
        except (ServiceFailed, OSError):
            if before is None:
                files.remove(self.config)
            else:
                files.write_atomically(self.config, before)
            raise
        files.write_atomically(f"{self._own}.loaded", _digest(text).encode())

    def _effective(self, pushed: Pushed) -> str:
        return mark_down(pushed.text, resting(pushed.outline, self._checks.healths()))

    def _is_loaded(self, text: str | None = None) -> bool:
        """True when what nginx was last made to run is this text, or what it shall run now."""
        if text is None:
            text = "" if self._pushed is None else self._effective(self._pushed)
        return files.read(f"{self._own}.loaded") == _digest(text).encode()

    def _proven_paths(self) -> tuple[str, str]:
        return f"{self._own}.last.conf", f"{self._own}.last.json"

    def _keep_proven(self, pushed: Pushed) -> None:
        """What ran once can be started again when what came after it cannot."""
        text, outline = self._proven_paths()
        files.write_atomically(outline, pushed.written)
        files.write_atomically(text, pushed.text.encode())

    def _proven(self) -> Pushed | None:
        try:
            return read_pushed(f"{self._own}.last")
        except Invalid:
            return None  # torn by an agent that was killed

    def _wanted(self) -> Wanted:
        outline = NOTHING if self._pushed is None else self._pushed.outline
        spots = dict.fromkeys(Spot(bind.address, bind.port) for bind in outline.binds(datagrams=True))
        return Wanted(tuple(spots), outline.workers)

    def _make_service(self, timeout: float, old_workers_mib: float) -> NginxService:
        record, output = f"{self._own}.service.json", f"{self._own}.output"
        if self.name == CONNECTIONS:
            command = lambda: self._program.arguments(self.directory, self.config)  # noqa: E731
            return NginxService(command, record, output, timeout, old_workers_mib)
        return RelayService(
            lambda pid_file: self._program.arguments(self.directory, self.config, pid_file),
            self._wanted,
            record,
            output,
            f"{self._own}.pid",
            timeout,
            old_workers_mib,
        )

    def _healths_path(self) -> str:
        return f"{self._own}.healths.json"

    def _save_healths(self) -> None:
        """For the next agent: nobody flaps because this one ended. Losing it costs a check, no more."""
        try:
            files.write_atomically(self._healths_path(), json.dumps(self._checks.healths()).encode())
        except OSError as error:
            log("healths not saved", load_balancer_id=self.id, error=error.strerror)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _healths(content: bytes | None) -> dict[str, int]:
    """A torn or foreign file counts as absent."""
    try:
        value = json.loads(content or b"{}")
        return {str(name): int(health) for name, health in value.items()}
    except (ValueError, TypeError, AttributeError):
        return {}
