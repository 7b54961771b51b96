"""Links, addresses and filters of this machine, through `ip` (iproute2) and `nft` (nftables). Shared by the drivers whose
networks and places are on this machine; knows nothing of what they are for.

Words go as a list or, many at once, as lines of `ip`'s batch mode; every word of a line is checked, so that no line can
become two. No shell. Blocks for some milliseconds: call it from a thread. Raises Retry, with what the program said."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from typing import Any

from frontinus.model.errors import Bug, Retry
from frontinus.model.findings import Finding, fine, trouble

_WORD = re.compile(r"[A-Za-z0-9_.:/@-]+")
_TIMEOUT_S = 20.0
_SYSTEM_DIRECTORIES = "/usr/local/sbin:/usr/sbin:/sbin"
_RETRY_AFTER_S = 5.0
_PACKAGES = {"ip": "iproute2", "nft": "nftables"}


class Refused(Retry):
    """The program ran, and the kernel or it did not want to."""


def ask(*words: str, namespace: str | None = None) -> list[dict[str, Any]]:
    """The rows of a `show` or `list`."""
    text = _run("ip", (*_inside(namespace), "-json", *words), "")
    return [row for row in (json.loads(text) if text.strip() else []) if row]


def change(commands: Sequence[Sequence[str]], *, namespace: str | None = None, family: int | None = None) -> None:
    """Carry out commands of `ip` in order, until one fails."""
    for words in commands:
        for word in words:
            if not _WORD.fullmatch(word):
                raise Bug(f"{word!r} is no word for ip")
    if commands:
        option = () if family is None else (f"-{family}",)
        _run("ip", (*_inside(namespace), *option, "-batch", "-"), "".join(" ".join(x) + "\n" for x in commands))


def link_exists(name: str, *, namespace: str | None = None) -> bool:
    return any(row.get("ifname") == name for row in links(namespace=namespace))


def links(*, namespace: str | None = None) -> list[dict[str, Any]]:
    """Every link, as `ip -json link show` tells of it."""
    return ask("link", "show", namespace=namespace)


def filter_with(script: str) -> None:
    """Carry out a script of nftables: all of it or nothing. What is in it, the caller has checked."""
    _run("nft", ("-f", "-"), script)


def examine(name: str) -> Iterator[Finding]:
    """Whether `ip` or `nft` is here, and whether we may change anything by it."""
    program = _find(name)
    if program is None:
        yield trouble(name, "not installed", f"apt-get install {_PACKAGES[name]}")
        return
    yield fine(name, program)
    if os.geteuid() != 0:
        yield trouble("privileges", "networks and namespaces need root", "run as root")


def _inside(namespace: str | None) -> tuple[str, ...]:
    return () if namespace is None else ("-n", namespace)


def _run(name: str, words: Sequence[str], text: str) -> str:
    program = _find(name)
    if program is None:
        raise Retry(f"{name} is not installed: apt-get install {_PACKAGES[name]}", after=2.0, code="network-tools")
    try:
        done = subprocess.run(
            (program, *words), input=text, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Retry(f"{name} cannot be run: {error}", after=_RETRY_AFTER_S, code="network-tools") from error
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip())[:1000]
        advice = "; this needs root (CAP_NET_ADMIN)" if "not permitted" in said else ""
        raise Refused(f"{name} refused: {said}{advice}", after=_RETRY_AFTER_S, code="network-tools")
    return done.stdout


def _find(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:{_SYSTEM_DIRECTORIES}")
