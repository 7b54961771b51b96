"""The files beside a configuration: private ones (keys) in memory, the others on disk, each a set that changes as a whole.

There are up to three sets of a load balancer: the one on disk beside its haproxy.cfg, a new one that is being tried,
and the last one that is known to run. Sets share unchanged files by hard links. A manifest says what belongs to the
set, and to which text; after a restart of the machine the keys are gone and the manifest is not, so that the agent
knows that it must be pushed to. It knows nothing of haproxy. Next: load_balancer.py.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable
from typing import NamedTuple

from frontinus_amphora import files
from frontinus_amphora.errors import AgentError

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")
LIVE, NEW, LAST, OLD = "", ".new", ".last", ".old"
IN_MEMORY = frozenset({"tmpfs", "ramfs"})


class Companion(NamedTuple):
    """A file of a configuration. `content` is None when it is not sent because it should be here already."""

    name: str
    sha256: str  # of its content, in hexadecimal
    private: bool
    content: bytes | None = None


class Manifest(NamedTuple):
    """Which files a text has beside it."""

    config: str  # sha256 of the text
    companions: tuple[Companion, ...] = ()


class ContentsMissing(AgentError):
    """Files were named without their content, and are not here."""

    status = 409

    def __init__(self, current: str | None, names: Iterable[str]) -> None:
        super().__init__("contents missing")
        self.body = {"current": current, "missing": sorted(names)}


class NotInMemory(AgentError):
    """There is no place where private files may be."""

    status = 500

    def __init__(self, directory: str) -> None:
        super().__init__(
            "no memory-backed directory for private files",
            f"{directory} is on a disk, and keys may not be; set [haproxy_amphora] base_cert_dir to a directory on a "
            "tmpfs, or mount one there",
        )


def digest(config: str, companions: Iterable[Companion]) -> str:
    """What a text with its files is known by: the text's own SHA-256 where it has none."""
    text = hashlib.sha256(config.encode()).hexdigest()
    marks = sorted(_mark(each) for each in companions)
    lines = [f"{name} {sha256} {'private' if private else 'public'}\n" for name, sha256, private in marks]
    return hashlib.sha256("".join((f"{text}\n", *lines)).encode()).hexdigest() if lines else text


def _mark(companion: Companion) -> tuple[str, str, bool]:
    return companion.name, companion.sha256, companion.private


def in_memory(directory: str) -> bool:
    """True when what is written there never reaches a disk (but for swap)."""
    device = os.stat(directory).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in (files.read("/proc/self/mountinfo") or b"").decode("utf-8", "replace").splitlines():
        words = line.split()
        if words[2] == number:
            return words[words.index("-") + 1] in IN_MEMORY
    return False


class Companions:
    """Of one load balancer; one thread at a time.

    `private` is a directory of this load balancer in memory, `public` one on disk; neither need exist. `manifest` is a
    file's path, `trial` a directory's: laid out so that paths relative to it lead to the new set."""

    def __init__(self, private: str, public: str, manifest: str, trial: str, links: dict[str, str]) -> None:
        """`links`: the path below `trial` for each of "private" and "public"."""
        self._directories = {True: private, False: public}
        self._manifest = manifest
        self._trial = trial
        self._links = {True: links["private"], False: links["public"]}
        self._seen: dict[str, tuple[tuple[int, int, int], str]] = {}  # path -> version of the file, its sha256

    def manifest(self) -> Manifest | None:
        """Of the set beside the text on disk; None when there never was one."""
        return self._read_manifest(LIVE)

    def public(self, *, new: bool = False) -> str:
        """The directory of the files that are not private: those on disk, or the new set."""
        return f"{self._directories[False]}{NEW if new else LIVE}"

    def are_here(self, manifest: Manifest) -> bool:
        """Whether every file is here, as the manifest says."""
        return all(self._sha256(self._path(each, LIVE)) == each.sha256 for each in manifest.companions)

    def differ(self, companions: Iterable[Companion]) -> bool:
        """Whether this is another set than the one here."""
        current = self.manifest()
        here = frozenset() if current is None else frozenset(_mark(each) for each in current.companions)
        return here != frozenset(_mark(each) for each in companions)

    def lay_out(self, companions: tuple[Companion, ...], current: str | None) -> str:
        """Make the new set; the directory in which relative paths lead to it. Raises ContentsMissing, NotInMemory."""
        missing = []
        self._remove(NEW)
        for private, directory in self._directories.items():
            files.make_directory(f"{directory}{NEW}")
            if private and any(each.private for each in companions) and not in_memory(f"{directory}{NEW}"):
                raise NotInMemory(directory)
        for each in companions:
            path = self._path(each, NEW)
            if each.content is not None:
                files.write_atomically(path, each.content, durable=not each.private)
            elif self._sha256(self._path(each, LIVE)) == each.sha256:
                os.link(self._path(each, LIVE), path)
            else:
                missing.append(each.name)
        if missing:
            self._remove(NEW)
            raise ContentsMissing(current, missing)
        for private, link in self._links.items():
            place = f"{self._trial}/{link}"
            files.make_directory(os.path.dirname(place))
            files.remove(place)
            os.symlink(f"{self._directories[private]}{NEW}", place)
        return self._trial

    def swap_in(self, manifest: Manifest) -> None:
        """The new set becomes the one on disk; what is no longer named is gone. Without a new set, the files stay."""
        if os.path.isdir(f"{self._directories[False]}{NEW}"):
            for directory in self._directories.values():
                files.remove_tree(f"{directory}{OLD}")
                if os.path.isdir(directory):
                    os.rename(directory, f"{directory}{OLD}")
                os.rename(f"{directory}{NEW}", directory)
            self._remove(OLD)
        self._write_manifest(manifest, LIVE)

    def mend(self) -> None:
        """An agent before us ended amid `swap_in`: what it had moved aside, and put nothing in its place, goes back."""
        for directory in self._directories.values():
            if os.path.isdir(f"{directory}{OLD}") and not os.path.isdir(directory):
                os.rename(f"{directory}{OLD}", directory)

    def keep_last(self) -> None:
        """What is on disk is known to run: keep it until the next is."""
        current, last = self._read_manifest(LIVE), self._read_manifest(LAST)
        if current != last:
            self._copy(LIVE, LAST)

    def restore_last(self) -> None:
        """Put back what was kept."""
        self._copy(LAST, LIVE)

    def put_back(self, config: str) -> None:
        """Put back what was kept, if it belongs to the text of this SHA-256."""
        last = self._read_manifest(LAST)
        if last is not None and last.config == config:
            self._copy(LAST, LIVE)

    def forget_last(self) -> None:
        """What was kept is needed no more, its keys least of all."""
        self._remove(LAST)
        files.remove(f"{self._manifest}{LAST}")

    def drop_new(self) -> None:
        """The new set is not wanted."""
        self._remove(NEW)

    def remove(self) -> None:
        """Leave nothing behind. Safe to repeat."""
        for suffix in (LIVE, NEW, LAST, OLD):
            self._remove(suffix)
            files.remove(f"{self._manifest}{suffix}")

    def _copy(self, source: str, target: str) -> None:
        manifest = self._read_manifest(source)
        self._remove(target)
        if manifest is None:
            files.remove(f"{self._manifest}{target}")
            return
        for directory in self._directories.values():
            files.make_directory(f"{directory}{target}")
        for each in manifest.companions:
            if os.path.exists(self._path(each, source)):
                os.link(self._path(each, source), self._path(each, target))
        self._write_manifest(manifest, target)

    def _remove(self, suffix: str) -> None:
        for directory in self._directories.values():
            files.remove_tree(f"{directory}{suffix}")

    def _path(self, companion: Companion, suffix: str) -> str:
        return f"{self._directories[companion.private]}{suffix}/{companion.name}"

    def _sha256(self, path: str) -> str | None:
        """Of a file's content, which is read anew only when the file is another."""
        try:
            status = os.stat(path)
        except OSError:
            self._seen.pop(path, None)
            return None
        version = (status.st_ino, status.st_mtime_ns, status.st_size)
        known = self._seen.get(path)
        if known is None or known[0] != version:
            self._seen[path] = known = (version, hashlib.sha256(files.read(path) or b"").hexdigest())
        return known[1]

    def _read_manifest(self, suffix: str) -> Manifest | None:
        """A torn or foreign one counts as none: then the text's digest does not fit, and a push is asked for."""
        content = files.read(f"{self._manifest}{suffix}")
        if content is None:
            return None
        try:
            value = json.loads(content)
            rows = [Companion(str(row["name"]), str(row["sha256"]), bool(row["private"])) for row in value["files"]]
            return Manifest(str(value["config"]), tuple(rows))
        except (ValueError, KeyError, TypeError):
            return Manifest("")

    def _write_manifest(self, manifest: Manifest, suffix: str) -> None:
        if not manifest.companions:
            files.remove(f"{self._manifest}{suffix}")
            return
        rows = [{"name": each.name, "sha256": each.sha256, "private": each.private} for each in manifest.companions]
        content = json.dumps({"config": manifest.config, "files": rows}).encode()
        files.write_atomically(f"{self._manifest}{suffix}", content, durable=True)
