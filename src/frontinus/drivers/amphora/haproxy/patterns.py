"""What changes often, in files that HAProxy can be given anew while it runs: networks that a listener lets in, the values
of L7 rules, and where L7 policies redirect to. Pure.

A file on disk says what a start would make of it, and the commands make the same of a HAProxy that runs: all patterns of
a file are exchanged in one step, so that nobody meets a half of them. Sources: HAProxy configuration manual 7.1.1 (-f),
7.3.1 (map_ip); management guide 9.3 (prepare, add, commit). Next: l7.py and render.py name the files, diff.py sends."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence

from frontinus.drivers.amphora.agent.files import FileMark

NETWORKS, VALUE, TARGET = "networks-", "value-", "target-"
"""How the names of files begin: what is in them."""

LARGEST_PAYLOAD = 15_000
"""Bytes. HAProxy takes a command of at most one buffer, 16 KiB unless it was built otherwise."""

LONGEST_PATTERN = 2_000
"""Bytes. HAProxy reads lines into a buffer, and would take the rest of a longer one for another pattern."""

PREPARED = "@prepared"
"""Stands for the version that HAProxy gave to the last `prepare` (docs/reference/agent-extension.md)."""

TARGET_KEY = "to"
"""The only key of a target's map."""

_MAP = re.compile(r"\bmap(?:_ip)?\(([^()]*)\)")
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9_./:\x80-\U0010ffff-]")


def networks_content(networks: Iterable[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> bytes:
    """A map whose keys are the networks; in an order that says nothing, so that only another set is another file."""
    ordered = sorted(set(networks), key=lambda x: (x.version, int(x.network_address), x.prefixlen))
    return "".join(f"{network} 1\n" for network in ordered).encode()


def holds(pattern: str) -> bool:
    """Whether HAProxy reads exactly this from a line of a file of patterns.

    It takes a line that begins with # for a comment, forgets spaces in front, ends lines at CR and LF, and passes over
    empty ones: a condition would be lost, or be another one."""
    return (
        bool(pattern)
        and pattern[0] not in "# \t"
        and not any(x in pattern for x in "\r\n\0")
        and len(pattern.encode()) <= LONGEST_PATTERN
    )


def pattern_content(pattern: str) -> bytes:
    return f"{pattern}\n".encode()


def holds_target(target: str) -> bool:
    """Whether HAProxy reads exactly this from a line of a map, behind the key: it forgets spaces at both ends."""
    return holds(f"{TARGET_KEY} {target}") and target == target.strip(" \t")


def target_content(target: str) -> bytes:
    return f"{TARGET_KEY} {target}\n".encode()


def target_sample(path: str) -> str:
    """What stands for the target in a log-format."""
    return f"%[str({TARGET_KEY}),map({path})]"


def pattern_commands(
    lines: Iterable[Sequence[str]], before: Iterable[FileMark], after: Iterable[FileMark], contents: Mapping[str, bytes]
) -> tuple[str, ...] | None:
    """What brings the files of patterns in `lines`, which stay as they are, to their contents; None if one was not there."""
    old = {x.name: x for x in before if is_of_patterns(x.name)}
    changed = [x for x in sorted(after) if is_of_patterns(x.name) and old.get(x.name) != x]
    if not changed:
        return ()
    paths = _paths(lines)
    commands: list[str] = []
    for mark in changed:
        if mark.name not in old or mark.name not in paths:
            return None
        commands += _exchanged(mark.name, paths[mark.name], contents[mark.name])
    return tuple(commands)


def is_of_patterns(name: str) -> bool:
    return name.startswith((NETWORKS, VALUE, TARGET))


def _paths(lines: Iterable[Sequence[str]]) -> dict[str, str]:
    """File name -> the path by which the configuration names it, which is its name for HAProxy's commands too."""
    found = []
    for words in lines:
        if words[0] != "acl" and tuple(words[:2]) != ("http-request", "redirect"):
            continue
        found += [match[1] for match in map(_MAP.search, words[2:4]) if match is not None]
        if words[0] == "acl" and "-f" in words[:-1]:
            found.append(words[words.index("-f") + 1])
    return {path.rpartition("/")[2]: path for path in found}


def _exchanged(name: str, path: str, content: bytes) -> list[str]:
    """All patterns of a file for those of another, in one step: until `commit` the new ones match nothing."""
    if name.startswith(NETWORKS):
        payloads = _payloads(content.decode().splitlines(keepends=True))
        added = [f"add map {PREPARED} {path} <<\n{payload}" for payload in payloads]
        return [f"prepare map {path}", *added, f"commit map {PREPARED} {path}"]
    if name.startswith(TARGET):
        target = content.decode().removeprefix(f"{TARGET_KEY} ").removesuffix("\n")
        added = [f"add map {PREPARED} {path} {TARGET_KEY} {_escaped(target)}"]
        return [f"prepare map {path}", *added, f"commit map {PREPARED} {path}"]
    pattern = content.decode().removesuffix("\n")
    return [
        f"prepare acl {path}",
        f"add acl {PREPARED} {path} {_escaped(pattern)}",
        f"commit acl {PREPARED} {path}",
    ]


def _payloads(lines: Iterable[str]) -> list[str]:
    payloads = [""]
    for line in lines:
        if len(payloads[-1]) + len(line) > LARGEST_PAYLOAD:
            payloads.append("")
        payloads[-1] += line
    return payloads


def _escaped(pattern: str) -> str:
    """The pattern as one word of a command: a backslash makes what follows stand for itself (management guide 9.3)."""
    return _NOT_PLAIN.sub(lambda found: f"\\{found[0]}", pattern)
