"""Whose a process is, by proof, and how it is ended without ever hitting another.

A pid alone proves nothing: it is used again. Here a process is ours when its environment, which it was given at birth
and hands to its children, names our state directory and an amphora (or, where it wiped that out, when it works in an
amphora's directory); it is the same as before when its start time is the same (proc(5), /proc/pid/stat field 22).
Signals go through a pidfd, which stays with one process for ever.

Linux only. Blocks: call it from a thread, except `is_alive` and `owner_of`, which read two small files."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from frontinus.model.ids import AmphoraId

AMPHORA_VARIABLE = "FRONTINUS_AMPHORA_ID"
STATE_DIR_VARIABLE = "FRONTINUS_STATE_DIR"

AMPHORAE = "amphorae"
"""The directory below the state directory where places are."""

_LOOKS_AT_EXEC = 20
_KERNEL_THREAD = 0x0020_0000
"""PF_KTHREAD in the flags of /proc/pid/stat (linux/sched.h)."""


class Process(msgspec.Struct, frozen=True):
    """One process for ever: `started` is in clock ticks since boot."""

    pid: int
    started: int


Census = Mapping[AmphoraId, tuple[Process, ...]]


def start_time(pid: int) -> int | None:
    """Clock ticks from boot to the start of the process; None when there is none, or only a zombie."""
    fields = _stat(pid)
    return None if fields is None else int(fields[19])


def owner_of(pid: int, state_dir: Path) -> AmphoraId | None:
    """The amphora of this state directory that the process belongs to; None for every other process."""
    environment = _environment(pid)
    if environment.endswith(b"\0\0"):  # a title, and nothing behind it where every entry would have a name
        return _owner_by_directory(pid, state_dir)
    found: dict[bytes, bytes] = {}
    if AMPHORA_VARIABLE.encode() in environment:
        for entry in environment.split(b"\0"):
            name, _, value = entry.partition(b"=")
            found.setdefault(name, value)
    if found.get(STATE_DIR_VARIABLE.encode()) != os.fsencode(state_dir):
        return None
    amphora_id = found.get(AMPHORA_VARIABLE.encode(), b"").decode("ascii", "replace")
    return AmphoraId(amphora_id) if amphora_id else None


def _owner_by_directory(pid: int, state_dir: Path) -> AmphoraId | None:
    """Of a process that wrote its title over its environment, as nginx does: the agent works in its place's directory,
    and so does what it starts."""
    try:
        directory = Path(f"/proc/{pid}/cwd").readlink()
    except OSError:
        return None
    place = Path(os.path.realpath(state_dir)) / AMPHORAE
    return AmphoraId(directory.name) if directory.parent == place else None


def is_alive(process: Process, amphora_id: AmphoraId, state_dir: Path) -> bool:
    """Whether this very process still runs, and is the amphora's."""
    # The start time is read last: if it still fits, the environment read before was this process's.
    return owner_of(process.pid, state_dir) == amphora_id and start_time(process.pid) == process.started


def arguments(pid: int) -> tuple[str, ...]:
    """Its command line; empty when it is gone."""
    try:
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return ()
    return tuple(os.fsdecode(word) for word in line.split(b"\0")[:-1])


def name(pid: int) -> str:
    """The first 15 characters of its program's name; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
    except OSError:
        return ""


def children(pid: int) -> tuple[int, ...]:
    """The pids of its children; empty when it is gone or this kernel does not tell."""
    try:
        return tuple(int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    except OSError:
        return ()


def _environment(pid: int) -> bytes:
    """What it was given at birth; empty when it is gone, or another user's.

    A process that becomes another program has neither arguments nor environment for some tens of microseconds, and one
    that is just being started is seen exactly then. It is waited for: overlooking it would start an agent twice, or let
    a balancer survive its amphora."""
    for _ in range(_LOOKS_AT_EXEC):
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            return b""
        if environment or arguments(pid):
            return environment
        fields = _stat(pid)
        if fields is None or int(fields[6]) & _KERNEL_THREAD:
            return b""
        time.sleep(0.001)
    return b""


def _stat(pid: int) -> list[bytes] | None:
    """The fields of /proc/pid/stat from the third on; None when there is no process, or only a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    # The name stands in parentheses and may hold anything, also parentheses and blanks.
    fields = stat.rpartition(b")")[2].split()
    return None if fields[0] in (b"Z", b"X") else fields


class CensusTaker:
    """Looks at every process of the machine and sorts ours by amphora.

    That costs some 30 µs for each process there is, so callers who ask at the same time share one look; nobody gets
    one that began before they asked. Any thread."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._begun = 0  # written under the lock; read without it only to learn what has begun already
        self._lock = threading.Lock()
        self._latest: Census = {}  # guarded by the lock, as made by look number `_begun`

    def take(self) -> Census:
        """Every living process of ours, as of some moment after this was called."""
        needed = self._begun + 1
        with self._lock:
            if self._begun < needed:
                self._begun += 1
                self._latest = self._look()
            return self._latest

    def _look(self) -> Census:
        found: dict[AmphoraId, tuple[Process, ...]] = {}
        for entry in os.listdir("/proc"):  # noqa: PTH208 - names are all that is needed, and there are thousands
            if not entry.isdecimal():
                continue
            amphora_id = owner_of(int(entry), self._state_dir)
            if amphora_id is None:
                continue
            started = start_time(int(entry))
            if started is not None:
                found[amphora_id] = (*found.get(amphora_id, ()), Process(int(entry), started))
        return found


def end(processes: Iterable[Process], amphora_id: AmphoraId, state_dir: Path, grace: float) -> None:
    """End these processes of the amphora: SIGTERM, then SIGKILL for those still there after `grace` seconds (0: at
    once). Returns when they are gone. Those that turn out to be another's are left alone."""
    handles = [handle for process in processes if (handle := _open(process, amphora_id, state_dir)) is not None]
    try:
        if grace > 0:
            for handle in handles:
                _signal(handle, signal.SIGTERM)
            _await(handles, grace)
        for handle in handles:
            _signal(handle, signal.SIGKILL)
        # A process in an uninterruptible sleep can outlast SIGKILL; the caller looks again and goes on trying.
        _await(handles, 1.0)
    finally:
        for handle in handles:
            os.close(handle)


def _open(process: Process, amphora_id: AmphoraId, state_dir: Path) -> int | None:
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return None
    # Proved after the handle was taken: from here on the pid cannot come to mean another process.
    if is_alive(process, amphora_id, state_dir):
        return handle
    os.close(handle)
    return None


def _signal(handle: int, number: signal.Signals) -> None:
    try:
        signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:  # it has ended already
        return


def _await(handles: Iterable[int], seconds: float) -> None:
    """Wait until all have ended, or the time is over. A pidfd is readable when its process has ended."""
    waiting = set(handles)
    poll = select.poll()
    for handle in waiting:
        poll.register(handle, select.POLLIN)
    deadline = time.monotonic() + seconds
    while waiting and (left := deadline - time.monotonic()) > 0:
        for handle, _events in poll.poll(left * 1000):
            poll.unregister(handle)
            waiting.discard(handle)
