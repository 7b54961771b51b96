"""What HAProxy can do at run time in which version: one table, and the change that an amphora of that version can take. Pure.

The driver asks the agent which HAProxy it has; nothing is assumed of an amphora. What a version cannot do by commands it
does by a reload, which every version can. Texts are another matter: they are for 2.6 and later, and an older HAProxy that
lacks a word refuses the text when it is checked, before anything is touched. Next: driver.py."""

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

_COMMAND = re.compile(r"set maxconn frontend|\S+ \S+")


def parse_version(text: str) -> Version | None:
    """`2.6.12-1+deb12u4` is (2, 6); None for what is no version."""
    match = re.match(r"(\d+)\.(\d+)", text)
    return None if match is None else (int(match[1]), int(match[2]))


def for_version(change: Change, balancer_version: str) -> Change:
    """The change as an amphora with this HAProxy can take it: with a reload, and without the commands that it does not
    have, if it lacks any. An unknown version can do what the others can: a command that is refused ends in a reload too."""
    version = parse_version(balancer_version)
    if version is None:
        return change
    known = tuple(command for command in change.commands if _since(command) <= version)
    return change if known == change.commands else replace(change, commands=_of_servers_that_stay(known), reload=True)


def _of_servers_that_stay(commands: tuple[str, ...]) -> tuple[str, ...]:
    """Without what was to prepare or follow the arrival or departure of a server: the reload does that."""
    return tuple(x for x in commands if not x.endswith((" state maint", " state ready")) and "enable health" not in x)


def _since(command: str) -> Version:
    match = _COMMAND.match(command)
    return (0, 0) if match is None else FIRST_WITH.get(match[0], (0, 0))
