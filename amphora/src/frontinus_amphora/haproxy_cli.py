"""Speak to haproxy's sockets, and understand its answers.

`ask` is the only I/O; the rest is pure. It never decides what to do about an answer. Next: load_balancer.py.
"""

import re
import socket
import time
from collections.abc import Mapping
from typing import NamedTuple

LARGEST_ANSWER = 64 << 20
# srv_admin_state, management guide 9.3: show servers state. That the text had a server disabled is remembered beside that it
# is, and stays when an order has let it in.
IN_MAINTENANCE = 0x01 | 0x02 | 0x20 | 0x40
DISABLED_BY_TEXT, FORCED_DRAIN = 0x04, 0x08
LAST_COLUMN = "srvrecord"  # of those without which haproxy would not take a line

# What haproxy prints for a command that it carried out (management guide 9.3, and the sources of 2.4 to 3.0 for
# certificates). Nothing at all is the commonest.
DONE = re.compile(
    r"|New server registered\."
    r"|Server deleted\."
    r"|(IP changed from|no need to change the addr|port changed from|no need to change the port)[^\n]*"
    r"|Transaction (created|updated|aborted) for certificate [^\n]*"
    r"|transaction (created|updated) for (CA|CRL) [^\n]*"
    r"|New (empty )?(certificate store|CA file|CRL file) [^\n]*"
    r"|(Committing|Inserting certificate) [^\n]*\n?Success!"
    r"|Entry '[^\n]*' deleted in crtlist '[^\n]*'!"
    r"|(Certificate|CA file|CRL file) '[^\n]*' (deleted|added)!"
    r"|New version created: \d+"
    r"|\[\d\]:?\s*"
)
LATER = re.compile(
    r"still has connections|cannot remove it|cannot be deleted now|still has (streams|idle)", re.IGNORECASE
)
DELETE = re.compile(r"\s*del(ete)? server (\S+/\S+)\s*")
PREPARE = re.compile(r"prepare (map|acl) \S+")
VERSION = re.compile(r"New version created: (\d+)")
OF_PREPARED = re.compile(r"((?:add|clear|commit) (?:map|acl) @)prepared(?= )")


class HaproxySilent(OSError):
    """haproxy's socket gave no answer in time, or cannot be reached."""


class Processes(NamedTuple):
    """What the master says of itself and its workers."""

    master: int
    reloads: int
    failed: int  # reloads that failed since the last good one
    workers: tuple[int, ...]  # of the present configuration
    old_workers: tuple[int, ...]  # finishing what they have


def ask(path: str, command: str, timeout: float = 5.0, half_close: bool = False) -> str:
    """Send one command, return all of the answer. `half_close` is for the master's socket, which waits for more.

    Raises HaproxySilent. May be called from any thread.
    """
    deadline = time.monotonic() + timeout
    parts: list[bytes] = []
    size = 0
    try:
        with connect(path, timeout) as connection:
            connection.sendall(f"{command}\n".encode())
            if half_close:
                connection.shutdown(socket.SHUT_WR)
            while size < LARGEST_ANSWER:
                connection.settimeout(max(0.001, deadline - time.monotonic()))
                part = connection.recv(65536)
                if not part:
                    break
                parts.append(part)
                size += len(part)
    except OSError as error:
        raise HaproxySilent(f"haproxy does not answer: {error.strerror or error}") from error
    return b"".join(parts).decode("utf-8", "replace")


def connect(path: str, timeout: float) -> socket.socket:
    """A connection to one of haproxy's sockets. Raises OSError."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout)
        connection.connect(path)
    except OSError:
        connection.close()
        raise
    return connection


def command_line(command: str) -> str | None:
    """The command as it must be sent, or None when it is not one command.

    A command is one line, or a line ending in `<<` and a payload without empty lines, which an empty line ends.
    """
    text = command.strip("\n")
    first, newline, payload = text.partition("\n")
    if not first.strip() or "\r" in text or "\0" in text or ";" in first.replace("\\;", ""):
        return None
    if not newline:
        return None if first.rstrip().endswith("<<") else first
    if not first.rstrip().endswith("<<") or "\n\n" in payload:
        return None
    return f"{first}\n{payload}\n"


def is_done(answer: str) -> bool:
    """True when haproxy carried the command out."""
    return DONE.fullmatch(answer.strip()) is not None


def is_not_yet(answer: str) -> bool:
    """True when haproxy refused to delete a server only because something still uses it."""
    return LATER.search(answer) is not None


def prepared(command: str, answer: str) -> str | None:
    """The version of a map or an acl that haproxy says it prepared by this command; None when it does not."""
    version = VERSION.fullmatch(answer.strip()) if PREPARE.fullmatch(command.strip()) else None
    return version[1] if version else None


def is_of_prepared(command: str) -> bool:
    """True for a command that is about the version that was prepared last."""
    return OF_PREPARED.match(command) is not None


def of_version(command: str, version: str) -> str:
    """The command with this version for `@prepared`."""
    return OF_PREPARED.sub(rf"\g<1>{version}", command, count=1)


def deleted_server(command: str) -> str | None:
    """`backend/server` when the command deletes one."""
    match = DELETE.fullmatch(command)
    return match[2] if match else None


def parse_processes(answer: str) -> Processes | None:
    """Understand `show proc`; None when the answer is not one."""
    master, reloads, failed = 0, 0, 0
    workers: list[int] = []
    old_workers: list[int] = []
    into = workers
    for line in answer.splitlines():
        words = line.split()
        if line.startswith("# old workers"):
            into = old_workers
        elif len(words) >= 3 and words[0].isdecimal() and words[1] == "master":
            master, reloads = int(words[0]), int(words[2]) if words[2].isdecimal() else 0
            match = re.search(r"\[failed: (\d+)\]", line)
            failed = int(match[1]) if match else 0
        elif len(words) >= 2 and words[0].isdecimal() and words[1] == "worker":
            into.append(int(words[0]))
    return Processes(master, reloads, failed, tuple(workers), tuple(old_workers)) if master else None


def settle_states(states: str, servers: Mapping[str, tuple[str, int]]) -> str:
    """`show servers state` made safe to load beside a *new* configuration, whose checked `servers` are given.

    What was learnt of a server's health is kept, so that members don't flap. All else is the new configuration's to
    say, and haproxy 2.6 would let the old state win: a new port would be ignored, a server whose check was taken away
    would be down for ever, one that was `disabled` would be enabled or stay down, one that is to be spoken to in TLS
    would be spoken to in clear, checks would go where they went, orders given at run time would outlive the file that
    no longer has them. So there is a line only for a server that is checked, at the same address and port
    (`backend/server` -> address, port), and was not in maintenance; drain and weight become the old configuration's,
    from which a new one differs freely; and of TLS and the place of checks, which need not be said, nothing is.

    A backend is a pool's for one listener (`pool:listener`). One that is new learns from another of its pool, so that a
    member that is known to be down gets nothing over a new listener either.
    """
    columns: dict[str, int] = {}
    learnt: dict[tuple[str, str], list[str]] = {}
    heading: list[str] = []
    for line in states.splitlines():
        values = line.split(" ")
        if line.startswith("#"):
            columns = {name: index for index, name in enumerate(line[1:].split())}
        if not columns or line.startswith("#"):
            heading.append(line)  # the version number, and the names
        elif len(values) >= len(columns):
            admin = int(values[columns["srv_admin_state"]])
            values[columns["srv_admin_state"]] = str(admin & ~(FORCED_DRAIN | DISABLED_BY_TEXT))
            values[columns["srv_uweight"]] = values[columns["srv_iweight"]]
            if not admin & IN_MAINTENANCE:
                backend, server = values[columns["be_name"]], values[columns["srv_name"]]
                learnt[backend, server] = values[: columns[LAST_COLUMN] + 1]
                learnt.setdefault((backend.partition(":")[0], server), learnt[backend, server])
    kept: list[str] = []
    for name, (address, port) in servers.items():
        backend, _, server = name.partition("/")
        known = learnt.get((backend, server)) or learnt.get((backend.partition(":")[0], server))
        if known and (known[columns["srv_addr"]], known[columns["srv_port"]]) == (address, str(port)):
            known[columns["be_name"]] = backend
            kept.append(" ".join(known))
    return "\n".join([*heading, *kept]) + "\n"
