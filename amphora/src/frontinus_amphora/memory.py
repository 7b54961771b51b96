"""How much memory a haproxy may take, as its own configuration says: `setenv FRONTINUS_MAX_MEMORY <MiB>` in `global`.

The kernel sees to it (RLIMIT_DATA, setrlimit(2)): a worker that has no more turns connections away and lives on. Not
haproxy's own `-m`: it limits the address space, of which each thread reserves 64 MiB that it never takes, and as a word of
the command line it could not change while the master lives. Only the soft limit is set, so that it can be raised again.
Reads texts and asks the kernel; knows nothing of load balancers. Next: child_service.py.
"""

import resource
from collections.abc import Sequence

from frontinus_amphora import haproxy_text, processes

MIB = 1 << 20
THREAD_MIB = 9
"""What one more thread takes before it does anything: its stack. haproxy goes on with fewer threads where it cannot get it."""


def of(text: str) -> int | None:
    """MiB that the text lets a process of haproxy have; None: as many as there are."""
    word = haproxy_text.global_word(text, "setenv", haproxy_text.MAX_MEMORY)
    return int(word) if word.isdecimal() and int(word) > 0 else None


def within(mebibytes: int | None, argv: Sequence[str]) -> list[str]:
    """The command that runs `argv` with so much memory. By a shell, which becomes the program: a limit set from outside
    might come after the first fork."""
    if mebibytes is None:
        return list(argv)
    return ["/bin/sh", "-c", f'ulimit -S -d {mebibytes * 1024} 2>&-; exec "$@"', "sh", *argv]


def limit(pid: int, mebibytes: int | None) -> None:
    """The same for a process of ours that runs, and for what it will fork and execute. Raises OSError."""
    _, hard = resource.prlimit(pid, resource.RLIMIT_DATA)
    soft = resource.getrlimit(resource.RLIMIT_DATA)[0] if mebibytes is None else mebibytes * MIB
    if hard != resource.RLIM_INFINITY:
        soft = hard if soft == resource.RLIM_INFINITY else min(soft, hard)
    resource.prlimit(pid, resource.RLIMIT_DATA, (soft, hard))


def check(text: str, argv: Sequence[str], timeout: float) -> tuple[int, str]:
    """Run haproxy's check of the text with the memory that a worker would have for it; as processes.run.

    What threads will take is left out, because a check starts none. When memory is what the text lacks, that is said."""
    mebibytes = of(text)
    if mebibytes is None:
        return processes.run(argv, timeout)
    word = haproxy_text.global_word(text, "nbthread")
    left = mebibytes - THREAD_MIB * (max(1, int(word)) - 1 if word.isdecimal() else 0)
    code, output = processes.run(within(max(1, left), argv), timeout)
    if code != 0 and processes.run(argv, timeout)[0] == 0:
        return code, f"max_memory: {mebibytes} MiB are too few for this configuration"
    return code, output
