"""What a change does to one amphora, in words for the tenant. Pure. What is decided is diff.py's; here it is only told.

Of files beside the text only those of patterns are shown, of the others nothing but that they differ, and of a command
only what stands in its first line: a payload may be a key."""

from __future__ import annotations

from frontinus.drivers.amphora.agent.files import FILES_BESIDE, KEEPALIVED, NOT_HAPROXYS, Live, marks
from frontinus.drivers.amphora.agent.preview import preview_of_nginx
from frontinus.drivers.amphora.haproxy.diff import MOST_COMMANDS, diff
from frontinus.drivers.amphora.haproxy.patterns import is_of_patterns
from frontinus.drivers.amphora.haproxy.render import rendered
from frontinus.drivers.amphora.haproxy.text import Section, Unreadable, read
from frontinus.drivers.amphora.interface import Rendered, RenderedFile
from frontinus.model.previews import ACTIONS, Preview, unified

_NAME = "haproxy.cfg"
_MOST_SECTIONS_NAMED = 5


def preview(before: Rendered | None, after: Rendered | None) -> Preview:
    """See AmphoraDriver.preview."""
    old, new = before or _NOTHING, after or _NOTHING
    of_haproxy = _preview_of_haproxy(_of_haproxy(old), _of_haproxy(new))
    of_each = (of_haproxy, preview_of_nginx(_of_nginx(old), _of_nginx(new)), _preview_of_keepalived(old, new))
    changed = [x for x in of_each if x.action != "unchanged"]
    if len(changed) < 2:
        return changed[0] if changed else of_haproxy
    stronger = max(changed, key=lambda each: ACTIONS.index(each.action))
    diff_of_all = "".join(x.diff for x in changed)
    return Preview(action=stronger.action, reason=stronger.reason, commands=of_haproxy.commands, diff=diff_of_all)


def _preview_of_keepalived(before: Rendered, after: Rendered) -> Preview:
    """A reload of keepalived moves no address, and costs no connection."""
    old, new = (next((x.content.decode() for x in each.files if x.name == KEEPALIVED), "") for each in (before, after))
    if old == new:
        return Preview(action="unchanged")
    action = "reload" if old and new else "stop" if old else "start"
    reason = "keepalived learns of another peer or address" if action == "reload" else ""
    return Preview(action=action, reason=reason, diff=unified(old, new, KEEPALIVED))


def _of_haproxy(configuration: Rendered) -> Rendered:
    return rendered(configuration.text, [x for x in configuration.files if x.name not in NOT_HAPROXYS])


def _of_nginx(configuration: Rendered) -> tuple[RenderedFile, ...]:
    return tuple(x for x in configuration.files if x.name in FILES_BESIDE)


def _preview_of_haproxy(old: Rendered, new: Rendered) -> Preview:
    if old == new:
        return Preview(action="unchanged")
    change = unified(_shown(old), _shown(new), _NAME)
    if not new.text:
        return Preview(action="stop" if old.text else "unchanged", diff=change)
    if not old.text:
        return Preview(action="start", diff=change)
    found = diff(Live(old.text, marks(old.files)), new)
    commands = tuple(x.partition("\n")[0] for x in found.commands)
    if not found.reload:
        return Preview(action="runtime", commands=commands, diff=change)
    return Preview(action="reload", reason=_reason(old, new), commands=commands, diff=change)


_NOTHING = rendered("")


def _shown(configuration: Rendered) -> str:
    """The text, and of each file its name and what tells one content from another."""
    lines = [configuration.text]
    for mark, file in zip(marks(configuration.files), configuration.files, strict=True):
        lines.append(f"# beside it: {mark.name}, {mark.sha256[:12]}")
        if is_of_patterns(file.name) and not file.private:
            lines += [f"    {line}" for line in file.content.decode().removesuffix("\n").split("\n")]
    return "\n".join(lines)


def _reason(old: Rendered, new: Rendered) -> str:
    try:
        before, after = _sections(old.text), _sections(new.text)
    except Unreadable:
        return "what runs was not written by this version"
    named = [f"file {x} is another" for x in sorted({x.name for x in set(marks(old.files)) ^ set(marks(new.files))})]
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
