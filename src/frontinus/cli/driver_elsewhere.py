"""Render once in a process of its own: `python -m frontinus.cli.driver_elsewhere`, fed by driver_bench.py alone."""

from __future__ import annotations

import pickle
import sys


def main() -> None:
    """Read who is to render what, in pickles of our own parent's; print the digest."""
    path, content = _parts(sys.stdin.buffer.read())
    sys.path[:] = path
    driver, settings, tree, amphora = pickle.loads(content)  # noqa: S301 - from the process that started this one
    made = driver() if settings is None else driver(settings)
    sys.stdout.write(made.render(tree, amphora).digest)


def _parts(sent: bytes) -> tuple[list[str], bytes]:
    path, content = pickle.loads(sent)  # noqa: S301 - likewise
    return path, content


if __name__ == "__main__":
    main()
