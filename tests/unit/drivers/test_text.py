"""The writer quotes, the reader reads back, and what cannot be written is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frontinus.drivers.amphora.haproxy.text import Section, Unreadable, Unwritable, log_format, quote, read, write

WRITABLE = st.text(st.characters(exclude_categories=("Cs", "Cc")) | st.sampled_from("'\"\\ $#%{}"), min_size=1)


@pytest.mark.parametrize(
    "word, quoted",
    [
        ("roundrobin", "roundrobin"),
        ("127.0.0.1:80", "127.0.0.1:80"),
        ("[::1]:80", "[::1]:80"),
        ("two words", "'two words'"),
        ("#not a comment", "'#not a comment'"),
        ("$HOME", "'$HOME'"),
        ('say "it"', "'say \"it\"'"),
        ("back\\slash", "'back\\slash'"),
        ("it's", "'it'\\''s'"),
        ("'", "\\'"),
        ("über", "'über'"),
    ],
)
def test_quoting(word: str, quoted: str) -> None:
    assert quote(word) == quoted


@pytest.mark.parametrize("word", ["", "a\nb", "a\rb", "a\tb", "\x00", "\x7f", "\ud800"])
def test_what_cannot_be_written_is_refused(word: str) -> None:
    with pytest.raises(Unwritable):
        quote(word)


def test_a_line_break_cannot_smuggle_a_line() -> None:
    with pytest.raises(Unwritable):
        write((Section("backend", "b", (("http-check", "send", "uri", "/\n    server evil 1.2.3.4:80"),)),))


def test_percent_stands_for_itself_in_a_log_format() -> None:
    assert log_format("100%[src]") == "100%%[src]"


@given(st.lists(st.lists(WRITABLE, min_size=1, max_size=6), max_size=5), WRITABLE)
def test_reading_gives_back_what_was_written(lines: list[list[str]], name: str) -> None:
    configuration = (
        Section("global", "", tuple(tuple(line) for line in lines)),
        Section("backend", name, tuple(tuple(line) for line in reversed(lines))),
    )
    assert read(write(configuration)) == configuration


def test_an_empty_text_has_no_sections() -> None:
    assert read("") == ()


@pytest.mark.parametrize(
    "text",
    [
        "    mode http\n",
        "backend a b\n",
        "backend a\n    two  spaces\n",
        "backend a\n    open 'quote\n",
        "backend a\n    # comment\n",
        "backend a\n\ttab\n",
        "backend a\n    ends \n",
        'backend a\n    "weak"\n',
    ],
)
def test_a_text_by_somebody_else_is_told_from_ours(text: str) -> None:
    with pytest.raises(Unreadable):
        read(text)
