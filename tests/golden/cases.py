"""The cases beside this file, as values."""

from __future__ import annotations

from pathlib import Path

import msgspec

from frontinus.drivers.amphora.haproxy.versions import Version, version_of
from frontinus.model.tree import LoadBalancerTree

HERE = Path(__file__).parent
CASES = sorted(path.parent for path in HERE.glob("*/model.json"))


FILES = "files"
"""A directory of a case: the files beside its text that are no secret."""


VERSION = "version"
"""A file of a case: the HAProxy that it is rendered for, where it is not the presumed one."""


def version_of_case(case: Path) -> Version:
    file = case / VERSION
    return version_of(file.read_text() if file.exists() else None)


def tree_of(case: Path) -> LoadBalancerTree:
    return msgspec.json.decode((case / "model.json").read_bytes(), type=LoadBalancerTree)
