"""The keepalived of this amphora: whether it holds the virtual addresses, or its peer does.

The configuration comes complete from the driver, as a file of a change (agent-extension.md) or by the plain protocol;
the agent adds only what belongs to the machine: the tracked file by which keepalived is told that a balancer died. The
supervisor sees such a death at once, so the peer has the addresses milliseconds later. Whatever fails, what ran before
still runs. The agent's own end changes nothing. Where the peer is dead as well nobody would take the addresses, and they stay here for as
long as a balancer needs to start again. keepalived_service.py knows the process.
"""

import json
import os
import re
import threading
import time
from collections.abc import Callable

from frontinus_amphora import facts, files, kernel, peer_probe, processes
from frontinus_amphora.errors import AgentError, Invalid, Missing, ServiceFailed, Unsupported
from frontinus_amphora.keepalived_service import KeepalivedProgram, KeepalivedService
from frontinus_amphora.log import log
from frontinus_amphora.restarts import Restarts

CONFIGURATION = "keepalived.conf"  # file of a change (agent-extension.md)
CHECK_TIMEOUT = 60.0
FAULT = "vrrp/fault"  # relative to base_path, where keepalived works as haproxy does
TRACKED = f'track_file balancers {{\n    file "{FAULT}"\n    weight 0\n}}\n'
NONLOCAL_BIND = ("net/ipv4/ip_nonlocal_bind", "net/ipv6/ip_nonlocal_bind")
PEER_PATIENCE = 0.02
"""Seconds for the peer to answer; on one network it takes a tenth of a millisecond."""

WITHHELD_FOR = 0.5
"""Seconds for which keepalived is not told of a fallen balancer, where no peer answers. Then it is: a peer that comes
meanwhile must find the addresses free, and not held by somebody who does not serve."""

LEAVING_FOR = 0.3
"""Seconds in which the addresses have left once keepalived was told; it takes some hundredths."""

ADVERT_INTERVAL = re.compile(r"^\s*advert_int\s+([\d.]+)\s*$", re.MULTILINE)
ADDRESSES = re.compile(r"^\s*virtual_ipaddress\s*\{\s*([0-9a-fA-F.:]+)", re.MULTILINE)


class Vrrp:
    """One per agent. Guarded by `_lock`: everything but what is marked *any thread*; its methods take it themselves."""

    def __init__(
        self,
        base_path: str,
        program: KeepalivedProgram,
        timeout: float,
        changed: Callable[[], None],
        watched: Callable[[], None],
    ) -> None:
        """`changed` asks for a heartbeat; `watched` says that descriptors moved or something will fall due."""
        self.directory = f"{base_path}/vrrp"
        self.config = f"{self.directory}/octavia-keepalived.conf"
        self._main = f"{self.directory}/main.conf"
        self._record = f"{self.directory}/agent.json"
        self._fault = f"{base_path}/{FAULT}"
        self._base_path = base_path
        self._program = program
        self._changed = changed
        self._watched = watched
        self._service = KeepalivedService(program.command, self._main, self.directory, timeout)
        self._lock = threading.RLock()
        self._restarts = Restarts()
        self._restart_at: float | None = None
        self._owner: str | None = None  # the load balancer whose configuration runs, "" for the plain protocol's
        self._fallen: frozenset[str] = frozenset()  # load balancers that do not serve, and should
        self._withheld_until: float | None = None  # while keepalived is not told of them
        self._leaving_until = 0.0  # while the addresses may still be here, although it was told

    # What load balancers ask

    def check(self, text: str) -> None:
        """Would keepalived take this? Also sees to it that balancers can listen on addresses that the peer holds.

        Raises Invalid with what keepalived says; Unsupported when there is none here, or its kernel forbids."""
        with self._lock:
            self._need_program()
            scratch = f"{self.directory}/trial.conf"
            files.write_atomically(scratch, f"{TRACKED}{text}".encode())
            argv = (self._program.command, "-t", "-l", "-P", "-p", f"{self.directory}/trial.pid", "-f", scratch)
            code, output = processes.run(argv, CHECK_TIMEOUT)
            files.remove(scratch)
            if code != 0:
                raise Invalid("Invalid request", output.replace(scratch, CONFIGURATION))
            self._prepare()  # now, because what comes next is to try the places of balancers

    def follow(self, owner: str, text: str | None) -> str:
        """Run this for the load balancer `owner`; None: nothing of its own. What was done: unchanged, start, reload, stop.

        Raises ServiceFailed when keepalived does not do it; then what ran before still runs."""
        with self._lock:
            if text is None:
                if self._owner != owner:
                    return "unchanged"
                self.stop()
                self._service.close()
                files.remove_tree(self.directory)
                self._owner = None
                return "stop"
            if self.is_settled(owner, text):
                return "unchanged"
            self._prepare()
            before = files.read(self.config)
            running = self._service.pid() is not None
            self._write(text.encode())
            try:
                self._run()
            except (ServiceFailed, OSError):
                if before is None:
                    files.remove(self.config)
                else:
                    self._write(before)
                raise
            self._remember(owner)
            return "reload" if running else "start"

    def is_settled(self, owner: str, text: str | None) -> bool:
        """True when exactly this runs for the load balancer. *Any thread.*"""
        if text is None:
            return self._owner != owner
        return self._owner == owner and self._service.pid() is not None and files.read(self.config) == text.encode()

    def tell(self, load_balancer_id: str, *, serves: bool) -> None:
        """A balancer serves, or has fallen: keepalived hears of it at once, unless nobody else could serve."""
        fallen = self._fallen - {load_balancer_id} if serves else self._fallen | {load_balancer_id}
        if fallen != self._fallen:
            with self._lock:
                had_fallen = bool(self._fallen)
                self._fallen = self._fallen - {load_balancer_id} if serves else self._fallen | {load_balancer_id}
                if self._owner is not None:
                    if not had_fallen and self._is_needed():
                        self._withheld_until = time.monotonic() + WITHHELD_FOR
                        log("keepalived not told yet", reason="no peer answers")
                        self._watched()
                    elif not self._fallen:
                        self._withheld_until = None
                    self._write_fault()

    def is_leaving(self) -> bool:
        """True while the addresses are still here that the peer is about to have. A balancer that starts now would meet clients
        of whom it knows nothing yet, give them other members, and teach the peer so. *Any thread.*"""
        return time.monotonic() < self._leaving_until and bool(self.is_active())

    def is_wanted(self) -> bool:
        """True while a keepalived should run here. *Any thread.*"""
        return self._owner is not None

    def is_down(self) -> bool:
        """True while one should run and does not. *Any thread.*"""
        return self.is_wanted() and self._service.pid() is None

    def is_active(self) -> bool | None:
        """Whether the virtual address is here; None when there is no keepalived that would move it. *Any thread.*"""
        if not self.is_wanted():
            return None
        found = ADDRESSES.search((files.read(self.config) or b"").decode("utf-8", "replace"))
        return found is not None and facts.holds(found[1])

    # What is asked over the plain protocol

    def upload(self, text: str) -> None:
        """Put the text on disk. Raises Invalid, Unsupported."""
        self.check(text)
        with self._lock:
            self._write(text.encode())

    def start(self) -> None:
        """Start keepalived; one that runs is reloaded. Raises Missing, ServiceFailed."""
        with self._lock:
            if files.read(self.config) is None:
                raise Missing("Invalid Request", "no keepalived configuration was uploaded")
            self._prepare()
            self._run()
            self._remember(self._owner or "")

    def stop(self) -> None:
        """Stop keepalived, and keep it stopped: the peer has the addresses at once."""
        with self._lock:
            self._restart_at = None
            if os.path.isdir(self.directory):
                self._service.stop()
                files.remove(self._record)
            self._owner = None
        self._watched()

    # What the supervisor asks

    def resume(self) -> None:
        """After a start of the agent: adopt the keepalived that runs, or have the one started that should run."""
        with self._lock:
            self._owner = _owner(files.read(self._record))
            if self._owner is None:
                return
            now = time.monotonic()
            pid = self._service.adopt()
            if pid is None:
                self._restart_at = now
            else:
                log("keepalived adopted", pid=pid)
                self._restarts.started(now)

    def descriptors(self) -> dict[int, str]:
        """*Any thread.*"""
        return self._service.descriptors()

    def heard(self) -> str:
        """*Any thread.* What keepalived printed meanwhile: it says when the address comes or goes."""
        said = self._service.drain_output()
        for line in said.splitlines():
            if " STATE" in line:
                log("keepalived", says=line.rpartition(": ")[2])
        return said

    def notice_death(self) -> None:
        """keepalived may have died: if so, have it started again.

        Not before the peer has surely taken over, if there is one: a starting keepalived drops the addresses, which its
        forerunner left here, and until the peer has them this amphora serves on. RFC 5798, Master_Down_Interval."""
        with self._lock:
            if self._service.has_died():
                now = time.monotonic()
                if self._owner is not None:
                    self._restart_at = max(self._restarts.next(now), now + self._takeover())
                log("keepalived died", restart_in=max(0.0, (self._restart_at or now) - now))
        self._changed()
        self._watched()

    def attend(self) -> float | None:
        """Do what is due; the time (monotonic) when something will be due, None when nothing will."""
        with self._lock:
            if self._withheld_until is not None and time.monotonic() >= self._withheld_until:
                self._withheld_until = None
                self._write_fault()
            if self._restart_at is not None and time.monotonic() >= self._restart_at:
                try:
                    self._prepare()
                    self._run()
                except (AgentError, OSError) as error:
                    log("keepalived not restarted", error=str(error)[-500:])
                    self._restart_at = self._restarts.next(time.monotonic())
                self._changed()
            return min((x for x in (self._restart_at, self._withheld_until) if x is not None), default=None)

    def let_go(self) -> None:
        """The agent ends; keepalived goes on."""
        with self._lock:
            self._service.close()

    # Smaller things

    def _need_program(self) -> None:
        if not self._program.version():
            raise Unsupported("VRRP", f"keepalived ({self._program.command})")
        files.make_directory(self.directory)

    def _prepare(self) -> None:
        self._need_program()
        for name in NONLOCAL_BIND:
            try:
                kernel.put(name, "1")
            except FileNotFoundError:
                pass  # this kernel has no IPv6
            except OSError as error:
                raise Unsupported("VRRP", f"leave to write /proc/sys/{name} ({error.strerror})") from error
        self._write_fault()

    def _run(self) -> None:
        """Have keepalived run what is on disk: reload it, or start it. Raises ServiceFailed."""
        files.write_atomically(self._main, f"{TRACKED}include {self.config}\n".encode())
        self._write_check_script()
        if self._service.pid() is not None:
            self._service.reload()
        else:
            self._service.start()
            self._restarts.started(time.monotonic())
        self._restart_at = None
        self._watched()

    def _write(self, content: bytes) -> None:
        files.make_directory(self.directory)
        files.write_atomically(self.config, content, durable=True)

    def _write_fault(self) -> None:
        """In place: keepalived is told by inotify of a file that is written, and a reader sees one byte or the other."""
        content = b"1\n" if self._fallen and self._withheld_until is None else b"0\n"
        if files.read(self._fault) != content:
            descriptor = os.open(self._fault, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, files.PRIVATE_FILE)
            try:
                os.write(descriptor, content)
            finally:
                os.close(descriptor)
            self._leaving_until = time.monotonic() + LEAVING_FOR if content == b"1\n" else 0.0
            log("keepalived told", serves=content == b"0\n")

    def _is_needed(self) -> bool:
        """Whether the addresses are here and nobody is where the peer should be. A peer behind a cut cable does not answer
        either; it has the addresses by itself, because it hears no adverts. One that answers late costs what it costs to
        start a balancer instead of what a takeover costs."""
        if not self.is_active():
            return False
        asked = peer_probe.sides((files.read(self.config) or b"").decode("utf-8", "replace"))
        return asked is not None and not peer_probe.somebody_answers(asked, PEER_PATIENCE)

    def _write_check_script(self) -> None:
        """What configurations of the plain protocol ask instead of the tracked file."""
        path = f"{self.directory}/check_script.sh"
        content = f'#!/bin/sh\ntest "$(cat {self._fault})" = 0\n'.encode()
        if files.read(path) != content:
            files.write_atomically(path, content, mode=files.PRIVATE_PROGRAM)

    def _remember(self, owner: str) -> None:
        self._owner = owner
        files.write_atomically(self._record, json.dumps({"owner": owner}).encode())
        self._watched()

    def _takeover(self) -> float:
        """Seconds after which a peer that hears no adverts has the addresses: three missed, its skew, and as much again
        for its gratuitous ARP."""
        found = ADVERT_INTERVAL.search((files.read(self.config) or b"").decode("utf-8", "replace"))
        return 5 * (float(found[1]) if found else 1.0)


def _owner(record: bytes | None) -> str | None:
    """A torn or foreign record counts as one of a keepalived that should run."""
    if record is None:
        return None
    try:
        return str(json.loads(record)["owner"])
    except (ValueError, KeyError, TypeError):
        return ""
