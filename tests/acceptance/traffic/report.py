"""Which rows are covered, by which tests, and which are not and why: docs/traffic-coverage.md.

`python -m tests.acceptance.traffic.report` writes the page anew (`make traffic-report`); tests/unit/docs compares."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.acceptance.traffic.elsewhere import IN_A_MACHINE, LEFT, MACHINE_TESTS, WITHOUT_EFFECT
from tests.acceptance.traffic.groups import GROUPS
from tests.acceptance.traffic.rows import RESOURCES, rows

PAGE = Path(__file__).parents[3] / "docs" / "traffic-coverage.md"

_HEAD = """# What is proved by traffic

Every attribute that a tenant can write, by the contract (tests/contract/resources.yaml), and each of its values that may
act differently. What is covered was made over the API of a real installation, and clients and members saw what it does
(tests/acceptance/traffic; each test is called after the group and the case that are named here). What is left is refused
by the API, which a test sees to. `make traffic-report` writes this page.
"""


def covered() -> dict[str, list[str]]:
    """Row -> the cases that answer for it."""
    found: dict[str, list[str]] = {}
    for group in GROUPS:
        for case in group.cases:
            for row in case.rows:
                found.setdefault(row, []).append(f"{group.name}: {case.name}")
    return found


def classified() -> dict[str, list[str]]:
    """Each list of rows by its name. Raises ValueError when a row is in none or in two, or none is what a list names."""
    lists = {"covered": set(covered()), "without effect": set(WITHOUT_EFFECT), "left": set(LEFT)}
    known = rows()
    for row in known:
        holders = [name for name, each in lists.items() if row in each]
        if len(holders) != 1:
            raise ValueError(f"{row} is {' and '.join(holders) or 'in no list'}")
    for name, each in lists.items():
        if unknown := each - set(known):
            raise ValueError(f"{name}: the contract has no {', '.join(sorted(unknown))}")
    return {name: [row for row in known if row in each] for name, each in lists.items()}


def summary() -> str:
    lists = classified()
    cases = sum(len(group.cases) for group in GROUPS)
    left = len(lists["left"]) - len(IN_A_MACHINE)
    return (
        f"{len(rows())} rows: {len(lists['covered'])} covered by {cases} tests, {len(lists['without effect'])} without "
        f"effect on traffic, {len(IN_A_MACHINE)} proved in a virtual machine, {left} left."
    )


def page() -> str:
    lists, by = classified(), covered()
    parts = [_HEAD, f"{summary()}\n", "## Covered\n"]
    for resource in RESOURCES:
        own = [row for row in lists["covered"] if row.startswith(f"{resource}.")]
        parts.append(
            "\n".join([f"### {resource}\n", "| row | seen by |", "|---|---|", *(_row(x, by[x]) for x in own), ""])
        )
    parts.append(
        "## In a virtual machine\n\nRefused by the API where these tests run, since amphorae there have no kernel of their own; "
        f"proved by the driver's traffic through one that has ({MACHINE_TESTS}, long).\n"
    )
    machine = [f"| `{row}` | {', '.join(_words(x) for x in IN_A_MACHINE[row])} |" for row in IN_A_MACHINE]
    parts.append("\n".join(["| row | seen by |", "|---|---|", *machine, ""]))
    parts.append("## Left\n")
    left = [
        f"| `{row}` | {LEFT[row].reason} | {LEFT[row].status} |" for row in lists["left"] if row not in IN_A_MACHINE
    ]
    parts.append("\n".join(["| row | why | refused with |", "|---|---|---|", *left, ""]))
    parts.append("## Without effect on traffic\n")
    reasons: dict[str, list[str]] = {}
    for row in lists["without effect"]:
        reasons.setdefault(WITHOUT_EFFECT[row], []).append(f"`{row}`")
    parts.append("\n".join(f"- {reason}: {', '.join(each)}" for reason, each in reasons.items()) + "\n")
    return "\n".join(parts)


def _words(test: str) -> str:
    return test.removeprefix("test_").replace("_", " ")


def _row(row: str, cases: list[str]) -> str:
    """At most three tests are named."""
    more = f", and {len(cases) - 3} more" if len(cases) > 3 else ""
    return f"| `{row}` | {'; '.join(cases[:3])}{more} |"


if __name__ == "__main__":
    PAGE.write_text(page())
    sys.stdout.write(f"{summary()}\n")
    for left in (x for x in LEFT if x not in IN_A_MACHINE):
        sys.stdout.write(f"left: {left} ({LEFT[left].reason})\n")
