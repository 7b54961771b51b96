"""Would the kernel let a balancer listen there? Asked before a configuration is swapped in.

A place is tried by binding to it and letting go at once; nothing ever listens here.
"""

import errno
import socket
from collections.abc import Iterable
from typing import NamedTuple

from frontinus_amphora.errors import BindRefused
from frontinus_amphora.haproxy_text import Bind

TELLING = (errno.EADDRINUSE, errno.EACCES, errno.EADDRNOTAVAIL)
WILDCARDS = ("0.0.0.0", "::")


class RefusedBind(NamedTuple):
    bind: Bind
    error: str  # EADDRINUSE | EACCES | EADDRNOTAVAIL


def refused_binds(wanted: Iterable[Bind], held: Iterable[Bind], *, datagrams: bool = False) -> list[RefusedBind]:
    """Those of `wanted` that the kernel refuses; the ones which our own balancer holds are not tried."""
    ours = list(held)
    own_places = {(bind.address, bind.port) for bind in ours}
    refused = []
    for bind in wanted:
        if bind.unchecked or (bind.address, bind.port) in own_places:
            continue
        error = _try(bind, datagrams, beside_own=any(_overlaps(bind, other) for other in ours))
        if error is not None:
            refused.append(RefusedBind(bind, error))
    return refused


def _overlaps(bind: Bind, other: Bind) -> bool:
    """True when our own balancer is in the way: it shares the port with itself, as its sockets do."""
    return bind.port == other.port and (bind.address in WILDCARDS or other.address in WILDCARDS)


def _try(bind: Bind, datagrams: bool, beside_own: bool) -> str | None:
    try:
        with socket.socket(bind.family, socket.SOCK_DGRAM if datagrams else socket.SOCK_STREAM) as trial:
            if not datagrams:  # among datagram sockets it would let two have the same place
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if beside_own:
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if bind.family == socket.AF_INET6:
                trial.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if bind.dual else 1)
            trial.bind((bind.address, bind.port))
    except OSError as error:
        if error.errno in TELLING:
            return errno.errorcode[error.errno]
        if error.errno == errno.EAFNOSUPPORT:
            return "EADDRNOTAVAIL"
    return None


def refuse(refused: list[RefusedBind]) -> None:
    """Raises BindRefused when there are any."""
    if refused:
        raise BindRefused(
            "addresses cannot be bound",
            ", ".join(f"{bind.address}:{bind.port} {error}" for bind, error in refused),
            binds=[
                {"frontend": bind.frontend, "address": bind.address, "port": bind.port, "errno": error}
                for bind, error in refused
            ],
        )
