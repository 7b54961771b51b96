"""Files that only their owner may read, written so that they appear whole or not at all. Shared by drivers that keep
keys; knows nothing of what is in them."""

from __future__ import annotations

import fcntl
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SCRATCH = re.compile(r"\..+\.[a-z0-9_]{8}")
"""As `write_private` names what it writes: with the eight characters of tempfile."""


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the directory against other processes that do the same. Blocks until it is free."""
    descriptor = os.open(directory / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def write_private(path: Path, content: bytes) -> None:
    """The file appears whole, with mode 0600, and stays after a power failure."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:  # also when interrupted: nothing half-written is left beside the real file
        Path(temporary).unlink(missing_ok=True)
        raise


def scratch_files(directory: Path) -> list[Path]:
    """What `write_private` is writing in this directory, or was when it was killed. Raises OSError."""
    try:
        return [
            Path(x)
            for x in os.scandir(directory)
            if _SCRATCH.fullmatch(x.name)
            and x.is_file(follow_symlinks=False)
            and x.stat(follow_symlinks=False).st_uid == os.geteuid()
        ]
    except FileNotFoundError:
        return []
