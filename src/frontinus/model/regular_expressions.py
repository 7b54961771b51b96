"""Which regular expressions are taken: those that Python compiles (contract: l7rule_value) and that PCRE, which HAProxy
and nginx use, compiles to the same meaning.

The data plane is not asked: a rule is judged before anything is pushed, on a machine that may have no PCRE, for
amphorae whose PCRE is of another version. So what the two dialects read differently is refused with the reason.
tests/integration/drivers/test_regular_expressions.py tries what is taken here on a real HAProxy. Pure.

Source: PCRE2's pcre2pattern(3), pcre2limits(3), pcre2compat(3)."""

from __future__ import annotations

import re
import warnings

MOST_UNITS = 1_000
"""How much an expression may amount to when its repeated groups are written out. PCRE keeps the compiled form below
64 KiB, and the largest unit, a set of characters, takes about 40 bytes."""

MOST_REPEATS = 65_535
"""The largest number in a PCRE quantifier."""

LONGEST_GROUP_NAME = 32

_QUANTIFIER = re.compile(r"\{([0-9]+)(,([0-9]*))?\}|[*+?]")
_UNCLEAR_BRACES = re.compile(r"\{[0-9, ]*\}")
_ESCAPES = frozenset("dDsSwWbBAZtnrfa")
_HEX = re.compile(r"x[0-9A-Fa-f]{2}")
_LOOKS_POSIX = re.compile(r"([:.=])(?:\\[\]\\]|[^\]])*?\1\]")
_GROUP = re.compile(r"\?(?::|=|!|<=|<!|>|P<(?P<name>[A-Za-z_][A-Za-z0-9_]*)>|[ims]*(?:-[ims]+)?:)")
_WHOLE_GROUP = re.compile(r"\?(?:[ims]+|P=[A-Za-z_][A-Za-z0-9_]*)\)")


class Refused(ValueError):
    """The expression is not taken; the message says why."""


def check_regex(pattern: str) -> None:
    """Raises Refused for what either dialect refuses, or what they understand differently."""
    if not (pattern.isascii() and pattern.isprintable()):
        raise Refused("has characters outside printable ASCII; write them as \\x and two hexadecimal digits")
    with warnings.catch_warnings():
        # What Python's dialect frowns at (a nested set, say) is judged below.
        warnings.simplefilter("ignore")
        try:
            re.compile(pattern)
        except (re.error, OverflowError, RecursionError) as error:
            raise Refused(str(error)) from error
    _walk(pattern)


def _walk(pattern: str) -> None:
    """Look at each item of an expression that Python has compiled, counting what it amounts to."""
    open_groups = [0]  # units of each group that is open, outermost first
    position = 0
    while position < len(pattern):
        last = 1  # units of the item that a quantifier would repeat
        is_group = False
        match pattern[position]:
            case "\\":
                position = _escape(pattern, position + 1)
            case "[":
                position = _set(pattern, position + 1)
            case "(":
                end = _whole_group(pattern, position + 1)
                if end is None:
                    open_groups.append(1)
                    position = _begin_group(pattern, position + 1)
                    continue
                position = end
            case ")":
                last, is_group = open_groups.pop(), True
                position += 1
            case "{" if _UNCLEAR_BRACES.match(pattern, position):
                raise Refused("has braces that not every dialect reads as the same quantifier: write {0,n}, or \\{")
            case _:
                position += 1
        position, times = _quantifier(pattern, position)
        # A repeated group is written out; a repeated character is not.
        open_groups[-1] += last * times if is_group else last
        if sum(open_groups) > MOST_UNITS:
            raise Refused("repeats its groups too often: written out, it would be too large")


def _quantifier(pattern: str, position: int) -> tuple[int, int]:
    """What follows the quantifier here, if there is one, and how often it writes out a group."""
    found = _QUANTIFIER.match(pattern, position)
    if found is None:
        return position, 1
    numbers = [int(number) for number in (found[1], found[3]) if number]
    if any(number > MOST_REPEATS for number in numbers):
        raise Refused(f"repeats something more than {MOST_REPEATS} times")
    position = found.end()
    if position < len(pattern) and pattern[position] in "?+":  # lazy, or possessive
        position += 1
    return position, max([*numbers, 1]) + 1


def _escape(pattern: str, position: int) -> int:
    """What follows the backslash that stands before `position`."""
    character = pattern[position]
    if not character.isalnum() or character in _ESCAPES:
        return position + 1
    if character.isdecimal():
        # HAProxy captures only what has a name (PCRE2_NO_AUTO_CAPTURE) where it looks for a match alone.
        raise Refused("refers to a group by number; name the group as (?P<name>...) and refer to it as (?P=name)")
    found = _HEX.match(pattern, position)
    if found is None:
        raise Refused(f"has \\{character}, which not every dialect reads alike")
    return found.end()


def _set(pattern: str, position: int) -> int:
    """What follows the set whose bracket stands before `position`."""
    if _LOOKS_POSIX.match(pattern, position):
        raise Refused("has a set like [:name:], which PCRE takes for a class of characters; begin it otherwise")
    if pattern.startswith("^", position):
        position += 1
    first = position
    while pattern[position] != "]" or position == first:
        if pattern[position] == "[" and pattern[position + 1] in ":.=":
            raise Refused("has [:, [. or [= in a set, which Python and PCRE read differently; write \\[")
        position = _escape(pattern, position + 1) if pattern[position] == "\\" else position + 1
    return position + 1


def _whole_group(pattern: str, position: int) -> int | None:
    """What follows flags, a named reference or a comment, which hold no expression; None for another group."""
    if pattern.startswith("?#", position):
        return pattern.index(")", position) + 1
    found = _WHOLE_GROUP.match(pattern, position)
    return None if found is None else found.end()


def _begin_group(pattern: str, position: int) -> int:
    """Where the expression in the group begins."""
    if not pattern.startswith("?", position):
        return position
    found = _GROUP.match(pattern, position)
    if found is None:
        raise Refused("has a kind of group or a flag that not every dialect knows")
    if len(found["name"] or "") > LONGEST_GROUP_NAME:
        raise Refused(f"names a group with more than {LONGEST_GROUP_NAME} characters")
    return found.end()
