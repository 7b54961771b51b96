"""The directory of an amphora: <state_dir>/amphorae/<amphora id>/, for its owner's eyes only.

Laid down file by file, each whole or not at all; a crash leaves a directory that the next build finishes. A lock on
the directory itself keeps two builders (or a builder and a destroyer) apart, also in different processes."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from frontinus.drivers.compute.host.processes import Process
from frontinus.model.boot import BootFiles
from frontinus.model.errors import Bug
from frontinus.model.ids import AmphoraId

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_MEMORY_PREFIX, _TAG = "frontinus-", ".of"
LOG_KEPT = 256 * 1024
"""Bytes of an agent's log that survive a trim."""
LOG_LIMIT = 4 * LOG_KEPT
"""Bytes at which a log is trimmed. It can be longer between two looks at its amphora."""


class PlaceDirectory:
    """Paths and files of one amphora. Knows nothing of processes but what the pid file says."""

    def __init__(self, amphorae: Path, amphora_id: AmphoraId, memory: Path | None = None) -> None:
        """`memory` is a directory on a tmpfs, which may be everybody's; None: this machine has none."""
        if not _UUID.fullmatch(amphora_id):
            # It becomes a path, and destroying removes that path with all below it.
            raise Bug(f"amphora id {amphora_id!r} is not a UUID in lower case")
        self.path = amphorae / amphora_id
        self.config = self.path / "agent.conf"
        self.log = self.path / "agent.log"
        # Without memory the agent is told a directory on disk, and says what is wrong when it is sent a key.
        self.memory = self.path / "certs" if memory is None else memory / f"{_MEMORY_PREFIX}{amphora_id}"
        # Whose the memory is, its name does not say: beside it lies a link to the place, which is found without the place.
        self._memory_tag = None if memory is None else memory / f"{_MEMORY_PREFIX}{amphora_id}{_TAG}"
        self._pid_file = self.path / "agent.pid"

    def exists(self) -> bool:
        return self.path.is_dir()

    @contextmanager
    def locked(self) -> Iterator[bool]:
        """Hold the directory alone, making it if it is missing; gives whether it was made just now. Blocks while
        another holds it. Whoever destroys makes it too: otherwise somebody could build meanwhile."""
        while True:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                self.path.mkdir(mode=0o700)
                made = True
            except FileExistsError:
                made = False
            try:
                handle = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
            except FileNotFoundError:
                continue  # destroyed between the two lines
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
                if self._is_still(handle):
                    # Another may have held it first, and died in the middle of its work.
                    yield made and not any(self.path.iterdir())
                    return
            finally:
                os.close(handle)

    def _is_still(self, handle: int) -> bool:
        """Whether the directory that is held is the one under this name: it may have been removed while we waited."""
        try:
            return os.path.samestat(os.fstat(handle), self.path.stat())
        except FileNotFoundError:
            return False

    def lay_down(self, boot: BootFiles) -> None:
        """Write the boot files. Raises Bug for a path that leads out of the place, OSError for a directory in memory
        that somebody else has made."""
        self._make_memory()
        for relative, content in boot.files.items():
            pure = PurePosixPath(relative)
            if pure.is_absolute() or ".." in pure.parts or not pure.parts:
                raise Bug(f"boot file {relative!r} does not lie inside its place")
            target = self.path / pure
            if len(pure.parts) > 1:
                target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            text = content
            if pure.suffix == ".conf":
                text = content.replace(b"{place}", os.fsencode(self.path))
                text = text.replace(b"{memory}", os.fsencode(self.memory))
            _write(target, text)

    def _make_memory(self) -> None:
        if self._memory_tag is not None:
            with suppress(
                FileExistsError
            ):  # ours, or somebody took the name: then it tells nothing, and misleads nobody
                self._memory_tag.symlink_to(self.path)
        self.memory.mkdir(mode=0o700, exist_ok=True)
        found = self.memory.lstat()
        # Its name is no secret, and its parent is everybody's.
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise PermissionError(f"{self.memory} is there already, and not ours alone; remove it")

    def read_agent(self) -> Process | None:
        """The process that was last started as agent, as far as that was written down."""
        try:
            pid, started = self._pid_file.read_text().split()
            return Process(int(pid), int(started))
        except (OSError, ValueError):  # none yet, or not ours
            return None

    def write_agent(self, agent: Process) -> None:
        _write(self._pid_file, f"{agent.pid} {agent.started}\n".encode())

    def pids_written_inside(self) -> Iterator[int]:
        """What the pid files of the agent's services claim: hints, to be proved. Two levels deep, as the agent's files
        are."""
        for pattern in ("*/*.pid", "*/*/*.pid"):
            for path in self.path.glob(pattern):
                try:
                    yield int(path.read_text().split()[0])
                except (OSError, ValueError, IndexError):
                    continue

    def trim_log(self) -> None:
        """Keep the end of a log that has grown too long. A line that is written meanwhile can be lost."""
        try:
            if self.log.stat().st_size <= LOG_LIMIT:
                return
            with self.log.open("r+b") as log:
                log.seek(-LOG_KEPT, os.SEEK_END)
                kept = log.read()
                # In place, because the agent holds this file open for appending.
                log.seek(0)
                log.truncate()
                log.write(kept[kept.find(b"\n") + 1 :])
        except FileNotFoundError:
            return

    def remove(self) -> None:
        """Take the directory away with all in it. Nothing may run in it any more."""
        with suppress(FileNotFoundError):
            shutil.rmtree(self.memory)
        if self._memory_tag is not None and _leads_to(self._memory_tag, self.path):
            self._memory_tag.unlink(missing_ok=True)
        with suppress(FileNotFoundError):
            shutil.rmtree(self.path)


def amphorae_in(amphorae: Path) -> tuple[AmphoraId, ...]:
    """The amphorae that have a directory, finished or not."""
    try:
        return tuple(AmphoraId(entry.name) for entry in os.scandir(amphorae) if _UUID.fullmatch(entry.name))
    except FileNotFoundError:
        return ()


def amphorae_in_memory(memory: Path, amphorae: Path) -> tuple[AmphoraId, ...]:
    """The amphorae of these places that have a directory in memory, or once had, whether the place is still there or not."""
    ids = (x.name.removeprefix(_MEMORY_PREFIX).removesuffix(_TAG) for x in memory.glob(f"{_MEMORY_PREFIX}*{_TAG}"))
    return tuple(
        AmphoraId(x)
        for x in ids
        if _UUID.fullmatch(x) and _leads_to(memory / f"{_MEMORY_PREFIX}{x}{_TAG}", amphorae / x)
    )


def _leads_to(tag: Path, place: Path) -> bool:
    """Whether it is a link to this place that we have made: the directory is everybody's."""
    try:
        return tag.lstat().st_uid == os.geteuid() and os.readlink(tag) == str(place)  # noqa: PTH115 - a word, not a path
    except OSError:
        return False


def _write(path: Path, content: bytes) -> None:
    """Private, and whole or not at all. Not flushed to the disk: after a power cut the place is built again."""
    scratch = path.with_name(f".{path.name}.new")
    handle = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        scratch.replace(path)
    except OSError:
        scratch.unlink(missing_ok=True)
        raise
