"""How a driver is examined: one check for each thing that its interface's docstrings promise.

A kit (compute_conformance.py and its sisters) has a Bench, which says how to make the driver and how to reach behind
its back, and CHECKS. Run them all and read the report:

    report = await examine(ComputeBench(factory=lambda: MyCompute(settings)))
    print(report); assert report.passed

or make each a test of its own: `@pytest.mark.parametrize("check", CHECKS, ids=str)`, then `await check.run(bench)`.

`factory` gives a new driver at each call, all on one world: a second driver is the controller after a restart, or
another controller. The checks make places and addresses under fresh ids and clean up after themselves."""

from __future__ import annotations

import asyncio
import unittest
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

B = TypeVar("B")


class Violation(Exception):
    """The driver does not do what its interface says. The message tells what was seen."""


class NotExaminable(Exception):
    """The bench lacks what this check needs. The message names it."""


class NotApplicable(unittest.SkipTest):
    """The driver does not claim what this check is about. The message says what it does not claim. As a test of pytest or
    unittest such a check is skipped."""


class Outcome(StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "not examined"
    """The bench has not what it takes: nobody knows."""
    NOT_APPLICABLE = "not applicable"
    """The driver does not claim it."""


@dataclass(frozen=True)
class Check(Generic[B]):
    """`claim` is the promise, close to the words of the interface."""

    name: str
    claim: str
    run: Callable[[B], Awaitable[None]]
    """Raises Violation, NotExaminable or NotApplicable; anything else is a driver that raised what it may not."""

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Finding:
    check: str
    claim: str
    outcome: Outcome
    detail: str = ""


@dataclass(frozen=True)
class Report:
    """What came of every check, in order."""

    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing failed. Look at `skipped` too: what was not examined was not passed."""
        return not self.failed

    @property
    def failed(self) -> tuple[str, ...]:
        return self._named(Outcome.FAILED)

    @property
    def skipped(self) -> tuple[str, ...]:
        return self._named(Outcome.SKIPPED)

    @property
    def not_applicable(self) -> tuple[str, ...]:
        return self._named(Outcome.NOT_APPLICABLE)

    @property
    def summary(self) -> str:
        """How many of each outcome, as `24 passed, 1 failed`."""
        counted = Counter(finding.outcome for finding in self.findings)
        return ", ".join(f"{counted[outcome]} {outcome}" for outcome in Outcome if counted[outcome])

    def __str__(self) -> str:
        width = max(map(len, Outcome))
        return "\n".join(
            f"{finding.outcome:{width}}  {finding.check}: {finding.claim}"
            + (f"\n{'':{width}}  {finding.detail}" * bool(finding.detail))
            for finding in self.findings
        )

    def _named(self, outcome: Outcome) -> tuple[str, ...]:
        return tuple(finding.check for finding in self.findings if finding.outcome is outcome)


class Checks(Generic[B]):
    """The checks of one kit, in the order in which they are written."""

    def __init__(self) -> None:
        self._checks: list[Check[B]] = []

    def claim(self, claim: str) -> Callable[[Callable[[B], Awaitable[None]]], Callable[[B], Awaitable[None]]]:
        """Makes a function a check, named after it."""

        def add(run: Callable[[B], Awaitable[None]]) -> Callable[[B], Awaitable[None]]:
            self._checks.append(Check(run.__name__.replace("_", " "), claim, run))
            return run

        return add

    def all(self) -> tuple[Check[B], ...]:
        return tuple(self._checks)


async def hold(checks: Sequence[Check[B]], bench: B, limit: float) -> Report:
    """Run the checks one after another. One that takes longer than `limit` seconds has failed."""
    return Report(tuple([await _find(check, bench, limit) for check in checks]))


async def _find(check: Check[B], bench: B, limit: float) -> Finding:
    try:
        async with asyncio.timeout(limit):
            await check.run(bench)
    except NotExaminable as lack:
        return Finding(check.name, check.claim, Outcome.SKIPPED, str(lack))
    except NotApplicable as lack:
        return Finding(check.name, check.claim, Outcome.NOT_APPLICABLE, str(lack))
    except Violation as violation:
        return Finding(check.name, check.claim, Outcome.FAILED, str(violation))
    except TimeoutError:
        return Finding(check.name, check.claim, Outcome.FAILED, f"it took longer than {limit:g} s")
    except Exception as error:  # noqa: BLE001 - the driver is on trial: whatever it raises is the finding
        return Finding(check.name, check.claim, Outcome.FAILED, f"it raised {error!r}")
    return Finding(check.name, check.claim, Outcome.PASSED)


def require(condition: object, seen: str) -> None:
    """Raise Violation telling what was seen, unless the condition holds."""
    if not condition:
        raise Violation(seen)


async def expect(error: type[BaseException], call: Awaitable[object], when: str) -> BaseException:
    """The error of this kind that the call raises. Raises Violation when it does not; other errors pass through."""
    try:
        answer = await call
    except error as raised:
        return raised
    raise Violation(f"{when}: {error.__name__} was due, and the answer is {answer!r}")
