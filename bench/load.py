"""A steady load from a process of its own, so that the bench's clock does not wait for its clients.

Usage: python bench/load.py HOST PORT. Runs until its standard input is closed, then prints one JSON object."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.acceptance.support import Load

PAUSE_S = 0.002
"""Between two requests of one client: some 500 requests a second from two clients, which leaves the cores room."""


class SteadyLoad:
    """The load as a child process. `result` has its figures after the `with` block."""

    def __init__(self, host: str, port: int) -> None:
        self._command = [sys.executable, __file__, host, str(port)]
        self.result: dict[str, Any] = {}

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self._process.stdout.readline()  # it says when it has begun
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        output, _ = self._process.communicate(timeout=30)
        self.result = json.loads(output)


def main(host: str, port: int) -> None:
    with Load(host, port, kept=1, fresh=1, pause=PAUSE_S) as load:
        load.more(20)
        print("begun", flush=True)
        sys.stdin.read()
    print(
        json.dumps(
            {"requests": load.total, "failed_requests": len(load.errors), "kept_connections_reopened": load.reopened}
        )
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
