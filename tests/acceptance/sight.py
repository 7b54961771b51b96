"""When a change is in effect in the data plane, by HAProxy's own word: what its runtime socket says of itself.

Not the agent's log and not a file: the socket is answered by the worker that serves. Next: hitless.py."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

COMMANDS = "show info;show servers state;show stat -1 1 -1;show map;show acl"
IN_MAINTENANCE = 0x01 | 0x02 | 0x04 | 0x20 | 0x40  # srv_admin_state, management guide 9.3
OF_SERVERS = ("be_name", "srv_name", "srv_addr", "srv_port", "srv_admin_state", "srv_uweight")


@dataclass(frozen=True)
class Seen:
    """What must change before a client can notice a change."""

    pid: str  # of the worker: another one has read another file
    servers: frozenset[tuple[str, ...]]  # those that may get traffic
    limits: frozenset[tuple[str, str]]  # connections that each frontend takes
    patterns: frozenset[str]  # maps and ACLs, with the version of their content
    datagrams: frozenset[tuple[str, str]]  # where nginx receives them, and by which socket
    certificates: tuple[bytes, ...] = ()


class Sight:
    """Looks at one load balancer's HAProxy. Use as a context."""

    def __init__(self, amphora: Path, load_balancer_id: str, vip: str) -> None:
        self._amphora = amphora
        self._name = f"{load_balancer_id}.sock"
        self._vip = vip

    def __enter__(self) -> Self:
        self._directory = os.open(self._amphora, os.O_PATH)  # the whole path is longer than a socket's may be
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._directory)

    def look(
        self, certificates_of: tuple[int, tuple[str, ...]] | None = None, *, datagrams: bool = False
    ) -> Seen | None:
        """What is so now; None while one worker takes the socket over from another. `certificates_of` is a port and the
        names that are asked for there. Sockets of `datagrams` are looked at only for who waits for them: there are thousands
        while clients ask, one for each session, and reading them takes longer than a change."""
        try:
            info, servers, frontends, maps, acls = self._ask(COMMANDS).split("\n\n")[:5]
            shown = (
                ()
                if certificates_of is None
                else tuple(self._certificate(certificates_of[0], x) for x in certificates_of[1])
            )
        except (OSError, ValueError):
            return None
        return Seen(
            pid=next(line for line in info.splitlines() if line.startswith("Pid: ")),
            servers=_servers(servers),
            limits=frozenset((row["# pxname"], row["slim"]) for row in _table(frontends, ",")),
            patterns=frozenset([*maps.splitlines(), *acls.splitlines()]),
            datagrams=frozenset(_datagram_sockets(self._vip) if datagrams else ()),
            certificates=shown,
        )

    def _ask(self, commands: str) -> str:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(2)
            connection.connect(f"/proc/self/fd/{self._directory}/{self._name}")
            connection.sendall(commands.encode() + b"\n")
            answer = b""
            while part := connection.recv(65536):
                answer += part
        return answer.decode()

    def _certificate(self, port: int, name: str) -> bytes:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with (
            socket.create_connection((self._vip, port), 2) as connection,
            context.wrap_socket(connection, server_hostname=name) as wrapped,
        ):
            return wrapped.getpeercert(binary_form=True) or b""


def _servers(answer: str) -> frozenset[tuple[str, ...]]:
    """Rows of `show servers state`, whose first line is the version of the format."""
    rows = _table(answer.lstrip("1\n").removeprefix("# "), " ")
    return frozenset(
        tuple(row[x] for x in OF_SERVERS) for row in rows if not int(row["srv_admin_state"]) & IN_MAINTENANCE
    )


def _table(answer: str, separator: str) -> list[Mapping[str, str]]:
    head, *lines = [x for x in answer.splitlines() if x.strip()]
    keys = head.split(separator)
    return [dict(zip(keys, line.split(separator), strict=False)) for line in lines]


def _datagram_sockets(address: str) -> set[tuple[str, str]]:
    """Those where something is received: an nginx that finishes has its sockets connected to nobody.

    Read twice: the kernel finds its place in a long table by counting, and passes one over when another before it is closed
    meanwhile."""
    wanted = socket.inet_aton(address)[::-1].hex().upper()
    rows = [line.split() for _ in range(2) for line in Path("/proc/net/udp").read_text().splitlines()[1:]]
    return {(row[1], row[9]) for row in rows if row[1].startswith(f"{wanted}:") and row[2].endswith(":0000")}
