"""What the benches share: a real installation, figures in milliseconds, one JSON object on standard output."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.acceptance.support import Installation


@contextlib.contextmanager
def installation() -> Iterator[Installation]:
    """`frontinus up` on a temporary state directory, removed afterwards, also when this process is asked to end."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with tempfile.TemporaryDirectory(prefix="frontinus-bench-") as directory:
        made = Installation(Path(directory) / "state")
        try:
            made.start()
            yield made
        finally:
            made.remove()


def summary(seconds: Sequence[float]) -> dict[str, float]:
    """Median, worst and best in milliseconds."""
    ordered = sorted(x * 1000 for x in seconds)
    return {
        "median_ms": round(statistics.median(ordered), 1),
        "p90_ms": round(ordered[int(len(ordered) * 0.9)], 1),
        "worst_ms": round(ordered[-1], 1),
        "best_ms": round(ordered[0], 1),
        "samples": len(ordered),
    }


def cpu_seconds(pid: int) -> float:
    """User and system time that a process and its threads have used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def cpu_of_all(pid: int) -> float:
    """The same of a process and its descendants, also of those that ended meanwhile and were waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    own = sum(int(x) for x in fields[11:15]) / os.sysconf("SC_CLK_TCK")
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return own + sum(_cpu_if_there(int(x)) for x in children)


def _cpu_if_there(pid: int) -> float:
    try:
        return cpu_of_all(pid)
    except FileNotFoundError:
        return 0.0  # it ended just now, and is counted by its parent


def print_result(name: str, **figures: object) -> None:
    print(json.dumps({"bench": name, **figures}, indent=2))
