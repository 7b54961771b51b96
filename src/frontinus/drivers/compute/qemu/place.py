"""The directory of a machine, <state_dir>/machines/<amphora id>/, for its owner's eyes only; and which process it is.

A QEMU is known by the path of the pid file on its command line, which is inside the directory: a pid alone is recycled.
A lock on the directory keeps two builders (or a builder and a destroyer) apart, also in different processes."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from frontinus.drivers.compute.qemu.machine import CONSOLE, PID_FILE
from frontinus.model.errors import Bug
from frontinus.model.ids import AmphoraId

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_PORTS, _ADDRESS = "ports", "management"
CONSOLE_LIMIT = 1024 * 1024
"""Bytes at which what a machine said on its console is cut to the second half."""


class MachineDirectory:
    """Files of one machine."""

    def __init__(self, machines: Path, amphora_id: AmphoraId) -> None:
        if not _UUID.fullmatch(amphora_id):
            # It becomes a path, and destroying removes that path with all below it.
            raise Bug(f"amphora id {amphora_id!r} is not a UUID in lower case")
        self.path = machines / amphora_id

    def exists(self) -> bool:
        return self.path.is_dir()

    @contextmanager
    def locked(self, *, make: bool = True) -> Iterator[bool]:
        """Hold the directory alone, making it if it is missing; or, without `make`, give False if it is. Blocks while
        another holds it."""
        while True:
            if make:
                self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                self.path.mkdir(mode=0o700, exist_ok=True)
            try:
                handle = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
            except FileNotFoundError:
                if make:
                    continue  # destroyed between the two lines
                yield False
                return
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
                if self._is_still(handle):
                    yield True
                    return
            finally:
                os.close(handle)

    def _is_still(self, handle: int) -> bool:
        """Whether the directory that is held is the one under this name: it may have been removed while we waited."""
        try:
            return os.path.samestat(os.fstat(handle), self.path.stat())
        except FileNotFoundError:
            return False

    def write(self, name: str, content: bytes) -> None:
        """Private, and whole or not at all."""
        scratch = self.path / f".{name}.new"
        handle = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        scratch.replace(self.path / name)

    def process(self) -> int | None:
        """The pid of the machine, if it runs and was started from here."""
        try:
            pid = int((self.path / PID_FILE).read_text().split()[0])
        except (OSError, ValueError, IndexError):
            return None
        return pid if _pid_file_of(pid) == self.path / PID_FILE else None

    def note_tap(self, name: str) -> None:
        """Written before the tap is made, so that it is found whenever we are killed."""
        (self.path / _PORTS).mkdir(mode=0o700, exist_ok=True)
        (self.path / _PORTS / name).touch(mode=0o600)

    def forget_tap(self, name: str) -> None:
        (self.path / _PORTS / name).unlink(missing_ok=True)

    def taps(self) -> tuple[str, ...]:
        try:
            return tuple(sorted(x.name for x in (self.path / _PORTS).iterdir()))
        except FileNotFoundError:
            return ()

    def management_address(self) -> str | None:
        """What was written down at the last build."""
        try:
            return (self.path / _ADDRESS).read_text() or None
        except FileNotFoundError:
            return None

    def write_management_address(self, address: str) -> None:
        self.write(_ADDRESS, address.encode())

    def trim_console(self) -> None:
        """QEMU holds the file open for appending, so it is cut in place."""
        with suppress(FileNotFoundError):
            path = self.path / CONSOLE
            if path.stat().st_size > CONSOLE_LIMIT:
                with path.open("r+b") as log:
                    log.seek(-CONSOLE_LIMIT // 2, os.SEEK_END)
                    kept = log.read()
                    log.seek(0)
                    log.truncate()
                    log.write(kept)

    def remove(self) -> None:
        """Take the directory away with all in it. The machine is no more."""
        with suppress(FileNotFoundError):
            shutil.rmtree(self.path)


def machines_in(machines: Path) -> tuple[AmphoraId, ...]:
    """The amphorae that have a directory, finished or not."""
    try:
        return tuple(AmphoraId(entry.name) for entry in os.scandir(machines) if _UUID.fullmatch(entry.name))
    except FileNotFoundError:
        return ()


def running_in(machines: Path) -> dict[AmphoraId, list[int]]:
    """Every process that was started as a machine of this state directory, directory or not."""
    found: dict[AmphoraId, list[int]] = {}
    for entry in os.scandir("/proc"):
        if not entry.name.isdecimal():
            continue
        path = _pid_file_of(int(entry.name))
        if path is not None and path.parent.parent == machines:
            found.setdefault(AmphoraId(path.parent.name), []).append(int(entry.name))
    return found


def _pid_file_of(pid: int) -> Path | None:
    """Where this process was told to write its pid; None for another program, and for one that is no more."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return None
    if b"-pidfile" not in words or b"-daemonize" not in words:
        return None
    return Path(os.fsdecode(words[words.index(b"-pidfile") + 1]))
