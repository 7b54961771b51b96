"""Examine members that nginx cannot examine: one thread, sockets that never block, one question per member at a time.

What is examined comes from the driver (outline.py); what follows from a change is nginx.py's to do. While the agent is
away nobody is examined, and what was found out last goes on to hold.
"""

import contextlib
import errno
import heapq
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from frontinus_amphora.log import log
from frontinus_amphora.outline import Check, is_up, judged

MOST_AT_ONCE = 400  # sockets
# What Octavia's own UDP check (nc -z) sends: any service may answer it, and a port without a service is refused by
# the kernel with ICMP, whatever came.
DATAGRAM = b"X"
LONGEST_HEAD = 16_384
LACKING = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL, errno.EAGAIN, errno.EINTR}
)
"""What the kernel says when this machine lacks something: descriptors, memory, ports. It says nothing of the member."""
COMPLAINTS = 60.0  # seconds between two in the log
POSTPONED = 1.0  # seconds; then a question is tried again that could not be asked


class Probe(NamedTuple):
    """A question under way."""

    name: str
    check: Check
    connection: socket.socket
    deadline: float
    heard: bytearray


class Checks:
    """`watch`, `healths` and `stop` are for any thread; sockets and schedule belong to the one that examines."""

    def __init__(self, changed: Callable[[], None]) -> None:
        """`changed` is told after a member came up or went down."""
        self._changed = changed
        self._lock = threading.Lock()  # guards the rest
        self._wanted: dict[str, Check] = {}
        self._healths: dict[str, int] = {}
        self._thread: threading.Thread | None = None  # there while somebody is examined
        self._waker = -1  # its pipe's end for us; the thread closes both
        self._stopping = False

    def watch(self, checks: Mapping[str, Check], known: Mapping[str, int] | None = None) -> None:
        """Examine exactly these from now on. What is known of one that stays goes on to hold; `known` tells more.

        A new one counts as up, and its first failure brings it down."""
        with self._lock:
            before = {**(known or {}), **self._healths}
            self._healths = {
                # One that has already shown that it is down stays so under new thresholds, and likewise up.
                name: 0 if name in before and not is_up(before[name], self._wanted.get(name, check)) else check.rise
                for name, check in checks.items()
            }
            for name, check in checks.items():
                if self._wanted.get(name) == check and name in before:
                    self._healths[name] = before[name]
            self._wanted = dict(checks)
            if self._wanted and self._thread is None and not self._stopping:
                reader, self._waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
                self._thread = threading.Thread(target=self._run, args=(reader,), name="checks", daemon=True)
                self._thread.start()
            self._wake()

    def healths(self) -> dict[str, int]:
        with self._lock:
            return dict(self._healths)

    def stop(self) -> None:
        """Examine nobody from now on."""
        with self._lock:
            self._stopping = True
            thread = self._thread
            self._wake()
        if thread is not None:
            thread.join(2.0)

    def _wake(self) -> None:
        if self._thread is not None:
            with contextlib.suppress(BlockingIOError):
                os.write(self._waker, b"x")

    def _run(self, reader: int) -> None:
        examiner = None
        while examiner is None:
            try:
                examiner = _Examiner(reader)
            except OSError as lacking:  # no descriptor is to be had just now
                log("members not examined", error=lacking.strerror)
                time.sleep(POSTPONED)
        while (wanted := self._wanted_or_end(examiner)) is not None:
            try:
                results = examiner.turn(wanted)
            except Exception as error:  # noqa: BLE001 - examining must go on; the next turn begins afresh
                log("checks failed", error=repr(error))
                examiner.drop_all()
                time.sleep(1.0)
                continue
            if self._weigh(results):
                self._changed()

    def _wanted_or_end(self, examiner: "_Examiner") -> dict[str, Check] | None:
        """Whom to examine; None when there is nobody, and then the thread is no more, with all that it held."""
        with self._lock:
            if self._wanted and not self._stopping:
                return dict(self._wanted)
            self._thread = None
            os.close(self._waker)
            examiner.close()
            return None

    def _weigh(self, results: list[tuple[str, Check, bool]]) -> bool:
        """Take results in; True when a member came up or went down."""
        flipped = False
        with self._lock:
            for name, check, succeeded in results:
                if self._wanted.get(name) == check:
                    before = self._healths[name]
                    self._healths[name] = judged(before, check, succeeded)
                    flipped = flipped or is_up(before, check) != is_up(self._healths[name], check)
        return flipped


class _Examiner:
    """Belongs to one thread."""

    def __init__(self, waker: int) -> None:
        self._selector = selectors.DefaultSelector()
        self._selector.register(waker, selectors.EVENT_READ)
        self._waker = waker
        self._probes: dict[str, Probe] = {}
        self._known: dict[str, Check] = {}
        self._due: list[tuple[float, str]] = []  # a heap
        self._complained = -COMPLAINTS

    def turn(self, wanted: dict[str, Check]) -> list[tuple[str, Check, bool]]:
        """Ask who is due, wait for something to happen; what was found out."""
        now = time.monotonic()
        if wanted != self._known:
            for name in [name for name in self._probes if wanted.get(name) != self._known.get(name)]:
                self._drop(name)
            times = {name: when for when, name in self._due}
            self._due = [
                (times.get(name, now) if self._known.get(name) == check else now, name)
                for name, check in wanted.items()
                if name not in self._probes
            ]
            heapq.heapify(self._due)
            self._known = wanted
        results: list[tuple[str, Check, bool]] = []
        while self._due and self._due[0][0] <= now and len(self._probes) < MOST_AT_ONCE:
            _, name = heapq.heappop(self._due)
            error = self._begin(name, wanted[name], now)
            if error in LACKING:
                self._postpone(name, error, now)
            elif error:
                results.append(self._conclude(name, wanted[name], False, now))
        ends = [probe.deadline for probe in self._probes.values()]
        if self._due and len(self._probes) < MOST_AT_ONCE:
            ends.append(self._due[0][0])
        wait = 0.0 if results else (max(0.0, min(ends) - time.monotonic()) if ends else None)
        for key, _events in self._selector.select(wait):
            if key.fd == self._waker:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._waker, 4096)
                continue
            probe = self._probes[key.data]
            outcome = self._hear(probe)
            if outcome is not None:
                results.append(self._conclude(probe.name, probe.check, outcome, time.monotonic()))
        now = time.monotonic()
        late = [probe for probe in self._probes.values() if probe.deadline <= now]
        # Silence is what a healthy UDP service may well answer with; no TCP service does.
        results += [self._conclude(each.name, each.check, each.check.kind == "UDP-CONNECT", now) for each in late]
        return results

    def drop_all(self) -> None:
        for name in list(self._probes):
            self._drop(name)
        self._known = {}

    def close(self) -> None:
        self.drop_all()
        self._selector.close()
        os.close(self._waker)

    def _begin(self, name: str, check: Check, now: float) -> int:
        """Ask; the error when that failed at once, else 0."""
        family = socket.AF_INET6 if ":" in check.address else socket.AF_INET
        is_datagram = check.kind == "UDP-CONNECT"
        try:
            kind = socket.SOCK_DGRAM if is_datagram else socket.SOCK_STREAM
            connection = socket.socket(family, kind, socket.IPPROTO_SCTP if check.kind == "SCTP" else 0)
        except OSError as lacking:
            return lacking.errno or errno.EMFILE
        connection.setblocking(False)
        error = connection.connect_ex((check.address, check.port))
        if error not in (0, errno.EINPROGRESS):
            connection.close()
            return error
        if is_datagram:
            try:
                connection.send(DATAGRAM)
            except OSError as failed:
                connection.close()
                return failed.errno or errno.ECONNREFUSED
        self._probes[name] = Probe(name, check, connection, now + check.timeout, bytearray())
        events = selectors.EVENT_READ if is_datagram else selectors.EVENT_WRITE
        self._selector.register(connection, events, name)
        return 0

    def _postpone(self, name: str, error: int, now: float) -> None:
        """The member goes on as it was: it is not its fault that it was not asked."""
        heapq.heappush(self._due, (now + POSTPONED, name))
        if now - self._complained > COMPLAINTS:
            self._complained = now
            log("members not examined", error=os.strerror(error))

    def _hear(self, probe: Probe) -> bool | None:
        """Something happened at its socket: the outcome, or None when it is not known yet."""
        connection, check = probe.connection, probe.check
        try:
            if check.kind == "UDP-CONNECT":
                connection.recv(1)
                return True
            if not probe.heard and self._selector.get_key(connection).events == selectors.EVENT_WRITE:
                if connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    return False
                if check.kind in ("TCP", "SCTP"):
                    return True
                connection.send(check.request)  # a fresh connection's buffer holds all of it
                self._selector.modify(connection, selectors.EVENT_READ, probe.name)
                return None
            part = connection.recv(4096)
        except BlockingIOError:
            return None
        except OSError:
            return False
        probe.heard.extend(part)
        if b"\n" not in probe.heard and part and len(probe.heard) < LONGEST_HEAD:
            return None
        return _is_expected(bytes(probe.heard), check.codes)

    def _conclude(self, name: str, check: Check, succeeded: bool, now: float) -> tuple[str, Check, bool]:
        self._drop(name)
        heapq.heappush(self._due, (now + check.interval, name))
        return name, check, succeeded

    def _drop(self, name: str) -> None:
        probe = self._probes.pop(name, None)
        if probe is not None:
            self._selector.unregister(probe.connection)
            if probe.check.kind != "UDP-CONNECT":
                # A reset and no lingering: nobody waits for what more the member may say.
                with contextlib.suppress(OSError):
                    probe.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            probe.connection.close()


def _is_expected(head: bytes, codes: tuple[tuple[int, int], ...]) -> bool:
    words = head.split(b"\n", 1)[0].split()
    if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
        return False
    return any(low <= int(words[1]) <= high for low, high in codes)
