"""The nginx of one load balancer: its file, its process, what it counted, and who of its members gets nothing now.

The configuration and its outline come complete from the driver (agent-extension.md); the agent adds the word `down` to
the servers of members that are down, and reloads when that changes. Whatever fails, what ran before still runs.
load_balancer.py decides when, and serialises calls; nothing of haproxy is known here.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable
from typing import NamedTuple

from frontinus_amphora import binds, files, processes
from frontinus_amphora.checks import Checks
from frontinus_amphora.encoding import Counters, ListenerRow, PoolRow
from frontinus_amphora.errors import AgentError, Invalid, ServiceFailed, Unsupported
from frontinus_amphora.log import log
from frontinus_amphora.nginx_service import NginxService, Program
from frontinus_amphora.outline import NOTHING, Outline, mark_down, parse_outline, pool_rows, resting
from frontinus_amphora.restarts import LONGEST_DELAY, Restarts

CONFIGURATION, OUTLINE = "nginx.conf", "nginx.json"  # files of a change (agent-extension.md)
CHECK_TIMEOUT = 60.0
GATHER = 0.02  # seconds; members of one machine go down together, and one reload does for all


class Pushed(NamedTuple):
    """What the driver sent: the text, and what it means."""

    text: str
    outline: Outline


def read_pushed(directory: str) -> Pushed | None:
    """What the files in this directory make nginx do; None: nothing. Raises Invalid when they make no sense."""
    text, outline = (files.read(f"{directory}/{name}") for name in (CONFIGURATION, OUTLINE))
    if text is None and outline is None:
        return None
    if text is None or outline is None:
        raise Invalid("malformed body", f"{CONFIGURATION} and {OUTLINE} come together")
    try:
        return Pushed(text.decode(), parse_outline(outline))
    except UnicodeDecodeError as error:
        raise Invalid("malformed body", f"{CONFIGURATION} is not UTF-8") from error


class Nginx:
    """Guarded by its load balancer's lock, except for the methods marked *any thread*."""

    def __init__(
        self,
        load_balancer_id: str,
        base_path: str,
        program: Program,
        timeout: float,
        old_workers_mib: float,
        changed: Callable[[], None],
        watched: Callable[[], None],
    ) -> None:
        """`changed` asks for a heartbeat; `watched` says that descriptors moved or something will fall due."""
        self.id = load_balancer_id
        self.directory = f"{base_path}/{load_balancer_id}/nginx"
        # Relative paths in the text start where the file is, so it is where those of haproxy's texts start.
        self.config = f"{base_path}/{load_balancer_id}.nginx.conf"
        self.log = f"{self.directory}/nginx.log"
        self._base_path = base_path
        self._program = program
        self._changed = changed
        self._watched = watched
        self._service = NginxService(
            lambda: program.arguments(self.directory, self.config),
            f"{self.directory}/service.json",
            f"{self.directory}/output",
            timeout,
            old_workers_mib,
        )
        self._checks = Checks(self._member_flipped)
        self._pushed: Pushed | None = None
        self._restarts = Restarts()
        self._restart_at: float | None = None
        self._flip_at: float | None = None

    # What is asked over REST

    def check(self, pushed: Pushed, trial: str | None = None) -> None:
        """Would nginx take this? `trial` is a directory that relative paths lead to the new files from.

        Raises Invalid with what nginx says, without our own paths; Unsupported when there is no such nginx here."""
        if not self._program.version():
            raise Unsupported("this configuration", f"nginx with its stream module ({self._program.command})")
        files.make_directory(self.directory)
        scratch = f"{trial or self._base_path}/{self.id}.nginx.conf.new"
        files.write_atomically(scratch, pushed.text.encode())
        *words, directives = self._program.arguments(self.directory, scratch)
        # Its own name for the process id, or else the test would write over the running one's.
        code, output = processes.run([*words, directives.replace("nginx.pid", "trial.pid"), "-t"], CHECK_TIMEOUT)
        files.remove(f"{self.directory}/trial.pid")
        if code != 0:
            os.replace(scratch, f"{self.config}.new-failed")
            raise Invalid("Invalid request", output.replace(scratch, "nginx.conf").replace(self.directory, "nginx"))
        files.remove(scratch)

    def refused_binds(self, outline: Outline) -> list[binds.RefusedBind]:
        """Those places that the kernel would refuse; what our own nginx holds is not tried."""
        refused = self._refused_binds(outline)
        if refused and self._service.pid() is None:
            # It may be an nginx of ours that nothing on disk tells of: whoever wiped the place left it running.
            files.make_directory(self.directory)
            self._service.stop()
            refused = self._refused_binds(outline)
        return refused

    def _refused_binds(self, outline: Outline) -> list[binds.RefusedBind]:
        running = self._pushed if self._service.pid() is not None else None
        held = NOTHING if running is None else running.outline
        refused: list[binds.RefusedBind] = []
        for datagrams in (False, True):
            wanted, ours = (
                [place.bind for places in each.listeners.values() for place in places if place.datagrams is datagrams]
                for each in (outline, held)
            )
            refused += binds.refused_binds(wanted, ours, datagrams=datagrams)
        return refused

    def follow(self, pushed: Pushed | None) -> str:
        """Run this; None: run nothing. What was done: unchanged, start, reload, stop.

        Raises ServiceFailed when nginx does not do it; then what ran before still runs."""
        before = self._pushed
        running = self._service.pid() is not None
        if pushed is None:
            if before is None and not running and self._restart_at is None:
                return "unchanged"
            self.stop()
            return "stop"
        if pushed == before and running and self._is_loaded():
            return "unchanged"
        files.make_directory(self.directory)
        known = _healths(files.read(self._healths_path())) if before is None else None
        self._checks.watch(pushed.outline.checks(), known)
        self._pushed = pushed
        try:
            self._run(self._effective(pushed))
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
        self._pushed = None
        self._restart_at = self._flip_at = None
        self._checks.watch({})
        self._service.stop()
        files.remove(self.config)
        files.remove(self._healths_path())
        self._watched()

    def delete(self) -> None:
        """Leave nothing behind. Safe to repeat."""
        if os.path.isdir(self.directory):
            self.stop()
            self._service.close()
            files.remove(f"{self.config}.new-failed")
            files.remove_tree(self.directory)

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
        return min((due for due in (self._restart_at, self._flip_at) if due is not None), default=None)

    def let_go(self) -> None:
        """The agent ends; nginx goes on."""
        self._checks.stop()
        if self._pushed is not None:
            self._save_healths()
        self._service.close()

    # What a heartbeat tells

    def rows(self) -> tuple[dict[str, ListenerRow], dict[str, PoolRow]]:
        """*Any thread.* The listeners and pools that nginx serves now; nothing when it does not run. Counters are told
        by the log (statistics.py)."""
        pushed = self._pushed
        if pushed is None or self._service.pid() is None:
            return {}, {}
        listeners = {name: ListenerRow("OPEN", 0, Counters()) for name in pushed.outline.listeners}
        return listeners, pool_rows(pushed.outline, self._checks.healths())

    # Smaller things

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
        files.write_atomically(f"{self.directory}/loaded", _digest(text).encode())

    def _effective(self, pushed: Pushed) -> str:
        return mark_down(pushed.text, resting(pushed.outline, self._checks.healths()))

    def _is_loaded(self, text: str | None = None) -> bool:
        """True when what nginx was last made to run is this text, or what it shall run now."""
        if text is None:
            text = "" if self._pushed is None else self._effective(self._pushed)
        return files.read(f"{self.directory}/loaded") == _digest(text).encode()

    def _healths_path(self) -> str:
        return f"{self.directory}/healths.json"

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
