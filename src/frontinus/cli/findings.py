"""How findings are shown, by whichever command looks at something: one line each, with what to do below it; or as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable

import click
import msgspec

from frontinus.cli.output import say
from frontinus.model.findings import Finding, Grade

_MARKS = {Grade.OK: ("ok", "green"), Grade.WARNING: ("warning", "yellow"), Grade.TROUBLE: ("TROUBLE", "red")}


def show(finding: Finding) -> None:
    mark, colour = _MARKS[finding.grade]
    say(f"{click.style(f'{mark:8}', fg=colour)} {finding.subject:12} {finding.told}")
    if finding.advice:
        say(f"{'':21} -> {finding.advice}")


def show_all(findings: Iterable[Finding], *, as_json: bool) -> int:
    """Each as it comes; as JSON all at the end. The exit status as of `conclude`."""
    found = []
    for finding in findings:
        found.append(finding)
        if not as_json:
            show(finding)
    return conclude(found, as_json=as_json)


def conclude(findings: list[Finding], *, as_json: bool) -> int:
    """Say how many, or as JSON all of them. Exit status 0 when there is no trouble, else 1."""
    count = sum(x.grade is Grade.TROUBLE for x in findings)
    if as_json:
        say(json.dumps([msgspec.to_builtins(x) for x in findings], indent=2))
    else:
        say(f"{count} troubles, {sum(x.grade is Grade.WARNING for x in findings)} warnings")
    return 1 if count else 0
