"""What drivers of several kinds ask of a machine when they are examined. Blocks: call it from a thread."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence

from frontinus.model.findings import Finding, fine, trouble

TIMEOUT_S = 5


def version_of(subject: str, command: Sequence[str], pattern: str, oldest: tuple[int, int]) -> Finding:
    """Which version a program says that it is; trouble when it does not run or is older than `oldest`."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return trouble(subject, f"{command[0]} does not run: {error}", "install it anew")
    found = re.search(pattern, done.stdout + done.stderr)
    if found is None:
        return trouble(subject, f"{' '.join(command)} tells no version", "install it anew")
    numbers = tuple(int(part) for part in re.findall(r"\d+", found[1])[:2])
    if numbers < oldest:
        needed = ".".join(map(str, oldest))
        return trouble(subject, f"{command[0]} is {found[1]}", f"install {needed} or later")
    return fine(subject, f"{found[1]} ({command[0]})")
