"""Which object of a tree HAProxy means, when it refuses a configuration: it names a line, and lines are of objects. Pure."""

from __future__ import annotations

import re

from frontinus.model.enums import Kind
from frontinus.model.errors import Subject
from frontinus.model.tree import LoadBalancerTree

_PLACE = re.compile(r"\[[^\]\s]*:(\d+)\]")
_CHECK_WORDS = frozenset({"http-check", "tcp-check"})
_CHECK_LINES = frozenset({("option", "httpchk"), ("timeout", "check")})


def subject_of(complaint: str, text: str, tree: LoadBalancerTree) -> Subject | None:
    """The object whose line of `text` the first complaint is about; None where it names none, or none of an object."""
    found = _PLACE.search(complaint)
    lines = text.split("\n")
    if found is None or not 0 < int(found[1]) <= len(lines):
        return None
    number = int(found[1]) - 1
    header = next((x.split(" ") for x in reversed(lines[: number + 1]) if x and not x.startswith(" ")), [])
    if len(header) != 2:
        return None
    kind, name = header
    if kind == "frontend":
        return Subject(Kind.LISTENER, name) if tree.listener(name) is not None else None
    if kind != "backend":
        return None
    return _of_backend(name.partition(":")[0], lines[number].split(), tree)


def _of_backend(pool_id: str, words: list[str], tree: LoadBalancerTree) -> Subject | None:
    if len(words) > 1 and words[0] == "server" and any(x.id == words[1] for x in tree.members):
        return Subject(Kind.MEMBER, words[1])
    monitor = tree.health_monitor_of(pool_id)
    if monitor is not None and words and (words[0] in _CHECK_WORDS or tuple(words[:2]) in _CHECK_LINES):
        return Subject(monitor.kind, monitor.id)
    return Subject(Kind.POOL, pool_id) if tree.pool(pool_id) is not None else None
