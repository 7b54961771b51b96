"""A regular expression is taken when Python and PCRE, as HAProxy calls it, read it alike."""

from __future__ import annotations

import pytest

from frontinus.model.regular_expressions import Refused, check_regex


@pytest.mark.parametrize(
    "pattern",
    [
        "^/(api|v[0-9]+)/",
        r"\.(jpe?g|png)$",
        "a{2,3}b{4}c{5,}d*?e++f?",
        r"[\]\-\\x41^]\x41",
        "[]a]",
        "[^]a]",
        "(?P<word>ab)-(?P=word)",
        "(?i)case",
        "(?i:case)(?-i:Case)(?s-m:.)",
        "(?#a (comment)b",
        "a(?=b)(?!c)(?<=b)(?<!c)(?>d)",
        "{a} {",
        "[.]a[.][:a][=]",
        "x" * 255,
        "((a{9}){9}){9}",
    ],
)
def test_taken(pattern: str) -> None:
    check_regex(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        pytest.param("(", id="Python refuses it"),
        pytest.param("a{,3}", id="literal for PCRE before 10.43"),
        pytest.param("a{1, 3}", id="a quantifier for PCRE from 10.43 on"),
        pytest.param("[[:alpha:]]", id="a POSIX class for PCRE"),
        pytest.param("[a[.b]", id="a collating element for PCRE"),
        pytest.param(r"[:\b:]", id="a POSIX class outside a set for PCRE"),
        pytest.param(r"\u0041", id="unknown to PCRE"),
        pytest.param(r"(a)\1", id="HAProxy captures no numbered group"),
        pytest.param(r"\012", id="octal or a reference"),
        pytest.param(r"\v", id="one character or many"),
        pytest.param("(?a)b", id="a flag of Python's"),
        pytest.param("(?x)a b", id="a flag after which blanks mean nothing"),
        pytest.param("(a)(?(1)b|c)", id="a condition on a number"),
        pytest.param("a{65536}", id="more repeats than PCRE counts"),
        pytest.param("(ab){65535}", id="too large for PCRE"),
        pytest.param("(((a{9}b){99}){99})", id="too large for PCRE, nested"),
        pytest.param("caf\u00e9", id="more than one byte"),
        pytest.param(f"(?P<{'n' * 33}>a)", id="a name too long for PCRE"),
    ],
)
def test_refused(pattern: str) -> None:
    with pytest.raises(Refused):
        check_regex(pattern)
