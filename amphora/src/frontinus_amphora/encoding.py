"""Heartbeats as bytes, and haproxy's statistics as facts. Pure: no clock, no socket, no file.

Two formats are known: Octavia's (contract heartbeat.yaml) and our envelope (docs/reference/agent-extension.md), which
goes over several datagrams when one does not hold it.
It never invents a status word. Next: statistics.py, which reads what is parsed here; heartbeat.py, which sends.
"""

import csv
import hashlib
import hmac
import json
import struct
import zlib
from collections.abc import Collection, Container, Iterator, Mapping
from typing import NamedTuple

from frontinus_amphora.settings import UUID

MAGIC = b"FRH1"
PART_MAGIC = b"FRH2"
LARGEST_DATAGRAM = 32_768  # of ours; UDP has room for 65,507 over IPv4
MOST_PARTS = 256  # what a receiver joins; some 400,000 members
PLAIN_VERSION = 3  # increments
ENVELOPE_VERSION = 2  # absolute
CHECK_COLUMNS = ("check_status", "check_code", "check_desc", "last_chk")
LONGEST_CHECK_TEXT = 255
COUNTER_COLUMNS = ("bout", "bin", "stot", "ereq")  # haproxy's names, in the order of Counters


class Counters(NamedTuple):
    """What a listener has done; each only grows."""

    tx: int = 0
    rx: int = 0
    totconns: int = 0
    ereq: int = 0

    def plus(self, other: "Counters") -> "Counters":
        return Counters(self.tx + other.tx, self.rx + other.rx, self.totconns + other.totconns, self.ereq + other.ereq)

    def since(self, before: "Counters") -> "Counters":
        """The increments; a counter that went back was reset, so its value is its increment."""
        return Counters(*(new - old if new >= old else new for new, old in zip(self, before, strict=True)))

    def at_least(self, other: "Counters") -> "Counters":
        return Counters(*(max(pair) for pair in zip(self, other, strict=True)))


class ListenerRow(NamedTuple):
    """A frontend as haproxy reports it."""

    status: str  # OPEN | FULL
    conns: int
    counters: Counters


class CheckRow(NamedTuple):
    """Why a member is down: what its last check found."""

    status: str  # haproxy's word, as L4CON, L7STS, PROCERR
    code: int | None  # of the answer, or of the program
    text: str


class PoolRow(NamedTuple):
    """A backend as haproxy reports it; `members` by id, `checks` of those that are down."""

    status: str  # UP | DOWN
    members: dict[str, str]
    checks: dict[str, CheckRow] = {}  # noqa: RUF012 - never changed


class Statistics(NamedTuple):
    """One reading of `show stat`."""

    listeners: dict[str, ListenerRow]
    pools: dict[str, PoolRow]

    def statuses(self) -> dict[str, object]:
        """The part whose change is worth an extra heartbeat."""
        return {**{name: row.status for name, row in self.listeners.items()}, **self.pools}


def parse_statistics(text: str, removing: Container[str] = ()) -> Statistics:
    """Understand `show stat` in CSV.

    Frontends are listeners when named by a UUID, backends are pools when named `<pool>:<listener>`; all else
    (prometheus, helpers of the configuration) is nobody's. Servers in `removing` (`backend/server`) are left out.
    """
    listeners: dict[str, ListenerRow] = {}
    statuses: dict[str, str] = {}
    members: dict[str, dict[str, str]] = {}
    checks: dict[str, dict[str, CheckRow]] = {}
    # Not splitlines: a member says a part of its row, and what that takes for the end of a line haproxy does not.
    rows = csv.reader(text.strip().split("\n"))
    columns = {name.removeprefix("# "): index for index, name in enumerate(next(rows, []))}
    if not columns.keys() >= {"pxname", "svname", "status", "weight", *COUNTER_COLUMNS}:
        return Statistics({}, {})
    for row in rows:
        if len(row) < len(columns):
            continue
        proxy, name, status = (row[columns[key]] for key in ("pxname", "svname", "status"))
        if "prometheus" in proxy:
            continue
        if name == "FRONTEND":
            if UUID.fullmatch(proxy) and status in ("OPEN", "FULL"):
                counted = Counters(*(_number(row[columns[key]]) for key in COUNTER_COLUMNS))
                connections = _number(row[columns["scur"]])
                limit = _number(row[columns["slim"]]) if "slim" in columns else 0
                # haproxy itself goes on saying OPEN at the limit (2.6.12), where the contract wants FULL.
                is_full = status == "FULL" or 0 < limit <= connections
                listeners[proxy] = ListenerRow("FULL" if is_full else "OPEN", connections, counted)
        elif all(map(UUID.fullmatch, proxy.split(":"))):
            if name == "BACKEND":
                statuses[proxy] = "UP" if status.startswith("UP") else "DOWN"
            elif f"{proxy}/{name}" not in removing:
                members.setdefault(proxy, {})[name] = member_status(status, _number(row[columns["weight"]]))
                if status.startswith("DOWN") and "check_status" in columns:
                    found = last_check({key: row[columns[key]] for key in CHECK_COLUMNS if key in columns})
                    if found is not None:
                        checks.setdefault(proxy, {})[name] = found
    pools = {
        proxy: PoolRow(status, members.get(proxy, {}), checks.get(proxy, {})) for proxy, status in statuses.items()
    }
    return Statistics(listeners, pools)


def last_check(columns: Mapping[str, str]) -> CheckRow | None:
    """What haproxy's columns say of a server's last check; None before the first. How long it took is left out: it is
    another number each time, and says nothing of why."""
    status = columns["check_status"].removeprefix("* ")  # a check is under way; what is shown is the one before
    if not status or status in ("UNK", "INI", "SOCKERR"):
        return None
    said = columns.get("check_code", "")
    code = int(said) if said.isdecimal() else 0
    parts = [columns.get("check_desc", ""), columns.get("last_chk", "").strip()]
    text = ": ".join(part for part in parts if part)
    # Of an external check that ended without an exit status haproxy shows -1, as it looks in 32 bits.
    return CheckRow(status, code if 0 < code < 2**31 else None, text[:LONGEST_CHECK_TEXT])


def member_status(status: str, weight: int) -> str:
    """The contract's word for what haproxy says of a server: UP, UP n/m, DOWN, DOWN n/m, DRAIN, MAINT, no check."""
    first = status.split(" ", 1)[0]
    if first == "UP":
        return "DRAIN" if weight == 0 else status
    if first in ("DRAIN", "NOLB"):
        return "DRAIN"
    if first == "MAINT" or first.startswith("MAINT("):
        return "MAINT"
    if first == "DOWN":
        return "DOWN" if "agent" in status else status
    return status


def message(
    amphora_id: str,
    sequence: int,
    listeners: Mapping[str, tuple[str, int, Counters, int]],
    pools: Mapping[str, PoolRow],
    version: int,
    incomplete: Collection[str] = (),
    active: bool | None = None,
    *,
    empty: bool = False,
) -> dict[str, object]:
    """The JSON message of both formats; a listener is (status, current connections, counters, since when they count).
    `incomplete` are load balancers of which not all is here, `active` says whether a virtual address that moves is, `empty`
    that there is no load balancer at all.

    `since` stands in it where it is known, which is never so in Octavia's format; nor has that `checks`, `incomplete`, `active`
    or `empty`."""
    return {
        **({"empty": True} if empty and version != PLAIN_VERSION else {}),
        **({"incomplete": sorted(incomplete)} if incomplete and version != PLAIN_VERSION else {}),
        **({"active": active} if active is not None and version != PLAIN_VERSION else {}),
        "id": amphora_id,
        "seq": sequence,
        "listeners": {
            listener_id: {
                "status": status,
                "stats": {
                    "tx": counted.tx,
                    "rx": counted.rx,
                    "conns": conns,
                    "totconns": counted.totconns,
                    "ereq": counted.ereq,
                    **({"since": since} if since else {}),
                },
            }
            for listener_id, (status, conns, counted, since) in listeners.items()
        },
        "pools": {name: _pool(row, with_checks=version != PLAIN_VERSION) for name, row in pools.items()},
        "ver": version,
    }


def _pool(row: PoolRow, *, with_checks: bool) -> dict[str, object]:
    shown: dict[str, object] = {"status": row.status, "members": row.members}
    if with_checks and row.checks:
        shown["checks"] = {name: check._asdict() for name, check in row.checks.items()}
    return shown


def encode_plain(content: Mapping[str, object], key: str) -> bytes:
    """Octavia's datagram: zlib of the JSON, then the HMAC in hexadecimal."""
    payload = zlib.compress(json.dumps(content).encode(), 9)
    return payload + hmac.new(key.encode(), payload, hashlib.sha256).hexdigest().encode()


def encode_envelope(content: Mapping[str, object], key: str, amphora_id: str, boot: int, sequence: int) -> bytes:
    """Our datagram: a header that tells whose key and which turn, zlib of the JSON, the raw HMAC over all of it."""
    return _seal(MAGIC + _turn(amphora_id, boot, sequence), content, key)


def encode_envelopes(content: Mapping[str, object], key: str, amphora_id: str, boot: int, sequence: int) -> list[bytes]:
    """The envelope as one datagram; or, when it is larger than LARGEST_DATAGRAM, as parts that are whole messages
    themselves: each is verified by itself, and together they say what the one would have said.

    Raises ValueError when MOST_PARTS would not hold it."""
    whole = encode_envelope(content, key, amphora_id, boot, sequence)
    if len(whole) <= LARGEST_DATAGRAM:
        return [whole]
    count = len(whole) // LARGEST_DATAGRAM + 1
    while count <= MOST_PARTS:
        packets = [
            _seal(PART_MAGIC + _turn(amphora_id, boot, sequence) + struct.pack(">HH", number, count), part, key)
            for number, part in enumerate(_parts(content, count))
        ]
        if max(map(len, packets)) <= LARGEST_DATAGRAM:
            return packets
        count += 1 + count // 4  # a part costs a few bytes, and rows are not all of one size
    raise ValueError("the message is too large for any number of datagrams")


def _seal(header: bytes, content: Mapping[str, object], key: str) -> bytes:
    packet = header + zlib.compress(json.dumps(content, separators=(",", ":")).encode(), 9)
    return packet + hmac.digest(key.encode(), packet, "sha256")


def _turn(amphora_id: str, boot: int, sequence: int) -> bytes:
    return bytes.fromhex(amphora_id.replace("-", "")) + struct.pack(">QQ", boot, sequence)


def _parts(content: Mapping[str, object], count: int) -> Iterator[dict[str, object]]:
    """The message in `count` messages with about as many listeners and members each. A pool may show in several, each
    time with other members."""
    listeners: Mapping[str, object] = content["listeners"]  # type: ignore[assignment]  # as `message` made it
    pools: Mapping[str, Mapping[str, Mapping[str, str]]] = content["pools"]  # type: ignore[assignment]
    rows: list[tuple[str, str | None]] = [(name, None) for name in listeners]
    for name, pool in pools.items():
        rows.extend((name, member) for member in pool["members"] or (None,))
    for number in range(count):
        part: dict[str, object] = {**content, "listeners": {}, "pools": {}}
        for name, member in rows[len(rows) * number // count : len(rows) * (number + 1) // count]:
            if name in listeners:
                part["listeners"][name] = listeners[name]  # type: ignore[index]
                continue
            shown = part["pools"].setdefault(name, {"status": pools[name]["status"], "members": {}})  # type: ignore[attr-defined]
            if member is not None:
                shown["members"][member] = pools[name]["members"][member]
                if member in pools[name].get("checks", ()):
                    shown.setdefault("checks", {})[member] = pools[name]["checks"][member]
        yield part


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else 0
