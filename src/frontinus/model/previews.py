"""What a change would do to what amphorae run: the API's question, what a driver says of one amphora, the answer.

Values only; they travel through the store as JSON. Nothing private is in them: a tenant reads the answer. Next:
store/previews.py."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import unified_diff

import msgspec

from frontinus.model.enums import AmphoraRole
from frontinus.model.ids import AmphoraId
from frontinus.model.tree import Fault, LoadBalancerTree

ACTIONS = ("unchanged", "runtime", "reload", "stop", "start", "replace")
"""How an amphora would get there, the greatest interference last: `runtime` is commands to what runs, and `replace`
another amphora in its place."""

LONGEST_DIFF = 2_000
"""Lines of one diff that are told; a person reads no more, and the answer travels through a row."""

LONGEST_LINE = 1_000
"""Characters of one line that are told."""


MOST_COMPARED = 4_000_000
"""Pairs of lines that are compared, about a second's work at worst. Of texts that differ over more than this all of one goes
and all of the other comes."""


class Preview(msgspec.Struct, frozen=True, kw_only=True):
    """What `apply` would do to one amphora. `reason` is why it takes more than commands; `commands` are those that would be
    sent to what runs; `diff` is from the configuration that it has to the one that it shall have."""

    action: str
    reason: str = ""
    commands: tuple[str, ...] = ()
    diff: str = ""


class PreviewOfAmphora(msgspec.Struct, frozen=True, kw_only=True):
    """The preview for one amphora; `amphora_id` is None where it is still to be made."""

    amphora_id: AmphoraId | None
    role: AmphoraRole
    preview: Preview


class FileTold(msgspec.Struct, frozen=True, kw_only=True):
    """A file beside a configuration text. Of a private one `content` is only what tells it from others."""

    name: str
    content: bytes
    private: bool


class Rendering(msgspec.Struct, frozen=True, kw_only=True):
    """What one version of a driver renders for an amphora, told to another; `digest` is of the whole, keys and all."""

    text: str
    digest: str
    files: tuple[FileTold, ...] = ()


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """The tree as it is (None: there is none yet) and as it would be. `replaced` are amphorae that would be replaced.

    With `tells_renderings` what is rendered of `after` is asked for, and nothing compared. `ran` is what another version of
    the driver renders, to be compared with instead of `before`; what no amphora of it is known for cannot be compared."""

    before: LoadBalancerTree | None
    after: LoadBalancerTree
    replaced: tuple[AmphoraId, ...] = ()
    tells_renderings: bool = False
    ran: Mapping[AmphoraId, Rendering] | None = None


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a controller says. `faults` are why something of it could not be carried, as the objects would show them."""

    amphorae: tuple[PreviewOfAmphora, ...] = ()
    faults: tuple[Fault, ...] = ()
    renderings: Mapping[AmphoraId, Rendering] = {}


def strongest(actions: Iterable[str]) -> str:
    """The greatest interference of several; `unchanged` of none."""
    return max(actions, key=ACTIONS.index, default=ACTIONS[0])


def unified(before: str, after: str, name: str) -> str:
    """A unified diff of two texts, bounded in length. What both begin and end with is not compared line by line, since
    comparing costs the square of what is."""
    old, new = before.splitlines(), after.splitlines()
    start = _common(old, new)
    end = _common(old[start:][::-1], new[start:][::-1])
    context = 3
    first = max(0, start - context)
    kept = max(0, end - context)
    old, new = old[first : len(old) - kept], new[first : len(new) - kept]
    now, then = f"{name} (now)", f"{name} (then)"
    if len(old) * len(new) > MOST_COMPARED:
        header = [f"--- {now}", f"+++ {then}", f"@@ -{first + 1},{len(old)} +{first + 1},{len(new)} @@"]
        return _bounded([*header, *(f"-{x}" for x in old), *(f"+{x}" for x in new)])
    lines = unified_diff(old, new, now, then, n=context, lineterm="")
    return _bounded([_moved(line, first) for line in lines])


def _common(old: list[str], new: list[str]) -> int:
    return next((n for n, (x, y) in enumerate(zip(old, new, strict=False)) if x != y), min(len(old), len(new)))


def _moved(line: str, by: int) -> str:
    """A hunk's header with its places counted in the whole text."""
    if not by or not line.startswith("@@ "):
        return line
    _, old, new, _ = line.split(" ", 3)
    return f"@@ {_place(old, by)} {_place(new, by)} @@"


def _place(text: str, by: int) -> str:
    number, comma, length = text[1:].partition(",")
    return f"{text[0]}{int(number) + by}{comma}{length}"


def _bounded(lines: list[str]) -> str:
    told = [x if len(x) <= LONGEST_LINE else f"{x[:LONGEST_LINE]}…" for x in lines[:LONGEST_DIFF]]
    if len(lines) > LONGEST_DIFF:
        told.append(f"… {len(lines) - LONGEST_DIFF} more lines")
    return "".join(f"{x}\n" for x in told)
