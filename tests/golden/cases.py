"""The cases beside this file, as values."""

from __future__ import annotations

from pathlib import Path

import msgspec

from frontinus.model.tree import LoadBalancerTree

HERE = Path(__file__).parent
CASES = sorted(path.parent for path in HERE.glob("*/model.json"))


FILES = "files"
"""A directory of a case: the files beside its text that are no secret."""


def tree_of(case: Path) -> LoadBalancerTree:
    return msgspec.json.decode((case / "model.json").read_bytes(), type=LoadBalancerTree)
