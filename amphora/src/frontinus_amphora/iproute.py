"""What the kernel has of links, addresses, routes and rules, and changes to it, through `ip` (iproute2).

Words go to `ip` as a list or, many at once, as lines of its batch mode; every word of a line is checked, so that no line
can become two. Blocks for some milliseconds. Linux only. Next: interfaces.py.
"""

import json
import re
import subprocess
from collections.abc import Sequence
from typing import Any, NamedTuple

from frontinus_amphora.errors import ServiceFailed

PROTOCOL = 240
"""Marks the routes and rules that are ours (rtnetlink's rtm_protocol): what else there is is left alone."""

_WORD = re.compile(r"[A-Za-z0-9_.:/@-]+")
_TIMEOUT_S = 10


class Link(NamedTuple):
    name: str
    mac: str
    mtu: int
    is_up: bool


def links() -> list[Link]:
    """Every link but the loopback one."""
    return [
        Link(row["ifname"], row.get("address", ""), int(row.get("mtu", 0)), "UP" in row.get("flags", ()))
        for row in _ask("link", "show")
        if row.get("link_type") == "ether"
    ]


def addresses(name: str) -> set[str]:
    """The addresses of a link as `address/prefix`, but for link-local ones."""
    return {
        f"{each['local']}/{each['prefixlen']}"
        for row in _ask("address", "show", "dev", name)
        for each in row.get("addr_info", ())
        if each.get("scope") != "link" and "local" in each
    }


def our_routes(family: int, name: str) -> set[tuple[str, str]]:
    """(table, destination) of the routes by a link that carry our mark."""
    rows = _ask(f"-{family}", "route", "show", "table", "all", "dev", name, "protocol", str(PROTOCOL))
    return {(str(row.get("table", "main")), row["dst"]) for row in rows}


def our_rules(family: int) -> set[tuple[str, str]]:
    """(source address, table) of the rules that carry our mark."""
    rows = _ask(f"-{family}", "rule", "show")
    return {(row["src"], str(row["table"])) for row in rows if str(row.get("protocol")) == str(PROTOCOL)}


def change(commands: Sequence[Sequence[str]], family: int = 4) -> None:
    """Carry out commands, in order, until one fails; `family` is whose routes and rules are meant. Raises ServiceFailed
    with what `ip` says."""
    for words in commands:
        for word in words:
            if not _WORD.fullmatch(word):
                raise ServiceFailed("malformed word", repr(word))
    if commands:
        _run((f"-{family}", "-batch", "-"), "".join(" ".join(words) + "\n" for words in commands))


def _ask(*words: str) -> list[dict[str, Any]]:
    text = _run(("-json", *words), "")
    found = json.loads(text) if text.strip() else []
    return [row for row in found if row]


def _run(words: Sequence[str], lines: str) -> str:
    try:
        done = subprocess.run(
            ("ip", *words), input=lines, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ServiceFailed("ip cannot be run", f"{error}; is iproute2 installed?") from error
    if done.returncode != 0:
        raise ServiceFailed("the kernel refused", (done.stderr.strip() or done.stdout.strip())[:1000])
    return done.stdout
