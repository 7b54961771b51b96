"""An installation some of whose controllers have a driver of another version, as while an operator goes from one release to
the next: both are installed, and both run."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.acceptance.fleet import Fleet, Running

ANOTHER = Path(__file__).parent / "another_version.py"


class Versions(Fleet):
    """A Fleet that also starts controllers of other versions (another_version.py)."""

    def start_version(self, version: str, kind: str) -> Running:
        self._add(("another", version, kind, "controller", "--driver", "haproxy"), 0)
        return self.parts[-1]

    def _spawn(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        if command[0] != "another":
            return super()._spawn(command)
        where = ["--config", str(self._config), "--state-dir", str(self.state_dir)]
        with (self.directory / "fleet.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, str(ANOTHER), *command[1:], *where],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
