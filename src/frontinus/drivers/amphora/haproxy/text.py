"""HAProxy configuration text: sections and lines as values, one writer that quotes, and the reader of what it wrote.

Every string that a tenant wrote reaches a configuration through `quote` and no other way. Rules: HAProxy configuration
manual 2.2, "Quoting and escaping". Pure. Next: render.py makes the sections, diff.py reads them back."""

from __future__ import annotations

import re

import msgspec

from frontinus.model.errors import Rejected

_PLAIN = re.compile(r"[A-Za-z0-9_.,:;/@%+=!?*~^&(){}\[\]<>|-]+")
"""Words of these characters stand for themselves outside quotes."""

_PLAIN_LINE = re.compile(rf"{_PLAIN.pattern}(?: {_PLAIN.pattern})*")

LONGEST_LINE = 65_536
"""Characters. HAProxy grows its buffer as needed; no line of ours comes near this, so a longer one is a mistake."""

MOST_WORDS = 60
"""HAProxy cuts a line into at most 64 words (MAX_LINE_ARGS) and refuses more."""


class Unwritable(ValueError):
    """The text cannot stand in a configuration, however it is quoted. The message says why."""


class Unreadable(ValueError):
    """The text was not written by this writer."""


class Section(msgspec.Struct, frozen=True):
    """A section and its lines; each line is a tuple of words. `name` is empty for global and defaults."""

    kind: str
    name: str
    lines: tuple[tuple[str, ...], ...]


Configuration = tuple[Section, ...]


def write(configuration: Configuration) -> str:
    """The text of a configuration. Raises Unwritable."""
    parts = []
    for section in configuration:
        header = (section.kind, section.name) if section.name else (section.kind,)
        parts.append(_line(header))
        parts.extend(f"    {_line(words)}" for words in section.lines)
        parts.append("")
    return "\n".join(parts)


def read(text: str) -> Configuration:
    """The sections of a text that `write` made: read(write(x)) == x. Raises Unreadable for anything else."""
    sections: list[Section] = []
    lines: list[tuple[str, ...]] = []
    header: tuple[str, ...] | None = None
    for number, line in enumerate([*text.split("\n"), ""], 1):
        if line.startswith("    "):
            if header is None:
                raise Unreadable(f"line {number}: a line before any section")
            lines.append(_words(line[4:], number))
            continue
        if header is not None:
            sections.append(Section(header[0], header[1] if len(header) > 1 else "", tuple(lines)))
            header, lines = None, []
        if line:
            header = _words(line, number)
            if len(header) > 2:
                raise Unreadable(f"line {number}: a section has a kind and at most a name")
    return tuple(sections)


def quote(word: str) -> str:
    """The word so that HAProxy's parser reads exactly it.

    Strong quotes, since nothing is interpreted inside them, not even $ and \\; a single quote, which they cannot hold,
    is escaped outside. Refused: the empty word, which would end the line for HAProxy, and control characters."""
    if not word:
        raise Unwritable("a word of a configuration line cannot be empty")
    if _PLAIN.fullmatch(word):
        return word
    for character in word:
        if ord(character) < 0x20 or ord(character) == 0x7F:
            raise Unwritable(f"control character U+{ord(character):04X} is not allowed")
        if 0xD800 <= ord(character) <= 0xDFFF:
            raise Unwritable("text that is not Unicode is not allowed")
    return "\\'".join(f"'{part}'" if part else "" for part in word.split("'"))


def checked(text: str, field: str) -> str:
    """The text, if it can stand in a configuration; else Rejected naming the field."""
    try:
        quote(text)
    except Unwritable as error:
        raise Rejected(field, str(error)) from error
    return text


def log_format(text: str) -> str:
    """The text for an argument that HAProxy reads as a log-format: a percent sign stands for itself when doubled."""
    return text.replace("%", "%%")


def _line(words: tuple[str, ...]) -> str:
    if len(words) > MOST_WORDS:
        raise Unwritable(f"a line cannot have more than {MOST_WORDS} words")
    line = " ".join(quote(word) for word in words)
    if len(line) > LONGEST_LINE:
        raise Unwritable(f"a line cannot be longer than {LONGEST_LINE} characters")
    return line


def _words(line: str, number: int) -> tuple[str, ...]:
    if _PLAIN_LINE.fullmatch(line):
        return tuple(line.split(" "))
    words: list[str] = []
    current: list[str] | None = None
    position = 0
    while position < len(line):
        character = line[position]
        if character == " ":
            if current is None:
                raise Unreadable(f"line {number}: two spaces in a row")
            words.append("".join(current))
            current = None
            position += 1
            continue
        current = [] if current is None else current
        if character == "'":
            end = line.find("'", position + 1)
            if end < 0:
                raise Unreadable(f"line {number}: a quote is not closed")
            current.append(line[position + 1 : end])
            position = end + 1
        elif line.startswith("\\'", position):
            current.append("'")
            position += 2
        elif _PLAIN.fullmatch(character):
            current.append(character)
            position += 1
        else:
            raise Unreadable(f"line {number}: {character!r} outside quotes")
    if current is None:
        raise Unreadable(f"line {number}: ends with a space")
    words.append("".join(current))
    return tuple(words)
