"""The files beside a configuration as driver and agent speak of them: by name and SHA-256, and one digest over text and
files (docs/reference/agent-extension.md). Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import msgspec

from frontinus.drivers.amphora.interface import RenderedFile

FOR_CONNECTIONS, FOR_DATAGRAMS = ("nginx.conf", "nginx.json"), ("datagrams.conf", "datagrams.json")
"""Names of the files, text and outline, that make the agent run nginx (agent-extension.md): one for connections, which
reloads, and one for datagrams, which is replaced by another without losing an answer."""

FOR_LVS = ("lvs.conf", "lvs.json")
"""The same for datagrams that the kernel carries."""

NGINX_FILES = frozenset({*FOR_CONNECTIONS, *FOR_DATAGRAMS})
FILES_BESIDE = NGINX_FILES | {*FOR_LVS}
TEXTS_BESIDE = (FOR_CONNECTIONS[0], FOR_DATAGRAMS[0], FOR_LVS[0])
"""What says how balancers beside HAProxy run."""

KEEPALIVED = "keepalived.conf"
"""The one that makes it run keepalived."""

NOT_HAPROXYS = FILES_BESIDE | {KEEPALIVED}
"""What changes in these costs HAProxy nothing."""


class FileMark(msgspec.Struct, frozen=True, order=True):
    """What is known of a file without its content."""

    name: str
    sha256: str
    private: bool


class Live(msgspec.Struct, frozen=True):
    """What runs on an amphora, as far as it can be told without keys."""

    text: str
    files: tuple[FileMark, ...] = ()

    @property
    def digest(self) -> str:
        return digest(self.text, self.files)


def marks(files: Iterable[RenderedFile]) -> tuple[FileMark, ...]:
    return tuple(FileMark(file.name, hashlib.sha256(file.content).hexdigest(), file.private) for file in files)


def digest(text: str, files: Iterable[FileMark] = ()) -> str:
    """What driver and agent know a configuration by: of the text alone where it has no files, SHA-256 of its UTF-8."""
    of_text = hashlib.sha256(text.encode()).hexdigest()
    lines = [f"{file.name} {file.sha256} {'private' if file.private else 'public'}\n" for file in sorted(files)]
    return hashlib.sha256("".join((f"{of_text}\n", *lines)).encode()).hexdigest() if lines else of_text


def path_of(name: str, load_balancer_id: str, *, private: bool) -> str:
    """Where the agent keeps a file, relative to its base path."""
    return f"certs/{load_balancer_id}/{name}" if private else f"{load_balancer_id}/files/{name}"
