"""The unmodified `openstack` command as tests type it, and what of it a test has tried.

Commands and their options are read from the installed client (entry points of `openstack.load_balancer.v2`), so that a
new client with a new command shows up as one that is not tried."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

SHELL = """
import contextlib, io, json, sys
from openstackclient import shell
for line in sys.stdin:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = shell.main(json.loads(line))
        except SystemExit as end:
            status = end.code
    print(sys.argv[1] + json.dumps([status, out.getvalue(), err.getvalue()]), file=sys.__stdout__, flush=True)
"""
MARK = "--- ended: "

OF_EVERY_COMMAND = frozenset(
    {"-h", "-f", "-c", "--noindent", "--prefix", "--max-width", "--fit-width", "--print-empty"}
) | {*("--quote", "--sort-column", "--sort-ascending", "--sort-descending", "--variable")}
"""Options that say how to print."""


@cache
def installed_commands() -> Mapping[str, frozenset[tuple[str, ...]]]:
    """Every command below `openstack loadbalancer` in its words, with its options; spellings of one stand together."""
    found = {}
    for entry in entry_points(group="openstack.load_balancer.v2"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what the client imports is its own affair
            parser: argparse.ArgumentParser = entry.load()(None, None).get_parser("openstack")
        options = (tuple(x.option_strings) for x in parser._actions if x.option_strings)
        words = entry.name.replace("_", " ").removeprefix("loadbalancer ")
        found[words] = frozenset(x for x in options if not OF_EVERY_COMMAND & set(x))
    return found


@dataclass
class Tried:
    """What was typed, by command: the options."""

    commands: dict[str, set[str]] = field(default_factory=dict)

    def note(self, words: tuple[str, ...]) -> None:
        command = max((x for x in installed_commands() if words[: x.count(" ") + 1] == tuple(x.split(" "))), key=len)
        options = {x.partition("=")[0] for x in words if x.startswith("--")}
        self.commands.setdefault(command, set()).update(options)

    def untried_commands(self) -> set[str]:
        return set(installed_commands()) - set(self.commands)

    def untried_options(self) -> set[str]:
        return {
            f"{command} {option[0]}"
            for command, options in installed_commands().items()
            for option in options
            if not set(option) & self.commands.get(command, set())
        }


class Cli:
    """`openstack loadbalancer …`, as typed. Answers are read with -f json.

    Each command goes through the entry point of the `openstack` script, in one process for all: its start costs more
    than what it does. `type` runs the script itself. `environment` says who logs in, and where."""

    def __init__(self, environment: Mapping[str, str], tried: Tried | None = None) -> None:
        self.tried = tried or Tried()
        self._environment = {key: value for key, value in os.environ.items() if not key.startswith("OS_")}
        self._environment |= environment
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", SHELL, MARK],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=self._environment,
        )

    @classmethod
    def without_login(cls, endpoint: str) -> Cli:
        return cls({"OS_AUTH_TYPE": "none", "OS_ENDPOINT": endpoint})

    @classmethod
    def with_token(cls, endpoint: str, token: str, tried: Tried) -> Cli:
        """Logged in already, and without a catalog."""
        return cls({"OS_AUTH_TYPE": "admin_token", "OS_ENDPOINT": endpoint, "OS_TOKEN": token}, tried)

    def close(self) -> None:
        self._process.communicate(timeout=20)

    def type(self, *words: str) -> subprocess.CompletedProcess[str]:
        script = str(Path(sys.executable).with_name("openstack"))
        return subprocess.run(
            [script, "loadbalancer", *words],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=self._environment,
        )

    def run(self, *words: str) -> tuple[int, str, str]:
        """Exit status, standard output, standard error."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self.tried.note(words)
        self._process.stdin.write(json.dumps(["loadbalancer", *words]) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line.startswith(MARK), f"{words}: {line!r}"
        status, output, error = json.loads(line.removeprefix(MARK))
        return status, output, error

    def quiet(self, *words: str) -> None:
        status, output, error = self.run(*words)
        assert status == 0, (words, output, error)

    def ask(self, *words: str) -> Any:
        status, output, error = self.run(*words, "-f", "json")
        assert status == 0, (words, output, error)
        return json.loads(output)

    def refused(self, *words: str) -> str:
        """What a command says that cannot be carried out."""
        status, output, error = self.run(*words)
        assert status != 0, (words, output)
        return error

    def offered(self, *words: str) -> bool:
        """Whether it is done; otherwise the driver has no such thing, which must be said with 501."""
        status, output, error = self.run(*words)
        assert status == 0 or "HTTP 501" in error, (words, output, error)
        return status == 0
