"""What documents say is there is there, and no file says where its author sat.

The words that no file may contain are put together here, so that this file does not contain them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

TOP = Path(__file__).parents[3]

LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"^```.*?^```|^    .*?$|`[^`\n]*`", re.MULTILINE | re.DOTALL)
FOREIGN = re.compile(r"^[a-z][a-z0-9+.-]*:", re.IGNORECASE)

REGISTRY_HOSTS = [
    ".".join(parts)
    for parts in [
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("deb", "debian", "org"),
        ("security", "debian", "org"),
        ("archive", "ubuntu", "com"),
        ("npmjs", "org"),
        ("npmjs", "com"),
        ("docker", "io"),
        ("proxy", "golang", "org"),
        ("crates", "io"),
    ]
]
# Directories of one machine; a path is private where nothing but punctuation stands before it.
PRIVATE_PATH = re.compile(
    r"(?:^|[^\w.~/$}-])/(?:" + "|".join(["wo" + "rk", "fa" + "rm", "ro" + "ot"]) + r")/\w", re.MULTILINE
)
FORBIDDEN = re.compile("|".join([*map(re.escape, REGISTRY_HOSTS)]), re.IGNORECASE)


def committed_files() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=TOP, check=True, capture_output=True, text=True).stdout
    return [TOP / name for name in listed.split("\0") if name and (TOP / name).is_file()]


def documents() -> list[Path]:
    return [path for path in committed_files() if path.suffix == ".md"]


def headings(document: Path) -> set[str]:
    """The fragments that a Markdown document offers, as the usual renderers make them."""
    found = re.findall(r"^#+\s+(.*)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in found}


def test_internal_links_lead_somewhere() -> None:
    broken = []
    for document in documents():
        for target in LINK.findall(CODE.sub("", document.read_text())):
            if FOREIGN.match(target):
                continue
            path, _, fragment = target.partition("#")
            there = (document.parent / path).resolve() if path else document
            if not there.exists() or (fragment and there.suffix == ".md" and fragment not in headings(there)):
                broken.append(f"{document.relative_to(TOP)}: {target}")
    assert broken == []


def test_the_house_has_the_rooms_that_are_told_and_no_others() -> None:
    house = TOP / "src/frontinus"
    table = (TOP / "docs/architecture.md").read_text().partition("| room in `src/frontinus/` |")[2].partition("\n\n")[0]
    told = {
        name for row in table.splitlines() for name in re.findall(r"`([\w.]+)/?`", row.split("|")[1] if row else "")
    }
    there = {path.relative_to(house).parts[0] for path in committed_files() if path.is_relative_to(house)}
    assert told == there - {"__init__.py", "py.typed"}


def test_every_file_to_open_first_is_there() -> None:
    text = (TOP / "docs/architecture.md").read_text()
    house = TOP / "src/frontinus"
    named = [house / "controller/reconcile.py"]
    for room, files in re.findall(r"^\| `(\w+)/` \| .* \| (.*) \|$", text, re.MULTILINE):
        named += [house / room / name for name in re.findall(r"`([\w/]+\.py)`", files)]
    assert len(named) > 6
    assert [str(path.relative_to(TOP)) for path in named if not path.is_file()] == []


def test_no_file_names_a_registry_or_a_private_path() -> None:
    found = []
    for path in committed_files():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        for pattern in (FORBIDDEN, PRIVATE_PATH):
            found += [f"{path.relative_to(TOP)}: {match.group().strip()}" for match in pattern.finditer(text)]
    assert found == []


@pytest.mark.parametrize(
    "text, private",
    [
        pytest.param("see /ro" + "ot/notes", True, id="a home"),
        pytest.param('path = "/wo' + 'rk/main"', True, id="quoted"),
        pytest.param("../wo" + "rk/main", False, id="relative"),
        pytest.param("http://h/wo" + "rk/x", False, id="inside a URL"),
        pytest.param("frame" + "wo" + "rk/x", False, id="the end of a longer word"),
    ],
)
def test_private_paths_are_told_from_others(text: str, private: bool) -> None:
    assert bool(PRIVATE_PATH.search(text)) is private


def test_glossary_defines_each_word_once() -> None:
    words = re.findall(r"^\| \*\*(.+?)\*\* \|", (TOP / "docs/glossary.md").read_text(), re.MULTILINE)
    assert sorted(set(words)) == sorted(words)
    assert {"load_balancer", "amphora", "cohort", "lease", "generation", "receipt", "fault"} <= set(words)
