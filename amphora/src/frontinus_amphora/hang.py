"""Does haproxy hang? It lives, so nothing tells of a death, and yet it neither answers nor takes connections.

Two witnesses must agree, look after look: the runtime socket is silent, and a connection to a listening address stays in
the kernel's queue because nobody accepts it. One alone is no proof: a listener at its limit does not accept, and a
socket can be slow. Belongs to whoever holds the load balancer's lock, except `doubt`. Next: load_balancer.py.
"""

import contextlib
import select
import socket
import sys
import time
from collections.abc import Iterable

from frontinus_amphora import haproxy_cli
from frontinus_amphora.haproxy_cli import HaproxySilent
from frontinus_amphora.haproxy_text import Bind

ANSWER_TIMEOUT = 1.0  # for `show info`, which takes a busy haproxy milliseconds
ACCEPT_TIMEOUT = 0.3
PAUSE = 0.5  # between looks
FEWEST_LOOKS = 3  # an agent that was stopped itself finds much time gone and one silence
GLANCE = 0.01
LISTENING = "0A"  # TCP_LISTEN in /proc/net/tcp


class HangWatch:
    """Counts silent looks. `due` is when to look next (monotonic), None while there is no doubt."""

    def __init__(self, patience: float) -> None:
        """`patience`: seconds of silence, from the first silent look, after which it counts as hung."""
        self._patience = patience
        self._looks = 0
        self._since = 0.0
        self.due: float | None = None

    def doubt(self) -> bool:
        """Somebody got no answer: look closely. True when this is news. Any thread."""
        if self.due is not None:
            return False
        self.due = time.monotonic()
        return True

    def is_silent(self) -> bool:
        """True after a look at which neither witness answered. Any thread."""
        return self._looks > 0

    def trust(self) -> None:
        """It answered, or is another haproxy now."""
        self._looks = 0
        self.due = None

    def look(self, stats_socket: str, binds: Iterable[Bind]) -> bool:
        """Question both witnesses; True when it hangs beyond doubt. Takes up to about a second and a half."""
        began = time.monotonic()
        if answers(stats_socket) or accepts(binds):
            # Silent at its socket alone, it is looked at again when somebody gets no answer again.
            self.trust()
            return False
        if self._looks == 0:
            self._since = began
        self._looks += 1
        now = time.monotonic()
        self.due = now + PAUSE
        return self._looks >= FEWEST_LOOKS and now - self._since >= self._patience


def answers(stats_socket: str) -> bool:
    """True when the runtime socket says anything in time."""
    try:
        return bool(haproxy_cli.ask(stats_socket, "show info", ANSWER_TIMEOUT).strip())
    except HaproxySilent:
        return False


def accepts(binds: Iterable[Bind]) -> bool:
    """True when any of these addresses takes a connection out of the kernel's queue; False when there is none."""
    for bind in binds:
        deadline = time.monotonic() + ACCEPT_TIMEOUT
        if bind.unchecked or not _knock(bind):
            continue
        while True:
            if waiting(bind) == 0:
                return True
            if time.monotonic() > deadline:
                break
            select.select([], [], [], GLANCE)
        return False  # one that is not accepted is enough: the next ones would only take time
    return False


def waiting(bind: Bind) -> int | None:
    """Connections that the kernel has established for this listening address and nobody has accepted; None when nothing
    listens there, or this kernel does not tell."""
    found: int | None = None
    name = f"{_hexadecimal(bind.address)}:{bind.port:04X}"
    with contextlib.suppress(OSError), open("/proc/net/tcp6" if ":" in bind.address else "/proc/net/tcp") as table:
        next(table)
        for line in table:
            words = line.split()
            if words[3] != LISTENING:
                break  # listening sockets stand first
            if words[1] == name:
                found = (found or 0) + int(words[4].partition(":")[2], 16)
    return found


def _knock(bind: Bind) -> bool:
    """Connect and go away; True when the kernel took the connection."""
    address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(bind.address, bind.address)
    try:
        with socket.create_connection((address, bind.port), ACCEPT_TIMEOUT):
            return True
    except OSError:
        return False


def _hexadecimal(address: str) -> str:
    """As /proc/net/tcp has it: words of four bytes, each in the machine's order."""
    packed = socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
    words = (packed[at : at + 4] for at in range(0, len(packed), 4))
    return "".join((word[::-1] if sys.byteorder == "little" else word).hex().upper() for word in words)
