"""Which workers that a reload replaced must end before their connections do. Only memory can demand it: their time is
bounded by haproxy itself (hard-stop-after), as by nginx (worker_shutdown_timeout), and their number costs nothing but memory (docs/design/0007-old-workers.md).

Next: child_service.py and nginx_service.py, which ask after each reload.
"""

import os
import signal
from collections.abc import Iterable
from typing import NamedTuple

from frontinus_amphora import facts, processes
from frontinus_amphora.log import log

SHARE = 4  # old workers may hold a quarter of the machine's memory,
RESERVE = 8  # as long as an eighth of it is available
WORTH = 16  # or all of them together have not a sixteenth: who else takes the memory would not notice their end
PAGE_KIB = os.sysconf("SC_PAGE_SIZE") // 1024


class OldWorker(NamedTuple):
    pid: int
    started: int
    held_kib: int


def to_end(
    old: Iterable[OldWorker], limit_kib: int, available_kib: int, reserve_kib: int, worth_kib: int
) -> list[OldWorker]:
    """The oldest ones, until the others hold no more than the limit and the reserve is there. A reserve that they did not take
    they cannot give back: where they hold little, as on a host that is full of others, their requests go on. Pure."""
    left = sorted(old, key=lambda worker: worker.started)
    held = sum(worker.held_kib for worker in left)
    if held < worth_kib and available_kib + held < reserve_kib:
        reserve_kib = 0
    ended: list[OldWorker] = []
    while left and (held > limit_kib or available_kib < reserve_kib):
        oldest = left.pop(0)
        ended.append(oldest)
        held -= oldest.held_kib
        available_kib += oldest.held_kib
    return ended


def bound(program: str, pids: Iterable[int], limit_mib: float) -> None:
    """End what memory demands of these old workers of a program. `limit_mib` 0: a share of the machine's memory."""
    for worker in _too_large(pids, limit_mib):
        descriptor = processes.open_pidfd(worker.pid, worker.started)
        if descriptor is not None:
            log(f"old {program} worker ended for its memory", pid=worker.pid, held_kib=worker.held_kib)
            processes.send_signal(descriptor, signal.SIGTERM)
            os.close(descriptor)


def too_large(pids: Iterable[int], limit_mib: float) -> list[int]:
    """Those whose end memory demands, for a caller who ends them in its own way."""
    return [worker.pid for worker in _too_large(pids, limit_mib)]


def _too_large(pids: Iterable[int], limit_mib: float) -> list[OldWorker]:
    old = [worker for worker in map(_measure, pids) if worker is not None]
    if not old:
        return []
    total, available = facts.memory_kib()
    limit = int(limit_mib * 1024) or total // SHARE
    return to_end(old, limit, available, total // RESERVE, total // WORTH)


def _measure(pid: int) -> OldWorker | None:
    started = processes.start_time(pid)
    try:
        with open(f"/proc/{pid}/statm") as file:
            resident, shared = (int(word) for word in file.read().split()[1:3])
    except (OSError, ValueError):
        return None
    return None if started is None else OldWorker(pid, started, (resident - shared) * PAGE_KIB)
