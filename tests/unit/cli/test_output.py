"""What is logged and said is for people: one line for what is expected, no values of variables ever."""

from __future__ import annotations

import subprocess
import sys

import pytest

from frontinus.cli.output import in_words

pytestmark = pytest.mark.unit

PROGRAM = """
import structlog
from frontinus.cli.output import start_logging
from frontinus.model.errors import Retry
from frontinus.settings import LogSettings

def work(password):
    try:
        raise {error}
    except Exception:
        structlog.get_logger().exception("turn failed", turn="one")

start_logging(LogSettings(json={json}))
work("hunter2" + "!")
"""


def logged(error: str, *, json: bool) -> str:
    """What a failing function with a secret in a variable leaves in the log. In a process of its own, since how
    structlog is set up is global."""
    program = PROGRAM.format(error=error, json=json)
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stderr


@pytest.mark.parametrize("json", [False, True])
def test_an_expected_error_takes_one_line_with_its_reason(json: bool) -> None:
    text = logged("Retry('the disk is full; make room', after=1.0)", json=json)
    assert text.count("\n") == 1
    assert "the disk is full; make room" in text
    assert "Traceback" not in text


@pytest.mark.parametrize("json", [False, True])
def test_a_bug_shows_where_it_is_and_no_values(json: bool) -> None:
    text = logged("RuntimeError('whoops')", json=json)
    assert "Traceback" in text
    assert "RuntimeError: whoops" in text
    assert "hunter2!" not in text


def test_errors_of_the_system_are_told_in_words() -> None:
    assert in_words(OSError(98, "Address already in use (port 5)")) == "Address already in use (port 5)"
    assert in_words(NotADirectoryError(20, "Not a directory", "/a/b")) == "/a/b: Not a directory"
    assert in_words(RuntimeError("as it is")) == "as it is"
