"""What a pushed nginx configuration means to the agent, and what the agent makes of it. Pure: bytes and values.

nginx tells nobody what it serves, so the driver sends an outline beside the text: which listeners and pools there are,
where they listen, what is said of members that are not examined, and how the others are (agent-extension.md). The agent
changes one thing in the text: `down` is added to the `server` lines of members that shall get nothing now.
Next: checks.py, which examines; nginx.py, which joins.
"""

import json
import re
import socket
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from frontinus_amphora.encoding import PoolRow
from frontinus_amphora.errors import Invalid
from frontinus_amphora.haproxy_text import Bind

SERVER_LINE = re.compile(r"^([ \t]*server [^\n]*);( # ([^\s/]+/[^\s/]+))$", re.MULTILINE)
KINDS = ("UDP-CONNECT", "TCP", "HTTP", "SCTP")
LONGEST_REQUEST = 16_384


class Place(NamedTuple):
    """Where a listener of nginx listens."""

    bind: Bind
    datagrams: bool


class Check(NamedTuple):
    """How a member is examined. Times in seconds."""

    kind: str  # of KINDS
    address: str
    port: int
    interval: float
    timeout: float
    rise: int  # successes that bring it up
    fall: int  # failures that bring it down
    request: bytes = b""  # HTTP: complete, as it goes over the wire
    codes: tuple[tuple[int, int], ...] = ()  # HTTP: ranges of status codes that are a success

    @property
    def best(self) -> int:
        """The health that it cannot exceed."""
        return self.rise + self.fall - 1


class Member(NamedTuple):
    said: str  # the status word while it is not examined: no check, DRAIN, MAINT
    backup: bool
    check: Check | None


class Outline(NamedTuple):
    listeners: dict[str, tuple[Place, ...]]
    pools: dict[str, dict[str, Member]]
    workers: int = 1  # of nginx; each has a socket of its own for datagrams
    pool_of: dict[str, str] = {}  # noqa: RUF012 - of listeners for datagrams; never changed

    def binds(self, datagrams: bool) -> list[Bind]:
        """Where listeners listen, for datagrams or for connections."""
        return [place.bind for places in self.listeners.values() for place in places if place.datagrams is datagrams]

    def checks(self) -> dict[str, Check]:
        """Every check, by `pool/member`."""
        return {
            f"{pool}/{name}": member.check
            for pool, members in self.pools.items()
            for name, member in members.items()
            if member.check is not None
        }


NOTHING = Outline({}, {})


def parse_outline(content: bytes) -> Outline:
    """Raises Invalid, naming what is wrong."""
    try:
        value = json.loads(content)
        listeners = {
            str(name): tuple(
                Place(_bind(str(name), str(address), port), bool(row["datagrams"])) for address, port in row["binds"]
            )
            for name, row in value["listeners"].items()
        }
        pools = {
            str(pool): {str(name): _member(row) for name, row in members.items()}
            for pool, members in value["pools"].items()
        }
        workers = max(1, int(value.get("workers", 1)))
        pool_of = {str(name): str(row["pool"]) for name, row in value["listeners"].items() if row.get("pool")}
    except (ValueError, TypeError, KeyError, AttributeError, OSError, RecursionError) as error:
        raise Invalid("malformed outline", f"{type(error).__name__}: {error}"[:300]) from error
    return Outline(listeners, pools, workers, pool_of)


def is_up(health: int, check: Check) -> bool:
    return health >= check.rise


def judged(health: int, check: Check, succeeded: bool) -> int:
    """The health after one more examination. As haproxy counts: what is up and fails less than `fall` times in a row
    recovers with one success, and what is down must succeed `rise` times in a row."""
    if succeeded:
        return check.best if health + 1 >= check.rise else health + 1
    return health - 1 if health > check.rise else 0


def status_of(member: Member, health: int | None) -> str:
    """The contract's word for a member."""
    check = member.check
    if check is None:
        return member.said
    health = check.rise if health is None else health
    if is_up(health, check):
        return "UP" if health >= check.best else f"UP {health - check.rise + 1}/{check.fall}"
    return "DOWN" if health == 0 else f"DOWN {health}/{check.rise}"


def pool_rows(outline: Outline, healths: Mapping[str, int]) -> dict[str, PoolRow]:
    """What a heartbeat says of the pools (contract heartbeat.yaml, lvs_rules): a pool is down when it has members that
    are examined and none serves."""
    rows: dict[str, PoolRow] = {}
    for pool, members in outline.pools.items():
        words = {name: status_of(member, healths.get(f"{pool}/{name}")) for name, member in members.items()}
        examined = any(member.check is not None for member in members.values())
        serves = any(word.startswith("UP") or word == "no check" for word in words.values())
        rows[pool] = PoolRow("DOWN" if examined and not serves else "UP", words)
    return rows


def resting(outline: Outline, healths: Mapping[str, int]) -> frozenset[str]:
    """`pool/member` of everyone who shall get nothing now: the down, and the backups of a pool that does not need them."""
    found: list[str] = []
    for pool, members in outline.pools.items():
        able = {
            name
            for name, member in members.items()
            if status_of(member, healths.get(f"{pool}/{name}")).startswith(("UP", "no check"))
        }
        first = {name for name in able if not members[name].backup}
        serving = first or able
        found += [f"{pool}/{name}" for name in members if name not in serving]
    return frozenset(found)


def mark_down(text: str, names: Iterable[str]) -> str:
    """The text with `down` on the server lines that are named in their comment (`server ...; # pool/member`)."""
    marked = frozenset(names)
    return SERVER_LINE.sub(lambda line: f"{line[1]} down;{line[2]}" if line[3] in marked else line[0], text)


def sessions_of_listeners(text: str, outline: Outline, peers: Mapping[tuple[str, int], int]) -> dict[str, int]:
    """How many sessions each listener for datagrams has, when nginx has so many with each of these members. The
    kernel does not tell which listener a session came by, so members that several of them share are counted for none."""
    pools: dict[tuple[str, int], set[str]] = {}
    for line in SERVER_LINE.finditer(text):
        address, _, port = line[1].split()[1].rpartition(":")
        pools.setdefault((address.strip("[]"), int(port)), set()).add(line[3].partition("/")[0])
    listeners = {
        spot: [name for name, pool in outline.pool_of.items() if pool in of_spot] for spot, of_spot in pools.items()
    }
    counts: dict[str, int] = {}
    for peer, count in peers.items():
        owners = listeners.get(peer, [])
        if len(owners) == 1:
            counts[owners[0]] = counts.get(owners[0], 0) + count
    return counts


def _bind(frontend: str, address: str, port: Any) -> Bind:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    if not isinstance(port, int) or not 0 < port < 65536:
        raise ValueError(f"{port!r} is not a port")
    return Bind(frontend, socket.inet_ntop(family, socket.inet_pton(family, address)), port)


def _member(row: dict[str, Any]) -> Member:
    check = row.get("check")
    return Member(str(row.get("status", "no check")), bool(row.get("backup", False)), check and _check(check))


def _check(row: dict[str, Any]) -> Check:
    made = Check(
        kind=str(row["kind"]),
        address=str(row["address"]),
        port=int(row["port"]),
        interval=max(0.1, float(row["interval"])),
        timeout=max(0.01, float(row["timeout"])),
        rise=max(1, int(row["rise"])),
        fall=max(1, int(row["fall"])),
        request=str(row.get("request", "")).encode("latin-1"),
        codes=tuple((int(low), int(high)) for low, high in row.get("codes", ())),
    )
    if made.kind not in KINDS or len(made.request) > LONGEST_REQUEST:
        raise ValueError(f"a check of kind {made.kind!r} with a request of {len(made.request)} bytes")
    return made
