"""Processes by proof: never signal or trust a pid without knowing whose it is.

A pid alone is recycled; a pid with its start time, and a command line that names our configuration, is not.
Next: service.py.
"""

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence

DEFAULT_SIGNALS = (signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)


def start_time(pid: int) -> int | None:
    """Clock ticks from boot to the start of the process; None when it is gone or a zombie. Survives exec."""
    fields = _stat(pid)
    return int(fields[19]) if fields and fields[0] not in ("Z", "X") else None


def session(pid: int) -> int | None:
    """The session it is in; None when it is gone or a zombie."""
    fields = _stat(pid)
    return int(fields[3]) if fields and fields[0] not in ("Z", "X") else None


def children(pid: int) -> list[int] | None:
    """Its children; None when this kernel does not tell."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            return [int(word) for word in file.read().split()]
    except OSError:
        return None


def names(pid: int, argument: str) -> bool:
    """True when the command line has exactly this argument."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return argument.encode() in file.read().split(b"\0")
    except OSError:
        return False


def naming(argument: str) -> Iterator[int]:
    """Every living process whose command line has exactly this argument."""
    own = os.getpid()
    for entry in os.listdir("/proc"):
        if entry.isdecimal() and int(entry) != own and names(int(entry), argument) and start_time(int(entry)):
            yield int(entry)


def title(pid: int) -> str:
    """What it says of itself on its command line; empty when it is gone or a zombie."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().replace(b"\0", b" ").decode("utf-8", "replace").strip()
    except OSError:
        return ""


def prints_to(pid: int, path: str) -> bool:
    """True when its error output is this file, even if the file was removed meanwhile."""
    try:
        return os.readlink(f"/proc/{pid}/fd/2").removesuffix(" (deleted)") == path
    except OSError:
        return False


def printing_to(path: str) -> Iterator[int]:
    """Every living process whose error output is this file."""
    own = os.getpid()
    for entry in os.listdir("/proc"):
        if entry.isdecimal() and int(entry) != own and prints_to(int(entry), path) and start_time(int(entry)):
            yield int(entry)


def open_pidfd(pid: int, started: int) -> int | None:
    """A descriptor that becomes readable when this very process ends; None when it is gone already."""
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return None
    if start_time(pid) != started:
        os.close(descriptor)
        return None
    return descriptor


def take(pid: int) -> tuple[int, int, int] | None:
    """A process by proof: its pid, its start time, and a pidfd; None when it is gone."""
    started = start_time(pid)
    pidfd = None if started is None else open_pidfd(pid, started)
    return None if started is None or pidfd is None else (pid, started, pidfd)


def has_ended(pidfd: int, timeout: float = 0.0) -> bool:
    """Wait up to `timeout` seconds for the process to end."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(timeout * 1000))


def send_signal(pidfd: int, number: int) -> None:
    """Signal the process; one that is gone is fine."""
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, number)


def reap(pid: int) -> None:
    """Take the exit status of a child, so that it is no zombie; a process which is not our child is left alone."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def kill_all(pids: Sequence[int], started: Sequence[int], timeout: float = 2.0) -> None:
    """SIGKILL these processes and wait until they are gone."""
    descriptors = [(pid, open_pidfd(pid, when)) for pid, when in zip(pids, started, strict=True)]
    for _pid, descriptor in descriptors:
        if descriptor is not None:
            send_signal(descriptor, signal.SIGKILL)
    deadline = time.monotonic() + timeout
    for pid, descriptor in descriptors:
        if descriptor is not None:
            has_ended(descriptor, max(0.0, deadline - time.monotonic()))
            reap(pid)
            os.close(descriptor)


def spawn_detached(
    argv: Sequence[str],
    output: int,
    without: frozenset[str] = frozenset(),
    more: Mapping[str, str] | None = None,
    handed: Iterable[int] = (),
) -> int:
    """Start a process in a session of its own, so that it outlives us, with our environment less `without` and with
    `more`. It gets the descriptors that are `handed`, under the same numbers."""
    environment = {**{key: value for key, value in os.environ.items() if key not in without}, **(more or {})}
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, output, 1),
        (os.POSIX_SPAWN_DUP2, output, 2),
        # To itself, which clears close-on-exec there and nowhere else (POSIX.1-2024, posix_spawn_file_actions_adddup2).
        *((os.POSIX_SPAWN_DUP2, descriptor, descriptor) for descriptor in handed),
    ]
    return os.posix_spawnp(
        argv[0], list(argv), environment, file_actions=actions, setsid=True, setsigmask=(), setsigdef=DEFAULT_SIGNALS
    )


def run(argv: Sequence[str], timeout: float) -> tuple[int, str]:
    """Run a program to its end; its exit code (negative: a signal) and what it printed. Killed when too slow."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    try:
        pid = spawn_detached(argv, writer)
    except OSError as error:
        os.close(reader)
        return 127, f"cannot run {argv[0]}: {error.strerror}"
    finally:
        os.close(writer)
    deadline = time.monotonic() + timeout
    output = bytearray()
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    try:
        while True:
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                os.kill(pid, signal.SIGKILL)  # our own unreaped child: the pid cannot be another's
                output += b"\ntook too long and was ended"
                break
            part = os.read(reader, 65536)
            if not part:
                break
            output = (output + part)[-65536:]
    finally:
        os.close(reader)
        _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), output.decode("utf-8", "replace").strip()


def _stat(pid: int) -> list[str] | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return None
    return text.rpartition(")")[2].split()
