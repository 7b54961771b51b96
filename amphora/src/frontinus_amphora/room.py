"""A machine of its own has room for as much traffic as its memory bears.

What a kernel allows by itself is the same whatever memory there is, or meant for a machine that does much else: 4,096 files of a
process (which are 2,000 connections), 1,024 neighbours, a tenth of the memory for all that TCP has not sent or read yet.
Whoever meets such a bound gets no answer, or half of one. Where an amphora is a process among others, these belong to the
host. Safe to repeat. Next: main.py.
"""

import resource

from frontinus_amphora import facts, kernel
from frontinus_amphora.log import log

CONNECTION_KIB = 80
"""Of memory for each connection with its two sockets. haproxy and the kernel were seen to take 9 KiB for one that is idle, 35
where a client speaks TLS; and what TCP keeps for it, other programs and the kernel itself are to have room, too."""

ORPHAN_KIB = 16
"""For each connection that haproxy is done with, and whose client has not got all of the answer yet."""

FEWEST_FILES, MOST_FILES = 4_096, 1 << 20
FILES_BESIDE = 200

MOST_NEIGHBOURS = 16_384
"""Half a KiB each, taken as they come. A member is one, and so is a client on the VIP's own network."""

_PAGE_KIB = 4


def give() -> None:
    """Have this machine, and what is started from here, so. What the kernel refuses is logged, and left."""
    memory_kib = facts.memory_kib()[0]
    kernel.prefer(settings(memory_kib))
    most = files(memory_kib)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    except (OSError, ValueError) as error:
        log("limit of files not changed", error=str(error))


def files(memory_kib: int) -> int:
    """How many files a process may have: two for each connection. haproxy has as many connections as that lets it. Pure."""
    return min(MOST_FILES, max(FEWEST_FILES, 2 * (memory_kib // CONNECTION_KIB) + FILES_BESIDE))


def settings(memory_kib: int) -> dict[str, str]:
    """Of the kernel. Pure."""
    # Above the second TCP keeps less for each connection; above the third it cuts off who is still to get his answer.
    tcp = (memory_kib // part // _PAGE_KIB for part in (12, 8, 4))
    found = {
        "net/ipv4/tcp_mem": " ".join(map(str, tcp)),
        "net/ipv4/tcp_max_orphans": str(memory_kib // ORPHAN_KIB),
    }
    for family in ("ipv4", "ipv6"):
        # Below the first none is forgotten; above the third there are no new ones, while the old ones are in use.
        for number, part in ((1, 4), (2, 2), (3, 1)):
            found[f"net/{family}/neigh/default/gc_thresh{number}"] = str(MOST_NEIGHBOURS // part)
    return found
