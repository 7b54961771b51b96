"""Controllers that start together on an empty directory end up with one authority."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_racing_processes_get_one_authority(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib, hashlib\n"
        "from frontinus.drivers.amphora.agent.authority import Authority\n"
        "authority = Authority.open(pathlib.Path(sys.argv[1]))\n"
        "print(hashlib.sha256(authority.bundle).hexdigest(), authority.heartbeat_key('a'),"
        " hashlib.sha256(authority.client_pem('me').read_bytes()).hexdigest())\n"
    )
    racers = [
        subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "new")], stdout=subprocess.PIPE)
        for _ in range(4)
    ]
    seen = {racer.communicate(timeout=60)[0] for racer in racers}
    assert len(seen) == 1
    assert all(racer.returncode == 0 for racer in racers)
    assert not [path for path in (tmp_path / "new").iterdir() if path.name.startswith(".ca")]
