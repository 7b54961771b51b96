"""One load balancer on this amphora: its configuration file, and the haproxy that runs it; and nginx beside it, or
instead, and keepalived, when the files that came along say so (nginx.py, vrrp.py).

The promise: whatever fails, what ran before still runs and its file is still on disk. A change is written down before
it is made (`Record`), so an agent that is killed half way finishes or repeats it when it comes back. It knows nothing
of HTTP (routes.py) and hides behind service.Service how processes are run. What is on disk is on_disk.py's.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable

from frontinus_amphora import (
    binds,
    files,
    haproxy_text,
    listening,
    memory,
    runtime,
    stick_tables,
)
from frontinus_amphora.companions import Companions
from frontinus_amphora.encoding import Statistics
from frontinus_amphora.errors import AgentError, BaseMismatch, Invalid, Missing, ServiceFailed
from frontinus_amphora.hang import HangWatch
from frontinus_amphora.haproxy_cli import HaproxySilent
from frontinus_amphora.log import log
from frontinus_amphora.nginx_pair import NginxPair
from frontinus_amphora.on_disk import OnDisk
from frontinus_amphora.restarts import FIRST_DELAY, LONGEST_DELAY, Restarts
from frontinus_amphora.service import Places, Service
from frontinus_amphora.statistics import Bookkeeper
from frontinus_amphora.stick_tables import Handover
from frontinus_amphora.values import ACTIONS, RUNNING, STOPPED, Applied, Change, Checker, Fence, Record, State
from frontinus_amphora.vrrp import Vrrp

CHECK_TIMEOUT = 60.0
REMOVAL_DELAY = 0.2
GLANCE = 0.005
LOOK_EVERY = 1.0  # seconds; where a peer stands by, a haproxy that hangs is found without anybody's doubt


class LoadBalancer:
    """Immutable: id, places. Guarded by `_lock`: everything else. Calls may come from any thread."""

    def __init__(
        self,
        load_balancer_id: str,
        places: Places,
        own_files: Companions,
        service: Service,
        nginx: NginxPair,
        vrrp: Vrrp,
        checker: Checker,
        own_peer: str,
        bookkeeper: Bookkeeper,
        changed: Callable[[], None],
        watched: Callable[[], None],
        patience: float,
        fence: Fence,
    ) -> None:
        """`changed` asks for a heartbeat; `watched` says that descriptors moved; a haproxy that hangs for `patience`
        seconds is restarted."""
        self.id = load_balancer_id
        self._fence = fence
        self.places = places
        self._checker = checker
        self._own_peer = own_peer
        self._bookkeeper = bookkeeper
        self._changed = changed
        self._watched = watched
        self._lock = threading.RLock()
        self._disk = OnDisk(places, own_files)
        self._service = service
        self._nginx = nginx
        self._vrrp = vrrp
        self._restarts = Restarts()
        self._restart_at: float | None = None
        self._removal_at: float | None = None
        self._look_at = 0.0
        self._whole = True
        self._hang = HangWatch(patience)
        self._is_deleted = False  # whoever still holds this one must ask the agent for another

    # What is asked over REST

    def apply(self, change: Change) -> Applied:
        """Bring the change into effect by the smallest means. Idempotent. Raises AgentError; then nothing changed."""
        began = time.monotonic()
        with self._lock:
            self._fence.let_through(change.fence)
            if self._is_deleted:
                raise BaseMismatch(None)
            try:
                action, fallback = self._apply(change)
            finally:
                self._tell_vrrp()
        if action != "unchanged":
            self._changed()
            self._watched()
        took = (time.monotonic() - began) * 1000
        log("change applied", load_balancer_id=self.id, action=action, fallback=fallback, took_ms=round(took, 1))
        return Applied(change.digest, action, fallback, round(took, 3))

    def upload(self, text: str, amphora_id: str | None = None) -> None:
        """Check the text and put it on disk; haproxy is left as it is until it is told to start or reload."""
        with self._lock:
            if self._is_deleted:
                raise Missing("Loadbalancer Not Found", f"No loadbalancer with UUID: {self.id}")
            text = haproxy_text.without_group_lines(text)
            self._check(text)
            self._disk.keep_last()
            self._disk.record_that(unloaded="apply" if self._disk.record.unloaded == "apply" else "upload")
            files.write_atomically(self.places.config, text.encode(), durable=True)

    def start(self) -> None:
        """Start haproxy; one that runs is fine. Raises ServiceFailed, Missing."""
        with self._lock:
            self._need_config()
            if self._service.pid() is None:
                self._start_on_purpose()
            self._tell_vrrp()
        self._changed()

    def stop(self) -> None:
        """Stop haproxy, and keep it stopped."""
        with self._lock:
            self._need_config()
            self._disk.record_that(wanted=STOPPED, removing=())
            self._restart_at = None
            self._remember_counters()
            self._service.stop()
            self._tell_vrrp()
        self._changed()
        self._watched()

    def reload(self) -> None:
        """Make the file on disk the running configuration; a stopped haproxy is started."""
        with self._lock:
            text = self._need_config()
            if self._service.pid() is None:
                self._start_on_purpose()
            else:
                self._disk.record_that(wanted=RUNNING)
                runtime.save_states(self._disk.stats_socket(), text, self.id)
                self._reload_or_restore()
            self._tell_vrrp()
        self._changed()

    def shut(self) -> bool:
        """Let nobody new in over TCP, until haproxy or the agent starts anew, without refusing anybody; those who are in stay.
        Whether that is so. The place among peers stays open."""
        with self._lock:
            shut = listening.shut(self._service.pid())
        log("nobody new is let in", load_balancer_id=self.id, shut=shut)
        return shut

    def delete(self, fence: int = 0) -> None:
        """Stop haproxy and leave nothing behind. Safe to repeat. Raises Fenced."""
        with self._lock:
            self._fence.let_through(fence)
            self._restart_at = self._removal_at = None
            if os.path.isdir(self.places.directory):
                self._vrrp.follow(self.id, None)  # first: the peer has the addresses while connections still end here
                self._disk.record_that(wanted=STOPPED, removing=())
                stats_socket = haproxy_text.stats_socket(self._disk.text() or "") or self.places.stats_socket
                self._service.stop()
                self._service.close()
                self._nginx.delete()
                if os.path.abspath(stats_socket).startswith(f"{os.path.dirname(self.places.directory)}/"):
                    files.remove(stats_socket)
                files.remove(self.places.stats_socket)
                self._disk.companions.remove()
                files.remove_tree(self.places.directory)
            self._vrrp.tell(self.id, serves=True)
            self._bookkeeper.forget(self.id)
            self._is_deleted = True
        self._changed()
        self._watched()

    def config(self) -> str | None:
        """The text on disk."""
        return self._disk.text()

    def state(self) -> State:
        """What is here now. Never waits for a change under way, of which nothing runs before all of it does: a haproxy that
        is there already may not have its ports yet."""
        text = self._disk.text()
        pid = self._service.pid()
        loaded = text is not None and (pid is not None or not text) and self._disk.record.unloaded != "apply"
        manifest = self._disk.companions.manifest()
        return State(
            digest=self._disk.digest(text),
            running=loaded and self._companions_run(),
            pid=pid,
            workers=self._service.workers(),
            removing=self._disk.record.removing,
            companions=() if manifest is None else manifest.companions,
        )

    def is_running(self) -> bool:
        return self._service.pid() is not None or self._nginx.is_running()

    def is_whole(self) -> bool:
        """False when files of the configuration have vanished, as private ones do with the machine's memory: only a push
        brings them back. While a change is under way, what was so before it. Never waits."""
        if self._lock.acquire(blocking=False):
            try:
                self._whole = self._disk.is_whole()
            finally:
                self._lock.release()
        return self._whole

    def read_statistics(self) -> Statistics | None:
        """What haproxy and nginx report now; None when neither runs. Raises HaproxySilent."""
        listeners, pools = self._nginx.rows()
        if listeners:
            self._bookkeeper.read_log(self.id, self._nginx.log, listeners, self._nginx.take_counted())
        if self._service.pid() is None:
            return Statistics(listeners, pools) if self._nginx.is_running() else None
        seen = self._read_haproxy()
        return Statistics({**seen.listeners, **listeners}, {**seen.pools, **pools})

    def doubt(self) -> None:
        """haproxy gave somebody no answer: have the supervisor look whether it hangs. Never waits."""
        if self._hang.doubt():
            self._watched()

    def is_in_doubt(self) -> bool:
        """True while it is being looked whether haproxy hangs."""
        return self._hang.due is not None

    # What the supervisor asks

    def resume(self) -> None:
        """After a start of the agent: adopt the haproxy that runs, or start the one that should."""
        with self._lock:
            self._disk.companions.mend()
            pid = self._service.adopt()
            if pid is not None:
                log("haproxy adopted", load_balancer_id=self.id, pid=pid)
                self._restarts.started(time.monotonic())
                listening.open_up(pid)
                if self._disk.record.unloaded in ("commands", "apply"):
                    self._finish_reload()
                if self._disk.record.removing:
                    self._removal_at = time.monotonic()
            elif self._disk.record.wanted == RUNNING:
                self._restart_at = time.monotonic()  # the supervisor does it: REST must not wait for it
            self._nginx.resume(self._disk.pushed())
            self._tell_vrrp()

    def descriptors(self) -> dict[int, str]:
        return {**self._service.descriptors(), **self._nginx.descriptors()}

    def heard(self) -> str:
        """What haproxy and nginx printed meanwhile."""
        return self._service.drain_output() + self._nginx.heard()

    def notice_death(self) -> None:
        """haproxy or nginx may have died: if so, restart it, at once or after the back-off."""
        with self._lock:
            self._nginx.notice_death()
            self._notice_death_of_haproxy()
            self._tell_vrrp()  # before the restart: the peer is faster
        self.attend()

    def _notice_death_of_haproxy(self) -> None:
        if not self._service.has_died():
            return
        now = time.monotonic()
        wanted, due = self._disk.record.wanted, self._restarts.next(now)
        log("haproxy died", load_balancer_id=self.id, wanted=wanted, restart_in=due - now)
        if wanted == RUNNING:
            self._restart_at = due

    def attend(self) -> float | None:
        """Do what is due; the time (monotonic) when something will be due, None when nothing will."""
        with self._lock:
            now = time.monotonic()
            if self._restart_at is not None and now >= self._restart_at:
                if self._vrrp.is_leaving():
                    self._restart_at = now + GLANCE
                else:
                    self._restart()
            if self._vrrp.is_wanted() and now >= self._look_at:
                self._look_at = now + LOOK_EVERY
                self._hang.doubt()
            if self._removal_at is not None and now >= self._removal_at:
                self._try_removals()
            if self._hang.due is not None and now >= self._hang.due:
                self._look_whether_it_hangs()
            dues = [self._restart_at, self._removal_at, self._hang.due, self._nginx.attend(), self._service.attend()]
            if self._vrrp.is_wanted():
                self._tell_vrrp()
                dues.append(self._look_at)
            return min((due for due in dues if due is not None), default=None)

    def let_go(self) -> None:
        """The agent ends; haproxy and nginx go on. Waits for a change under way."""
        if self._lock.acquire(timeout=10.0):
            try:
                self._nginx.let_go()
                if self._service.pid() is not None:
                    self._remember_counters()
                self._service.close()
            finally:
                self._lock.release()

    # Apply, step by step (the numbers are those of the protocol's description; 1 was done by routes.py)

    def _apply(self, change: Change) -> tuple[str, str | None]:
        before = self._disk.text()
        current = self._disk.digest(before)
        running = self._service.pid() is not None
        loaded = running is bool(before) and not self._disk.record.unloaded
        if current == change.digest and loaded and self._companions_run():  # 2
            return "unchanged", None
        if change.base is not None and change.base != current:  # 3
            raise BaseMismatch(current)
        trial: str | None = None
        if self._disk.companions.differ(change.companions) or (current is None and change.companions):
            trial = self._disk.companions.lay_out(change.companions, current)
        try:
            pushed, vrrp = self._disk.pushed(trial is not None), self._disk.vrrp(trial is not None)
            if vrrp is not None and not self._vrrp.is_settled(self.id, vrrp):
                self._vrrp.check(vrrp)
            if not self._nginx.is_settled(pushed):
                # Places first: nginx binds to them in its check, and would call the text wrong.
                binds.refuse(self._nginx.refused_binds(pushed))
                self._nginx.check(pushed, trial)
            action, fallback = self._apply_haproxy(change, trial, before, current, running, loaded)
            # Last, because it may need files that came with haproxy's text. Should it fail, nothing is `unchanged`.
            action = max(action, self._nginx.follow(pushed), key=ACTIONS.index)
            self._tell_vrrp()
            return max(action, self._vrrp.follow(self.id, vrrp), key=ACTIONS.index), fallback
        finally:
            if trial is not None:
                self._disk.companions.drop_new()

    def _apply_haproxy(
        self, change: Change, trial: str | None, before: str | None, current: str | None, running: bool, loaded: bool
    ) -> tuple[str, str | None]:
        if not change.config:
            return self._stop_and_write(change), None
        if not change.reload and change.base is not None and loaded and running:
            return self._apply_at_run_time(change, trial)
        if current != change.digest or not loaded:
            self._check(change.config, trial)  # 4
        return self._apply_checked(change, before, running, loaded)

    def _stop_and_write(self, change: Change) -> str:
        """An empty text: no haproxy runs, and the files that come with it are all there is."""
        running = self._service.pid() is not None
        if running or self._restart_at is not None:
            self._disk.record_that(wanted=STOPPED, removing=())
            self._restart_at = None
            self._remember_counters()
            self._service.stop()
        self._disk.write(change)
        self._disk.record_that(wanted=STOPPED, unloaded="", removing=())
        self._settle(change.config)
        return "stop" if running else "unchanged"

    def _apply_checked(self, change: Change, before: str | None, running: bool, loaded: bool) -> tuple[str, str | None]:
        refused = self._refused_binds(change.config, running)  # 5
        if refused and not running:
            # It may be a haproxy of ours that nothing on disk tells of: whoever wiped the place left it running.
            self._service.stop()
            refused = self._refused_binds(change.config, running)
        binds.refuse(refused)
        if not running:  # 6
            recorded = self._disk.record
            self._swap_in(change)
            try:
                self._start_on_purpose()
            except (ServiceFailed, OSError):
                self._put_back(before, recorded)
                raise
            self._settle(change.config)
            return "start", None
        if change.commands and loaded:
            self._disk.record_that(unloaded="commands")
        self._send(change.commands)  # a refusal is mended by the reload
        unasked = not change.reload and change.base is not None
        return self._apply_by_reload(change), "what ran was not sure to be what is on disk" if unasked else None

    def _refused_binds(self, text: str, running: bool) -> list[binds.RefusedBind]:
        held = haproxy_text.binds(self._disk.running_text() or "", self._own_peer) if running else ()
        return binds.refused_binds(haproxy_text.binds(text, self._own_peer), held)

    def _apply_at_run_time(self, change: Change, trial: str | None) -> tuple[str, str | None]:
        """7: the commands first, because traffic waits for them and not for the file. haproxy itself refuses a command
        that it does not understand; should it then refuse the text (4), a reload brings back what is on disk.

        Whatever breaks it off, the record says that haproxy may not be what the file says, and a reload follows."""
        self._disk.record_that(unloaded="commands")
        fallback = self._send(change.commands)
        try:
            self._check(change.config, trial)
        except Invalid:
            runtime.save_states(self._disk.stats_socket(), self._need_config(), self.id)
            self._reload_or_restore()
            raise
        if fallback is not None:
            return self._apply_by_reload(change), fallback
        self._disk.write(change)
        self._disk.record_that(unloaded="")
        self._settle(change.config)
        return "runtime", None

    def _apply_by_reload(self, change: Change) -> str:
        runtime.save_states(self._disk.stats_socket(), change.config, self.id)  # 8
        self._swap_in(change)
        self._reload_or_restore()
        self._settle(change.config)
        return "reload"

    def _send(self, commands: tuple[str, ...]) -> str | None:
        """Send the commands one by one; the first refusal as text, or None. What can't be deleted yet is kept."""

        def keep(name: str) -> None:
            if name not in self._disk.record.removing:
                self._disk.record_that(removing=(*self._disk.record.removing, name))
            self._removal_at = time.monotonic() + REMOVAL_DELAY
            self._watched()

        return runtime.send(self._disk.stats_socket(), commands, keep)

    def _check(self, text: str, trial: str | None = None) -> None:
        """Raises Invalid with what haproxy says of the text, without our own paths. `trial` is the directory from which
        relative paths lead to the files that come with it; None: they are where they were."""
        files.make_directory(self.places.directory)
        files.write_atomically(self.places.scratch, text.encode())
        where = ("-C", trial) if trial is not None else ()
        argv = [*self._checker.command, *where, "-c", "-f", self.places.scratch, *self._checker.extra(text)]
        code, output = memory.check(text, argv, CHECK_TIMEOUT)
        if code != 0:
            os.replace(self.places.scratch, f"{self.places.scratch}-failed")
            raise Invalid("Invalid request", output.replace(self.places.scratch, "haproxy.cfg"))
        files.remove(self.places.scratch)

    def _swap_in(self, change: Change) -> None:
        self._disk.keep_last()
        self._disk.record_that(wanted=RUNNING, unloaded="apply")
        self._disk.write(change)

    def _settle(self, text: str) -> None:
        """The text runs: nothing of before matters any more."""
        self._disk.companions.forget_last()
        of_nginx = self._disk.pushed().listeners()
        self._bookkeeper.prune(self.id, [*(row.listener_id for row in haproxy_text.listeners(text)), *of_nginx])

    def _put_back(self, before: str | None, recorded: Record) -> None:
        """Leave things as they were before a start that failed."""
        if before is None:
            files.remove(self.places.config)
            self._disk.companions.remove()
        else:
            self._disk.companions.put_back(haproxy_text.digest(before))
            files.write_atomically(self.places.config, before.encode(), durable=True)
        self._disk.record_that(recorded.wanted, recorded.unloaded, recorded.removing)
        if recorded.wanted == RUNNING:
            self._restart_at = time.monotonic() + FIRST_DELAY
            self._watched()

    def _reload_or_restore(self) -> None:
        """Reload. When it fails the last file that ran is put back, and runs. Raises ServiceFailed then."""
        self._disk.keep_last()
        self._remember_counters()
        before, after = self._disk.running_text() or "", self._disk.text() or ""
        try:
            with Handover(self._disk.stats_socket(), before, after) as handover:
                # A peer that is new is taught what the new worker knows, and nobody mends that there.
                quietly = handover.knows_anybody and stick_tables.others(before) != stick_tables.others(after)
                try:
                    if quietly:
                        self.shut()
                    self._service.reload()
                    handover.finish()
                finally:
                    if quietly:
                        listening.open_up(self._service.pid())
        except ServiceFailed:
            last = files.read(self.places.last_config)
            if last is not None:
                self._disk.companions.restore_last()
                files.write_atomically(self.places.config, last, durable=True)
            # Commands sent before have changed what runs, so the next change must not be made by commands alone.
            self._disk.record_that(unloaded="upload")
            log("reload failed", load_balancer_id=self.id, restored=last is not None)
            if self._service.has_died():
                self._restart()
            raise
        self._disk.record_that(unloaded="", removing=())
        self._removal_at = None
        self._watched()

    # Starting and restarting

    def _start_on_purpose(self) -> None:
        self._restart_at = None
        self._disk.record_that(wanted=RUNNING, removing=())
        self._restarts.forget()
        self._start_afresh()
        self._restarts.started(time.monotonic())
        self._watched()

    def _start_afresh(self) -> None:
        """Start from the file on disk, knowing nothing of members. First of all: on a disk that is full it runs all the same."""
        runtime.forget_states(self._disk.text() or "", self.id)
        self._service.start()
        self._disk.record_that(unloaded="", removing=())

    def _restart(self) -> None:
        """Start from the file on disk, or from the last one that ran when that one never did. Backs off."""
        began = time.monotonic()
        self._restart_at = began + LONGEST_DELAY  # whatever goes wrong below, it is tried again
        self._removal_at = None
        self._hang.trust()
        tried_last = False
        try:
            self._start_afresh()
        except (ServiceFailed, OSError) as error:
            runs = self._service.pid() is not None  # and only what is remembered of it is not as it should be
            log(f"haproxy not {'recorded' if runs else 'restarted'}", load_balancer_id=self.id, error=str(error)[-500:])
            last = None if runs else files.read(self.places.last_config)
            if not self._disk.is_proven() and last is not None and last != files.read(self.places.config):
                self._disk.companions.restore_last()
                files.write_atomically(self.places.config, last)
                self._disk.record_that(unloaded="upload")
                tried_last = True
        now = time.monotonic()
        if self._service.pid() is not None:
            log("haproxy restarted", load_balancer_id=self.id, took_ms=round((now - began) * 1000, 1))
            self._restarts.started(now)
            self._restart_at = None
        else:
            self._restart_at = now if tried_last else self._restarts.next(now)
        self._watched()
        self._changed()

    def _look_whether_it_hangs(self) -> None:
        if self._service.pid() is None or self._disk.record.wanted != RUNNING:
            self._hang.trust()
        elif self._hang.look(
            self._disk.stats_socket(), haproxy_text.binds(self._disk.running_text() or "", self._own_peer)
        ):
            log("haproxy hangs", load_balancer_id=self.id, pid=self._service.pid())
            self._service.stop(at_once=True)
            self._restart()

    def _finish_reload(self) -> None:
        """An earlier agent ended between swapping the file and seeing it run, or between commands and file."""
        try:
            runtime.save_states(self._disk.stats_socket(), self._disk.text() or "", self.id)
            self._reload_or_restore()
        except AgentError as error:
            log("change of an earlier agent not finished", load_balancer_id=self.id, error=str(error)[-500:])

    # Smaller things

    def _companions_run(self) -> bool:
        """Whether nginx and keepalived run what the files on disk say."""
        return self._nginx.is_settled(self._disk.pushed()) and self._vrrp.is_settled(self.id, self._disk.vrrp())

    def _tell_vrrp(self) -> None:
        """Whether all that should serve does."""
        fallen = self._disk.record.wanted == RUNNING and (self._service.pid() is None or self._hang.is_silent())
        self._vrrp.tell(self.id, serves=not fallen and not self._nginx.has_fallen())

    def _try_removals(self) -> None:
        """Delete servers that still had connections when they were to go."""
        left = runtime.remove_servers(self._disk.stats_socket(), self._disk.record.removing, self.id)
        if left != self._disk.record.removing:
            self._disk.record_that(removing=left)
            self._changed()
        self._removal_at = time.monotonic() + REMOVAL_DELAY if left else None

    def _read_haproxy(self) -> Statistics:
        return self._bookkeeper.read(
            self.id, self._disk.stats_socket(), self.places.master_socket, frozenset(self._disk.record.removing)
        )

    def _remember_counters(self) -> None:
        """Hear the last words of a worker that is about to go. nginx' stand in its log, whoever goes."""
        if self._service.pid() is not None:
            with contextlib.suppress(HaproxySilent):
                self._read_haproxy()

    def _need_config(self) -> str:
        text = self._disk.text()
        if text is None:
            raise Missing("Loadbalancer Not Found", f"No loadbalancer with UUID: {self.id}")
        return text
