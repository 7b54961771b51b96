"""Network namespaces with a name, as ip-netns(8) keeps them: made, found by a prefix, emptied and removed.

Knows nothing of amphorae. Blocks for some milliseconds. Raises Retry when the machine refuses."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

from frontinus.drivers import iproute

_NAMES = Path("/run/netns")


def ensure(name: str, inhabitant: int | None) -> None:
    """The name leads to a namespace whose loopback is up. Where it led nowhere, and the process `inhabitant` lives, to
    that process's: a namespace outlives its name as long as somebody is in it, and traffic goes on meanwhile."""
    if not exists(name):
        # A file that is no namespace is what a crash between making it and mounting leaves.
        (_NAMES / name).unlink(missing_ok=True)
        words = ["netns", "add", name] if inhabitant is None else ["netns", "attach", name, str(inhabitant)]
        iproute.change([words])
    iproute.change([["link", "set", "dev", "lo", "up"]], namespace=name)


def exists(name: str) -> bool:
    """Whether the name leads to a namespace: then it lies on the file system where all namespaces do."""
    try:
        return (_NAMES / name).stat().st_dev == Path("/proc/self/ns/net").stat().st_dev
    except FileNotFoundError:
        return False


def remove(name: str) -> None:
    """The name is gone, and nobody is left inside. One that is not there is done already."""
    if exists(name):
        _empty(name)
        with suppress(iproute.Refused):  # somebody was quicker
            iproute.change([["netns", "delete", name]])
    (_NAMES / name).unlink(missing_ok=True)


def names(prefix: str) -> list[str]:
    try:
        return [x for x in os.listdir(_NAMES) if x.startswith(prefix)]  # noqa: PTH208 - names are all that is needed
    except FileNotFoundError:
        return []


def _empty(name: str) -> None:
    """Kill whoever is in the namespace."""
    inside = (_NAMES / name).stat()
    for entry in os.listdir("/proc"):  # noqa: PTH208 - there are thousands
        if not entry.isdecimal() or not _is_in(int(entry), inside):
            continue
        with suppress(OSError):  # it ended by itself
            handle = os.pidfd_open(int(entry))
            try:
                if _is_in(int(entry), inside):  # again, now that the number cannot come to mean another
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
            finally:
                os.close(handle)


def _is_in(pid: int, namespace: os.stat_result) -> bool:
    try:
        return os.path.samestat(Path(f"/proc/{pid}/ns/net").stat(), namespace)
    except OSError:
        return False
