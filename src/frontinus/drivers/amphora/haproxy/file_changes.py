"""Certificates, authorities and revocation lists that change while HAProxy runs, as runtime commands. Pure.

Old contents are not known, only their digests: keys are not kept in a controller's memory. What was in a list of
certificates is found by trying what it can have been, and its digest proves it. Commands: HAProxy management guide 9.3
(set ssl cert, commit ssl cert, add ssl crt-list, set ssl ca-file, ...). Next: diff.py."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping

import msgspec
from cryptography import x509
from cryptography.x509.oid import NameOID

from frontinus.drivers.amphora.agent.files import NOT_HAPROXYS, FileMark, Live, marks
from frontinus.drivers.amphora.haproxy.tls import AUTHORITIES, CERTIFICATE, LIST, REVOCATIONS
from frontinus.drivers.amphora.interface import Rendered

LARGEST_PAYLOAD = 15_000
"""HAProxy takes a command of at most one buffer, 16 KiB unless it was built otherwise; what is larger takes a reload."""

_STORES = {CERTIFICATE: "cert", AUTHORITIES: "ca-file", REVOCATIONS: "crl-file"}
_WORDS = {AUTHORITIES: "ca-file", REVOCATIONS: "crl-file"}

Loaded = frozenset[tuple[str, str]]
"""Pairs of keyword and path in the `bind` and `server` lines of what runs."""


class FileCommands(msgspec.Struct, frozen=True):
    """`first` before servers come, `last` after they went."""

    first: tuple[str, ...] = ()
    last: tuple[str, ...] = ()


def file_commands(old: Live, new: Rendered, loaded: Loaded) -> FileCommands | None:
    """What brings the files of `old` to those of `new` in a HAProxy whose lines stay as they are; None if that cannot be
    done while it runs."""
    before = {x.name: x for x in old.files if x.name not in NOT_HAPROXYS}
    after = {x.name: x for x in marks(new.files) if x.name not in NOT_HAPROXYS}
    contents = {x.name: x.content for x in new.files}
    directory = next((path.rpartition("/")[0] for _, path in loaded), None)
    if directory is None:
        return FileCommands()  # nothing is read from any file
    first: list[str] = []
    last: list[str] = []
    lists = {name: _entries(contents[name]) for name in after if name.startswith(LIST)}
    olden: dict[str, list[str]] = {}
    for name, entries in lists.items():
        found = (
            entries
            if before.get(name) == after[name]
            else _reconstructed(entries, before.get(name), old, after, directory)
        )
        if found is None or found[:1] != entries[:1]:
            return None  # who has the first place serves whoever names no one, and cannot be exchanged
        moved = [x for x in sorted(entries) if x in found and _differ(before, after, x)]
        if not _keeps_order(entries, [*moved, *(x for x in entries if x not in found)], contents):
            return None
        olden[name] = found
    in_use = {path for entries in olden.values() for path in entries} | {path for word, path in loaded if word == "crt"}
    kept = {path for entries in lists.values() for path in entries} | {path for word, path in loaded if word == "crt"}
    for name in sorted(before.keys() & after.keys()):
        prefix = next((x for x in _STORES if name.startswith(x)), None)
        path = f"{directory}/{name}"
        if before[name] == after[name] or prefix is None:
            continue
        if path in in_use if prefix == CERTIFICATE else (_WORDS[prefix], path) in loaded:
            first += _stored(_STORES[prefix], path, contents[name])
    for name, entries in lists.items():
        for path in (x for x in entries if x not in olden[name]):
            if path not in in_use:
                first += [f"new ssl cert {path}", *_stored("cert", path, contents[path.rpartition("/")[2]])]
                in_use.add(path)
            first.append(f"add ssl crt-list {directory}/{name} {path}")
        last += [f"del ssl crt-list {directory}/{name} {path}" for path in olden[name] if path not in entries]
    last += [f"del ssl cert {path}" for path in sorted(in_use - kept)]
    if any(len(command) > LARGEST_PAYLOAD for command in first):
        return None
    return FileCommands(tuple(first), tuple(last))


def _stored(store: str, path: str, content: bytes) -> list[str]:
    return [f"set ssl {store} {path} <<\n{content.decode()}", f"commit ssl {store} {path}"]


def _differ(before: Mapping[str, FileMark], after: Mapping[str, FileMark], path: str) -> bool:
    name = path.rpartition("/")[2]
    return before.get(name) != after.get(name)


def _keeps_order(entries: list[str], moved: list[str], contents: Mapping[str, bytes]) -> bool:
    """Whether a name that several certificates of a list have is served by the one that a start would choose, the first: what
    HAProxy loads while it runs, an old certificate's new content too, stands behind the others."""
    if not moved or len(entries) < 2:
        return True
    placed = {path: place for place, path in enumerate([*(x for x in entries if x not in moved), *moved])}
    having: dict[str, list[int]] = defaultdict(list)
    try:
        for path in entries:
            for name in _names(contents[path.rpartition("/")[2]]):
                having[name].append(placed[path])
    except ValueError:
        return False  # names that we cannot read
    return all(places == sorted(places) for places in having.values())


def _names(content: bytes) -> set[str]:
    """What HAProxy chooses a certificate by."""
    certificate = x509.load_pem_x509_certificate(content)
    names = [str(x.value) for x in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    for extension in certificate.extensions:
        if isinstance(extension.value, x509.SubjectAlternativeName):
            names += extension.value.get_values_for_type(x509.DNSName)
    return {name.lower() for name in names}


def _entries(content: bytes) -> list[str]:
    return content.decode().splitlines()


def _reconstructed(
    entries: list[str], mark: FileMark | None, old: Live, after: dict[str, FileMark], directory: str
) -> list[str] | None:
    """The entries that the list had, if they can be told: less what has come, and with one that has gone at the place
    where it was."""
    if mark is None:
        return None
    known = {f"{directory}/{x.name}" for x in old.files}
    gone = [f"{directory}/{x.name}" for x in old.files if x.name.startswith(CERTIFICATE) and x.name not in after]
    return next((x for x in _candidates(entries, known, gone) if _sha256(x) == mark.sha256), None)


def _candidates(entries: list[str], known: set[str], gone: list[str]) -> Iterator[list[str]]:
    stayed = [path for path in entries if path in known]
    yield stayed
    for path in gone:
        for place in range(len(stayed) + 1):
            yield [*stayed[:place], path, *stayed[place:]]


def _sha256(entries: list[str]) -> str:
    return hashlib.sha256("".join(f"{path}\n" for path in entries).encode()).hexdigest()
