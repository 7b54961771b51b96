"""How commands speak: results on standard output, trouble on standard error, logs apart from both."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import MutableMapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO, cast

import click
import structlog

from frontinus.model.errors import Invalid, WorldError
from frontinus.settings import LogSettings, Settings, load


def say(text: str) -> None:
    click.echo(text)


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Say rows in columns under their titles. The last column is as wide as it is."""
    widths = [max(len(row[column]) for row in (titles, *rows)) for column in range(len(titles) - 1)]
    for row in ([x.upper() for x in titles], *rows):
        say("  ".join((*(text.ljust(width) for text, width in zip(row, widths, strict=False)), row[-1])))


def complain(text: str) -> None:
    click.echo(f"frontinus: {text}", err=True)


def settings_or_exit(file: Path | None, overrides: dict[str, object]) -> Settings:
    """The settings, or exit status 2 with the key and the reason."""
    try:
        return load(file, overrides)
    except Invalid as error:
        complain(str(error))
        raise SystemExit(2) from error


def in_words(error: Exception) -> str:
    """What a person reads of an error: of the operating system's, the words without the number."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"
    return str(error)


def start_logging(settings: LogSettings) -> None:
    """Log events to standard error, one line each; only a bug takes more, for its traceback.

    Tracebacks are plain: one that shows the values of variables would show keys and certificates too."""
    level = logging.getLevelNamesMapping()[settings.level.value.upper()]
    renderer: structlog.types.Processor = (
        structlog.processors.JSONRenderer()
        if settings.json
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _expected_in_a_line,
            # The console renderer writes tracebacks itself; JSON needs them as text.
            *([structlog.processors.format_exc_info] if settings.json else []),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, _Unfailing(sys.stderr))),
        cache_logger_on_first_use=True,
    )
    # Libraries that log by the standard module (uvicorn, asyncio) are heard from warnings on.
    logging.basicConfig(
        stream=sys.stderr, level=max(level, logging.WARNING), format="%(levelname)s %(name)s %(message)s"
    )


class _Unfailing(io.TextIOBase):
    """A stream on which writing never raises: a log on a full disk, or whose reader has gone, must not end what logs."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):
            return self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()


def _expected_in_a_line(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A full disk or a busy database is no bug: who reads the log needs the reason, not where it was noticed."""
    error = event.get("exc_info")
    if error is True:
        error = sys.exc_info()[1]
    if isinstance(error, WorldError):
        del event["exc_info"]
        event["reason"] = str(error)
    return event
