"""LVS of one load balancer: the kernel (ip_vs) balances, and a keepalived tells it what.

What runs is said as to an nginx for datagrams, by a text and its outline: files `lvs.conf` (keepalived's virtual_server
blocks) and `lvs.json` of a change (agent-extension.md). The agent examines members as it does for nginx, and leaves the
blocks of those out that shall get nothing; a reload is free for everybody else, since sessions are the kernel's. They
outlive the agent, and keepalived. Members see the amphora as the source, so that answers come back by it: lvs_machine.py.
"""

import ipaddress
import os
import re
import threading
from collections.abc import Iterable
from typing import NamedTuple

from frontinus_amphora import binds, facts, files, lvs_machine, processes
from frontinus_amphora.encoding import Counters, ListenerRow, PoolRow
from frontinus_amphora.errors import Invalid, Unsupported
from frontinus_amphora.keepalived_service import LVS, KeepalivedProgram, KeepalivedService
from frontinus_amphora.nginx import CHECK_TIMEOUT, Nginx, Pushed
from frontinus_amphora.outline import Outline, pool_rows, resting

NAME = "lvs"
TABLE = "/proc/net/ip_vs"  # there when the kernel has it

MEMBER = re.compile(r"^ *real_server [^\n]*# ([^\s/]+/\S+)\n(?: {8}[^\n]*\n)* {4}\}\n", re.MULTILINE)
VIRTUAL = re.compile(r"^virtual_server (\S+) (\d+) \{ # (\S+)\n +protocol (\w+)$", re.MULTILINE)
SERVICE = re.compile(r"^(TCP|UDP|SCTP)\s+(\S+):(\d+)\s+(\d+)\s+\d+\s+\d+\s+(\d+)\s+(\d+)\s*$", re.MULTILINE)


Service = tuple[str, str, int]
"""Protocol, address and port."""


class Counted(NamedTuple):
    """What the kernel counted for one address of a listener since it knows it."""

    connections: int
    bytes_in: int
    bytes_out: int


class LvsService(KeepalivedService):
    """keepalived as the one who tells ip_vs. Also what nginx.Nginx asks of a service."""

    def tend(self) -> float | None:
        return None

    def retire(self) -> None:
        self.stop()

    def spots(self) -> frozenset[tuple[str, int]]:
        return frozenset()


class Lvs(Nginx):
    """As nginx.Nginx: guarded by its load balancer's lock, except for what is marked *any thread* there."""

    def __init__(self, *arguments: object, keepalived: KeepalivedProgram, **named: object) -> None:
        self._keepalived = keepalived
        self._counting = threading.Lock()  # guards the next
        self._counted: dict[Service, Counted] | None = {}  # None: what the kernel has is not all ours
        super().__init__(*arguments, **named)  # type: ignore[arg-type]

    def check(self, pushed: Pushed, trial: str | None = None) -> None:
        if not is_there(self._keepalived):
            raise Unsupported("this configuration", "LVS (ip_vs in the kernel, keepalived, ipvsadm, nftables)")
        files.make_directory(self.directory)
        scratch = f"{self._own}.trial"
        files.write_atomically(scratch, pushed.text.encode())
        argv = (self._keepalived.command, "-t", "-l", "-C", "-p", f"{scratch}.pid", "-f", scratch)
        code, output = processes.run(argv, CHECK_TIMEOUT)
        files.remove(scratch)
        if code != 0:
            raise Invalid("Invalid request", output.replace(scratch, f"{NAME}.conf"))

    def refused_binds(self, outline: Outline, beside: Outline | None = None) -> list[binds.RefusedBind]:
        """None: the kernel takes what comes for these places before any socket does."""
        return []

    def take_counted(self) -> dict[str, Counters]:
        """What was counted since this was last asked, by listener. The kernel adds up every two seconds, and tells no
        sooner. *Any thread.*"""
        places = self._places()
        if not places:
            return {}
        code, output = processes.run(("ipvsadm", "-Ln", "--stats", "--exact"), 5.0)
        added: dict[str, Counters] = {}
        if code != 0:
            return added
        with self._counting:
            seen, known = parse_services(output), self._counted
            self._counted = seen
            for place, now in seen.items():
                name = places.get(place)
                if name is None or known is None:
                    continue
                before = known.get(place, Counted(0, 0, 0))
                if now.connections < before.connections or now.bytes_in < before.bytes_in:
                    before = Counted(0, 0, 0)  # keepalived was started anew, and the kernel counts from nothing
                more = Counters(
                    now.bytes_out - before.bytes_out,
                    now.bytes_in - before.bytes_in,
                    now.connections - before.connections,
                )
                added[name] = added.get(name, Counters()).plus(more)
        return added

    def resume(self, pushed: Pushed | None) -> None:
        super().resume(pushed)
        if self.is_running():
            self._counted = None  # an agent before us has counted what is there

    def rows(self) -> tuple[dict[str, ListenerRow], dict[str, PoolRow]]:
        outline = self.running()
        listeners = dict.fromkeys(outline.listeners, 0)
        sessions = active_sessions((files.read(TABLE) or b"").decode("ascii", "replace")) if listeners else {}
        for place, name in self._places().items():
            # Of an address that is elsewhere there are copies of what the other one of a pair carries.
            if facts.holds(place[1]):
                listeners[name] = listeners.get(name, 0) + sessions.get(place, 0)
        rows = {name: ListenerRow("OPEN", count, Counters()) for name, count in listeners.items()}
        return rows, pool_rows(outline, self._checks.healths())

    def _places(self) -> dict[Service, str]:
        """What runs now, as the kernel knows it, with the listener that it is of. *Any thread.*"""
        pushed = self._pushed
        if pushed is None or not self.is_running():
            return {}
        return {
            (protocol, str(ipaddress.ip_address(address)), int(port)): name
            for address, port, name, protocol in VIRTUAL.findall(pushed.text)
        }

    def _run(self, text: str) -> None:
        lvs_machine.prepare(text)
        super()._run(text)

    def _effective(self, pushed: Pushed) -> str:
        draining = {
            f"{pool}/{name}"
            for pool, members in pushed.outline.pools.items()
            for name, member in members.items()
            if member.said == "DRAIN"
        }  # they have weight 0: no new session, and the old ones go on
        return without(pushed.text, resting(pushed.outline, self._checks.healths()) - draining)

    def _make_service(self, timeout: float, old_workers_mib: float) -> LvsService:  # type: ignore[override]
        directory = f"{self.directory}/{NAME}"
        files.make_directory(directory)
        return LvsService(self._keepalived.command, self.config, directory, timeout, LVS)


def is_there(keepalived: KeepalivedProgram) -> bool:
    """Whether this amphora can do LVS."""
    return bool(keepalived.version()) and os.path.exists(TABLE) and os.path.exists("/usr/sbin/ipvsadm")


def without(text: str, names: Iterable[str]) -> str:
    """The text less the blocks of these members (`real_server ... { # pool/member`)."""
    left_out = frozenset(names)
    return MEMBER.sub(lambda block: "" if block[1] in left_out else block[0], text)


def parse_services(text: str) -> dict[Service, Counted]:
    """What `ipvsadm -Ln --stats --exact` tells, by protocol, address and port."""
    return {
        (protocol, address.strip("[]"), int(port)): Counted(int(connections), int(came), int(went))
        for protocol, address, port, connections, came, went in SERVICE.findall(text)
    }


def active_sessions(table: str) -> dict[Service, int]:
    """Sessions of each service by /proc/net/ip_vs; those of datagrams it calls inactive."""
    found: dict[Service, int] = {}
    place: Service | None = None
    for line in table.splitlines():
        words = line.split()
        if words[:1] in (["TCP"], ["UDP"], ["SCTP"]) and len(words) > 1:
            address, _, port = words[1].rpartition(":")
            if address.startswith("["):
                held = str(ipaddress.ip_address(address.strip("[]")))
            else:
                held = str(ipaddress.ip_address(bytes.fromhex(address)))
            place = (words[0], held, int(port, 16))
        elif words[:1] == ["->"] and place is not None and len(words) == 6 and words[4].isdecimal():
            found[place] = found.get(place, 0) + int(words[4]) + int(words[5])
    return found
