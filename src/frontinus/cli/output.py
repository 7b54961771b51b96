"""How commands speak: results on standard output, trouble on standard error, logs apart from both."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import click
import structlog

from frontinus.model.errors import Invalid
from frontinus.settings import LogSettings, Settings, load


def say(text: str) -> None:
    click.echo(text)


def complain(text: str) -> None:
    click.echo(f"frontinus: {text}", err=True)


def settings_or_exit(file: Path | None, overrides: dict[str, object]) -> Settings:
    """The settings, or exit status 2 with the key and the reason."""
    try:
        return load(file, overrides)
    except Invalid as error:
        complain(str(error))
        raise SystemExit(2) from error


def start_logging(settings: LogSettings) -> None:
    """Log events to standard error, one line each."""
    level = logging.getLevelNamesMapping().get(settings.level.upper())
    if level is None:
        complain(f"log.level: {settings.level!r} is not one of debug, info, warning, error")
        raise SystemExit(2)
    renderer: structlog.types.Processor = (
        structlog.processors.JSONRenderer()
        if settings.json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            # The console renderer writes tracebacks itself; JSON needs them as text.
            *([structlog.processors.format_exc_info] if settings.json else []),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    # Libraries that log by the standard module (uvicorn, asyncio) are heard from warnings on.
    logging.basicConfig(
        stream=sys.stderr, level=max(level, logging.WARNING), format="%(levelname)s %(name)s %(message)s"
    )
