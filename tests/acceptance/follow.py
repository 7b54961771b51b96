"""A document's commands, read out of its fenced blocks and carried out in one shell, in the document's order.

A block begins with ```sh, and may say of what kind it is (```sh on-host). What a test cannot have is replaced text by text, and
lines that cannot be carried out are left out; whoever follows a document lists both where they can be read."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

_BLOCK = re.compile(r"^```sh(?: ([\w-]+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_ENDED = "--- block ended"


@dataclass(frozen=True)
class Block:
    kind: str
    text: str
    line: int


def blocks(document: Path) -> list[Block]:
    text = document.read_text()
    return [Block(x[1] or "", x[2], text.count("\n", 0, x.start()) + 1) for x in _BLOCK.finditer(text)]


@dataclass
class Follower:
    """One shell. Each line of LEFT_OUT is a pattern of lines that are not carried out."""

    directory: Path
    environment: Mapping[str, str]
    substituted: Mapping[str, str]
    left_out: re.Pattern[str]
    told: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._shell = subprocess.Popen(
            ["bash", "-eu", "-o", "pipefail"],
            cwd=self.directory,
            env=dict(self.environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def carry_out(self, block: Block) -> str:
        """What it printed. Fails when a command of it does."""
        return self.run(self.replaced(block.text), f"line {block.line}:\n{block.text}")

    def replaced(self, text: str) -> str:
        for found, by in self.substituted.items():
            text = text.replace(found, by)
        return self.left_out.sub(":", text)

    def run(self, text: str, what: str) -> str:
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        self._shell.stdin.write(f"{text}\necho '{_ENDED}'\n")
        self._shell.stdin.flush()
        said: list[str] = []
        for line in self._shell.stdout:
            if line.strip() == _ENDED:
                self.told += said
                return "".join(said)
            said.append(line)
        raise AssertionError(f"a command failed (status {self._shell.wait()}) in {what}\nit said:\n{''.join(said)}")

    def close(self) -> None:
        """Whatever it is at."""
        self._shell.kill()
        self._shell.wait()
        for pipe in (self._shell.stdin, self._shell.stdout):
            if pipe is not None:
                pipe.close()
