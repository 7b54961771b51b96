"""docs/operations.md tells the truth: every fault code that the code can give is explained, and no other."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

from frontinus.model.errors import Retry

ROOT = Path(__file__).parents[3]
ELSEWHERE = ("testing",)
"""Rooms whose codes nobody but a test sees."""


def codes_in_the_code() -> set[str]:
    """Whatever is passed as `code=` in a call or to the agent client's `_retry`, plus what Retry says by itself."""
    found: set[str] = {inspect.signature(Retry).parameters["code"].default}
    for file in (ROOT / "src" / "frontinus").rglob("*.py"):
        if file.relative_to(ROOT / "src" / "frontinus").parts[0] in ELSEWHERE:
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call):
                if isinstance(node.func, ast.Attribute) and node.func.attr == "_retry":
                    found |= {
                        x.value for x in node.args[1:] if isinstance(x, ast.Constant) and isinstance(x.value, str)
                    }
                found |= {
                    x.value.value
                    for x in node.keywords
                    if x.arg == "code" and isinstance(x.value, ast.Constant) and isinstance(x.value.value, str)
                }
    return found


def test_every_fault_code_is_explained() -> None:
    table = (ROOT / "docs" / "operations.md").read_text().partition("| code |")[2].partition("\n## ")[0]
    explained = set(re.findall(r"^\| `([a-z-]+)` \|", table, re.MULTILINE))
    assert explained == codes_in_the_code()
