"""What is taken as a regular expression, HAProxy compiles: many patterns of every kind, some hundred in each try."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from frontinus.drivers.amphora.haproxy.text import Section, write
from frontinus.model.regular_expressions import Refused, check_regex

from tests.integration.drivers.world import HAPROXY

_PIECES = st.sampled_from(
    [
        *(
            "a",
            "b",
            ".",
            "^",
            "$",
            "|",
            "(",
            ")",
            "(?:",
            "(?=",
            "(?!",
            "(?<=",
            "(?<!",
            "(?>",
            "(?P<n>",
            "(?P=n)",
            "(?i)",
        ),
        *("(?i:", "(?-s:", "(?#", "[", "]", "[^", "-", "[:", ":]", "{", "}", "{2}", "{,2}", "{1,3}", "{4,}", "{65535}"),
        *(
            "*",
            "+",
            "?",
            "??",
            "*+",
            "\\",
            "\\d",
            "\\W",
            "\\b",
            "\\B",
            "\\A",
            "\\Z",
            "\\x4",
            "\\x41",
            "\\1",
            "\\0",
            "\\v",
        ),
        *("\\n", "\\.", "\\]", "\\\\", "\\p", "\\Q", "\\E", "'", '"', "#", " ", "%", ",", "=", "<", ">", "0", "(*"),
    ]
)
_PATTERNS = st.lists(st.lists(_PIECES, min_size=1, max_size=10).map("".join), min_size=100, max_size=400)


def try_patterns(directory: Path, examples: int) -> None:
    taken: set[str] = set()

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
    @given(patterns=_PATTERNS)
    def haproxy_compiles(patterns: list[str]) -> None:
        fine = sorted({pattern for pattern in patterns if is_taken(pattern)})
        taken.update(fine)
        lines = [("mode", "http"), *(("acl", "a", "path", "-m", "reg", "--", pattern) for pattern in fine)]
        file = directory / "haproxy.cfg"
        file.write_text(write((Section("frontend", "f", tuple(lines)),)))
        checked = subprocess.run([HAPROXY, "-c", "-f", str(file)], capture_output=True, text=True, check=False)
        wrong = [line for line in checked.stderr.splitlines() if "is invalid" in line]
        assert wrong == []

    haproxy_compiles()
    sys.stdout.write(f"{len(taken)} patterns\n")
    assert len(taken) > examples


def is_taken(pattern: str) -> bool:
    try:
        check_regex(pattern)
    except Refused:
        return False
    return True


def test_haproxy_compiles_what_is_taken(tmp_path: Path) -> None:
    try_patterns(tmp_path, 10)


@pytest.mark.long
@pytest.mark.timeout(1_800)
def test_haproxy_compiles_very_many(tmp_path: Path) -> None:
    try_patterns(tmp_path, 60)
