"""nginx configuration text: directives as values, and one writer that quotes.

Every string that a tenant wrote reaches a configuration through `quote`, and through `literal_pattern` or `template`
before it where nginx reads more into a word than its characters. Rules: nginx's ngx_conf_read_token (a word ends at
white space, `;` or `{`; in double quotes a backslash escapes quotes and itself) and its documentation of regular
expressions and variables. Pure. Next: stream.py, and the nginx driver's render.py."""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

_PLAIN = re.compile(r"[A-Za-z0-9_./:=@%+,\[\]-]+")
"""Words of these characters stand for themselves outside quotes."""

_ALNUM = re.compile(rb"[A-Za-z0-9]")

DOLLAR = "frontinus_dollar"
"""The name of a variable whose value is a dollar sign, which nginx cannot escape (`dollar_variable` makes it)."""

LONGEST_WORD = 4_000
"""nginx reads a configuration through a buffer of 4096 bytes, and a word must fit in it."""


class Unwritable(ValueError):
    """The text cannot stand in a configuration, however it is quoted. The message says why."""


class Directive(msgspec.Struct, frozen=True):
    """A directive; with `block` it has others in braces. `comment` stands behind it, for the agent to read."""

    words: tuple[str, ...]
    block: tuple[Directive, ...] | None = None
    comment: str | None = None


def line(*words: str, comment: str | None = None) -> Directive:
    return Directive(words, comment=comment)


def block(*words: str, inside: Sequence[Directive]) -> Directive:
    return Directive(words, tuple(inside))


def write(directives: Sequence[Directive]) -> str:
    """The text of a configuration. Raises Unwritable."""
    lines: list[str] = []
    for directive in directives:
        _write(directive, "", lines)
    return "".join(f"{each}\n" for each in lines)


def quote(word: str) -> str:
    """The word so that nginx's parser reads exactly it. Refused: control characters, and what is too long to be read.

    The empty word is written as two quotes, which is how nginx has it."""
    if _PLAIN.fullmatch(word):
        return word
    for character in word:
        if ord(character) < 0x20 or ord(character) == 0x7F:
            raise Unwritable(f"control character U+{ord(character):04X} is not allowed")
        if 0xD800 <= ord(character) <= 0xDFFF:
            raise Unwritable("text that is not Unicode is not allowed")
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    if len(escaped.encode()) > LONGEST_WORD:
        raise Unwritable(f"a word cannot be longer than {LONGEST_WORD} bytes")
    return f'"{escaped}"'


def literal_pattern(text: str) -> str:
    """A regular expression that matches exactly this text: every byte but letters and digits by its number, so that
    nothing in it can mean anything to a pattern, a parser or a variable."""
    return "".join(chr(byte) if _ALNUM.fullmatch(bytes((byte,))) else f"\\x{byte:02x}" for byte in text.encode("utf-8"))


def template(text: str) -> str:
    """The text for an argument in which nginx looks for variables: a dollar sign stands for itself."""
    return text.replace("$", f"${{{DOLLAR}}}")


def dollar_variable() -> Directive:
    """What `template` needs, once per http block. `geo` does not look for variables in values."""
    return block("geo", f"${DOLLAR}", inside=[line("default", "$")])


def _write(directive: Directive, indent: str, lines: list[str]) -> None:
    head = indent + " ".join(map(_word, directive.words))
    comment = "" if directive.comment is None else f" # {directive.comment}"
    if directive.block is None:
        lines.append(f"{head};{comment}")
        return
    lines.append(f"{head} {{{comment}")
    for inner in directive.block:
        _write(inner, f"{indent}    ", lines)
    lines.append(f"{indent}}}")


_VARIABLE = re.compile(r"\$[a-z_0-9]+")


def _word(word: str) -> str:
    """Our own variables are easier to read without quotes."""
    return word if _VARIABLE.fullmatch(word) else quote(word)
