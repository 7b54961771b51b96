"""What is changed in a text that runs, without rendering it anew: on an amphora that is too old for what is wanted, and on one
that is about to go. Pure. Texts are those of text.py; what was not written by it is left as it is."""

from __future__ import annotations

from msgspec.structs import replace

from frontinus.drivers.amphora.haproxy.text import Section, Unreadable, read, write

_CLOSE = ("option", "httpclose")


def introduced(live: str, rendered: str) -> str:
    """The live text with the other amphorae of its pair (HAProxy: peers) as the rendered one has them."""
    try:
        running, wanted = read(live), read(rendered)
    except Unreadable:
        return live
    others = {x.name: tuple(y for y in x.lines if _is_other(y)) for x in wanted if x.kind == "peers"}
    return write(
        tuple(_with_others(x, others[x.name]) if x.kind == "peers" and x.name in others else x for x in running)
    )


def closing(live: str) -> str:
    """The live text with every answer to a client the last of its connection."""
    try:
        running = read(live)
    except Unreadable:
        return live
    return write(tuple(_without_keeping(x) if _is_of_http(x) else x for x in running))


def learns(live: str) -> bool:
    """Whether there is a stick table."""
    try:
        return any(x.kind == "peers" and any(y[0] == "table" for y in x.lines) for x in read(live))
    except Unreadable:
        return False


def _is_other(line: tuple[str, ...]) -> bool:
    """`server` with an address; the amphora's own line has none."""
    return line[0] == "server" and len(line) > 2


def _with_others(section: Section, others: tuple[tuple[str, ...], ...]) -> Section:
    before = [x for x in section.lines if not _is_other(x)]
    own = next((number for number, x in enumerate(before) if x[0] == "server"), len(before) - 1)
    return replace(section, lines=(*before[: own + 1], *others, *before[own + 1 :]))


def _is_of_http(section: Section) -> bool:
    return section.kind == "frontend" and ("mode", "http") in section.lines


def _without_keeping(section: Section) -> Section:
    return section if _CLOSE in section.lines else replace(section, lines=(*section.lines, _CLOSE))
