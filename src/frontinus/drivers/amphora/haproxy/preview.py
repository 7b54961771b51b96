"""What a change does to one amphora, in words for the tenant. Pure. What is decided is diff.py's; here it is only told.

Nothing of private files is shown but that they differ, and of a command only what stands in its first line: a payload may
be a key. Whether an amphora's HAProxy is too old for a command cannot be known here; then it takes a reload."""

from __future__ import annotations

from frontinus.drivers.amphora.agent.files import NGINX_FILES, FileMark, Live, marks
from frontinus.drivers.amphora.haproxy.diff import MOST_COMMANDS, diff
from frontinus.drivers.amphora.haproxy.render import rendered
from frontinus.drivers.amphora.haproxy.text import Section, Unreadable, read
from frontinus.drivers.amphora.interface import Rendered
from frontinus.model.previews import Preview, unified

_NAME = "haproxy.cfg"
_MOST_SECTIONS_NAMED = 5


def preview(before: Rendered | None, after: Rendered | None) -> Preview:
    """See AmphoraDriver.preview."""
    old, new = before or _NOTHING, after or _NOTHING
    if old == new:
        return Preview(action="unchanged")
    change = unified(_shown(old), _shown(new), _NAME)
    if not new.text and not new.files:
        return Preview(action="stop", diff=change)
    found = diff(Live(old.text, marks(old.files)), new)
    running = bool(old.text)
    if not new.text or not running:
        of_haproxy = "start" if new.text else "stop" if running else "unchanged"
    else:
        of_haproxy = "reload" if found.reload else "runtime" if found.commands else "unchanged"
    commands = tuple(x.partition("\n")[0] for x in found.commands) if of_haproxy in ("runtime", "reload") else ()
    of_nginx = _action_of_nginx(_nginx_files(old), _nginx_files(new))
    action = max(of_haproxy, of_nginx, key=_LATER_TOLD.index)
    reasons = [_reason(old, new)] if of_haproxy == "reload" else []
    if of_nginx == "reload":
        reasons.append("nginx reads its configuration anew")
    return Preview(
        action=action, reason="; ".join(reasons) if action == "reload" else "", commands=commands, diff=change
    )


_NOTHING = rendered("")

_LATER_TOLD = ("unchanged", "stop", "runtime", "reload", "start")
"""Of what haproxy and nginx do, an amphora tells the later one."""


def _nginx_files(configuration: Rendered) -> frozenset[FileMark]:
    return frozenset(x for x in marks(configuration.files) if x.name in NGINX_FILES)


def _action_of_nginx(old: frozenset[FileMark], new: frozenset[FileMark]) -> str:
    if old == new:
        return "unchanged"
    return "start" if not old else "stop" if not new else "reload"


def _shown(configuration: Rendered) -> str:
    """The text; of public files the content, of private ones the name and what tells one content from another."""
    parts = [configuration.text]
    for file, mark in zip(configuration.files, marks(configuration.files), strict=True):
        if file.private:
            parts.append(f"# beside it: {file.name}, {mark.sha256[:12]}")
        else:
            parts += [f"# beside it: {file.name}", file.content.decode("utf-8", "replace")]
    return "\n".join(parts)


def _reason(old: Rendered, new: Rendered) -> str:
    try:
        before, after = _sections(old.text), _sections(new.text)
    except Unreadable:
        return "what runs was not written by this version"
    files = {x.name for x in set(marks(old.files)) ^ set(marks(new.files))} - NGINX_FILES
    named = [f"file {x} is another" for x in sorted(files)]
    for key in sorted(before.keys() | after.keys()):
        if key not in after:
            named.append(f"{' '.join(key)} goes")
        elif key not in before:
            named.append(f"{' '.join(key)} comes")
        elif _structure(before[key]) != _structure(after[key]):
            named.append(f"{' '.join(key)} changes in more than its servers")
    if not named:
        return f"servers change in what can be set at a start only, or by more than {MOST_COMMANDS} commands"
    more = len(named) - _MOST_SECTIONS_NAMED
    return "; ".join([*named[:_MOST_SECTIONS_NAMED], *([f"and {more} more"] if more > 0 else [])])


def _sections(text: str) -> dict[tuple[str, ...], Section]:
    return {(x.kind, x.name) if x.name else (x.kind,): x for x in read(text)}


def _structure(section: Section) -> tuple[tuple[str, ...], ...]:
    return tuple(words for words in section.lines if words[0] != "server")
