"""What changes between two configurations, as commands for HAProxy's runtime API, or the word that it takes a reload.

Pure: two texts in, a Change out; the commands are those of HAProxy's management guide 9.3, and each one is tried on a
real HAProxy in tests/integration/drivers. Next: driver.py sends it."""

from __future__ import annotations

from itertools import pairwise

import msgspec
from msgspec.structs import replace

from frontinus.drivers.amphora.agent.change import Change
from frontinus.drivers.amphora.agent.files import NOT_HAPROXYS, Live, marks
from frontinus.drivers.amphora.haproxy.file_changes import file_commands
from frontinus.drivers.amphora.haproxy.monitors import EXTERNAL_CHECK
from frontinus.drivers.amphora.haproxy.patterns import pattern_commands
from frontinus.drivers.amphora.haproxy.server import Check, Server, bracket, read_server
from frontinus.drivers.amphora.haproxy.text import Configuration, Section, Unreadable, read
from frontinus.drivers.amphora.interface import Rendered

MOST_COMMANDS = 1000
"""Above this a reload costs less: a command takes about a millisecond under load, a reload a tenth of a second. The agent
refuses more than ten thousand."""


POOLED = ("pool-max-conn", "-1", "pool-purge-delay", "5s")
"""How many connections to a server are kept for requests to come, and how long (configuration manual 5.2). These are HAProxy's
defaults, but before 3.0 a server that comes at run time got zeros: each request to it cost a new connection."""

FILE_WORDS = frozenset({"crt", "crt-list", "ca-file", "crl-file"})
"""What is followed by a file in `bind` and `server` lines."""


def diff(old: Live, new: Rendered) -> Change:
    """The smallest change from what runs to what shall run."""
    change = diff_texts(old.text, new.text)
    # What is nginx's or keepalived's is followed by them alone.
    of_haproxy = [frozenset(x for x in files if x.name not in NOT_HAPROXYS) for files in (old.files, marks(new.files))]
    if of_haproxy[0] == of_haproxy[1] or change.reload:
        return change
    index = _index(read(old.text))
    commands = file_commands(old, new, _files_in(index))
    lines = (words for contents in index.values() for words in contents.others)
    patterns = pattern_commands(lines, old.files, marks(new.files), {x.name: x.content for x in new.files})
    if commands is None or patterns is None:
        return replace(change, reload=True)
    every = (*commands.first, *change.commands, *patterns, *commands.last)
    return replace(change, reload=True) if len(every) > MOST_COMMANDS else Change(every, reload=False)


def diff_texts(old: str, new: str) -> Change:
    """The smallest change from the configuration that runs to another one.

    Members that come, go, or change weight, state or check address, and another connection limit, need no reload.
    Anything else does, and so does a text that this driver did not write."""
    try:
        before, after = _index(read(old)), _index(read(new))
    except Unreadable:
        return Change((), reload=True)
    structural = before.keys() != after.keys()
    loaded = _files_in(before)
    arriving: list[str] = []
    staying: list[str] = []
    leaving: list[str] = []
    for key in sorted(before.keys() & after.keys()):
        if before[key].others != after[key].others:
            limit = _limit(key, before[key].others, after[key].others)
            structural |= limit is None
            staying += limit or []
        old_servers, new_servers = before[key].servers, after[key].servers
        backend = key[1]
        for name in sorted(old_servers.keys() | new_servers.keys()):
            old_words, new_words = old_servers.get(name), new_servers.get(name)
            if old_words == new_words:
                continue
            old_server = None if old_words is None else read_server(old_words)
            new_server = None if new_words is None else read_server(new_words)
            if new_words is None:
                leaving += _remove(backend, name)
            elif new_server is None:
                structural = True  # not a line of ours to understand
            elif old_words is None and not _files_of(new_words) <= loaded:
                structural = True  # `add server` takes only files that HAProxy has read already
            elif old_words is None and new_server.check is not None and EXTERNAL_CHECK in after[key].others:
                structural = True  # of those HAProxy examines only whom it has known from its start
            elif old_words is None:
                arriving += _add(backend, new_server)
            elif old_server is None or (commands := _alter(backend, old_server, new_server)) is None:
                structural = True
            else:
                staying += commands
    if len(arriving) + len(staying) + len(leaving) > MOST_COMMANDS:
        return Change((), reload=True)  # the agent keeps no weights or states over a reload: the text has them
    if structural:
        return Change(tuple(staying), reload=True)
    # New members first and old ones last: a pool whose members are all replaced is never without one.
    return Change((*arriving, *staying, *leaving), reload=False)


class _Contents(msgspec.Struct, frozen=True):
    """A section taken apart: its `server` lines by name, and the other lines in order."""

    others: tuple[tuple[str, ...], ...]
    servers: dict[str, tuple[str, ...]]


def _index(configuration: Configuration) -> dict[tuple[str, str], _Contents]:
    index: dict[tuple[str, str], _Contents] = {}
    for section in configuration:
        key = (section.kind, section.name)
        if key in index:
            raise Unreadable(f"two sections {section.kind} {section.name}")
        index[key] = _take_apart(section)
    return index


def _take_apart(section: Section) -> _Contents:
    others: list[tuple[str, ...]] = []
    servers: dict[str, tuple[str, ...]] = {}
    for words in section.lines:
        if words[0] != "server" or len(words) < 2:
            others.append(words)
        elif words[1] in servers:
            raise Unreadable(f"two servers {words[1]} in {section.name}")
        else:
            servers[words[1]] = words
    return _Contents(tuple(others), servers)


def _limit(
    key: tuple[str, str], old: tuple[tuple[str, ...], ...], new: tuple[tuple[str, ...], ...]
) -> list[str] | None:
    """The command for a frontend of which nothing differs but its `maxconn`; None when there is more to it.

    A limit that is lifted takes a reload: what HAProxy itself would allow then, it has worked out at its start."""
    kind, name = key
    limits = [words for words in new if words[0] == "maxconn"]
    if kind != "frontend" or len(limits) != 1:
        return None
    if [words for words in old if words[0] != "maxconn"] != [words for words in new if words[0] != "maxconn"]:
        return None
    return [f"set maxconn frontend {name} {limits[0][1]}"]


def _files_of(words: tuple[str, ...]) -> frozenset[tuple[str, str]]:
    """The files that a line names, and as what: HAProxy keeps each kind by itself."""
    return frozenset(pair for pair in pairwise(words) if pair[0] in FILE_WORDS)


def _files_in(index: dict[tuple[str, str], _Contents]) -> frozenset[tuple[str, str]]:
    lines = (words for contents in index.values() for words in (*contents.others, *contents.servers.values()))
    return frozenset().union(*(_files_of(words) for words in lines if words[0] in ("bind", "server")))


def _add(backend: str, server: Server) -> list[str]:
    """A new server is in maintenance with its checks off. It joins as HAProxy's own start would have it: up, and down
    at the first check that fails; a request that it refuses meanwhile is sent to another (option redispatch)."""
    name = f"{backend}/{server.name}"
    commands = [f"add server {name} {' '.join((*server.arguments(), *POOLED))}"]
    if server.check is not None:
        commands.append(f"enable health {name}")
    if not server.disabled:
        commands.append(f"set server {name} state ready")
    return commands


def _remove(backend: str, server_name: str) -> list[str]:
    name = f"{backend}/{server_name}"
    return [f"set server {name} state maint", f"del server {name}"]


def _alter(backend: str, old: Server, new: Server) -> list[str] | None:
    """Commands that make `old` `new`; None when HAProxy cannot do it while it runs."""
    name = f"{backend}/{new.name}"
    movable = replace(old, weight=new.weight, disabled=new.disabled, check=_with_target(old.check, new.check))
    if movable != new:
        return None
    commands: list[str] = []
    if old.check != new.check:
        if new.proxy_protocol:
            # Whether checks speak the PROXY protocol depends on where they go, and is decided when the server is made.
            return None
        address, port = _check_target(new)
        commands.append(f"set server {name} check-addr {bracket(address)} port {port}")
    if old.weight != new.weight:
        commands.append(f"set server {name} weight {new.weight}")
    if old.disabled != new.disabled:
        commands.append(f"set server {name} state {'maint' if new.disabled else 'ready'}")
    return commands


def _with_target(check: Check | None, target: Check | None) -> Check | None:
    if check is None or target is None:
        return check
    return replace(check, address=target.address, port=target.port)


def _check_target(server: Server) -> tuple[str, int]:
    check = server.check
    address = check.address if check is not None else None
    port = check.port if check is not None else None
    return address or server.address, port or server.port
