"""Whose the processors were while something was measured: ours, or those of whatever else ran on this machine.

    with Cpu({"FRONTINUS_STATE_DIR": ...}) as cpu: ...
    print(cpu.shares())

A figure that was taken beside other programs says little of Frontinus; this says how much of it to believe."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_LOOK_EVERY_S = 1.0


@dataclass(frozen=True)
class Shares:
    """Of all processor time since the beginning, between 0 and 1."""

    ours: float
    others: float
    idle: float

    def __str__(self) -> str:
        return f"{self.ours:.0%} ours, {self.others:.0%} other programs', {self.idle:.0%} idle"


@dataclass
class _Seen:
    parent: int
    is_marked: bool
    seconds: float


@dataclass
class Cpu:
    """In a thread of its own. Ours are the descendants of this process, and whoever has these words in his environment."""

    words: dict[str, str]
    _ours: float = 0.0
    _seen: dict[tuple[int, str], _Seen] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._marks = {f"{key}={value}".encode() for key, value in self.words.items()}
        self._look()
        self._ours = 0.0
        self._busy, self._idle = _machine()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(10)

    def shares(self) -> Shares:
        """Since the beginning. What a process used after it was last looked at, and before it died, counts as others'."""
        busy, idle = _machine()
        busy, idle = busy - self._busy, idle - self._idle
        whole = max(busy + idle, 0.001)
        ours = min(self._ours, busy)
        return Shares(ours / whole, (busy - ours) / whole, idle / whole)

    def _run(self) -> None:
        while not self._stop.wait(_LOOK_EVERY_S):
            self._look()

    def _look(self) -> None:
        now = dict(_processes(self._seen, self._marks))
        parents = {pid: seen.parent for (pid, _), seen in now.items()}
        marked = {pid for (pid, _), seen in now.items() if seen.is_marked} | {os.getpid()}
        for key, seen in now.items():
            if _descends(key[0], parents, marked):
                before = self._seen.get(key)
                self._ours += seen.seconds - (before.seconds if before is not None else 0.0)
        self._seen = now


def _descends(pid: int, parents: dict[int, int], of: set[int]) -> bool:
    while pid > 1:
        if pid in of:
            return True
        pid = parents.get(pid, 0)
    return False


def _processes(known: dict[tuple[int, str], _Seen], marks: set[bytes]) -> list[tuple[tuple[int, str], _Seen]]:
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            key = (int(entry.name), fields[19])
            before = known.get(key)
            # Right after a fork the environment is still the parent's.
            is_marked = before is not None and before.is_marked
            if not is_marked and marks:
                is_marked = marks <= set((entry / "environ").read_bytes().split(b"\0"))
        except OSError:
            continue
        found.append((key, _Seen(int(fields[1]), is_marked, (int(fields[11]) + int(fields[12])) * _TICK_S)))
    return found


def _machine() -> tuple[float, float]:
    """Busy and idle seconds of all processors since the machine started."""
    words = Path("/proc/stat").read_text().splitlines()[0].split()
    user, nice, system, idle, waiting, *interrupts = (int(x) * _TICK_S for x in words[1:9])
    return user + nice + system + sum(interrupts), idle + waiting
