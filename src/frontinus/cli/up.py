"""`frontinus up`: one installation in this process, until a signal."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from frontinus.api.settings import Authentication
from frontinus.cli.output import complain, in_words, say, settings_or_exit, start_logging
from frontinus.cli.serve import serve, state_lock
from frontinus.main import Installation

ENDPOINT_FILE = "endpoint"


def run(file: Path | None, overrides: dict[str, object]) -> int:
    """Exit status: 0 after a signal, 1 when it could not start or broke, 2 for wrong settings."""
    settings = settings_or_exit(file, overrides)
    start_logging(settings.log)
    with state_lock(settings.state_dir, alone=True) as lock:
        if lock is None:
            return 1
        try:
            lock.truncate(0)
            lock.write(str(os.getpid()))  # `frontinus down` reads it
            lock.flush()
        except OSError as error:
            complain(in_words(error))
            return 1
        return serve(lambda: Installation(settings), _announced)


@contextmanager
def _announced(installation: Installation) -> Iterator[None]:
    endpoint_file = installation.settings.state_dir / ENDPOINT_FILE
    endpoint_file.write_text(str(installation.endpoint))
    say(f"Frontinus is up: {installation.endpoint} (state in {installation.settings.state_dir})")
    if installation.settings.api.auth is Authentication.NONE:
        say(f"  openstack --os-auth-type none --os-endpoint {installation.endpoint} loadbalancer list")
    try:
        yield
    finally:
        endpoint_file.unlink(missing_ok=True)
    say("Frontinus has stopped; its amphorae go on.")
