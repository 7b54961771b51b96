"""The migrations, packaged with the code that needs them: which there are, and which a database lacks.

versions/ holds one module per step, each of which is never changed once released; online.py is what they may use. Read
here as files: Alembic is loaded only by whoever upgrades (run.py), because every part asks at its start, which should be
quick after a death. tests/unit/store/test_migrations.py sees that the steps are one line, numbered without a gap."""

from __future__ import annotations

from pathlib import Path

LOCK_WAIT_S = 2
"""So long a step waits for a table, and everybody who comes after it waits behind it. Then it is tried again."""

VERSIONS = Path(__file__).parent / "versions"


def missing_after(reached: str | None) -> tuple[str, ...] | None:
    """The steps that a database lacks which has come so far (None: nothing was ever made in it), the next one first; None
    when a newer version of Frontinus has upgraded it."""
    files = {path.name[:4]: path for path in sorted(VERSIONS.glob("[0-9]*.py"))}
    if reached is not None and reached not in files:
        return None
    return tuple(f"{number} {_purpose(path)}" for number, path in files.items() if reached is None or number > reached)


def _purpose(path: Path) -> str:
    """The first line of the module's docstring."""
    return path.read_text(encoding="utf-8").split('"""', 2)[1].splitlines()[0]
