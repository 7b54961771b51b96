"""What HAProxy can do in which version: one table of runtime commands, with the change that an amphora of that version can
take, and one of words of its configuration. Pure.

The driver asks the agent which HAProxy it has, and the controller keeps the answer with the amphora. What a version cannot
do by commands it does by a reload, which every version can; what it cannot say in a configuration is said otherwise, or
refused by name (docs/reference/haproxy-versions.md). Next: render.py, driver.py."""

from __future__ import annotations

import re

from msgspec.structs import replace

from frontinus.drivers.amphora.agent.change import Change

Version = tuple[int, int]

FIRST_WITH: dict[str, Version] = {
    # `add server` is there since 2.4, where it knows neither `check` nor `addr` (they came with 2.5), and both are
    # experimental before 2.6 (management guide 9.3 of each version; "add server" in HAProxy's runtime API reference).
    "add server": (2, 6),
    "del server": (2, 6),
    # Certificates since 2.2, authorities and revocation lists since 2.5 (management guide 9.3).
    "new ssl": (2, 6),
    "set ssl": (2, 6),
    "commit ssl": (2, 6),
    "add ssl": (2, 6),
    "del ssl": (2, 6),
    # All patterns of a file at once, since 2.4 (management guide 9.3).
    "prepare map": (2, 4),
    "add map": (2, 4),
    "commit map": (2, 4),
    "prepare acl": (2, 4),
    "add acl": (2, 4),
    "commit acl": (2, 4),
    # Old, and the same in every version that we serve (management guide 9.3).
    "set server": (1, 8),
    "enable health": (1, 8),
    "set maxconn frontend": (1, 8),
}
"""Runtime commands of diff.py, by their first words, and the version since which we use them."""

ADD_HTTP2_SINCE: Version = (3, 0)
"""Since then a server that comes at run time is given more than one request on each connection of HTTP/2: before, HAProxy
took what nobody said of it for `max-reuse 0`, which `add server` does not let us say otherwise, so that each request cost a
connection and a handshake for as long as that HAProxy ran (tried with 2.6, 3.0 and 3.2)."""

PRESUMED: Version = (2, 6)
"""Of an amphora that nobody has asked yet. What first runs there is for this version, and made anew once it was told."""

OLDEST: Version = (2, 4)
"""What we render for; an older one takes the text for this, or refuses it when it is checked."""

WORD_SINCE: dict[str, Version] = {
    # Configuration manual 3.2 of each version.
    "fd-hard-limit": (2, 6),
    "httpclient.ssl.verify": (2, 6),
    # 4.2, balance.
    "balance hash": (2, 6),
    # 5.1; since then a `bind` line with certificates offers HTTP/2 and HTTP/1.1 unless this word is on it.
    "no-alpn": (2, 8),
}
"""Words of the configuration, and the version since which they can be said."""

_ADD_HTTP2 = re.compile(r"add server .* alpn \S*\bh2\b")
_COMMAND = re.compile(r"set maxconn frontend|\S+ \S+")


def parse_version(text: str) -> Version | None:
    """`2.6.12-1+deb12u4` is (2, 6); None for what is no version."""
    match = re.match(r"(\d+)\.(\d+)", text)
    return None if match is None else (int(match[1]), int(match[2]))


def version_of(balancer_version: str | None) -> Version:
    """The version that an amphora with this balancer is rendered for."""
    return parse_version(balancer_version or "") or PRESUMED


def says(version: Version, word: str) -> bool:
    """Whether HAProxy of this version knows the word."""
    return version >= WORD_SINCE[word]


def for_version(change: Change, balancer_version: str) -> Change:
    """The change as an amphora with this HAProxy can take it: with a reload, and without the commands that it does not
    have, if it lacks any. An unknown version can do what the others can: a command that is refused ends in a reload too."""
    version = parse_version(balancer_version)
    if version is None:
        return change
    known = tuple(command for command in change.commands if _since(command) <= version)
    return change if known == change.commands else replace(change, commands=_of_servers_that_stay(known), reload=True)


def _of_servers_that_stay(commands: tuple[str, ...]) -> tuple[str, ...]:
    """Without the arrival and departure of servers, and what was to prepare or follow it: the reload does that."""
    begins, ends = ("add server ", "del server ", "enable health "), (" state maint", " state ready")
    return tuple(x for x in commands if not x.startswith(begins) and not x.endswith(ends))


def _since(command: str) -> Version:
    if _ADD_HTTP2.match(command):
        return ADD_HTTP2_SINCE
    match = _COMMAND.match(command)
    return (0, 0) if match is None else FIRST_WITH.get(match[0], (0, 0))
